"""The work of a sweep: runs that wait, that go on, that are done, that have failed and are tried again.

Other sweeps may work on the same runs (`sweeping/turns.py`). What they are at is left to them, and looked at again.
"""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeping.cards import Cards
from sweeping.estimate import Estimate, Sample, makespan
from sweeping.jobs import Job, stop
from sweeping.plan import PlannedRun
from sweeping.turns import LOOK_AGAIN, Complete, Elsewhere, GivenUp, Turn, begin
from utils.args import ConfigError
from utils.messages import brief

RENEWED = 1.0  # seconds that a claim must be younger than it would be if nobody had renewed it

Tell = Callable[[str], None]  # what happened, to whoever watches


class Work:
    """The runs of a sweep: waiting, running, done, failed. done_elsewhere: those that another sweep has done meanwhile.

    sweep: a name that all jobs of one sweep share; None: this process is the sweep. wait: whether to wait for the runs
    that other sweeps are at; else they end up in `elsewhere`, once it was seen that who is at them lives. cards: the
    GPUs that runs share. environment: variables for the runs' processes.
    """

    def __init__(
        self,
        runs: Iterable[PlannedRun],
        workers: int,
        retries: int,
        results: Path,
        samples: list[Sample],
        sweep: str | None = None,
        wait: bool = True,
        cards: Cards | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.waiting: list[PlannedRun] = list(runs)
        self.jobs: list[Job] = []
        self.done: list[PlannedRun] = []
        self.failed: dict[PlannedRun, str] = {}
        self.done_elsewhere: list[PlannedRun] = []
        self.elsewhere: dict[PlannedRun, str] = {}  # who is at it
        self.workers, self.retries, self.results = workers, retries, results
        self.samples = samples  # of an Estimate
        self.sweep, self.wait = sweep or uuid.uuid4().hex, wait
        self.cards, self.environment = cards or Cards(), environment or {}
        self._turns: dict[Job, Turn] = {}
        self._failures = {}  # {run: how often it has failed}, where the results folder could not be written
        self._next_look, self._first_look = {}, {}  # {run: when}, {run: (when, age of the claim in seconds)}

    @property
    def left(self) -> bool:
        return bool(self.waiting or self.jobs)

    def log(self, run: PlannedRun) -> Path:
        """Where the console output of a run goes."""
        return Path(
            self.results, "logs", Path(run.values["local_results_path"]).name, run.algorithm, f"seed{run.seed}.txt"
        )

    def step(self, tell: Tell) -> None:
        """Start what there is room for, and take note of what has ended. tell(text): what happened."""
        now = time.monotonic()
        for run in [run for run in self.waiting if self._next_look.get(run, 0) <= now]:
            if len(self.jobs) >= self.workers or time.monotonic() > now + 1:  # what has ended should not wait long
                break
            if not self._start(run, tell):
                return
        for job in [job for job in self.jobs if job.poll() is not None]:
            self._end(job, tell)
        for job, turn in self._turns.items():
            if not turn.mine():  # this process was frozen for longer than its lease, and another sweep has the run
                job.signal(signal.SIGTERM)

    def _start(self, run: PlannedRun, tell: Tell) -> bool:
        """Start a run, or take note of why it is not started; whether others may be started at once."""
        try:
            turn = begin(run, self.results, self.sweep, self.retries)
        except Elsewhere as held:
            self._leave_for_now(run, held, tell)
            return True
        except Complete:
            self.waiting.remove(run)
            self.done_elsewhere.append(run)
            tell(f"done elsewhere: {run}")
            return True
        except GivenUp as reason:
            self.waiting.remove(run)
            self.failed[run] = str(reason)
            tell(f"failed elsewhere: {run}: {reason}")
            return True
        except ConfigError as error:
            self.waiting.remove(run)
            self._failed(run, str(error), False, tell)
            return False
        self.waiting.remove(run)
        for looks in (self._next_look, self._first_look):
            looks.pop(run, None)
        this = turn.found.path if turn.found and (turn.taken_over or turn.found.status == "failed") else None
        environment = self.environment | self.cards.take(run)
        try:
            job = Job(run, self.log(run), this, environment)
        except OSError as error:  # no process, no space on the disk
            self.cards.give_back(run)
            self._failed(run, brief(error), False, tell, turn)
            turn.release()
            return False
        self.jobs.append(job)
        self._turns[job] = turn
        tell(f"started: {run}")
        return True

    def _leave_for_now(self, run: PlannedRun, held: Elsewhere, tell: Tell) -> None:
        """Look at the run later; or, not to wait for it, leave it to a process that was seen to live."""
        now = time.monotonic()
        if run not in self._first_look:
            tell(f"at work elsewhere: {run}, {held}")
        since, age = self._first_look.setdefault(run, (now, held.age))
        self._next_look[run] = now + LOOK_AGAIN
        # A claim that gets younger is renewed. One that only gets older may be that of a machine that is gone.
        if not self.wait and held.age < age + (now - since) - RENEWED:
            self.waiting.remove(run)
            self.elsewhere[run] = str(held)

    def _end(self, job: Job, tell: Tell) -> None:
        self.jobs.remove(job)
        turn = self._turns.pop(job)
        self.cards.give_back(job.run)
        reason, hopeless = job.failure()
        if reason is None:
            self.done.append(job.run)
            self.samples.append((job.run, job.seconds() / job.run.values["t_max"]))
            tell(f"done: {job.run}, {job.elapsed:.0f} s")
        elif not turn.claim.mine():
            self.waiting.append(job.run)
            tell(f"stopped, as another sweep has taken it over: {job.run}")
        else:
            self._failed(job.run, reason, hopeless, tell, turn)
        turn.release()

    def _failed(self, run: PlannedRun, reason: str, hopeless: bool, tell: Tell, turn: Turn | None = None) -> None:
        self._failures[run] = self._failures.get(run, 0) + 1
        if turn is not None:
            turn.failed(self.sweep, reason, hopeless)
        if hopeless or self._failures[run] > self.retries:
            self.failed[run] = reason
            tell(f"failed: {run}: {reason}")
        else:
            self.waiting.append(run)
            tell(f"failed, will be tried again: {run}: {reason}")

    def state(self, done_before: int) -> dict[str, Any]:
        """For the Board."""
        paces = [(job, *job.pace()) for job in self.jobs]
        estimate = Estimate(self.samples + [(job.run, 1 / rate) for job, _, rate, _ in paces if rate is not None])
        jobs = [(job.run, t_env, rate, left) for job, t_env, rate, left in paces]
        lefts = [estimate(job.run) if left is None else left for job, _, _, left in paces]
        at_others = sum(run in self._first_look for run in self.waiting)
        return {
            "done": done_before + len(self.done) + len(self.done_elsewhere),
            "running": len(self.jobs),
            "waiting": len(self.waiting) - at_others,
            "elsewhere": at_others + len(self.elsewhere),
            "failed": len(self.failed),
            "left": makespan(lefts, [estimate(run) for run in self.waiting], self.workers),
            "jobs": jobs,
            "failures": list(self.failed.items()),
        }

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End the runs that go on. hurry(): whether to give them no time."""
        stop(self.jobs, hurry)
        for turn in self._turns.values():
            turn.release()


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Gathers the numbers of SIGINT and SIGTERM in a list, so that they tear nothing that is under way."""
    received = []
    previous = {n: signal.signal(n, lambda n, _: received.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def writable(results: Path) -> None:
    """Make the results folder. ConfigError where it cannot be written."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        if not os.access(results, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigError(f"results: {results} cannot be written: {error}; give --results DIR") from error
