"""Stands for the package gymnasium: what gymma asks of it, and a game for a team that goes wrong on demand."""

from types import SimpleNamespace

import numpy as np


class Tuple(list):
    pass


class Discrete:
    def __init__(self, n, start=0):
        self.n, self.start = n, start


class Box:
    def __init__(self, *dims, low=-np.inf, high=np.inf, dtype=np.float32, shape=None):
        self.shape, self.dtype = dims if shape is None else shape, np.dtype(dtype)
        self.low, self.high = (np.full(self.shape, bound, dtype=dtype) for bound in (low, high))


class Dict:
    def __init__(self, inner):
        self.spaces = inner


spaces = SimpleNamespace(
    Tuple=Tuple,
    Dict=Dict,
    Box=Box,
    Discrete=Discrete,
    flatdim=lambda space: int(np.prod(space.shape)),
    flatten=lambda space, shown: np.ravel(shown),
    flatten_space=lambda s: Box(s.low.size, low=s.low.ravel(), high=s.high.ravel(), dtype=s.dtype),
)


class Team:
    """Two agents with 2 and 4 actions (the second's are 1 to 4), that see 1 and 2x2 numbers: a draw, then the step."""

    def __init__(self, fault="", pays="each", ends=99, limit=None, agents=2, discrete=True, says=None):
        self.fault, self.pays, self.ends, self.says, self.unwrapped = fault, pays, ends, says, self
        self.action_space = Tuple([Discrete(2), Discrete(4, start=1) if discrete else Box(4)][:agents])
        self.observation_space = Tuple([Box(1), Box(2, 2)][:agents])
        if fault == "spaces":
            self.observation_space = Tuple([*self.observation_space, Box(1)])
        if fault == "box":
            self.observation_space = Box(1)
        if limit is not None:
            self._max_episode_steps = limit
        self.played = []

    def reset(self, seed=None):
        if self.fault == "reset":
            raise KeyError("no level")
        self.t, self.draw = 0, np.random.default_rng(seed).random()
        return self._show(), {}

    def step(self, actions):
        self.played.append(actions)
        self.t += 1
        if self.fault == "step" and self.t > 1:
            raise ValueError("the level\nis gone")
        if self.fault == "exit" and self.t > 1:
            raise SystemExit("bye")
        reward = [float(a) for a in actions] if self.pays == "each" else 5.0 if self.pays == "team" else self.pays
        if self.fault == "rewards" or (self.fault == "later" and self.t > 1):
            reward = [1.0, 1.0, 1.0]
        if self.fault == "nan" and self.t > 1:
            reward = [1.0, np.nan]
        over = self.t >= getattr(self, "_max_episode_steps", 99)  # a limit that it calls an end
        if self.fault == "old":
            return self._show(), reward, over, {}
        ends = [over or self.t >= self.ends] * len(self.action_space) if self.says is None else self.says
        return self._show(), reward, ends, self.fault == "cut" and self.t == 2, {}

    def _show(self):
        obs = (np.array([self.draw]), np.full((2, 2), self.t))
        if self.fault == "dict":
            return dict(enumerate(obs))
        return {"obs": obs[:1], "more": (*obs, obs[0]), "size": (obs[1], obs[1])}.get(self.fault, obs)

    def close(self):
        self.t = None
        if self.fault == "close":
            raise RuntimeError("stuck")


class Single(Team):
    def __init__(self):
        super().__init__()
        self.action_space, self.observation_space = Discrete(2), Box(1)


class Continuous(Single):
    def __init__(self):
        super().__init__()
        self.action_space = Box(1)


registry = {"Team-v1": Team, "Single-v1": Single, "Continuous-v1": Continuous}


def make(name, disable_env_checker=None, **kwargs):
    return registry[name](**kwargs)
