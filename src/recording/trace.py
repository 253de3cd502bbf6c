"""A trace of what some rounds of training do, call by call. Perfetto (ui.perfetto.dev) and chrome://tracing show it."""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

ROUNDS = 10  # that are traced, after the first one in which something was learned


class Trace:
    """Call `round` after each round of training, and `close` at the end. path: of the file, trace.json."""

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self.path, self.log = path, log
        self.profiler: profile | None = None
        self.until: int | None = None  # the last round of the trace

    def round(self, number: int, learned: bool) -> None:
        """number: rounds so far. learned: whether an update was made."""
        if self.until is None and learned:
            self.until = number + ROUNDS
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self.profiler = profile(activities=activities)
            self.profiler.start()
        elif self.until is not None and number >= self.until:
            self.close()

    def close(self) -> None:
        """Write what there is."""
        if self.profiler is None:
            return
        profiler, self.profiler = self.profiler, None
        profiler.stop()
        profiler.export_chrome_trace(str(self.path))
        self.log.info(f"trace: {self.path} (open it at ui.perfetto.dev)")
