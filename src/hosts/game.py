"""A one-step matrix game for the hosts of the QTRAN plugin: it speaks EPyMARL's and PyMARL's environment interface.

`python src/plugin.py install PATH --with-games` puts it into a checkout as `envs/qtran_matrix_game.py`. Each agent
picks one action, the reward is payoff[u_1, …, u_N], the episode is over. Observations and the state are the
constant 1. This project's own games are in `envs/`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class QTranMatrixGame:
    """payoff: nested lists, one level for each agent. step_values: how many values the host's runners expect of
    `step`, gymnasium's 5 or 3. Further arguments that hosts give to every environment are not read."""

    episode_limit = 1

    def __init__(self, payoff: list, step_values: int, **_: Any) -> None:
        self.payoff = np.array(payoff, dtype=np.float64)
        self.n_agents = self.payoff.ndim
        self.step_values = step_values

    def get_env_info(self) -> dict[str, int]:
        return {
            "n_agents": self.n_agents,
            "n_actions": self.get_total_actions(),
            "obs_shape": 1,
            "state_shape": 1,
            "episode_limit": self.episode_limit,
        }

    def get_total_actions(self) -> int:
        return max(self.payoff.shape)

    def get_obs(self) -> list[np.ndarray]:
        return [np.ones(1, dtype=np.float32) for _ in range(self.n_agents)]

    def get_state(self) -> np.ndarray:
        return np.ones(1, dtype=np.float32)

    def get_avail_actions(self) -> list[list[int]]:
        """1 where an agent has the action, else 0: [N, A]."""
        return [[int(a < n) for a in range(self.get_total_actions())] for n in self.payoff.shape]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[list[np.ndarray], dict]:
        return self.get_obs(), {}

    def step(self, actions: Any) -> tuple[Any, ...]:
        reward = float(self.payoff[tuple(int(a) for a in actions)])
        if self.step_values == 5:
            return self.get_obs(), reward, True, False, {}
        return reward, True, {}

    def get_stats(self) -> dict:
        return {}

    def render(self) -> None:
        print(self.payoff)

    def save_replay(self) -> None:
        pass

    def seed(self, seed: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass
