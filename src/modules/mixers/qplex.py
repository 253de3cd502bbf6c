"""QPLEX (Wang et al. 2021, arXiv 2008.01062): a duplex dueling mixer.

    V_i(τ_i) = max_a Q_i(τ_i,a),   A_i(τ_i,u_i) = Q_i(τ_i,u_i) - V_i(τ_i) ≤ 0
    V_i(τ) = w_i(s) V_i(τ_i) + b_i(s),   A_i(τ,u_i) = w_i(s) A_i(τ_i,u_i),   w_i > 0        (transformation)
    Q_tot(τ,u) = Σ_i V_i(τ) + Σ_i λ_i(s,u) A_i(τ,u_i),   λ_i > 0
    λ_i(s,u) = Σ_k |key_k(s)| σ(agent_{k,i}(s)) σ(action_{k,i}(s,u))

So the greedy joint action of Q_tot is made of the agents' greedy actions (IGM), whatever the weights.
Axes: M transitions, N agents, A actions, S state, K heads.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.args import ConfigError, key, read

SMALLEST = 1e-10  # w_i and λ_i are above 0, as IGM asks


class QPLEXMixer(nn.Module):
    reads = None  # it belongs to a learner of its own

    @dataclass(frozen=True)
    class Config:
        hypernet_embed: int = key("hidden width of w_i(s) and b_i(s)", unit="units", low=1, high=65536)
        n_lambda_heads: int = key("K, heads of λ_i(s,u)", low=1, high=1024, aliases=("num_kernel",))
        lambda_layers: int = key("layers of the networks of λ_i", choices=(1, 2), aliases=("adv_hypernet_layers",))
        lambda_embed: int = key(
            "width of their hidden layer, where they have two", unit="units", low=1, high=65536,
            aliases=("adv_hypernet_embed",),
        )  # fmt: skip
        weighted_head: bool = key("the transformation of each agent's values by w_i(s) and b_i(s)")
        advantage_gradient: bool = key(
            "False (the authors' code): A_i is held fixed in (λ_i - 1) A_i, and Q_tot = Σ_i Q_i(τ,u_i) + "
            "Σ_i (λ_i - 1) A_i. True: λ_i A_i trains the agents; the same value with another gradient"
        )

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.config = c = read(self.Config, args)
        self.n_agents, self.n_actions, s = args.n_agents, args.n_actions, args.state_shape
        if self.n_agents == 1:
            raise ConfigError("qplex: the game has one agent, so there is nothing to factorise; use iql")

        def network(n_in: int, n_out: int) -> nn.Module:
            if c.lambda_layers == 1:
                return nn.Linear(n_in, n_out)
            return nn.Sequential(nn.Linear(n_in, c.lambda_embed), nn.ReLU(), nn.Linear(c.lambda_embed, n_out))

        def hypernet() -> nn.Module:
            return nn.Sequential(nn.Linear(s, c.hypernet_embed), nn.ReLU(), nn.Linear(c.hypernet_embed, self.n_agents))

        self.w, self.b = hypernet(), hypernet()
        # Deviation: the authors' K small networks side by side are one network for all K heads; with two layers they
        # share the hidden one.
        heads = c.n_lambda_heads
        self.key = network(s, heads)
        self.agent = network(s, heads * self.n_agents)
        self.action = network(s + self.n_agents * self.n_actions, heads * self.n_agents)

    def forward(self, q_taken: Tensor, v: Tensor, state: Tensor, actions: Tensor) -> Tensor:
        """Q_tot(τ,u) [M, 1] of Q_i(τ_i,u_i) and V_i(τ_i) [M, N], state [M, S], actions u int64 [M, N]."""
        if self.config.weighted_head:
            w, b = self.w(state).abs() + SMALLEST, self.b(state)  # [M, N]
            q_taken, v = w * q_taken + b, w * v + b
        advantage, weight = q_taken - v, self.lambdas(state, actions)  # A_i(τ,u_i), λ_i(s,u) [M, N]
        if self.config.advantage_gradient:
            return (v + weight * advantage).sum(dim=-1, keepdim=True)
        # Deviation: the authors' code lets no gradient through A_i here; the value is that of the formula.
        return (q_taken + (weight - 1) * advantage.detach()).sum(dim=-1, keepdim=True)

    def lambdas(self, state: Tensor, actions: Tensor) -> Tensor:
        """λ_i(s,u) [M, N]."""
        joint = F.one_hot(actions, self.n_actions).flatten(start_dim=-2).to(state.dtype)
        shape = (self.config.n_lambda_heads, self.n_agents)
        of_state = self.key(state).abs().unsqueeze(-1) + SMALLEST  # [M, K, 1]
        of_agent = self.agent(state).unflatten(-1, shape).sigmoid()  # [M, K, N]
        of_action = self.action(torch.cat([state, joint], dim=-1)).unflatten(-1, shape).sigmoid()
        return (of_state * of_agent * of_action).sum(dim=-2)
