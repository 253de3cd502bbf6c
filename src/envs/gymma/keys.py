"""EPyMARL's keys of `gymma`, and where these games live now: Gymnasium's registry, PettingZoo, mpe2, VMAS."""

import importlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.args import ConfigError, nearest
from utils.registry import MissingPackage

INSTALL = "pip install -r requirements/gym.txt"
OWNERS = {"Foraging": "lbforaging", "rware": "rware"}  # {how an id begins: the package that registers it}
GIT_ONLY = {"matrixgames": "pip install git+https://github.com/uoe-agents/matrix-games.git"}


# The particle worlds, and their version of today. Before, they were EPyMARL's mpe:SimpleSpread-v0 and PettingZoo's
# simple_spread_v2.
PARTICLES = {
    "simple": 3, "simple-adversary": 3, "simple-crypto": 3, "simple-push": 3, "simple-reference": 3,
    "simple-speaker-listener": 4, "simple-spread": 3, "simple-tag": 3, "simple-world-comm": 3,
}  # fmt: skip


def unknown(name: str, known: Iterable[str]) -> ConfigError:
    """The ConfigError for a key that is none of `known`."""
    known = [*known]
    if today := _another_version(name, known):
        return past(name, today)
    if not known:
        return ConfigError(f"env_args.key = {name!r} is not known: its module has no such name, and registers none")
    close = nearest(name, known) or f"; known are {', '.join(sorted(known)[:5])} and {max(0, len(known) - 5)} more"
    return ConfigError(f"env_args.key = {name!r} is not known{close}")


def past(name: str, today: str) -> ConfigError:
    """The ConfigError for a name that a game had once."""
    return ConfigError(f"env_args.key = {name!r} is a name of the past; today it is {today!r}")


def mpe_today(key: str) -> str | None:
    """Today's key of a particle world that is given by a name of the past; None for any other key."""
    bare = re.sub(r"^(mpe:|pz-mpe-|(pettingzoo\.mpe|mpe2|pettingzoo\.mpe2)[.:])", "", key)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", re.sub(r"[-_]v\d+$", "", bare)).replace("_", "-").lower()
    if words not in PARTICLES or (bare == key and not re.fullmatch(r"simple([-_]\w+)*", bare)):
        return None
    today = f"pz-mpe-{words}-v{PARTICLES[words]}"
    return None if key == today else today


def _another_version(name: str, known: list[str]) -> str | None:
    """The newest of `known` that is `name` but for its version."""
    stem, version = re.subn(r"[-_]v\d+$", "", name)
    same = [k for k in known if version and re.sub(r"[-_]v\d+$", "", k) == stem]
    return max(same, key=lambda k: int(k.rpartition("v")[2]), default=None)


def _need(package: str) -> None:
    """MissingPackage, with the pip line where it is known, unless `package` can be found."""
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        ours = package in ("mpe2", "pettingzoo", "vmas", *OWNERS.values())
        line = INSTALL if ours else GIT_ONLY.get(package)
        what_to_do = f"install it with: {line}" if line else "install the package that has it"
        raise MissingPackage(f"the module {package!r} is not installed; {what_to_do}")


def gym_entry(name: str) -> Any:
    """What `name` means: the id of a registered environment, as gymnasium.make takes it, or what MODULE has of the name
    after the colon: a class or a factory. The module is imported first."""
    import gymnasium

    package, _, bare = name.rpartition(":")
    package = package or next((owner for start, owner in OWNERS.items() if bare.startswith(start)), "")
    if not package:
        if bare not in gymnasium.registry:
            raise unknown(name, gymnasium.registry)
        return bare
    _need(package)
    module = importlib.import_module(package)
    if bare in gymnasium.registry:
        return bare
    if hasattr(module, bare):
        return getattr(module, bare)
    raise unknown(name, [f"{package}:{known}" for known in _offered(module, gymnasium.registry)])


def _offered(module: Any, registry: Mapping) -> list[str]:
    """What a module has: classes and functions of its own, and ids that its package has registered."""
    own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    top = module.__name__.partition(".")[0]
    entries = {name: getattr(spec, "entry_point", spec) for name, spec in registry.items()}
    homes = {name: e if isinstance(e, str) else getattr(e, "__module__", "") for name, e in entries.items()}
    ids = [name for name, home in homes.items() if home.partition(":")[0].partition(".")[0] == top]
    return [name for name in own if not name.startswith("_")] + ids


def parallel_modules() -> dict[str, str]:
    """{"pz-mpe-simple-spread-v3": "mpe2.simple_spread_v3"}: EPyMARL's names, and where these games live now."""
    found = {}
    for package, pattern in (("mpe2", "*_v[0-9]*.py"), ("pettingzoo", "*/*_v[0-9]*.py")):
        root = _folder(package)
        for path in root.glob(pattern):
            family = "mpe" if package == "mpe2" else path.parent.name
            name = f"pz-{family}-{path.stem.replace('_', '-')}"
            found.setdefault(name, ".".join([package, *path.relative_to(root).with_suffix("").parts]))
    return found


def vmas_scenarios() -> dict[str, str]:
    """{"vmas-balance": "balance"}."""
    found = _folder("vmas").glob("scenarios/**/*.py")
    return {f"vmas-{path.stem}": path.stem for path in found if "__" not in path.stem}


def _folder(package: str) -> Path:
    """Where the files of an installed package are. Imports nothing."""
    _need(package)
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else Path()
