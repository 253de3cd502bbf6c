"""A game of any shapes that shows the same numbers for ever, lasts as long as is drawn, and sleeps as long as is drawn.

`Play` is what ours and a peer's environment are both made of.
"""

import time
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Rules:
    """shortest, longest: steps of an episode, drawn uniformly. least_ms, most_ms: a step sleeps so many milliseconds,
    drawn uniformly; 0 and 0: not at all."""

    agents: int
    actions: int
    obs: int
    state: int
    shortest: int
    longest: int
    least_ms: float = 0.0
    most_ms: float = 0.0

    def as_dict(self) -> dict:
        return asdict(self)


class Play:
    """One episode after the other."""

    def __init__(self, rules: Rules):
        self.rules = rules
        rng = np.random.default_rng(0)
        self.obs = rng.standard_normal((rules.agents, rules.obs)).astype(np.float32)
        self.state = rng.standard_normal(rules.state).astype(np.float32)

    def begin(self, rng: np.random.Generator) -> None:
        self.rng, self.left = rng, int(rng.integers(self.rules.shortest, self.rules.longest + 1))

    def step(self) -> bool:
        """Whether the episode is over."""
        if self.rules.most_ms:
            time.sleep(self.rng.uniform(self.rules.least_ms, self.rules.most_ms) / 1000)
        self.left -= 1
        return self.left <= 0
