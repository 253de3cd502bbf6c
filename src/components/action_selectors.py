"""From values to actions. Numpy, for it runs at each environment step on a few rows.

Axes: E environments, N agents, A actions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.epsilon_schedules import LinearThenFlat
from utils.args import key, read
from utils.registry import lookup

REGISTRY = {"epsilon_greedy": "components.action_selectors:EpsilonGreedy"}
METHODS = ("begin", "epsilon", "explores_only", "select", "random")


class Selector(Protocol):
    """What controllers and runners ask of an action selector. E environments, N agents, A actions."""

    def begin(self, streams: Sequence[np.random.SeedSequence]) -> None:
        """Draw from `streams` from now on: one for all environments, or one for each."""
        ...

    def epsilon(self, t_env: int, test_mode: bool = False) -> float: ...

    def explores_only(self, t_env: int, test_mode: bool) -> bool:
        """True where the values do not matter, now and at all later steps."""
        ...

    def select(
        self,
        q: NDArray[np.float32],
        avail: NDArray[np.bool_],
        t_env: int,
        test_mode: bool = False,
        rngs: Sequence[np.random.Generator] | None = None,
    ) -> NDArray[np.int64]:
        """Actions [E, N] from q [E, N, A]; avail [E, N, A]."""
        ...

    def random(self, avail: NDArray[np.bool_], rngs: Sequence[np.random.Generator] | None = None) -> NDArray[np.int64]:
        """Actions [E, N], uniform over the available ones."""
        ...


def selector_class(name: str) -> Callable[[SimpleNamespace], Selector]:
    return lookup("action selector", REGISTRY, name, methods=METHODS)


class EpsilonGreedy:
    """Each agent takes, with probability ε, a uniformly random available action, else its best one."""

    @dataclass(frozen=True)
    class Config:
        epsilon_start: float = key("ε at the first step", low=0, high=1)
        epsilon_finish: float = key("ε once annealed", low=0, high=1)
        epsilon_anneal_time: int = key("time from start to finish, linear", unit="environment steps", low=0)
        evaluation_epsilon: float = key("ε in test episodes", low=0, high=1)

    def __init__(self, args: SimpleNamespace) -> None:
        self.config = c = read(self.Config, args)
        self.schedule = LinearThenFlat(c.epsilon_start, c.epsilon_finish, c.epsilon_anneal_time)
        self.begin([np.random.SeedSequence()])

    def begin(self, streams: Sequence[np.random.SeedSequence]) -> None:
        """Draw from `streams` from now on: one for all environments, or one for each."""
        self.rngs = [np.random.default_rng(stream) for stream in streams]

    def epsilon(self, t_env: int, test_mode: bool = False) -> float:
        return self.config.evaluation_epsilon if test_mode else self.schedule.eval(t_env)

    def explores_only(self, t_env: int, test_mode: bool) -> bool:
        """True where the values would not matter: ε is 1 now and at all later steps, so no history counts."""
        return not test_mode and self.config.epsilon_finish == 1 and self.epsilon(t_env) == 1

    def select(
        self,
        q: NDArray[np.float32],
        avail: NDArray[np.bool_],
        t_env: int,
        test_mode: bool = False,
        rngs: Sequence[np.random.Generator] | None = None,
    ) -> NDArray[np.int64]:
        """Actions [E, N] int64 from q [E, N, A]; avail bool [E, N, A]. rngs: in place of those of `begin`."""
        greedy = np.where(avail, q, -np.inf).argmax(axis=-1)
        epsilon = self.epsilon(t_env, test_mode)
        if epsilon == 0:
            return greedy
        rngs = rngs or self.rngs
        explore = _uniform(greedy.shape, rngs) < epsilon
        return np.where(explore, self.random(avail, rngs), greedy)

    def random(self, avail: NDArray[np.bool_], rngs: Sequence[np.random.Generator] | None = None) -> NDArray[np.int64]:
        """Uniform over available actions: [E, N] int64."""
        return np.where(avail, _uniform(avail.shape, rngs or self.rngs), -1.0).argmax(axis=-1)


def _uniform(shape: tuple[int, ...], rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Numbers in 0..1 of shape [E, ...]. rngs: one for all environments, or one for each."""
    if len(rngs) == 1:
        return rngs[0].random(shape)
    return np.stack([rng.random(shape[1:]) for rng in rngs])
