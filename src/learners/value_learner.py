"""What every value-based learner does: unroll, targets, one gradient step, logging, saving.

An algorithm is a subclass with one method, `loss(batch) -> (loss, metrics)`; where it has more networks than the agents
and a mixer, `make_networks` makes them.

Axes: B episodes, T transitions (a batch has T+1 observations), N agents, A actions, H hidden, S state; M transitions
that were played, one after the other.
Plugin file: imports torch, the standard library and other plugin files; the batch and the controller
(MAC) may be this project's, EPyMARL's or PyMARL's.
"""

import copy
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.running_stats import RunningStats
from learners.transitions import MAC, Batch, Transitions, at, lambda_target, learned_steps, transition_mask, unroll
from utils.args import ConfigError, NotFinite, TrainingError, key, read
from utils.checkpoint import has_checksums, load_optimiser, load_weights, put_moments, save_weights, write_checksums

FILES = {"agent", "mixer", "opt", "reward_stats", "meta", "checksums"}  # of a checkpoint


class Log(Protocol):
    def log_stat(self, key: str, value: Any, t: int, /) -> object: ...


class ValueLearner:
    """Skeleton. mac: the controller; scheme: of the batch; logger: has `log_stat(key, value, t)`."""

    @dataclass(frozen=True)
    class Config:
        gamma: float = key("discount γ", low=0, high=1)
        td_lambda: float = key("λ of the TD(λ) target; 0 is the one-step target", low=0, high=1)
        double_q: bool = key("the online network picks the greedy action that the target network values")
        optimizer: str = key("gradient method", choices=("adam", "rmsprop"))
        lr: float = key("step size of the optimiser", above=0)
        lr_decay_start: int | None = key(
            "from here on lr falls linearly, to 0 at t_max; null, or not below t_max: it is constant",
            unit="environment steps", low=0,
        )  # fmt: skip
        t_max: int = key("length of training", unit="environment steps", low=1)
        optim_alpha: float = key("smoothing constant of RMSprop", low=0, high=1)
        optim_eps: float = key("ε of RMSprop, added to the root of the squared gradients", above=0)
        grad_norm_clip: float = key("largest L2 norm of the whole gradient", above=0)
        target_update_interval_or_tau: float = key(
            "above 1: copy to the target network every so many `target_update_unit`s; "
            "at most 1: θ⁻ ← (1-τ) θ⁻ + τ θ after each update, with this τ",
            above=0,
            aliases=("target_update_interval",),
        )
        target_update_unit: str = key("what the interval of hard target copies counts", choices=("updates", "episodes"))
        standardise_rewards: bool = key("divide rewards by their running standard deviation, less their mean")
        common_reward: bool = key("one reward for the team; False: one for each agent (IQL only)")
        bootstrap_on_truncation: bool = key("a time limit is not an end: bootstrap past it")
        learner_log_interval: int = key("time between two records of the losses", unit="environment steps", low=1)

    reads_too = ()  # the Configs of what `make_mixer` makes: a host's missing keys are in one message
    config: Any  # of the subclass's own Config
    mixer: Any  # of its own kind, or None
    networks: dict[str, Any]

    def __init__(self, mac: MAC, scheme: Mapping[str, Any], logger: Log, args: SimpleNamespace) -> None:
        added = set(vars(self))  # by a subclass
        self.config = read(type(self).Config, args, also=self.reads_too)
        self.args, self.mac, self.logger = args, mac, logger
        before = set(vars(self))
        self.mixer = self.make_mixer(args)
        added |= set(vars(self)) - before - {"mixer"}
        self.networks = self.make_networks(args)
        if taken := FILES.intersection(self.networks):
            raise ConfigError(f"{type(self).__name__}: make_networks: a network cannot be called {', '.join(taken)}")
        self.target_mac = copy.deepcopy(mac)
        self.target_mixer = copy.deepcopy(self.mixer)
        self.target_networks = copy.deepcopy(self.networks)
        self.params = self._parameters("")
        self.target_params = self._parameters("target_")  # in the same order
        self.optimiser = self._make_optimiser()
        n_rewards = 1 if self.config.common_reward else args.n_agents
        self.reward_stats = RunningStats((n_rewards,)) if self.config.standardise_rewards else None
        self.training_steps = 0  # gradient updates so far
        self.last_target_update = 0  # in `target_update_unit`s
        self.log_stats_t = -self.config.learner_log_interval - 1
        self._unread = []  # of each update: (number, t_env, is it finite [], {name: scalar})
        self._of_the_base = set(vars(self)) - added | {"_of_the_base"}

    def make_mixer(self, args: SimpleNamespace) -> nn.Module | None:
        """The module that joins the agents' values, or None."""
        return None

    @classmethod
    def make_networks(cls, args: SimpleNamespace) -> dict[str, nn.Module]:
        """What else learns, {name: network}: `self.networks`, with target copies in `self.target_networks`. They are
        trained, saved as NAME.th, loaded and resumed with the others."""
        return {}

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(loss, metrics) of a batch: a scalar, and {name: scalar, or values [M, K] of the transitions, whose mean is
        logged}."""

    def joint_value(
        self, batch: Batch, index: torch.Tensor, q: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor | None:
        """The joint value [M, 1] of `actions` [M, N] at steps `index` [M], where the agents' values are q [M, N, A];
        None where there is none. For tables."""
        return None

    def _seen(self, batch: Batch, index: Tensor) -> list[Tensor]:
        """What the mixer reads besides the agents' values at some steps: nothing, or state, or state and obs."""
        names = () if self.mixer is None else getattr(self.mixer, "reads", ("state",))  # EPyMARL's read the state
        return [self.state(batch, index) if name == "state" else at(batch[name], index) for name in names]

    def _mix(self, mixer: nn.Module | None, q_agents: Tensor, *seen: Tensor) -> Tensor:
        """[M, 1], or without a mixer [M, N]."""
        if mixer is None:
            return q_agents
        q_tot = mixer(q_agents, *seen)
        if q_tot.shape != (len(q_agents), 1):  # another shape would be broadcast over the targets silently
            raise TrainingError(
                f"the mixer {type(mixer).__name__} gives values of the shape {list(q_tot.shape)} for agents' values of "
                f"{list(q_agents.shape)}; it must be [{len(q_agents)}, 1]"
            )
        return q_tot

    @torch.no_grad()
    def values(self, batch: Batch) -> dict[str, Tensor]:
        """{name: value} of the joint actions in `batch`, for tables of one-step games: "q", Q_i(τ_i,·) [B, T, N, A];
        "q_jt" [B, T, 1], where there is a joint value; a learner that has them adds "v_jt" [B, T, 1] and "q_jt_heads"
        [B, T, N]."""
        index = self.all_transitions(batch)
        q, actions = unroll(self.mac, batch, index).q, at(batch["actions"], index).squeeze(-1).long()
        found = {"q": q, "q_jt": self.joint_value(batch, index, q, actions)}
        n_episodes = len(batch["filled"])
        return {name: x.unflatten(0, (n_episodes, -1)) for name, x in found.items() if x is not None}

    # ------------------------------------------------------------------ one update

    def train(self, batch: Batch, t_env: int, episode_num: int) -> None:
        """One gradient step on a batch of episodes. NotFinite when it is not finite: then nothing was learned."""
        self.update(batch, t_env, episode_num)
        for error in filter(None, self.outcomes()):
            raise error

    def update(self, batch: Batch, t_env: int, episode_num: int) -> None:
        """As `train`, but `outcomes` reports updates that are not finite, so that no update waits for a GPU. On a GPU
        such an update is counted, and the target networks move as usual."""
        rewards_before = None
        if self.reward_stats is not None:
            rewards_before = copy.copy(self.reward_stats)
            self.reward_stats.update(batch["reward"][:, :-1], transition_mask(batch))
        loss, metrics = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.params, self.config.grad_norm_clip)
        metrics = {"loss": loss, **metrics, "grad_norm": grad_norm}
        finite = torch.isfinite(loss) & torch.isfinite(grad_norm)
        if self.reward_stats is not None and rewards_before is not None:
            self.reward_stats.keep_where(finite, rewards_before)
        scalars = {name: value.detach() for name, value in metrics.items() if value.dim() == 0}
        self._unread.append((self.training_steps, t_env, finite, scalars))
        if not finite.is_cuda and not finite:
            return
        self._decay_lr(t_env)
        self._step_where(finite)
        self.training_steps += 1
        self._update_targets(episode_num)
        if t_env - self.log_stats_t >= self.config.learner_log_interval and finite:
            self._log(metrics, transition_mask(batch).flatten(), t_env)
            self.log_stats_t = t_env

    def outcomes(self) -> list[NotFinite | None]:
        """Of each update since the last call: None, or what was not finite. Waits for the GPU once."""
        updates, self._unread = self._unread, []
        if not updates:
            return []
        flags = torch.stack([finite for _, _, finite, _ in updates]).tolist()
        return [
            None if finite else _not_finite(number, t_env, scalars)
            for finite, (number, t_env, _, scalars) in zip(flags, updates)
        ]

    def _step_where(self, finite: torch.Tensor) -> None:
        """A step of the optimiser if `finite`, a bool []; else all stays as it is. A GPU is not waited for."""
        if not finite.is_cuda and finite:
            self.optimiser.step()
            return
        kept = [(tensor, tensor.clone()) for tensor in self._stepped()]
        self.optimiser.step()
        with torch.no_grad():
            before = {id(tensor): values for tensor, values in kept}
            for tensor in self._stepped():  # moments that the first step has made were 0
                tensor.copy_(torch.where(finite, tensor, before.get(id(tensor), torch.zeros_like(tensor))))

    def _stepped(self) -> list[torch.Tensor]:
        """All that a step of the optimiser changes."""
        moments = [value for entry in self.optimiser.state.values() for value in entry.values()]
        return [*self.params, *(value for value in moments if isinstance(value, torch.Tensor))]

    def transitions(self, batch: Batch) -> Transitions:
        """The batch as Transitions: rewards standardised, time limits apart from ends."""
        mask = transition_mask(batch)
        steps = learned_steps(mask, self.config.double_q)
        now = steps.now
        reward = at(batch["reward"], now)
        if self.reward_stats is not None:
            reward = self.reward_stats.standardise(reward)
        terminated = at(batch["terminated"], now).bool()
        if not self.config.bootstrap_on_truncation and "truncated" in batch.scheme:
            terminated = terminated | at(batch["truncated"], now).bool()
        return Transitions(
            state=self.state(batch, now),
            avail=self.avail(batch, steps.online),
            actions=at(batch["actions"], now).squeeze(-1).long(),
            reward=reward,
            terminated=terminated,
            mask=mask.flatten(end_dim=1) if mask.is_cuda else torch.ones_like(now, dtype=mask.dtype).unsqueeze(-1),
            steps=steps,
        )

    def all_transitions(self, batch: Batch) -> Tensor:
        """The steps t = 0 … T-1 of all episodes of a batch, padding too: int64 [B·T]."""
        n_episodes, n_steps = batch["filled"].shape[:2]
        steps = torch.arange(n_episodes * n_steps, device=batch["filled"].device)
        return steps.view(n_episodes, n_steps)[:, :-1].flatten()

    def state(self, batch: Batch, index: Tensor) -> Tensor:
        """The state at some steps: [R, S]."""
        return at(batch["state"], index).flatten(start_dim=1)

    def avail(self, batch: Batch, index: Tensor) -> Tensor:
        """What is available at some steps, bool [R, N, A]; where nothing is, everything."""
        avail = at(batch["avail_actions"], index).bool()
        return avail | ~avail.any(dim=-1, keepdim=True)

    def targets(self, batch: Batch, tr: Transitions, next_values: Callable[[], Tensor]) -> Tensor:
        """y [M, K] from next_values(), the values [M, K] at t+1; one-step or TD(λ). No gradient.

        Where every transition is an end, as in one-step games, y = r and nothing else is computed (on a GPU it is: to
        know the processor would have to wait).
        """
        c = self.config
        with torch.no_grad():
            if not tr.mask.is_cuda and bool(tr.terminated.all()):
                return tr.reward
            return lambda_target(
                tr.reward, tr.terminated, next_values(), tr.steps.goes_on, c.gamma, c.td_lambda, batch.max_seq_length
            )

    def _make_optimiser(self) -> torch.optim.Optimizer:
        c = self.config
        if c.optimizer == "adam":
            # One kernel for all parameters: small networks spend their time between kernels.
            return torch.optim.Adam(self.params, lr=c.lr, fused=True)
        return torch.optim.RMSprop(self.params, lr=c.lr, alpha=c.optim_alpha, eps=c.optim_eps)

    def _decay_lr(self, t_env: int) -> None:
        start, end = self.config.lr_decay_start, self.config.t_max
        if start is not None and start < end and t_env > start:
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.lr * max(0.0, (end - t_env) / (end - start))

    def _update_targets(self, episode_num: int) -> None:
        interval = self.config.target_update_interval_or_tau
        if interval <= 1:
            with torch.no_grad():
                for p_target, p in zip(self.target_params, self.params):
                    p_target.lerp_(p, interval)
            return
        now = self.training_steps if self.config.target_update_unit == "updates" else episode_num
        if now - self.last_target_update >= interval:
            self._copy_to_targets()
            self.last_target_update = now

    def _copy_to_targets(self) -> None:
        for target, online in zip(self.all_networks("target_").values(), self.all_networks().values()):
            target.load_state_dict(online.state_dict())

    def all_networks(self, prefix: str = "") -> dict[str, nn.Module]:
        """{name: network} of all that learns; prefix "target_": of the target networks, in the same order."""
        mac, mixer, more = (getattr(self, prefix + name) for name in ("mac", "mixer", "networks"))
        return {"agent": mac.agent} | ({} if mixer is None else {"mixer": mixer}) | more

    def _parameters(self, prefix: str) -> list[nn.Parameter]:
        _, *others = self.all_networks(prefix).values()
        mac = getattr(self, prefix + "mac")  # a host's may have more parameters than its agent
        return [*mac.parameters(), *(parameter for network in others for parameter in network.parameters())]

    def _log(self, metrics: dict[str, Tensor], mask: Tensor, t_env: int) -> None:
        for name, value in metrics.items():
            if value.dim() > 0 and len(value) == len(mask):
                value = value[mask.bool()]
            self.logger.log_stat(name, value.mean().item(), t_env)

    # ------------------------------------------------------------------ device and disk

    def cuda(self) -> None:
        self.mac.cuda()
        self.target_mac.cuda()
        for network in [*self.all_networks().values(), *self.all_networks("target_").values()]:
            network.cuda()
        if self.reward_stats is not None:
            self.reward_stats.to("cuda")

    def save_models(self, path: str | os.PathLike) -> None:
        """Write agent.th, mixer.th (where there is one), NAME.th of each further network and opt.th into the folder
        `path`, reward_stats.th where rewards are standardised, and checksums.json of all that is in it."""
        self.mac.save_models(path)
        for name, network in list(self.all_networks().items())[1:]:
            save_weights(network.state_dict(), f"{path}/{name}.th")
        save_weights(self.optimiser.state_dict(), f"{path}/opt.th")
        if self.reward_stats is not None:
            save_weights(self.reward_stats.state_dict(), f"{path}/reward_stats.th")
        write_checksums(path)

    def load_models(self, path: str | os.PathLike) -> None:
        """Read what `save_models` wrote; the target networks start as copies. The optimiser's settings stay those of
        the configuration, which the user sees."""
        self.load_weights(path)
        load_optimiser(self.optimiser, f"{path}/opt.th")
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr
        if self.reward_stats is not None and os.path.lexists(f"{path}/reward_stats.th"):  # EPyMARL writes none
            load_weights(self.reward_stats, f"{path}/reward_stats.th")
        console = getattr(self.logger, "console_logger", None)
        if console is not None and not has_checksums(path):
            console.info(f"{path} has no checksums.json: its weights are loaded unchecked")

    def load_weights(self, path: str | os.PathLike, names: Collection[str] | None = None) -> None:
        """The weights of the networks `names` (None: of all); the target networks start as copies."""
        for name, network in self.all_networks().items():  # the agent too: a host's controller reads without checks
            if names is None or name in names:
                load_weights(network, f"{path}/{name}.th")
        self._copy_to_targets()

    def not_in_state(self) -> list[str]:
        """Attributes that a subclass has added and that `state_dict` does not hold: networks, optimisers, tensors."""
        if type(self).state_dict is not ValueLearner.state_dict:
            return []
        networks = [*self.all_networks().values(), *self.all_networks("target_").values()]
        held = {id(x) for network in networks for x in (*network.parameters(), *network.buffers())}
        return [
            name
            for name, value in vars(self).items()
            if name not in self._of_the_base and any(id(x) not in held for x in _tensors(value))
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything the next update depends on, but the batch: for an exact resume."""
        return {
            "online": [network.state_dict() for network in self.all_networks().values()],
            "target": [network.state_dict() for network in self.all_networks("target_").values()],
            "optimiser": self.optimiser.state_dict(),
            "reward_stats": None if self.reward_stats is None else self.reward_stats.state_dict(),
            "counters": [self.training_steps, self.last_target_update, self.log_stats_t],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for prefix, name in (("", "online"), ("target_", "target")):
            for network, weights in zip(self.all_networks(prefix).values(), state[name]):
                network.load_state_dict(weights)
        put_moments(self.optimiser, state["optimiser"], "optimiser")
        for group in self.optimiser.param_groups:
            group["lr"] = float(state["optimiser"]["param_groups"][0]["lr"])
        if self.reward_stats is not None:
            self.reward_stats.load_state_dict(state["reward_stats"])
        self.training_steps, self.last_target_update, self.log_stats_t = state["counters"]


def _tensors(value: Any) -> list[Any]:
    """What a value holds that learning may change: tensors, an optimiser."""
    if isinstance(value, (torch.Tensor, torch.optim.Optimizer)):
        return [value]
    if isinstance(value, (list, tuple, dict)):
        return [x for entry in (value.values() if isinstance(value, dict) else value) for x in _tensors(entry)]
    weights = [*value.parameters()] if callable(getattr(value, "parameters", None)) else []
    return weights + ([*value.buffers()] if isinstance(value, nn.Module) else [])


def _not_finite(number: int, t_env: int, scalars: dict[str, torch.Tensor]) -> NotFinite:
    bad = [name for name, value in scalars.items() if not torch.isfinite(value)]
    values = ", ".join(f"{name}={value.item():g}" for name, value in scalars.items())
    return NotFinite(
        f"update {number} at t_env {t_env}: not finite: {', '.join(bad)} ({values}). Nothing was learned from this "
        "update. Look at the rewards and observations, or lower lr",
        f"update_{number}",
    )
