"""Learners by name; EPyMARL's names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from utils.registry import lookup

if TYPE_CHECKING:
    from torch import Tensor

    from components.episode_buffer import EpisodeBatch
    from learners.transitions import Batch
    from learners.value_learner import Log, ValueLearner
    from utils.args import NotFinite

    def _held_by_pyright(learner: ValueLearner, batch: EpisodeBatch) -> tuple[Learner, Batch]:
        return learner, batch  # a ValueLearner is a Learner, and our batch is one that plugin files read


REGISTRY = {
    "q_learner": "learners.q_learner:QLearner",
    "qtran_learner": "learners.qtran_learner:QTranLearner",
    "qplex_learner": "learners.qplex_learner:QPLEXLearner",
    "wqmix_learner": "learners.wqmix_learner:WQMixLearner",
    "resq_learner": "learners.resq_learner:ResQLearner",
}


class Learner(Protocol):
    """What training asks of an algorithm. `value_learner.py` has all of it but the loss; EPyMARL's learners have
    `train`, `cuda`, `save_models` and `load_models`."""

    training_steps: int  # gradient updates so far
    log_stats_t: int  # when the losses were last logged
    logger: Log

    def update(self, batch: EpisodeBatch, t_env: int, episode_num: int, /) -> None:
        """One gradient step on a batch of episodes; `outcomes` says whether it was finite."""
        ...

    def outcomes(self) -> list[NotFinite | None]:
        """Of each update since the last call: None, or what was not finite."""
        ...

    def values(self, batch: EpisodeBatch, /) -> dict[str, Tensor]:
        """{name: value} of the joint actions in a batch, for the tables of one-step games."""
        ...

    def cuda(self) -> None: ...
    def save_models(self, path: str | PathLike, /) -> None: ...
    def load_models(self, path: str | PathLike, /) -> None: ...
    def load_weights(self, path: str | PathLike, names: Collection[str] | None = None, /) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any], /) -> None: ...


METHODS = (
    "update", "outcomes", "cuda", "save_models", "load_models", "load_weights", "state_dict", "load_state_dict",
    "values",
)  # fmt: skip


def learner_class(name: str) -> Callable[..., Learner]:
    return lookup("learner", REGISTRY, name, methods=METHODS)
