"""Sides of a comparison: programs in processes of their own, which work in turn when they are told to.

A side is a function of `costs.ours`, `costs.epymarl`, ...: it makes all that is needed and returns (work, about).
work() does once what is measured, and may return figures of its own; about: {name: value} to be known before. Turns
alternate, A B A B, so that a noisy machine slows all sides alike. Every side has the same number of threads and the
same cores.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Made = tuple[Callable[[], dict], dict]  # what a side is made into: (work, about)
PROGRAM = Path(__file__).parents[1] / "side.py"


class BadInput(Exception):
    """What was asked for cannot be measured; the message says what to do."""


class Failed(Exception):
    """A side's program failed."""


class Interrupted(Exception):
    """Ctrl-C. turns: those that were finished, as `in_turn` returns them."""

    def __init__(self, turns: dict):
        super().__init__("interrupted")
        self.turns = turns


@dataclass(frozen=True)
class Job:
    """make: "module:function" of `costs`. cores: how many of the allowed ones it may use; None: all of them.
    python: the interpreter. fresh: a new process for each turn, as for a program from its start to its end."""

    make: str
    arguments: dict = field(default_factory=dict)
    threads: int = 1
    cores: int | None = None
    device: str = "cpu"
    python: str = sys.executable
    fresh: bool = False


class Side:
    """The process of a Job. `about` is what its program says of itself."""

    def __init__(self, name: str, job: Job):
        self.name, self.job = name, job
        allowed = sorted(os.sched_getaffinity(0))
        threads = {f"{library}_NUM_THREADS": str(job.threads) for library in ("OMP", "MKL", "OPENBLAS")}
        xla = f"--xla_cpu_multi_thread_eigen={str(job.threads > 1).lower()} intra_op_parallelism_threads={job.threads}"
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [job.python, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            start_new_session=True, text=True, env={**os.environ, **threads, "XLA_FLAGS": xla},
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._say({"make": job.make, "arguments": job.arguments, "threads": job.threads, "device": job.device,
                   "cores": allowed[: job.cores]})  # fmt: skip

    def ready(self) -> dict:
        """Wait until it can work; what its program says of itself."""
        self.about = self._hear()
        return self.about

    def turn(self) -> dict:
        """Work once: {"cpu": seconds, "wall": seconds, and figures of its own}."""
        self._say("work")
        return self._hear()

    def close(self) -> None:
        """End the process and all that it has started."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.stdout.close()
        self.errors.close()

    def _say(self, message: object) -> None:
        with contextlib.suppress(OSError):  # if it is dead the answer says so
            self.stdin.write(json.dumps(message) + "\n")
            self.stdin.flush()

    def _hear(self) -> dict:
        line = self.stdout.readline()
        answer = json.loads(line) if line else {"error": f"its process ended{self._last_words()}"}
        if "missing" in answer:
            raise BadInput(f"{self.name}: {answer['missing']}")
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


class FreshSide:
    """The same for a Job whose turns each need a new process."""

    def __init__(self, name: str, job: Job):
        self.name, self.job = name, job
        self.side: Side | None = None

    def ready(self) -> dict:
        return {}

    def turn(self) -> dict:
        self.side = Side(self.name, self.job)
        try:
            return {"about": self.side.ready()} | self.side.turn()
        finally:
            self.close()

    def close(self) -> None:
        if self.side is not None:
            self.side.close()
        self.side = None


def in_turn(jobs: dict[str, Job], repeats: int, told: Callable[[dict], None] = lambda about: None) -> dict:
    """{name: [turns]} of the sides, and of "about": {name: what they say of themselves}.

    told: called with the latter before the first turn. Interrupted at Ctrl-C, with what there is until then.
    """
    sides: dict[str, Side | FreshSide] = {}
    turns: dict[str, Any] = {name: [] for name in jobs}
    try:
        for name, job in jobs.items():  # one after the other: they start on cores that are theirs
            sides[name] = (FreshSide if job.fresh else Side)(name, job)
        about = {name: side.ready() for name, side in sides.items()}
        turns["about"] = about
        told(about)
        for _ in range(repeats):
            for name, side in sides.items():
                turns[name].append(side.turn())
    except KeyboardInterrupt as stop:
        raise Interrupted(turns) from stop
    finally:
        for side in sides.values():
            side.close()
    return turns


def spread(values: list[float], digits: int = 0) -> str:
    """The median, and the quartiles in brackets; "–" where nothing was measured."""
    if not values:
        return "–"
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def quartiles(values: list[float]) -> list[float]:
    return [values[0]] * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")
