"""QTRAN-base and QTRAN-alt (Son et al. 2019, Algorithm 1).

Axes: N agents, A actions, H hidden, S state; M transitions, R steps of the online network (`learners/transitions.py`).
Plugin file: imports torch, the standard library and other plugin files.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from learners.qtran_loss import counterfactual_sum, nopt_loss, nopt_min_loss, opt_loss, td_loss
from learners.transitions import Batch, Transitions, chosen, greedy_actions, unroll
from learners.value_learner import ValueLearner
from modules.mixers.qtran import JointValue, QTranAlt, QTranBase
from utils.args import ConfigError, key

MIXERS = {"qtran_base": QTranBase, "qtran_alt": QTranAlt}


class QTranLearner(ValueLearner):
    """L = L_td + λ_opt L_opt + λ_nopt L_nopt; alt has L_nopt-min for L_nopt, and N heads for one Q_jt."""

    @dataclass(frozen=True)
    class Config(ValueLearner.Config):
        opt_loss: float = key("λ_opt, weight of L_opt", low=0)
        nopt_loss: float = key("λ_nopt, weight of L_nopt (base) or L_nopt-min (alt)", low=0, aliases=("nopt_min_loss",))
        td_target: str = key(
            "what y bootstraps on: Q_jt(τ',ū';θ⁻), or the authors' code's Σ_i max Q_i(τ_i';θ⁻)",
            choices=("joint", "additive"),
        )
        alt_td_target: str = key(
            "alt, joint target: each head's own value at ū', their mean, or the largest counterfactual value "
            "of all heads at ū' (the authors' code)",
            choices=("per_head", "mean", "max_counterfactual"),
        )
        detach_encoder_for_joint: bool = key("keep L_td out of the agents' shared lower layers")
        fix_q_jt: bool = key("hold Q_jt fixed in L_opt, L_nopt and L_nopt-min, as the paper does")

    reads_too = (JointValue.Config,)

    def make_mixer(self, args: SimpleNamespace) -> JointValue:
        if not self.config.common_reward:
            raise ConfigError("common_reward=False: QTRAN factorises one team reward; use common_reward=True or iql")
        if args.mixer not in MIXERS:
            raise ConfigError(f"mixer: {args.mixer!r} is none of QTRAN's: {', '.join(MIXERS)}")
        return MIXERS[args.mixer](args)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tr = self.transitions(batch)
        q, h = unroll(self.mac, batch, tr.steps.online)  # [R, N, A], [R, N, H]
        u_greedy = greedy_actions(q.detach(), tr.avail)  # ū [R, N]
        y = self.targets(batch, tr, lambda: self._next_q_jt(batch, tr, u_greedy))  # [M, 1 or N]
        now = slice(len(tr.actions))
        return self._terms(tr, q[now], h[now], u_greedy[now], y)

    def _terms(
        self, tr: Transitions, q: Tensor, h: Tensor, u_greedy: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The three losses. q [M, N, A], h [M, N, H], u_greedy = ū [M, N]; y [M, 1 or N]."""
        c, u, state, mask = self.config, tr.actions, tr.state, tr.mask
        joint = self.mixer.encode(state, h.detach() if c.detach_encoder_for_joint else h)
        q_jt, q_jt_cf = self.mixer.q_jt(joint, u)
        with torch.set_grad_enabled(not c.fix_q_jt):
            q_jt_opt, q_jt_cf_opt = self.mixer.q_jt(joint, u_greedy)
        v_jt = self.mixer.v_jt(state, h, None if c.detach_encoder_for_joint else joint.v_first)  # [M, 1]

        q_taken = chosen(q, u)  # Q_i(τ_i,u_i) [M, N]
        q_sum = q_taken.sum(dim=-1, keepdim=True)  # Q'_jt(τ,u) [M, 1]
        q_sum_opt = chosen(q, u_greedy).sum(dim=-1, keepdim=True)  # Q'_jt(τ,ū) [M, 1]

        if q_jt_cf is None:  # base
            l_nopt = nopt_loss(q_sum, q_jt, v_jt, mask, c.fix_q_jt)
        else:  # alt: the loss of N heads is the mean of their losses
            q_jt, q_jt_opt = chosen(q_jt_cf, u), chosen(q_jt_cf_opt, u_greedy)  # [M, N]
            q_sum_cf = counterfactual_sum(q, q_taken)  # Q'_jt(τ,·,u_-i) [M, N, A]
            l_nopt = nopt_min_loss(q_sum_cf, q_jt_cf, v_jt, tr.avail[: len(u)], mask, c.fix_q_jt)
        l_td = td_loss(q_jt, y, mask)
        l_opt = opt_loss(q_sum_opt, q_jt_opt, v_jt, mask, c.fix_q_jt)

        metrics = {
            "td_loss": l_td,
            "opt_loss": l_opt,
            "nopt_loss": l_nopt,
            "td_error_abs": (q_jt - y).abs(),
            "td_targets": y,
            "td_chosen_qs": q_jt,
            "v_mean": v_jt,
            "agent_indiv_qs": q_taken,
        }
        return l_td + c.opt_loss * l_opt + c.nopt_loss * l_nopt, metrics

    def _next_q_jt(self, batch: Batch, tr: Transitions, u_greedy: Tensor) -> Tensor:
        """Q_jt(τ',ū';θ⁻) in the form that `td_target` and `alt_td_target` ask for: [M, 1 or N]."""
        after = tr.steps.now + 1
        q, h = unroll(self.target_mac, batch, after)  # [M, N, A], [M, N, H]
        # ū' [M, N]
        u_greedy = u_greedy[tr.steps.after] if self.config.double_q else greedy_actions(q, self.avail(batch, after))
        if self.config.td_target == "additive":
            return chosen(q, u_greedy).sum(dim=-1, keepdim=True)
        q_jt, q_jt_cf = self.target_mixer.q_jt(self.target_mixer.encode(self.state(batch, after), h), u_greedy)
        if q_jt_cf is None or self.config.alt_td_target == "mean":
            return q_jt
        if self.config.alt_td_target == "per_head":
            return chosen(q_jt_cf, u_greedy)
        available = torch.where(self.avail(batch, after), q_jt_cf, torch.full_like(q_jt_cf, -torch.inf))
        return available.amax(dim=(-2, -1)).unsqueeze(-1)

    @torch.no_grad()
    def values(self, batch: Batch) -> dict[str, Tensor]:
        q, h = unroll(self.mac, batch)
        actions = batch["actions"][:, :-1].squeeze(-1).long()
        joint = self.mixer(batch["state"][:, :-1].flatten(start_dim=2), h[:, :-1], actions)
        values = {"q": q[:, :-1], "q_jt": joint.q_jt, "v_jt": joint.v_jt}
        if joint.q_jt_cf is not None:
            values["q_jt_heads"] = chosen(joint.q_jt_cf, actions)
        return values
