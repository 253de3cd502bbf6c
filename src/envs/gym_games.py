"""One game of the outside world each: a Gymnasium id, a parallel PettingZoo environment, a scenario of VMAS.

`make_game(key)` takes a key as EPyMARL writes them. All have the same small face: n_actions and obs_sizes (lists, one
number an agent), `limit` (the game's own time limit, or None), `package` (where it is from), reset(seed) → observations
(flat, one an agent), step(actions) → observations, reward (a number, or a list of the agents'), terminated, truncated.
What a game raises is its own: `gymma` says whose it is.
"""

import contextlib
import importlib
import io
import warnings
from typing import Any

import numpy as np

from envs.gym_keys import OWNERS, gym_id, parallel_modules, unknown, vmas_scenarios
from envs.vector import GameError
from utils.args import ConfigError
from utils.registry import MissingPackage

OWN_LIMITS = ("_max_episode_steps", "max_steps")  # where lbforaging and rware keep limits that they report as ends
WANTED = (
    "QTRAN and its like are for two or more agents, each with a finite set of actions, that share what they are paid"
)


def make_game(key, time_limit, kwargs, wrapper=None):
    """The game of EPyMARL's `key`. wrapper: see LastAgent. ConfigError for what is unknown, or no game for a team."""
    game_class, name = find(key)
    game = game_class(name, time_limit, kwargs)
    if wrapper:
        game, key = LastAgent(game, wrapper), f"{key} with {wrapper}"
    if len(game.n_actions) < 2:
        raise ConfigError(f"{key} has {'one agent' if game.n_actions else 'no agents'}; {WANTED}")
    return game


def find(name):
    """(class of the game, the name that it is made by) of EPyMARL's key `name`. ConfigError for an unknown one."""
    for prefix, game, known in (("pz-", ParallelGame, parallel_modules), ("vmas-", VmasGame, vmas_scenarios)):
        if name.startswith(prefix):
            there = known()
            if name not in there:
                raise unknown(name, there)
            return game, there[name]
    return GymGame, gym_id(name)


class GymGame:
    """An environment registered with Gymnasium whose spaces are Tuples, one entry an agent."""

    def __init__(self, name, time_limit, kwargs):
        import gymnasium

        self.env: Any = gymnasium.make(name, disable_env_checker=True, **kwargs)
        self.package = type(self.env.unwrapped).__module__.partition(".")[0]
        actions, observations = self.env.action_space, self.env.observation_space
        if not all(isinstance(space, gymnasium.spaces.Tuple) for space in (actions, observations)):
            raise ConfigError(f"{name} {_what_it_is(actions, observations)}; {WANTED}")
        if len(actions) != len(observations):
            raise ConfigError(f"{name} has actions for {len(actions)} agents, observations for {len(observations)}")
        self.spaces, self.flatten = list(observations), gymnasium.spaces.flatten
        self.n_actions = [count(space, name) for space in actions]
        self.first = [int(space.start) for space in actions]
        self.obs_sizes = [gymnasium.spaces.flatdim(space) for space in self.spaces]
        self.limit = self._lift_limit(time_limit) if self.package in OWNERS.values() else None

    def _lift_limit(self, time_limit):
        """The game's own limit. It is moved beyond ours, as it would look like an end."""
        game, limit = self.env.unwrapped, None
        for attribute in OWN_LIMITS:
            own = getattr(game, attribute, None)
            if isinstance(own, int):
                limit = own
                setattr(game, attribute, max(own, time_limit) + 1)
        return limit

    def reset(self, seed):
        for player in self.env.unwrapped.players if self.package == "lbforaging" else ():
            player.position = None  # it would keep the new ones off the cells of the old, so not repeat itself
        return self._flat(self.env.reset(seed=seed)[0])

    def step(self, actions):
        answer = self.env.step([a + first for a, first in zip(actions, self.first)])
        if not isinstance(answer, tuple) or len(answer) != 5:
            kind = f"{len(answer)} (as the old gym's)" if isinstance(answer, tuple) else type(answer).__name__
            raise GameError(f"step answers not with observation, reward, terminated, truncated, info, but with {kind}")
        obs, reward, *ends, _ = answer
        terminated, truncated = (self._each(end) for end in ends)
        over = bool(terminated.all())
        return self._flat(obs), reward, over, bool((terminated | truncated).all()) and not over

    def _flat(self, obs):
        if isinstance(obs, dict) or len(obs) != len(self.spaces):
            kind = f"{len(obs)} in a {type(obs).__name__}"
            raise GameError(f"the game shows not a tuple of {len(self.spaces)} observations, one an agent, but {kind}")
        return [np.asarray(self.flatten(space, o), dtype=np.float32) for space, o in zip(self.spaces, obs)]

    def _each(self, end):
        """What the game says of its end, for each agent: bool [N]."""
        n, says = len(self.spaces), numbers(end)
        if says is None or says.shape not in ((), (n,)):
            raise GameError(f"the game says {end!r} of its end, not True or False, or a list of {n} of these")
        return np.broadcast_to(says.astype(bool), (n,))

    def close(self):
        self.env.close()


