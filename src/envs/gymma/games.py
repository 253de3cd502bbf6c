"""One game of the outside world each: a Gymnasium environment, a parallel one of PettingZoo, a scenario of VMAS.

`make_game(key)` takes a key as EPyMARL writes them, or MODULE:NAME of the user's own. All have the face of `Game`.
What a game raises is its own: `gymma` says whose it is.
"""

import contextlib
import copy
import importlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.gymma.keys import OWNERS, gym_entry, mpe_today, parallel_modules, past, unknown, vmas_scenarios
from envs.vector import GameError
from utils.args import ConfigError
from utils.registry import MissingPackage

OWN_LIMITS = ("_max_episode_steps", "max_steps")  # where lbforaging and rware keep limits that they report as ends
WANTED = "agents need a finite set of actions each (Discrete)"
MASK, STATE = "action_mask", "state"  # names of an observation or an info that have a meaning of their own
LARGE = 1e30  # a bound beyond this is none


class Game:
    """What `gymma` asks of a game. Lists have one entry an agent.

    reset(seed) → observations (flat arrays); step(actions) → observations, reward (a number, or a list of the agents'),
    terminated, truncated. Behind either, `info` and `masks` are those of this step, and `state()` tells the state.
    """

    package: str  # where it is from
    n_actions: list[int]
    sights: list["Sight"]  # how observations are read
    limit: int | None = None  # its own time limit, in steps, where it is known
    limit_name: str | None = None  # the argument of the game that sets it
    info: Mapping[str, float | str] = {}  # {name: a number, or the name of another type} of the last info
    masks: list[Any] | None = None  # which actions can be taken; None for an agent: the game does not say
    state_name: str | None = None  # where `state` is from, in words

    def reset(self, seed: int) -> list[Any]:
        raise NotImplementedError

    def step(self, actions: list[int]) -> tuple[list[Any], Any, bool, bool]:
        raise NotImplementedError

    def state(self) -> Any:
        """The game's own global state as it is now; None where it offers none."""
        return None

    def score_range(self) -> tuple[float, float] | None:
        """Mean returns of random play and of the best play, where the package's object has a `score_range`."""
        made = getattr(self, "env", None)
        return getattr(getattr(made, "unwrapped", made), "score_range", None)

    def frame(self) -> Any:
        """A picture, uint8 [height, width, 3]; None where the game does not draw itself."""
        return None

    def close(self) -> None:
        pass


class Sight:
    """How the observations of one agent are read. Those that are dicts may hold an `action_mask`.

    size: numbers of an observation. shape: before it is made flat. pixels: numbers of 0..255 as uint8. low, high:
    bounds of each number, or None.
    """

    low: Any = None
    high: Any = None

    def __init__(self, space: Any):
        from gymnasium import spaces

        self.rest: list[str] | None = None  # what an observation holds beside its mask
        inner = getattr(space, "spaces", None)
        if isinstance(inner, Mapping) and MASK in inner:
            self.rest = [name for name in inner if name != MASK]
            if not self.rest:
                raise ConfigError(f"observations hold nothing but {MASK!r} ({space})")
            space = inner[self.rest[0]] if len(self.rest) == 1 else spaces.Dict({k: inner[k] for k in self.rest})
        self.space, self.flatten = space, spaces.flatten
        self.size = spaces.flatdim(space)
        self.shape = tuple(getattr(space, "shape", None) or (self.size,))
        flat: Any = spaces.flatten_space(space)
        self.low, self.high = getattr(flat, "low", None), getattr(flat, "high", None)
        is_box = self.low is not None and flat.dtype == np.uint8
        self.pixels = bool(is_box and (self.low == 0).all() and (self.high == 255).all())

    def read(self, shown: Any) -> tuple[Any, Any]:
        """(an observation as flat array, its action mask or None)."""
        mask = None
        if self.rest is not None:
            if not isinstance(shown, Mapping) or not {*self.rest} <= {*shown}:
                raise GameError(f"the game shows not a dict with {', '.join(self.rest)}, but {_kind(shown)}")
            mask = shown.get(MASK)
            shown = shown[self.rest[0]] if len(self.rest) == 1 else {k: shown[k] for k in self.rest}
        return np.asarray(self.flatten(self.space, shown), dtype=np.uint8 if self.pixels else np.float32), mask

    def nothing(self) -> Any:
        """What an agent sees that has left."""
        return np.zeros(self.size, dtype=np.uint8 if self.pixels else np.float32)


