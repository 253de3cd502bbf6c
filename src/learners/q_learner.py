"""Q-learning on a joint value made from the agents' values: IQL, VDN, QMIX, Qatten.

Axes: N agents, A actions; M transitions, R steps of the online network (`learners/transitions.py`).
"""

from types import SimpleNamespace

from torch import Tensor, nn

from learners.qtran_loss import mean_square
from learners.transitions import Batch, Transitions, chosen, greedy_actions, unroll
from learners.value_learner import ValueLearner
from modules.mixers import mixer_class
from utils.args import ConfigError


class QLearner(ValueLearner):
    """L = (Q_tot(τ,u) - y)², y = r + γ Q_tot(τ',ū';θ⁻), Q_tot = mixer(Q_1, …, Q_N).

    Without a mixer (IQL) each agent learns its own Q_i from the same reward, or from its own reward
    where `common_reward` is False.
    """

    def make_mixer(self, args: SimpleNamespace) -> nn.Module | None:
        if args.mixer is None:
            return None
        if not self.config.common_reward:
            raise ConfigError(f"common_reward=False: {args.mixer} needs one team reward; only iql learns without one")
        mixer = mixer_class(args.mixer)
        if getattr(mixer, "reads", ()) is None:
            raise ConfigError(
                f"mixer = {args.mixer}: it belongs to another learner, {args.mixer} in src/config/algs names it"
            )
        made = mixer(args)
        reads = getattr(made, "reads", ("state",))
        if not isinstance(reads, tuple) or any(name not in ("state", "obs") for name in reads):
            raise ConfigError(
                f"mixer = {args.mixer}: its reads is {reads!r}; it must be a tuple of 'state' and 'obs': ('state',), "
                "('obs',), ('state', 'obs') or ()"
            )
        return made

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tr = self.transitions(batch)
        q, _ = unroll(self.mac, batch, tr.steps.online)  # [R, N, A]
        y = self.targets(batch, tr, lambda: self._next_values(batch, tr, q))  # [M, 1 or N]
        q_taken = chosen(q[: len(tr.actions)], tr.actions)  # [M, N]
        seen = self._seen(batch, tr.steps.now)
        q_tot = self._mix(self.mixer, q_taken, *seen)  # [M, 1 or N]
        loss = mean_square(q_tot - y, tr.mask)
        metrics = {"td_loss": loss, "td_error_abs": (q_tot - y).abs(), "q_taken_mean": q_tot, "target_mean": y}
        if hasattr(self.mixer, "regulariser"):
            metrics["attention_loss"] = self.mixer.regulariser(*seen, tr.mask)
            loss = loss + metrics["attention_loss"]
        return loss, metrics

    def _next_values(self, batch: Batch, tr: Transitions, q_online: Tensor) -> Tensor:
        after = tr.steps.now + 1
        q, _ = unroll(self.target_mac, batch, after)  # [M, N, A]
        if self.config.double_q:
            u_greedy = greedy_actions(q_online, tr.avail)[tr.steps.after]  # ū' [M, N]
        else:
            u_greedy = greedy_actions(q, self.avail(batch, after))
        return self._mix(self.target_mixer, chosen(q, u_greedy), *self._seen(batch, after))

    def joint_value(self, batch: Batch, index: Tensor, q: Tensor, actions: Tensor) -> Tensor | None:
        return None if self.mixer is None else self._mix(self.mixer, chosen(q, actions), *self._seen(batch, index))
