"""Sacred's file observer, made so that a full disk cannot cost the run; `mongo_observer.py` has the one for MongoDB.

Sacred ends the run when `started_event` raises, and drops an observer for good after one exception
anywhere else. Ours raise nothing after the start: they warn, keep the metrics, and go on.
"""

import json
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from utils.logging import Outage, unwritable


def plain(value):
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

    def __init__(self):
        self.by_name = {}

    def add(self, metrics_by_name):
        for name, new in metrics_by_name.items():
            series = self.by_name.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            for field, points in series.items():
                points.extend(plain(new[field]))


def file_observer(results_path, name, task):
    """A FileStorageObserver of results_path/sacred/<name>/<task>/<n>, EPyMARL's layout.

    Raises ConfigError when that folder cannot be written.
    """
    folder = Path(results_path) / "sacred" / str(name) / str(task)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error
    return PatientFileObserver(folder)


class PatientFileObserver(FileStorageObserver):
    """Sacred's file observer, which a full disk does not silence and which never tears a file.

    Source files are not copied: run.json names the git commit.
    """

    dir: Any  # the run's folder, once it has started

    def __init__(self, basedir):
        super().__init__(basedir, copy_sources=False)
        self._outage = Outage(f"Sacred's files in {basedir}", logging.getLogger("qtran"))
        self._waiting = WaitingMetrics()
        self._saving = threading.Lock()  # Sacred's heartbeat thread may still write while the run ends

    def save_json(self, obj, filename):
        """Replace the file whole. Sacred truncates it first: a full disk or a kill then loses it all."""
        path = os.path.join(self.dir, filename)
        with self._saving:
            with open(path + ".new", "w") as f:
                json.dump(flatten(plain(obj)), f, sort_keys=True, indent=2)
            os.replace(path + ".new", path)

    def log_metrics(self, metrics_by_name, info):
        self._waiting.add(metrics_by_name)
        if self._waiting.by_name:
            with self._outage:
                super().log_metrics(self._waiting.by_name, info)
                self._waiting = WaitingMetrics()

    def heartbeat_event(self, info, captured_out, beat_time, result):
        with self._outage:
            super().heartbeat_event(info, captured_out, beat_time, result)

    def artifact_event(self, name, filename, metadata=None, content_type=None):
        with self._outage:
            super().artifact_event(name, filename, metadata, content_type)

    def resource_event(self, filename):
        with self._outage:
            super().resource_event(filename)

    def completed_event(self, stop_time, result):
        with self._outage:
            super().completed_event(stop_time, result)

    def interrupted_event(self, interrupt_time, status):
        with self._outage:
            super().interrupted_event(interrupt_time, status)

    def failed_event(self, fail_time, fail_trace):
        with self._outage:
            super().failed_event(fail_time, fail_trace)
