"""SMACv2 (Ellis et al. 2023): battles whose teams and start positions are drawn for each episode."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from envs.starcraft.battle import Battle, core_arguments, import_env
from envs.starcraft.installation import SMACV2_MAP, SMACV2_SCENARIOS, package_problem, sc2_path
from utils.args import ConfigError, key, nearest
from utils.registry import MissingPackage

RACES = {  # {race: {type of unit: probability}}, and those that a team cannot consist of alone
    "protoss": ({"stalker": 0.45, "zealot": 0.45, "colossus": 0.1}, []),
    "terran": ({"marine": 0.45, "marauder": 0.45, "medivac": 0.1}, ["medivac"]),
    "zerg": ({"zergling": 0.45, "baneling": 0.1, "hydralisk": 0.45}, ["baneling"]),
}
SIDE = 32  # cells of the map
MOST_UNITS = 1024  # of a team
MAPS = tuple(f"10gen_{race}" for race in RACES)  # smacv2's names, for teams of any size


class SMACv2(Battle):
    """As SMAC; with `conic_fov` there are actions to look in `num_fov_actions` directions after those to move.

    Rewards are scaled by the enemies of the first episode, as in smacv2.
    """

    not_keys = dict.fromkeys(
        ("n_agents", "n_units", "n_enemies", "capability_config"),
        "the scenario says who fights: give another env_args.map_name, which may be a YAML file of yours",
    ) | {"time_limit": "the map has a limit of its own, and EPyMARL does not read this key either"}

    @dataclass(frozen=True)
    class Config(Battle.Config):
        map_name: str = key("a scenario, such as terran_5_vs_5, or the path of a YAML file with one")
        obs_own_pos: bool = key("agents see where they are")
        conic_fov: bool = key("agents see a cone and turn it by actions")
        num_fov_actions: int = key("directions of the cone", low=1, high=1024)
        use_unit_ranges: bool = key("sight and range depend on the type of the unit")
        min_attack_range: float = key("range of units that fight hand to hand", unit="cells", low=0)
        prob_obs_enemy: float = key("probability to see an enemy that a team mate has seen first", low=0, high=1)
        action_mask: bool = key("only what is in range can be attacked")

        def problems(self) -> Iterator[str]:
            try:
                read_scenario(self)
            except ConfigError as error:
                yield str(error)

    map_file = SMACV2_MAP

    @classmethod
    def check_installed(cls) -> None:
        problem = package_problem("smacv2")
        if problem:
            raise MissingPackage(problem)
        sc2_path()

    def _make_core(self, seed: int) -> Any:
        map_name, capabilities = read_scenario(self.config)
        package = import_env("smacv2")
        sizes = capabilities["n_units"], capabilities["n_enemies"]
        try:
            wrapper = package.StarCraftCapabilityEnvWrapper(
                map_name=map_name, seed=seed, capability_config=capabilities, **core_arguments(self.config)
            )
            self.distributions = list(wrapper.env_key_to_distribution_map.values())
            check_teams(draw(copy.deepcopy(self.distributions), np.random.SeedSequence(seed)), sizes)
        except Exception as error:  # each distribution has needs of its own, which it tells by any error
            reason = error if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.config.map_name}: smacv2 cannot play this capability_config: {reason}") from error
        return wrapper.env

    def _begin(self, stream: np.random.SeedSequence) -> Sequence[NDArray[Any]]:
        """The wrapper's own reset may return nothing, and draws without a seed."""
        return self.core.reset(draw(self.distributions, stream))[0]


def draw(distributions: Sequence[Any], stream: np.random.SeedSequence) -> dict[str, Any]:
    """What smacv2's distributions give for an episode, with random numbers made of the SeedSequence `stream`."""
    drawn = {}
    for distribution, child in zip(distributions, stream.spawn(len(distributions))):
        reseed(distribution, child)
        drawn |= distribution.generate()
    return drawn


