"""Weights on disk: written whole or not at all, read without running code.

Plugin file: imports torch and the standard library, and `utils.args`.
"""

import contextlib
import io
import json
import os
import pickle

import torch

from utils.args import ConfigError


def save_weights(state_dict, path):
    """Write `state_dict` to `path`; a crash or a full disk (OSError) leaves the old file as it was."""
    data = io.BytesIO()  # torch would report a full disk as a RuntimeError about positions
    torch.save(state_dict, data)
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as f:
            f.write(data.getbuffer())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def read_weights(path, device="cpu"):
    """The state dict at `path`. ConfigError when it is missing or is not a checkpoint."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"checkpoint: no file {path}; save_model=True writes one") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"checkpoint: {path} is damaged or not a checkpoint: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise ConfigError(f"checkpoint: {path} holds a {type(state).__name__}, not a state dict")
    return state


def load_weights(module, path):
    """Load `path` into `module`. ConfigError names what does not fit: another algorithm, another shape."""
    theirs, ours = read_weights(path), module.state_dict()
    problems = [f"has no {k!r}" for k in ours.keys() - theirs.keys()]
    problems += [f"holds {k!r}, which {type(module).__name__} does not have" for k in theirs.keys() - ours.keys()]
    problems += [
        f"{k!r} is {tuple(theirs[k].shape)}, needed {tuple(ours[k].shape)}"
        for k in ours.keys() & theirs.keys()
        if theirs[k].shape != ours[k].shape
    ]
    if problems:
        raise ConfigError(
            f"checkpoint: {path} does not fit {type(module).__name__}; it belongs to another algorithm, "
            "environment or network size:\n  " + "\n  ".join(sorted(problems)[:6])
        )
    module.load_state_dict(theirs)


def find_checkpoint(path, load_step=0):
    """(folder, t_env) of the checkpoint to load from `path`.

    path: a run directory, its `checkpoints` folder, or any folder of folders named by their step, as
    EPyMARL's `checkpoint_path`. load_step: the nearest step is taken; 0 takes the last one, "best" the one that tested
    best.
    """
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        raise ConfigError(f"checkpoint_path: {path!r} is not a folder")
    if os.path.isdir(os.path.join(path, "checkpoints")):
        path = os.path.join(path, "checkpoints")
    if load_step == "best":
        return _best_checkpoint(path)
    steps = sorted(int(name) for name in os.listdir(path) if name.isascii() and name.isdecimal())
    if not steps:
        instead = "it is one itself: give its parent folder, and load_step" if "agent.th" in os.listdir(path) else ""
        raise ConfigError(
            f"checkpoint_path: {path!r} holds no checkpoint ({instead or 'a folder named by its step, such as 50000'})"
        )
    step = min(steps, key=lambda s: abs(s - load_step)) if load_step else steps[-1]
    return os.path.join(path, str(step)), step


def _best_checkpoint(path):
    folder = os.path.join(path, "best")
    try:
        with open(os.path.join(folder, "meta.json"), encoding="utf-8") as f:
            return folder, int(json.load(f)["t_env"])
    except FileNotFoundError:
        raise ConfigError(f"load_step=best: there is no {folder}; tests write it where save_model=True") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"checkpoint: {folder}/meta.json is damaged: {error}") from error


def _first_line(error):
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
