"""Sacred's MongoDB observer, made so that an absent or slow server cannot cost the run (see `observers.py`)."""

import contextlib
import logging
import os
import threading
from collections import deque
from copy import deepcopy
from pathlib import Path
from typing import Any

from sacred.observers import MongoObserver, RunObserver

from utils.args import ConfigError
from utils.logging import Outage, missing_package, without_password
from utils.observers import WaitingMetrics, plain

PASSWORD_FILE = "QTRAN_MONGO_PASSWORD_FILE"  # environment variable: a file with the password of mongo_url's user
CAPTURED_OUT = 1_000_000  # characters of console output kept in MongoDB, whose documents end at 16 MB


class PatientMongoObserver(RunObserver):
    """Sacred's MongoObserver, whose server may be away at the start, leave, and come back.

    url, db_name: the server and its database. seconds: the longest that one event may take.
    Without the server a run is registered at the first heartbeat that reaches it; metrics wait,
    artifacts of that time are missed. The run's `_id` in the database is a number of its own.
    Raises ConfigError for a malformed url or database name and when pymongo is missing.
    """

    # Below the file observer's 20: the files come first, and their number names the run.
    priority = 10

    def __init__(self, url, db_name, seconds=3.0):
        self._inner = _inner_observer(url, db_name, seconds)
        self._name = f"MongoDB {without_password(url)}, database {db_name}"
        self._seconds = seconds
        self._console = logging.getLogger("qtran")
        self._outage = Outage(self._name, self._console)
        self._lock = threading.Lock()  # heartbeats come from another thread than the start and the end
        self._started = None  # the arguments of started_event, until the run is registered
        self._incoming = deque()  # metrics as Sacred hands them out
        self._waiting = WaitingMetrics()
        self._info = {}  # Sacred's list of the stored metrics, kept out of run.info

    def started_event(self, ex_info, command, host_info, start_time, config, meta_info, _id):
        self._started = deepcopy(
            dict(
                ex_info=ex_info,
                command=command,
                host_info=host_info,
                start_time=start_time,
                config=plain(config),
                meta_info=meta_info,
                _id=None,  # the given one counts the runs of one folder
            )
        )
        self._deliver(lambda: None)

    def log_metrics(self, metrics_by_name, info):
        """Only queues: Sacred sends a heartbeat right after, and an absent server is waited for once."""
        self._incoming.append(metrics_by_name)

    def heartbeat_event(self, info, captured_out, beat_time, result):
        def beat():
            output = (captured_out or "")[-CAPTURED_OUT:]
            self._inner.heartbeat_event(plain({**info, **self._info}), output, beat_time, plain(result))

        self._deliver(beat)

    def completed_event(self, stop_time, result):
        self._deliver(lambda: self._inner.completed_event(stop_time, plain(result)))

    def interrupted_event(self, interrupt_time, status):
        self._deliver(lambda: self._inner.interrupted_event(interrupt_time, status))

    def failed_event(self, fail_time, fail_trace):
        self._deliver(lambda: self._inner.failed_event(fail_time, fail_trace))

    def resource_event(self, filename):
        self._deliver_if_there(lambda: self._inner.resource_event(filename))

    def artifact_event(self, name, filename, metadata=None, content_type=None):
        self._deliver_if_there(lambda: self._inner.artifact_event(name, filename, metadata, content_type))

    def close(self):
        """Free the connections. Not earlier than ex.run returns: Sacred's last heartbeat may be late."""
        self._inner.close()

    def _deliver(self, event):
        """Register the run if it is not yet, send the metrics that wait, then call `event`.

        Takes `seconds` at most once it is its turn, for which it waits no longer than that.
        """
        with self._outage, self._turn(), self._inner.deadline(self._seconds):
            self._register()
            try:
                self._send_metrics()
            finally:  # metrics that cannot be stored must not cost the heartbeats
                event()

    def _deliver_if_there(self, event):
        """As `_deliver`, but the main thread does not wait again for a server known to be away."""
        if not self._outage.active:
            self._deliver(event)

    @contextlib.contextmanager
    def _turn(self):
        if not self._lock.acquire(timeout=self._seconds):
            raise TimeoutError("the previous event is still under way")
        try:
            yield
        finally:
            self._lock.release()

    def _register(self):
        if self._started is not None:
            run_id = self._inner.started_event(**self._started)
            self._started = None
            self._console.info("%s: run %s", self._name, run_id)

    def _send_metrics(self):
        while self._incoming:
            self._waiting.add(self._incoming.popleft())
        if not self._waiting.by_name:
            return
        try:
            self._inner.log_metrics(self._waiting.by_name, self._info)
        except Exception as error:
            if not _is_away(error):
                self._waiting = WaitingMetrics()  # refused: sending them again would be refused again
            raise
        self._waiting = WaitingMetrics()


