"""How long runs take: from runs that are done, or from a short try of each."""

import heapq
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

from sweeping.jobs import Job, stop
from sweeping.plan import PlannedRun
from utils.runs import records

STARTING_SECONDS = 180  # at most, to the first record of a try: SMAX compiles
Sample = tuple[PlannedRun, float]  # a run, and its seconds per environment step


class Estimate:
    """Seconds that a run takes, by the mean pace of the samples that are most like it.

    Those of the same algorithm and environment, where there are any; else of the same algorithm; else of the algorithm
    of which it is a setting, in the same order; else all.
    """

    def __init__(self, samples: Iterable[Sample]):
        groups = {}
        for run, pace in samples:
            for key in dict.fromkeys(_alike(run)):
                groups.setdefault(key, []).append(pace)
        self.paces = {key: sum(paces) / len(paces) for key, paces in groups.items()}

    def __call__(self, run: PlannedRun) -> float | None:
        """Seconds of a planned run, or None without any sample."""
        for key in _alike(run):
            if key in self.paces:
                return run.values["t_max"] * self.paces[key]
        return None


def _alike(run: PlannedRun) -> tuple[tuple[str, ...], ...]:
    """The groups of runs that a run is in, those most like it first."""
    return (run.algorithm, run.environment), (run.algorithm,), (run.base, run.environment), (run.base,), ()


def makespan(seconds_left: list[float | None], seconds_waiting: list[float | None], workers: int) -> float | None:
    """Seconds until all is done when `workers` runs go at a time, in order; None where one of them is unknown."""
    left, waiting = ([s for s in seconds if s is not None] for seconds in (seconds_left, seconds_waiting))
    if len(left) < len(seconds_left) or len(waiting) < len(seconds_waiting):
        return None
    slots = sorted(left) + [0.0] * (workers - len(left))
    heapq.heapify(slots)
    for seconds in waiting:
        heapq.heapreplace(slots, slots[0] + seconds)
    return max(slots)


def probe(
    runs: Iterable[PlannedRun], workers: int, seconds: float, stopped: Callable[[], bool]
) -> tuple[list[Sample], list[str]]:
    """Samples for an Estimate, from each of `runs` run for `seconds` from its first record on, `workers` at a time.

    stopped(): whether to give up. Returns (samples, [what went wrong]).
    """
    samples, problems, waiting, jobs = [], [], list(runs), []
    with tempfile.TemporaryDirectory(prefix="sweep-probe-") as folder:
        try:
            while (waiting or jobs) and not stopped():
                while waiting and len(jobs) < workers:
                    jobs.append(_probe_job(waiting.pop(0), folder, len(waiting)))
                time.sleep(0.1)
                for job in [job for job in jobs if job.poll() is not None or _long_enough(job, seconds)]:
                    jobs.remove(job)
                    reason = f"nothing measured in {job.elapsed:.0f} s" if job.poll() is None else job.failure()[0]
                    stop([job], stopped)
                    pace, learned = _probed_pace(job)
                    if pace is None:
                        problems.append(f"{job.run}: {reason or 'ended before anything could be measured'}")
                        continue
                    samples.append((job.run, pace))
                    if not learned:
                        problems.append(f"{job.run}: no update within {seconds} s, so its playing alone is counted")
        finally:
            stop(jobs, lambda: True)
    return samples, problems


def _probe_job(run: PlannedRun, folder: str, number: int) -> Job:
    """The run's own command, but for what it measures: one test, a record at each round, and learning at once.

    And but for its replay buffer, where that is large: to lay claim to gigabytes takes a good part of a short try.
    """
    values = run.values
    buffer = min(values["buffer_size"], max(1000, values["batch_size"], values["batch_size_run"]))
    changes = {"test_interval": values["t_max"], "test_nepisode": 1, "runner_log_interval": 1, "buffer_size": buffer}
    changes |= {"learning_starts": 0, "learner_log_interval": 1, "save_model": False}
    return Job(run, f"{folder}/{number}.log", local_results_path=f"{folder}/{number}", **changes)


def _long_enough(job: Job, seconds: float) -> bool:
    job.pace()  # finds the first record
    if job.first is None:
        return job.elapsed > STARTING_SECONDS
    return time.time() - job.first["time"] > seconds


def _probed_pace(job: Job) -> tuple[float | None, bool]:
    """Seconds per environment step over a whole run, start and tests included; None without two rounds to measure.

    Beside it whether updates are in it.
    """
    found = records(job.directory / "metrics.jsonl") if job.directory else []
    tested = next((i for i, r in enumerate(found) if r["key"].startswith("test_")), len(found))
    rounds = [r for r in found[tested:] if r["key"] == "epsilon"]
    learned = next((r["t_env"] for r in found[tested:] if r["key"] == "loss"), math.inf)
    playing = _pace([r for r in rounds if r["t_env"] <= learned])
    learning = _pace([r for r in rounds if r["t_env"] >= learned])
    if playing is None and learning is None:
        return None, False
    values, a_test_round = job.run.values, found[tested]["time"] - found[tested - 1]["time"]
    before = min(values["learning_starts"], values["t_max"]) / values["t_max"]  # the part of a run without updates
    a_step = before * (playing or learning) + (1 - before) * (learning or playing)
    a_test = a_test_round * math.ceil(values["test_nepisode"] / values["batch_size_run"])
    start = found[0]["time"] - job.started
    return a_step + a_test / values["test_interval"] + start / values["t_max"], learning is not None


def _pace(rounds: list[dict[str, Any]]) -> float | None:
    """Seconds per environment step from records of rounds, of the second half alone: the start is untypical."""
    if len(rounds) < 2 or rounds[0]["t_env"] == rounds[-1]["t_env"]:  # a run of one round
        return None
    first, last = rounds[0], rounds[-1]
    half = next(r for r in rounds if r["time"] >= (first["time"] + last["time"]) / 2)
    base = half if half["t_env"] < last["t_env"] else first
    return (last["time"] - base["time"]) / (last["t_env"] - base["t_env"])
