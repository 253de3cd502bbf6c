"""Run directories on disk, read back: what `utils/rundir.py` wrote, by this process or any other, dead or alive."""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from utils.args import ConfigError
from utils.identity import text
from utils.messages import short
from utils.yaml_file import DEEPEST, read_yaml

LARGEST, LARGEST_JSON = 2**32, 2**28  # bytes of a file that is read whole
OUTCOMES = {"summary.json", "metrics.jsonl", "log.txt", "claims"}  # one of them beside config.yaml: a run directory


class Damaged(ConfigError):
    """A file that a run needs to go on is not as it was written."""


@dataclass
class Run:
    """One run directory. `problem` says what is wrong with it; what could be read is there all the same."""

    path: Path
    config: dict = field(default_factory=dict)  # config.yaml
    summary: dict = field(default_factory=dict)  # summary.json
    problem: str | None = None

    @property
    def status(self) -> str:
        """running (or killed: a dead process cannot say so), finished, failed, interrupted; broken."""
        return "broken" if self.problem else self.summary["status"]


def find_runs(*roots: str | Path) -> list[Run]:
    """The runs in or below the folders `roots`, each once, sorted by path. Never raises over a damaged one."""
    found = []
    for path, names, below in folders(*roots):
        if is_run(names):
            below.clear()  # what lies in a run is its own
            found.append(path)
    return [_read(path) for path in sorted(found)]


def is_run(names: set[str]) -> bool:
    """Whether a folder with these names in it is a run directory."""
    return "config.yaml" in names and bool(OUTCOMES & names)


def folders(
    *roots: str | Path, unreadable: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, set[str], list[str]]]:
    """(folder, names in it, names of the folders in it) of all in or below `roots`, each once, by a path without
    symbolic links before one with them. Clear the last one, and nothing below the folder is looked at.

    unreadable: called for a folder that cannot be looked into.
    """
    seen, waiting = set(), [str(root) for root in roots]
    for root in waiting:
        for folder, below, files in os.walk(root, onerror=unreadable):
            try:
                status = os.stat(folder)
            except OSError:  # it is gone since
                below.clear()
                continue
            if (status.st_dev, status.st_ino) in seen:
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below[:] = sorted(name for name in below if not name.endswith(".partial"))  # not there yet, or never
            yield Path(folder), {*below, *files}, below
            links = [path for name in below if os.path.islink(path := os.path.join(folder, name))]
            waiting += links  # os.walk lists them, and leaves them alone


def _read(path: Path) -> Run:
    run = Run(path)
    try:
        config = read_yaml(path / "config.yaml")
    except ConfigError as error:
        run.problem = f"config.yaml cannot be read: {error}"
        return run
    if problem := unlike_a_run(config):
        run.problem = f"config.yaml {problem}"
        return run
    run.config = config
    try:
        summary = read_json(path / "summary.json")
        if isinstance(summary, dict) and "status" in summary:
            run.summary = summary
        else:
            run.problem = "summary.json is not that of a run"
    except FileNotFoundError:
        run.problem = "summary.json is missing"
    except (OSError, ValueError) as error:
        run.problem = f"summary.json cannot be read: {error}"
    return run


def unlike_a_run(config: Any) -> str | None:
    """What is wrong with the configuration of a run, or None. Plain data, as `read_yaml` and `read_json` give it."""
    if not isinstance(config, dict) or not {"name", "env", "env_args", "seed"} <= config.keys():
        return "is not that of a run"
    own = config["env_args"] if isinstance(config["env_args"], dict) else {}
    if not all(isinstance(key, str) for key in (*config, *own)):
        return "is not that of a run: a key is no text"
    try:
        text(config)
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "holds text that is not valid Unicode"
    except (TypeError, ValueError):  # keys of several types, a number of more digits than Python writes
        return "holds what cannot be compared"
    value = (str, int, float)
    kinds = {"name": value, "env": value, "seed": (*value, type(None)), "env_args": (dict, type(None))}
    for key, kind in kinds.items():
        if not isinstance(config[key], kind):
            return f"is not that of a run: {key} is {short(config[key])}"
    return None


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. ValueError where it is damaged, OSError where it cannot be read."""
    try:
        value = json.loads(read_bytes(path, most=LARGEST_JSON).decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = _nested([value])
    for _ in range(DEEPEST):
        level = _nested(chain.from_iterable(at.values() if isinstance(at, dict) else at for at in level))
    if level:
        raise ValueError(f"it has more than {DEEPEST} levels of lists and objects")
    return value


def _nested(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, (dict, list))]


def read_bytes(path: str | Path, last: int | None = None, most: int = LARGEST) -> bytes:
    """Of a file, or only its last so many bytes. OSError where it is not a regular file, as to read a pipe would wait
    for its writer, and for more than `most` bytes."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file")
    if not last and status.st_size > most:
        raise OSError(f"it has {status.st_size} bytes; at most {most} are read")
    with open(path, "rb") as f:
        if last:
            f.seek(max(0, f.seek(0, os.SEEK_END) - last))
        return f.read()


def is_step(value: Any) -> bool:
    """Whether a value can be a number of environment steps."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def records(path: Path, last_bytes: int | None = None) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl, oldest first; with last_bytes only those that lie in its end.

    A run may be writing it: lines that are cut or damaged are left out, and no file is no records.
    """
    try:
        lines = read_bytes(path, last_bytes).splitlines()
    except OSError:
        return []
    parsed = (_record(line) for line in lines)
    return [record for record in parsed if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and {"key", "value", "t_env", "episode", "time"} <= record.keys()
    if not whole or not isinstance(record["key"], str) or not is_step(record["t_env"]):
        return None
    seconds = record["time"]
    return record if isinstance(seconds, (int, float)) and 0 <= seconds < 2**63 else None
