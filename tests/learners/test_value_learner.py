"""What every learner does: targets, updates, target networks, logging, saving, resuming."""

import copy
import io

import numpy as np
import pytest
import torch
from helpers import (
    SilentLogger,
    garbage_in_padding,
    lengths_of,
    make_learner,
    modules,
    parameters,
    random_batch,
    real_transitions,
    same,
    scheme,
    stepped,
    weights,
)
from torch import nn

from learners import METHODS, Learner, learner_class
from learners.transitions import unroll
from utils.args import ConfigError, TrainingError

ALGORITHMS = ["iql", "vdn", "qmix", "qatten", "qtran_base", "qtran_alt", "iql_ns", "qtran_alt_ns"]
ALGORITHMS += ["qplex", "ow_qmix", "cw_qmix", "resq", "qplex_ns", "resq_ns"]
every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


def batches(learner, n, seed=0):
    rng = np.random.default_rng(seed)
    return [random_batch(rng, learner.args) for _ in range(n)]


def train(learner, some_batches, start=0, episodes=32):
    for k, batch in enumerate(some_batches, start=start + 1):
        learner.train(batch, t_env=100 * k, episode_num=episodes * k)


# ---------------------------------------------------------------------- targets and losses


@every_algorithm
@pytest.mark.parametrize("bootstrap", [True, False])
def test_only_a_time_limit_bootstraps_on_the_last_observation(alg, bootstrap):
    learner = make_learner(alg, bootstrap_on_truncation=bootstrap)
    for b, kind in enumerate(("terminated", "truncated")):
        batch = random_batch(np.random.default_rng(0), learner.args)
        before = learner.loss(batch)[0].item()
        last = lengths_of(batch)[b]
        for field in ("obs", "state"):
            batch[field][b, last] += 5
        assert (learner.loss(batch)[0].item() != before) == (bootstrap and kind == "truncated")


@every_algorithm
def test_an_observation_without_any_available_action_counts_as_one_with_all(alg):
    """Some games offer none at a time limit, past which learning bootstraps."""
    learner = make_learner(alg)
    batch = random_batch(np.random.default_rng(0), learner.args)
    last = lengths_of(batch)[1]  # of an episode that a time limit ended
    losses = []
    for available in (0, 1):
        batch["avail_actions"][1, last] = available
        losses.append(learner.loss(batch)[0].item())
    assert np.isfinite(losses[0]) and losses[0] == losses[1]


@every_algorithm
def test_padding_changes_neither_loss_nor_gradient_nor_record(alg):
    learner = make_learner(alg, td_lambda=0.6, standardise_rewards=True)
    other = copy.deepcopy(learner)
    clean = batches(learner, 3)
    train(learner, clean)
    train(other, [garbage_in_padding(batch, np.random.default_rng(9)) for batch in clean])
    for a, b in zip(weights(learner), weights(other)):
        torch.testing.assert_close(a, b)
    for name, record in learner.logger.stats.items():
        assert other.logger.stats[name] == [(t, pytest.approx(value, rel=1e-4)) for t, value in record]


# ---------------------------------------------------------------------- one update


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_an_update_is_one_clipped_step_of_the_optimiser(optimizer):
    learner = make_learner("qtran_base", optimizer=optimizer, grad_norm_clip=0.1, lr=0.01, optim_alpha=0.9)
    (batch,) = batches(learner, 1)
    loss = learner.loss(batch)[0]
    grads = torch.autograd.grad(loss, learner.params)
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    assert norm > 0.1
    before = [p.detach().clone() for p in learner.params]
    train(learner, [batch])
    for p, p_before, g in zip(learner.params, before, grads):
        g = g * 0.1 / norm
        if optimizer == "adam":  # the first step: both moments, corrected for their bias, are of g alone
            step = g / (g.abs() + 1e-8)
        else:
            step = g / ((1 - 0.9) ** 0.5 * g.abs() + learner.config.optim_eps)
        torch.testing.assert_close(p, p_before - 0.01 * step, rtol=1e-4, atol=1e-6)


