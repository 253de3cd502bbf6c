"""A run's entry in MongoDB, its document and its metrics: find it, bring what it lacks of the run. And how to connect.

Nothing here tries again: errors come out. `mongo_observer.py` has the observer that handles them, src/sync.py calls
`deliver`.
"""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from sacred.observers import MongoObserver

from recording.observers import WaitingMetrics
from utils.args import ConfigError
from utils.messages import brief, missing_package, split_password, without_password

PASSWORD_FILE = "QTRAN_MONGO_PASSWORD_FILE"  # environment variable: a file with the password of mongo_url's user
HOW_TO_GIVE_IT = f"give it by {PASSWORD_FILE}=FILE in the environment, or in mongo_url"
NO_PASSWORD_NEEDED = re.compile(r"[?&;]authMechanism=(MONGODB-X509|MONGODB-OIDC|GSSAPI)\b", re.IGNORECASE)
MOST_BYTES = 15 * 2**20  # of the run's document
TOO_LARGE = {10334, 17419, 17420}  # the server's codes: of the document, after the update, after the insertion
AT_THE_END = ("stop_time", "fail_trace", "result")  # fields of a run's document that it does not have from the start


class RunEntry(MongoObserver):
    """Sacred's observer without its patience: errors come out, at once, and each event is a few round trips.

    Sacred's swallows lost connections, sleeps between attempts, sends metrics key by key and
    uploads every source file. What failed here can be called again: nothing is stored twice.

    run_id: the field of the run's document by which a later process finds it. began: when the run began, if the one who
    calls knows better than `started_event`.
    known: all points of the run so far; `store` brings what the database lacks of them. listed: {"metrics": [...]} for
    the info of the run's document, where it has metrics.
    left_out: {"metric loss": why} of what no document can hold. It is not sent again.
    """

    _client: Any
    metrics: Any  # the collection

    run_entry: dict  # the run's document; Sacred sets it in started_event

    def __init__(self, *args: Any, run_id: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run_id = run_id
        self.began: datetime | None = None
        self.known, self.listed, self.left_out = WaitingMetrics(), {}, {}
        self._number: int | None = None  # the _id that was tried last
        self._stored: dict[str, int] | None = None  # {metric: its points in the database}; None: to be seen
        self._alone = False  # whether the database has no other metrics of the run

    def deadline(self, seconds: float) -> AbstractContextManager[Any]:
        """A context in which all operations together take at most `seconds`."""
        import pymongo

        return pymongo.timeout(seconds)

    def close(self) -> None:
        self._client.close()

    def save_sources(self, ex_info: dict) -> list:
        return []  # the run holds the git commit

    def insert(self) -> None:
        """Go on in the run's document or, if there is none, insert one. Sacred calls it in started_event."""
        from pymongo.errors import DuplicateKeyError

        self.run_entry["run_id"] = self.run_id
        if self.began is not None:
            self.run_entry["start_time"] = self.began
        self._stored, self._alone = None, False
        while not self._go_on():
            if self._number is None:
                last = self.runs.find_one({}, {"_id": 1}, sort=[("_id", -1)])
                self._number = last["_id"] + 1 if last else 1
            self.run_entry["_id"] = self._number
            try:
                self.runs.insert_one(self._fitting())
                self._alone = True
                return
            except DuplicateKeyError:  # another run has the number, or an earlier try has arrived after all
                self._number = None

    def _go_on(self) -> bool:
        """Go on in the document that has the run_id; False if there is none. What others have added to it stays."""
        kept = {"_id", "resources", "artifacts", "info", *(() if self.began else ("start_time",))}
        before = self.runs.find_one({"run_id": self.run_id}, dict.fromkeys(kept, 1))
        if before is None:
            return False
        self.run_entry |= before
        self._number = before["_id"]
        self.listed = {k: v for k, v in before.get("info", {}).items() if k == "metrics"}
        gone = {name: "" for name in AT_THE_END if name not in self.run_entry}
        change = {"$set": self._fitting()} | ({"$unset": gone} if gone else {})
        self.runs.update_one({"_id": self._number}, change)
        return True

    def store(self) -> tuple[int, int]:
        """Bring the points that the database lacks, each to its place; (of how many metrics, how many).

        Metrics that are not `known` go. Call it again when it failed.
        """
        if self._stored is None:
            self._stored = self._look()
        at = {name: self._stored.get(name, 0) for name in self.known.by_name if f"metric {name}" not in self.left_out}
        lacking = {name: n for name, n in at.items() if n < self._count(name)}
        error = self._send(lacking)
        if self._stored is None and error is not None:
            raise error
        if not self._alone:
            ours = [self._metric_id(name) for name in self.known.by_name]
            self.metrics.delete_many({"run_id": self._number, "_id": {"$nin": ours}})
            self._alone = True
        there = [name for name in self.known.by_name if name in self._stored]
        if there or self.listed:
            self.listed = {"metrics": [{"name": name, "id": str(self._metric_id(name))} for name in there]}
        if error is not None:
            raise error
        sent = [self._count(name) - n for name, n in lacking.items() if f"metric {name}" not in self.left_out]
        return len(sent), sum(sent)

    def _look(self) -> dict[str, int]:
        """{metric: how many of its points the database has}, of those that it has; 0 where its points are others."""
        found, ids = {}, {self._metric_id(name): name for name in self.known.by_name}
        for document in self.metrics.find({"_id": {"$in": [*ids]}}):
            name, ours = ids[document["_id"]], self.known.by_name[ids[document["_id"]]]
            steps, values, times = (document.get(field) or [] for field in ("steps", "values", "timestamps"))
            n = len(steps)
            same = document.get("run_id") == self._number and n == len(values) == len(times)
            same = same and _equal(steps, ours["steps"][:n]) and _equal(values, ours["values"][:n])
            found[name] = n if same else 0
        return found

    def _send(self, lacking: dict[str, int]) -> Exception | None:
        """Send points: {metric: the place of the first}. What the server refuses of them does not hold up the rest."""
        from pymongo.errors import BulkWriteError, WriteError

        names, error = list(lacking), None
        if not names:
            return None
        try:
            updates = [self._update(name, at) for name, at in lacking.items()]
            done = self.metrics.bulk_write(updates, ordered=False).bulk_api_result
        except BulkWriteError as failure:
            done, error = failure.details, failure
        except Exception as failure:
            if not _is_unfit(failure):
                raise
            if len(names) > 1:  # which one is it?
                return next(filter(None, [self._send({name: at}) for name, at in lacking.items()]), None)
            self.left_out[f"metric {names[0]}"] = brief(failure)
            return None
        if done.get("writeConcernErrors"):  # it may be taken back
            return error
        refused = {names[one["index"]]: one for one in done.get("writeErrors", [])}
        too_large = {name: one for name, one in refused.items() if one["code"] in TOO_LARGE}
        self.left_out |= {f"metric {name}": one["errmsg"] for name, one in too_large.items()}
        if self._stored is not None:
            self._stored |= {name: self._count(name) for name in names if name not in refused}
        if done["nMatched"] + done["nUpserted"] + len(refused) < len(names):
            self._stored = None
            return RuntimeError("documents of this run have gone; they are written anew")
        others = [WriteError(f"metric {k}: {v['errmsg']}", v["code"]) for k, v in refused.items() if k not in too_large]
        return others[0] if others else None

    def _update(self, name: str, at: int) -> Any:
        """What puts the points from the place `at` on into the metric's lists: the same however often it is done."""
        from pymongo import UpdateOne

        series, key = self.known.by_name[name], {"_id": self._metric_id(name), "name": name}
        if at == 0:
            return UpdateOne(key, {"$set": {"run_id": self._number, **series}}, upsert=True)
        new = {f"{field}.{i}": points[i] for field, points in series.items() for i in range(at, len(points))}
        return UpdateOne(key, {"$set": new})

    def _metric_id(self, name: str) -> Any:
        """The same in every process: two tries at once cannot make two documents."""
        from bson import ObjectId

        text = f"{self.run_id} {name}".encode(errors="surrogatepass")
        return ObjectId(hashlib.sha256(text).digest()[:12])

    def _count(self, name: str) -> int:
        return len(self.known.by_name[name]["steps"])

    def save(self) -> None:
        key = {"_id": self.run_entry["_id"], "run_id": self.run_id}
        if not self.runs.update_one(key, {"$set": self._fitting()}).matched_count:
            self.insert()  # the document has gone
            if self.known.by_name:
                self.store()

    def _fitting(self) -> dict[str, Any]:
        """The run's document without the largest of its fields, as long as it is too large."""
        import bson

        entry = dict(self.run_entry)
        sizes = {name: len(bson.encode({name: value})) for name, value in entry.items()}
        while sum(sizes.values()) > MOST_BYTES:
            largest = max(sizes, key=lambda name: sizes[name])
            size = sizes.pop(largest)
            entry[largest] = {"left out": f"{size} bytes"}
            self.left_out.setdefault(f"the run's {largest}", f"{size} bytes are too many for a document")
        return entry

    def final_save(self, attempts: int) -> None:
        try:
            self.save()
        except Exception as error:
            if not _is_away(error):  # something in the document: the end is to be known anyway
                end = {name: self.run_entry[name] for name in ("status", "stop_time")}
                self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": end})
            raise


class Delivered(NamedTuple):
    """run: the number of its document, which is new, changed or neither. left_out: {what: why}."""

    run: int
    new: bool
    changed: bool
    metrics: int
    points: int
    left_out: dict[str, str]


def deliver(
    url: str,
    db_name: str,
    run_id: str,
    entry: dict[str, Any],
    series: dict[str, dict[str, list]],
    seconds: float,
    look: Callable[[], None] = lambda: None,
    began: datetime | None = None,
) -> Delivered:
    """Bring a run that nobody works on: its document `entry` (without _id and info) and all of its metrics.

    seconds: the longest that each of the few steps may take; look: called before each. began: when the run began, where
    that is known better than the server knows it. ConfigError as PatientMongoObserver, and where the password is not
    known; pymongo's errors, after which it can be called again.
    """
    observer, lacks_password = connect(url, db_name, seconds, run_id)
    try:
        if lacks_password:
            raise ConfigError(f"mongo_url {without_password(url)}: the password is not known; {HOW_TO_GIVE_IT}")
        observer.began, observer.run_entry = began, {"info": {}, **entry}
        observer.known.add(series)

        def step(act: Callable[[], Any]) -> Any:
            look()
            with observer.deadline(seconds):
                return act()

        before = step(lambda: observer.runs.find_one({"run_id": run_id}))
        step(observer.insert)
        metrics, points = step(observer.store)
        observer.run_entry["info"] = observer.run_entry["info"] | observer.listed
        step(observer.save)
        after = step(lambda: observer.runs.find_one({"run_id": run_id}))
        return Delivered(after["_id"], before is None, before != after, metrics, points, observer.left_out)
    finally:
        observer.close()


def ping_mongo(url: str, db_name: str, seconds: float) -> None:
    """Read from the database once; ConfigError as PatientMongoObserver, else pymongo's errors."""
    observer, lacks_password = connect(url, db_name, seconds, run_id="")
    try:
        if lacks_password:
            raise ConfigError(f"mongo_url {without_password(url)}: the password is not known; {HOW_TO_GIVE_IT}")
        with observer.deadline(seconds):
            observer.runs.find_one({}, {"_id": 1})
    finally:
        observer.close()


def connect(url: str, db_name: str, seconds: float, run_id: str) -> tuple[RunEntry, bool]:
    """(the observer, whether it lacks a password: then it must not be used)."""
    try:
        import pymongo.errors
    except ImportError as error:
        raise missing_package("mongo_url", "pymongo==4.20.0") from error
    milliseconds = int(1000 * seconds)
    address, password = split_password(url)
    password = _password_of_file() or unquote_plus(password or "")
    lacks = _lacks_password(address, password)
    if lacks:
        address, password = address.partition("?")[0], "-"  # is it an address at all?
    try:
        observer = RunEntry(
            address,
            db_name,
            run_id=run_id,
            **({"password": password} if password else {}),
            timeoutMS=milliseconds,  # of what runs outside a deadline: closing
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            connect=False,
        )
    except (pymongo.errors.PyMongoError, ValueError, TypeError) as error:
        raise ConfigError(f"mongo_url {without_password(url)!r}, mongo_db {db_name!r}: {error}") from error
    return observer, lacks


def _lacks_password(address: str, password: str) -> bool:
    """Whether a mongo_url has a user without a password, or an option for one that is empty (`without_password`)."""
    user = re.match(r"[\w+.-]+://[^/?@]+@", address)
    empty = re.search(r"[?&;]\w*password=(?:[&;]|$)|AWS_SESSION_TOKEN:(?:[,&;]|$)", address, re.IGNORECASE)
    return bool(empty) or bool(user and not password and not NO_PASSWORD_NEEDED.search(address))


def _password_of_file() -> str | None:
    """The password from the file that the environment names: no log and no list of processes shows it."""
    path = os.environ.get(PASSWORD_FILE)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{PASSWORD_FILE}={path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{PASSWORD_FILE}={path}: is not UTF-8 text") from None


def moment(text: Any) -> datetime | None:
    """The time that an ISO text of Sacred's files names; None where it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def _equal(a: list, b: list) -> bool:
    """Whether two lists of numbers are equal, nan like nan."""
    return len(a) == len(b) and all(x == y or (x != x and y != y) for x, y in zip(a, b))


def _is_away(error: BaseException) -> bool:
    """Whether the server was not reached (in time), rather than reached and unwilling."""
    from pymongo.errors import ConnectionFailure

    return isinstance(error, ConnectionFailure) or getattr(error, "timeout", False)


def _is_unfit(error: Exception) -> bool:
    """Whether no server could take what was to be sent: it is too large, or no BSON. An answer that cannot be read says
    nothing about that."""
    from bson.errors import InvalidDocument, InvalidStringData

    return isinstance(error, (InvalidDocument, InvalidStringData, OverflowError, UnicodeEncodeError))
