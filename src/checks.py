"""What has to work on a machine, one function for each: `doctor.py` calls them and shows what they found.

Importing needs the standard library only, so that a missing core package can be told.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import socket
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.args import ConfigError

if TYPE_CHECKING:
    from os import PathLike


ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 10)
DISK_LEFT = 2**30  # bytes; a run of days leaves some hundred MB of checkpoints and metrics
REINSTALL = "pip install --force-reinstall -r requirements.txt"
MONGO_PATIENCE = 3.0  # seconds


class Check(NamedTuple):
    name: str
    state: str  # ok; missing: not there, and nothing that was asked for needs it; broken: does not work
    detail: str
    fix: str = ""  # the line that fixes it


def failed(name: str, error: object, needed: bool = True) -> Check:
    """The Check of a ConfigError or its message, which ends with what to do, after its last semicolon."""
    detail, _, fix = str(error).rpartition("; ")
    state = "broken" if needed else "missing"
    return Check(name, state, detail or fix, fix.rpartition(" with: ")[2] if detail else "")


# ---- Python and packages


def python() -> Check:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Check(
            "Python", "broken", f"{version} is too old", "make the virtual environment with Python 3.10 to 3.13"
        )
    return Check("Python", "ok", f"{version}, {sys.executable}")


def packages(requirements: str, needed: bool = True) -> Check:
    """The packages of a requirements file, a path from the repository's root, by what pip knows of them."""
    fix = f"pip install -r {requirements}"
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Check(requirements, "broken", "its packages are not installed", fix)
    try:
        lines = [
            line.partition(" #")[0].strip() for line in (ROOT / requirements).read_text(encoding="utf-8").splitlines()
        ]
        asked = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    except (OSError, ValueError) as error:  # ValueError: a line that is no requirement, a file that is no text
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        again = f"take {requirements} from the repository again"
        return Check(requirements, "broken" if needed else "missing", f"{ROOT / requirements}: {reason}", again)
    there, absent = [], []
    for wanted in asked:
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            absent.append(wanted.name)
            continue
        other = not wanted.specifier.contains(version, prereleases=True)
        there.append(f"{wanted.name} {version}" + (f" (tested with {wanted.specifier})" if other else ""))
    if absent:
        return Check(requirements, "broken" if needed else "missing", f"not installed: {', '.join(absent)}", fix)
    return Check(requirements, "ok", ", ".join(there))


def extras() -> list[str]:
    """The files of optional packages: all in requirements/ but those of developers, documentation and constraints."""
    files = [
        path for path in ROOT.glob("requirements/*.txt") if not path.stem.startswith(("dev", "docs", "constraints"))
    ]
    return sorted(str(path.relative_to(ROOT)) for path in files)


def sacred() -> Check:
    """Whether it can be imported: 0.8.7 cannot beside the newest setuptools."""
    try:
        from utils.config import import_sacred

        import_sacred()
    except Exception as error:
        return Check("sacred", "broken", f"import sacred: {error}", REINSTALL)
    return Check("sacred", "ok", "can be imported")


