"""The local engine: runs as processes of this machine. It is also what each job of a cluster runs."""

import os
import signal
import time

from rich.console import Console

from sweeping.board import Board
from sweeping.cards import Cards, shared_out
from sweeping.cluster import Cluster
from sweeping.jobs import cores
from sweeping.plan import PlannedRun
from sweeping.submission import Order, Received
from sweeping.work import Work, interruptions


def places(runs: list[PlannedRun], cluster: Cluster, workers: int | None) -> tuple[int, Cards, list[str]]:
    """(runs at a time on this machine, the GPUs that they share, lines that say so). workers: as asked for, or None."""
    threads = max(run.values["num_threads"] for run in runs)
    wanted = any(run.values["use_cuda"] for run in runs)
    by_cores = max(1, cores() // threads)
    workers, cards, line = shared_out(workers or cluster.runs_per_job, cluster.gpus_per_run, by_cores, wanted)
    said = [line] if line else []
    if workers * threads > cores():
        said.append(f"{workers} runs at a time with {threads} threads each share {cores()} cores")
    return workers, cards, said


def start(order: Order, workers: int, cards: Cards, received: Received | None, console: Console) -> int:
    """Run what is not complete; returns the exit status. received: of a job of a cluster, which does not wait for what
    other jobs are at."""
    # One folder of modules is kept with each run (modules_path); a study may name some in others.
    kept = order.runs[0].values["modules_path"]
    others = {str(module.parent): None for module in order.plan.modules if str(module.parent) != kept}
    path = os.pathsep.join([*others, *filter(None, [os.environ.get("PYTHONPATH")])])
    work = Work(
        order.left, workers, order.retries, order.plan.results, order.samples,
        sweep=received.id if received else None, wait=received is None, cards=cards,
        environment={"PYTHONPATH": path} if others else None,
    )  # fmt: skip
    done = len(order.runs) - len(order.left)
    with interruptions() as signals, Board(console) as board:
        try:
            while work.left and not signals:
                work.step(board.event)
                board.update(lambda: work.state(done))
                time.sleep(0.1)
            if signals:
                board.event("interrupted: waiting for the runs to save what they have")
        finally:
            work.stop(lambda: signals.count(signal.SIGINT) > 1)  # a second Ctrl-C ends them at once
    return _conclude(order, done, work, signals, bool(received))


def _conclude(order: Order, done: int, work: Work, signals: list[int], of_a_cluster: bool) -> int:
    done += len(work.done) + len(work.done_elsewhere)
    order.say(f"{done} of {len(order.runs)} runs complete")
    for run, reason in work.failed.items():
        order.say(f"failed: {run}: {reason}; its output: {work.log(run)}")
    if work.elsewhere:
        order.say(f"runs that other jobs work on: {len(work.elsewhere)}; nothing is left to start here")
    elif done < len(order.runs) and not of_a_cluster:
        order.say(f"{'interrupted' if signals else 'to try again'}; go on with: {order.again}")
    if not of_a_cluster:
        order.say(f"report: {order.report}")
    return 128 + signals[0] if signals else int(bool(work.failed))