class ParallelGame:
    """A parallel environment of PettingZoo or mpe2. Agents that have left see zeros and are paid nothing."""

    limit = None

    def __init__(self, name, time_limit, kwargs):
        from gymnasium.spaces import flatdim, flatten

        self.package, self.flatten = name.partition(".")[0], flatten
        self.env: Any = self._make(name, kwargs)
        self.agents = list(self.env.possible_agents)
        spaces = [self.env.action_space(agent) for agent in self.agents]
        self.n_actions = [count(space, name) for space in spaces]
        self.first = [int(space.start) for space in spaces]
        self.spaces = {agent: self.env.observation_space(agent) for agent in self.agents}
        self.obs_sizes = [flatdim(space) for space in self.spaces.values()]

    def _make(self, name, kwargs):
        try:
            module = importlib.import_module(name)
            if hasattr(module, "parallel_env"):
                return module.parallel_env(**kwargs)
        except ImportError as error:  # each family of PettingZoo has packages of its own
            family = name.split(".")[1]
            raise MissingPackage(f'{name}: {error}; install it with: pip install "pettingzoo[{family}]"') from error
        raise ConfigError(f"{name} is played in turns (AEC); only games in which all agents act at once can be played")

    def reset(self, seed):
        return self._flat(self.env.reset(seed=seed)[0])

    def step(self, actions):
        all_of_them = zip(self.agents, actions, self.first)
        chosen = {agent: a + first for agent, a, first in all_of_them if agent in self.env.agents}
        obs, reward, _, truncated, _ = self.env.step(chosen)
        over, cut = not self.env.agents, any(truncated.values())
        return self._flat(obs), [reward.get(agent, 0.0) for agent in self.agents], over and not cut, over and cut

    def _flat(self, obs):
        return [
            np.asarray(self.flatten(self.spaces[agent], obs[agent]), dtype=np.float32)
            if agent in obs
            else np.zeros(size)
            for agent, size in zip(self.agents, self.obs_sizes)
        ]

    def close(self):
        self.env.close()


class VmasGame:
    """A scenario of VMAS, one world, discrete actions."""

    limit, package = None, "vmas"

    def __init__(self, name, time_limit, kwargs):
        self.env = _import_vmas().make_env(
            name, num_envs=1, continuous_actions=False, terminated_truncated=True, seed=0, **kwargs
        )
        self.n_actions = [count(space, name) for space in self.env.action_space]
        self.obs_sizes = [int(np.prod(space.shape)) for space in self.env.observation_space]

    def reset(self, seed):
        return self._flat(self.env.reset(seed=seed))

    def step(self, actions):
        obs, reward, terminated, truncated, _ = self.env.step([[a] for a in actions])
        return self._flat(obs), [float(r[0]) for r in reward], bool(terminated[0]), bool(truncated[0])

    def _flat(self, obs):
        return [o[0].numpy().ravel() for o in obs]

    def close(self):
        pass


class LastAgent:
    """A game whose last agent is played by nobody (FrozenTag: always its first action) or by chance (RandomTag)."""

    def __init__(self, game, wrapper):
        self.game, self.by_chance = game, wrapper == "RandomTag"
        self.limit, self.package = game.limit, game.package
        self.n_actions, self.obs_sizes = game.n_actions[:-1], game.obs_sizes[:-1]
        self.close = game.close

    def reset(self, seed):
        self.rng = np.random.default_rng(seed)
        return self.game.reset(seed)[:-1]

    def step(self, actions):
        last = int(self.rng.integers(self.game.n_actions[-1])) if self.by_chance else 0
        obs, reward, terminated, truncated = self.game.step([*actions, last])
        return obs[:-1], reward[:-1] if np.ndim(reward) else reward, terminated, truncated


def numbers(values):
    """`values` as an array of real numbers or booleans; None where they are something else."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def count(space, name):
    """The number of actions of a Discrete space, gymnasium's or the old gym's; ConfigError for another one."""
    if "Discrete" not in (cls.__name__ for cls in type(space).__mro__):
        raise ConfigError(f"{name} has actions that are not discrete ({space}); {WANTED}")
    return int(space.n)


def _what_it_is(actions, observations):
    """Of a game whose spaces are not Tuples."""
    single = ("Discrete", "Box", "MultiDiscrete", "MultiBinary")
    kinds = [type(space).__name__ for space in (actions, observations)]
    if kinds[0] in single and kinds[1] != "Tuple":
        return f"has one agent (it acts in {actions})"
    return f"has spaces of actions and observations that are {' and '.join(kinds)}, not Tuples with one entry an agent"


def _import_vmas():
    """The package, without what the old gym that it brings along says of itself."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module("vmas")