def torch_device() -> Check:
    try:
        import torch
    except Exception as error:  # a wheel for another machine, a CUDA library that is gone
        return Check("device", "broken", f"import torch: {error}", REINSTALL)
    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("device", "ok", f"{version}, {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if not Path("/dev/nvidiactl").exists():
        return Check("device", "ok", f"{version}, CPU; no NVIDIA GPU here")
    if torch.version.cuda is None:
        fix = (
            "install the build of torch with CUDA that https://pytorch.org/get-started/locally/ shows for this machine"
        )
        return Check("device", "missing", f"{version} is a build for the CPU; the GPU is not used", fix)
    fix = "nvidia-smi shows whether the driver works; start a container with --gpus all"
    return Check("device", "missing", f"{version} (CUDA {torch.version.cuda}) sees no GPU", fix)


def environment(name: str, needed: bool) -> Check:
    """A name of the registry: whether this machine has what it needs."""
    from envs import env_class
    from utils.messages import brief

    title = f"environment {name}"
    try:
        env_class(name).check_installed()
    except ConfigError as error:
        return failed(title, error, needed)
    except Exception as error:  # a package that is there and cannot be imported
        return Check(title, "broken" if needed else "missing", brief(error))
    return Check(title, "ok", "installed")


def installed_by(name: str) -> str:
    """The line that installs what the environment `name` needs; empty where it needs nothing, or cannot be asked."""
    from envs import env_class

    try:
        return env_class(name).install or ""
    except Exception:  # told by `environment`
        return ""


# ---- StarCraft II


def protobuf(needed: bool) -> Check:
    """pysc2 works only with old ones."""
    from envs.starcraft.installation import protobuf_problem

    problem = protobuf_problem()
    if problem:
        return failed("protobuf", problem, needed)
    return Check("protobuf", "ok", metadata.version("protobuf"))


def starcraft(needed: bool) -> list[Check]:
    """The game, its version and its maps: Checks, without those that need a broken one."""
    from envs.starcraft.installation import SMAC_MAPS, SMACV2_MAP, game_version, installed_maps, sc2_path

    try:
        path = sc2_path()
    except ConfigError as error:
        fix = "docker/install_sc2.sh --accept-licence, then export SC2PATH=~/StarCraftII"
        return [failed("StarCraft II", error, needed)._replace(fix=fix)]
    found = [Check("StarCraft II", "ok", str(path))]
    try:
        found.append(Check("its version", "ok", game_version(path)))
    except ConfigError as error:
        found.append(failed("its version", error, needed))
    there = installed_maps(path)
    absent = [name for name in (*SMAC_MAPS, SMACV2_MAP) if name not in there]
    if absent:
        detail = f"{len(there)} in {path}/Maps/SMAC_Maps; missing: {', '.join(absent)}"
        fix = f"SC2PATH={path} docker/install_sc2.sh --accept-licence"
        # Whether the one that is asked for is there shows when its environment is made, for `memory`.
        return [*found, Check("its maps", "broken" if needed and not there else "missing", detail, fix)]
    return [*found, Check("its maps", "ok", f"the {len(SMAC_MAPS)} of SMAC and {SMACV2_MAP} of SMACv2")]


def ports(games: int) -> Check:
    """One port of this machine for each game that plays at the same time."""
    with contextlib.ExitStack() as held:
        for n in range(games):
            try:
                held.enter_context(socket.socket()).bind(("127.0.0.1", 0))
            except OSError as error:
                detail = f"{n} of {games} could be opened on 127.0.0.1: {error.strerror}"
                return Check("free ports", "broken", detail, "ulimit -n 4096, or a smaller batch_size_run")
    return Check("free ports", "ok", f"{games} on 127.0.0.1, for batch_size_run={games}")


# ---- what a run writes to, and holds


def mongo(url: str | None, database: str) -> Check:
    """Sacred's server, where one is configured: reached and willing."""
    from recording.mongo_entry import ping_mongo
    from utils.messages import brief, without_password

    if not url:
        return Check("MongoDB", "ok", "not configured (mongo_url is null)")
    name = without_password(url)
    try:
        ping_mongo(url, database, MONGO_PATIENCE)
    except ConfigError as error:
        return failed("MongoDB", error)
    except Exception as error:  # pymongo's many
        return Check(
            "MongoDB",
            "broken",
            f"{name}: {brief(error)}",
            f"start the server of {name}, or run without it: mongo_url=null",
        )
    return Check("MongoDB", "ok", f"{name}, database {database}")


def disk(folder: str | PathLike) -> Check:
    """The folder of results: can be written, and has room. It, or what of it has to be made, is not left behind."""
    folder = Path(folder).absolute()
    there = next(f for f in (folder, *folder.parents) if f.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as f:
            f.write(b"0" * 4096)
            f.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(
            "disk", "broken", f"{there}: {error.strerror}", "choose another folder: with local_results_path=FOLDER"
        )
    detail = f"{free / 2**30:.1f} GiB free in {there}"
    if free < DISK_LEFT:
        return Check("disk", "broken", detail, "delete files, or choose another folder: with local_results_path=FOLDER")
    return Check("disk", "ok", detail)


def memory(values: dict[str, Any]) -> Check:
    """All that the run which `values` configure holds, in the memory that is free now: the sum that the run refuses by,
    and its game on top, which the run has made by then."""
    import torch

    from utils.memory import free_memory
    from utils.messages import brief

    device = "cuda" if values["use_cuda"] and torch.cuda.is_available() else "cpu"
    try:
        needed, steps = needed_memory(values, device)
        needed.refuse_what_does_not_fit()
    except ConfigError as error:
        return failed("memory", error)
    except Exception as error:  # the game's own
        return Check("memory", "broken", f"{values['env']}: {brief(error)}")
    found = []
    for place, parts in needed.on().items():
        free = free_memory(place)
        of = f"of {free / 2**30:.1f} GiB free " if free is not None else ""
        total, each = sum(part.nbytes for part in parts), ", ".join(part.what for part in parts if part.nbytes)
        found.append(f"{total / 2**30:.3f} GiB {of}on {place} for {each}")
    return Check("memory", "ok", f"{values['env']}, {steps} steps: {'; '.join(found)}")


def needed_memory(values: dict, device: str) -> tuple:
    """(the Needed of the run which `values` configure, its game included; steps of its longest episode). Makes the
    game, and raises what that raises."""
    import envs
    from parts import Needed, with_sizes

    env = envs.make(values["env"], values["env_args"])
    try:
        info = env.env_info
    finally:
        env.close()
    workers = values["env_workers"] or values["runner"] == "ray"
    game = envs.need(values["env"], values["env_args"], values["batch_size_run"], workers)
    needed = Needed.of(with_sizes(SimpleNamespace(**values), info), info, values["common_reward"], device)
    needed.batches.append(("cpu", game))
    return needed, info.episode_limit


# ---- a game


def episode(values: dict[str, Any]) -> Check:
    """One episode of random available actions."""
    from utils.messages import brief

    name = f"one episode of {values['env']}"
    try:
        return Check(name, "ok", _play(values))
    except ConfigError as error:
        return failed(name, error)
    except Exception as error:  # the game's own
        return Check(name, "broken", brief(error))


def _play(values: dict[str, Any]) -> str:
    """What was seen, in words."""
    import numpy as np

    import envs

    rng = np.random.default_rng(values["seed"])
    env = envs.make(values["env"], values["env_args"], seed=values["seed"])
    try:
        info, avail = env.env_info, env.reset().avail
        steps, total = 0, 0.0
        while True:
            step = env.step((rng.random(avail.shape) * avail).argmax(axis=-1))  # actions [1, N]
            steps, total, avail = steps + 1, total + step.reward.sum(), step.avail
            if step.terminated[0] or step.truncated[0]:
                break
        if env.lost is not None and env.lost[0]:
            raise envs.GameError("the game failed in the middle of the episode, and was started again")
        versions = [f"{program} {version}" for program, version in env.versions.items()]
    finally:
        env.close()
    end = "the time limit" if step.truncated[0] else "a terminal state"
    seen = [
        f"{info.n_agents} agents, {info.n_actions} actions, observation {info.obs_shape}, state {info.state_shape}",
        f"{steps} of at most {info.episode_limit} steps to {end}",
        f"return {total:.3f}",
        *versions,
        *(f"{key} {float(value[0]):g}" for key, value in step.info.items()),
    ]
    return "; ".join(seen)