def test_with_decay_the_first_steps_of_adam_are_as_long_as_what_is_left_of_training():
    """The first step of Adam is lr long for each weight that has a gradient."""
    longest = {}
    for t_env in (0, 500, 750, 1000, 1200):
        learner = make_learner("vdn", lr=0.01, lr_decay_start=500, t_max=1000)
        before = [p.detach().clone() for p in learner.params]
        learner.train(*batches(learner, 1), t_env=t_env, episode_num=0)
        longest[t_env] = max((p - p_before).abs().max().item() for p, p_before in zip(learner.params, before))
    assert longest == pytest.approx({0: 0.01, 500: 0.01, 750: 0.005, 1000: 0.0, 1200: 0.0}, rel=1e-3)


@pytest.mark.parametrize("start", [1000, 2000])
def test_a_decay_that_would_begin_at_the_end_of_training_or_later_changes_no_step(start):
    """The last round goes on beyond t_max."""
    learner = make_learner("vdn", lr=0.01, lr_decay_start=start, t_max=1000)
    for t_env in (1100, 2100):
        learner.train(*batches(learner, 1), t_env=t_env, episode_num=0)
        assert learner.optimiser.param_groups[0]["lr"] == 0.01


def test_what_a_subclass_adds_while_it_makes_its_mixer_is_not_in_a_state():
    class Adds(learner_class("q_learner")):
        def __init__(self, mac, scheme, logger, args):
            self.before = torch.zeros(1)
            super().__init__(mac, scheme, logger, args)

        def make_mixer(self, args):
            self.second, self.number = nn.Linear(2, 2), 3
            return super().make_mixer(args)

    plain = make_learner("qmix")
    added = Adds(plain.mac, scheme(plain.args), SilentLogger(), plain.args)
    assert sorted(added.not_in_state()) == ["before", "second"] and plain.not_in_state() == []


def test_a_learner_of_ones_own_is_asked_for_all_that_is_called():
    assert {name for name, value in vars(Learner).items() if callable(value) and name[0] != "_"} == set(METHODS)


@every_algorithm
def test_every_parameter_learns(alg):
    learner = make_learner(alg, target_update_interval_or_tau=1000)
    before = copy.deepcopy(parameters(learner))
    train(learner, batches(learner, 2))
    assert [k for k, p in parameters(learner).items() if torch.equal(p, before[k])] == []


@every_algorithm
def test_equal_seeds_give_equal_weights_and_others_do_not(alg):
    def result(seed):
        learner = make_learner(alg, seed=seed)
        train(learner, batches(learner, 2))
        return weights(learner)

    assert same(result(1), result(1)) and not same(result(1), result(2))


@pytest.mark.parametrize(
    "alg, bad, standardise",
    [(alg, np.nan, False) for alg in ALGORITHMS] + [("vdn", np.inf, False), ("qtran_alt", np.nan, True)],
)
def test_a_reward_that_is_not_finite_stops_training_and_changes_nothing(alg, bad, standardise):
    learner = make_learner(alg, standardise_rewards=standardise)
    good, more = batches(learner, 2)
    train(learner, [good])
    other = copy.deepcopy(learner)
    broken = random_batch(np.random.default_rng(0), learner.args)
    broken["reward"][0, 2] = bad
    with pytest.raises(TrainingError, match="td_loss"):
        train(learner, [broken], start=1)
    assert same(weights(learner), weights(other))
    assert learner.training_steps == 1
    train(learner, [more], start=1)
    train(other, [more], start=1)
    assert same(weights(learner), weights(other))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("made", [0, 2])
def test_a_gpu_masks_what_is_not_finite(optimizer, made, monkeypatch):
    """Without waiting for it. A flag that says it is on a GPU takes the same way on a CPU."""

    class OnGpu:
        is_cuda = True

        def __init__(self, flag):
            self.flag = flag

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function(*(a.flag if isinstance(a, cls) else a for a in args), **(kwargs or {}))

        def __bool__(self):
            raise AssertionError("it waits for the GPU")

    learner = make_learner("qtran_base", optimizer=optimizer)
    train(learner, batches(learner, made))
    for finite in (False, True):
        before = copy.deepcopy(weights(learner))
        moments = copy.deepcopy(learner.optimiser.state_dict()["state"])
        for p in learner.params:
            p.grad = torch.full_like(p, 0.1 if finite else torch.nan)
        learner._step_where(OnGpu(torch.tensor(finite)))
        assert same(weights(learner), before) != finite
        after = learner.optimiser.state_dict()["state"]
        if not finite:
            zeros = {i: {k: torch.zeros_like(v) for k, v in entry.items()} for i, entry in after.items()}
            for i, entry in (moments or zeros).items():
                assert all(torch.equal(after[i][k], v) for k, v in entry.items())


