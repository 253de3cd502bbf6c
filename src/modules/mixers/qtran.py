"""QTRAN's joint networks (Son et al. 2019, section 4): Q_jt, and the state value V_jt.

From the hidden state of agent i (the shared lower layers of f_q) come two encodings,

    h_Q,i(τ_i,u_i)      and      h_V,i(τ_i),

and from these

    base   f_r: Σ_i h_Q,i(τ_i,u_i)                      ↦ Q_jt(τ,u)         a scalar
    alt    one head per agent, h_V,i(τ_i) and Σ_{j≠i} h_Q,j(τ_j,u_j) ↦ Q_jt(τ,·,u_-i)   A values
    both   f_v: Σ_i h_V,i(τ_i)                          ↦ V_jt(τ)

Unlike VDN and QMIX, Q_jt is not built from the Q_i: the losses (`learners/qtran_loss.py`) bind them.

Axes: N agents, A actions, H hidden, S state, E = H + A, E8 = E padded to a multiple of 8, W mixing_embed_dim; before
them any others, such as M transitions. Plugin file: imports torch, the standard library and `utils.args`.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.args import key, read


class JointValues(NamedTuple):
    q_jt: torch.Tensor  # Q_jt(τ,u), [..., 1]; for alt the mean over its heads
    v_jt: torch.Tensor  # V_jt(τ), [..., 1]
    q_jt_cf: torch.Tensor | None  # Q_jt(τ,·,u_-i), [..., N, A]; None for base


class Encoded(NamedTuple):
    """What Q_jt needs and no joint action changes: computed once, used for u and for ū."""

    hidden: torch.Tensor  # the part of h_Q,i's first layer that reads τ_i: [..., N, E8]
    v_first: torch.Tensor | None  # h_V,i's first layer after its ReLU, [..., N, H]; alt's heads read h_V,i
    first: torch.Tensor  # the part of f_r's first layer that reads the state and h_V,i: [..., N or 1, W], or its bias


class JointValue(nn.Module):
    """Base class of both variants: encoders, pooling over agents, V_jt."""

    @dataclass(frozen=True)
    class Config:
        hidden_dim: int = key(
            "width of the agents' hidden state", unit="units", low=1, high=65536, aliases=("rnn_hidden_dim",)
        )
        mixing_embed_dim: int = key("width of the layers of Q_jt and V_jt", unit="units", low=1, high=65536)
        joint_use_state: bool = key("Q_jt reads the state too")
        v_input: str = key("what V_jt reads", choices=("hidden", "state", "state_hidden", "none"))
        agent_pool: str = key("how agents' encodings are pooled", choices=("sum", "mean"))

    reads = None  # it belongs to a learner of its own
    heads_read_h_v = False
    encode_q: Any  # Linear, ReLU, Linear; torch's own types do not say what a Sequential holds
    encode_v: Any
    f_r: Any
    f_v: Any
    q_jt: Any  # (encoded, actions) -> (Q_jt(τ,u), Q_jt(τ,·,u_-i) or None), of the subclasses

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.config = config = read(JointValue.Config, args)
        self.n_agents, self.n_actions = args.n_agents, args.n_actions
        self.state_dim = int(math.prod(args.state_shape)) if hasattr(args.state_shape, "__len__") else args.state_shape
        self.hidden_dim = getattr(args, "hidden_shape", config.hidden_dim)  # of the agent, where it is another
        h, e = self.hidden_dim, self.hidden_dim + self.n_actions
        self.encode_q = _mlp(e, e, e)  # h_Q,i: reads [h_i, one-hot u_i]
        needs_h_v = self.heads_read_h_v or "hidden" in config.v_input
        self.encode_v = _mlp(h, h, h) if needs_h_v else None  # h_V,i
        v_in = self.state_dim * ("state" in config.v_input) + h * ("hidden" in config.v_input)
        self.f_v = _mlp(v_in, config.mixing_embed_dim, config.mixing_embed_dim, 1) if v_in else None

    def encode(self, state: Tensor, hidden: Tensor) -> Encoded:
        """All that Q_jt needs besides the joint action. state [..., S], hidden [..., N, H]."""
        w_state, w_h_v, _ = self._weights_of_f_r()
        first, v_first = self.f_r[0].bias, None
        if self.config.joint_use_state:
            first = F.linear(state, w_state, first).unsqueeze(-2)  # multiplied once, not once for each agent
        if self.heads_read_h_v:
            v_first = self.encode_v[:2](hidden)
            first = first + _composed(w_h_v, self.encode_v[2], v_first)
        w_hidden = self.encode_q[0].weight[:, : hidden.shape[-1]]
        return Encoded(F.linear(hidden, _wide(w_hidden.t()).t()), v_first, first)

    def _weights_of_f_r(self) -> tuple[Tensor, ...]:
        """The parts of f_r's first layer that read the state [W, S], h_V,i [W, H] and Σ h_Q [W, E]."""
        weight, e = self.f_r[0].weight, self.encode_q[2].out_features
        s = self.state_dim * self.config.joint_use_state
        return weight.split([s, weight.shape[1] - s - e, e], dim=1)

    def v_jt(self, state: Tensor, hidden: Tensor, v_first: Tensor | None = None) -> Tensor:
        """V_jt(τ) = f_v(Σ_i h_V,i(τ_i)), [..., 1]; 0 where `v_input` is none (the authors' code).

        v_first: as in Encoded, of the same `hidden`, where it is at hand already.
        """
        if self.f_v is None:
            return state.new_zeros(*state.shape[:-1], 1)
        parts = [state] if "state" in self.config.v_input else []
        if "hidden" in self.config.v_input:
            first: Tensor = self.encode_v[:2](hidden) if v_first is None else v_first
            pooled, count = self._pooled(first.sum(dim=-2), self.n_agents)
            parts.append(F.linear(pooled, self.encode_v[2].weight) + count * self.encode_v[2].bias)  # [..., H]
        return self.f_v(torch.cat(parts, dim=-1))

    def forward(self, state: Tensor, hidden: Tensor, actions: Tensor) -> JointValues:
        """JointValues of the joint action `actions` [..., N]; state [..., S], hidden [..., N, H]."""
        encoded = self.encode(state, hidden)
        q_jt, q_jt_cf = self.q_jt(encoded, actions)
        return JointValues(q_jt, self.v_jt(state, hidden, encoded.v_first), q_jt_cf)

    def _act(self, hidden: Tensor, actions: Tensor) -> Tensor:
        """First layer of h_Q,i, after its ReLU: [..., N, E8]. The one-hot product is a look-up."""
        first = self.encode_q[0]
        rows = first.weight[:, -self.n_actions :].t() + first.bias  # [A, E]
        return F.embedding(actions, _wide(rows)).add_(hidden).relu_()

    def _f_r(self, first: Tensor, pooled: Tensor, count: int) -> Tensor:
        """f_r of the `first` that `encode` made and of the sum over `count` agents of `_act`, `pooled` [..., E8]."""
        pooled, count = self._pooled(pooled, count)
        return self.f_r[1:](first + _composed(self._weights_of_f_r()[2], self.encode_q[2], pooled, count))

    def _pooled(self, x: Tensor, count: int) -> tuple[Tensor, int]:
        """The sum x over `count` agents of what a last layer reads, pooled, and how often that layer's bias counts in
        it: Σ_i (W x_i + b) = W Σ_i x_i + `count` b. The layer is linear, so pooling first costs N times less."""
        return (x, count) if self.config.agent_pool == "sum" else (x / max(count, 1), min(count, 1))


