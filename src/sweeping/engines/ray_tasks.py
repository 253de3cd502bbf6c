"""Ray: one task a run, on any node of a cluster, or of a Ray that this process starts here and ends.

A task claims its run on the results folder, and starts or resumes it (`Submission.command`). Ray begins a task again
where its node or its worker is lost; what it begins again resumes.
"""

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sweeping.jobs import cores
from sweeping.plan import Existing, PlannedRun
from sweeping.submission import SWEEP, Order, Submission
from sweeping.work import interruptions
from utils.args import ConfigError
from utils.ray_cluster import RayCluster
from utils.runs import find_runs

LOOK = 0.5  # seconds
LOSSES = 10  # of a task's nodes, before its run is given up
SHARED_SECONDS = 60  # NFS may show a folder of a minute ago
AGAIN = 20  # seconds until a run is tried again that a process elsewhere seems to be at
HOPELESS = 2  # exit status of a command where the whole study has to stop
SPARE_SECONDS = 15  # beyond the time that runs get to save


def start(order: Order) -> int:
    """Run what is not complete, and wait for it; returns the exit status."""
    if not order.left:
        order.say("nothing to do")
        return 0
    if order.cluster.python:
        raise ConfigError(
            f"python = {order.cluster.python!r}: runs have the Python that Ray has on their node; drop it"
        )
    address, gpus = order.cluster.ray.address, order.cluster.gpus_per_run
    cluster = RayCluster("ray.address", address, cpus=cores(), gpus=None if gpus else 0)
    try:
        _refuse_what_no_node_has(order)
        with interruptions() as signals:
            tasks = _Tasks(order, Submission.make(order), signals)
            where = f"the cluster at {address}: {cluster.nodes()} nodes" if address else "a Ray on this machine"
            need = f"{order.cores_per_run} cores" + (f", {gpus:g} GPUs" if gpus else "")
            order.say(f"{len(order.left)} tasks on {where}; each needs {need}; output: {tasks.submission.folder}")
            try:
                tasks.work()
            finally:
                tasks.stop()
            return tasks.conclude()
    finally:
        cluster.close()


def _refuse_what_no_node_has(order: Order) -> None:
    """ConfigError where no node has what a run needs."""
    import ray

    nodes: list[Any] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for resource, need, keys in (
        ("GPU", order.cluster.gpus_per_run or 0, "gpus_per_run"),
        ("CPU", order.cores_per_run, "cores_per_run"),
    ):
        most = max((node.get(resource, 0) for node in nodes), default=0)
        if need > most:
            raise ConfigError(
                f"{keys}: a run needs {need:g} {resource}s, and no node of the Ray cluster has more than {most:g}; "
                f"give a smaller {keys}, or nodes that have them"
            )


