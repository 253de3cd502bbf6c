"""SMAC (Samvelyan et al. 2019): the 23 maps that everybody knows, through smacv2 or the original package.

One process can import only one of the two: both register their maps with pysc2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.starcraft.battle import Battle, core_arguments, import_env
from envs.starcraft.installation import SMAC_MAPS, package_problem, sc2_path
from envs.vector import Seed
from utils.args import key
from utils.registry import MissingPackage


class SMAC(Battle):
    """obs [E, N, O] and state [E, S] as SMAC has them. Actions: 0 for the dead only, 1 stop, 2 to 5 move north, south,
    east, west, then one for each enemy to attack (for medivacs: agent to heal)."""

    not_keys = dict.fromkeys(
        ("n_agents", "n_enemies"), "the map says how many there are: give another env_args.map_name"
    )

    @dataclass(frozen=True)
    class Config(Battle.Config):
        map_name: str = key("the map", choices=tuple(SMAC_MAPS))
        backend: str = key("the package that plays: smacv2, or the original smac", choices=("smacv2", "smac"))

    @classmethod
    def check_installed(cls) -> None:
        problems = [package_problem(package) for package in ("smacv2", "smac")]
        if all(problems):
            raise MissingPackage(problems[0])
        sc2_path()

    def __init__(self, config: Any, n_envs: int = 1, seed: Seed = None) -> None:
        self.map_file = config.map_name
        super().__init__(config, n_envs, seed)

    def _make_core(self, seed: int) -> Any:
        package = import_env(self.config.backend)
        core_class = repaired(package.StarCraft2Env) if self.config.backend == "smacv2" else package.StarCraft2Env
        return core_class(map_name=self.config.map_name, seed=seed, **core_arguments(self.config, "backend"))

    def _begin(self, stream: np.random.SeedSequence) -> Sequence[NDArray[Any]]:
        return self.core.reset()[0]


def repaired(core_class: Any) -> Any:
    """smacv2's environment, of which SMACv2's maps are all that it plays as it is, made to play SMAC's."""

    class Repaired(core_class):
        def get_obs_agent(self, agent_id: int, fully_observable: bool = False) -> NDArray[Any]:
            """An enemy that nobody has seen yet would hide those before it from agents that see them."""
            self.obs_enemies[:] = 1
            return super().get_obs_agent(agent_id, fully_observable)

        def _kill_all_units(self) -> None:
            """Once, and go on: on these maps new units come when all are dead, so that waiting for an empty map, as
            the original does, would never end."""
            self._kill_units([unit.tag for unit in self._obs.observation.raw_data.units])
            self._controller.step(2)

        def get_unit_type_id(self, unit: Any, ally: bool) -> int:
            """Units of the agents are numbered from the least of their types; the original gives them the numbers of
            the enemies' types."""
            if ally:
                return unit.unit_type - self._min_unit_type
            return super().get_unit_type_id(unit, ally)

    return Repaired
