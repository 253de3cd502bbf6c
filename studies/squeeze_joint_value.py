"""Gaussian squeeze: does QTRAN fail to learn Q_jt, or to bind the agents' values to it?

python studies/squeeze_joint_value.py results/qtran_base/gaussian_squeeze/seed1001_20261122T120000Z

For draws of s, what three joint actions are paid: the agents' own, greedy in Σ_i Q_i; the best one that the learned
Q_jt knows of, as far as coordinate ascent on it from random starts goes; and the true optimum.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from components.episode_buffer import EpisodeBatch
from envs.games.gaussian_squeeze import GaussianSqueeze, optimum
from parts import Parts, readers
from utils import command
from utils.args import ConfigError
from utils.config import load_from
from utils.logging import Logger
from utils.words import at_least

CHUNK = 2048  # joint actions valued at a time


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    description, _, details = (__doc__ or "").partition("\n")
    p = command.parser("studies/squeeze_joint_value.py", description, details.strip())
    p.add_argument("run", metavar="RUN", help="a run directory of QTRAN on gaussian_squeeze, with a checkpoint")
    p.add_argument("--draws", type=at_least(2), default=200, help="draws of s (default 200)")
    p.add_argument("--starts", type=at_least(1), default=4, help="of the ascent, for each draw (default 4)")
    return p


def act(options: argparse.Namespace) -> int:
    wanted = {"checkpoint_path": options.run, "evaluate": True, "use_cuda": False, "env_workers": False}
    parts = Parts(load_from(Path(options.run), wanted, readers).values, Logger(logging.getLogger("squeeze")))
    if parts.experiment.env != "gaussian_squeeze" or not parts.experiment.name.startswith("qtran"):
        raise ConfigError(f"{options.run}: a run of {parts.experiment.name} on {parts.experiment.env}; give one of "
                          "QTRAN on gaussian_squeeze")  # fmt: skip
    game = game_of(parts).config
    rng = np.random.default_rng(0)
    s = rng.uniform(0, game.s_max, size=(options.draws, game.n_agents))
    greedy = values(parts, s, np.zeros(s.shape, dtype=np.int64))["q"].argmax(axis=-1)
    paid = {
        "agents, greedy in Σ_i Q_i": game_of(parts).reward_of(s, greedy),
        "best joint action known to Q_jt": game_of(parts).reward_of(s, ascend(parts, s, options.starts, rng)),
        "optimum": np.array([optimum(row, game.n_actions, game.k) for row in s]),
    }
    for name, rewards in paid.items():
        print(f"{name:<32} {rewards.mean():.2f} ± {rewards.std(ddof=1) / len(rewards) ** 0.5:.2f}")
    return 0


def game_of(parts: Parts) -> GaussianSqueeze:
    assert isinstance(parts.env, GaussianSqueeze)
    return parts.env


def values(parts: Parts, s: NDArray[np.float64], actions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """{"q": Q_i(τ_i,·) [D, N, A], "q_jt": Q_jt(τ,u) [D]} of joint actions [D, N] under s [D, N]."""
    batch = EpisodeBatch(parts.scheme, parts.groups, len(s), 2)
    state = s / game_of(parts).config.s_max
    seen = {"state": state, "obs": np.repeat(state[:, None], s.shape[1], axis=1)}
    seen["avail_actions"] = np.ones((*s.shape, game_of(parts).config.n_actions))
    for t in (0, 1):  # what stands after the end of the game is not read
        batch.update(seen, ts=t)
    batch.update({"actions": actions[..., None], "terminated": np.ones((len(s), 1))}, ts=0)
    found = parts.learner.values(batch)
    return {"q": found["q"][:, 0].numpy(), "q_jt": found["q_jt"][:, 0, 0].numpy()}


def ascend(parts: Parts, s: NDArray[np.float64], starts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Joint actions [D, N]: the largest Q_jt that changing one agent's action at a time leads to."""
    n_draws, n_agents = s.shape
    s = np.repeat(s, starts, axis=0)
    u = rng.integers(0, game_of(parts).config.n_actions, size=s.shape)
    best = np.full(len(u), -np.inf)
    while True:
        before = best.copy()
        for agent in range(n_agents):
            tried = np.repeat(u[:, None], game_of(parts).config.n_actions, axis=1)  # [D·starts, A, N]
            tried[..., agent] = np.arange(game_of(parts).config.n_actions)
            q = q_jt(parts, np.repeat(s, tried.shape[1], axis=0), tried.reshape(-1, n_agents)).reshape(len(u), -1)
            u[:, agent], best = q.argmax(axis=1), q.max(axis=1)
        if (best <= before + 1e-6).all():
            break
    best = best.reshape(n_draws, starts)
    return u.reshape(n_draws, starts, n_agents)[np.arange(n_draws), best.argmax(axis=1)]


def q_jt(parts: Parts, s: NDArray[np.float64], actions: NDArray[np.int64]) -> NDArray[np.float32]:
    chunks = range(0, len(s), CHUNK)
    return np.concatenate([values(parts, s[i : i + CHUNK], actions[i : i + CHUNK])["q_jt"] for i in chunks])


if __name__ == "__main__":
    sys.exit(main())