def make_game(key: str, time_limit: int, kwargs: dict, wrapper: str | None = None) -> Game:
    """The game of `key`. wrapper: see LastAgent. ConfigError for what is unknown, or cannot be played."""
    game = find(key, time_limit, kwargs)
    if wrapper:
        game, key = LastAgent(game, wrapper), f"{key} with {wrapper}"
    if not game.n_actions:
        raise ConfigError(f"{key} has no agents; {WANTED}")
    return game


def find(key: str, time_limit: int, kwargs: dict) -> Game:
    """The game of EPyMARL's `key`, or of MODULE:NAME. ConfigError for an unknown one."""
    if today := mpe_today(key):
        raise past(key, today)
    if key.startswith("pz-"):
        there = parallel_modules()
        if key not in there:
            raise unknown(key, there)
        return ParallelGame(_of_pettingzoo(there[key], kwargs), key)
    if key.startswith("vmas-"):
        there = vmas_scenarios()
        if key not in there:
            raise unknown(key, there)
        return VmasGame(there[key], kwargs)
    entry = gym_entry(key)
    if isinstance(entry, str):
        return GymGame(gym_env(entry, kwargs), key, time_limit)
    return _own_game(key, entry, time_limit, kwargs)


def gym_env(name: str, kwargs: dict) -> Any:
    """The environment that Gymnasium has under this id.

    A `max_episode_steps` that the game itself takes goes to the game; gymnasium.make would keep it for its own limit.
    """
    import gymnasium

    with warnings.catch_warnings():
        if "render_mode" in kwargs:  # it warns where a game cannot draw itself, which we say ourselves
            warnings.simplefilter("ignore")
        return _made(gymnasium, name, kwargs)


def _made(gymnasium: Any, name: str, kwargs: dict) -> Any:
    spec: Any = gymnasium.registry[name]
    own = getattr(spec, "kwargs", None) or {}
    if "max_episode_steps" in kwargs and "max_episode_steps" in own:
        spec = copy.deepcopy(spec)
        spec.kwargs["max_episode_steps"] = kwargs["max_episode_steps"]
        rest = {k: v for k, v in kwargs.items() if k != "max_episode_steps"}
        return gymnasium.make(spec, disable_env_checker=True, **rest)
    return gymnasium.make(name, disable_env_checker=True, **kwargs)


def _own_game(key: str, entry: Any, time_limit: int, kwargs: dict) -> Game:
    """The game that a class or a factory of the user's gives."""
    if not callable(entry):
        raise ConfigError(
            f"{key} is {_kind(entry)}, not a class or a function that returns a Gymnasium environment or a PettingZoo "
            "ParallelEnv"
        )
    env: Any = entry(**kwargs)
    if hasattr(env, "agent_iter"):
        raise ConfigError(f"{key} {IN_TURNS}")
    if hasattr(env, "possible_agents"):
        return ParallelGame(env, key)
    if all(hasattr(env, name) for name in ("action_space", "observation_space", "reset", "step", "unwrapped")):
        return GymGame(env, key, time_limit)
    raise ConfigError(f"{key} gives {_kind(env)}, not a Gymnasium environment or a PettingZoo ParallelEnv")


IN_TURNS = "is played in turns (AEC); only games in which all agents act at once can be played"


