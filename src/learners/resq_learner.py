"""ResQ (Shen et al. 2022, NeurIPS): any joint value that satisfies IGM, as a monotonic value and a residual.

    Q_jt(τ,u) = Q_tot(τ,u) + w_r(τ,u) Q_r(s,τ,u),   Q_r ≤ 0,   w_r = 0 where u = ū, else 1
    y = r + γ Q̂*(s',τ',ū';θ⁻)                       (the central Q̂* of Weighted QMIX)
    L = (Q̂*(s,τ,u) - y)² + (Q_jt(τ,u) - y)²,        no gradient through y or w_r

Q_tot is monotonic and alone acts: Q_jt(ū) = Q_tot(ū) ≥ Q_tot(u) ≥ Q_jt(u). Q_r has agents and a mixer of its own.
Axes: N agents, A actions; M transitions (`learners/transitions.py`).
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from learners.qtran_loss import mean_square
from learners.transitions import Batch, Transitions, chosen, greedy_actions
from learners.wqmix_learner import CentralLearner
from modules.agents import agent_class
from modules.mixers.central import CentralMixer
from utils.args import key


class ResQLearner(CentralLearner):
    @dataclass(frozen=True)
    class Config(CentralLearner.Config):
        residual: str = key(
            "Q_r: negative, -|f|, as the paper asks; raw, f itself, which nothing keeps below 0 (the authors' code)",
            choices=("negative", "raw"),
        )

    @classmethod
    def make_networks(cls, args: SimpleNamespace) -> dict[str, nn.Module]:
        residual = {"residual_agent": agent_class(args.agent)(args), "residual_mixer": CentralMixer(args)}
        return super().make_networks(args) | residual

    def joint_loss(
        self, batch: Batch, tr: Transitions, q: Tensor, u_greedy: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q_tot = self._mix(self.mixer, chosen(q, tr.actions), *self._seen(batch, tr.steps.now))  # [M, 1]
        q_jt = q_tot + self._weighted_residual(batch, tr.steps.now, tr.actions, u_greedy)
        loss = mean_square(q_jt - y, tr.mask)
        metrics = {
            "td_loss": loss,
            "td_error_abs": (q_jt - y).abs(),
            "q_taken_mean": q_jt,
            "residual_mean": q_jt - q_tot,
        }
        return loss, metrics

    def _weighted_residual(self, batch: Batch, index: Tensor, u: Tensor, u_greedy: Tensor) -> Tensor:
        """w_r(τ,u) Q_r(s,τ,u) [M, 1]."""
        q_r = self.central_value("residual", batch, index, u)
        q_r = -q_r.abs() if self.config.residual == "negative" else q_r
        return torch.where((u == u_greedy).all(dim=-1, keepdim=True), torch.zeros_like(q_r), q_r)

    def joint_value(self, batch: Batch, index: Tensor, q: Tensor, actions: Tensor) -> Tensor:
        """Q_jt."""
        u_greedy = greedy_actions(q, self.avail(batch, index))
        return super().joint_value(batch, index, q, actions) + self._weighted_residual(batch, index, actions, u_greedy)