def test_the_record_holds_the_loss_and_keeps_its_interval():
    learner = make_learner("qtran_alt", learner_log_interval=300)
    some = batches(learner, 7)
    loss, metrics = learner.loss(some[0])
    train(learner, some)
    stats = learner.logger.stats
    assert [t for t, _ in stats["loss"]] == [100, 400, 700]
    assert stats["loss"][0][1] == pytest.approx(loss.item())
    assert stats["td_loss"][0][1] == pytest.approx(metrics["td_loss"].item())
    assert metrics["v_mean"].shape == (len(real_transitions(some[0])), 1)  # padding is left out
    assert stats["v_mean"][0][1] == pytest.approx(metrics["v_mean"].mean().item(), rel=1e-5)
    assert stats["grad_norm"][0][1] > 0


# ---------------------------------------------------------------------- target networks


@pytest.mark.parametrize(
    "unit, interval, episodes, copied",
    [("updates", 3, 50, [3, 6]), ("episodes", 10, 4, [3, 6]), ("episodes", 2, 1, [2, 4, 6])],
)
@pytest.mark.parametrize("alg", ["iql", "qmix", "qtran_alt"])
def test_hard_copies_at_each_interval_and_nothing_between(alg, unit, interval, episodes, copied):
    learner = make_learner(alg, target_update_interval_or_tau=interval, target_update_unit=unit)
    held = copy.deepcopy(list(parameters(learner, "target_").values()))
    for step, batch in enumerate(batches(learner, 7), start=1):
        train(learner, [batch], start=step - 1, episodes=episodes)
        now = list(parameters(learner, "target_").values())
        if step in copied:
            assert same(now, list(parameters(learner).values()))
            held = copy.deepcopy(now)
        assert same(now, held)


@pytest.mark.parametrize("alg", ["iql", "qmix", "qtran_alt"])
@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_soft_updates_move_the_targets_by_tau(alg, tau):
    learner = make_learner(alg, target_update_interval_or_tau=tau)
    for step, batch in enumerate(batches(learner, 3)):
        before = copy.deepcopy(parameters(learner, "target_"))
        train(learner, [batch], start=step)
        for k, p in parameters(learner, "target_").items():
            torch.testing.assert_close(p, (1 - tau) * before[k] + tau * parameters(learner)[k])


# ---------------------------------------------------------------------- disk


@every_algorithm
@pytest.mark.parametrize(
    "overrides",
    [
        {"target_update_interval_or_tau": 2, "target_update_unit": "updates", "standardise_rewards": True},
        {"target_update_interval_or_tau": 100, "optimizer": "rmsprop"},
        {"target_update_interval_or_tau": 0.1, "td_lambda": 0.6},
    ],
    ids=["hard", "episodes", "soft"],
)
def test_resuming_equals_never_stopping(alg, overrides):
    learner = make_learner(alg, learner_log_interval=150, **overrides)
    some = batches(learner, 8)
    train(learner, some[:3])
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    train(learner, some[3:], start=3)
    resumed = make_learner(alg, seed=1, learner_log_interval=150, **overrides)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(resumed, some[3:], start=3)
    assert same(weights(resumed), weights(learner))
    assert all(
        resumed.logger.stats[k] == record[-len(resumed.logger.stats[k]) :] for k, record in learner.logger.stats.items()
    )


@every_algorithm
def test_saved_models_go_on_as_if_nothing_had_happened(alg, tmp_path):
    overrides = {"target_update_interval_or_tau": 2, "target_update_unit": "updates"}
    learner, other = make_learner(alg, **overrides), make_learner(alg, seed=1, **overrides)
    some = batches(learner, 3)
    train(learner, some[:2])
    learner.save_models(tmp_path)
    names = {"opt.th", "checksums.json"} | {f"{name}.th" for name in learner.all_networks()}
    assert {path.name for path in tmp_path.iterdir()} == names
    other.load_models(tmp_path)
    assert same(weights(other), weights(learner))
    train(learner, some[2:], start=2)
    train(other, some[2:], start=2)
    online = [list(parameters(one).values()) for one in (learner, other)]
    assert same(*online)