class GymGame(Game):
    """A Gymnasium environment: its spaces are Tuples, one entry an agent, or, with one agent, as they are."""

    def __init__(self, env: Any, name: str, time_limit: int):
        from gymnasium import spaces

        self.env = env
        self.package = type(env.unwrapped).__module__.partition(".")[0]
        actions, observations = env.action_space, env.observation_space
        kinds = [isinstance(space, spaces.Tuple) for space in (actions, observations)]
        self.alone = not any(kinds) and _is_discrete(actions)
        if self.alone:
            actions, observations = [actions], [observations]
        elif not all(kinds):
            raise ConfigError(f"{name} {_what_it_is(actions, observations)}; {WANTED}")
        if len(actions) != len(observations):
            raise ConfigError(f"{name} has actions for {len(actions)} agents, observations for {len(observations)}")
        self.n_actions = [count(space, name) for space in actions]
        self.first = [int(space.start) for space in actions]
        self.sights = [Sight(space) for space in observations]
        self._limits(time_limit)
        self.ask, self.state_name = _state_of(env)
        self.shown: Mapping = {}  # the last info

    def _limits(self, time_limit: int) -> None:
        """Note the game's own limit. That of lbforaging and rware is moved beyond ours: it would look like an end."""
        game = self.env.unwrapped
        for layer in _layers(self.env):
            own = getattr(layer, "_max_episode_steps", None)
            if layer is not game and isinstance(own, int):
                self.limit, self.limit_name = own, "max_episode_steps"
        for attribute in OWN_LIMITS if self.package in OWNERS.values() else ():
            own = getattr(game, attribute, None)
            if isinstance(own, int):
                self.limit, self.limit_name = min(own, self.limit or own), attribute.lstrip("_")
                setattr(game, attribute, max(own, time_limit) + 1)

    def reset(self, seed: int) -> list[Any]:
        for player in self.env.unwrapped.players if self.package == "lbforaging" else ():
            player.position = None  # it would keep the new ones off the cells of the old, so not repeat itself
        answer = self.env.reset(seed=seed)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise GameError(f"reset answers not with observation, info, but with {_kind(answer)}")
        return self._take(*answer)

    def step(self, actions: list[int]) -> tuple[list[Any], Any, bool, bool]:
        chosen = [a + first for a, first in zip(actions, self.first)]
        answer = self.env.step(chosen[0] if self.alone else chosen)
        if not isinstance(answer, tuple) or len(answer) != 5:
            kind = f"{len(answer)} (as the old gym's)" if isinstance(answer, tuple) else type(answer).__name__
            raise GameError(f"step answers not with observation, reward, terminated, truncated, info, but with {kind}")
        obs, reward, *ends, info = answer
        terminated, truncated = (self._each(end) for end in ends)
        over = bool(terminated.all())
        return self._take(obs, info), reward, over, bool((terminated | truncated).all()) and not over

    def _take(self, obs: Any, info: Any) -> list[Any]:
        """The observations of the agents; sets `info` and `masks`."""
        obs = (obs,) if self.alone else obs
        if isinstance(obs, dict) or len(obs) != len(self.sights):
            kind = f"{len(obs)} in a {type(obs).__name__}"
            raise GameError(f"the game shows not a tuple of {len(self.sights)} observations, one an agent, but {kind}")
        seen = [sight.read(o) for sight, o in zip(self.sights, obs)]
        self.shown = info if isinstance(info, Mapping) else {}
        self.info, masks = entries(self.shown), [mask for _, mask in seen]
        if MASK in self.shown:
            masks = self.shown[MASK]
            masks = [masks] if self.alone else list(masks)
            if len(masks) != len(self.sights):
                raise GameError(f"{MASK} of the game's info is for {len(masks)} agents, not for {len(self.sights)}")
        self.masks = masks if any(mask is not None for mask in masks) else None
        return [o for o, _ in seen]

    def _each(self, end: Any) -> NDArray[np.bool_]:
        """What the game says of its end, for each agent: bool [N]."""
        n, says = len(self.sights), numbers(end)
        if says is None or says.shape not in ((), (n,)):
            raise GameError(f"the game says {end!r} of its end, not True or False, or a list of {n} of these")
        return np.broadcast_to(says.astype(bool), (n,))

    def state(self) -> Any:
        return _state(self, self.ask, self.shown.get(STATE))

    def frame(self) -> Any:
        return _drawn(self.env)

    def close(self) -> None:
        self.env.close()


class ParallelGame(Game):
    """A parallel environment of PettingZoo, mpe2 or the user. Agents that have left see zeros and get no reward."""

    def __init__(self, env: Any, name: str):
        self.env = env
        whole = getattr(env, "unwrapped", env)
        self.package = type(whole).__module__.partition(".")[0]
        self.agents = list(env.possible_agents)
        spaces = [env.action_space(agent) for agent in self.agents]
        self.n_actions = [count(space, name) for space in spaces]
        self.first = [int(space.start) for space in spaces]
        self.sights = [Sight(env.observation_space(agent)) for agent in self.agents]
        self.ask, self.state_name = _state_of(env)
        own = getattr(whole, "max_cycles", None)
        if isinstance(own, int):
            self.limit, self.limit_name = own, "max_cycles"
        self.shown: Mapping = {}  # the last infos

    def reset(self, seed: int) -> list[Any]:
        self.info = {}
        answer = self.env.reset(seed=seed)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise GameError(f"reset answers not with observations, infos, but with {_kind(answer)}")
        return self._take(*answer)

    def step(self, actions: list[int]) -> tuple[list[Any], Any, bool, bool]:
        all_of_them = zip(self.agents, actions, self.first)
        chosen = {agent: a + first for agent, a, first in all_of_them if agent in self.env.agents}
        answer = self.env.step(chosen)
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise GameError(
                "step answers not with observations, rewards, terminations, truncations, infos, but with "
                f"{_kind(answer)}"
            )
        obs, reward, _, truncated, infos = answer
        over, cut = not self.env.agents, any(truncated.values())
        return self._take(obs, infos), [reward.get(a, 0.0) for a in self.agents], over and not cut, over and cut

    def _take(self, obs: Mapping, infos: Any) -> list[Any]:
        """The observations of the agents; sets `info` and `masks`. Of an agent that has left its last info stays."""
        seen = []
        self.shown = infos if isinstance(infos, Mapping) else {}
        for agent, sight in zip(self.agents, self.sights):
            own = self.shown.get(agent)
            own = own if isinstance(own, Mapping) else {}
            self.info = {**self.info, **entries(own, f"{agent}_")}
            shown, mask = sight.read(obs[agent]) if agent in obs else (sight.nothing(), None)
            seen.append((shown, own.get(MASK, mask) if agent in obs else None))
        masks = [mask for _, mask in seen]
        self.masks = masks if any(mask is not None for mask in masks) else None
        return [o for o, _ in seen]

    def state(self) -> Any:
        told = [self.shown, *(self.shown.get(agent) for agent in self.agents)]
        return _state(self, self.ask, next((i[STATE] for i in told if isinstance(i, Mapping) and STATE in i), None))

    def frame(self) -> Any:
        return _drawn(self.env)

    def close(self) -> None:
        self.env.close()


