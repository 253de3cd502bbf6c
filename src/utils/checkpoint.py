"""Weights on disk: written whole or not at all, read without running code, checked before they are used.

A checkpoint is a folder: agent.th, mixer.th, opt.th, reward_stats.th, meta.json, and checksums.json, which holds the
SHA-256 of the others. All that is wrong with one is a ConfigError that names the file.

Plugin file: imports torch and the standard library, and `utils.args`.
"""

import contextlib
import hashlib
import io
import json
import os
import pickletools
import stat
import uuid
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from utils.args import ConfigError

CHECKSUMS, META = "checksums.json", "meta.json"
LARGEST_TEXT = 1 << 20  # bytes of a JSON file
SLACK = 1 << 26  # bytes that a file of weights may have beyond 16 times what is needed: another network may be larger
DEEPEST = 100  # values in one another in a file of weights; deep tuples overflow the stack where they are hashed
NOT_NEGATIVE = {"step", "exp_avg_sq", "square_avg", "count", "var"}
MOMENTS = {"Adam": ("exp_avg", "exp_avg_sq"), "RMSprop": ("square_avg",)}  # beside `step`


class Loadable(Protocol):
    def state_dict(self) -> Mapping[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


# ---------------------------------------------------------------------- writing


def save_weights(state_dict: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write `state_dict` to `path`; a crash or a full disk (OSError) leaves the old file as it was."""
    data = io.BytesIO()  # torch would report a full disk as a RuntimeError about positions
    torch.save(state_dict, data)
    replace_file(path, data.getbuffer())


def write_checksums(folder: str | os.PathLike) -> None:
    """Write checksums.json: the SHA-256 of every file in `folder`. To be called after the last change of them."""
    sums = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name != CHECKSUMS and not name.endswith(".partial") and os.path.isfile(path):
            with open(path, "rb") as f:
                sums[name] = hashlib.sha256(f.read()).hexdigest()
    replace_file(os.path.join(folder, CHECKSUMS), json.dumps({"sha256": sums}, indent=2).encode())


def replace_file(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write `data` to `path`, whole or not at all (OSError). Of several writers at the same time one has the last word:
    none writes into the file of another."""
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with open(partial, "xb") as f:
            f.write(data)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


# ---------------------------------------------------------------------- reading weights


def load_weights(module: Loadable, path: str) -> None:
    """Load `path` into `module`, which has state_dict and load_state_dict. ConfigError names what does not fit: another
    algorithm, another shape."""
    ours = module.state_dict()
    module.load_state_dict(fitted(path, read_weights(path, _nbytes(ours)), ours, type(module).__name__))


def load_optimiser(optimiser: torch.optim.Optimizer, path: str) -> None:
    """Load the moments and step counts at `path` into an Adam or RMSprop; its settings stay as they are."""
    params = optimiser.param_groups[0]["params"]
    put_moments(optimiser, read_weights(path, 2 * _nbytes(dict(enumerate(params)))), path)


def put_moments(optimiser: torch.optim.Optimizer, state: dict, path: str) -> None:
    """Give an Adam or RMSprop the moments and step counts of `state`; its settings stay as they are. ConfigError where
    they do not fit: torch would take moments of any shape, and read and write beyond them. path: for the message."""
    owner, (group,) = type(optimiser).__name__, optimiser.state_dict()["param_groups"]
    params = optimiser.param_groups[0]["params"]
    problem = _problem_of_structure(state, group, owner)
    if problem:
        raise _misfit(path, owner, [problem])
    # A parameter that has had no gradient yet has no entry: none has one before the first update.
    like = {i: {"step": 0.0} | dict.fromkeys(MOMENTS[owner], p) for i, p in enumerate(params) if i in state["state"]}
    theirs = {f"{i}.{name}": value for i, entry in state["state"].items() for name, value in entry.items()}
    ours = {f"{i}.{name}": value for i, entry in like.items() for name, value in entry.items()}
    values = fitted(path, theirs, ours, owner)
    entries = {i: {name: values[f"{i}.{name}"] for name in entry} for i, entry in like.items()}
    optimiser.load_state_dict({"state": entries, "param_groups": [group]})


def _problem_of_structure(state: dict, group: dict, owner: str) -> str | None:
    """What makes `state` no state of an optimiser with the param_group `group`."""
    entries, groups = state.get("state"), state.get("param_groups")
    if type(entries) is not dict or not all(type(entry) is dict for entry in entries.values()):
        return "'state' is not a dict of dicts"
    if type(groups) is not list or len(groups) != 1 or type(groups[0]) is not dict:
        return "'param_groups' is not a list of one dict"
    if state.keys() != {"state", "param_groups"}:
        return "it holds more than 'state' and 'param_groups'"
    if not all(type(i) is int and all(type(name) is str for name in entry) for i, entry in entries.items()):
        return "'state' has other keys than numbers of parameters and names of moments"
    params = groups[0].get("params")
    if type(params) is not list or not all(type(i) is int for i in params) or params != group["params"]:
        return f"'params' is not [0, …, {len(group['params']) - 1}], the parameters of this algorithm"
    unknown = [_name(key) for key in groups[0].keys() - group.keys()]
    return f"{owner} has no {', '.join(sorted(unknown))}" if unknown else None


def read_weights(path: str, needed: int) -> dict:
    """The dict at `path`, read without running code. needed: bytes of what it is to fill."""
    data = read_file(path, 16 * needed + SLACK)
    try:
        state = unpickled(data)
        state = dict(state) if isinstance(state, dict) else state
    except Exception as error:  # damage shows itself as any kind of error
        raise ConfigError(f"checkpoint: {path} is damaged or not a checkpoint: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise ConfigError(f"checkpoint: {path} holds a {type(state).__name__}, not a state dict")
    return state


def unpickled(data: bytes) -> Any:
    """What the bytes of a file hold that torch.save wrote, read without running code. Damage shows itself as any kind
    of Exception."""
    _check_archive(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about kinds of tensors that are refused
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _check_archive(data: bytes) -> None:
    """ValueError for what torch.load trusts: sizes, CRC-32 sums, depth."""
    if not data.startswith(b"PK\3\4"):
        raise ValueError("it is not an archive as torch.save writes it since torch 1.6")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise ValueError("it unpacks to more bytes than it has")
        if bad := archive.testzip():
            raise ValueError(f"{bad} in it has another CRC-32 than when it was written")
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                _check_depth(archive.read(name))


def _check_depth(pickled: bytes) -> None:
    stack, marks, memo = [], [], {}  # stack, memo: how deep each value is
    for opcode, arg, _ in pickletools.genops(pickled):
        takes = opcode.stack_before
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif "PUT" in opcode.name:
            memo[arg] = stack[-1]
        elif "GET" in opcode.name:
            stack.append(memo[arg])
        else:
            marked = pickletools.markobject in takes
            first = marks.pop() - takes.index(pickletools.markobject) if marked else len(stack) - len(takes)
            depth = 1 + max(stack[first:], default=0)
            stack[first:] = [depth] * len(opcode.stack_after)
            if depth > DEEPEST:
                raise ValueError(f"values in it are nested more than {DEEPEST} deep")


def fitted(path: str, theirs: dict, ours: Mapping[str, Any], owner: str) -> dict:
    """{name: value} of `theirs`, tensors and numbers made like those of `ours`. ConfigError where they differ in
    names, kinds, dtypes or shapes, or where values are not finite. path, owner: whose they are, for the message."""
    problems = [f"has no {_name(k)}" for k in ours.keys() - theirs.keys()]
    problems += [f"holds {_name(k)}, which {owner} does not have" for k in theirs.keys() - ours.keys()]
    shared = sorted(ours.keys() & theirs.keys())
    problems += [f"{k!r} {problem}" for k in shared if (problem := _unlike(theirs[k], ours[k]))]
    if problems:
        raise _misfit(path, owner, problems)
    out = {k: _like(theirs[k], ours[k]) for k in shared}
    for name, value in out.items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise ConfigError(f"checkpoint: {path}: {name!r} has values that are not finite; its run had diverged")
        if name.rpartition(".")[2] in NOT_NEGATIVE and (torch.as_tensor(value) < 0).any():
            raise ConfigError(f"checkpoint: {path}: {name!r} has values below 0; the file is damaged")
    return out


def _unlike(value: Any, wanted: Any) -> str | None:
    """In what `value` differs from `wanted`, a tensor or a number; None: in nothing but its values."""
    is_tensor = type(value) in (torch.Tensor, torch.nn.Parameter)
    if not is_tensor and (isinstance(wanted, torch.Tensor) or type(value) not in (int, float)):
        return f"is a {type(value).__name__}, needed a {'tensor' if isinstance(wanted, torch.Tensor) else 'number'}"
    if not is_tensor:
        return "is too large" if type(value) is int and abs(value) >= 2**63 else None
    if value.is_nested or value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        return "is not a dense tensor with values"
    if not isinstance(wanted, torch.Tensor):
        number = value.numel() == 1 and value.dtype in (torch.float32, torch.float64, torch.int32, torch.int64)
        return None if number else f"is a {value.dtype} tensor {tuple(value.shape)}, needed a number"
    if value.shape != wanted.shape:
        return f"is {tuple(value.shape)}, needed {tuple(wanted.shape)}"
    return None if value.dtype == wanted.dtype else f"is {value.dtype}, needed {wanted.dtype}"


def _like(value: Any, wanted: Any) -> Any:
    """A copy of `value`, which shares no memory: a number, or a tensor laid out as `wanted`."""
    if not isinstance(wanted, torch.Tensor):
        return float(value)
    with torch.no_grad():
        return torch.empty_like(wanted).copy_(value)


def _misfit(path: str, owner: str, problems: list[str]) -> ConfigError:
    return ConfigError(
        f"checkpoint: {path} does not fit {owner}; it belongs to another algorithm, optimiser, environment or network "
        f"size{written_by(os.path.dirname(path))}:\n  " + "\n  ".join(sorted(problems)[:6])
    )


def _nbytes(tensors: Mapping[Any, Any]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values() if isinstance(t, torch.Tensor))


def _name(key: object) -> str:
    return f"{key!r:.80}" if isinstance(key, str) else f"a name that is a {type(key).__name__}"


# ---------------------------------------------------------------------- reading files


def has_checksums(folder: str | os.PathLike) -> bool:
    """Whether the files in `folder` are checked; those of EPyMARL and of older versions are not."""
    return os.path.lexists(os.path.join(folder, CHECKSUMS))


def read_file(path: str, most: int) -> bytes:
    """The contents of a file of a checkpoint, checked against checksums.json where there is one."""
    folder, name = os.path.split(path)
    sums = _read_checksums(folder)
    data = _read_plain(path, most)
    if sums is None:
        return data
    if name not in sums:
        raise ConfigError(f"checkpoint: {path} was added later: {CHECKSUMS} beside it does not name it")
    if hashlib.sha256(data).hexdigest() != sums[name]:
        raise ConfigError(
            f"checkpoint: {path} is damaged: it is not as it was written, says {CHECKSUMS} beside it; take another "
            f"checkpoint, or delete {CHECKSUMS} if you have changed it on purpose"
        )
    return data


def read_meta(folder: str | os.PathLike) -> dict | None:
    """meta.json of a checkpoint, whose `t_env` is an int; None where there is none, as in EPyMARL's."""
    path = os.path.join(folder, META)
    _read_checksums(folder)  # which may name it
    if not os.path.lexists(path):
        return None
    meta = _parsed(path, read_file(path, LARGEST_TEXT))
    if not isinstance(meta, dict) or type(meta.get("t_env")) is not int or not 0 <= meta["t_env"] < 2**63:
        raise ConfigError(f"checkpoint: {path} is damaged: it is not an object with the number of steps as `t_env`")
    return meta


def written_by(folder: str | os.PathLike) -> str:
    """` (written by version …, commit …, torch …)`, from the meta.json of the checkpoint `folder`, or, where that does
    not say, from the summary.json of the run that it is of; or the empty string."""
    run = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    who = maker(os.path.join(folder, META)) or maker(os.path.join(run, "summary.json"))
    return f" (written by {who})" if who else ""


def maker(path: str | os.PathLike) -> str:
    """`version …, commit …, torch …`: what made the run or checkpoint whose summary.json or meta.json `path` is; the
    empty string where that does not say."""
    try:
        record = json.loads(_read_plain(path, LARGEST_TEXT))
        versions = {"qtran": None} | record["versions"]
        ours = [("version", versions.pop("qtran")), ("commit", record["commit"])]  # no commit: outside git
        text = ", ".join(f"{name} {value}" for name, value in [*ours, *versions.items()] if value)
        return f"{' '.join(text.split()):.200}"
    except Exception:  # only a hint, of another program's file perhaps
        return ""


def _read_checksums(folder: str | os.PathLike) -> dict | None:
    """{file: SHA-256} of checksums.json in `folder`, all of which are there; None where there is none."""
    path = os.path.join(folder, CHECKSUMS)
    if not has_checksums(folder):
        return None
    sums = _parsed(path, _read_plain(path, LARGEST_TEXT))
    sums = sums.get("sha256") if isinstance(sums, dict) else None
    if not isinstance(sums, dict):
        raise ConfigError(f"checkpoint: {path} is damaged: it is not an object with the checksums as `sha256`")
    missing = [name for name in sums if not os.path.lexists(os.path.join(folder, name))]
    if missing:
        raise ConfigError(f"checkpoint: {os.path.join(folder, missing[0])} is missing; {CHECKSUMS} beside it names it")
    return sums


def _parsed(path: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"checkpoint: {path} is damaged: {_first_line(error)}") from error


def _read_plain(path: str | os.PathLike, most: int) -> bytes:
    """The contents of a file. ConfigError for a folder, a pipe, or more than `most` bytes."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"checkpoint: {path} is not a plain file")
        if info.st_size > most:
            raise ConfigError(f"checkpoint: {path} has {info.st_size} bytes, which is too much for what it is to hold")
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        raise ConfigError(f"checkpoint: no file {path}; save_model=True writes one") from None
    except OSError as error:
        raise ConfigError(f"checkpoint: {path} cannot be read: {_first_line(error)}") from error


# ---------------------------------------------------------------------- finding


def find_checkpoint(
    path: str | os.PathLike, load_step: int | str = 0, says: str = "checkpoint_path"
) -> tuple[str, int]:
    """(folder, t_env) of the checkpoint to load from `path`.

    path: a run directory, its `checkpoints` folder, or any folder of folders named by their step, as
    EPyMARL's `checkpoint_path`. load_step: the nearest step is taken; 0 takes the last one, "best" the one that tested
    best. says: the key, for messages.
    """
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        raise ConfigError(f"{says}: {path!r} is not a folder")
    if os.path.isdir(os.path.join(path, "checkpoints")):
        path = os.path.join(path, "checkpoints")
    if load_step == "best":
        return _best_checkpoint(path)
    if type(load_step) is not int or load_step < 0:
        raise ConfigError(f'load_step = {load_step!r} must be a step, a whole number of at least 0, or "best"')
    try:
        names = os.listdir(path)
    except OSError as error:
        raise ConfigError(f"{says}: {path!r} cannot be read: {error}") from error
    steps = sorted(int(name) for name in names if is_step_name(name) and os.path.isdir(os.path.join(path, name)))
    if not steps:
        instead = "it is one itself: give its parent folder, and load_step" if "agent.th" in names else ""
        raise ConfigError(
            f"{says}: {path!r} holds no checkpoint ({instead or 'a folder named by its step, such as 50000'})"
        )
    step = min(steps, key=lambda s: abs(s - int(load_step))) if load_step else steps[-1]
    return os.path.join(path, str(step)), step


def is_step_name(name: str) -> bool:
    """Whether it is a number as a checkpoint's name has it: 3000, not 03000."""
    return name.isascii() and name.isdecimal() and len(name) < 19 and str(int(name)) == name


def _best_checkpoint(path: str) -> tuple[str, int]:
    folder = os.path.join(path, "best")
    meta = read_meta(folder) if os.path.lexists(os.path.join(folder, META)) else None
    if meta is None:
        raise ConfigError(f"load_step=best: there is no {folder}/{META}; tests write it where save_model=True")
    return folder, meta["t_env"]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
