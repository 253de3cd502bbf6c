"""What runs left behind, read back for a comparison: our run directories and Sacred's folders (EPyMARL's).

Nothing here raises over a damaged run: `problem` says what is wrong, and what could be read is there.
"""

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from utils.identity import text
from utils.messages import brief
from utils.runs import Run, find_runs, folders, is_run, is_step, read_bytes, read_json, unlike_a_run

STAMPED = re.compile(r"seed\d+_(\d{8}T\d{6})Z(?:_(\d+))?$")  # the name of a run directory
LARGEST = 1e100  # of what is measured: figures and means are drawn and taken without overflow
SACRED_STATUS = {"COMPLETED": "finished", "RUNNING": "running", "FAILED": "failed", "INTERRUPTED": "interrupted"}


@dataclass
class Result:
    """One run. series: {metric: (steps [P], values [P])}, steps ascending, values finite; the metrics asked for."""

    path: Path
    source: str  # "run directory" or "Sacred"
    config: dict = field(default_factory=dict)
    status: str = "broken"  # finished, running (or killed), failed, interrupted, broken, …
    problem: str | None = None  # why it is not finished
    started: str = ""  # sorts by time
    t_env: int = 0  # environment steps it came to
    wall_time_s: float | None = None
    updates: float | None = None  # in each 1,000 steps
    parameters: int | None = None  # that are learned
    versions: dict = field(default_factory=dict)
    commit: str | None = None
    series: dict = field(default_factory=dict)
    damaged_lines: int = 0  # of metrics.jsonl, the last one not counted
    nonfinite: dict = field(default_factory=dict)  # {metric: steps [P] of its points that hold no finite number}
    label: str = ""  # of PATH=LABEL
    absolute: dict = field(default_factory=dict)  # {metric without test_: what the weights that tested best came to}
    score_range: Any = None  # what a game of the user's own declares, as it was found

    def last_step(self, name: str) -> int:
        """The step of the last point of a metric that is there, finite or not."""
        return int(max(steps[-1] for steps in (self.nonfinite[name], self.series.get(name, [()])[0]) if len(steps)))


def find_results(roots: Iterable[str | Path], metrics: Collection[str]) -> tuple[list[Result], int]:
    """([Result] with the series of `metrics`, number of Sacred folders skipped as copies of a run directory)."""
    runs = find_runs(*roots)
    results = [_read(_of_run, Result(run.path, "run directory"), run, metrics) for run in runs]
    known = {text(run.config) for run in runs if run.config}
    copies = 0
    for source, path, problem in _other_folders(roots):
        result = Result(path, source, problem=problem)
        if problem is None:
            result = _read(_of_sacred, result, path)
            if result.config and text(result.config) in known:
                copies += 1
                continue
            result = _read(_with_sacred_metrics, result, result, metrics)
        results.append(result)
    return sorted(results, key=lambda r: str(r.path)), copies


def _read(read: Callable[..., Result], result: Result, *args: Any) -> Result:
    """read(*args), a Result; `result` as a broken one where that fails: one strange run must not end a report."""
    try:
        return read(*args)
    except Exception as error:
        result.status, result.problem = "broken", f"cannot be read: {brief(error)}"
        return result


def metric_names(results: Iterable[Result]) -> list[str]:
    """The names of all the metrics that the runs hold, sorted. Reads every file whole."""
    names = set()
    for result in results:
        with suppress(OSError):
            if result.source == "Sacred":
                names |= set(_object(result.path / "metrics.json")[0] or {})
            else:
                names |= {r["key"] for line in _lines(result.path)[0] if (r := _record(line)) is not None}
    return sorted(names)


