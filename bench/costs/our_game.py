"""`games.Play` as an environment of ours. Worker processes import this file: no torch."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costs.games import Play, Rules
from envs.vector import EnvInfo, Observation, Seed, Step, VectorEnv
from utils.args import key
from utils.seeding import stream

NAME = "bench_game"


class Game(VectorEnv):
    """n_envs of them, one after the other in each step."""

    @dataclass(frozen=True)
    class Config:
        agents: int = key("agents")
        actions: int = key("actions")
        obs: int = key("length of an observation")
        state: int = key("length of the state")
        shortest: int = key("shortest episode", unit="steps")
        longest: int = key("longest episode", unit="steps")
        least_ms: float = key("shortest step", unit="milliseconds")
        most_ms: float = key("longest step", unit="milliseconds")

    def __init__(self, config: Any, n_envs: int = 1, seed: Seed = None) -> None:
        rules = Rules(**{f.name: getattr(config, f.name) for f in fields(Rules)})
        self.n_envs, self.seed = n_envs, stream(seed)
        self.env_info = EnvInfo(rules.agents, rules.actions, rules.obs, rules.state, rules.longest)
        self.plays = [Play(rules) for _ in range(n_envs)]
        self.over = np.zeros(n_envs, dtype=bool)
        self.never, self.reward = np.zeros(n_envs, dtype=bool), np.zeros(n_envs, dtype=np.float32)
        self.shown = Observation(
            np.stack([play.obs for play in self.plays]), np.stack([play.state for play in self.plays]),
            np.ones((n_envs, rules.agents, rules.actions), dtype=bool),
        )  # fmt: skip

    def reset(self, seed: Seed = None, mask: NDArray[np.bool_] | None = None) -> Observation:
        if seed is not None:
            self.seed = stream(seed)
        for i, child in enumerate(self.seed.spawn(self.n_envs)):
            if mask is None or mask[i]:
                self.plays[i].begin(np.random.default_rng(child))
                self.over[i] = False
        return self.shown

    def step(self, actions: NDArray[np.int64]) -> Step:
        for i, play in enumerate(self.plays):
            if not self.over[i]:
                self.over[i] = play.step()
        return Step(*self.shown, self.reward, self.over.copy(), self.never, {})
