"""Agent networks by name; EPyMARL's names."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

from utils.registry import lookup

if TYPE_CHECKING:
    from modules.agents.agent import Agent


REGISTRY = {
    "rnn": "modules.agents.rnn_agent:RNNAgent",
    "rnn_ns": "modules.agents.rnn_ns_agent:RNNNSAgent",
}
METHODS = ("init_hidden", "forward", "acting", "unroll")


def agent_class(name: str) -> Callable[[SimpleNamespace], Agent]:
    return lookup("agent", REGISTRY, name, methods=METHODS)
