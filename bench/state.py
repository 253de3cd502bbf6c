"""What a resumable state costs on shapes of StarCraft 2s3z, with a full replay: seconds that training waits, and disk.

    python bench/state.py [--episodes 5000] [--new 1000] [--folder DIR]

A state is written with a full replay, then again after --new new full episodes, --repeats times. Both are given beside
the share of the run's time at the default interval, resume_minutes=10, and beside the time to read a state back.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import torch

from components.episode_buffer import EpisodeBatch, ReplayBuffer, make_scheme, nbytes
from envs.vector import EnvInfo
from utils.resume_state import StateFolder

LIMIT = 120  # steps
SHAPES = EnvInfo(n_agents=5, n_actions=11, obs_shape=80, state_shape=120, episode_limit=LIMIT)
MINUTES = 10  # the default of resume_minutes


def fill(buffer: ReplayBuffer, episodes: int) -> None:
    """Store full episodes of random numbers, eight at a time."""
    for _ in range(episodes // 8):
        batch = EpisodeBatch(buffer.scheme, buffer.groups, 8, LIMIT + 1)
        for values in batch.data.values():
            random = torch.rand(values.shape) if values.is_floating_point() else torch.ones(values.shape)
            values.copy_(random)
        buffer.insert_episode_batch(batch)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--episodes", type=int, default=5000, help="size of the replay")
    p.add_argument("--new", type=int, default=1000, help="new episodes between two states")
    p.add_argument("--repeats", type=int, default=7)
    p.add_argument("--folder", default=None, help="where to write; default: a temporary folder")
    options = p.parse_args()
    torch.set_num_threads(1)
    scheme, groups = make_scheme(SHAPES, True), {"agents": SHAPES.n_agents}
    size = nbytes(scheme, groups, options.episodes, LIMIT + 1)
    buffer = ReplayBuffer(scheme, groups, options.episodes, LIMIT + 1)
    fill(buffer, options.episodes)
    parts = {"learner": [torch.rand(1_000_000)]}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        states = StateFolder(Path(folder, "state"))
        whole, appended, disk = timed(states, parts, buffer), [], 0
        for _ in range(options.repeats):
            fill(buffer, options.new)
            appended.append(timed(states, parts, buffer))
            disk = max(disk, sum(f.stat().st_size for f in states.folder.iterdir()))
        start = time.perf_counter()
        saved = StateFolder(states.folder).read()
        assert saved is not None and saved.replay is not None
        for first, episodes in saved.replay:
            buffer.put_back(first, episodes)
        read = time.perf_counter() - start
        median = float(np.median(appended))
        spread = f"{min(appended):.2f} to {max(appended):.2f}, {len(appended)} times"
        print(f"replay: {options.episodes} full episodes, {size / 1e9:.2f} GB in memory")
        print(f"first state, all episodes: {whole:.2f} s")
        print(f"a state with {options.new} new episodes: median {median:.2f} s ({spread})")
        print(f"at {MINUTES} minutes between states: {100 * median / (60 * MINUTES):.2f} % of the time of the run")
        print(f"disk: at most {disk / 1e9:.2f} GB, {disk / size:.2f} times the replay")
        print(f"read back: {read:.2f} s")


def timed(states: StateFolder, parts: dict, buffer: ReplayBuffer) -> float:
    start = time.perf_counter()
    states.write(parts, buffer, 0, {"machine": {}})
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
