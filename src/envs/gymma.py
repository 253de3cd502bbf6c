"""EPyMARL's `gymma`: lbforaging, rware, particle worlds, PettingZoo, VMAS, and any Gymnasium id with several agents.

The games are objects of Python, stepped one after the other in this process; `env_workers=True` gives each a process,
which pays where a step takes much more than 0.1 ms.
Axes: E environments, N agents, A actions, O observation.
"""

import importlib.metadata
import logging
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.gym_games import make_game, numbers
from envs.gym_keys import INSTALL
from envs.vector import ArrayEnv, EnvInfo, GameError, Observation
from utils.args import ConfigError
from utils.args import key as declare  # `key` is one of the keys
from utils.logging import brief

EXAMPLES = "lbforaging:Foraging-8x8-2p-3f-v3, rware:rware-tiny-2ag-v2, pz-mpe-simple-spread-v3, vmas-balance"


@contextmanager
def blaming(game, error_class):
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
    """obs [E, N, O]: flattened, padded with zeros to the longest; state [E, N·O]: all of them in a row; actions that an
    agent does not have are not available. A time limit, also the game's own, truncates.

    Where a game pays its agents one by one the reward is [E, N] and `common_reward` False.
    """

    @dataclass(frozen=True)
    class Config:
        key: str | None = declare(f"the game, as EPyMARL writes it: {EXAMPLES}")
        time_limit: int = declare(
            "time limit; a lower one of the game's own counts", unit="steps", low=1, high=1_000_000
        )
        pretrained_wrapper: str | None = declare(
            "who plays the last agent, the prey of simple-tag: FrozenTag: nobody, RandomTag: chance; null: it learns",
            choices=("FrozenTag", "RandomTag", "PretrainedTag", "PretrainedAdversary"),
        )
        kwargs: dict = declare("further arguments of the game, such as env_args.kwargs.max_cycles=50")
        seed: int | None = declare("of the games; null: from the run's seed", low=0, high=2**32 - 1)

    needs, install = ("gymnasium",), INSTALL
    shares_stream, one_object_each = False, True

    def __init__(self, config, n_envs=1, seed=None):
        self.config = config
        self.games: list[Any] = []
        try:
            for _ in range(n_envs):
                with blaming(self._called(), ConfigError):
                    self.games.append(self._make_game())
            self._set_up(n_envs, seed)
            with blaming(self._called(), ConfigError):
                self._try()
        except ConfigError:
            self.close()
            raise
        package = self.games[0].package
        with suppress(importlib.metadata.PackageNotFoundError):  # the user's own, which is not installed
            self.versions = {package: importlib.metadata.version(package)}

    def _set_up(self, n_envs, seed):
        game = self.games[0]
        n, o = len(game.n_actions), max(game.obs_sizes)
        limit = min(self.config.time_limit, game.limit or self.config.time_limit)
        super().__init__(EnvInfo(n, max(game.n_actions), o, self._state_size(n, o), limit), n_envs, seed)
        has = np.arange(max(game.n_actions)) < np.array(game.n_actions)[:, None]  # [N, A]
        self.avail = np.repeat(has[None], n_envs, axis=0)  # [E, N, A]
        self.obs = np.zeros((n_envs, n, o), dtype=np.float32)
        self.state = np.zeros((n_envs, self.env_info.state_shape), dtype=np.float32)

    def _called(self):
        """What messages call the game."""
        given = f" with env_args.kwargs = {self.config.kwargs}" if self.config.kwargs else ""
        return f"env_args.key = {self.config.key!r}{given}"

    def _make_game(self):
        c = self.config
        if c.key is None:
            raise ConfigError(f"env_args.key is not given: which game? For example {EXAMPLES}")
        if c.pretrained_wrapper and c.pretrained_wrapper.startswith("Pretrained"):
            raise ConfigError(
                f"env_args.pretrained_wrapper = {c.pretrained_wrapper!r} needs weights that come with EPyMARL only; "
                "for simple-tag there are FrozenTag and RandomTag"
            )
        return make_game(c.key, c.time_limit, c.kwargs, c.pretrained_wrapper)

    def _state_size(self, n, o):
        return n * o

    def _try(self):
        """Play one step, to see how it pays, and whether it keeps to what it says of itself."""
        game = self.games[0]
        self._show(0, game.reset(0))
        paid = game.step([int(row.argmax()) for row in self.avail[0]])[1]
        reward = numbers(paid)
        self.common_reward = reward is None or reward.ndim == 0
        self._paid(paid)

    def _reset(self, mask):
        for i in np.flatnonzero(mask):
            with blaming(self._called(), GameError):
                self._show(i, self.games[i].reset(int(self.rng.integers(2**31))))

    def _step(self, actions, live):
        shape = (self.n_envs,) if self.common_reward else (self.n_envs, self.env_info.n_agents)
        reward, over = np.zeros(shape, dtype=np.float32), np.zeros(self.n_envs, dtype=bool)
        for i in np.flatnonzero(live):
            with blaming(self._called(), GameError):
                obs, paid, over[i], cut = self.games[i].step(actions[i].tolist())
                self._show(i, obs)
                reward[i] = self._paid(paid)
            self.truncated[i] = cut and not over[i]
        return reward, over

    def _show(self, i, obs):
        """Take up what environment i shows: one observation an agent."""
        sizes = self.games[i].obs_sizes
        if [len(o) for o in obs] != sizes:
            raise GameError(f"the game shows observations of {[len(o) for o in obs]} numbers, not of {sizes}")
        for agent, o in enumerate(obs):
            self.obs[i, agent, : len(o)] = o
        self._look(i)

    def _look(self, i):
        """Set `state` and `avail` of environment i."""
        self.state[i] = self.obs[i].ravel()

    def _paid(self, paid):
        """The reward as an array. GameError where it is not of the kind that the first step's was."""
        n, reward = 0 if self.common_reward else self.env_info.n_agents, numbers(paid)
        if reward is None or reward.shape != ((n,) if n else ()):
            raise GameError(
                f"the game pays {paid!r}, not {f'a list of {n} rewards, one an agent' if n else 'a number'}"
            )
        return reward

    def _observe(self):
        return Observation(self.obs.copy(), self.state.copy(), self.avail.copy())

    def render(self):
        """What the agents of the first environment see; the games draw in windows only."""
        return "\n".join(f"agent {i}: {o.round(2).tolist()}" for i, o in enumerate(self.obs[0]))

    def close(self):
        games, self.games = self.games, []
        for game in games:
            try:
                with blaming(self._called(), GameError):
                    game.close()
            except GameError as error:  # nothing that was learned hangs on it
                logging.getLogger("qtran").warning(f"closing the game: {error}")
