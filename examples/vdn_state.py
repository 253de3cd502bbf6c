"""An algorithm of one's own: VDN with a value of the state, Q_tot(τ,u,s) = Σ_i Q_i(τ_i,u_i) + V(s).

python src/main.py --config=examples/vdn_state.yaml --env-config=two_step
"""

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor, nn

from learners.qtran_loss import mean_square
from learners.transitions import Batch, Transitions, chosen, greedy_actions, unroll
from learners.value_learner import ValueLearner
from utils.args import key


class VDNState(ValueLearner):
    @dataclass(frozen=True)
    class Config(ValueLearner.Config):
        v_dim: int = key("width of V's hidden layer", unit="units", low=1)  # examples/vdn_state.yaml has its value

    @classmethod
    def make_networks(cls, args: SimpleNamespace) -> dict[str, nn.Module]:
        v = nn.Sequential(nn.Linear(args.state_shape, args.v_dim), nn.ReLU(), nn.Linear(args.v_dim, 1))
        return {"v": v}  # trained, copied to target_networks, saved as v.th and resumed

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tr = self.transitions(batch)  # M transitions without padding
        q, _ = unroll(self.mac, batch, tr.steps.online)  # [R, N, A]; the first M rows are those of the transitions
        y = self.targets(batch, tr, lambda: self.next_value(batch, tr))  # [M, 1]
        q_tot = chosen(q[: len(tr.actions)], tr.actions).sum(dim=-1, keepdim=True) + self.networks["v"](tr.state)
        loss = mean_square(q_tot - y, tr.mask)
        return loss, {"td_loss": loss, "q_taken_mean": q_tot, "target_mean": y}

    def next_value(self, batch: Batch, tr: Transitions) -> Tensor:
        """Q_tot(τ',ū',s';θ⁻), [M, 1]."""
        after = tr.steps.now + 1
        q, _ = unroll(self.target_mac, batch, after)  # [M, N, A]
        greedy = greedy_actions(q, self.avail(batch, after))
        return chosen(q, greedy).sum(dim=-1, keepdim=True) + self.target_networks["v"](self.state(batch, after))
