"""Runners by name; EPyMARL's names. Who plays is decided by the environment (`env_workers`), so both names mean
the same: `episode` where environments are arrays, `parallel` where they are processes. `ray`: in actors of Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.registry import lookup

if TYPE_CHECKING:
    from runners.episode_runner import EpisodeRunner


REGISTRY = {
    "episode": "runners.episode_runner:EpisodeRunner",
    "parallel": "runners.parallel_runner:ParallelRunner",
    "ray": "runners.ray_runner:RayRunner",
}


def runner_class(name: str, processes: bool = False) -> type[EpisodeRunner]:
    """processes: whether the environments are."""
    if name in ("episode", "parallel"):
        name = "parallel" if processes else "episode"
    found = lookup("runner", REGISTRY, name)
    if name == "ray":
        found.check()
    return found