def _other_folders(roots: Iterable[str | Path]) -> Iterator[tuple[str, Path, str | None]]:
    """(source, path, problem) of Sacred's folders and of what looks like a run and is none, or cannot be looked into.
    problem: None for Sacred's folders."""
    unreadable = {}
    for path, names, below in folders(*roots, unreadable=lambda error: unreadable.update({error.filename: error})):
        if is_run(names):
            below.clear()  # find_runs has read it
        elif "run.json" in names or {"config.json"} < names & {"config.json", "cout.txt", "metrics.json"}:
            below.clear()
            yield "Sacred", path, None
        elif STAMPED.match(path.name) or "metrics.jsonl" in names:
            below.clear()
            missing = "holds only config.yaml" if "config.yaml" in names else "config.yaml is missing"
            yield "run directory", path, missing
        else:
            for name in sorted(names - {*below}):
                if (path / name).is_symlink() and not name.startswith(".") and not os.path.exists(path / name):
                    yield "run directory", path / name, "is a symbolic link that leads nowhere"
    for path, error in unreadable.items():
        if not isinstance(error, FileNotFoundError):  # gone since
            yield "run directory", Path(path), f"cannot be looked into: {_why(error)}"


# ---- our run directories


def _of_run(run: Run, metrics: Collection[str]) -> Result:
    summary = run.summary
    result = Result(run.path, "run directory", run.config, str(run.status), started=_stamp(run.path))
    result.problem = run.problem or _text(summary.get("reason"))
    result.wall_time_s, result.commit = _number(summary.get("wall_time_s")), _text(summary.get("commit"))
    result.versions = {k: str(v) for k, v in _mapping(summary.get("versions")).items() if v is not None}
    result.t_env = summary["t_env"] if is_step(summary.get("t_env")) else 0
    if result.t_env and (updates := _number(summary.get("updates"))) is not None:
        result.updates = 1000 * updates / result.t_env
    result.score_range = _mapping(summary.get("game")).get("score_range")
    found = _mapping(summary.get("absolute"))
    result.absolute = {k: x for k, v in found.items() if (x := _number(v)) is not None}
    if is_step(summary.get("parameters")):
        result.parameters = summary["parameters"]
    try:
        _read_jsonl(result, metrics)
    except OSError as error:
        if result.status == "finished":
            result.status, result.problem = "broken", f"metrics.jsonl cannot be read: {_why(error)}"
    return result


def _stamp(path: Path) -> str:
    """The time in a run directory's name, or else that of its last change."""
    match = STAMPED.match(path.name)
    if match:
        return f"{match[1]}_{int(match[2] or 0):04d}"
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime((path / "config.yaml").stat().st_mtime))


def _lines(path: Path) -> tuple[list[bytes], bytes | None]:
    """(the lines of metrics.jsonl as bytes, without a last one that is cut; none where there is no file; the same as
    one text where every line begins and ends as a record does, else None)"""
    try:
        data = read_bytes(path / "metrics.jsonl")
    except FileNotFoundError:
        return [], None
    lines = data.splitlines()
    whole = data.startswith(b"{") and data.count(b"}\n{") == len(lines) - 1 and data.endswith(b"}\n")
    cut = not lines or _record(lines[-1]) is None
    return lines[:-1] if cut else lines, data if whole and not cut else None


def _with(wanted: re.Pattern[bytes], data: bytes) -> Iterator[bytes]:
    """The lines of `data` that hold what the pattern `wanted` finds, each once."""
    end = 0
    while found := wanted.search(data, end):
        start, end = data.rfind(b"\n", 0, found.start()) + 1, data.find(b"\n", found.end())
        yield data[start:end]


