"""The one contract between games and the rest: a batch of E environments that step together.

Axes: E environments, N agents, A actions, O observation, S state.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.args import ConfigError, TrainingError
from utils.messages import short
from utils.registry import MissingPackage

Seed = int | np.random.SeedSequence | None


@dataclass(frozen=True)
class EnvInfo:
    """What the networks and the buffer need to know. `obs_shape` and `state_shape` are lengths of
    flat vectors (EPyMARL's names); `episode_limit` is in steps.

    obs_dims: the shape of an observation before it was made flat, for networks that read images; empty: it is flat.
    pixels: observations are uint8, of 0 to 255; state_pixels: the state too. Networks read both as 0..1.
    """

    n_agents: int
    n_actions: int
    obs_shape: int
    state_shape: int
    episode_limit: int
    obs_dims: tuple[int, ...] = ()
    pixels: bool = False
    state_pixels: bool = False


class Observation(NamedTuple):
    obs: NDArray[Any]  # [E, N, O] float32, or uint8 where EnvInfo says `pixels`
    state: NDArray[Any]  # [E, S] float32, or uint8 where EnvInfo says `state_pixels`
    avail: NDArray[np.bool_]  # [E, N, A]; every agent, a dead one too, has at least one


class Step(NamedTuple):
    obs: NDArray[Any]  # [E, N, O] as in Observation: the true observation after the action, also at the end
    state: NDArray[Any]  # [E, S]
    avail: NDArray[np.bool_]  # [E, N, A]
    reward: NDArray[np.float32]  # [E]; [E, N] where agents are rewarded one by one
    terminated: NDArray[np.bool_]  # [E]: the game is over, nothing follows
    truncated: NDArray[np.bool_]  # [E]: a time limit cut it short; never together with terminated
    info: dict[str, NDArray[Any]]  # {name: [E]}, read at an episode's last step; numbers are logged as `name_mean`


def checked_range(pair: Any, game: str) -> tuple[float, float] | None:
    """The `score_range` that a user's game declares, as two plain numbers; None where it declares none. ConfigError
    where it is anything else: a wrong scale would be noticed only in a report, if at all."""
    if pair is None:
        return None
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError, OverflowError):  # not two, no numbers, a number without end
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(
            f"{game}: its score_range is {short(pair, 60)}; give two numbers, the mean return of random play and the "
            "higher one of the best play"
        )
    return low, high


def note_on_actions(n_actions: Sequence[int]) -> tuple[str, ...]:
    """What the log says of a game whose agents have `n_actions`, if these are unequal."""
    if len(set(n_actions)) == 1:
        return ()
    own, most = ", ".join(map(str, n_actions)), max(n_actions)
    return (f"actions of the agents: {own}; all have {most} outputs, and actions they lack are masked",)


class GameError(TrainingError):
    """The game failed, not the program: it hangs, has crashed, or answers nonsense. Its episode is worth nothing."""


class VectorEnv:
    """E environments.

    `reset(seed, mask)` starts new episodes, in all environments or where `mask` [E] is True, and
    returns an Observation of all. `seed`, a number or a SeedSequence, is all that these episodes draw from, and those
    after them where no other is given. `step(actions)` with actions
    [E, N] integers never resets by itself: an environment whose episode has ended stays as it is,
    gives a reward of 0 and repeats its last flags until it is reset.
    """

    Config: type  # the dataclass of its env_args
    env_info: EnvInfo
    n_envs: int
    common_reward = True  # one team reward, [E]
    reads_env_args = True  # the keys of its `Config` stand under `env_args`
    not_keys: dict[str, str] = {}  # {key that somebody may expect there: what to do instead}
    own_process = False  # True: it plays in worker processes only, which are replaced when the game fails
    in_processes = False  # True: each plays in a process of its own, and does not wait for the others
    shares_stream = True  # exploration draws from one stream for all environments; False: from one for each
    one_array = False  # True: it is compiled for all environments together, so a process for each is refused
    one_object_each = False  # True: each environment is an object of its own, and may be a large one
    large: tuple[str, ...] = ()  # the keys of its `Config` that make it large
    restarts: int | None = None  # games that were replaced so far, where that can happen
    lost: NDArray[np.bool_] | None = None  # [E]: episodes that a failure of the game has cut off, where that can happen
    versions: dict[str, str] = {}  # {program: version} that results depend on, for the summary
    facts: dict[str, Any] = {}  # {what: how it is} of the game that was made, in words, for the log and the summary
    notes: Sequence[str] = ()  # lines that are told once when the run begins
    needs: tuple[str, ...] = ()  # packages beyond the core
    install: str | None = None  # the line that installs them

    if TYPE_CHECKING:  # how a game is made, for those who have no more than its class

        def __init__(self, config: Any, n_envs: int = 1, seed: Seed = None) -> None: ...

    @classmethod
    def check_installed(cls) -> None:
        """ConfigError, with the line that fixes it, where this machine lacks what the game needs."""
        absent = [package for package in cls.needs if importlib.util.find_spec(package) is None]
        if absent:
            raise MissingPackage(
                f"{cls.__name__} needs the package {', '.join(absent)}, which is not installed; "
                f"install it with: {cls.install}"
            )

    @classmethod
    def nbytes(cls, config: Any, n_envs: int) -> int:
        """Bytes that `n_envs` of them take while they play, as far as that is known before one is made."""
        return 0

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float] | None:
        """(mean return of an episode of random play, that of the best play) of the game that `config` asks for, in the
        units of its rewards; None: not known. Reports put scores of several games on one scale with it."""
        return None

    def reset(self, seed: Seed = None, mask: NDArray[np.bool_] | None = None) -> Observation:
        raise NotImplementedError

    def step(self, actions: NDArray[np.int64]) -> Step:
        raise NotImplementedError

    @classmethod
    def drawn(cls, config: Any) -> Any:
        """`config` as it is for games that will be asked for pictures."""
        return config

    def render(self) -> str:
        """The first environment as text."""
        return f"{type(self).__name__} has no picture of itself"

    def frame(self) -> NDArray[np.uint8] | None:
        """A picture of the first environment, uint8 [height, width, 3]; None: it has none but `render`'s text."""
        return None

    def save_replay(self) -> str:
        """Save the last episode of the first environment; returns where."""
        raise ConfigError(f"save_replay: {type(self).__name__} cannot save replays")

    def state_dict(self) -> dict:
        """What the next episodes depend on beside their seed, taken between episodes."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass

    def close(self) -> None:
        pass


def observed(info: EnvInfo, n_envs: int) -> int:
    """Bytes of two Observations of `n_envs` environments, the last and the next."""
    shown = (1 if info.pixels else 4) * info.n_agents * info.obs_shape + info.n_agents * info.n_actions
    shown += (1 if info.state_pixels else 4) * info.state_shape
    return 2 * n_envs * shown


class ArrayEnv(VectorEnv):
    """Base of the built-in games: E environments as arrays in one process, one random stream.

    A game sets `self.env_info` and fills in `_reset(mask)`, `_observe()` and `_step(actions, live)`;
    the time limit, the frozen ends and the checks of actions are kept here. GameError where the first reset or the
    first step gives what it must not; later ones are not looked at, so that games stay fast.
    """

    def __init__(self, info: EnvInfo, n_envs: int, seed: Seed = None) -> None:
        self.env_info = info
        self.n_envs = n_envs
        self.rng = np.random.default_rng(seed)
        self.t = np.zeros(n_envs, dtype=np.int64)  # steps since the last reset
        self.terminated = np.ones(n_envs, dtype=bool)  # nothing runs before the first reset
        self.truncated = np.zeros(n_envs, dtype=bool)
        self._first_reset = self._first_step = True

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        """Draw new episodes where mask [E] is True."""
        raise NotImplementedError

    def _observe(self) -> Observation:
        """What all environments show now. Numbers that are not float32 are converted; pixels must be uint8."""
        raise NotImplementedError

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        """Play actions [E, N] where live [E]; return reward [E], or [E, N] where `common_reward` is False, and
        terminated [E]."""
        raise NotImplementedError

    def reset(self, seed: Seed = None, mask: NDArray[np.bool_] | None = None) -> Observation:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        mask = np.ones(self.n_envs, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        self.t[mask] = 0
        self.terminated[mask] = self.truncated[mask] = False
        self._reset(mask)
        seen = _shown(self, self._first_reset)
        self._first_reset = False
        return seen

    def step(self, actions: NDArray[np.int64]) -> Step:
        actions = np.asarray(actions)
        live = ~(self.terminated | self.truncated)
        self._check(actions, live)
        played = self._step(actions, live)
        if self._first_step:
            _check_played(self, played)
        reward, over = played
        self.t += live
        self.terminated |= live & over
        self.truncated |= live & ~over & (self.t >= self.env_info.episode_limit)
        live_rewards = live if reward.ndim == 1 else live[:, None]
        reward = np.where(live_rewards, reward, 0.0).astype(np.float32)
        seen, info = _shown(self, self._first_step), self._info()
        if self._first_step:
            _check_info(self, info)
        self._first_step = False
        return Step(*seen, reward, self.terminated.copy(), self.truncated.copy(), info)

    def _info(self) -> dict[str, NDArray[Any]]:
        """{name: [E]} to be logged at the end of an episode."""
        return {}

    def _check(self, actions: NDArray[np.int64], live: NDArray[np.bool_]) -> None:
        shape = (self.n_envs, self.env_info.n_agents)
        if actions.shape != shape or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"actions must be integers of shape {shape}, not {actions.dtype} {actions.shape}")
        if ((actions < 0) | (actions >= self.env_info.n_actions))[live].any():
            raise ValueError(f"actions must lie in 0..{self.env_info.n_actions - 1}")


# Functions, not methods: a game of the user's own may have methods of any name.


def _shown(env: ArrayEnv, check: bool) -> Observation:
    """What a game shows, in the types of Observation. check: GameError where it is not what its EnvInfo says."""
    shown, info = env._observe(), env.env_info
    if check:
        _check_shown(env, shown)
    obs, state, avail = shown
    obs = obs if info.pixels else np.asarray(obs, np.float32)
    return Observation(obs, state if info.state_pixels else np.asarray(state, np.float32), avail)


def _check_shown(env: ArrayEnv, shown: Any) -> None:
    info, each_agent = env.env_info, (env.n_envs, env.env_info.n_agents)
    if not isinstance(shown, tuple) or len(shown) != 3:
        raise _wrong(env, "_observe()", shown, "Observation(obs, state, avail)")
    obs, state, avail = shown
    kinds = ["uint8" if pixels else "float32" for pixels in (info.pixels, info.state_pixels)]
    _check_array(env, "obs", obs, kinds[0], (*each_agent, info.obs_shape), "n_envs, n_agents, obs_shape")
    _check_array(env, "state", state, kinds[1], (env.n_envs, info.state_shape), "n_envs, state_shape")
    _check_array(env, "avail", avail, "bool", (*each_agent, info.n_actions), "n_envs, n_agents, n_actions")
    for i, agent in np.argwhere(~avail.any(axis=-1)):
        raise GameError(
            f"{type(env).__name__}: avail leaves agent {agent} of environment {i} no action; each agent must have at "
            "least one, a dead one too"
        )


def _check_played(env: ArrayEnv, played: Any) -> None:
    n_envs = env.n_envs
    if not isinstance(played, tuple) or len(played) != 2:
        raise _wrong(env, "_step(...)", played, "(reward, terminated)")
    reward, over = played
    if env.common_reward:
        axes = "n_envs; rewards of single agents, [n_envs, n_agents], need common_reward = False in the class"
        _check_array(env, "reward", reward, "float32", (n_envs,), axes)
    elif getattr(reward, "shape", None) != (n_envs,):
        _check_array(env, "reward", reward, "float32", (n_envs, env.env_info.n_agents), "n_envs, n_agents")
    _check_array(env, "terminated", over, "bool", (n_envs,), "n_envs")


def _check_info(env: ArrayEnv, info: Any) -> None:
    if not isinstance(info, dict):
        raise _wrong(env, "_info()", info, "{name: array of the shape [n_envs]}")
    for name, values in info.items():
        if not isinstance(values, np.ndarray) or values.shape != (env.n_envs,):
            raise _wrong(env, f"_info()[{name!r}]", values, f"an array of the shape [{env.n_envs}], n_envs")


def _check_array(env: ArrayEnv, name: str, array: Any, kind: str, shape: tuple[int, ...], axes: str) -> None:
    """GameError where it has not the shape, or is not of the kind: uint8, bool, or float32 for any real numbers."""
    fits = isinstance(array, np.ndarray) and array.shape == shape
    if not fits or not (array.dtype.kind in "fiub" if kind == "float32" else array.dtype == kind):
        raise _wrong(env, name, array, f"{kind} of the shape {list(shape)}, {axes}")


def _wrong(env: ArrayEnv, name: str, found: Any, wanted: str) -> GameError:
    is_ = f"of type {type(found).__name__}"
    if isinstance(found, np.ndarray):
        is_ = f"{found.dtype} of the shape {list(found.shape)}"
    return GameError(f"{type(env).__name__}: {name} is {is_}; it must be {wanted}")
