"""A joint value without any bound, for the central networks of Weighted QMIX and ResQ.

The shape is that of the authors' code (oxwhirl/wqmix): f(s, Q_1, …, Q_N) + V(s), three hidden layers in f, one in V.
Axes: M transitions, N agents, S state.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from utils.args import key, read


class CentralMixer(nn.Module):
    @dataclass(frozen=True)
    class Config:
        central_mixing_embed_dim: int = key("width of the central networks' layers", unit="units", low=1, high=65536)

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        width, n, s = read(self.Config, args).central_mixing_embed_dim, args.n_agents, args.state_shape
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.net = nn.Sequential(nn.Linear(s + n, width), nn.ReLU(), *hidden, nn.Linear(width, 1))
        self.V = nn.Sequential(nn.Linear(s, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, q_agents: Tensor, state: Tensor) -> Tensor:
        """[M, 1] of the agents' values at a joint action [M, N] and the state [M, S]."""
        return self.net(torch.cat([state, q_agents], dim=-1)) + self.V(state)
