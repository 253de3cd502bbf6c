"""The folder that a run leaves: config, metrics, summary, log, checkpoints.

results/<name>/<map, key or env>/seed<k>_<UTC time>/
    config.yaml  metrics.jsonl  summary.json  log.txt  checkpoints/<t_env>/{agent,mixer,opt}.th
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from utils.args import ConfigError
from utils.config import task_name
from utils.logging import unwritable

ALGORITHM = ("learner", "mixer", "agent")  # the keys that say whose weights a checkpoint holds


class RunDirectory:
    """Makes the folder; ConfigError when it cannot be written. `path` is where."""

    def __init__(self, values, t_start=0):
        self.values, self.t_start = values, t_start  # t_start: steps that a loaded checkpoint brings along
        self.started = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.started))
        folder = Path(values["local_results_path"], values["name"], task_name(values))
        self._new_folders = [f for f in (folder, *folder.parents) if not f.exists()]
        self.path = self._make(folder, f"seed{values['seed']}_{stamp}")
        try:
            write_atomically(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=True))
        except OSError as error:
            self.discard()
            raise unwritable(folder, error) from error

    def discard(self):
        """Remove the folder, and those above it that were made with it: nothing was run."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._new_folders:
            with contextlib.suppress(OSError):  # another run has come
                folder.rmdir()

    def _make(self, folder, name):
        """A new folder; runs that start in the same second get a number."""
        for attempt in range(1000):
            path = folder / (f"{name}_{attempt}" if attempt else name)
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                if not folder.is_dir():
                    raise ConfigError(f"local_results_path: {folder} is a file, not a folder") from None
            except OSError as error:
                raise unwritable(folder, error) from error
        raise ConfigError(f"local_results_path: {folder} holds a thousand runs named {name}")

    def save_checkpoint(self, learner, t_env):
        """checkpoints/<t_env>/: complete or absent, whenever the process dies."""
        final = self.path / "checkpoints" / str(t_env)
        partial = final.with_name(f"{t_env}.partial")
        meta = {"t_env": t_env} | {k: self.values[k] for k in ("name", *ALGORITHM)}
        try:
            partial.mkdir(parents=True, exist_ok=True)
            learner.save_models(str(partial))
            write_atomically(partial / "meta.json", json.dumps(meta))
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk it holds the space that the rest needs
            raise
        os.replace(partial, final) if not final.exists() else _replace_files(partial, final)

    def write_summary(self, status, runner, logger, reason=None):
        """summary.json: how the run went. status: running, finished, failed or interrupted."""
        wall = time.time() - self.started
        summary = {
            "status": status,
            "reason": reason,
            "name": self.values["name"],
            "env": self.values["env"],
            "task": task_name(self.values),
            "seed": self.values["seed"],
            "t_env": runner.t_env,
            "episodes": runner.episodes,
            "wall_time_s": round(wall, 3),
            "env_steps_per_s": round((runner.t_env - self.t_start) / wall, 1) if wall > 0 else None,
            "test": {k: v for k, v in logger.latest.items() if k.startswith("test_")},
            "versions": versions() | runner.env.versions,
            "commit": commit(),
        }
        text = json.dumps(summary, indent=2) + "\n"
        try:
            write_atomically(self.path / "summary.json", text)
        except OSError:  # a full disk may have no room for a second file, but for this one in place of the old
            with open(self.path / "summary.json", "w") as f:
                f.write(text)


def check_same_algorithm(folder, values):
    """ConfigError when the checkpoint in `folder` says that another algorithm than that of `values` wrote it."""
    try:
        with open(os.path.join(folder, "meta.json")) as f:
            meta = json.load(f)
        wrote, differs = meta.get("name"), [k for k in ALGORITHM if meta.get(k, values[k]) != values[k]]
    except FileNotFoundError:  # EPyMARL's checkpoints have no such file
        return
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"checkpoint: {folder}/meta.json is damaged: {error}") from error
    if differs:
        theirs = ", ".join(f"{k}={meta[k]} (here {values[k]})" for k in differs)
        raise ConfigError(f"checkpoint: {folder} was written by {wrote!r}, not by {values['name']!r}: {theirs}")


def write_atomically(path, text):
    """Write `text` to `path`, whole or not at all (OSError)."""
    partial = f"{path}.partial"
    try:
        with open(partial, "w") as f:
            f.write(text)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def versions():
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def commit():
    """The commit of the source tree, with `+` when it was changed since; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*words):
        return subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        head = git("rev-parse", "HEAD")
        return (head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")) if head else None
    except (OSError, subprocess.SubprocessError):
        return None


def _replace_files(source, target):
    for file in source.iterdir():
        os.replace(file, target / file.name)
    source.rmdir()