def _read_jsonl(result: Result, metrics: Collection[str]) -> None:
    """Only lines that hold a wanted name are parsed: most do not, and parsing is what takes the time."""
    wanted = re.compile(b"|".join(re.escape(json.dumps(name).encode()) for name in metrics))
    points = {name: {} for name in metrics}
    lines, whole = _lines(result.path)
    for line in _with(wanted, whole) if whole is not None else lines:
        if wanted.search(line):
            record = _record(line)
            if record is None:
                result.damaged_lines += 1
            elif record["key"] in points:
                points[record["key"]][record["t_env"]] = record["value"]
        elif not (line.startswith(b"{") and line.endswith(b"}")):
            result.damaged_lines += 1
    if lines and (last := _record(lines[-1])) is not None:
        result.t_env = max(result.t_env, last["t_env"])
    for name, by_step in points.items():
        _add_series(result, name, by_step)


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line, or None where it is damaged."""
    try:
        record = json.loads(line)
        sound = isinstance(record["key"], str) and is_step(record["t_env"]) and "value" in record
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if sound else None


def _add_series(result: Result, name: str, by_step: dict[int, Any]) -> None:
    """Keep what is finite of {step: value}, in ascending order."""
    if not by_step:
        return
    steps = sorted(by_step)
    values = np.array([_number(by_step[step]) for step in steps], dtype=float)  # None is NaN
    finite = np.isfinite(values)
    steps = np.array(steps, dtype=float)
    result.nonfinite[name] = steps[~finite]
    if finite.any():
        result.series[name] = steps[finite], values[finite]


# ---- Sacred's folders


def _of_sacred(path: Path) -> Result:
    result = Result(path, "Sacred")
    (run, problem), (config, other) = _object(path / "run.json"), _object(path / "config.json")
    if config is not None:
        other = f"config.json {wrong}" if (wrong := unlike_a_run(config)) else None
        result.config = {} if other else config
    result.problem = problem or other
    if run is None or result.problem:
        return result
    status = str(run.get("status"))
    result.status = SACRED_STATUS.get(status, status.lower())
    result.problem = _last_line(run.get("fail_trace"))
    result.started = re.sub(r"[-:]|\..*", "", _text(run.get("start_time")) or "")
    result.wall_time_s = _seconds(run.get("start_time"), run.get("stop_time") or run.get("heartbeat"))
    _read_provenance(result, run)
    return result


def _read_provenance(result: Result, run: dict) -> None:
    experiment, host = _mapping(run.get("experiment")), _mapping(run.get("host"))
    packages = [str(package).partition("==") for package in _list(experiment.get("dependencies"))]
    result.versions = {name: version for name, _, version in packages if name in ("torch", "numpy")}
    if host.get("python_version"):
        result.versions = {"python": str(host["python_version"])} | result.versions
    for repository in map(_mapping, _list(experiment.get("repositories"))):
        if repository.get("commit"):
            result.commit = str(repository["commit"]) + ("+" if repository.get("dirty") else "")
            return


def _with_sacred_metrics(result: Result, metrics: Collection[str]) -> Result:
    found, problem = _object(result.path / "metrics.json")
    if found is None:
        result.status, result.problem = "broken", result.problem or problem
        return result
    for name, series in found.items():
        steps, values = (_mapping(series).get(part) for part in ("steps", "values"))
        if isinstance(steps, list) and isinstance(values, list):
            by_step = {step: value for step, value in zip(steps, values) if is_step(step)}
            result.t_env = max([result.t_env, *by_step])
            if name in metrics:
                _add_series(result, name, by_step)
    return result


def _last_line(trace: Any) -> str | None:
    """The reason of a failure: the last line of its traceback."""
    trace = trace if isinstance(trace, str) else "".join(map(str, _list(trace)))
    lines = [line for line in trace.splitlines() if line.strip()]
    return lines[-1].strip() if lines else None


def _seconds(start: Any, stop: Any) -> float | None:
    try:
        return (datetime.fromisoformat(stop) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None


# ---- both


def _number(value: Any) -> float | None:
    """A finite float, or None where `value` is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= LARGEST else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _object(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(the object of a JSON file, what is wrong with the file); one of them is None."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None, f"{path.name} is missing"
    except OSError as error:
        return None, f"{path.name} cannot be read: {_why(error)}"
    except ValueError:
        value = None
    return (value, None) if isinstance(value, dict) else (None, f"{path.name} is damaged")


def _why(error: OSError) -> str:
    """An OSError without its number and path, which stands beside it."""
    return error.strerror or str(error)
