"""Matrix games over many seeds: greedy payoff, accuracy of Q_jt, shape of Q'_jt.

python bench/matrix_seeds.py --seeds 1-100 --out bench/matrix_seeds.json
python bench/matrix_seeds.py --seeds 1-10 --shape 10x10 --algorithms qtran_alt qtran_base
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from utils import command, words
from utils.args import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envs.games.matrix_game import MatrixGame


MAIN = Path(__file__).resolve().parents[1] / "src" / "main.py"

DETAILS = """\
each run is the command `python src/main.py --config=ALG --env-config=matrix_game with seed=K` with its defaults; this
reads the tables.json and summary.json that it leaves. With --shape each seed plays a payoff of its own, uniform in
[-10, 10].

  python bench/matrix_seeds.py --seeds 1-100 --out bench/matrix_seeds.json
  python bench/matrix_seeds.py --seeds 1-10 --shape 10x10 --algorithms qtran_alt qtran_base

prints, for each algorithm, the number of seeds whose greedy joint action pays the best payoff, and over seeds: what it
pays less than the best, as a share of the range of payoffs (regret); max |Q_jt - payoff| and the mean of
(Q_jt - payoff)² over joint actions; the gap between the two largest joint values; on the 3x3 game max|Q'_jt + V_jt|
outside the optimum's row and column (block); the wall time of a run. FILE is written anew as each run finishes, so
Ctrl-C loses only the runs that are under way.

exit status: 0 done; 1 a run failed; 2 bad input; 130 interrupted (Ctrl-C)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser("bench/matrix_seeds.py", "Run algorithms on matrix games over many seeds.", DETAILS)
    p.add_argument(
        "--seeds", metavar="LIST", type=words.seeds, default="1-100", help="3, 1-20 or 1-3,7 (default: 1-100)"
    )
    p.add_argument(
        "--algorithms", metavar="NAME", nargs="+",
        default=["qtran_alt", "qtran_base", "vdn", "qmix", "qatten", "iql"],
        help="(default: qtran_alt qtran_base vdn qmix qatten iql)",
    )  # fmt: skip
    p.add_argument("--workers", metavar="N", type=words.at_least(1), default=2, help="runs at a time (default: 2)")
    p.add_argument("--out", metavar="FILE", type=Path, help="write every run's figures here, as JSON")
    p.add_argument("--shape", metavar="AxB", type=shape, help="random payoffs, such as 4x4x4")
    p.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="for every run")
    return p


def shape(text: str) -> tuple[int, ...]:
    """`4x4x4` as (4, 4, 4)."""
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) for part in parts) or len(parts) < 2:
        told = "is not a number of actions above 0 for each of two or more agents, such as 3x3 or 4x4x4"
        raise argparse.ArgumentTypeError(f"{text!r} {told}")
    if all(int(part) == 1 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} has one joint action, so there is nothing to learn; give 3x3")
    return tuple(map(int, parts))


def act(options: argparse.Namespace) -> int:
    # After --algorithms NAME argparse takes KEY=VALUE for one more name.
    algorithms = list(dict.fromkeys(word for word in options.algorithms if "=" not in word))
    overrides = [word for word in options.algorithms if "=" in word] + options.overrides
    seeds = list(dict.fromkeys(options.seeds))
    check(options, algorithms, overrides)
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        run_all(options, algorithms, seeds, overrides, results)
    except KeyboardInterrupt:
        if options.out and results:
            print(f"interrupted: {options.out} has the runs that finished", file=sys.stderr)
        raise
    return 0


def check(options: argparse.Namespace, algorithms: Sequence[str], overrides: Sequence[str]) -> None:
    """ConfigError where something cannot be run, or its figures not be written."""
    from envs import make
    from parts import readers
    from tables import MOST_JOINT_ACTIONS, too_many
    from utils.config import load, parse_overrides

    if not algorithms:
        raise ConfigError("--algorithms: no name is given")
    if options.shape and np.prod(options.shape, dtype=float) > MOST_JOINT_ACTIONS:  # before it takes memory
        given = "x".join(map(str, options.shape))
        raise ConfigError(f"--shape {given}: give a shape of at most {MOST_JOINT_ACTIONS} joint actions")
    changes = parse_overrides(words_of(options.seeds[0], options.shape, overrides))
    for algorithm in algorithms:
        values = load(algorithm, "matrix_game", changes, readers).values
        game = cast("MatrixGame", make("matrix_game", values["env_args"]))
        if too_many(game.payoff):
            raise ConfigError(
                f"{' '.join(overrides)}: the game has too many joint actions to list; give a smaller payoff"
            )
    if options.out:
        try:
            if options.out.exists() and not options.out.is_file():
                raise ConfigError(f"--out={options.out}: is not a file; give --out FILE")
            with tempfile.TemporaryFile(dir=options.out.parent):
                pass
        except OSError as error:
            raise unwritable(options.out, error) from error


def unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out={out}: cannot be written: {error.strerror}; give --out FILE in a folder that is there")


def words_of(seed: int, shape: tuple[int, ...] | None, overrides: Sequence[str]) -> list[str]:
    """What a run is given after `with`."""
    if shape:
        payoff = np.random.default_rng(seed).uniform(-10, 10, shape).round(3).tolist()
        overrides = [*overrides, f"env_args.payoff={payoff}"]
    return [f"seed={seed}", *overrides]


def run_all(
    options: argparse.Namespace,
    algorithms: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    results: dict[str, list[dict[str, Any]]],
) -> None:
    """Run, print, write --out. results: {algorithm: figures of its finished runs, in the order of seeds}, is filled."""
    from rich.console import Console
    from rich.progress import track

    from utils.rundir import write_atomically

    running: set[subprocess.Popen[str]] = set()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.workers) as pool:
        try:
            for algorithm in algorithms:
                runs = [pool.submit(one, algorithm, seed, folder, options.shape, overrides, running) for seed in seeds]
                done: dict[int, dict[str, Any]] = {}
                for run in track(as_completed(runs), algorithm, total=len(runs), console=Console(stderr=True)):
                    figures = run.result()
                    done[figures["seed"]] = figures
                    results[algorithm] = [done[seed] for seed in seeds if seed in done]
                    if options.out:
                        try:
                            write_atomically(options.out, json.dumps(results, indent=1) + "\n")
                        except OSError as error:
                            raise unwritable(options.out, error) from error
                summarise(algorithm, results[algorithm])
        finally:  # after a failure or Ctrl-C some are under way
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()


def one(
    algorithm: str,
    seed: int,
    folder: str,
    shape: tuple[int, ...] | None,
    overrides: Sequence[str],
    running: set[subprocess.Popen[str]],
) -> dict[str, Any]:
    """The figures of one run, whose process is in `running` meanwhile."""
    from tables import figures, read_json

    argv = [sys.executable, str(MAIN), f"--config={algorithm}", "--env-config=matrix_game", "with"]
    argv += [f"local_results_path={folder}", "use_cuda=False", "save_model=False", *words_of(seed, shape, overrides)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.add(process)
    out, err = process.communicate()
    running.discard(process)
    if process.returncode == 2:  # bad input that only a run finds; it has told in its last line
        raise ConfigError(f"{algorithm}: {(err.strip().splitlines() or ['it ended with status 2'])[-1]}")
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}\nexit status {process.returncode}\n{err}")
    path = next(Path(line.removeprefix("run directory: ")) for line in out.splitlines() if "directory:" in line)
    tables = read_json(path / "tables.json")
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    known = figures(tables) | {"seed": seed, "wall_time_s": summary["wall_time_s"]}
    if tables[0]["v_jt"] is not None and not shape and np.shape(tables[0]["payoff"]) == (3, 3):
        known["block"] = float(np.abs(np.array(tables[0]["q_prime"])[1:, 1:] + tables[0]["v_jt"]).max())
    return {name: value for name, value in known.items() if value is not None}


def summarise(algorithm: str, runs: Sequence[dict[str, Any]]) -> None:
    solved = sum(r["greedy_payoff"] == r["best_payoff"] for r in runs)
    print(f"{algorithm}: the greedy joint action is the best one in {solved} of {len(runs)} seeds")
    for name in ("regret", "max_abs_q_jt_error", "mean_square_q_jt_error", "gap", "block", "wall_time_s"):
        if name in runs[0]:
            print(line(name, [r[name] for r in runs]), flush=True)


def line(name: str, values: Sequence[float]) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"  {name:<22} median {median:.4g}   quartiles {low:.4g} to {high:.4g}   largest {max(values):.4g}"


if __name__ == "__main__":
    sys.exit(main())
