"""What an outage of MongoDB costs a run, beside the same run without MongoDB: steps a second, CPU time, lost metrics.

    python bench/outage.py [--seconds 600] [--how silent] [--pairs 1] [-- --config=qmix --env-config=two_step with ...]

Two real runs at the same time, one with a MongoDB behind a proxy (tests/bad_network.py, tests/wire_mongo.py), one
without. For --seconds the network answers nothing, or drops every connection; then it works again for --after seconds.
Both times together are measured, so that what is delivered late counts too: steps a second of time, and of CPU time;
and what the threads beside training take, Sacred's and pymongo's among them. In the end SIGTERM stops both runs, and
what MongoDB has is compared with metrics.jsonl. Needs requirements/dev.txt and Linux.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from bad_network import Fault, Network
from wire_mongo import WireMongo

import sync
from utils.config import import_sacred

ROOT = Path(__file__).resolve().parents[1]
RUN = ["--config=qmix", "--env-config=two_step", "with", "t_max=3000000"]
FIXED = ["seed=1", "use_cuda=False", "runner_log_interval=500", "learner_log_interval=2000", "resume_minutes=0"]
HOW = {"none": None, "silent": Fault("stall", "both"), "drop": Fault("drop", "both")}
SLICE = 10.0  # seconds; medians are over slices
TICKS = os.sysconf("SC_CLK_TCK")


class Run:
    """A run in a process of its own. seen: (unix time, its CPU seconds so far, those of its main thread) at `look`."""

    def __init__(self, argv: list[str], folder: Path):
        folder.mkdir(parents=True)
        self.folder, self.seen = folder, []
        command = [sys.executable, str(ROOT / "src" / "main.py"), *argv, f"local_results_path={folder}"]
        env = {**os.environ, "PYTHONHASHSEED": "0"}  # else dictionaries of two runs lie otherwise in memory
        with open(folder / "out", "w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)

    @property
    def path(self) -> Path:
        (config,) = self.folder.glob("*/*/*/config.yaml")
        return config.parent

    def learns(self) -> bool:
        self.check()
        files = list(self.folder.glob("*/*/*/metrics.jsonl"))
        return bool(files) and b'"loss"' in files[0].read_bytes()

    def look(self) -> None:
        self.check()
        pid = self.process.pid
        self.seen.append((time.time(), cpu_seconds(f"/proc/{pid}/stat"), cpu_seconds(f"/proc/{pid}/task/{pid}/stat")))

    def check(self) -> None:
        if self.process.poll() is not None:
            sys.exit(f"a run has ended early; what it said:\n{(self.folder / 'out').read_text()[-2000:]}")

    def stop(self) -> None:
        self.check()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def steps(self, times: np.ndarray) -> np.ndarray:
        """Environment steps at unix times, drawn straight from record to record."""
        records = [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]
        training = [(r["time"], r["t_env"]) for r in records if not r["key"].startswith("test_")]
        when, t_env = zip(*training)
        return np.interp(times, when, t_env)

    def cpu(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """CPU seconds at unix times: of the process, of all its threads but the main one."""
        when, whole, main = map(np.array, zip(*self.seen))
        return np.interp(times, when, whole), np.interp(times, when, whole - main)


def cpu_seconds(stat: str) -> float:
    fields = Path(stat).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pair(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One outage: {what it costs: percent}."""
    with WireMongo() as server, Network(server.server_address[1]) as network, contextlib.ExitStack() as ends:
        runs = []
        mongo = [] if options.null else [f"mongo_url={network.url}", "mongo_db=runs"]
        for name, more in (("with", mongo), ("without", [])):
            runs.append(Run([*options.run, *FIXED, *more], folder / name))
            ends.callback(runs[-1].process.kill)
        while not all([run.learns() for run in runs]):
            time.sleep(1)
        watch(runs, options.before)
        begin = time.time()
        network.all(HOW[options.how])
        watch(runs, options.seconds)
        network.all(None)
        watch(runs, options.after)
        end = time.time()
        for run in runs:
            run.stop()
        if not options.null:
            print(compared(runs[0], server), flush=True)
    edges = np.linspace(begin, end, max(1, round((end - begin) / SLICE)) + 1)
    steps, cpu = [run.steps(edges) for run in runs], [run.cpu(edges) for run in runs]
    there, without = (np.diff(one) for one in steps)
    rates = [np.ptp(one) / (end - begin) for one in steps]
    seconds = [np.ptp(one) for one, _ in cpu]
    beside = [np.ptp(one) for _, one in cpu]
    per_step = [np.diff(one) / np.diff(s) for (one, _), s in zip(cpu, steps)]
    print(
        f"steps a second: {rates[0]:.1f} with, {rates[1]:.1f} without; CPU seconds: {seconds[0]:.1f} with, "
        f"{seconds[1]:.1f} without, of them beside the main thread {beside[0]:.2f} with, {beside[1]:.2f} without",
        flush=True,
    )
    return {
        "time for a step, all": 100 * (rates[1] / rates[0] - 1),
        "time for a step, median of the slices": 100 * (float(np.median(without / there)) - 1),
        "CPU time for a step, all": 100 * (seconds[0] / np.ptp(steps[0]) / (seconds[1] / np.ptp(steps[1])) - 1),
        "CPU time for a step, median of the slices": 100 * (float(np.median(per_step[0] / per_step[1])) - 1),
        "CPU time for a step, in the best tenth of the slices": 100 * (best(per_step[0]) / best(per_step[1]) - 1),
        "CPU time of the threads beside training, of all": 100 * (beside[0] / seconds[0] - beside[1] / seconds[1]),
    }


