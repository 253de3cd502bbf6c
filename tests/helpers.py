"""What the tests of learners, modules, controllers and components share: small networks and random episodes.

Axes: B episodes, T transitions (a batch has T+1 observations), N agents, A actions, O observation, S state.
"""

import logging
from types import SimpleNamespace

import numpy as np
import torch

from components.episode_buffer import EpisodeBatch, make_scheme
from controllers import mac_class
from learners import learner_class
from parts import readers
from utils.config import load
from utils.seeding import seed_weights

SIZES = dict(n_agents=3, n_actions=4, obs_shape=5, state_shape=6)


class SilentLogger:
    """Keeps what a learner logs: {name: [(t_env, value)]}."""

    def __init__(self):
        self.stats, self.console_logger = {}, logging.getLogger("qtran")

    def log_stat(self, name, value, t):
        self.stats.setdefault(name, []).append((t, value))


def make_args(alg, **overrides):
    """The EPyMARL-style args of config/algs/`alg`.yaml for games of SIZES: 8 hidden units, with memory.

    overrides: keys of the YAML, and those of SIZES.
    """
    sizes = {k: overrides.pop(k, v) for k, v in SIZES.items()}
    keys = {
        "seed": 0,
        "hidden_dim": 8,
        "use_rnn": True,
        "head_layers": 0,
        "lr_decay_start": None,
        "obs_last_action": True,
        "epsilon_finish": 0.05,
    }
    values = load(alg, "two_step", keys | overrides, readers).values
    return SimpleNamespace(**values, **sizes, episode_limit=5, device="cpu", game_seed=0)


def make_learner(alg, *, seed=0, dtype=torch.float32, **overrides):
    """A learner whose target networks differ from the online ones. `learner.logger.stats`: what it logged."""
    args = make_args(alg, **overrides)
    torch.manual_seed(seed)
    mac = mac_class(args.mac)(scheme(args), groups(args), args)
    learner = learner_class(args.learner)(mac, scheme(args), SilentLogger(), args)
    for module in modules(learner) + modules(learner, "target_"):
        module.to(dtype)
    with torch.no_grad():
        for p in parameters(learner, "target_").values():
            p.add_(0.2 * torch.randn_like(p))
    return learner


def make_runner(cls, env, log, staleness=0):
    """A runner of QTRAN-base's agents in `env`, the same weights each time."""
    values = {"seed": 5, "batch_size_run": env.n_envs, "max_staleness": staleness, "epsilon_anneal_time": 100}
    args, info = make_args("qtran_base", **values), env.env_info
    args.n_agents, args.n_actions, args.obs_shape = info.n_agents, info.n_actions, info.obs_shape
    args.state_shape, args.game_seed = info.state_shape, 6
    seed_weights(1)
    fields, of = make_scheme(info, True), {"agents": info.n_agents}
    return cls(env, mac_class("basic_mac")(fields, of, args), fields, of, log, args)


def scheme(args, dtype=torch.float32):
    info = SimpleNamespace(**{k: getattr(args, k) for k in SIZES})
    fields = make_scheme(info, args.common_reward)
    return fields | {k: fields[k] | {"dtype": dtype} for k in ("state", "obs", "reward")}


def groups(args):
    return {"agents": args.n_agents}


def modules(learner, prefix=""):
    """The networks: the agent's, the mixer and the others that there are. prefix "target_": their targets."""
    return list(learner.all_networks(prefix).values())


def parameters(learner, prefix=""):
    """{"agent.fc1.weight": parameter}."""
    networks = learner.all_networks(prefix).items()
    return {f"{name}.{k}": p for name, module in networks for k, p in module.named_parameters()}


def weights(learner):
    """A copy of everything learned, online and target."""
    return [p.detach().clone() for prefix in ("", "target_") for p in parameters(learner, prefix).values()]


