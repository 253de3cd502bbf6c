"""QTRAN's joint networks (Son et al. 2019, section 4): Q_jt, and the state value V_jt.

From the hidden state of agent i (the shared lower layers of f_q) come two encodings,

    h_Q,i(τ_i,u_i)      and      h_V,i(τ_i),

and from these

    base   f_r: Σ_i h_Q,i(τ_i,u_i)                      ↦ Q_jt(τ,u)         a scalar
    alt    one head per agent, h_V,i(τ_i) and Σ_{j≠i} h_Q,j(τ_j,u_j) ↦ Q_jt(τ,·,u_-i)   A values
    both   f_v: Σ_i h_V,i(τ_i)                          ↦ V_jt(τ)

Unlike VDN and QMIX, Q_jt is not built from the Q_i: the losses (`learners/qtran_loss.py`) bind them.

Axes: B episodes, T steps, N agents, A actions, H hidden, S state. Everything but the last axes may have
any leading shape. Plugin file: imports torch, the standard library and `utils.args`.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.args import key, read


class JointValues(NamedTuple):
    q_jt: torch.Tensor  # Q_jt(τ,u), [B, T, 1]; for alt the mean over its heads
    v_jt: torch.Tensor  # V_jt(τ), [B, T, 1]
    q_jt_cf: torch.Tensor | None  # Q_jt(τ,·,u_-i), [B, T, N, A]; None for base


class Encoded(NamedTuple):
    """What Q_jt needs and no joint action changes: computed once, used for u and for ū."""

    hidden: torch.Tensor  # the part of h_Q,i's first layer that reads τ_i: [B, T, N, E]
    h_v: torch.Tensor | None  # h_V,i(τ_i): [B, T, N, H]; alt's heads read it
    state: torch.Tensor | None  # [B, T, S]


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

    encode_q: Any  # Linear, ReLU, Linear; torch's own types do not say what a Sequential holds
    encode_v: Any
    f_r: Any
    f_v: Any
    q_jt: Any  # (encoded, actions) -> (Q_jt(τ,u), Q_jt(τ,·,u_-i) or None), of the subclasses

    def __init__(self, args):
        super().__init__()
        self.config = config = read(JointValue.Config, args)
        self.n_agents, self.n_actions = args.n_agents, args.n_actions
        self.state_dim = int(math.prod(args.state_shape)) if hasattr(args.state_shape, "__len__") else args.state_shape
        h, e = config.hidden_dim, config.hidden_dim + self.n_actions
        self.encode_q = _mlp(e, e, e)  # h_Q,i: reads [h_i, one-hot u_i]
        self.encode_v = _mlp(h, h, h) if self._needs_h_v() else None  # h_V,i
        v_in = self.state_dim * ("state" in config.v_input) + h * ("hidden" in config.v_input)
        self.f_v = _mlp(v_in, config.mixing_embed_dim, config.mixing_embed_dim, 1) if v_in else None

    def _needs_h_v(self):
        return "hidden" in self.config.v_input

    def encode(self, state, hidden):
        """All that Q_jt needs besides the joint action. state [B, T, S], hidden [B, T, N, H]."""
        first = self.encode_q[0]
        h = hidden.shape[-1]
        return Encoded(
            hidden=F.linear(hidden, first.weight[:, :h], first.bias),
            h_v=self._h_v_for_heads(hidden),
            state=state if self.config.joint_use_state else None,
        )

    def _h_v_for_heads(self, hidden):
        return None

    def v_jt(self, state, hidden, h_v=None):
        """V_jt(τ) = f_v(Σ_i h_V,i(τ_i)), [B, T, 1]; 0 where `v_input` is none (the authors' code).

        h_v: the h_V,i of the same `hidden` where they are at hand already, [B, T, N, H].
        """
        if self.f_v is None:
            return state.new_zeros(*state.shape[:-1], 1)
        parts = [state] if "state" in self.config.v_input else []
        if "hidden" in self.config.v_input:
            parts.append(self._pool(self.encode_v(hidden) if h_v is None else h_v))  # [B, T, H]
        return self.f_v(torch.cat(parts, dim=-1))

    def forward(self, state, hidden, actions):
        """JointValues of the joint action `actions` [B, T, N]; state [B, T, S], hidden [B, T, N, H]."""
        encoded = self.encode(state, hidden)
        q_jt, q_jt_cf = self.q_jt(encoded, actions)
        return JointValues(q_jt, self.v_jt(state, hidden, encoded.h_v), q_jt_cf)

    def _act(self, hidden, actions):
        """First layer of h_Q,i, after its ReLU: [B, T, N, E]. The one-hot product is a look-up."""
        action_weight = self.encode_q[0].weight[:, -self.n_actions :].t()  # [A, E]
        return F.relu(hidden + F.embedding(actions, action_weight))

    def _second(self, pooled, count):
        """Second layer of h_Q,i, after pooling: Σ_i (W x_i + b) = W Σ_i x_i + `count` b.

        It is linear, so pooling first is the same sum and costs N times less.
        """
        second = self.encode_q[2]
        if self.config.agent_pool == "mean":
            pooled, count = pooled / max(count, 1), min(count, 1)
        return F.linear(pooled, second.weight) + count * second.bias

    def _pool(self, x):
        return x.sum(dim=-2) if self.config.agent_pool == "sum" else x.mean(dim=-2)


class QTranBase(JointValue):
    """Q_jt(τ,u) = f_r(Σ_i h_Q,i(τ_i,u_i)), with the state beside the sum where `joint_use_state`."""

    def __init__(self, args):
        super().__init__(args)
        width = self.config.mixing_embed_dim
        joint_in = self.state_dim * self.config.joint_use_state + self.encode_q[2].out_features
        self.f_r = _mlp(joint_in, width, width, 1)

    def q_jt(self, encoded, actions):
        """Q_jt(τ,u) [B, T, 1], and None in place of counterfactuals. actions: [B, T, N] int64."""
        summed = self._second(self._act(encoded.hidden, actions).sum(dim=-2), self.n_agents)  # [B, T, E]
        parts = [summed] if encoded.state is None else [encoded.state, summed]
        return self.f_r(torch.cat(parts, dim=-1)), None


class QTranAlt(JointValue):
    """Q_jt(τ,·,u_-i) for all agents i in one batched pass: head i reads h_V,i(τ_i) and
    Σ_{j≠i} h_Q,j(τ_j,u_j), never u_i. The heads share their weights, as the agents do."""

    def __init__(self, args):
        super().__init__(args)
        width = self.config.mixing_embed_dim
        head_in = self.state_dim * self.config.joint_use_state + self.config.hidden_dim + self.encode_q[2].out_features
        self.f_r = _mlp(head_in, width, width, self.n_actions)

    def _needs_h_v(self):
        return True

    def _h_v_for_heads(self, hidden):
        return self.encode_v(hidden)

    def q_jt(self, encoded, actions):
        """Mean over heads of Q_jt(τ,u) [B, T, 1], and Q_jt(τ,·,u_-i) [B, T, N, A]."""
        own = self._act(encoded.hidden, actions)  # [B, T, N, E]
        others = self._second(own.sum(dim=-2, keepdim=True) - own, self.n_agents - 1)  # Σ_{j≠i} [B, T, N, E]
        parts = [encoded.h_v, others] if encoded.state is None else [encoded.state.unsqueeze(-2), encoded.h_v, others]
        first, rest = self.f_r[0], self.f_r[1:]
        q_jt_cf = rest(_linear_of_parts(first, parts))  # [B, T, N, A]
        return q_jt_cf.gather(-1, actions.unsqueeze(-1)).mean(dim=-2), q_jt_cf


def _mlp(*widths):
    layers = []
    for n_in, n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear_of_parts(layer, parts):
    """layer(cat(parts, -1)) where parts broadcast: the state is multiplied once, not once for each agent."""
    weights = layer.weight.split([part.shape[-1] for part in parts], dim=1)
    return sum(F.linear(part, weight) for part, weight in zip(parts, weights)) + layer.bias
