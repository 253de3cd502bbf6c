"""EPyMARL's `gymma`: lbforaging, rware, particle worlds, PettingZoo, VMAS, any Gymnasium id, and games of one's own.

The games are objects of Python, stepped one after the other in this process; `env_workers=True` gives each a process,
which helps where a step takes much more than 0.1 ms.
Axes: E environments, N agents, A actions, O observation.
"""

import importlib.metadata
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.gymma.games import LARGE, Game, make_game, numbers
from envs.gymma.keys import INSTALL
from envs.vector import ArrayEnv, EnvInfo, GameError, Observation, Seed, checked_range, note_on_actions
from utils.args import ConfigError
from utils.args import key as declare  # `key` is one of the keys
from utils.messages import brief

EXAMPLES = "lbforaging:Foraging-8x8-2p-3f-v3, rware:rware-tiny-2ag-v2, pz-mpe-simple-spread-v3, vmas-balance"
PICTURES = "rgb_array"  # Gymnasium's and PettingZoo's render_mode for games that are asked for pictures


@contextmanager
def blaming(game: str, error_class: type[Exception]) -> Iterator[None]:
    """What the code inside raises, be it by sys.exit, as an `error_class` that names the `game`, in one line."""
    try:
        yield
    except ConfigError:
        raise
    except GameError as error:
        raise error_class(f"{game}: {error}") from error
    except (Exception, SystemExit) as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(at.filename).name}, line {at.lineno}"
        raise error_class(f"{game} failed: {brief(error)} ({place})") from error


