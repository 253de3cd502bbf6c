"""QMIX (Rashid et al. 2018, arXiv 1803.11485). Parameter names and shapes are EPyMARL's."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.args import key, read


class QMixer(nn.Module):
    """Q_tot = w_2(s)ᵀ ELU(W_1(s)ᵀ Q + b_1(s)) + V(s), with W_1, w_2 ≥ 0, so Q_tot rises with each Q_i."""

    reads = ("state",)  # of a batch, besides the agents' values

    @dataclass(frozen=True)
    class Config:
        mixing_embed_dim: int = key("width of the mixing network", unit="units", low=1, high=65536)
        hypernet_layers: int = key("layers of the networks that make the weights", choices=(1, 2))
        hypernet_embed: int = key("width of their hidden layer, where they have two", unit="units", low=1, high=65536)

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        config = read(self.Config, args)
        self.n_agents, self.embed_dim, s = args.n_agents, config.mixing_embed_dim, args.state_shape

        def hypernet(n_out: int) -> nn.Module:
            if config.hypernet_layers == 1:
                return nn.Linear(s, n_out)
            hidden = config.hypernet_embed
            return nn.Sequential(nn.Linear(s, hidden), nn.ReLU(), nn.Linear(hidden, n_out))

        self.hyper_w_1 = hypernet(self.embed_dim * self.n_agents)
        self.hyper_w_final = hypernet(self.embed_dim)
        self.hyper_b_1 = nn.Linear(s, self.embed_dim)
        self.V = nn.Sequential(nn.Linear(s, self.embed_dim), nn.ReLU(), nn.Linear(self.embed_dim, 1))

    def forward(self, agent_qs: Tensor, state: Tensor, obs: Tensor | None = None) -> Tensor:
        """Q_tot [..., 1] of agent_qs [..., N] and state [..., S]. Observations are not used."""
        w_1 = self.hyper_w_1(state).abs().unflatten(-1, (self.n_agents, self.embed_dim))  # [..., N, W]
        hidden = F.elu(torch.einsum("...n,...nw->...w", agent_qs, w_1) + self.hyper_b_1(state))  # [..., W]
        w_final = self.hyper_w_final(state).abs()  # [..., W]
        return (hidden * w_final).sum(dim=-1, keepdim=True) + self.V(state)
