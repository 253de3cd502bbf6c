"""Runners by name; EPyMARL's names. Whether environments step in one process or in several is the
business of the environment (`env_workers`), so both names mean the same runner."""

from utils.registry import lookup

REGISTRY = {
    "episode": "runners.episode_runner:EpisodeRunner",
    "parallel": "runners.episode_runner:EpisodeRunner",
}


def runner_class(name):
    return lookup("runner", REGISTRY, name)
