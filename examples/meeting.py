"""A game of one's own, many environments as arrays: agents on a line get a reward once they all stand at one place.

python src/main.py --config=qtran_alt --env-config=examples/meeting.yaml
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.vector import ArrayEnv, EnvInfo, Observation, Seed
from utils.args import key


class Meeting(ArrayEnv):
    """Actions: left, stay, right. Each agent sees its own place and the mean of all, both in 0..1."""

    @dataclass(frozen=True)
    class Config:
        n_agents: int = key("agents", low=2)
        length: int = key("places on the line", low=2)
        episode_limit: int = key("time limit", unit="steps", low=1)

    def __init__(self, config: Config, n_envs: int = 1, seed: Seed = None) -> None:
        self.config, self.place = config, np.zeros((n_envs, config.n_agents), dtype=int)
        n = config.n_agents
        super().__init__(EnvInfo(n, 3, obs_shape=2, state_shape=n, episode_limit=config.episode_limit), n_envs, seed)

    def _reset(self, mask: NDArray[np.bool_]) -> None:  # bool [E]: where a new episode begins
        self.place[mask] = self.rng.integers(self.config.length, size=(mask.sum(), self.config.n_agents))

    def _observe(self) -> Observation:
        state = (self.place / (self.config.length - 1)).astype(np.float32)  # [E, S]
        mean = np.broadcast_to(state.mean(axis=1, keepdims=True), state.shape)
        avail = np.ones((*state.shape, 3), dtype=bool)  # [E, N, A]
        return Observation(np.stack([state, mean], axis=-1), state, avail)

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:  # [E, N]; live [E]: environments whose episode goes on
        moves = np.where(live[:, None], actions - 1, 0)
        self.place = np.clip(self.place + moves, 0, self.config.length - 1)
        self.met = self.place.max(axis=1) == self.place.min(axis=1)
        return self.met.astype(np.float32), self.met  # the reward [E], and whether the episode is over

    def _info(self) -> dict[str, NDArray[Any]]:
        return {"met": self.met}  # logged as met_mean and test_met_mean
