"""SMAClite (Michalski et al. 2023), battles in numpy. A git package with a broken pin; its results are never SMAC's."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.gymma.games import GymGame, gym_env
from envs.gymma.gymma import Gymma
from utils.args import ConfigError, key

# Its own pin, Rtree 1.0.0, is too old for today's Python; rtree 1.4.1 does the same.
INSTALL = (
    "pip install rtree==1.4.1 pygame-ce scikit-learn gymnasium==1.3.0 && pip install --no-deps "
    "git+https://github.com/uoe-agents/smaclite@0d6abbea1334011984ae4704a0ef7a33c36057d6"
)
MAPS = (
    "10m_vs_11m", "27m_vs_30m", "2c_vs_64zg", "2s3z", "2s_vs_1sc", "3s5z", "3s5z_vs_3s6z", "3s_vs_5z", "bane_vs_bane",
    "corridor", "MMM", "MMM2",
)  # fmt: skip


class SMAClite(Gymma):
    """As gymma, with the package's own state and available actions. terminated: a side is dead. info: battle_won."""

    @dataclass(frozen=True)
    class Config:  # pyright: ignore[reportIncompatibleVariableOverride]  # it has other keys than gymma's
        map_name: str = key("the map", choices=MAPS)
        time_limit: int = key("time limit", unit="steps", low=1, high=1_000_000)
        use_cpp_rvo2: bool = key("collisions by the C++ library of the package, which has to be built")
        seed: int | None = key("of the games; null: from the run's seed", low=0, high=2**32 - 1)

    needs, install = ("smaclite",), INSTALL
    games: Any  # [GymGame]

    def _called(self) -> str:
        return f"env_args.map_name = {self.config.map_name!r}"

    def _make_game(self) -> GymGame:
        import smaclite  # noqa: F401  # registers its maps

        c = self.config
        if c.use_cpp_rvo2 and importlib.util.find_spec("rvo2") is None:
            raise ConfigError(
                "env_args.use_cpp_rvo2 = True needs the module rvo2, which is not installed; build it as SMAClite's "
                "README says, or give env_args.use_cpp_rvo2=False"
            )
        name = f"smaclite/{c.map_name}-v0"
        game = GymGame(gym_env(name, {"use_cpp_rvo2": c.use_cpp_rvo2}), name, c.time_limit)
        game.n_actions = [game.env.unwrapped.n_actions] * len(game.n_actions)  # its masks are that long
        return game

    def _state_size(self, n: int, o: int) -> int:
        return int(self.games[0].env.unwrapped.state_size)

    def _state_is_joined(self) -> bool:
        return False

    def _look(self, i: int, ended: bool = False) -> None:
        game = self.games[i].env.unwrapped
        self.state[i] = game.get_state()
        self.avail[i] = np.array(game.get_avail_actions(), dtype=bool)

    def _info(self) -> dict[str, NDArray[Any]]:
        won = np.array([float(not game.env.unwrapped.enemies) for game in self.games])
        return super()._info() | {"battle_won": won}
