"""StarCraft II on this machine: where it is, which version, which maps; and the lists of SMAC and SMACv2.

Needs no other package, so that a missing one can be told. The numbers are those of SMAC (Samvelyan et al.
2019) and SMACv2 (Ellis et al. 2023).
"""

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from utils.args import ConfigError, nearest
from utils.disk import expanded


class SmacMap(NamedTuple):
    n_agents: int
    n_enemies: int
    limit: int  # steps of an episode


class Scenario(NamedTuple):
    race: str
    n_agents: int
    n_enemies: int


SMAC_MAPS = {
    "3m": SmacMap(3, 3, 60),
    "8m": SmacMap(8, 8, 120),
    "25m": SmacMap(25, 25, 150),
    "5m_vs_6m": SmacMap(5, 6, 70),
    "8m_vs_9m": SmacMap(8, 9, 120),
    "10m_vs_11m": SmacMap(10, 11, 150),
    "27m_vs_30m": SmacMap(27, 30, 180),
    "MMM": SmacMap(10, 10, 150),
    "MMM2": SmacMap(10, 12, 180),
    "2s3z": SmacMap(5, 5, 120),
    "3s5z": SmacMap(8, 8, 150),
    "3s5z_vs_3s6z": SmacMap(8, 9, 170),
    "3s_vs_3z": SmacMap(3, 3, 150),
    "3s_vs_4z": SmacMap(3, 4, 200),
    "3s_vs_5z": SmacMap(3, 5, 250),
    "1c3s5z": SmacMap(9, 9, 180),
    "2m_vs_1z": SmacMap(2, 1, 150),
    "corridor": SmacMap(6, 24, 400),
    "6h_vs_8z": SmacMap(6, 8, 150),
    "2s_vs_1sc": SmacMap(2, 1, 300),
    "so_many_baneling": SmacMap(7, 32, 100),
    "bane_vs_bane": SmacMap(24, 24, 200),
    "2c_vs_64zg": SmacMap(2, 64, 400),
}
SMACV2_SCENARIOS = {
    f"{race}_{ours}_vs_{theirs}": Scenario(race, ours, theirs)
    for race in ("protoss", "terran", "zerg")
    for ours, theirs in ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))
}
SMACV2_MAP = "32x32_flat"  # the file that all of them are played on

# {build: version} of the packages for Linux that Blizzard has published. The first is the oldest with an API.
GAME_VERSIONS = {
    55958: "3.16.1", 56787: "3.17.2", 59587: "4.0.2", 60321: "4.1.2", 67926: "4.6.1", 69232: "4.6.2", 70154: "4.7.1",
    71061: "4.8.0", 71523: "4.8.1", 71663: "4.8.2", 72282: "4.8.3", 73286: "4.8.4", 73559: "4.8.5", 73620: "4.8.6",
    74071: "4.9.0", 74456: "4.9.1", 74741: "4.9.2", 75025: "4.9.3", 75689: "4.10.0",
}  # fmt: skip
REQUIREMENTS = "pip install -r requirements/sc2.txt"
SMAC_GIT = "pip install git+https://github.com/oxwhirl/smac@d6aab33f76abc3849c50463a8592a84f59a5ef84"
PROTOBUF = "protobuf==3.20.3"  # the last series that works with pysc2
INSTALL = "docker/install_sc2.sh installs the game and the maps"


def sc2_path() -> Path:
    """The folder of the game: SC2PATH, else ~/StarCraftII. ConfigError says what to do where there is none."""
    given = os.environ.get("SC2PATH")
    path = expanded(given or "~/StarCraftII")
    if not given and not path.is_dir():
        raise ConfigError(f"SC2PATH is not set: give the folder of StarCraft II as SC2PATH=FOLDER; {INSTALL}")
    if not path.is_dir():
        raise ConfigError(f"SC2PATH={path} is not a folder; {INSTALL}")
    if not _builds(path):
        raise ConfigError(f"SC2PATH={path} holds no game (Versions/Base75689/SC2_x64, say); {INSTALL}")
    return path


