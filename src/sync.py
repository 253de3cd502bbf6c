"""Command line: bring MongoDB what it lacks of a run.

python src/sync.py results/qmix/two_step/seed1_20260101T000000Z
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import math
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from utils import command
from utils.disk import expanded

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from utils.runs import Run


STEP_SECONDS = 30.0  # the longest that one of the few steps of a delivery may take
ENDS = {"finished": "COMPLETED", "failed": "FAILED", "interrupted": "INTERRUPTED"}  # what Sacred calls them

DETAILS = """\
A run does not wait for MongoDB: metrics.jsonl is its record. This brings what MongoDB lacks of it, because it was away,
slow or refused, or because the run had no mongo_url. The run's document and metrics are then those that a run with a
server at hand would have left. Call it as often as you like. In the run's directory nothing changes but claims/.

  python src/sync.py results/qmix/two_step/seed1_...
  python src/sync.py results/qmix/two_step/seed1_... with mongo_url=mongodb://me:PASSWORD@host:27017 mongo_db=runs

Without mongo_url and mongo_db those of the run are taken. No file of a run holds the password: give it in mongo_url, or
name a file that holds it in the environment, QTRAN_MONGO_PASSWORD_FILE=FILE.

exit status: 0 MongoDB has all of the run; 1 it was not reached, or refused; 2 bad input, or a process still works on
the run; 128 + its number after a signal
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("with") if "with" in argv else len(argv)
    options, stray = parser().parse_known_args(argv[:split])
    if stray:
        if any(re.match(r"\w+=", word) for word in stray):
            hint = "; values come after the word `with`"
        else:
            hint = "" if any(word.startswith("-") for word in stray) else "; one run directory is taken at a time"
        parser().error(f"unrecognized arguments: {' '.join(stray)}{hint}")
    return command.status_of(act, options, argv[split + 1 :])


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/sync.py",
        "Bring MongoDB what it lacks of a run.",
        DETAILS,
        usage="%(prog)s RUN_DIR [with mongo_url=URL mongo_db=NAME]",
    )
    p.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, as a run prints it")
    return p


def act(options: argparse.Namespace, words: list[str]) -> int:
    from utils import interrupts
    from utils.claim import ClaimLost
    from utils.config import parse_overrides

    url, database = address(read_run(options.run_dir), parse_overrides(words))
    interrupts.catch()
    try:
        return sync(options.run_dir, url, database)
    except ClaimLost as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        interrupts.release()


def sync(run_dir: str, url: str, database: str) -> int:
    """Deliver the run and say what was delivered; returns the exit status."""
    from utils.config import import_sacred
    from utils.messages import brief, count, without_password

    import_sacred()
    from bson.errors import BSONError
    from pymongo.errors import PyMongoError

    from recording.mongo_entry import deliver
    from utils.claim import take_idle

    where = f"MongoDB {without_password(url)}, database {database}"
    claim = take_idle(expanded(run_dir))
    try:
        run = read_run(run_dir)  # again: it stays as it is now
        entry, began = document(run, claim.run_id)
        series = given_to_sacred(read_records(run), run.config["t_max"], entry["status"] != "RUNNING")
        done = deliver(url, database, claim.run_id, entry, series, STEP_SECONDS, claim.look, began)
    except (PyMongoError, BSONError) as error:
        print(f"error: {where}: {brief(error)}; call this again when it works: nothing is lost", file=sys.stderr)
        return 1
    finally:
        claim.release()
    amounts = f"{count(done.changed, 'document')}, {count(done.metrics, 'metric')}, {count(done.points, 'point')}"
    missing = done.changed or done.metrics
    print(f"{where}, run {done.run}{' (new)' if done.new else ''}: ", end="")
    print(f"delivered {amounts}" if missing else "nothing was missing")
    for what, why in done.left_out.items():
        print(f"error: {where}: {what} is left out: {why}", file=sys.stderr)
    return 1 if done.left_out else 0


# ---- what is asked for


def read_run(run_dir: str) -> Run:
    """The Run in a folder. ConfigError where there is none."""
    from utils.args import ConfigError
    from utils.runs import find_runs, is_step

    folder = expanded(run_dir)
    if not folder.is_dir():
        raise ConfigError(f"{run_dir}: no such folder; a run prints its own as `run directory: PATH`")
    found = find_runs(folder)
    run = next((run for run in found if run.path == folder), None)
    if run is None:
        hint = f"; runs below it: {', '.join(str(run.path) for run in found[:3])}" if found else ""
        raise ConfigError(f"{run_dir}: not a run directory{hint}")
    if not run.config:
        raise ConfigError(f"{run_dir}: {run.problem}")
    if not is_step(run.config.get("t_max")):
        raise ConfigError(f"{run_dir}: config.yaml is not that of a run: t_max is {run.config.get('t_max')!r}")
    return run


