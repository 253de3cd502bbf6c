"""Sacred's MongoDB observer, made so that an absent or slow server does not end the run (see `observers.py`).

metrics.jsonl is the record. What the server did not get in time it gets when it is back, or by src/sync.py. What is
stored, and how, is in `mongo_entry.py`.
"""

import contextlib
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

from sacred.observers import RunObserver

from recording.mongo_entry import HOW_TO_GIVE_IT, connect, moment
from recording.observers import plain
from utils.logging import Outage
from utils.messages import without_password

CAPTURED_OUT = 1_000_000  # characters of console output kept in MongoDB, whose documents end at 16 MB


class PatientMongoObserver(RunObserver):
    """Sacred's MongoObserver, whose server may be away at the start, leave, refuse, and come back.

    url, db_name: the server and its database. seconds: the longest that one event may take.
    Without the server a run is registered at the first heartbeat that reaches it; metrics wait,
    artifacts of that time are missed. The run's `_id` in the database is a number of its own.
    run_id, mine: see `observers.py`; the run's document holds the run_id. A reply that was lost makes nothing double,
    neither the document nor a point of a metric. began: when the run's first process began, as ISO text, if it was not
    this one. run_dir: named where the console is told how to deliver what is missing.
    A url with a user and without his password is none to connect to: all waits, which is told once.
    Raises ConfigError for a malformed url or database name and when pymongo is missing.
    """

    # Below the file observer's 20: the files come first, and their number names the run.
    priority = 10

    def __init__(
        self,
        url: str,
        db_name: str,
        seconds: float = 3.0,
        run_id: str | None = None,
        mine: Callable[[], bool] = lambda: True,
        began: str | None = None,
        run_dir: str | Path = "RUN_DIR",
    ) -> None:
        self._inner, self._lacks_password = connect(url, db_name, seconds, run_id or uuid.uuid4().hex)
        self._inner.began = moment(began)
        self._mine = mine
        self._name = f"MongoDB {without_password(url)}, database {db_name}"
        self._seconds = seconds
        self._console = logging.getLogger("qtran")
        self._sync = f"python src/sync.py {run_dir}"
        later = f"training goes on; what is missing is delivered when it is back, or by: {self._sync}"
        self._outage = Outage(self._name, self._console, later)
        self._lock = threading.Lock()  # heartbeats come from another thread than the start and the end
        self._started = None  # the arguments of started_event, until the run is registered
        self._incoming = deque()  # metrics as Sacred hands them out
        self._beaten = False  # whether Sacred has handed out metrics, be it none
        self._told = set()  # what of `_inner.left_out` the console was told

    def started_event(
        self,
        ex_info: dict,
        command: str,
        host_info: dict,
        start_time: datetime,
        config: dict,
        meta_info: dict,
        _id: Any,
    ) -> Any:
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
        if self._lacks_password:
            self._console.warning(
                "%s: the password is not known; training goes on, records wait; deliver them with: %s; %s",
                self._name, self._sync, HOW_TO_GIVE_IT,
            )  # fmt: skip
        self._deliver(lambda: None)

    def log_metrics(self, metrics_by_name: dict, info: dict) -> None:
        """Only queues: Sacred sends a heartbeat right after, and an absent server is waited for once."""
        if not self._lacks_password:
            self._incoming.append(metrics_by_name)
            self._beaten = True

    def heartbeat_event(self, info: dict, captured_out: str | None, beat_time: datetime, result: Any) -> None:
        def beat() -> None:
            output = (captured_out or "")[-CAPTURED_OUT:]
            self._inner.heartbeat_event(plain({**info, **self._inner.listed}), output, beat_time, plain(result))

        self._deliver(beat)

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._deliver(lambda: self._inner.completed_event(stop_time, plain(result)))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._deliver(lambda: self._inner.interrupted_event(interrupt_time, status))

    def failed_event(self, fail_time: datetime, fail_trace: list[str]) -> None:
        self._deliver(lambda: self._inner.failed_event(fail_time, fail_trace))

    def resource_event(self, filename: str) -> None:
        self._deliver_if_there(lambda: self._inner.resource_event(filename))

    def artifact_event(
        self, name: str, filename: str, metadata: dict | None = None, content_type: str | None = None
    ) -> None:
        self._deliver_if_there(lambda: self._inner.artifact_event(name, filename, metadata, content_type))

    def close(self) -> None:
        """Free the connections. Not earlier than ex.run returns: Sacred's last heartbeat may be late."""
        self._inner.close()

    def _deliver(self, event: Callable[[], Any]) -> None:
        """Register the run if it is not yet, send the metrics that wait, then call `event`.

        Takes `seconds` at most once it is its turn, for which it waits no longer than that.
        """
        if self._lacks_password or not self._mine():
            return
        with self._outage, self._turn(), self._inner.deadline(self._seconds):
            self._register()
            try:
                self._send_metrics()
            finally:  # metrics that cannot be stored must not stop the heartbeats
                event()
        self._tell_what_is_left_out()

    def _deliver_if_there(self, event: Callable[[], Any]) -> None:
        """As `_deliver`, but the main thread does not wait again for a server known to be away."""
        if not self._outage.active:
            self._deliver(event)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._seconds):
            raise TimeoutError("the previous event is still under way")
        try:
            yield
        finally:
            self._lock.release()

    def _register(self) -> None:
        if self._started is not None:
            number = self._inner.started_event(**self._started)
            self._started = None
            self._console.info("%s: run %s", self._name, number)

    def _send_metrics(self) -> None:
        while self._incoming:
            self._inner.known.add(self._incoming.popleft())
        if self._beaten:
            self._inner.store()

    def _tell_what_is_left_out(self) -> None:
        for what, why in list(self._inner.left_out.items()):
            if what not in self._told:
                self._told.add(what)
                self._console.warning("%s: %s is left out: %s", self._name, what, why)