class _PromptMongoObserver(MongoObserver):
    """Sacred's observer without its patience: errors come out, at once, and each event is a few round trips.

    Sacred's swallows lost connections, sleeps between attempts, sends metrics key by key and
    uploads every source file.
    """

    _client: Any
    metrics: Any  # the collection

    run_entry: dict  # the run's document; Sacred sets it in started_event

    def deadline(self, seconds):
        """A context in which all operations together take at most `seconds`."""
        import pymongo

        return pymongo.timeout(seconds)

    def close(self):
        self._client.close()

    def save_sources(self, ex_info):
        return []  # the run holds the git commit

    def log_metrics(self, metrics_by_name, info):
        from pymongo import UpdateOne

        names = list(metrics_by_name)
        updates = [
            UpdateOne(
                {"run_id": self.run_entry["_id"], "name": name},
                {"$push": {field: {"$each": points} for field, points in metrics_by_name[name].items()}},
                upsert=True,
            )
            for name in names
        ]
        # Unordered: one that is refused does not hold up the rest.
        result = self.metrics.bulk_write(updates, ordered=False)
        for index, object_id in result.upserted_ids.items():
            info.setdefault("metrics", []).append({"name": names[index], "id": str(object_id)})

    def save(self):
        self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": self.run_entry}, upsert=True)

    def final_save(self, attempts):
        try:
            self.save()
        except Exception as error:
            if not _is_away(error):  # something in the document, its size say: the end is to be known anyway
                end = {name: self.run_entry[name] for name in ("status", "stop_time")}
                self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": end})
            raise


def ping_mongo(url, db_name, seconds):
    """Read from the database once; ConfigError as PatientMongoObserver, else pymongo's errors."""
    observer = _inner_observer(url, db_name, seconds)
    try:
        with observer.deadline(seconds):
            observer.runs.find_one({}, {"_id": 1})
    finally:
        observer.close()


def _inner_observer(url, db_name, seconds):
    try:
        import pymongo.errors
    except ImportError as error:
        raise missing_package("mongo_url", "pymongo==4.20.0") from error
    milliseconds = int(1000 * seconds)
    try:
        return _PromptMongoObserver(
            url,
            db_name,
            **_password(),
            timeoutMS=milliseconds,  # of what runs outside a deadline: closing
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            connect=False,
        )
    except (pymongo.errors.PyMongoError, ValueError, TypeError) as error:
        raise ConfigError(f"mongo_url {without_password(url)!r}, mongo_db {db_name!r}: {error}") from error


def _password() -> dict[str, Any]:
    """{"password": text} from the file that the environment names: so that no log or config.yaml holds it."""
    path = os.environ.get(PASSWORD_FILE)
    if not path:
        return {}
    try:
        return {"password": Path(path).read_text().strip()}
    except OSError as error:
        raise ConfigError(f"{PASSWORD_FILE}={path}: cannot be read: {error.strerror}") from error


def _is_away(error):
    """Whether the server was not reached (in time), rather than reached and unwilling."""
    from pymongo.errors import ConnectionFailure

    return isinstance(error, ConnectionFailure) or getattr(error, "timeout", False)
