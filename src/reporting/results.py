"""What runs left behind, read back for a comparison: our run directories and Sacred's folders (EPyMARL's).

Nothing here raises over a damaged run: `problem` says what is wrong, and what could be read is there.
"""

import json
import os
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from utils.identity import text
from utils.runs import find_runs

STAMPED = re.compile(r"seed\d+_(\d{8}T\d{6})Z(?:_(\d+))?$")  # the name of a run directory
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
    versions: dict = field(default_factory=dict)
    commit: str | None = None
    series: dict = field(default_factory=dict)
    damaged_lines: int = 0  # of metrics.jsonl, the last one not counted
    nonfinite: dict = field(default_factory=dict)  # {metric: points that hold no finite number}
    last_step: dict = field(default_factory=dict)  # {metric: step of its last point, finite or not}


def find_results(roots, metrics):
    """([Result] with the series of `metrics`, number of Sacred folders skipped as copies of a run directory)."""
    runs = find_runs(*roots)
    results = [_of_run(run, metrics) for run in runs]
    known = {text(run.config) for run in runs if run.config}
    seen = {run.path.resolve() for run in runs}
    copies = 0
    for kind, path in _other_folders(roots):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        if kind == "half":
            problem = "holds only config.yaml" if (path / "config.yaml").exists() else "config.yaml is missing"
            results.append(Result(path, "run directory", problem=problem))
        elif (result := _of_sacred(path)).config and text(result.config) in known:
            copies += 1
        else:
            _read_sacred_metrics(result, metrics)
            results.append(result)
    return sorted(results, key=lambda r: str(r.path)), copies


def metric_names(results):
    """The names of all the metrics that the runs hold, sorted. Reads every file whole."""
    names = set()
    for result in results:
        if result.source == "Sacred":
            names |= set(_json(result.path / "metrics.json") or {})
        else:
            names |= {r["key"] for line in _lines(result.path) if (r := _record(line)) is not None}
    return sorted(names)


def _other_folders(roots):
    """(kind, folder) of Sacred's folders ("sacred") and of run directories that lack their files ("half")."""
    for root in roots:
        for folder, below, files in os.walk(root):
            below.sort()
            path, names = Path(folder), set(files)
            if "config.yaml" in names and names & {"summary.json", "metrics.jsonl", "log.txt"}:
                below.clear()  # a run directory, which find_runs has read
            elif "run.json" in names or {"config.json"} < names & {"config.json", "cout.txt", "metrics.json"}:
                below.clear()
                yield "sacred", path
            elif STAMPED.match(path.name) or "metrics.jsonl" in names:
                below.clear()
                yield "half", path


# ---- our run directories


def _of_run(run, metrics):
    summary = run.summary
    result = Result(run.path, "run directory", run.config, str(run.status), started=_stamp(run.path))
    result.problem = run.problem or summary.get("reason")
    result.wall_time_s, result.commit = _number(summary.get("wall_time_s")), summary.get("commit")
    result.versions = _mapping(summary.get("versions"))
    result.t_env = _step(summary.get("t_env")) or 0
    _read_jsonl(result, metrics)
    return result


def _stamp(path):
    """The time in a run directory's name, or else that of its last change."""
    match = STAMPED.match(path.name)
    if match:
        return f"{match[1]}_{int(match[2] or 0):04d}"
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime((path / "config.yaml").stat().st_mtime))


def _lines(path):
    """The lines of metrics.jsonl as bytes, without a last one that is cut."""
    try:
        lines = (path / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return []
    return lines if lines and _record(lines[-1]) is not None else lines[:-1]


def _read_jsonl(result, metrics):
    """Only lines that hold a wanted name are parsed: most do not, and parsing is what takes the time."""
    wanted = re.compile(b"|".join(re.escape(json.dumps(name).encode()) for name in metrics))
    points = {name: {} for name in metrics}
    lines = _lines(result.path)
    for line in lines:
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


def _record(line):
    """The object of a line, or None where it is damaged."""
    try:
        record = json.loads(line)
        sound = isinstance(record["key"], str) and _step(record["t_env"]) is not None and "value" in record
    except (ValueError, TypeError, KeyError):
        return None
    return record if sound else None


def _add_series(result, name, by_step):
    """Keep what is finite of {step: value}, in ascending order."""
    if not by_step:
        return
    steps = sorted(by_step)
    values = np.array([_number(by_step[step]) for step in steps], dtype=float)  # None is NaN
    finite = np.isfinite(values)
    result.last_step[name] = steps[-1]
    result.nonfinite[name] = int((~finite).sum())
    if finite.any():
        result.series[name] = np.array(steps, dtype=float)[finite], values[finite]


# ---- Sacred's folders


def _of_sacred(path):
    result = Result(path, "Sacred")
    run, config = _json(path / "run.json"), _json(path / "config.json")
    if config is not None and {"name", "env", "env_args", "seed"} <= config.keys():
        result.config = config
    if run is None or config is None:
        name = "run.json" if run is None else "config.json"
        result.problem = f"{name} is {'damaged' if (path / name).exists() else 'missing'}"
        return result
    if not result.config:
        result.problem = "config.json is not that of a run"
        return result
    status = str(run.get("status"))
    result.status = SACRED_STATUS.get(status, status.lower())
    result.problem = _last_line(run.get("fail_trace"))
    result.started = re.sub(r"[-:]|\..*", "", str(run.get("start_time") or ""))
    result.wall_time_s = _seconds(run.get("start_time"), run.get("stop_time") or run.get("heartbeat"))
    _read_provenance(result, run)
    return result


def _read_provenance(result, run):
    experiment, host = _mapping(run.get("experiment")), _mapping(run.get("host"))
    packages = [str(package).partition("==") for package in experiment.get("dependencies") or []]
    result.versions = {name: version for name, _, version in packages if name in ("torch", "numpy")}
    if host.get("python_version"):
        result.versions = {"python": host["python_version"]} | result.versions
    for repository in map(_mapping, experiment.get("repositories") or []):
        if repository.get("commit"):
            result.commit = repository["commit"] + ("+" if repository.get("dirty") else "")
            return


def _read_sacred_metrics(result, metrics):
    found = _json(result.path / "metrics.json")
    if found is None:
        how = "damaged" if (result.path / "metrics.json").exists() else "missing"
        result.status, result.problem = "broken", result.problem or f"metrics.json is {how}"
        return
    for name, series in found.items():
        steps, values = (_mapping(series).get(part) for part in ("steps", "values"))
        if isinstance(steps, list) and isinstance(values, list):
            by_step = {step: value for step, value in zip(steps, values) if _step(step) is not None}
            result.t_env = max([result.t_env, *by_step])
            if name in metrics:
                _add_series(result, name, by_step)


def _last_line(trace):
    """The reason of a failure: the last line of its traceback."""
    lines = [line for line in "".join(map(str, trace or [])).splitlines() if line.strip()]
    return lines[-1].strip() if lines else None


def _seconds(start, stop):
    try:
        return (datetime.fromisoformat(stop) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None


# ---- both


def _number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _step(value):
    """A number of environment steps, or None where `value` is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mapping(value):
    return value if isinstance(value, dict) else {}


def _json(path):
    """The object of a JSON file, or None where it is missing, damaged or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