def _of_pettingzoo(name: str, kwargs: dict) -> Any:
    """The parallel environment of the module `name`, of PettingZoo or mpe2."""
    try:
        module = importlib.import_module(name)
        if hasattr(module, "parallel_env"):
            return module.parallel_env(**kwargs)
    except ImportError as error:  # each family of PettingZoo has packages of its own
        family = name.split(".")[1]
        raise MissingPackage(f'{name}: {error}; install it with: pip install "pettingzoo[{family}]"') from error
    raise ConfigError(f"{name} {IN_TURNS}")


class VmasGame(Game):
    """A scenario of VMAS, one world, discrete actions."""

    package = "vmas"

    def __init__(self, name: str, kwargs: dict):
        self.env = _import_vmas().make_env(
            name, num_envs=1, continuous_actions=False, terminated_truncated=True, seed=0, **kwargs
        )
        self.n_actions = [count(space, name) for space in self.env.action_space]
        self.sights = [_VmasSight(space) for space in self.env.observation_space]

    def reset(self, seed: int) -> list[Any]:
        self.info = {}
        return self._flat(self.env.reset(seed=seed))

    def step(self, actions: list[int]) -> tuple[list[Any], Any, bool, bool]:
        obs, reward, terminated, truncated, infos = self.env.step([[a] for a in actions])
        self.info = {k: v for i, own in enumerate(infos) for k, v in entries(own, f"agent_{i}_").items()}
        return self._flat(obs), [float(r[0]) for r in reward], bool(terminated[0]), bool(truncated[0])

    def _flat(self, obs: Iterable[Any]) -> list[Any]:
        return [o[0].numpy().ravel() for o in obs]

    def frame(self) -> Any:
        return picture(self.env.render(mode="rgb_array"))


class _VmasSight(Sight):
    """Of a space of the old gym, which VMAS brings along."""

    def __init__(self, space: Any):
        self.size, self.shape, self.pixels = int(np.prod(space.shape)), tuple(space.shape), False
        self.low, self.high = np.ravel(space.low), np.ravel(space.high)


class LastAgent(Game):
    """A game whose last agent is played by nobody (FrozenTag: always its first action) or by chance (RandomTag)."""

    def __init__(self, game: Game, wrapper: str):
        self.game, self.by_chance = game, wrapper == "RandomTag"
        self.limit, self.limit_name, self.package = game.limit, game.limit_name, game.package
        self.n_actions, self.sights = game.n_actions[:-1], game.sights[:-1]
        self.score_range, self.frame, self.close = game.score_range, game.frame, game.close

    def reset(self, seed: int) -> list[Any]:
        self.rng = np.random.default_rng(seed)
        return self._take(self.game.reset(seed))

    def step(self, actions: list[int]) -> tuple[list[Any], Any, bool, bool]:
        last = int(self.rng.integers(self.game.n_actions[-1])) if self.by_chance else 0
        if self.by_chance and self.game.masks and self.game.masks[-1] is not None:
            can = np.flatnonzero(self.game.masks[-1])
            last = int(can[last % len(can)]) if len(can) else last
        obs, reward, terminated, truncated = self.game.step([*actions, last])
        return self._take(obs), reward[:-1] if np.ndim(reward) else reward, terminated, truncated

    def state(self) -> Any:
        shown, self.state_name = self.game.state(), self.game.state_name
        return shown

    def _take(self, obs: list[Any]) -> list[Any]:
        self.info = self.game.info
        self.masks = None if self.game.masks is None else self.game.masks[:-1]
        return obs[:-1]


