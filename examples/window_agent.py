"""An agent network of one's own: its memory is the last observations, not a GRU.

python src/main.py --config=examples/window_agent.yaml --env-config=two_step
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from modules.agents.agent import Agent
from utils.args import key, read


class WindowAgent(Agent):
    @dataclass(frozen=True)
    class Config:
        hidden_dim: int = key("width of the hidden layer", unit="units", low=1)
        window: int = key("observations that an agent sees, the newest first", unit="steps", low=1)

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.config = c = read(self.Config, args)
        self.width = args.obs_shape
        seen = c.window * args.obs_shape + args.n_agents
        self.layers = nn.Sequential(nn.Linear(seen, c.hidden_dim), nn.ReLU(), nn.Linear(c.hidden_dim, args.n_actions))

    def init_hidden(self, *lead: int) -> Tensor:
        return next(self.parameters()).new_zeros(*lead, self.config.window * self.width)

    def forward(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.cat([obs, hidden[..., : -self.width]], dim=-1)  # the newest first, the oldest is forgotten
        who = torch.eye(len(agent_ids), device=obs.device)[agent_ids].expand(*obs.shape[:-1], -1)
        return self.layers(torch.cat([hidden, who], dim=-1)), hidden