def same(a, b):
    """Equal bit by bit."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def random_batch(rng, args, B=4, T=5, dtype=torch.float32):
    """Random episodes of different lengths, the longest first. The first two are as long as can be; even ones end by
    themselves, odd ones at a time limit. Some actions are unavailable, each agent has at least one.
    What lies behind an end is padding: zero, not filled."""
    N, A = args.n_agents, args.n_actions
    lengths = [T, T, *sorted(rng.integers(1, max(T, 2), size=max(B - 2, 0)), reverse=True)][:B]
    batch = EpisodeBatch(scheme(args, dtype), groups(args), B, T + 1)
    for b, length in enumerate(lengths):
        seen, done = slice(0, length + 1), slice(0, length)
        avail = rng.random((length + 1, N, A)) < 0.6
        avail[np.arange(length + 1)[:, None], np.arange(N), rng.integers(A, size=(length + 1, N))] = True
        observed = {
            "obs": rng.normal(size=(length + 1, N, args.obs_shape)),
            "state": rng.normal(size=(length + 1, args.state_shape)),
            "avail_actions": avail,
        }
        taken = {
            "actions": (rng.random(avail.shape) * avail).argmax(axis=-1)[:-1, :, None],
            "reward": 2 * rng.normal(size=(length, 1 if args.common_reward else N)) + 1,
        }
        batch.update(observed, bs=b, ts=seen)
        batch.update(taken, bs=b, ts=done)
        batch.update({"truncated" if b % 2 else "terminated": np.ones(1)}, bs=b, ts=length - 1)
    return batch


def garbage_in_padding(batch, rng):
    """A copy of `batch` with large values in everything that a learner must not read."""
    copy = EpisodeBatch(batch.scheme, batch.groups, batch.batch_size, batch.max_seq_length)
    copy.data = {k: v.clone() for k, v in batch.data.items()}
    n_actions = batch["avail_actions"].shape[-1]
    for b, length in enumerate(lengths_of(batch)):
        for k, v in copy.data.items():
            rest = v[b, length + 1 :] if k in ("obs", "state", "avail_actions") else v[b, length:]
            noise = torch.as_tensor(1e3 * rng.normal(size=rest.shape))
            if k != "filled":
                rest.copy_(noise.abs() % n_actions if k == "actions" else noise > 0 if v.dtype == torch.bool else noise)
    return copy


def lengths_of(batch):
    """Transitions of each episode: observations stored, less the last."""
    return [int(row.sum()) - 1 for row in batch["filled"]]


def real_transitions(batch):
    """[(b, t)] of the transitions that were played."""
    return [(b, t) for b, length in enumerate(lengths_of(batch)) for t in range(length)]


def stepped(mac, batch):
    """q [B, T+1, N, A] and h [B, T+1, N, H] of a MAC's agents, one step of the GRU at a time."""
    hidden, qs, hs = mac.agent.init_hidden(batch.batch_size, mac.n_agents), [], []
    last = torch.full((batch.batch_size, mac.n_agents), mac.n_actions)
    for t in range(batch.max_seq_length):
        q, hidden = mac.agent(batch["obs"][:, t], last, torch.arange(mac.n_agents), hidden)
        qs.append(q)
        hs.append(hidden)
        last = batch["actions"][:, t, :, 0].long()
    return torch.stack(qs, dim=1), torch.stack(hs, dim=1)


def rewards_by_loops(learner, batch):
    """{(b, t): reward [1 or N]}, standardised where the learner is told so."""
    real = real_transitions(batch)
    rewards = np.stack([batch["reward"][b, t].double().numpy() for b, t in real])
    if learner.config.standardise_rewards:
        rewards = (rewards - rewards.mean(axis=0)) / (rewards.std(axis=0) + 1e-8)
    return {step: torch.as_tensor(reward) for step, reward in zip(real, rewards)}


def targets_by_loops(learner, batch, value):
    """{(b, t): y}: y_t = r_t + γ [(1-λ) V_{t+1} + λ y_{t+1}], r_t at an end, V_{t+1} alone where nothing was
    played at t+1. value(b, t): V_t."""
    c, y = learner.config, {}
    rewards = rewards_by_loops(learner, batch)
    for b, t in sorted(rewards, reverse=True):
        end = batch["terminated"][b, t] or (batch["truncated"][b, t] and not c.bootstrap_on_truncation)
        if end:
            y[b, t] = rewards[b, t]
            continue
        following = value(b, t + 1).detach()
        if (b, t + 1) in y:
            following = (1 - c.td_lambda) * following + c.td_lambda * y[b, t + 1]
        y[b, t] = rewards[b, t] + c.gamma * following
    return y
