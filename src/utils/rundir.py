"""The folder that a run leaves: config, metrics, summary, log, checkpoints.

    results/<name>/<map, key or env>/seed<k>_<UTC time>/
        config.yaml  metrics.jsonl  summary.json  log.txt  checkpoints/<t_env>/{agent,mixer,opt}.th
"""

import json
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from utils.args import ConfigError
from utils.config import task_name


class RunDirectory:
    """Makes the folder; ConfigError when it cannot be written. `path` is where."""

    def __init__(self, values):
        self.values = values
        self.started = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.started))
        folder = Path(values["local_results_path"], values["name"], task_name(values))
        self.path = self._make(folder, f"seed{values['seed']}_{stamp}")
        write_atomically(self.path / "config.yaml", yaml.safe_dump(values, sort_keys=True))

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
                raise ConfigError(
                    f"local_results_path: cannot write to {folder} ({error.strerror}); "
                    "choose another with local_results_path=FOLDER"
                ) from error
        raise ConfigError(f"local_results_path: {folder} holds a thousand runs named {name}")

    def save_checkpoint(self, learner, t_env):
        """checkpoints/<t_env>/: complete or absent, whenever the process dies."""
        final = self.path / "checkpoints" / str(t_env)
        partial = final.with_name(f"{t_env}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        learner.save_models(str(partial))
        write_atomically(partial / "meta.json", json.dumps({"name": self.values["name"], "t_env": t_env}))
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
            "env_steps_per_s": round(runner.t_env / wall, 1) if wall > 0 else None,
            "test": {k: v for k, v in logger.latest.items() if k.startswith("test_")},
            "versions": versions(),
            "commit": commit(),
        }
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")


def check_same_algorithm(folder, name):
    """ConfigError when the checkpoint in `folder` says that another algorithm wrote it."""
    try:
        with open(os.path.join(folder, "meta.json")) as f:
            wrote = json.load(f).get("name", name)
    except FileNotFoundError:  # EPyMARL's checkpoints have no such file
        return
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"checkpoint: {folder}/meta.json is damaged: {error}") from error
    if wrote != name:
        raise ConfigError(f"checkpoint: {folder} was written by {wrote!r}, not by {name!r}; use --config={wrote}")


def write_atomically(path, text):
    partial = f"{path}.partial"
    with open(partial, "w") as f:
        f.write(text)
    os.replace(partial, path)


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
