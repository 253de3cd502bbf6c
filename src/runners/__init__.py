"""Runners by name; EPyMARL's names. Who plays is the business of the environment (`env_workers`), so both names mean
the same: `episode` where environments are arrays, `parallel` where they are processes."""

from utils.registry import lookup

REGISTRY = {
    "episode": "runners.episode_runner:EpisodeRunner",
    "parallel": "runners.parallel_runner:ParallelRunner",
}


def runner_class(name: str, processes: bool = False):
    """processes: whether the environments are."""
    if name in ("episode", "parallel"):
        name = "parallel" if processes else "episode"
    return lookup("runner", REGISTRY, name)
