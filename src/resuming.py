"""Which run is resumed, and whether its state fits: for `--resume RUN_DIR`, `--resume=latest` and `--status`."""

from __future__ import annotations

import platform
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from utils.args import ConfigError
from utils.checkpoint import maker
from utils.claim import holder
from utils.config import ADDED, Config, Readers, load_from, task_folder, task_name
from utils.disk import expanded
from utils.identity import FIXED, MACHINE, NOT_SET, counts, flat, identity, may_change, text
from utils.messages import short
from utils.resume_state import Saved, StateError, writer
from utils.rundir import versions
from utils.runs import Run, find_runs, is_step

if TYPE_CHECKING:
    from parts import Parts


# ---------------------------------------------------------------------- which run


def find_latest(config: Config, but: set[Path]) -> tuple[Run | None, list[str]]:
    """(the newest run with this configuration that nobody works on, or None; messages about others).

    but: runs to leave out. A configuration is the same if the keys agree that can change what is learned, and those
    that can change its bits. The messages name the runs that another process works on, and those that another version
    has left.
    """
    values = config.values
    if config.sources["seed"] == "chosen now":
        raise ConfigError("--resume=latest finds a run by its configuration and seed: give seed=N after `with`")
    folder = Path(values["local_results_path"], values["name"])
    older = folder / task_name(values)  # where runs of SMAX were before their folders said so
    wanted, messages = identity(values, also=MACHINE), []
    found = [run for run in find_runs(folder / task_folder(values), older) if run.config]
    same = [run for run in found if identity(run.config, also=MACHINE) == wanted]
    for run in found:
        if run not in same and run.status != "finished" and _of_another_version(run.config, values):
            by = maker(run.path / "summary.json") or "it is not known which"
            messages.append(f"{run.path}: not resumed: another version made it ({by})")
    for run in sorted((run for run in same if run.path not in but), key=_start, reverse=True):
        held = holder(run.path)
        if held is None or held.state == "dead":
            return run, messages
        messages.append(f"{run.path}: process {held.pid} on {held.host} works on it ({held.state})")
    return None, messages


def _of_another_version(config: dict, values: dict) -> bool:
    """Whether a run's configuration has other keys than `values`, and the same values of those that count in both."""
    theirs, ours = flat(config), flat(values)
    shared = [key for key in theirs.keys() & ours.keys() if counts(key) or key in MACHINE]
    return theirs.keys() != ours.keys() and all(text(theirs[key]) == text(ours[key]) for key in shared)


def _start(run: Run) -> tuple[str, int]:
    """Sorts runs by their start: those of one second have a number after it."""
    stamp, _, number = run.path.name.rpartition("Z_")
    return (f"{stamp}Z", int(number)) if number.isdecimal() and stamp else (run.path.name, 0)


def read_run(path: str) -> Run:
    """The run in the folder `path`. ConfigError where there is none, or one that cannot be resumed."""
    folder = expanded(path)
    if not folder.is_dir():
        raise ConfigError(f"--resume {path}: no such folder; a run prints its own as `run directory: PATH`")
    if not (folder / "config.yaml").is_file():
        below = find_runs(folder)
        hint = f"; runs below it: {', '.join(str(run.path) for run in below[:3])}" if below else ""
        raise ConfigError(f"--resume {path}: not a run directory, it has no config.yaml{hint}")
    found = [run for run in find_runs(folder) if run.path == folder]
    return found[0] if found else Run(folder, problem="summary.json is missing")  # it was killed in its first moment


