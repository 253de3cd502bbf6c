"""The two-step game of the QMIX paper (Rashid et al. 2018).

Axes: E environments, N = 2 agents, A = 2 actions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.vector import ArrayEnv, EnvInfo, Observation, observed

INFO = EnvInfo(n_agents=2, n_actions=2, obs_shape=3, state_shape=3, episode_limit=2)
START = 0  # the positions 1 and 2 are the two second steps
PAYOFF = np.array([[[0, 0], [0, 0]], [[7, 7], [7, 7]], [[0, 1], [1, 8]]], dtype=float)  # [position, A, A]


class TwoStep(ArrayEnv):
    """Agent 1's first action picks the payoff of the second step: 0 leads to 7 everywhere, 1 to
    [[0, 1], [1, 8]]. The first step pays 0, agent 2's first action changes nothing.

    state [E, 3]: one-hot of the position (start, payoff 7, payoff up to 8); obs [E, N, 3]: the same
    to both agents. The last position stays in view after the end.
    """

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config, n_envs=1, seed=None):
        self.position = np.full(n_envs, START)  # [E]
        self._one_hot = np.eye(len(PAYOFF), dtype=np.float32)
        super().__init__(INFO, n_envs, seed)

    @classmethod
    def nbytes(cls, config: Any, n_envs: int) -> int:
        return observed(INFO, n_envs)

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float]:
        second = PAYOFF[1:].mean(axis=(1, 2))  # what each second step pays at random
        return float(second.mean()), float(PAYOFF.max())

    def _reset(self, mask):
        self.position[mask] = START

    def _observe(self):
        state = self._one_hot[self.position]  # [E, 3]
        obs = np.repeat(state[:, None], 2, axis=1)  # [E, N, 3]
        return Observation(obs, state, np.ones((self.n_envs, 2, 2), dtype=bool))

    def _step(self, actions, live):
        u1, u2 = np.where(live[:, None], actions, 0).T  # [E]; where frozen, anything may stand in them
        reward = PAYOFF[self.position, u1, u2]
        over = self.position != START
        self.position = np.where(live & ~over, 1 + u1, self.position)
        return reward, over

    def render(self):
        return f"position {self.position[0]}, payoff:\n{PAYOFF[self.position[0]]}"
