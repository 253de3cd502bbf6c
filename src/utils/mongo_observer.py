"""Sacred's MongoDB observer, made so that an absent or slow server cannot cost the run (see `observers.py`)."""

import contextlib
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
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
    run_id, mine: see `observers.py`; the run's document holds the run_id. A reply that was lost makes nothing double,
    neither the document nor a point of a metric.
    Raises ConfigError for a malformed url or database name and when pymongo is missing.
    """

    # Below the file observer's 20: the files come first, and their number names the run.
    priority = 10

    def __init__(self, url, db_name, seconds=3.0, run_id: str | None = None, mine: Callable[[], bool] = lambda: True):
        self._inner = _inner_observer(url, db_name, seconds, run_id or uuid.uuid4().hex)
        self._mine = mine
        self._name = f"MongoDB {without_password(url)}, database {db_name}"
        self._seconds = seconds
        self._console = logging.getLogger("qtran")
        self._outage = Outage(self._name, self._console)
        self._lock = threading.Lock()  # heartbeats come from another thread than the start and the end
        self._started = None  # the arguments of started_event, until the run is registered
        self._incoming = deque()  # metrics as Sacred hands them out
        self._waiting = WaitingMetrics()
        self._beaten = False  # whether Sacred has handed out metrics, be it none
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
        self._beaten = True

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
        if not self._mine():
            return
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
            number = self._inner.started_event(**self._started)
            self._started = None
            self._info = dict(self._inner.run_entry["info"])
            self._console.info("%s: run %s", self._name, number)

    def _send_metrics(self):
        while self._incoming:
            self._waiting.add(self._incoming.popleft())
        if not self._waiting.by_name and not (self._beaten and self._inner.replacing):
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
    uploads every source file. What failed here can be called again: nothing is stored twice.

    run_id: the field of the run's document by which a later process finds it.
    replacing: whether the metrics in the database are still those of an earlier process.
    """

    _client: Any
    metrics: Any  # the collection

    run_entry: dict  # the run's document; Sacred sets it in started_event

    def __init__(self, *args: Any, run_id: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.run_id, self.replacing = run_id, False
        self._number: int | None = None  # the _id that was tried last
        self._stored: dict[str, int] = {}  # {metric: its points in the database, of this process}

    def deadline(self, seconds):
        """A context in which all operations together take at most `seconds`."""
        import pymongo

        return pymongo.timeout(seconds)

    def close(self):
        self._client.close()

    def save_sources(self, ex_info):
        return []  # the run holds the git commit

    def insert(self) -> None:
        """Go on in the run's document or, if there is none, insert one. Sacred calls it in started_event."""
        from pymongo.errors import DuplicateKeyError

        self.run_entry["run_id"] = self.run_id
        while not self._go_on():
            if self._number is None:
                last = self.runs.find_one({}, {"_id": 1}, sort=[("_id", -1)])
                self._number = last["_id"] + 1 if last else 1
            self.run_entry["_id"] = self._number
            try:
                self.runs.insert_one(self.run_entry)
                return
            except DuplicateKeyError:  # another run has the number, or an earlier try has arrived after all
                self._number = None

    def _go_on(self) -> bool:
        """Go on in the document that has the run_id; False if there is none."""
        kept = dict.fromkeys(("start_time", "resources", "artifacts", "info"), 1)  # and _id
        before = self.runs.find_one({"run_id": self.run_id}, kept)
        if before is None:
            return False
        self.run_entry |= before
        self.runs.replace_one({"_id": before["_id"]}, self.run_entry)
        self.replacing = True
        return True

    def log_metrics(self, metrics_by_name, info):
        """Store the points behind those of earlier calls.

        Call it again with the same points, or the same and more, when it failed because the server was away; points
        that were refused are gone. A call while `replacing` replaces all metrics of the run.
        """
        from pymongo.errors import BulkWriteError

        names = list(metrics_by_name)
        if names:
            updates = [self._update(name, metrics_by_name[name]) for name in names]
            try:
                # Unordered: one that is refused does not hold up the rest.
                self.metrics.bulk_write(updates, ordered=False)
            except BulkWriteError as error:
                if not _is_away(error):
                    refused = {names[one["index"]] for one in error.details["writeErrors"]}
                    self._count({name: metrics_by_name[name] for name in names if name not in refused})
                raise
        run = {"run_id": self.run_entry["_id"]}
        if self.replacing:
            self.metrics.delete_many(run | {"name": {"$nin": [*self._stored, *names]}})
        if self.replacing or any(name not in self._stored for name in names):
            found = self.metrics.find(run, {"name": 1})
            info["metrics"] = [{"name": metric["name"], "id": str(metric["_id"])} for metric in found]
        self._count(metrics_by_name)
        self.replacing = False

    def _update(self, name: str, series: dict[str, list]) -> Any:
        """What puts the points at their places in the metric's lists: the same however often it is carried out."""
        from pymongo import UpdateOne

        at = self._stored.get(name, 0)
        if at == 0:
            fields = series
        else:
            fields = {f"{field}.{at + i}": point for field, points in series.items() for i, point in enumerate(points)}
        return UpdateOne({"run_id": self.run_entry["_id"], "name": name}, {"$set": fields}, upsert=at == 0)

    def _count(self, metrics_by_name: dict[str, dict[str, list]]) -> None:
        for name, series in metrics_by_name.items():
            self._stored[name] = self._stored.get(name, 0) + len(series["steps"])

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
    observer = _inner_observer(url, db_name, seconds, run_id="")
    try:
        with observer.deadline(seconds):
            observer.runs.find_one({}, {"_id": 1})
    finally:
        observer.close()


def _inner_observer(url, db_name, seconds, run_id: str) -> "_PromptMongoObserver":
    try:
        import pymongo.errors
    except ImportError as error:
        raise missing_package("mongo_url", "pymongo==4.20.0") from error
    milliseconds = int(1000 * seconds)
    try:
        return _PromptMongoObserver(
            url,
            db_name,
            run_id=run_id,
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
        return {"password": Path(path).read_text(encoding="utf-8").strip()}
    except OSError as error:
        raise ConfigError(f"{PASSWORD_FILE}={path}: cannot be read: {error.strerror}") from error


def _is_away(error):
    """Whether the server was not reached (in time), rather than reached and unwilling."""
    from pymongo.errors import ConnectionFailure

    return isinstance(error, ConnectionFailure) or getattr(error, "timeout", False)