class _Tasks:
    """One for each run that is not complete."""

    def __init__(self, order: Order, submission: Submission, signals: list[int]):
        self.order, self.submission, self.signals = order, submission, signals
        self.waiting = {run: 0.0 for run in order.left}  # {run: not before this time}
        self.going: dict[Any, tuple[PlannedRun, float]] = {}  # {reference: (run, when it was submitted)}
        self.failed: dict[PlannedRun, str] = {}
        self.stopped: str | None = None  # why the whole study has to stop
        self.complete = set(order.runs) - set(order.left)
        self.tries: Counter = Counter()

    def work(self) -> None:
        import ray

        while (self.waiting or self.going) and not self.signals and self.stopped is None:
            self._submit()
            there, _ = ray.wait(list(self.going), num_returns=1, timeout=LOOK) if self.going else ([], None)
            for reference in there:
                self._end(reference)
            if not there and not self.going:
                time.sleep(LOOK)

    def stop(self) -> None:
        """End what goes on; runs save first. A second signal ends them at once."""
        import ray

        if not self.going:
            return
        if self.signals:
            self.order.say("interrupted: waiting for the runs to save what they have")
        for reference in self.going:
            ray.cancel(reference)
        patience = max(run.values["stop_seconds"] for run, _ in self.going.values()) + SPARE_SECONDS
        deadline = time.monotonic() + patience
        left = list(self.going)
        while left and time.monotonic() < deadline and len(self.signals) < 2:
            _, left = ray.wait(left, num_returns=len(left), timeout=LOOK)
        for reference in left:
            ray.cancel(reference, force=True)

    def conclude(self) -> int:
        order = self.order
        order.say(f"{len(self.complete)} of {len(order.runs)} runs complete")
        for run, reason in self.failed.items():
            order.say(f"failed: {run}: {reason}; its output: {self._output(run)}")
        if self.stopped is not None:
            raise ConfigError(self.stopped)
        if len(self.complete) < len(order.runs):
            order.say(f"{'interrupted' if self.signals else 'to try again'}; go on with: {order.again}")
        order.say(f"report: {order.report}")
        return 128 + self.signals[0] if self.signals else int(bool(self.failed))

    def _submit(self) -> None:
        most, now = self.order.cluster.jobs or len(self.order.runs), time.monotonic()
        for run, when in list(self.waiting.items()):
            if len(self.going) >= most:
                return
            if when > now:
                continue
            del self.waiting[run]
            self.tries[run] += 1
            task = _task().options(
                name=str(run), num_cpus=self.order.cores_per_run, num_gpus=self.order.cluster.gpus_per_run or 0,
                max_retries=LOSSES, scheduling_strategy="SPREAD",
            )  # fmt: skip
            words = self.submission.command(run)[2:]  # without Python and its program
            folder, output = str(self.submission.folder), str(self._output(run))
            reference = task.remote(words, str(SWEEP.parent), folder, output, SHARED_SECONDS)
            self.going[reference] = run, now

    def _end(self, reference: Any) -> None:
        import ray
        from ray.exceptions import RayError

        run, since = self.going.pop(reference)
        try:
            status, host, said = ray.get(reference)
        except RayError as error:
            self.failed[run] = f"its task was lost {LOSSES + 1} times: {' '.join(str(error).split())[:200]}"
            self.order.say(f"failed: {run}: {self.failed[run]}")
            return
        if status == HOPELESS:
            self.stopped = said
        elif run in Existing([run], find_runs(Path(run.values["local_results_path"], run.values["name"]))).complete:
            self.complete.add(run)
            count = f"{len(self.complete)} of {len(self.order.runs)}"
            self.order.say(f"done: {run} on {host}, {time.monotonic() - since:.0f} s since it was queued; {count}")
        elif status == 1 or self.tries[run] > LOSSES:
            self.failed[run] = said or f"exit status {status}"
            self.order.say(f"failed: {run} on {host}: {self.failed[run]}")
        else:  # another sweep works on it, a process that is gone still has its claim, or the command was cut off
            if status == 0:  # only losses count
                self.tries[run] -= 1
            self.waiting[run] = time.monotonic() + (AGAIN if status == 0 else 0)

    def _output(self, run: PlannedRun) -> Path:
        return self.submission.folder / (re.sub(r"[^\w.-]+", "_", str(run)) + ".txt")


def _task() -> Any:
    """The remote function. It is sent whole, as the nodes may not have this program's folder. It calls `sweep.main` in
    Ray's process, which has imported all that takes time when it comes to the next task."""
    import ray

    def work(words: list[str], source: str, folder: str, output: str, shared: float) -> tuple[int, str, str]:
        """(exit status, host, what it said last). source: folder of the program, where this node has it; else it is in
        what was sent along, where this process is."""
        import contextlib
        import importlib
        import os
        import re
        import socket
        import sys
        import time

        import ray

        host, deadline = socket.gethostname(), time.monotonic() + shared
        while not os.path.exists(os.path.join(folder, "submission.json")):
            if time.monotonic() > deadline:
                results = os.path.dirname(os.path.dirname(folder))
                return 2, host, (
                    f"node {host}: the results folder {results} is not there: the nodes do not share it; give "
                    "--results DIR on a shared file system"
                )  # fmt: skip
            time.sleep(1)
        source = source if os.path.exists(os.path.join(source, "sweep.py")) else os.getcwd()
        if source not in sys.path:
            sys.path.insert(0, source)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in ray.get_gpu_ids())
        at = os.path.getsize(output) if os.path.exists(output) else 0
        with (
            open(output, "a", encoding="utf-8") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            try:
                status = importlib.import_module("sweep").main(words)
            except SystemExit as error:  # argparse
                status = error.code if isinstance(error.code, int) else 1
        with open(output, encoding="utf-8", errors="replace") as file:
            file.seek(at)
            text = file.read()[-4000:]
        lines = [line for line in text.splitlines() if re.match("error: |failed: ", line)] or text.splitlines()
        return status, host, re.sub("^error: ", "", lines[-1]) if lines else ""

    remote: Any = ray.remote
    return remote(work)
