"""One network for each agent, nothing shared (EPyMARL's `_ns`)."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from modules.agents.agent import Agent
from modules.agents.rnn_agent import RNNAgent


class RNNNSAgent(Agent):
    """N independent RNNAgents with the interface of one."""

    Config = RNNAgent.Config
    agents: Any  # a ModuleList of RNNAgents

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.agents = nn.ModuleList(RNNAgent(args) for _ in range(args.n_agents))

    def init_hidden(self, *lead: int) -> Tensor:
        return self.agents[0].init_hidden(*lead)

    def forward(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(
            lambda i, one: self.agents[i](obs[..., one, :], last_action[..., one], agent_ids[one], hidden[..., one, :])
        )

    def unroll(
        self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._each(
            lambda i, one: self.agents[i].unroll(obs[..., one, :], last_action[..., one], agent_ids[one], index)
        )

    def _each(self, run: Callable[[int, slice], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """q [..., N, A] and hidden [..., N, H] from run(i, slice of agent i)."""
        qs, hiddens = zip(*(run(i, slice(i, i + 1)) for i in range(len(self.agents))))
        return torch.cat(qs, dim=-2), torch.cat(hiddens, dim=-2)
