"""A mixer of one's own: Q_tot = Σ_i w_i(s) Q_i with weights above 0 that add up to N.

python src/main.py --config=examples/weighted_sum.yaml --env-config=two_step
"""

from types import SimpleNamespace

from torch import Tensor, nn


class WeightedSum(nn.Module):
    reads = ("state",)  # what `forward` gets beside the agents' values: state, obs, both or nothing

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.weights = nn.Linear(args.state_shape, args.n_agents)

    def forward(self, agent_qs: Tensor, state: Tensor) -> Tensor:
        """Q_tot [M, 1] of agent_qs [M, N] and state [M, S]."""
        weights = self.weights(state).softmax(dim=-1) * agent_qs.shape[-1]
        return (weights * agent_qs).sum(dim=-1, keepdim=True)