def best(costs: np.ndarray) -> float:
    """Other work on the machine only adds to what a step costs: the lowest tenth has least of it."""
    return float(np.quantile(costs, 0.1))


def watch(runs: list[Run], seconds: float) -> None:
    until = time.time() + seconds
    while time.time() < until:
        for run in runs:
            run.look()
        time.sleep(min(1.0, max(0.0, until - time.time())))


def compared(run: Run, server: WireMongo) -> str:
    """How what the run has brought MongoDB differs from what Sacred is given of its metrics.jsonl."""
    found = sync.read_run(str(run.path))
    expected = sync.given_to_sacred(sync.read_records(found), found.config["t_max"], ended=True)
    there = {metric["name"]: metric for metric in server.client["runs"]["metrics"].find()}
    differ = [name for name, series in expected.items() if not same(series, there.get(name))]
    points = sum(len(series["steps"]) for series in expected.values())
    log = (run.path / "log.txt").read_text()
    warned, again = (log.count(text) for text in ("training goes on; what is missing", "works again"))
    return (
        f"of {len(expected)} metrics, {points} points, MongoDB lacks or has otherwise: {', '.join(differ) or 'none'}; "
        f"{warned} warning, `works again` {again} time(s)"
    )


def same(series: dict[str, list], document: dict | None) -> bool:
    return document is not None and all(document[field] == series[field] for field in ("steps", "values"))


def main() -> None:
    argv = sys.argv[1:]
    split = argv.index("--") if "--" in argv else len(argv)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=600, help="of the outage (default: %(default)g)")
    p.add_argument("--how", choices=HOW, default="silent", help="what the network does (default: %(default)s)")
    p.add_argument("--before", type=float, default=30, help="seconds of both runs before it (default: %(default)g)")
    p.add_argument("--after", type=float, default=30, help="seconds after it (default: %(default)g)")
    p.add_argument("--pairs", type=int, default=1, help="outages, one after the other (default: %(default)s)")
    p.add_argument("--null", action="store_true", help="both runs without MongoDB: by how much equal runs differ")
    options = p.parse_args(argv[:split])
    options.run = argv[split + 1 :] or RUN
    import_sacred()
    with tempfile.TemporaryDirectory() as folder:
        found = [pair(options, Path(folder, str(n))) for n in range(options.pairs)]
    what = "two equal runs without MongoDB" if options.null else f"an outage, {options.how}; more than without MongoDB"
    print(f"{options.seconds:g} s, {options.pairs} pair(s): {what}:")
    for name in found[0]:
        values = sorted(one[name] for one in found)
        print(f"  {name}: {np.median(values):+.2f} % ({values[0]:+.2f} to {values[-1]:+.2f})")


if __name__ == "__main__":
    main()
