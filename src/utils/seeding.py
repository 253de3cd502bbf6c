"""One seed for a run, one independent stream for each owner of chance."""

import numpy as np
import torch

STREAMS = ("weights", "exploration", "replay", "environment")


def streams(seed):
    """{owner: seed of its own stream}. Streams of one run are independent, of equal seeds equal."""
    children = np.random.SeedSequence(seed).spawn(len(STREAMS))
    return {name: int(child.generate_state(1, np.uint64)[0] >> 1) for name, child in zip(STREAMS, children)}


def seed_weights(seed):
    """Seed torch, which draws nothing but the initial weights."""
    torch.manual_seed(seed)
