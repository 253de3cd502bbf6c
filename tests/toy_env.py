"""A game for tests that goes wrong on demand. It needs no torch: worker processes import this file."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.vector import ArrayEnv, EnvInfo, Observation
from utils.args import ConfigError, key

FAULTS = (
    "none", "nan_reward", "nan_reward_once", "inf_obs", "nan_first_obs", "nan_state", "huge_reward", "raise", "exit",
    "refuse", "swallow",
)  # fmt: skip


class Toy(ArrayEnv):
    """Three steps an episode, cut by the time limit; the team is paid the sum of its actions. From step
    `at` on, counted over episodes, it has a fault."""

    @dataclass(frozen=True)
    class Config:
        fault: str = key("what goes wrong", choices=FAULTS)
        at: int = key("when", unit="steps", low=0)
        pays_each: bool = key("each agent is paid its own action")

    def __init__(self, config, n_envs=1, seed=None):
        if config.fault == "refuse":
            raise ConfigError("env_args.fault = 'refuse': this game cannot be made")
        self.config, self.played = config, 0
        self.common_reward = not config.pays_each
        self.noise = np.zeros((n_envs, 2), dtype=np.float32)
        super().__init__(EnvInfo(n_agents=2, n_actions=3, obs_shape=2, state_shape=2, episode_limit=3), n_envs, seed)

    def _has(self, fault):
        return self.config.fault == fault and self.played >= self.config.at

    def _reset(self, mask):
        self.noise[mask] = self.rng.random((mask.sum(), 2))

    def _observe(self):
        obs = np.repeat(self.noise[:, None], 2, axis=1)
        if self._has("inf_obs") or self._has("nan_first_obs") and not self.t.any():
            obs[:, 1] = np.inf if self.config.fault == "inf_obs" else np.nan
        state = self.noise * (np.nan if self._has("nan_state") else 1)
        return Observation(obs, state, np.ones((self.n_envs, 2, 3), dtype=bool))

    def _step(self, actions, live):
        self.played += 1
        if self._has("raise"):
            raise RuntimeError("the game's engine has stopped")
        if self._has("swallow"):
            with suppress(KeyboardInterrupt):  # as Python does in callbacks of the garbage collector
                os.kill(os.getpid(), signal.SIGTERM)
        if self._has("exit"):
            os._exit(3)
        reward = actions.sum(axis=1).astype(float)
        if self._has("nan_reward") or self._has("huge_reward"):
            reward[:] = np.nan if self.config.fault == "nan_reward" else 1e30
        if self.config.fault == "nan_reward_once" and self.played == self.config.at:
            reward[0] = np.nan
        return reward, np.zeros(self.n_envs, dtype=bool)

    def step(self, actions):
        step = super().step(actions)
        return step._replace(reward=np.float32(actions)) if self.config.pays_each else step

    def _info(self):
        return {"battle_won": np.ones(self.n_envs)}


class Walk(ArrayEnv):
    """Episodes of 2 to 9 steps whose observations are noise; the team is paid what its actions match.

    sleep: seconds of a step, on average. dies: its process dies in its so many-th step; where `folder` is a folder, the
    first processes of the environments alone, which leave a file there. folder="nan": environment 1 shows NaN.
    """

    @dataclass(frozen=True)
    class Config:
        sleep: float = key("seconds of a step", low=0)
        dies: int = key("step in which the process dies; 0: none", low=0)
        folder: str = key("where a process that dies leaves a file")

    def __init__(self, config, n_envs=1, seed=None):
        self.config, self.played, self.number = config, 0, seed.spawn_key[0]
        first = seed.spawn_key[2] == 0
        self.dies = config.dies if config.folder == "always" or first else 0
        super().__init__(EnvInfo(n_agents=2, n_actions=4, obs_shape=3, state_shape=2, episode_limit=9), n_envs, seed)

    def _reset(self, mask):
        self.length = self.rng.integers(2, 9)
        self.noise = self.rng.random((1, 2, 3), dtype=np.float32)

    def _observe(self):
        bad = self.config.folder == "nan" and self.number == 1 and self.t[0] == 1
        obs = self.noise * np.float32(np.nan if bad else 1)
        return Observation(obs, self.noise[:, 0, :2].copy(), np.ones((1, 2, 4), dtype=bool))

    def _step(self, actions, live):
        self.played += 1
        if self.config.sleep:
            time.sleep(2 * self.config.sleep * self.rng.random())
        else:
            self.rng.random()
        if self.played == self.dies:
            if self.config.folder != "always":
                Path(self.config.folder, f"{os.getpid()}").touch()
            os._exit(3)
        self.noise = self.rng.random((1, 2, 3), dtype=np.float32)
        right = (actions[0] == (4 * self.noise[0, :, 0]).astype(int)).sum()
        return np.array([float(right)]), np.array([self.t[0] + 1 >= self.length and self.length < 8])

    def _info(self):
        return {"battle_won": np.ones(1)}

    def render(self):
        return f"at {self.t[0]}"
