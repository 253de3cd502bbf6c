"""Q-learning on a joint value made from the agents' values: IQL, VDN, QMIX, Qatten.

Axes: B episodes, T transitions, N agents, A actions.
"""

import torch

from learners.qtran_loss import mean_square
from learners.transitions import chosen, greedy_actions, in_place, real_steps, unroll
from learners.value_learner import ValueLearner
from modules.mixers import mixer_class
from utils.args import ConfigError


class QLearner(ValueLearner):
    """L = (Q_tot(τ,u) - y)², y = r + γ Q_tot(τ',ū';θ⁻), Q_tot = mixer(Q_1, …, Q_N).

    Without a mixer (IQL) each agent learns its own Q_i from the same reward, or from its own reward
    where `common_reward` is False.
    """

    def make_mixer(self, args):
        if args.mixer is None:
            return None
        if not self.config.common_reward:
            raise ConfigError(f"common_reward=False: {args.mixer} needs one team reward; only iql learns without one")
        return mixer_class(args.mixer)(args)

    def loss(self, batch):
        tr = self.transitions(batch)
        q, _ = unroll(self.mac, self.online(batch))  # [B, T or T+1, N, A]
        y = self.targets(tr, lambda: self._next_values(batch, tr, q))  # [B, T, 1 or N]
        q_taken = chosen(q[:, : tr.actions.shape[1]], tr.actions)  # [B, T, N]
        # From here on, where there is padding, B is 1 and T counts the real steps.
        mask, y, q_taken, *seen = real_steps(tr.mask, tr.mask, y, q_taken, *self._seen(batch, slice(None, -1)))
        q_tot = self._mix(self.mixer, q_taken, *seen)  # [B, T, 1 or N]
        loss = mean_square(q_tot - y, mask)
        metrics = {"td_loss": loss, "td_error_abs": (q_tot - y).abs(), "q_taken_mean": q_tot, "target_mean": y}
        if hasattr(self.mixer, "regulariser"):
            metrics["attention_loss"] = self.mixer.regulariser(*seen, mask)
            loss = loss + metrics["attention_loss"]
        return loss, metrics

    def _next_values(self, batch, tr, q_online):
        q, _ = self.rollout_after(batch)
        u_greedy = greedy_actions(q_online[:, 1:] if self.config.double_q else q, tr.avail[:, 1:])  # ū' [B, T, N]
        steps = real_steps(tr.mask, chosen(q, u_greedy), *self._seen(batch, slice(1, None)))
        return in_place(tr.mask, self._mix(self.target_mixer, *steps))

    def _seen(self, batch, steps):
        """What the mixer reads besides the agents' values: nothing, or state, or state and obs."""
        names = () if self.mixer is None else self.mixer.reads
        return [
            batch[name][:, steps].flatten(start_dim=2) if name == "state" else batch[name][:, steps] for name in names
        ]

    def _mix(self, mixer, q_agents, *seen):
        return q_agents if mixer is None else mixer(q_agents, *seen)

    @torch.no_grad()
    def values(self, batch):
        q, _ = unroll(self.mac, batch)
        q = q[:, :-1]
        values = {"q": q}
        if self.mixer is not None:
            actions = batch["actions"][:, :-1].squeeze(-1).long()
            values["q_jt"] = self.mixer(chosen(q, actions), *self._seen(batch, slice(None, -1)))
        return values
