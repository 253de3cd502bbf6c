"""Time and memory of the report over many runs.

    python bench/report_speed.py [--tasks 20] [--seeds 5] [--points 200] [--keep DIR]

Makes runs of six algorithms in a temporary folder, as `utils/rundir.py` and the sinks leave them (training metrics
and checkpoints' folders among them; the curves are random), runs `python src/report.py` on it and prints its wall
time, its CPU time, the largest memory that it held, and the size of the page. The aims for 600 runs of 200 points:
under 10 s, under 300 MB.
"""

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = ("qtran_alt", "qtran_base", "qmix", "vdn", "iql", "qatten")
TRAINING = (
    "return_mean", "return_std", "ep_length_mean", "epsilon", "loss", "td_loss", "opt_loss", "nopt_loss", "grad_norm",
    "td_targets", "agent_indiv_qs",
)  # fmt: skip
T_MAX = 1_000_000


def configuration(algorithm, task, seed):
    """A complete config.yaml of ours for predator-prey with penalty 0.5 · (task + 1)."""
    folder = ROOT / "src" / "config"
    values = yaml.safe_load((folder / "default.yaml").read_text(encoding="utf-8"))
    for layer in ("envs/predator_prey", "algs/qtran_base", f"algs/{algorithm}"):
        values |= yaml.safe_load((folder / f"{layer}.yaml").read_text(encoding="utf-8"))
    values |= {"name": algorithm, "seed": seed, "t_max": T_MAX}
    values = {k: v for k, v in values.items() if k not in ("presets", "extends")}
    return values | {"env_args": values["env_args"] | {"penalty": 0.5 * (task + 1)}}


def curve(algorithm, task, rng, points):
    """[(step, value)]: a return that rises from about 0 to what this algorithm reaches on this task."""
    order = ALGORITHMS.index(algorithm)
    level = 40 / (1 + 0.1 * order * (1 + task)) * (1 if rng.random() > 0.04 * order else 0.2) + rng.gauss(0, 1)
    half, width = T_MAX * (0.25 + 0.04 * order + rng.gauss(0, 0.03)), T_MAX * 0.06
    for k in range(points):
        step = round(T_MAX * k / (points - 1)) + rng.randrange(100)
        yield step, level / (1 + math.exp((half - step) / width)) + rng.gauss(0, 0.6)


def make_run(folder, algorithm, task, seed, points):
    rng = random.Random(f"{algorithm} {task} {seed}")
    path = folder / algorithm / "predator_prey" / f"seed{seed}_20260101T{task:02d}{seed:02d}00Z"
    (path / "checkpoints" / str(T_MAX)).mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(configuration(algorithm, task, seed)))
    (path / "log.txt").write_text("")
    lines, step = [], 0
    for k, (step, value) in enumerate(curve(algorithm, task, rng, points)):
        record = {"t_env": step, "episode": step // 100, "time": 1.8e9 + k}
        values = dict.fromkeys(TRAINING, rng.random()) | dict.fromkeys(("test_return_std", "test_ep_length_mean"), 1.0)
        values |= {"test_return_mean": value}
        lines += [json.dumps({"key": key, "value": v} | record) for key, v in values.items()]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    summary = {"status": "finished", "reason": None, "t_env": step, "wall_time_s": 3600 + rng.gauss(0, 200)}
    summary |= {"versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"}, "commit": "0" * 40}
    (path / "summary.json").write_text(json.dumps(summary))


def make_runs(folder, tasks, seeds, points):
    for algorithm in ALGORITHMS:
        for task in range(tasks):
            for seed in range(1, seeds + 1):
                make_run(folder, algorithm, task, seed, points)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tasks", type=int, default=20)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--points", type=int, default=200, help="evaluations of a run")
    p.add_argument("--keep", metavar="DIR", help="make the runs here, and keep them and the report")
    options = p.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary)
        make_runs(folder, options.tasks, options.seeds, options.points)
        start = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "src" / "report.py"), str(folder)], check=True)
        seconds = time.perf_counter() - start
        page = (folder / "report" / "report.html").stat().st_size / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024  # kilobytes on Linux
    n = len(ALGORITHMS) * options.tasks * options.seeds
    print(
        f"{n} runs of {options.points} points: {seconds:.1f} s, {cpu:.1f} s of them CPU time, at most {memory:.0f} MB"
    )
    print(f"report.html: {page:.1f} MB")


if __name__ == "__main__":
    main()