class QTranBase(JointValue):
    """Q_jt(τ,u) = f_r(Σ_i h_Q,i(τ_i,u_i)), with the state beside the sum where `joint_use_state`."""

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__(args)
        width = self.config.mixing_embed_dim
        joint_in = self.state_dim * self.config.joint_use_state + self.encode_q[2].out_features
        self.f_r = _mlp(joint_in, width, width, 1)

    def q_jt(self, encoded: Encoded, actions: Tensor) -> tuple[Tensor, None]:
        """Q_jt(τ,u) [..., 1], and None in place of counterfactuals. actions: [..., N] int64."""
        summed = self._act(encoded.hidden, actions).sum(dim=-2, keepdim=True)  # [..., 1, E8]
        return self._f_r(encoded.first, summed, self.n_agents).squeeze(-2), None


class QTranAlt(JointValue):
    """Q_jt(τ,·,u_-i) for all agents i in one batched pass: head i reads h_V,i(τ_i) and
    Σ_{j≠i} h_Q,j(τ_j,u_j), never u_i. The heads share their weights, as the agents do."""

    heads_read_h_v = True

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__(args)
        width = self.config.mixing_embed_dim
        head_in = self.state_dim * self.config.joint_use_state + self.hidden_dim + self.encode_q[2].out_features
        self.f_r = _mlp(head_in, width, width, self.n_actions)

    def q_jt(self, encoded: Encoded, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over heads of Q_jt(τ,u) [..., 1], and Q_jt(τ,·,u_-i) [..., N, A]."""
        own = self._act(encoded.hidden, actions)  # [..., N, E8]
        others = own.sum(dim=-2, keepdim=True) - own  # Σ_{j≠i} [..., N, E8]
        q_jt_cf = self._f_r(encoded.first, others, self.n_agents - 1)  # [..., N, A]
        return q_jt_cf.gather(-1, actions.unsqueeze(-1)).mean(dim=-2), q_jt_cf


def _mlp(*widths: int) -> nn.Sequential:
    layers = []
    for n_in, n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _composed(weight: Tensor, layer: nn.Linear, x: Tensor, count: int = 1) -> Tensor:
    """`weight` (W x + `count` b), where W and b are those of a linear `layer`, as one product. x may be `_wide`."""
    product = weight @ layer.weight
    product = F.pad(product, (0, x.shape[-1] - product.shape[-1])) if x.shape[-1] > product.shape[-1] else product
    return F.linear(x, product) + count * (weight @ layer.bias)


def _wide(x: Tensor, multiple: int = 8) -> Tensor:
    """x [..., E] with zeros up to a multiple of 8: products of such a width take half the time, and end as 0."""
    missing = -x.shape[-1] % multiple
    return F.pad(x, (0, missing)) if missing else x
