"""Multi-domain Gaussian squeeze (QTRAN, Son et al. 2019).

Axes: E environments, N agents, A actions.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.vector import ArrayEnv, EnvInfo, Observation, Seed, observed
from utils.args import key

EXACT = 2000  # sums of half the agents, up to which the optimum of a draw is looked for exactly
DOMAINS = {1: ((8.0, 1.0),), 2: ((8.0, 0.5), (5.0, 1.0))}  # {K: ((mean, width) of each domain, ...)}


def squeeze(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Σ_k x·exp(−(x−μ_k)²/σ_k²) of an array `x`, over the K = `k` domains.

    Maxima: K=1 8.031 at 8.06; K=2 8.009 at 8.02, and a local one of 5.049 at 5.10.
    """
    return sum((x * np.exp(-((x - mean) ** 2) / width**2) for mean, width in DOMAINS[k]), start=np.zeros(()))


def optimum(s: ArrayLike, n_actions: int, k: int) -> float:
    """The largest `squeeze(Σ_i s_i·u_i, k)` over all joint actions u, for s [N]. Exact.

    Between the peaks and the valleys of `squeeze` the reward only rises or only falls, so the best x is one
    of the two sums Σ_i s_i·u_i next to a peak or a valley, from below and from above. They are found by
    meeting in the middle: all A^(N/2) sums of one half of the agents, sorted, and for each the two that
    bring it closest among all sums of the other half.
    """
    first, second = (np.sort(_sums(half, n_actions)) for half in np.array_split(np.asarray(s, dtype=float), 2))
    best = 0.0  # of x = 0: everybody spends nothing
    for turn in turning_points(k):
        place = np.searchsorted(second, turn - first)
        below = (first + second[np.maximum(place - 1, 0)])[place > 0]
        above = (first + second[np.minimum(place, len(second) - 1)])[place < len(second)]
        nearest = [below.max()] if below.size else []
        nearest += [above.min()] if above.size else []
        best = max(best, *(float(squeeze(x, k)) for x in nearest))
    return best


@cache
def turning_points(k: int) -> NDArray[np.float64]:
    """Where `squeeze` has its peaks and valleys on x > 0, to 1e-4."""
    x = np.arange(0, 12, 1e-4)
    slope = np.sign(np.diff(squeeze(x, k)))
    return x[1:-1][slope[:-1] * slope[1:] < 0]


def _sums(s: NDArray[np.float64], n_actions: int) -> NDArray[np.float64]:
    """All sums Σ_i s_i·u_i of a few agents: [A^n]."""
    sums = np.zeros(1)
    for s_i in s:
        sums = (sums[:, None] + s_i * np.arange(n_actions)).ravel()
    return sums


def _info(config: "GaussianSqueeze.Config") -> EnvInfo:
    return EnvInfo(config.n_agents, config.n_actions, config.n_agents, config.n_agents, episode_limit=1)


class GaussianSqueeze(ArrayEnv):
    """Each episode is one step: s_i ~ U(0, s_max) is drawn for each agent, agent i picks
    u_i in 0..A-1, the reward is `squeeze(x)` with x = Σ_i s_i·u_i, the game is over.

    obs [E, N, N] and state [E, N] are s / s_max, which is in 0..1, the scale that networks learn best from:
    every agent sees all of it (which one it is itself, the controller's agent id tells it).
    """

    @dataclass(frozen=True)
    class Config:
        n_agents: int = key("agents N", unit="agents", low=2, high=1024)
        n_actions: int = key("actions A of an agent, which spends u in 0..A-1", unit="actions", low=2, high=1_000_000)
        k: int = key("domains: 1 (mean 8, width 1) or 2 (mean 8, width 0.5; mean 5, width 1)", choices=(1, 2))
        s_max: float = key("s_i is drawn uniformly from 0..s_max", above=0, high=1e6)

    large = ("n_agents", "n_actions")

    def __init__(self, config: Config, n_envs: int = 1, seed: Seed = None) -> None:
        self.config = config
        self.s = np.zeros((n_envs, config.n_agents))  # [E, N]
        super().__init__(_info(config), n_envs, seed)

    @classmethod
    def nbytes(cls, config: Any, n_envs: int) -> int:
        return observed(_info(config), n_envs) + 8 * n_envs * config.n_agents

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float]:
        """Means over fixed draws of s. Best: 7.489 ± 0.005 for K = 1, 7.660 ± 0.003 for K = 2 (studies/optima.py)."""
        rng = np.random.default_rng(0)
        s = cls._draws(config, rng)
        actions = rng.integers(config.n_actions, size=s.shape)
        return float(squeeze((s * actions).sum(axis=1), config.k).mean()), float(cls.best_rewards(config).mean())

    @classmethod
    def best_rewards(cls, config: Any) -> NDArray[np.float64]:
        """The reward of the best joint action under each of D fixed draws of s: [D].

        Exact with few agents. With many, every x up to Σ_i s_i·(A-1) is taken to be a sum Σ_i s_i·u_i: over the
        first 200 draws of ten agents the mean is then too high by less than 1e-6.
        """
        s, a, k = cls._draws(config, np.random.default_rng(0)), config.n_actions, config.k
        if a ** -(-config.n_agents // 2) <= EXACT:
            return np.array([optimum(draw, a, k) for draw in s[:1000]])
        largest = s.sum(axis=1) * (a - 1)  # [D]
        peaks = turning_points(k)  # and valleys, which are below the peak before them
        passed = np.where(peaks <= largest[:, None], squeeze(peaks, k), 0.0)  # [D, peaks]
        return np.maximum(squeeze(largest, k), passed.max(axis=1))

    @staticmethod
    def _draws(config: Any, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws of s: [D, N], a million numbers."""
        n = config.n_agents
        return rng.uniform(0, config.s_max, size=(max(1000, 1_000_000 // n), n))

    def reward_of(self, s: NDArray[np.float64], actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """The reward [...] of actions [..., N] under s [..., N]."""
        return squeeze((s * actions).sum(axis=-1), self.config.k)

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        self.s[mask] = self.rng.uniform(0, self.config.s_max, size=(mask.sum(), self.config.n_agents))

    def _observe(self) -> Observation:
        state = (self.s / self.config.s_max).astype(np.float32)  # [E, N]
        obs = np.repeat(state[:, None], self.config.n_agents, axis=1)  # [E, N, N]
        avail = np.ones((self.n_envs, self.config.n_agents, self.config.n_actions), dtype=bool)
        return Observation(obs, state, avail)

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        return self.reward_of(self.s, actions), np.ones(self.n_envs, dtype=bool)

    def render(self) -> str:
        return f"s = {np.round(self.s[0], 3)}"
