"""One network for each agent, nothing shared (EPyMARL's `_ns`)."""

from typing import Any

import torch
from torch import nn

from modules.agents.agent import Agent
from modules.agents.rnn_agent import RNNAgent


class RNNNSAgent(Agent):
    """N independent RNNAgents with the interface of one."""

    Config = RNNAgent.Config
    agents: Any  # a ModuleList of RNNAgents

    def __init__(self, args):
        super().__init__()
        self.agents = nn.ModuleList(RNNAgent(args) for _ in range(args.n_agents))

    def init_hidden(self, *lead):
        return self.agents[0].init_hidden(*lead)

    def forward(self, obs, last_action, agent_ids, hidden):
        return self._each(
            lambda i, one: self.agents[i](obs[..., one, :], last_action[..., one], agent_ids[one], hidden[..., one, :])
        )

    def unroll(self, obs, last_action, agent_ids, index=None):
        return self._each(
            lambda i, one: self.agents[i].unroll(obs[..., one, :], last_action[..., one], agent_ids[one], index)
        )

    def _each(self, run):
        """q [..., N, A] and hidden [..., N, H] from run(i, slice of agent i)."""
        qs, hiddens = zip(*(run(i, slice(i, i + 1)) for i in range(len(self.agents))))
        return torch.cat(qs, dim=-2), torch.cat(hiddens, dim=-2)
