"""The folder that a run leaves: config, metrics, summary, log, checkpoints, state.

results/<name>/<map, key or env>/seed<k>_<UTC time>/
    config.yaml  metrics.jsonl  summary.json  log.txt  checkpoints/<t_env>/{agent,mixer,opt}.th  state/  claims/
"""

import contextlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from utils.args import ConfigError
from utils.checkpoint import is_step_name, read_meta, replace_file, write_checksums, written_by
from utils.claim import Claim, Held, take
from utils.config import task_folder, task_name
from utils.logging import Logger
from utils.messages import unwritable
from utils.runs import read_bytes
from utils.version import VERSION, commit

ALGORITHM = ("learner", "mixer", "agent")  # the keys that say whose weights a checkpoint holds
BEST = "best"  # the name of the checkpoint that tested best


class Saves(Protocol):
    def save_models(self, path: str, /) -> None: ...


class RunDirectory:
    """A run directory that this process holds (`utils/claim.py`). `create` makes a new one.

    path: where. t_start: steps that a loaded checkpoint brought along. wall_before: seconds that processes before this
    one worked on the run. resumed: [{"t_env", "time", "differs"}], one for each time that the run was resumed.
    """

    def __init__(self, path: Path, values: dict, claim: Claim, t_start: int = 0):
        self.path, self.values, self.claim, self.t_start = path, values, claim, t_start
        self.started, self.wall_before, self.resumed = time.time(), 0.0, []
        self.commit = commit()
        self._new_folders = []

    @classmethod
    def create(cls, values: dict, t_start: int = 0) -> "RunDirectory":
        """A new folder with its config.yaml; ConfigError when it cannot be written."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        folder = Path(values["local_results_path"], values["name"], task_folder(values))
        new = [f for f in (folder, *folder.parents) if not f.exists()]
        path, claim = _make(folder, f"seed{values['seed']}_{stamp}", values)
        directory = cls(path, values, claim, t_start)
        directory._new_folders = new
        return directory

    def discard(self) -> None:
        """Remove the folder, and those above it that were made with it: nothing was run."""
        self.claim.release()
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._new_folders:
            with contextlib.suppress(OSError):  # another run has come
                folder.rmdir()

    def write_config(self) -> None:
        write_atomically(self.path / "config.yaml", _config_text(self.values))

    def save_checkpoint(self, learner: Saves, t_env: int, name: str | None = None, **more: Any) -> None:
        """checkpoints/<t_env>/, or `name` for t_env: complete or absent, whenever the process dies.

        more: further entries of its meta.json.
        """
        self.claim.look()
        meta = {"t_env": t_env} | {k: self.values[k] for k in ("name", *ALGORITHM)} | more
        meta |= {"versions": versions(), "commit": self.commit}

        def fill(folder: Path) -> None:
            learner.save_models(str(folder))
            write_atomically(folder / "meta.json", json.dumps(meta))
            write_checksums(folder)

        self._put(name or str(t_env), fill)

    def checkpoint_files(self, name: str) -> dict[str, bytes]:
        """{file: contents} of checkpoints/<name>/."""
        return {path.name: read_bytes(path) for path in (self.path / "checkpoints" / name).iterdir()}

    def put_checkpoint(self, name: str, files: dict[str, bytes]) -> None:
        """Make checkpoints/<name>/ hold these files, or, where there are none, not be there."""
        self.claim.look()
        folder = self.path / "checkpoints" / name
        with contextlib.suppress(OSError):  # a file that cannot be read is another one
            if folder.is_dir() and self.checkpoint_files(name) == files:
                return
        _remove(folder)

        def fill(partial: Path) -> None:
            for file, data in files.items():
                (partial / file).write_bytes(data)

        if files:
            self._put(name, fill)

    def _put(self, name: str, fill: Callable[[Path], None]) -> None:
        final = self.path / "checkpoints" / name
        partial = final.with_name(f"{name}.partial")
        _remove(partial)  # of a process that was killed
        try:
            partial.mkdir(parents=True)
            fill(partial)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk it holds the space that the rest needs
            raise
        old = final.with_name(f"{name}.old")
        _remove(old)
        with contextlib.suppress(FileNotFoundError):
            os.rename(final, old)  # a kill here leaves none, which a resume puts back; never a mixture of two
        os.rename(partial, final)
        _remove(old)

    def limit_checkpoints(self, most: int | None) -> None:
        """Remove the oldest checkpoints beyond the last `most`; the best one is not among them. None: keep all."""
        if most is None:
            return
        paths = [path for path in (self.path / "checkpoints").iterdir() if is_step_name(path.name)]
        for path in sorted(paths, key=lambda path: int(path.name))[:-most]:
            shutil.rmtree(path, ignore_errors=True)

    @property
    def wall_seconds(self) -> float:
        return self.wall_before + time.time() - self.started

    def write_summary(
        self, status: str, runner: Any, logger: Logger, reason: str | None = None, learning: dict | None = None
    ) -> None:
        """summary.json: how the run went. status: running, finished, failed or interrupted. learning: what the
        summary says of it, {"updates": 1000, ...}."""
        self.claim.look()
        wall = self.wall_seconds
        summary = {
            "status": status,
            "reason": reason,
            "name": self.values["name"],
            "env": self.values["env"],
            "task": task_name(self.values),
            "seed": self.values["seed"],
            "t_env": runner.t_env,
            "episodes": runner.episodes,
            **(learning or {}),
            "wall_time_s": round(wall, 3),
            "seconds": {part: round(s, 3) for part, s in runner.clock.seconds.items()},
            "env_steps_per_s": round((runner.t_env - self.t_start) / wall, 1) if wall > 0 else None,
            "test": {k: v for k, v in logger.latest.items() if k.startswith("test_")},
            **(_absolute(logger.latest) if self.values.get("absolute_metric") else {}),
            "resumed": self.resumed,
            "versions": versions() | runner.env.versions,
            "game": dict(runner.env.facts),
            "commit": self.commit,
        }
        text = json.dumps(summary, indent=2) + "\n"
        try:
            write_atomically(self.path / "summary.json", text)
        except OSError:  # a full disk may have no room for a second file, but for this one in place of the old
            with open(self.path / "summary.json", "w", encoding="utf-8") as f:
                f.write(text)


def _absolute(latest: dict) -> dict:
    """{"absolute": what the weights that tested best came to}, where they have played; see `training.py`."""
    figures = {k.removeprefix("absolute_"): v for k, v in latest.items() if k.startswith("absolute_")}
    counts = {k: int(figures[k]) for k in ("t_env", "episodes") if k in figures}
    return {"absolute": figures | counts} if figures else {}


def _remove(path: Path) -> None:
    """A folder with all that is in it, or whatever stands in its place."""
    with contextlib.suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _make(folder: Path, name: str, values: dict) -> tuple[Path, Claim]:
    """A new folder, with config.yaml in it from its first moment, and the claim on it. Runs that start in the same
    second get a number."""
    partial = folder / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        write_atomically(partial / "config.yaml", _config_text(values))
        (partial / "claims").mkdir()  # without it nobody finds the run of a process that dies before it has its claim
        for attempt in range(1000):
            path = folder / (f"{name}_{attempt}" if attempt else name)
            try:
                os.rename(partial, path)  # fails where the name is taken: a run directory is never empty
                return path, take(path, values["lease_seconds"])
            except Held:  # another process was quicker to resume it
                return _make(folder, f"{name}_{attempt + 1}", values)
            except ConfigError:  # there is no room for the claim
                with contextlib.suppress(OSError):
                    (path / "claims").rmdir()  # unless somebody else has it
                    shutil.rmtree(path, ignore_errors=True)
                raise
            except OSError:
                if not path.exists():
                    raise
        raise ConfigError(f"local_results_path: {folder} holds a thousand runs named {name}")
    except (FileExistsError, NotADirectoryError) as error:
        file = next((f for f in (folder, *folder.parents) if f.is_file()), folder)
        raise ConfigError(f"local_results_path: {file} is a file, not a folder") from error
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _config_text(values: dict) -> str:
    return yaml.safe_dump(values, sort_keys=True)


def check_same_algorithm(folder: str | os.PathLike, values: Mapping[str, Any]) -> None:
    """ConfigError when the checkpoint in `folder` says that another algorithm than that of `values` wrote it."""
    meta = read_meta(folder)
    if meta is None:  # EPyMARL's checkpoints have no such file
        return
    odd = [k for k in ("name", *ALGORITHM) if not isinstance(meta.get(k), str | None)]
    if odd:
        raise ConfigError(f"checkpoint: {folder}/meta.json is damaged: {', '.join(odd)} must be text or null")
    differs = [k for k in ALGORITHM if meta.get(k, values[k]) != values[k]]
    if differs:
        theirs = ", ".join(f"{k}={meta[k]} (here {values[k]})" for k in differs)
        raise ConfigError(
            f"checkpoint: {folder} was written by {meta.get('name')!r}, not by {values['name']!r}: "
            f"{theirs}{written_by(folder)}"
        )


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path`, whole or not at all (OSError)."""
    replace_file(path, text.encode())


def versions() -> dict[str, str]:
    """{program: version} of what results depend on, this program first."""
    return {
        "qtran": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
