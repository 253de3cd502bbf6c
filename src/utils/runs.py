"""Run directories on disk, read back: what `utils/rundir.py` wrote, by this process or any other, dead or alive."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from utils.args import ConfigError
from utils.yaml_file import read_yaml


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
    def status(self):
        """running (or killed: a dead process cannot say so), finished, failed, interrupted; broken."""
        return "broken" if self.problem else self.summary["status"]


def find_runs(*roots):
    """The runs in or below the folders `roots`, each once, sorted by path. Never raises over a damaged one."""
    found = {path.resolve(): path for root in roots for path in _folders(Path(root))}
    return [_read(path) for path in sorted(found.values())]


def _folders(root):
    """Folders that hold config.yaml beside a summary, metrics, a log or claims: nothing below those is looked at."""
    for folder, below, files in os.walk(root):
        if "config.yaml" in files and {"summary.json", "metrics.jsonl", "log.txt", "claims"} & {*files, *below}:
            below.clear()
            yield Path(folder)


def _read(path):
    run = Run(path)
    try:
        run.config = read_yaml(path / "config.yaml")
        if not isinstance(run.config, dict) or not {"name", "env", "env_args", "seed"} <= run.config.keys():
            run.config, run.problem = {}, "config.yaml is not that of a run"
            return run
    except ConfigError as error:
        run.problem = f"config.yaml cannot be read: {error}"
        return run
    try:
        run.summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        if not isinstance(run.summary, dict) or "status" not in run.summary:
            run.summary, run.problem = {}, "summary.json is not that of a run"
    except FileNotFoundError:
        run.problem = "summary.json is missing"
    except (OSError, ValueError, RecursionError) as error:
        run.problem = f"summary.json cannot be read: {error}"
    return run


def records(path, last_bytes=None):
    """The objects of a metrics.jsonl, oldest first; with last_bytes only those that lie in its end.

    A run may be writing it: lines that are cut or damaged are left out, and no file is no records.
    """
    try:
        with open(path, "rb") as f:
            if last_bytes:
                f.seek(max(0, f.seek(0, os.SEEK_END) - last_bytes))
            lines = f.read().splitlines()
    except OSError:
        return []
    parsed = (_record(line) for line in lines)
    return [record for record in parsed if record is not None]


def _record(line):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and {"key", "value", "t_env", "episode", "time"} <= record.keys()
    return record if whole else None
