"""Weighted QMIX (Rashid et al. 2020, arXiv 2006.10800): OW-QMIX and CW-QMIX.

    y = r + γ Q̂*(s',τ',ū';θ⁻),   ū_i = argmax_a Q_i(τ_i,a)
    L = (Q̂*(s,τ,u) - y)² + w(s,u) (Q_tot(τ,u) - y)²,   no gradient through y or w

Q_tot is QMIX's monotonic value; its agents alone act. Q̂* is a joint value without that bound: agents of its own (the
central agents) and a CentralMixer.
Axes: N agents, A actions; M transitions, R steps of the online network (`learners/transitions.py`).
"""

from abc import abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from learners.qtran_loss import mean_square
from learners.transitions import Batch, Transitions, chosen, greedy_actions, unroll
from learners.value_learner import ValueLearner
from modules.agents import agent_class
from modules.mixers import mixer_class
from modules.mixers.central import CentralMixer
from utils.args import ConfigError, key


def optimistic_weight(q_tot: Tensor, y: Tensor, alpha: float) -> Tensor:
    """OW: w = 1 where Q_tot(τ,u) < y, else α. All [M, 1]."""
    return torch.where(q_tot < y, 1.0, alpha)


def central_weight(u: Tensor, u_greedy: Tensor, y: Tensor, q_star_greedy: Tensor, alpha: float) -> Tensor:
    """CW: w = 1 where u = ū or y > Q̂*(s,τ,ū), else α. u, u_greedy: int64 [M, N]; the others [M, 1]."""
    is_greedy = (u == u_greedy).all(dim=-1, keepdim=True)
    return torch.where(is_greedy | (y > q_star_greedy), 1.0, alpha)


class CentralLearner(ValueLearner):
    """Learns Q̂* beside a value that acts; a subclass says what the second loss is."""

    @dataclass(frozen=True)
    class Config(CentralMixer.Config, ValueLearner.Config):
        pass

    def make_mixer(self, args: SimpleNamespace) -> nn.Module:
        if not self.config.common_reward:
            raise ConfigError(f"common_reward=False: {args.name} needs one team reward; only iql learns without one")
        if args.n_agents == 1:
            raise ConfigError(f"{args.name}: the game has one agent, so there is nothing to factorise; use iql")
        mixer = None if args.mixer is None else mixer_class(args.mixer)
        if mixer is None or getattr(mixer, "reads", ("state",)) not in ((), ("state",)):
            raise ConfigError(
                f"mixer = {args.mixer}: {args.name} wants a monotonic one that reads the state or nothing; "
                "give mixer=qmix"
            )
        return mixer(args)

    @classmethod
    def make_networks(cls, args: SimpleNamespace) -> dict[str, nn.Module]:
        return {"central_agent": agent_class(args.agent)(args), "central_mixer": CentralMixer(args)}

    @abstractmethod
    def joint_loss(self, batch: Batch, tr: Transitions, q: Tensor, u_greedy: Tensor, y: Tensor) -> tuple[Tensor, dict]:
        """(the second loss, metrics). q [M, N, A], u_greedy = ū [M, N], y [M, 1], all at t."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tr = self.transitions(batch)
        q, _ = unroll(self.mac, batch, tr.steps.online)  # [R, N, A]
        u_greedy = greedy_actions(q.detach(), tr.avail)  # ū [R, N]
        y = self.targets(batch, tr, lambda: self._next_q_star(batch, tr, u_greedy))  # [M, 1]
        now = slice(len(tr.actions))
        q_star = self.central_value("central", batch, tr.steps.now, tr.actions)  # Q̂*(s,τ,u) [M, 1]
        l_central = mean_square(q_star - y, tr.mask)
        l_joint, metrics = self.joint_loss(batch, tr, q[now], u_greedy[now], y)
        metrics |= {"central_loss": l_central, "q_star_mean": q_star, "target_mean": y}
        return l_central + l_joint, metrics

    def central_value(self, name: str, batch: Batch, index: Tensor, actions: Tensor, target: bool = False) -> Tensor:
        """The joint value [M, 1] of the agents and the mixer `name` at steps index [M] and joint actions [M, N]."""
        networks, mac = (self.target_networks, self.target_mac) if target else (self.networks, self.mac)
        q, _ = unroll(mac, batch, index, agent=networks[f"{name}_agent"])  # [M, N, A]
        return networks[f"{name}_mixer"](chosen(q, actions), self.state(batch, index))

    def _next_q_star(self, batch: Batch, tr: Transitions, u_greedy: Tensor) -> Tensor:
        after = tr.steps.now + 1
        if self.config.double_q:  # the authors' code has no other way
            u_greedy = u_greedy[tr.steps.after]  # ū' [M, N]
        else:
            u_greedy = greedy_actions(unroll(self.target_mac, batch, after).q, self.avail(batch, after))
        return self.central_value("central", batch, after, u_greedy, target=True)

    def joint_value(self, batch: Batch, index: Tensor, q: Tensor, actions: Tensor) -> Tensor:
        """What the second loss trains: Q_tot."""
        return self._mix(self.mixer, chosen(q, actions), *self._seen(batch, index))


class WQMixLearner(CentralLearner):
    @dataclass(frozen=True)
    class Config(CentralLearner.Config):
        weighting: str = key("w(s,u): ow, 1 where Q_tot < y; cw, 1 where u = ū or y > Q̂*(s,τ,ū)", choices=("ow", "cw"))
        alpha: float = key("α, the weight elsewhere", low=0, high=1)
        cw_reference: str = key(
            "whose Q̂*(s,τ,ū) y is compared with: online, or target (the authors' code)", choices=("online", "target")
        )

    not_keys = {"w": "its name here is alpha"}

    def joint_loss(
        self, batch: Batch, tr: Transitions, q: Tensor, u_greedy: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        c = self.config
        q_tot = self._mix(self.mixer, chosen(q, tr.actions), *self._seen(batch, tr.steps.now))  # [M, 1]
        with torch.no_grad():
            if c.weighting == "ow":
                w = optimistic_weight(q_tot, y, c.alpha)
            else:
                of_target = c.cw_reference == "target"
                q_star = self.central_value("central", batch, tr.steps.now, u_greedy, of_target)  # Q̂*(s,τ,ū)
                w = central_weight(tr.actions, u_greedy, y, q_star, c.alpha)
        error = q_tot - y
        loss = mean_square(w.sqrt() * error, tr.mask)
        metrics = {"td_loss": loss, "td_error_abs": error.abs(), "q_taken_mean": q_tot, "weight_mean": w}
        return loss, metrics