def _layers(env: Any) -> list[Any]:
    """The wrappers of an environment, the outermost first, and the environment itself."""
    layers, whole = [env], getattr(env, "unwrapped", env)
    while layers[-1] is not whole:
        layers.append(getattr(layers[-1], "__dict__", {}).get("env", whole))
    return layers


def _state_of(env: Any) -> tuple[Callable | None, str | None]:
    """(what tells the global state, its name), of a method `get_state` or `state` without arguments; else None."""
    for layer in _layers(env):
        for name in ("get_state", "state"):
            method = getattr(layer, name, None)
            if not callable(method):
                continue
            try:
                parameters = inspect.signature(method).parameters.values()
            except (TypeError, ValueError):
                continue
            if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
                return method, f"{name}()"
    return None, None


def _state(game: Any, ask: Callable | None, told: Any) -> Any:
    """The state as a flat float32 array, from the method `ask` or, where there is none, from the info; or None."""
    shown, name = told, f"info[{STATE!r}]"
    if ask is not None:
        try:
            shown, name = ask(), game.state_name
        except NotImplementedError:  # PettingZoo's way to say that there is none
            game.ask = None
    if shown is None:
        return None
    game.state_name, space = name, getattr(game.env, "state_space", None)
    if isinstance(shown, Mapping) and hasattr(space, "spaces"):
        from gymnasium.spaces import flatten

        shown = flatten(space, shown)
    array = numbers(shown)
    if array is None:
        raise GameError(
            f"{name} of the game gives {_kind(shown)}, not numbers; env_args.use_game_state=False ignores it"
        )
    return array.astype(np.float32).ravel()


def entries(info: Mapping, prefix: str = "") -> dict[str, float | str]:
    """{name: value} of an info, single values as numbers; of all others the name of their type."""
    found: dict[str, float | str] = {}
    for name, value in info.items():
        if isinstance(name, str) and name not in (MASK, STATE):
            array = numbers(value)
            one = np.ravel(array) if array is not None else np.empty(0)
            found[prefix + name] = float(one[0]) if one.size == 1 else type(value).__name__
    return found


def _drawn(env: Any) -> Any:
    """What an environment draws of itself; None where it does not."""
    whole = getattr(env, "unwrapped", env)
    try:
        if "mode" in inspect.signature(whole.render).parameters:  # the old way; without it lbforaging opens a window
            return picture(whole.render(mode="rgb_array"))
        return picture(env.render())
    except (NotImplementedError, AttributeError):
        return None


def picture(drawn: Any) -> Any:
    """What a game has drawn as uint8 [height, width, 3]; None where it is no picture."""
    array = numbers(drawn)
    if array is None or array.ndim != 3 or array.shape[2] not in (3, 4) or not array.size:
        return None
    if array.dtype.kind == "f":
        array = array * 255 if array.max() <= 1 else array
    return array[..., :3].astype(np.uint8)


def _kind(value: Any) -> str:
    """A value in a message: the name of its type, and how long it is, if it has a length."""
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, (tuple, list, Mapping)) else f"a {name}"


def numbers(values: Any) -> NDArray[Any] | None:
    """`values` as an array of real numbers or booleans; None where they are something else."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def count(space: Any, name: str) -> int:
    """The number of actions of a Discrete space, gymnasium's or the old gym's; ConfigError for another one."""
    if not _is_discrete(space):
        raise ConfigError(f"{name} has actions that are not discrete ({space}); {WANTED}")
    return int(space.n)


def _is_discrete(space: object) -> bool:
    return "Discrete" in (cls.__name__ for cls in type(space).__mro__)


def _what_it_is(actions: object, observations: object) -> str:
    """Of a game whose spaces are not Tuples."""
    single = ("Discrete", "Box", "MultiDiscrete", "MultiBinary")
    kinds = [type(space).__name__ for space in (actions, observations)]
    if kinds[0] in single and kinds[1] != "Tuple":
        return f"has one agent (it acts in {actions})"
    return f"has spaces of actions and observations that are {' and '.join(kinds)}, not Tuples with one entry an agent"


def _import_vmas() -> ModuleType:
    """The package, without what the old gym that it brings along says of itself."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module("vmas")