def test_reward_statistics_are_saved_with_the_models(tmp_path):
    learner, other = (make_learner("vdn", seed=s, standardise_rewards=True) for s in (0, 1))
    some = batches(learner, 3)
    train(learner, some[:2])
    learner.save_models(tmp_path)
    other.load_models(tmp_path)
    train(learner, some[2:], start=2)
    train(other, some[2:], start=2)
    assert other.reward_stats.count == learner.reward_stats.count
    assert torch.equal(other.reward_stats.var, learner.reward_stats.var)


def test_the_configured_step_size_wins_over_the_saved_one(tmp_path):
    learner = make_learner("vdn", lr=0.02)
    learner.load_models(saved(tmp_path, "vdn", lr=0.01))
    assert [group["lr"] for group in learner.optimiser.param_groups] == [0.02]


def saved(tmp_path, alg="qmix", **overrides):
    learner = make_learner(alg, **overrides)
    train(learner, batches(learner, 1))
    learner.save_models(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "theirs, ours, message",
    [
        (("iql", {}), ("qmix", {}), "mixer.th"),
        (("vdn", {}), ("qmix", {}), "QMixer"),
        (("qmix", {}), ("qatten", {}), "QattenMixer"),
        (("qtran_base", {}), ("qtran_alt", {}), "QTranAlt"),
        (("qtran_alt", {}), ("qtran_base", {}), "QTranBase"),
        (("qmix", {}), ("qmix_ns", {}), "agent.th"),
        (("qmix", {}), ("qmix", {"hidden_dim": 16}), "(24, 8), needed (48, 16)"),
        (("qmix", {}), ("qmix", {"n_actions": 5}), "fc2"),
        (("qmix", {}), ("qmix", {"use_rnn": False}), "rnn"),
        (("qmix", {}), ("qmix", {"optimizer": "rmsprop"}), "opt.th"),
    ],
)
def test_weights_of_another_algorithm_or_size_are_refused(tmp_path, theirs, ours, message):
    folder = saved(tmp_path, theirs[0], **theirs[1])
    with pytest.raises(ConfigError) as error:
        make_learner(ours[0], **ours[1]).load_models(folder)
    assert message in str(error.value)


@every_algorithm
def test_moments_that_do_not_fit_are_refused(alg, tmp_path):
    learner = make_learner(alg, optimizer="rmsprop")
    train(learner, batches(learner, 2))
    learner.save_models(tmp_path)
    other = make_learner(alg, seed=1, optimizer="rmsprop")
    other.load_models(tmp_path)
    assert same(moments(other), moments(learner)) and len(moments(other)) == 2 * len(other.params)
    (tmp_path / "checksums.json").unlink()
    state = torch.load(tmp_path / "opt.th", weights_only=True)
    last = len(other.params) - 1
    state["state"][last]["square_avg"] = torch.zeros(1, 1, 1)
    torch.save(state, tmp_path / "opt.th")
    with pytest.raises(ConfigError, match=rf"opt.th does not fit RMSprop.*\n  '{last}.square_avg' is \(1, 1, 1\)"):
        other.load_models(tmp_path)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("alg", ["qplex", "qatten"])
def test_a_parameter_without_a_gradient_has_no_moments(alg, optimizer, tmp_path):
    """weighted_head=False leaves layers of the mixer out of the loss; torch keeps nothing for them."""
    learner = make_learner(alg, optimizer=optimizer, weighted_head=False)
    train(learner, batches(learner, 2))
    learner.save_models(tmp_path)
    other = make_learner(alg, seed=1, optimizer=optimizer, weighted_head=False)
    other.load_models(tmp_path)
    assert same(moments(other), moments(learner)) and 0 < len(other.optimiser.state) < len(other.params)
    again = make_learner(alg, seed=2, optimizer=optimizer, weighted_head=False)
    again.load_state_dict(learner.state_dict())
    for each in (learner, again):
        train(each, batches(each, 2))
    assert same(moments(again), moments(learner))


def moments(learner):
    entries = learner.optimiser.state_dict()["state"].values()
    return [value for entry in entries for _, value in sorted(entry.items())]


def test_a_host_s_controller_does_not_read_the_weights(tmp_path):
    """It would without checks, and may run code that the file holds."""
    learner = make_learner("qmix", seed=1)
    learner.mac.load_models = None
    learner.load_models(saved(tmp_path))


