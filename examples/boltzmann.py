"""An action selector of one's own: actions are drawn with probabilities that grow with their values.

python src/main.py --config=examples/boltzmann.yaml --env-config=two_step
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from components.action_selectors import EpsilonGreedy
from utils.args import key, read


class Boltzmann(EpsilonGreedy):
    """p(u) ∝ exp(Q(u) / temperature) in place of ε-greedy; tests play greedily, as `evaluation_epsilon` says."""

    @dataclass(frozen=True)
    class Config(EpsilonGreedy.Config):
        temperature: float = key("how equal the probabilities are", above=0)

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__(args)
        self.temperature = read(self.Config, args).temperature

    def explores_only(self, t_env: int, test_mode: bool) -> bool:
        return False

    def select(
        self,
        q: NDArray[np.float32],
        avail: NDArray[np.bool_],
        t_env: int,
        test_mode: bool = False,
        rngs: Sequence[np.random.Generator] | None = None,
    ) -> NDArray[np.int64]:
        """Actions [E, N] of values q [E, N, A]; avail bool [E, N, A]. rngs: one for all environments, or one each."""
        if test_mode:
            return super().select(q, avail, t_env, test_mode, rngs)
        rngs = rngs or self.rngs
        draws = [rng.gumbel(size=(len(q) // len(rngs), *q.shape[1:])) for rng in rngs]
        return np.where(avail, q / self.temperature + np.concatenate(draws), -np.inf).argmax(axis=-1)
