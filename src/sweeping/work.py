"""The work of a sweep: runs that wait, that go on, that are done, that have failed and are tried again."""

import fcntl
import os
import signal
from contextlib import contextmanager
from pathlib import Path

from sweeping.estimate import Estimate, makespan
from sweeping.jobs import Job, stop
from utils.args import ConfigError
from utils.logging import brief


class Work:
    """The runs of a sweep: waiting, running, done, failed. directories: {run: Path} of attempts that have failed."""

    def __init__(self, runs, workers, retries, results, samples, directories=None):
        self.waiting, self.jobs, self.done, self.failed = list(runs), [], [], {}
        self.workers, self.retries, self.results = workers, retries, results
        self.samples = samples  # of an Estimate
        self.failures = {}  # {run: how often it has failed}
        self.directories = dict(directories or {})

    @property
    def left(self):
        return bool(self.waiting or self.jobs)

    def log(self, run):
        """Where the console output of a run goes."""
        return Path(
            self.results, "logs", Path(run.values["local_results_path"]).name, run.algorithm, f"seed{run.seed}.txt"
        )

    def step(self, tell):
        """Start what there is room for, and take note of what has ended. tell(text): what happened."""
        while self.waiting and len(self.jobs) < self.workers:
            run = self.waiting.pop(0)
            try:
                self.jobs.append(Job(run, self.log(run), self.directories.get(run)))
                tell(f"started: {run}")
            except OSError as error:  # no process, no space on the disk
                self._failed(run, brief(error), False, tell)
                return
        for job in [job for job in self.jobs if job.poll() is not None]:
            self.jobs.remove(job)
            reason, hopeless = job.failure()
            if reason is None:
                self.done.append(job.run)
                self.samples.append((job.run.algorithm, job.run.environment, job.seconds() / job.run.values["t_max"]))
                tell(f"done: {job.run}, {job.elapsed:.0f} s")
            else:
                if job.directory is not None and job.directory.is_dir():
                    self.directories[job.run] = job.directory
                self._failed(job.run, reason, hopeless, tell)

    def _failed(self, run, reason, hopeless, tell):
        self.failures[run] = self.failures.get(run, 0) + 1
        if hopeless or self.failures[run] > self.retries:
            self.failed[run] = reason
            tell(f"failed: {run}: {reason}")
        else:
            self.waiting.append(run)
            tell(f"failed, will be tried again: {run}: {reason}")

    def state(self, done_before):
        """For the Board."""
        paces = [(job, *job.pace()) for job in self.jobs]
        going = [
            (job.run.algorithm, job.run.environment, (job.elapsed + left) / job.run.values["t_max"])
            for job, _, _, left in paces
            if left is not None
        ]
        estimate = Estimate(self.samples + going)
        jobs = [(job.run, t_env, rate, left) for job, t_env, rate, left in paces]
        lefts = [estimate(job.run) if left is None else left for job, _, _, left in paces]
        return {
            "done": done_before + len(self.done),
            "running": len(self.jobs),
            "waiting": len(self.waiting),
            "failed": len(self.failed),
            "left": makespan(lefts, [estimate(run) for run in self.waiting], self.workers),
            "jobs": jobs,
            "failures": list(self.failed.items()),
        }

    def stop(self, hurry):
        """End the runs that go on. hurry(): whether to give them no time."""
        stop(self.jobs, hurry)


@contextmanager
def interruptions():
    """Gathers the numbers of SIGINT and SIGTERM in a list, so that they tear nothing that is under way."""
    received = []
    previous = {n: signal.signal(n, lambda n, _: received.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def locked(folder):
    """Hold the results folder against a second sweep; a process that dies lets go of it."""
    lock = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise ConfigError(f"results: {folder} cannot be written: {error}; give --results DIR") from error
    with open(lock, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{folder}: another sweep is at work there (process {file.read() or 'unknown'} holds {lock}); "
                "wait for it, or give --results DIR"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
