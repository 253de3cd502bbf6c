"""Matrix games over many seeds: greedy payoff, accuracy of Q_jt, shape of Q'_jt.

    python bench/matrix_seeds.py --seeds 1-100 --out bench/matrix_seeds.json
    python bench/matrix_seeds.py --seeds 1-10 --shape 10x10 --algorithms qtran_alt qtran_base

Each run is the command `python src/main.py --config=ALG --env-config=matrix_game with seed=K` with its
defaults; this reads the tables.json and summary.json that it leaves. With --shape each seed plays a payoff of
its own, uniform in [-10, 10]. Prints, for each algorithm, the number of seeds whose greedy joint action pays
the best payoff, and over seeds: what it pays less than the best, as a share of the range of payoffs (regret);
max |Q_jt - payoff| and the mean of (Q_jt - payoff)² over joint actions; the gap between the two largest joint
values; on the 3x3 game max|Q'_jt + V_jt| outside the optimum's row and column (block); the wall time of a run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from tables import figures, read_json

MAIN = Path(__file__).resolve().parents[1] / "src" / "main.py"


def one(
    algorithm: str, seed: int, folder: str, shape: tuple[int, ...] | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """The figures of one run."""
    if shape:
        payoff = np.random.default_rng(seed).uniform(-10, 10, shape).round(3).tolist()
        overrides = [*overrides, f"env_args.payoff={payoff}"]
    command = [sys.executable, str(MAIN), f"--config={algorithm}", "--env-config=matrix_game", "with"]
    command += [f"seed={seed}", f"local_results_path={folder}", "use_cuda=False", "save_model=False", *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stderr}")
    path = next(Path(line.removeprefix("run directory: ")) for line in done.stdout.splitlines() if "directory:" in line)
    tables = read_json(path / "tables.json")
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    known = figures(tables) | {"seed": seed, "wall_time_s": summary["wall_time_s"]}
    if tables[0]["v_jt"] is not None and not shape:
        known["block"] = float(np.abs(np.array(tables[0]["q_prime"])[1:, 1:] + tables[0]["v_jt"]).max())
    return {name: value for name, value in known.items() if value is not None}


def line(name: str, values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"  {name:<22} median {median:.4g}   quartiles {low:.4g} to {high:.4g}   largest {max(values):.4g}"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", default="1-100", help="first-last")
    p.add_argument("--algorithms", nargs="+", default=["qtran_alt", "qtran_base", "vdn", "qmix", "qatten", "iql"])
    p.add_argument("--workers", type=int, default=2, help="runs at the same time")
    p.add_argument("--out", default=None, help="write every run's figures here, as JSON")
    p.add_argument("--shape", type=lambda text: tuple(map(int, text.split("x"))), help="random payoffs, such as 4x4x4")
    p.add_argument("overrides", nargs="*", help="KEY=VALUE for every run")
    options = p.parse_args()
    first, last = map(int, options.seeds.split("-"))
    results = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        for algorithm in options.algorithms:
            seeds = range(first, last + 1)
            runs = pool.map(lambda k, a=algorithm: one(a, k, folder, options.shape, options.overrides), seeds)
            results[algorithm] = runs = list(track(runs, algorithm, total=len(seeds), console=Console(stderr=True)))
            solved = sum(r["greedy_payoff"] == r["best_payoff"] for r in runs)
            print(f"{algorithm}: the greedy joint action is the best one in {solved} of {len(runs)} seeds")
            for name in ("regret", "max_abs_q_jt_error", "mean_square_q_jt_error", "gap", "block", "wall_time_s"):
                if name in runs[0]:
                    print(line(name, [r[name] for r in runs]), flush=True)
            if options.out:
                Path(options.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
