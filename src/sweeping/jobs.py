"""Runs as child processes of this machine."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sweeping.plan import PlannedRun, differences, literal
from utils.interrupts import ONE_STOP
from utils.runs import find_runs, records

MAIN = Path(__file__).resolve().parents[1] / "main.py"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
BAD_INPUT = 2  # main.py's exit status for what would fail the same again
TAIL = 8192  # bytes of metrics.jsonl that surely hold a record


class Job:
    """One attempt at a planned run, in a process group of its own. It resumes the newest run of that configuration, or
    starts one. log: where its console output goes. this: the directory of a run that has failed, or whose process is
    frozen: that one is resumed. environment: variables for the process, beside those of this one.
    """

    def __init__(
        self,
        run: PlannedRun,
        log: str | Path,
        this: Path | None = None,
        environment: dict | None = None,
        **changes: Any,
    ):
        self.run, self.log, self.started = run, Path(log), time.time()
        self.first = None  # record of metrics.jsonl
        self._directory = None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(run.values["num_threads"])
        words = ["--resume", str(this), *_of_this_place(run)] if this else ["--resume=latest", *run.words(**changes)]
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(MAIN), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ
                | dict.fromkeys(THREADS, threads)
                | {"PYTHONIOENCODING": "utf-8", ONE_STOP: "1"}
                | (environment or {}),
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,
            )

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the run and to all that it has started."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    @property
    def directory(self) -> Path | None:
        """The run directory, or None as long as there is none."""
        if self._directory is None:
            found = re.search(r"^run directory: (.+)$", self._output(), re.MULTILINE)
            self._directory = Path(found[1]) if found else None
        return self._directory

    def pace(self) -> tuple[int, float | None, float | None]:
        """(environment steps so far, steps a second or None, seconds left or None), as metrics.jsonl has them."""
        found = records(self.directory / "metrics.jsonl", TAIL) if self.directory else []
        before, found = found, [r for r in found if r["time"] >= self.started]  # others are of the run before a resume
        if not found:
            return before[-1]["t_env"] if before else 0, None, None
        self.first, last = self.first or found[0], found[-1]
        steps, seconds = last["t_env"] - self.first["t_env"], last["time"] - self.first["time"]
        if steps <= 0 or seconds <= 0:
            return last["t_env"], None, None
        left = (self.run.values["t_max"] - last["t_env"]) * seconds / steps - (time.time() - last["time"])
        return last["t_env"], steps / seconds, max(0.0, left)

    def failure(self) -> tuple[str | None, bool]:
        """(why an ended job has not done its run or None, whether it would fail the same again)."""
        code = self.process.returncode
        if code < 0:
            return f"ended by signal {-code} ({signal.strsignal(-code)})", False
        if code > 0:
            return self._last_words() or f"exit status {code}", code == BAD_INPUT
        left = find_runs(self.directory) if self.directory else []
        if [found.status for found in left] != ["finished"]:
            return "exit status 0, but no finished run directory", False
        differs = differences(left[0].config, self.run.values)
        return f"ran with other settings: {'; '.join(differs)}" if differs else None, bool(differs)

    def seconds(self) -> float:
        """Of the whole run, as far as its summary says, else of this attempt."""
        found = find_runs(self.directory) if self.directory else []
        wall = found[0].summary.get("wall_time_s") if found else None
        return wall if isinstance(wall, (int, float)) and wall < 1e12 else self.elapsed

    def _output(self) -> str:
        with suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def _last_words(self) -> str:
        """The message of the last error in the output, as one line."""
        lines = [line for line in self._output().splitlines() if line.strip()]
        starts = [i for i, line in enumerate(lines) if re.match(r"error: |\[ERROR [\d:]+\] ", line)] or [len(lines) - 1]
        text = " ".join(" ".join(lines[max(0, starts[-1]) :]).split())
        return re.sub(r"^(error: |\[ERROR [\d:]+\] )", "", text)


def _of_this_place(run: PlannedRun) -> list[str]:
    """What a run directory does not hold, or holds of the place where the run was, as words of a command line."""
    words = [f"mongo_url={literal(run.overrides['mongo_url'])}"] if run.overrides.get("mongo_url") else []
    if "ray_address" in run.overrides:
        words.append(f"ray_address={literal(run.overrides['ray_address'])}")
    return ["with", *words] if words else []


def stop(jobs: Collection[Job], hurry: Callable[[], bool] = lambda: False) -> None:
    """End jobs: SIGTERM, so that they save their states; SIGKILL after the longest of their `stop_seconds`, or when
    hurry() is true."""
    for job in jobs:
        job.signal(signal.SIGTERM)
    deadline = time.monotonic() + max([job.run.values["stop_seconds"] for job in jobs], default=0)
    while any(job.poll() is None for job in jobs) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    for job in jobs:
        job.signal(signal.SIGKILL)
        job.process.wait()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if sys.platform == "linux":
    _prctl = ctypes.CDLL(None).prctl  # here: the child of a fork should not load a library
    _SET_PARENT_DEATH_SIGNAL = 1

    def _end_with_parent(sweep: int) -> None:
        """In the child: SIGTERM when the sweep dies, even by SIGKILL. sweep: its process."""
        _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != sweep:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)
