"""What a checkout is: EPyMARL, PyMARL2, PyMARL, or a fork that keeps the layout of one of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.args import ConfigError
from utils.disk import expanded

# What all of them have, and the plugin builds on: {file: words that stand in it}.
CONTRACT = {
    "src/main.py": (),
    "src/config/default.yaml": (),
    "src/config/algs": (),
    "src/learners/__init__.py": ("REGISTRY",),
    "src/controllers/basic_controller.py": ("def forward", "def init_hidden", "self.hidden_states"),
    "src/components/episode_buffer.py": ("class EpisodeBatch",),
    "src/modules/mixers": (),
    "src/envs/__init__.py": ("REGISTRY",),
    "src/runners/episode_runner.py": ("env.step",),
}


@dataclass(frozen=True)
class Host:
    root: Path
    layout: str  # EPyMARL, PyMARL2 or PyMARL
    step_values: int  # how many values an environment's step returns: 3, or gymnasium's 5

    def __str__(self) -> str:
        era = " with gymnasium" if self.step_values == 5 else " with the old gym" if self.layout == "EPyMARL" else ""
        return f"{self.layout}{era}"


def recognise(path: str) -> Host:
    """The Host at `path`; ConfigError when it is none that the plugin fits."""
    root = expanded(path).resolve()
    if not root.is_dir():
        raise ConfigError(f"{path} {'is a file; give the folder' if root.exists() else 'does not exist'}")
    if (root / "src/plugin.py").is_file():
        raise ConfigError(f"{path} is this project itself; give a checkout of EPyMARL, PyMARL2 or PyMARL")
    if root.name == "src" and (root / "learners").is_dir():
        raise ConfigError(f"{path} is the inside of a checkout; give the folder above it: {root.parent}")
    problems = []
    for file, words in CONTRACT.items():
        if not (root / file).exists():
            problems.append(f"it has no {file}")
        problems += [f"{file} has no `{word}`" for word in words if word not in text(root / file)]
    if problems:
        raise ConfigError(
            f"{path} is no checkout of EPyMARL, PyMARL2 or PyMARL that the plugin fits:\n  " + "\n  ".join(problems)
        )
    return Host(root, _layout(root / "src"), _step_values(root / "src"))


def uncommitted(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of `paths`, relative to `root`, that git knows to differ from the last commit; none outside git."""
    return [line[3:] for line in git(root, "status", "--porcelain", "--", *paths).splitlines()]


def commit(root: Path) -> str | None:
    """The short commit of a checkout; None outside git."""
    return git(root, "rev-parse", "--short", "HEAD").strip() or None


def git(root: Path, *words: str) -> str:
    """What a git command prints, or nothing where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def text(path: Path) -> str:
    """A file as text; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _layout(src: Path) -> str:
    if "common_reward" in text(src / "config/default.yaml") or (src / "controllers/non_shared_controller.py").exists():
        return "EPyMARL"
    return "PyMARL2" if (src / "run").is_dir() else "PyMARL"


def _step_values(src: Path) -> int:
    return 5 if "truncated" in text(src / "runners/episode_runner.py") else 3
