"""Sacred's file observer, made so that a full disk does not end the run; `mongo_observer.py` has the one for MongoDB.

Sacred ends the run when `started_event` raises, and drops an observer for good after one exception
anywhere else. Ours raise nothing after the start: they warn, keep the metrics, and go on.

A run that is resumed has the `run_id` of before, by which its entry is found again: the same entry goes on. The first
metrics of a resumed process replace those that the entry has. mine(): whether the run is still this process's; once
another has taken it over, nothing is stored any more. It must not raise.
"""

import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from utils.args import TrainingError
from utils.logging import Outage
from utils.messages import brief, unwritable
from utils.runs import read_json


def plain(value: Any) -> Any:
    """`value` with numpy and torch scalars, arrays and tensors as Python numbers and lists.

    Sacred would store them as jsonpickle objects, which only Python reads.
    """
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


class WaitingMetrics:
    """Metrics that an observer has not stored yet: {name: {"steps", "values", "timestamps"}}.

    Sacred hands each point out once, so what a failed heartbeat did not store has to wait here.
    """

    def __init__(self) -> None:
        self.by_name = {}

    def add(self, metrics_by_name: dict) -> None:
        for name, new in metrics_by_name.items():
            series = self.by_name.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            for field, points in series.items():
                points.extend(plain(new[field]))


def file_observer(
    results_path: str | os.PathLike,
    name: str,
    task: str,
    run_id: str | None = None,
    mine: Callable[[], bool] = lambda: True,
) -> "PatientFileObserver":
    """A FileStorageObserver of results_path/sacred/<name>/<task>/<n>, EPyMARL's layout.

    run_id, mine: see above; run.json holds the run_id. Raises ConfigError when that folder cannot be written.
    """
    folder = Path(results_path) / "sacred" / str(name) / str(task)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error
    return PatientFileObserver(folder, run_id, mine)


class PatientFileObserver(FileStorageObserver):
    """Sacred's file observer, which a full disk does not silence and which never tears a file.

    Source files are not copied: run.json names the git commit.
    """

    dir: Any  # the run's folder, once it has started

    def __init__(self, basedir: str | Path, run_id: str | None = None, mine: Callable[[], bool] = lambda: True) -> None:
        super().__init__(basedir, copy_sources=False)
        self._run_id, self._mine = run_id, mine
        self._outage = Outage(f"Sacred's files in {basedir}", logging.getLogger("qtran"))
        self._waiting = WaitingMetrics()
        self._replace = False  # whether metrics.json is of an earlier process
        self._saving = threading.Lock()  # Sacred's heartbeat thread may still write while the run ends

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
        """As Sacred's, but a run whose run_id has a folder goes on in that one. TrainingError where it cannot be
        written."""
        try:
            folder, before = self.earlier_entry()
            self._replace = folder is not None
            if folder is None:
                self._make_run_dir(_id)
            else:
                self.dir = str(folder)
            ex_info["sources"] = self.save_sources(ex_info)
            self.run_entry = {
                "experiment": dict(ex_info),
                "command": command,
                "host": dict(host_info),
                "start_time": before.get("start_time", start_time.isoformat()),
                "meta": meta_info,
                "status": "RUNNING",
                "resources": before.get("resources", []),
                "artifacts": before.get("artifacts", []),
                "heartbeat": None,
            }
            if self._run_id is not None:
                self.run_entry["run_id"] = self._run_id
            self.config, self.info = config, {}
            self.cout, self.cout_write_cursor = "", 0
            self.save_json(self.run_entry, "run.json")
            self.save_json(self.config, "config.json")
            self.save_cout()
            return os.path.relpath(self.dir, self.basedir) if _id is None else _id
        except OSError as error:
            raise TrainingError(f"Sacred's files in {self.basedir} cannot be written: {brief(error)}") from error

    def save_json(self, obj: Any, filename: str) -> None:
        """Replace the file whole. Sacred truncates it first: a full disk or a kill then loses it all."""
        path = os.path.join(self.dir, filename)
        with self._saving:
            with suppress(FileNotFoundError):
                os.remove(path + ".new")  # of a kill; a process that was frozen may go on writing it
            with open(path + ".new", "x", encoding="utf-8") as f:
                json.dump(flatten(plain(obj)), f, sort_keys=True, indent=2)
            if self._mine():
                os.replace(path + ".new", path)

    def log_metrics(self, metrics_by_name: dict, info: dict) -> None:
        self._waiting.add(metrics_by_name)
        if self._waiting.by_name or self._replace:
            self._store(self._store_metrics, info)

    def heartbeat_event(self, info: dict, captured_out: str | None, beat_time: datetime, result: Any) -> None:
        self._store(super().heartbeat_event, info, captured_out, beat_time, result)

    def artifact_event(
        self, name: str, filename: str, metadata: dict | None = None, content_type: str | None = None
    ) -> None:
        self._store(super().artifact_event, name, filename, metadata, content_type)

    def resource_event(self, filename: str) -> None:
        self._store(super().resource_event, filename)

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._store(super().completed_event, stop_time, result)

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._store(super().interrupted_event, interrupt_time, status)

    def failed_event(self, fail_time: datetime, fail_trace: list[str]) -> None:
        self._store(super().failed_event, fail_time, fail_trace)

    def _store(self, event: Callable[..., None], *arguments: Any) -> None:
        if self._mine():
            with self._outage:
                event(*arguments)

    def _make_dir(self, _id: Any) -> None:
        """As Sacred's, but run.json is in the folder from its first moment: a kill leaves none that nobody finds."""
        made = tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self.basedir)
        folder = os.path.join(self.basedir, str(_id))
        try:
            with open(os.path.join(made, "run.json"), "x", encoding="utf-8") as f:
                json.dump({"run_id": self._run_id}, f)
            os.chmod(made, 0o755)
            os.rename(made, folder)  # fails where the name is taken: an entry is never empty
        except OSError as error:
            shutil.rmtree(made, ignore_errors=True)
            if os.path.exists(folder):
                raise FileExistsError(folder) from error  # Sacred tries the next number
            raise
        self.dir = folder

    def earlier_entry(self) -> tuple[Path | None, dict[str, Any]]:
        """The folder that an earlier process of the run has left, and its run.json; (None, {}) if there is none."""
        if self._run_id is None:
            return None, {}
        folders = [path for path in Path(self.basedir).iterdir() if path.name.isdigit()]
        for folder in sorted(folders, key=lambda path: -int(path.name)):  # the newest is the likeliest
            with suppress(OSError, ValueError):  # another run's, damaged
                entry = read_json(folder / "run.json")
                if isinstance(entry, dict) and entry.get("run_id") == self._run_id:
                    return folder, entry
        return None, {}

    def _store_metrics(self, info: dict[str, Any]) -> None:
        if self._replace:
            self._replace_metrics()
            self._replace = False
        else:
            super().log_metrics(self._waiting.by_name, info)
        self._waiting = WaitingMetrics()

    def _replace_metrics(self) -> None:
        """Make metrics.json what waits, and nothing else. Without any metrics there is no such file."""
        if not self._waiting.by_name:
            Path(self.dir, "metrics.json").unlink(missing_ok=True)
            return
        whole = {
            name: {**series, "timestamps": [when.isoformat() for when in series["timestamps"]]}
            for name, series in self._waiting.by_name.items()
        }
        self.save_json(whole, "metrics.json")
