"""QTRAN-base and QTRAN-alt (Son et al. 2019, Algorithm 1).

Axes: B episodes, T transitions (a batch has T+1 observations), N agents, A actions, H hidden.
Plugin file: imports torch, the standard library and other plugin files.
"""

from dataclasses import dataclass

import torch

from learners.qtran_loss import counterfactual_sum, nopt_loss, nopt_min_loss, opt_loss, td_loss
from learners.transitions import chosen, greedy_actions, in_place, real_steps, unroll
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

    def make_mixer(self, args):
        if not self.config.common_reward:
            raise ConfigError("common_reward=False: QTRAN factorises one team reward; use common_reward=True or iql")
        if args.mixer not in MIXERS:
            raise ConfigError(f"mixer: {args.mixer!r} is none of QTRAN's: {', '.join(MIXERS)}")
        return MIXERS[args.mixer](args)

    def loss(self, batch):
        tr = self.transitions(batch)
        q, h = unroll(self.mac, self.online(batch))  # [B, T or T+1, N, A], [B, T or T+1, N, H]
        u_greedy = greedy_actions(q.detach(), tr.avail[:, : q.shape[1]])  # ū [B, T or T+1, N]
        y = self.targets(tr, lambda: self._next_q_jt(batch, tr, u_greedy))  # [B, T, 1 or N]
        now = slice(tr.actions.shape[1])  # t = 0 … T-1
        steps = (tr.mask, tr.state[:, now], tr.avail[:, now], tr.actions, q[:, now], h[:, now], u_greedy[:, now], y)
        return self._terms(*real_steps(tr.mask, *steps))

    def _terms(self, mask, state, avail, u, q, h, u_greedy, y):
        """The three losses. mask [B, T, 1], state [B, T, S], avail and q [B, T, N, A], h [B, T, N, H], u and
        u_greedy = ū [B, T, N]; y [B, T, 1 or N]. Where there is padding, B is 1 and T counts the real steps."""
        c = self.config
        joint = self.mixer.encode(state, h.detach() if c.detach_encoder_for_joint else h)
        q_jt, q_jt_cf = self.mixer.q_jt(joint, u)
        with torch.set_grad_enabled(not c.fix_q_jt):
            q_jt_opt, q_jt_cf_opt = self.mixer.q_jt(joint, u_greedy)
        v_jt = self.mixer.v_jt(state, h, None if c.detach_encoder_for_joint else joint.h_v)  # [B, T, 1]

        q_taken = chosen(q, u)  # Q_i(τ_i,u_i) [B, T, N]
        q_sum = q_taken.sum(dim=-1, keepdim=True)  # Q'_jt(τ,u) [B, T, 1]
        q_sum_opt = chosen(q, u_greedy).sum(dim=-1, keepdim=True)  # Q'_jt(τ,ū) [B, T, 1]

        if q_jt_cf is None:  # base
            l_nopt = nopt_loss(q_sum, q_jt, v_jt, mask, c.fix_q_jt)
        else:  # alt: the loss of N heads is the mean of their losses
            q_jt, q_jt_opt = chosen(q_jt_cf, u), chosen(q_jt_cf_opt, u_greedy)  # [B, T, N]
            q_sum_cf = counterfactual_sum(q, q_taken)  # Q'_jt(τ,·,u_-i) [B, T, N, A]
            l_nopt = nopt_min_loss(q_sum_cf, q_jt_cf, v_jt, avail, mask, c.fix_q_jt)
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

    def _next_q_jt(self, batch, tr, u_greedy):
        """Q_jt(τ',ū';θ⁻) in the form that `td_target` and `alt_td_target` ask for: [B, T, 1 or N]."""
        q, h = self.rollout_after(batch)
        u_greedy = u_greedy[:, 1:] if self.config.double_q else greedy_actions(q, tr.avail[:, 1:])  # ū' [B, T, N]
        if self.config.td_target == "additive":
            return chosen(q, u_greedy).sum(dim=-1, keepdim=True)
        steps = real_steps(tr.mask, tr.state[:, 1:], tr.avail[:, 1:], h, u_greedy)
        return in_place(tr.mask, self._target_q_jt(*steps))

    def _target_q_jt(self, state, avail, h, u_greedy):
        q_jt, q_jt_cf = self.target_mixer.q_jt(self.target_mixer.encode(state, h), u_greedy)
        if q_jt_cf is None or self.config.alt_td_target == "mean":
            return q_jt
        if self.config.alt_td_target == "per_head":
            return chosen(q_jt_cf, u_greedy)
        available = torch.where(avail, q_jt_cf, torch.full_like(q_jt_cf, -torch.inf))
        return available.amax(dim=(-2, -1)).unsqueeze(-1)

    @torch.no_grad()
    def values(self, batch):
        q, h = unroll(self.mac, batch)
        actions = batch["actions"][:, :-1].squeeze(-1).long()
        joint = self.mixer(batch["state"][:, :-1].flatten(start_dim=2), h[:, :-1], actions)
        values = {"q": q[:, :-1], "q_jt": joint.q_jt, "v_jt": joint.v_jt}
        if joint.q_jt_cf is not None:
            values["q_jt_heads"] = chosen(joint.q_jt_cf, actions)
        return values
