"""What the tests of StarCraft share: a folder that looks like the game's, faults on order, games that must be gone."""

import time
from pathlib import Path

import yaml
from command import CONFIG, ROOT

from envs import make

FAKES = ROOT / "tests" / "fakes"
GAME = """#!/bin/sh
echo "fake game: $*"
echo "fake game: imaginary memory is full" >&2
echo $$ > "$FAKE_GAMES/$$" # it is there now
exec sleep 1000
"""


def install(folder, game=GAME):
    """A folder for SC2PATH, with the maps' names and the program `game`; returns the environment variables."""
    binary = folder / "SC2" / "Versions" / "Base75689" / "SC2_x64"
    maps = folder / "SC2" / "Maps" / "SMAC_Maps"
    for made in (binary.parent, maps, folder / "faults", folder / "games"):
        made.mkdir(parents=True)
    binary.write_text(game)
    binary.chmod(0o755)
    for name in ("3m", "2s3z", "32x32_flat"):
        (maps / f"{name}.SC2Map").touch()
    return {
        "SC2PATH": str(folder / "SC2"),
        "FAKE_FAULTS": str(folder / "faults"),
        "FAKE_GAMES": str(folder / "games"),
        "STAND_IN_FAULTS": str(folder / "faults"),
    }


def order(folder, *faults):
    """Have the next games fail, one after the other."""
    for i, fault in enumerate(faults):
        (folder / "faults" / str(i)).write_text(fault)


def battle(env="sc2", n_envs=1, seed=1, **changes):
    """An environment of worker processes, with the settings of its YAML."""
    return make(env, env_args_of(env) | changes, n_envs, seed)


def patience(fault):
    """`env_args.timeout` for a fault: where a game hangs it is waited for, elsewhere a busy machine is not mistaken."""
    return 4 if fault.startswith("hang") else 60


def env_args_of(env):
    return yaml.safe_load((CONFIG / "envs" / f"{env}.yaml").read_text())["env_args"]


def games(folder):
    """The process numbers of the games that were started."""
    return [int(file.name) for file in (folder / "games").iterdir()]


def gone(pids):
    """Whether all these processes end in time."""
    return within(lambda: not any(running(pid) for pid in pids))


def within(true, seconds=30):
    """Whether `true()` holds in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
