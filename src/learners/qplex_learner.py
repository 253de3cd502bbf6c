"""QPLEX (Wang et al. 2021, arXiv 2008.01062): Q-learning on the duplex dueling value of `modules/mixers/qplex.py`.

Axes: N agents, A actions; M transitions, R steps of the online network (`learners/transitions.py`).
"""

from types import SimpleNamespace

from torch import Tensor

from learners.qtran_loss import mean_square
from learners.transitions import Batch, Transitions, chosen, greedy_actions, unroll
from learners.value_learner import ValueLearner
from modules.mixers.qplex import QPLEXMixer
from utils.args import ConfigError


class QPLEXLearner(ValueLearner):
    """L = (Q_tot(τ,u) - y)², y = r + γ Q_tot(τ',ū';θ⁻)."""

    reads_too = (QPLEXMixer.Config,)

    def make_mixer(self, args: SimpleNamespace) -> QPLEXMixer:
        if not self.config.common_reward:
            raise ConfigError("common_reward=False: qplex needs one team reward; only iql learns without one")
        return QPLEXMixer(args)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tr = self.transitions(batch)
        q, _ = unroll(self.mac, batch, tr.steps.online)  # [R, N, A]
        u_greedy = greedy_actions(q.detach(), tr.avail)  # ū [R, N]
        y = self.targets(batch, tr, lambda: self._next_q_tot(batch, tr, u_greedy))  # [M, 1]
        now = slice(len(tr.actions))
        q_tot = self.mixer(chosen(q[now], tr.actions), chosen(q[now], u_greedy[now]), tr.state, tr.actions)  # [M, 1]
        loss = mean_square(q_tot - y, tr.mask)
        metrics = {"td_loss": loss, "td_error_abs": (q_tot - y).abs(), "q_taken_mean": q_tot, "target_mean": y}
        return loss, metrics

    def _next_q_tot(self, batch: Batch, tr: Transitions, u_greedy: Tensor) -> Tensor:
        """Q_tot(τ',ū';θ⁻) [M, 1], where V_i(τ_i') is the target network's own largest value."""
        after = tr.steps.now + 1
        q, _ = unroll(self.target_mac, batch, after)  # [M, N, A]
        best = greedy_actions(q, self.avail(batch, after))
        u_greedy = u_greedy[tr.steps.after] if self.config.double_q else best  # ū' [M, N]
        return self.target_mixer(chosen(q, u_greedy), chosen(q, best), self.state(batch, after), u_greedy)

    def joint_value(self, batch: Batch, index: Tensor, q: Tensor, actions: Tensor) -> Tensor:
        best = greedy_actions(q, self.avail(batch, index))
        return self.mixer(chosen(q, actions), chosen(q, best), self.state(batch, index), actions)