def changed_config(run: Run, overrides: dict, readers: Readers) -> Config:
    """The Config of a run, with overrides, of which only those may differ that cannot change what was learned."""
    file = str(run.path / "config.yaml")
    before = flat(load_from(file, {}, readers).values)
    if overrides.get("evaluate") and not before["evaluate"]:
        hint = f"--from {run.path} with evaluate=True"
        raise ConfigError(f"--resume goes on with training; to play the run's last checkpoint: {hint}")
    config = load_from(file, overrides, readers)
    after, problems = flat(config.values), []
    for name in sorted(after):
        if text(before.get(name, NOT_SET)) == text(after[name]) or may_change(name):
            continue
        if name == "t_max" and after[name] > before[name] and after.get("lr_decay_start") is None:
            continue
        problems.append(
            f"{name} is {short(before.get(name, NOT_SET))} in this run, not {short(after[name])}: {_why(name, after)}"
        )
    if after.get("evaluate"):
        problems.append("it only evaluates a checkpoint, and has no state: start it again")
    if problems:
        raise ConfigError(f"--resume {run.path}:\n  " + "\n  ".join(problems))
    return config


def _why(name: str, after: dict) -> str:
    if name != "t_max":
        return "it says which run this is" if name in FIXED else "it can change what is learned; start a new run"
    if after.get("lr_decay_start") is not None:
        return "lr_decay_start makes all learning rates after it depend on t_max"
    return "a run can be made longer, not shorter"


# ---------------------------------------------------------------------- whether a state fits


def facts(parts: Parts, commit: str | None) -> dict:
    """What must be the same when a state is read (keys, shapes), and what should be (machine)."""
    info = parts.env.env_info
    keys = {k: v for k, v in flat(parts.values).items() if counts(k) or k == "env_workers"}
    return {
        "keys": keys,
        # Fields that came later are only in it where a game uses them: states from before have none.
        "shapes": {f.name: v for f in fields(info) if (v := getattr(info, f.name)) != f.default},
        "machine": {
            "commit": commit,
            "processor": _processor(),
            "device": parts.device,
            "num_threads": parts.experiment.num_threads,
            "kernels": parts.kernels,
            **versions(),
            **parts.env.versions,
        },
    }


def kernels_of(saved: Saved) -> str | None:
    """What a state was made with, of the key `kernels`; None where it does not say."""
    machine = saved.facts.get("machine")
    return machine.get("kernels") if isinstance(machine, dict) else None


def check(saved: Saved, now: dict, where: Path, strict: bool) -> list[str]:
    """Sentences on what of the machine differs. StateError for what must not differ, or, if `strict`, for those."""
    runner, facts_ = saved.parts.get("runner"), [saved.facts.get(name) for name in ("keys", "shapes", "machine")]
    if not all(isinstance(part, dict) for part in (runner, *facts_)) or not is_step(saved.facts["keys"].get("t_max")):
        raise StateError(f"{where}: the state does not say what it is of; start a new run")
    if not is_step(saved.parts["runner"].get("t_env")):
        raise StateError(f"{where}: the state does not say how many steps were done; start a new run")
    longer = now["keys"]["t_max"] > saved.facts["keys"]["t_max"] and now["keys"].get("lr_decay_start") is None
    before = {name: value for name, value in ADDED.items() if name in now["keys"]} | saved.facts["keys"]
    problems = _differences(before, now["keys"], but=("t_max",) if longer else ())
    problems += _differences(saved.facts["shapes"], now["shapes"])
    if problems:
        by = f" (it was written by {writer(saved.facts)})"
        raise StateError(f"{where}: the state is of another configuration{by}:\n  " + "\n  ".join(problems))
    differs = _differences(saved.facts["machine"], now["machine"])
    if differs and strict:
        raise StateError(f"{where}: --strict, and the state was written elsewhere:\n  " + "\n  ".join(differs))
    return differs


def _differences(then: dict, now: dict, but: tuple = ()) -> list[str]:
    names = sorted((then.keys() | now.keys()) - set(but))
    pairs = [(name, then.get(name, NOT_SET), now.get(name, NOT_SET)) for name in names]
    return [f"{name} was {short(a, 48)}, is {short(b, 48)}" for name, a, b in pairs if text(a) != text(b)]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            models = [line.partition(":")[2].strip() for line in f if line.startswith(("model name", "Model"))]
    except OSError:
        models = []
    return models[0] if models else platform.machine()
