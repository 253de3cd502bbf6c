"""What a checkout still needs to run in this Python, with the lines that fix it.

The table holds faults that were met when running today's EPyMARL, PyMARL2 and PyMARL; after it the checkout's own
modules are imported, which finds the rest.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hosts.recognise import text

if TYPE_CHECKING:
    from pathlib import Path


GYM = 'pip install "setuptools==65.5.0" "wheel<0.40" && pip install --no-build-isolation gym==0.21.0'
SMAC = 'pip install "git+https://github.com/oxwhirl/smac.git"  # StarCraft II itself only for its own maps'


@dataclass(frozen=True)
class Fault:
    file: str  # of the checkout
    pattern: str  # that stands in it
    holds: Any  # () -> bool: whether it is a fault in this Python
    says: str
    fix: str  # a line for the shell, in the checkout


@dataclass(frozen=True)
class Need:
    says: str
    fix: str


def needs(root: Path) -> list[Need]:
    """[Need] of what keeps the checkout, or the plugin in it, from running in this Python."""
    found = _packages(root)
    found += [
        Need(fault.says, fault.fix)
        for fault in FAULTS
        if re.search(fault.pattern, text(root / fault.file), re.MULTILINE) and fault.holds()
    ]
    return found


def first_error(root: Path) -> str | None:
    """The last line of what importing the checkout's `run` says, or None when it works."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "import run"]
    try:
        done = subprocess.run(command, cwd=root / "src", env=environment, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "importing it takes more than five minutes"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def _packages(root: Path) -> list[Need]:
    """Packages that its `main.py` cannot start without."""
    out = []
    names = {"torch": "torch==2.13.0", "numpy": "numpy", "yaml": "pyyaml", "sacred": "sacred==0.8.7"}
    gymma = text(root / "src/envs/gymma.py")
    if "gymnasium" in gymma:
        names["gymnasium"] = "gymnasium"
    elif gymma and not installed("gym"):
        out.append(Need("not installed: gym 0.21, which new setuptools refuse (later ones have another step)", GYM))
    if "matplotlib" in text(root / "src/components/action_selectors.py"):
        names["matplotlib"] = "matplotlib"
    missing = [pip for module, pip in names.items() if not installed(module)]
    if missing:
        out.append(Need(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}"))
    if version("torch") and version("torch") < (2, 4):
        out.append(Need("the plugin needs torch 2.4 or later, for Adam's fused step", "pip install torch==2.13.0"))
    if installed("sacred") and version("setuptools") >= (82,) or not installed("pkg_resources"):
        says = "sacred imports pkg_resources, which setuptools 82 and later do not bring"
        out.append(Need(says, 'pip install "setuptools<82"'))
    return out


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def version(package: str) -> tuple[int, ...]:
    """(major, minor) of an installed package; () where it is not."""
    try:
        return tuple(int(n) for n in re.findall(r"\d+", importlib.metadata.version(package))[:2])
    except importlib.metadata.PackageNotFoundError:
        return ()


FAULTS = (
    Fault(
        "src/main.py", r"yaml\.load\(f\)", lambda: version("pyyaml") >= (6,),
        "main.py calls yaml.load without a Loader, which PyYAML 6 refuses",
        "sed -i 's/yaml.load(f)/yaml.safe_load(f)/' src/main.py",
    ),
    Fault(
        "src/main.py", r"collections\.Mapping", lambda: True,
        "main.py uses collections.Mapping, which Python 3.10 removed",
        "sed -i 's/^import collections$/import collections.abc/; s/collections.Mapping/collections.abc.Mapping/' "
        "src/main.py",
    ),
    Fault(
        "src/envs/__init__.py", r"^from \.smaclite_wrapper", lambda: not installed("smaclite"),
        "envs/__init__.py imports smaclite, whatever is played; it is not installed (git only, with a pin of Rtree "
        "that is hard to meet)",
        "sed -i 's/^from .smaclite_wrapper/# &/' src/envs/__init__.py",
    ),
    Fault(
        "src/envs/__init__.py", r"^from smac\.env", lambda: not installed("smac"),
        "envs/__init__.py imports smac, whatever is played; it is not installed", SMAC,
    ),
    Fault(
        "src/run/__init__.py", r"^from \.run import", lambda: not installed("smac"),
        "run/*.py import smac, whatever is played; it is not installed", SMAC,
    ),
)  # fmt: skip
