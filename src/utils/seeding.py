"""All chance of a run comes from its seed, through streams that are made anew for each round.

A round is one episode in each environment. Its streams are numpy SeedSequences of (seed, owner, kind, number): who
draws, in training or in a test, in which round. No generator outlives a round. So no random state has to be saved. A
round that was lost can be played again and is the same. Tests have streams of their own and change nothing in training.
"""

import random
import sys
from typing import Any

import numpy as np

WEIGHTS, GAMES, EXPLORATION, REPLAY, GLOBALS = range(5)  # owners
TRAINING, TEST, ABSOLUTE = range(3)  # kinds of rounds; ABSOLUTE: tests of the absolute metric


def stream(seed: int | np.random.SeedSequence | None, *key: int) -> np.random.SeedSequence:
    """The stream `key` below `seed`. A function of its arguments alone (`SeedSequence.spawn` counts its calls); for a
    seed of None another one at each call."""
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(seed)
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, *key))


def number(source: np.random.SeedSequence) -> int:
    """A seed of 63 bits, for what takes a number."""
    return int(source.generate_state(1, np.uint64)[0] >> 1)


def seed_globals(source: np.random.SeedSequence) -> None:
    """Seed the global generators of Python, numpy and, where it is imported, torch: games and networks of others may
    draw from them."""
    words = source.generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch: Any = sys.modules.get("torch")  # a worker process does without it
    if torch is not None:
        torch.default_generator.manual_seed(number(source))  # torch.manual_seed is a hundred times slower
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number(source))


def seed_weights(seed: int) -> None:
    """Seed torch, from which the initial weights are drawn."""
    import torch

    torch.manual_seed(number(stream(seed, WEIGHTS)))