@pytest.mark.parametrize("name", ["agent.th", "mixer.th", "opt.th"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "a list"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    path = saved(tmp_path) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "a list":
        torch.save([1, 2], path)
    else:
        noise = np.random.default_rng(0).bytes(len(content))
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": noise}[damage])
    for checksums in (True, False):
        if not checksums:
            (tmp_path / "checksums.json").unlink()
        with pytest.raises(ConfigError, match=name):
            make_learner("qmix").load_models(tmp_path)


# ---------------------------------------------------------------------- controllers of other frameworks


class SharedNetwork(nn.Module):
    """EPyMARL's RNNAgent: forward(inputs [B*N, I], hidden [B*N, H])."""

    def __init__(self, n_in, n_hidden, n_actions):
        super().__init__()
        self.fc1, self.rnn = nn.Linear(n_in, n_hidden), nn.GRUCell(n_hidden, n_hidden)
        self.fc2 = nn.Linear(n_hidden, n_actions)

    def forward(self, inputs, hidden):
        hidden = self.rnn(torch.relu(self.fc1(inputs)), hidden.reshape(-1, self.rnn.hidden_size))
        return self.fc2(hidden), hidden


class SeparateNetworks(nn.Module):
    """EPyMARL's RNNNSAgent: hidden states are [B, N, H]."""

    def __init__(self, n_agents, *sizes):
        super().__init__()
        self.agents = nn.ModuleList(SharedNetwork(*sizes) for _ in range(n_agents))

    def forward(self, inputs, hidden):
        inputs = inputs.view(-1, len(self.agents), inputs.shape[-1])
        qs, hiddens = zip(*(agent(inputs[:, i], hidden[:, i]) for i, agent in enumerate(self.agents)))
        return torch.stack(qs, dim=1).flatten(end_dim=1), torch.stack(hiddens, dim=1)


class SteppingMAC:
    """A controller with no more than EPyMARL's init_hidden, forward(batch, t) and hidden_states."""

    def __init__(self, args, weights):
        self.n, self.a, self.h = args.n_agents, args.n_actions, args.hidden_dim
        sizes = args.obs_shape + self.a + self.n * args.obs_agent_id, self.h, self.a
        self.agent_id = args.obs_agent_id
        self.agent = SharedNetwork(*sizes) if args.agent == "rnn" else SeparateNetworks(self.n, *sizes)
        self.agent.load_state_dict(weights)

    def parameters(self):
        return self.agent.parameters()

    def init_hidden(self, batch_size):
        self.hidden_states = torch.zeros(batch_size, self.n, self.h)

    def forward(self, batch, t):
        one_hot = torch.zeros(batch.batch_size, self.n, self.a)
        if t > 0:
            one_hot = torch.eye(self.a)[batch["actions"][:, t - 1, :, 0].long()]
        parts = [batch["obs"][:, t], one_hot]
        if self.agent_id:
            parts.append(torch.eye(self.n).expand(batch.batch_size, -1, -1))
        q, self.hidden_states = self.agent(torch.cat(parts, dim=-1).flatten(end_dim=1), self.hidden_states)
        return q.view(batch.batch_size, self.n, -1)


@pytest.mark.parametrize("alg", ["qmix", "qtran_base", "qtran_alt", "qmix_ns", "qtran_base_ns", "qtran_alt_ns"])
def test_a_controller_that_only_steps_gives_the_same_updates(alg):
    learner = make_learner(alg, target_update_interval_or_tau=2, target_update_unit="updates")
    args = learner.args
    theirs = learner_class(args.learner)(
        SteppingMAC(args, learner.mac.agent.state_dict()), scheme(args), SilentLogger(), args
    )
    for prefix in ("", "target_"):
        for a, b in zip(modules(learner, prefix), modules(theirs, prefix)):
            b.load_state_dict(a.state_dict())
    some = batches(learner, 3)
    rollout = unroll(theirs.mac, some[0])
    hidden = theirs.mac.hidden_states
    assert hidden.dim() == (3 if alg.endswith("_ns") else 2)
    torch.testing.assert_close(tuple(rollout), stepped(learner.mac, some[0]))
    torch.testing.assert_close(theirs.loss(some[0])[0], learner.loss(some[0])[0])
    train(learner, some)
    train(theirs, some)
    for a, b in zip(weights(learner), weights(theirs)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
