"""A study on Ray beside the same study as processes of this machine: python bench/ray_engine.py --help"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = Path(__file__).resolve().parents[1] / "src" / "sweep.py"
DONE = re.compile(r"^done: .*, (\d+) s(?: since it was queued)?")
EXAMPLE = """\
Each turn runs the study with --engine local, then with --engine ray, in empty folders. What is compared: the time on
Ray from the first task to the last end, and the sum of the runs' times under --engine local, divided by the workers.
So neither has the start of the cluster, nor what the local sweep needs to start. The goal: at most 1.15.

  python bench/ray_engine.py --runs 60 --workers 2 --steps 30000
"""


def main() -> int:
    p = argparse.ArgumentParser(
        prog="bench/ray_engine.py", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--runs", type=int, default=12, help="of QMIX on predator-prey, seeds 1 to N (default: 12)")
    p.add_argument("--workers", type=int, default=2, help="runs at a time (default: 2)")
    p.add_argument("--steps", type=int, default=30000, help="t_max of a run; give what takes 20 s (default: 30000)")
    p.add_argument("--repeats", type=int, default=1, help="turns of both (default: 1)")
    asked = p.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, load {load:.1f} before the start; {asked.runs} runs, {asked.workers} at a time", flush=True)
    ratios = []
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder, "study.yaml")
            study.write_text(json.dumps(_study(asked)))
            _, each = _sweep(study, "local", "--workers", str(asked.workers))
            shutil.rmtree(Path(folder, "results"))
            wall, _ = _sweep(study, "ray", "--set", f"jobs={asked.workers}")
        share = sum(each) / asked.workers
        ratios.append(wall / share)
        print(
            f"local: {statistics.median(each):.0f} s a run ({min(each):.0f}–{max(each):.0f}), their sum / "
            f"{asked.workers}: {share:.0f} s; ray: {wall:.0f} s; ray / local {ratios[-1]:.2f}", flush=True,
        )  # fmt: skip
    print(f"ray / local: median {statistics.median(ratios):.2f} of {len(ratios)}")
    return 0


def _study(asked: argparse.Namespace) -> dict:
    keys = {"t_max": asked.steps, "batch_size_run": 8, "batch_size": 32, "buffer_size": 500, "learning_starts": 0}
    keys |= {"updates_per_run": 8, "test_interval": 10000, "test_nepisode": 32, "use_cuda": False}
    return {
        "title": "The same on Ray and locally", "algorithms": ["qmix"], "environments": ["predator_prey"],
        "seeds": f"1-{asked.runs}", "overrides": keys, "results": "results",
    }  # fmt: skip


def _sweep(study: Path, engine: str, *words: str) -> tuple[float, list[float]]:
    """(seconds from the first task to the end of the last, seconds of each run as the sweep tells them)."""
    command = [sys.executable, str(SWEEP), str(study), "--results", str(study.parent / "results"), "--engine", engine]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    begin, end, each, said = time.monotonic(), 0.0, [], []
    for line in process.stdout:
        said.append(line)
        if " tasks on " in line:
            begin = time.monotonic()
        if match := DONE.match(line):
            end = time.monotonic()
            each.append(float(match[1]))
    if process.wait():
        sys.exit(f"--engine {engine} ended with status {process.returncode}:\n{''.join(said[-5:])}")
    return end - begin, each


if __name__ == "__main__":
    sys.exit(main())