class Gymma(ArrayEnv):
    """obs [E, N, O]: flattened, padded with zeros to the longest; state [E, S]: the game's own, or all observations in
    a row. Actions that an agent does not have, or that the game's mask bars, are not available. A time limit, also
    the game's own, truncates. info: the single numbers of the game's last info.

    Where a game rewards its agents one by one the reward is [E, N] and `common_reward` False.
    """

    @dataclass(frozen=True)
    class Config:
        key: str | None = declare(
            f"the game, as EPyMARL writes it: {EXAMPLES}; or MODULE:NAME, a class or function of yours that returns a "
            "Gymnasium environment or a PettingZoo ParallelEnv"
        )
        time_limit: int = declare(
            "time limit; a lower one of the game's own counts", unit="steps", low=1, high=1_000_000
        )
        pretrained_wrapper: str | None = declare(
            "who plays the last agent, the prey of simple-tag: FrozenTag: nobody, RandomTag: chance; null: it learns",
            choices=("FrozenTag", "RandomTag", "PretrainedTag", "PretrainedAdversary"),
        )
        kwargs: dict = declare("further arguments of the game, such as env_args.kwargs.max_cycles=50")
        use_game_state: bool = declare(
            "the mixer reads the game's own state (state(), get_state() or info['state']), where it offers one; False: "
            "all observations in a row"
        )
        scale_obs: bool = declare("observations are scaled to 0..1 by their bounds, where they have bounds")
        seed: int | None = declare("of the games; null: from the run's seed", low=0, high=2**32 - 1)

    needs, install = ("gymnasium",), INSTALL
    use_game_state, scale_obs = False, False  # of games whose Config has no such keys
    shares_stream, one_object_each = False, True
    told = False  # that the game cannot draw itself

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float] | None:
        """Of lbforaging: what is collected is a share of all food, 0 to 1, as a win rate is. Other games may have a
        `score_range` of their own, which a run notes under `game` in summary.json."""
        whole = config.kwargs.get("normalize_reward", True) and not config.kwargs.get("penalty", 0.0)
        return (0.0, 1.0) if str(config.key).startswith("lbforaging:") and whole else None

    def __init__(self, config: Any, n_envs: int = 1, seed: Seed = None) -> None:
        self.config = config
        self.games: list[Game] = []
        self.use_game_state = getattr(config, "use_game_state", self.use_game_state)
        self.scale_obs = getattr(config, "scale_obs", self.scale_obs)
        try:
            for _ in range(n_envs):
                with blaming(self._called(), ConfigError):
                    self.games.append(self._make_game())
            with blaming(self._called(), ConfigError):
                self._set_up(n_envs, seed)
                self._try()
        except ConfigError:
            self.close()
            raise
        package = self.games[0].package
        with suppress(importlib.metadata.PackageNotFoundError):  # the user's own, which is not installed
            self.versions = {package: importlib.metadata.version(package)}

    @classmethod
    def drawn(cls, config: Any) -> Any:
        has = getattr(config, "kwargs", None)
        return (
            config if has is None or "render_mode" in has else replace(config, kwargs=has | {"render_mode": PICTURES})
        )

    def _set_up(self, n_envs: int, seed: Seed) -> None:
        game = self.games[0]
        sizes = [sight.size for sight in game.sights]
        n, o = len(game.n_actions), max(sizes)
        self.first = game.reset(0)  # some tell their state only now
        own = game.state() if self.use_game_state else None
        self.state_size = None if own is None else len(own)  # of the game's own state
        self.masked = game.masks is not None
        pixels = all(sight.pixels for sight in game.sights)
        shapes = {sight.shape for sight in game.sights}
        limit = min(self.config.time_limit, game.limit or self.config.time_limit)
        info = EnvInfo(
            n,
            max(game.n_actions),
            o,
            self._state_size(n, o),
            limit,
            obs_dims=shapes.pop() if len(shapes) == 1 else (o,),
            pixels=pixels,
            state_pixels=pixels and self._state_is_joined(),
        )
        super().__init__(info, n_envs, seed)
        self.has = np.arange(max(game.n_actions)) < np.array(game.n_actions)[:, None]  # [N, A]
        self.avail = np.repeat(self.has[None], n_envs, axis=0)  # [E, N, A]
        self.obs = np.zeros((n_envs, n, o), dtype=np.uint8 if pixels else np.float32)
        self.state = np.zeros((n_envs, info.state_shape), dtype=np.uint8 if info.state_pixels else np.float32)
        self.bounds = self._bounds(game) if self.scale_obs and not pixels else None  # (low, span), [[O_i] each]
        self._tell(game, limit)

    def _bounds(self, game: Game) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """What is subtracted from the observations of each agent, and what they are then divided by: [[O_i] each]."""
        lows, spans, some = [], [], False
        for sight in game.sights:
            low, span = np.zeros(sight.size, dtype=np.float32), np.ones(sight.size, dtype=np.float32)
            if sight.low is not None:
                bounded = (np.abs(sight.low) < LARGE) & (np.abs(sight.high) < LARGE) & (sight.high > sight.low)
                low[bounded] = sight.low[bounded]
                span[bounded] = (sight.high - sight.low.astype(np.float64))[bounded]
                some |= bool(bounded.any())
            lows.append(low)
            spans.append(span)
        if not some:
            raise ConfigError(
                f"{self._called()}: env_args.scale_obs = True, but the game gives no bounds of its observations; give "
                "env_args.scale_obs=False and scale them in the game"
            )
        return lows, spans

    def _tell(self, game: Game, limit: int) -> None:
        """Set `facts` and `notes`."""
        asked = self.config.time_limit
        size = self.env_info.state_shape
        whole = "the agents' observations in a row" if self._state_is_joined() else f"the game's own, {game.state_name}"
        self.facts: dict[str, Any] = {
            "state": f"{whole}, {size} numbers",
            "action_masks": "the game's own" if self.masked else "none of the game's own",
            "episode_limit": f"{limit} steps, env_args.time_limit",
            "observations": "uint8, read as 0..1"
            if self.env_info.pixels
            else "scaled to 0..1"
            if self.bounds
            else "as is",
        }
        if known := checked_range(game.score_range(), self._called()):
            self.facts["score_range"] = list(known)  # of returns: random play, best play
        self.notes = (f"state: {self.facts['state']}",) if self.use_game_state else ()
        self.notes += note_on_actions(game.n_actions)
        if limit < asked:
            self.facts["episode_limit"] = f"{limit} steps, the game's own {game.limit_name}"
            self.notes += (
                f"time limit: the game's own, {limit} steps, is lower than env_args.time_limit = {asked}; "
                f"env_args.kwargs.{game.limit_name}={asked} moves it",
            )

    def _state_is_joined(self) -> bool:
        return self.state_size is None

    def _called(self) -> str:
        """What messages call the game."""
        given = f" with env_args.kwargs = {self.config.kwargs}" if self.config.kwargs else ""
        return f"env_args.key = {self.config.key!r}{given}"

    def _make_game(self) -> Game:
        c = self.config
        if c.key is None:
            raise ConfigError(f"env_args.key is not given: which game? For example {EXAMPLES}")
        if c.pretrained_wrapper and c.pretrained_wrapper.startswith("Pretrained"):
            raise ConfigError(
                f"env_args.pretrained_wrapper = {c.pretrained_wrapper!r} needs weights that come with EPyMARL only; "
                "for simple-tag there are FrozenTag and RandomTag"
            )
        try:
            return make_game(c.key, c.time_limit, c.kwargs, c.pretrained_wrapper)
        except Exception:
            if c.kwargs.get("render_mode") != PICTURES:
                raise
            rest = {k: v for k, v in c.kwargs.items() if k != "render_mode"}  # a game that cannot draw itself
            return make_game(c.key, c.time_limit, rest, c.pretrained_wrapper)

    def _state_size(self, n: int, o: int) -> int:
        return n * o if self.state_size is None else self.state_size

    def _try(self) -> None:
        """Play one step, to see how it gives its reward, and whether it keeps to what it says of itself."""
        game = self.games[0]
        self._show(0, self.first)
        del self.first
        paid = game.step([int(row.argmax()) for row in self.avail[0]])[1]
        reward = numbers(paid)
        self.common_reward = reward is None or reward.ndim == 0
        self._paid(paid)

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(mask).tolist():
            with blaming(self._called(), GameError):
                self._show(i, self.games[i].reset(int(self.rng.integers(2**31))))

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        shape = (self.n_envs,) if self.common_reward else (self.n_envs, self.env_info.n_agents)
        reward, over = np.zeros(shape, dtype=np.float32), np.zeros(self.n_envs, dtype=bool)
        for i in np.flatnonzero(live).tolist():
            with blaming(self._called(), GameError):
                obs, paid, over[i], cut = self.games[i].step(actions[i].tolist())
                self._show(i, obs, bool(over[i]) or cut)
                reward[i] = self._paid(paid)
            self.truncated[i] = cut and not over[i]
        return reward, over

    def _show(self, i: int, obs: Sequence[Any], ended: bool = False) -> None:
        """Take up what environment i shows: one observation an agent. ended: of the episode."""
        sizes = [sight.size for sight in self.games[i].sights]
        if [len(o) for o in obs] != sizes:
            raise GameError(f"the game shows observations of {[len(o) for o in obs]} numbers, not of {sizes}")
        for agent, o in enumerate(obs):
            if self.bounds is not None:
                low, span = self.bounds
                o = (o - low[agent]) / span[agent]
            self.obs[i, agent, : len(o)] = o
        self._look(i, ended)

    def _look(self, i: int, ended: bool = False) -> None:
        """Set `state` and `avail` of environment i."""
        self.avail[i] = self._available(self.games[i].masks, ended)
        if self.state_size is None:
            self.state[i] = self.obs[i].ravel()
            return
        own = self.games[i].state()
        if own is None or len(own) != self.state_size:
            shown = "no state" if own is None else f"a state of {len(own)} numbers"
            raise GameError(
                f"the game shows {shown} at this step, before it was of {self.state_size}; "
                "env_args.use_game_state=False takes the observations in its place"
            )
        self.state[i] = own

    def _available(self, masks: Sequence[Any] | None, ended: bool) -> NDArray[np.bool_]:
        """Which actions can be taken, bool [N, A]. masks: the game's own, or None. Behind the end anything can."""
        if masks is None:
            if self.masked and not ended:
                raise GameError("the game shows no action_mask at this step, before it did")
            return self.has
        avail = self.has.copy()
        for agent, mask in enumerate(masks):
            if mask is None:
                continue
            bits, n = numbers(mask), self.games[0].n_actions[agent]
            if bits is None or bits.shape != (n,):
                has = "is no list of numbers" if bits is None else f"has the shape {list(bits.shape)}"
                raise GameError(f"the action_mask of agent {agent} {has}, but it has {n} actions")
            if bits.any():
                avail[agent, :n] = bits.astype(bool)
            elif not ended:
                raise GameError(f"the action_mask of agent {agent} leaves it no action: all {n} are barred")
        return avail

    def _info(self) -> dict[str, NDArray[Any]]:
        ended = np.flatnonzero(self.terminated | self.truncated)
        found = {}
        for i in ended:
            for name, value in self.games[i].info.items():
                found.setdefault(name, np.full(self.n_envs, None))[i] = value
        return found

    def _paid(self, paid: Any) -> NDArray[Any]:
        """The reward as an array. GameError where it is not of the kind that the first step's was."""
        n, reward = 0 if self.common_reward else self.env_info.n_agents, numbers(paid)
        if reward is None or reward.shape != ((n,) if n else ()):
            raise GameError(
                f"the reward of the game is {paid!r}, not {f'a list of {n} rewards, one an agent' if n else 'a number'}"
            )
        return reward

    def _observe(self) -> Observation:
        return Observation(self.obs.copy(), self.state.copy(), self.avail.copy())

    def render(self) -> str:
        """What the agents of the first environment see, as text."""
        return "\n".join(f"agent {i}: {o.round(2).tolist()}" for i, o in enumerate(self.obs[0]))

    def frame(self) -> NDArray[np.uint8] | None:
        try:
            with blaming(self._called(), GameError):
                return self.games[0].frame()
        except GameError as error:  # a display is missing, a mode that it does not know
            if not self.told:
                self.told = True
                logging.getLogger("qtran").warning(f"the game's own render: {error}; its text is drawn instead")
            return None

    def close(self) -> None:
        games, self.games = self.games, []
        for game in games:
            try:
                with blaming(self._called(), GameError):
                    game.close()
            except GameError as error:  # nothing that was learned hangs on it
                logging.getLogger("qtran").warning(f"closing the game: {error}")
