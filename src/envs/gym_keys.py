"""EPyMARL's keys of `gymma`, and where these games live now: Gymnasium's registry, PettingZoo, mpe2, VMAS."""

import importlib
import importlib.util
from pathlib import Path

from utils.args import ConfigError, nearest
from utils.registry import MissingPackage

INSTALL = "pip install -r requirements/gym.txt"
OWNERS = {"Foraging": "lbforaging", "rware": "rware"}  # {how an id begins: the package that registers it}
GIT_ONLY = {"matrixgames": "pip install git+https://github.com/uoe-agents/matrix-games.git"}


def unknown(name, known):
    """The ConfigError for a key that is none of `known`."""
    close = nearest(name, known) or f"; known are {', '.join(sorted(known)[:5])} and {max(0, len(known) - 5)} more"
    return ConfigError(f"env_args.key = {name!r} is not known{close}")


def _need(package):
    """MissingPackage, with the pip line where it is known, unless `package` can be found."""
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        ours = package in ("mpe2", "pettingzoo", "vmas", *OWNERS.values())
        line = INSTALL if ours else GIT_ONLY.get(package)
        mend = f"install it with: {line}" if line else "install the package that has it"
        raise MissingPackage(f"the module {package!r} is not installed; {mend}")


def gym_id(name):
    """The id of a registered environment, with the package to import first, as gymnasium.make takes it."""
    import gymnasium

    package, _, bare = name.rpartition(":")
    package = package or next((owner for start, owner in OWNERS.items() if bare.startswith(start)), "")
    if package:
        _need(package)
        importlib.import_module(package)
    if bare not in gymnasium.registry:
        prefix = f"{package}:" if package else ""
        raise unknown(name, [prefix + known for known in gymnasium.registry])
    return bare


def parallel_modules():
    """{"pz-mpe-simple-spread-v3": "mpe2.simple_spread_v3"}: EPyMARL's names, and where these games live now."""
    found = {}
    for package, pattern in (("mpe2", "*_v[0-9]*.py"), ("pettingzoo", "*/*_v[0-9]*.py")):
        root = _folder(package)
        for path in root.glob(pattern):
            family = "mpe" if package == "mpe2" else path.parent.name
            name = f"pz-{family}-{path.stem.replace('_', '-')}"
            found.setdefault(name, ".".join([package, *path.relative_to(root).with_suffix("").parts]))
    return found


def vmas_scenarios():
    """{"vmas-balance": "balance"}."""
    found = _folder("vmas").glob("scenarios/**/*.py")
    return {f"vmas-{path.stem}": path.stem for path in found if "__" not in path.stem}


def _folder(package):
    """Where the files of an installed package are. Imports nothing."""
    _need(package)
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else Path()
