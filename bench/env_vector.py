"""What stepping many games at once saves: one step of E environments in arrays against E single steps.

    PYTHONPATH=src python bench/env_vector.py [--n-envs 1024] [--repeats 15] [--game NAME ...]

The two are timed in turn, so that a noisy machine slows both; the table holds medians over repeats.
Resets are outside the clock. The aim is a ratio of at least 50. About 15 seconds on one core.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from envs import REGISTRY, make
from envs.vector import VectorEnv

CONFIG = Path(__file__).parents[1] / "src" / "config" / "envs"
GAMES = [
    ("matrix_game", {}),
    ("matrix_game", {"key": "qtran_21x21"}),
    ("two_step", {}),
    ("gaussian_squeeze", {}),
    ("predator_prey", {}),
    ("predator_prey", {"map_size": 7, "n_predators": 4, "n_prey": 2}),
]


def step_seconds(envs: Sequence[VectorEnv], actions: NDArray[np.int64]) -> float:
    """Seconds for one step of each of `envs`, actions [len(envs), E, N]; ended episodes are reset after."""
    start = time.perf_counter()
    steps = [env.step(a) for env, a in zip(envs, actions, strict=True)]
    seconds = time.perf_counter() - start
    for env, step in zip(envs, steps, strict=True):
        if (step.terminated | step.truncated).any():
            env.reset(mask=step.terminated | step.truncated)
    return seconds


def compare(name: str, changes: dict[str, Any], n_envs: int, repeats: int) -> NDArray[np.float64]:
    """(seconds of one step of n_envs together, of n_envs single steps), medians."""
    env_args = yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))["env_args"] | changes
    together = [make(name, env_args, n_envs=n_envs, seed=0)]
    single = [make(name, env_args, seed=i) for i in range(n_envs)]
    for env in together + single:
        env.reset()
    rng = np.random.default_rng(0)
    info = together[0].env_info
    times = []
    for repeat in range(repeats + 1):
        actions = rng.integers(info.n_actions, size=(n_envs, 1, info.n_agents))
        pair = step_seconds(together, actions.swapaxes(0, 1)), step_seconds(single, actions)
        if repeat:  # the first one warms up
            times.append(pair)
    return np.median(times, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n-envs", type=int, default=1024, help="environments E (default: 1024)")
    parser.add_argument("--repeats", type=int, default=15, help="timed steps (default: 15)")
    parser.add_argument("--game", nargs="*", choices=sorted(REGISTRY), help="only these")
    args = parser.parse_args()
    print(f"{args.n_envs} environments, medians of {args.repeats}")
    print(f"{'game':52s} {'together ms':>12s} {'single ms':>10s} {'ratio':>6s}")
    for name, changes in GAMES:
        if args.game and name not in args.game:
            continue
        together, single = compare(name, changes, args.n_envs, args.repeats)
        label = " ".join([name, *(f"{k}={v}" for k, v in changes.items())])
        print(f"{label:52s} {together * 1e3:12.3f} {single * 1e3:10.1f} {single / together:6.0f}")


if __name__ == "__main__":
    main()
