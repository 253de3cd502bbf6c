"""Mixers by name; EPyMARL's names."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

from utils.registry import lookup

if TYPE_CHECKING:
    from torch import Tensor, nn


REGISTRY = {
    "vdn": "modules.mixers.vdn:VDNMixer",
    "qmix": "modules.mixers.qmix:QMixer",
    "qatten": "modules.mixers.qatten:QattenMixer",
    "qplex": "modules.mixers.qplex:QPLEXMixer",
    "qtran_base": "modules.mixers.qtran:QTranBase",
    "qtran_alt": "modules.mixers.qtran:QTranAlt",
}


class Mixer(Protocol):
    """What Q-learning asks of a mixer, a torch Module: Q_tot of the agents' values, and of what it `reads`."""

    reads: tuple[str, ...] | None  # of a batch: "state", "obs"; None: it belongs to a learner of its own

    def forward(self, agent_qs: Tensor, /, *seen: Tensor) -> Tensor:
        """Q_tot [M, 1] of agent_qs [M, N] and the fields that it reads, state [M, S] or obs [M, N, O]."""
        ...


def mixer_class(name: str) -> Callable[[SimpleNamespace], nn.Module]:
    return lookup("mixer", REGISTRY, name, methods=("forward",))
