"""Qatten (Yang et al. 2020, arXiv 2002.03939)."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from utils.args import key, read


class QattenMixer(nn.Module):
    """Q_tot = c(s) + Σ_h w_h(s) Σ_i λ_{i,h}(s) Q_i,   λ_{i,h} = softmax_i(key_{i,h} · query_h / √d).

    The query reads the state, the key reads agent i's observation. All weights are at least 0, so Q_tot
    rises with each Q_i. Deviation: the paper's `nonlinear` variant, which appends Q_i to the key, is left
    out, for it gives up that guarantee.
    """

    reads = ("state", "obs")  # of a batch, besides the agents' values

    @dataclass(frozen=True)
    class Config:
        n_attention_heads: int = key("attention heads", low=1, high=256)
        query_hidden_dim: int = key(
            "hidden width of the query network and of the head weights", unit="units", low=1, high=65536
        )
        attention_dim: int = key("d, width of query and key; also of c(s)", unit="units", low=1, high=65536)
        weighted_head: bool = key("heads are weighted by |f(s)|; False: each counts 1")
        attention_reg_coef: float = key("weight of the penalty on squared attention logits; 0: none", low=0)

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.config = c = read(self.Config, args)
        s, d, heads, hidden = args.state_shape, c.attention_dim, c.n_attention_heads, c.query_hidden_dim
        self.query = nn.ModuleList(
            nn.Sequential(nn.Linear(s, hidden), nn.ReLU(), nn.Linear(hidden, d)) for _ in range(heads)
        )
        self.key = nn.Linear(args.obs_shape, heads * d)
        self.head_weight = nn.Sequential(nn.Linear(s, hidden), nn.ReLU(), nn.Linear(hidden, heads))
        self.c = nn.Sequential(nn.Linear(s, d), nn.ReLU(), nn.Linear(d, 1))

    def forward(self, agent_qs: Tensor, state: Tensor, obs: Tensor) -> Tensor:
        """Q_tot [..., 1] of agent_qs [..., N], state [..., S] and obs [..., N, O]."""
        attention = self._logits(state, obs).softmax(dim=-1)  # λ [..., heads, N]
        q_heads = (attention * agent_qs.unsqueeze(-2)).sum(dim=-1)  # [..., heads]
        if self.config.weighted_head:
            q_heads = q_heads * self.head_weight(state).abs()
        return q_heads.sum(dim=-1, keepdim=True) + self.c(state)

    def regulariser(self, state: Tensor, obs: Tensor, mask: Tensor) -> Tensor:
        """Coefficient × Σ_h mean(logit²) over agents and real transitions. A scalar.

        The logit is the product before its division by √d.
        """
        if self.config.attention_reg_coef == 0:
            return state.new_zeros(())
        d = self.config.attention_dim
        squared = (d * self._logits(state, obs).square()).mean(dim=-1).sum(dim=-1, keepdim=True)  # [..., 1]
        squared = torch.where(mask.bool(), squared, torch.zeros_like(squared))
        return self.config.attention_reg_coef * squared.sum() / mask.sum().clamp(min=1)

    def _logits(self, state: Tensor, obs: Tensor) -> Tensor:
        d, heads = self.config.attention_dim, self.config.n_attention_heads
        query = torch.stack([query(state) for query in self.query], dim=-2)  # [..., heads, d]
        keys = self.key(obs).unflatten(-1, (heads, d))  # [..., N, heads, d]
        return torch.einsum("...hd,...nhd->...hn", query, keys) / d**0.5