def game_version(path: Path, wanted: str | None = None) -> str:
    """The version and build that would be played, as "4.10.0.75689".

    wanted: env_args.game_version, such as "4.10"; None: the newest there is. ConfigError for one that is not
    installed, or too old to be played by a program. A build newer than this list is "unknown.99999".
    """
    there = {build: GAME_VERSIONS.get(build, "unknown") for build in _builds(path)}
    if wanted is not None:
        fitting = [build for build, version in there.items() if f"{version}.{build}.".startswith(f"{wanted}.")]
        if not fitting:
            names = [f"{version} (build {build})" for build, version in there.items()]
            raise ConfigError(
                f"env_args.game_version = {wanted!r} is not installed in {path}; there is: {', '.join(names)}; "
                "null takes the newest (what papers call 2.4.10 is 4.10)"
            )
        there = {build: there[build] for build in fitting}
    build = max(there)
    newest = max(_folders(path))
    if wanted is None and build < newest:
        raise ConfigError(
            f"{path}/Versions/Base{newest} holds no game, and pysc2 would take it for the newest: delete that folder, "
            f"or give env_args.game_version={there[build]!r}"
        )
    if build < min(GAME_VERSIONS):
        raise ConfigError(f"{path} holds build {build}, which is too old to be played by a program; {INSTALL} (4.10)")
    return f"{there[build]}.{build}"


def installed_maps(path: Path) -> list[str]:
    """Names of the maps in Maps/SMAC_Maps, sorted."""
    return sorted(file.stem for file in Path(path, "Maps", "SMAC_Maps").glob("*.SC2Map"))


def check_map(path: Path, name: str) -> None:
    """ConfigError, with the list, unless the map `name` is there."""
    there = installed_maps(path)
    if not there:
        raise ConfigError(f"{path}/Maps/SMAC_Maps holds no map: pip does not install them; {INSTALL}")
    if name not in there:
        raise ConfigError(
            f"the map {name!r} is not in {path}/Maps/SMAC_Maps; there is: {', '.join(there)}{nearest(name, there)}; "
            f"{INSTALL}"
        )


def package_problem(package: str) -> str | None:
    """What keeps `package`, smacv2 or smac, from being imported, with the pip line; None where it is there."""
    line = REQUIREMENTS if package == "smacv2" else SMAC_GIT
    if is_unrelated_smac():
        wrong = "the package 'smac' that is installed is PyPI's, an AutoML tool and not the game"
        if package == "smac":
            return f"{wrong}; take it away with: pip uninstall smac, and install the game's with: {line}"
    else:
        wrong = ""
    if importlib.util.find_spec(package) is None:
        return f"the package {package!r} is not installed{wrong and f' ({wrong})'}; install it with: {line}"
    return None


def is_unrelated_smac() -> bool:
    """Whether the package `smac` is the one on PyPI. Imports nothing."""
    spec = importlib.util.find_spec("smac")
    return spec is not None and not any(Path(p, "env").is_dir() for p in spec.submodule_search_locations or [])


def protobuf_problem() -> str | None:
    """How the protobuf that is installed breaks pysc2, with the pip line; None where it does not."""
    try:
        version = importlib.metadata.version("protobuf")
    except importlib.metadata.PackageNotFoundError:
        return f"protobuf is not installed; install it with: pip install {PROTOBUF}"
    python = os.environ.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION") == "python"
    if version.startswith("3.") or python:
        return None
    return f"protobuf {version} breaks pysc2; install the last that does not with: pip install {PROTOBUF}"


def import_problem(package: str, error: BaseException) -> str:
    """What to do after `import package` has raised `error`."""
    if "protobuf" in str(error).lower() or "descriptor" in str(error).lower():
        return protobuf_problem() or f"{package} cannot be imported: {error}"
    return f"{package} cannot be imported: {type(error).__name__}: {error}; install what it needs with: {REQUIREMENTS}"


def _builds(path: Path) -> list[int]:
    """The builds in Versions, ascending: those whose game is there, and not the folder only."""
    return sorted(build for build, folder in _folders(path).items() if any(folder.glob("SC2*")))


def _folders(path: Path) -> dict[int, Path]:
    """{build: folder in Versions}"""
    found = Path(path, "Versions").glob("Base*/")
    return {int(folder.name[4:]): folder for folder in found if re.fullmatch(r"Base\d+", folder.name)}