def address(run: Run, overrides: dict) -> tuple[str, str]:
    """(mongo_url, mongo_db), as given or as the run has them. ConfigError where one is missing, or more is given."""
    from utils.args import ConfigError, nearest
    from utils.messages import shown

    known = ("mongo_url", "mongo_db")
    more = [key for key in overrides if key not in known]
    if more:
        raise ConfigError(
            f"after `with` only {' and '.join(known)} can be given, not {more[0]}{nearest(more[0], known)}"
        )
    for key, value in overrides.items():
        if not value or not isinstance(value, str):
            told = "must be text and not empty; a number in quotes is text"
            raise ConfigError(f"{key} = {shown(value)} {told}: with \"mongo_db='5'\"")
    values = {key: overrides.get(key, run.config.get(key)) for key in known}
    lacking = [key for key, value in values.items() if not value or not isinstance(value, str)]
    if lacking:
        raise ConfigError(
            f"{run.path}: {' and '.join(lacking)} not known: the run has none; give them, as text: "
            "with mongo_url=mongodb://HOST:27017 mongo_db=NAME"
        )
    return str(values["mongo_url"]), str(values["mongo_db"])


# ---- the run, as Sacred has it


def document(run: Run, run_id: str) -> tuple[dict, datetime | None]:
    """(the run's document as Sacred's MongoDB observer would have left it, when the run began if that is known)."""
    from sacred.observers import MongoObserver
    from sacred.serializer import flatten

    from recording.mongo_entry import moment

    told = sacred_files(run, run_id)
    summary = run.path / "summary.json"
    changed = utc((summary if summary.exists() else run.path / "config.yaml").stat().st_mtime)
    began, status = moment(told.get("start_time")), told.get("status")
    entry = {
        "experiment": {"name": run.config["name"], **told.get("experiment", {}), "sources": []},
        "format": MongoObserver.VERSION,
        "command": told.get("command", "command"),
        "host": told.get("host", {}),
        "start_time": began or named_time(run.path) or changed,
        "config": flatten(run.config),
        "meta": told.get("meta", {}),
        "resources": [],
        "artifacts": [],
        "captured_out": "",  # log.txt has it
        "heartbeat": moment(told.get("heartbeat")) if status else changed,
    }
    ended = ENDS.get(str(run.summary.get("status")))
    if status is None or (status == "RUNNING" and ended in ("COMPLETED", "FAILED")):  # the disk was full
        status = ended or "RUNNING"
        told = told | ({"stop_time": changed.isoformat()} if ended else {})
    entry["status"] = str(status)
    entry |= {key: told[key] for key in ("result", "fail_trace") if key in told}
    entry |= {"stop_time": moment(told["stop_time"])} if "stop_time" in told else {}
    return entry, began


def sacred_files(run: Run, run_id: str) -> dict:
    """run.json in the run's folder of results/sacred; {} where there is none."""
    from recording.observers import PatientFileObserver

    for path in (run.path.absolute(), run.path.resolve()):
        if len(path.parents) > 2:
            folder = path.parents[2] / "sacred" / str(run.config["name"]) / path.parent.name
            if folder.is_dir() and (found := PatientFileObserver(folder, run_id).earlier_entry()[1]):
                return found
    return {}


def named_time(path: Path) -> datetime | None:
    """The time in a run directory's name, seed1_20260101T000000Z."""
    found = re.search(r"_(\d{8}T\d{6})Z", path.name)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S") if found else None
    except ValueError:
        return None


def utc(seconds: float) -> datetime:
    """As Sacred writes times: UTC, without saying so."""
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)


def read_records(run: Run) -> list:
    """The Records of metrics.jsonl. Damaged lines are left out, and counted in a message."""
    from utils.logging import Record
    from utils.messages import count
    from utils.runs import read_bytes, records

    path = run.path / "metrics.jsonl"
    found = []
    for line in records(path):
        value = math.nan if line["value"] is None else line["value"]
        number = isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
        if number and line["time"] < 2**37:  # the year 6325: beyond are no dates
            found.append(Record(line["key"], value, line["t_env"], line["episode"], line["time"]))
    damaged = read_bytes(path).count(b"\n") - len(found) if path.exists() else 0
    if damaged > 0:
        print(f"{path}: {count(damaged, 'line')} cannot be read and left out", file=sys.stderr)
    return found


def given_to_sacred(records: list, t_max: int, ended: bool) -> dict:
    """What Sacred is given of a run's records, as its observers get it. ended: and of the last values, at the end."""
    from sacred.metrics_logger import linearize_metrics

    from recording.sinks import SacredSink

    run = StandIn(records)
    sink = SacredSink(run, t_max)
    sink.resume(records)
    if ended:
        sink.close()
    return linearize_metrics(run._metrics.get_last_metrics())


class StandIn:
    """Sacred's run, as far as SacredSink uses it. What it is given last has the time of its record, not of now."""

    def __init__(self, records: list):
        from sacred.metrics_logger import MetricsLogger

        self._metrics = MetricsLogger()
        self._last = {record.key: record for record in records}

    def log_scalar(self, name: str, value: float, step: int) -> None:
        from sacred.metrics_logger import ScalarMetricLogEntry

        entry = ScalarMetricLogEntry(name, step, utc(self._last[name].time), value)
        self._metrics._logged_metrics.put(entry)


if __name__ == "__main__":
    sys.exit(main())