def check_teams(drawn: Mapping[str, Any], sizes: tuple[int, int]) -> None:
    """ConfigError unless both teams are as large as `sizes`, or the game would be asked for them in vain."""
    ours, theirs = (len(drawn["team_gen"].get(team, ())) for team in ("ally_team", "enemy_team"))
    if (ours, theirs) != sizes:
        asked = f"where n_units, n_enemies are {sizes[0]}, {sizes[1]}"
        raise ConfigError(f"team_gen draws {ours} agents and {theirs} enemies {asked}")


def reseed(distribution: Any, stream: np.random.SeedSequence) -> None:
    """Give one of smacv2's distributions, and those within it, random numbers made of the SeedSequence `stream`."""
    if hasattr(distribution, "rng"):
        distribution.rng = np.random.default_rng(stream)
    for inner in vars(distribution).values():
        if hasattr(inner, "generate"):
            reseed(inner, stream.spawn(1)[0])


def read_scenario(config: "SMACv2.Config") -> tuple[str, dict[str, Any]]:
    """(name of smacv2's map, its capability_config) of the scenario that `config.map_name` names."""
    name = config.map_name
    if name in SMACV2_SCENARIOS:
        scenario = SMACV2_SCENARIOS[name]
        return f"10gen_{scenario.race}", capability_config(*scenario)
    if not Path(name).is_file():
        known = ", ".join(SMACV2_SCENARIOS) + nearest(name, SMACV2_SCENARIOS)
        raise ConfigError(f"env_args.map_name = {name!r} is no scenario and no file; scenarios: {known}")
    return _read_file(name, config)


def capability_config(race: str, n_agents: int, n_enemies: int) -> dict[str, Any]:
    """What is drawn in the scenarios of SMACv2 (Ellis et al. 2023, section 5): types of units, and where they start."""
    units, never_alone = RACES[race]
    return {
        "n_units": n_agents,
        "n_enemies": n_enemies,
        "team_gen": {
            "dist_type": "weighted_teams",
            "unit_types": list(units),
            "weights": list(units.values()),
            "exception_unit_types": list(never_alone),
            "observe": True,
        },
        "start_positions": {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": SIDE, "map_y": SIDE},
    }


def _read_file(path: str, config: "SMACv2.Config") -> tuple[str, dict[str, Any]]:
    """A scenario of the user's: map_name and capability_config, at the top or under env_args, as smacv2's examples
    have them. Its other keys may only repeat what the run's configuration says."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        values = values.get("env_args", values)
        map_name, capabilities = values.pop("map_name"), copy.deepcopy(values.pop("capability_config"))
        sizes = [capabilities[k] for k in ("n_units", "n_enemies")]
        [capabilities[k]["dist_type"] for k in ("team_gen", "start_positions")]
        units = list(capabilities["team_gen"].get("unit_types", []))
        sides = [float(capabilities["start_positions"].get(k, SIDE)) for k in ("map_x", "map_y")]
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no scenario ({type(error).__name__}: {error}); it needs map_name ({', '.join(MAPS)}) and a "
            "capability_config with n_units, n_enemies, team_gen and start_positions"
        ) from error
    problems = []
    if map_name not in MAPS:
        problems.append(f"map_name: {map_name!r} is none of {', '.join(MAPS)}{nearest(map_name, MAPS)}")
    if not all(isinstance(n, int) and 0 < n <= MOST_UNITS for n in sizes):
        problems.append(f"n_units, n_enemies: {sizes} are not numbers of units, 1 to {MOST_UNITS}")
    known = RACES[map_name.removeprefix("10gen_")][0] if map_name in MAPS else units
    problems += [f"unit_types: {u!r} is none of {', '.join(known)}{nearest(u, known)}" for u in units if u not in known]
    if not all(0 < side <= SIDE for side in sides):
        problems.append(f"start_positions: map_x, map_y are {sides}, but the map is {SIDE} cells wide and high")
    ours = asdict(config)
    for name, value in values.items():
        if name not in ours:
            problems.append(f"unknown key {name!r}{nearest(name, ours)}")
        elif ours[name] != value:
            problems.append(f"{name}: {value!r} is not what the run has; give env_args.{name}={value!r}")
    if problems:
        raise ConfigError("\n  ".join([f"{path}:", *problems]))
    return map_name, capabilities
