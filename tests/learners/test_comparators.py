"""QPLEX, Weighted QMIX and ResQ: losses by loops, joint actions enumerated, where gradients reach."""

import copy
import itertools

import numpy as np
import pytest
import torch
from helpers import make_learner, parameters, random_batch, real_transitions, stepped, targets_by_loops
from torch import nn

from learners.wqmix_learner import central_weight, optimistic_weight
from modules.mixers.qplex import QPLEXMixer
from parts import readers
from utils.args import ConfigError, TrainingError
from utils.config import load, parse_overrides

ALGORITHMS = ["qplex", "ow_qmix", "cw_qmix", "resq"]
OVERRIDES = [
    {},
    {"double_q": False, "alpha": 0.5, "cw_reference": "target", "advantage_gradient": True, "residual": "raw"},
    {"td_lambda": 0.6, "standardise_rewards": True, "lambda_layers": 1},
    {"bootstrap_on_truncation": False, "agent": "rnn_ns", "weighted_head": False},
]
OWN = {
    "qplex": {"advantage_gradient", "lambda_layers", "weighted_head"},
    "ow_qmix": {"alpha", "cw_reference"},
    "cw_qmix": {"alpha", "cw_reference"},
    "resq": {"residual"},
}


def learner_of(alg, overrides=(), **more):
    every = set().union(*OWN.values())
    kept = {k: v for k, v in dict(overrides).items() if k not in every or k in OWN[alg]}
    return make_learner(alg, **kept, **more)


def rolled(mac, agent, batch):
    mac = copy.copy(mac)
    mac.agent = agent
    return stepped(mac, batch)[0]


class Loops:
    """The values of a learner on a batch, one transition at a time."""

    def __init__(self, learner, batch):
        self.learner, self.batch, self.agents = learner, batch, range(learner.mac.n_agents)
        self.q = {p: stepped(getattr(learner, p + "mac"), batch)[0] for p in ("", "target_")}
        self.more = {
            (p, name.removesuffix("_agent")): rolled(learner.mac, network, batch)
            for p in ("", "target_")
            for name, network in learner.all_networks(p).items()
            if name.endswith("_agent")
        }

    def greedy(self, prefix, b, t):
        out = []
        for i in self.agents:
            available = self.batch["avail_actions"][b, t, i].nonzero().flatten().tolist()
            out.append(max(available, key=lambda a, i=i: self.q[prefix][b, t, i, a].item()))
        return out

    def taken(self, b, t):
        return self.batch["actions"][b, t, :, 0].long().tolist()

    def at(self, q, b, t, u):
        return torch.stack([q[b, t, i, u[i]] for i in self.agents])

    def qplex(self, prefix, b, t, u):
        """Q_tot by the formulas of the paper, agent by agent and head by head."""
        m, s, q = self.learner.all_networks(prefix)["mixer"], self.batch["state"][b, t], self.q[prefix]
        best, total = self.greedy(prefix, b, t), 0.0
        joint = torch.zeros(len(u), m.n_actions)
        joint[range(len(u)), u] = 1
        heads, n = m.config.n_lambda_heads, len(u)
        of_key, of_agent = m.key(s), m.agent(s).view(heads, n)
        of_action = m.action(torch.cat([s, joint.flatten()])).view(heads, n)
        for i in self.agents:
            w, shift = (m.w(s)[i].abs() + 1e-10, m.b(s)[i]) if m.config.weighted_head else (1.0, 0.0)
            v, a = w * q[b, t, i, best[i]] + shift, w * (q[b, t, i, u[i]] - q[b, t, i, best[i]])
            weight = sum(
                (of_key[k].abs() + 1e-10) * of_agent[k, i].sigmoid() * of_action[k, i].sigmoid() for k in range(heads)
            )
            held = a if m.config.advantage_gradient else a.detach()
            total = total + v + a + (weight - 1) * held
        return total.view(1)

    def mix(self, prefix, name, b, t, u):
        """The value of the networks `name` at u, or with "" of the acting agents and their mixer."""
        networks = self.learner.all_networks(prefix)
        q = self.q[prefix] if name == "" else self.more[prefix, name]
        mixer = networks["mixer" if name == "" else f"{name}_mixer"]
        return mixer(self.at(q, b, t, u)[None], self.batch["state"][b, t][None])[0]

    def next_value(self, b, t):
        picks = "" if self.learner.config.double_q else "target_"
        u = self.greedy(picks, b, t)
        if self.learner.args.name.startswith("qplex"):
            return self.qplex("target_", b, t, u)
        return self.mix("target_", "central", b, t, u)

    def loss(self):
        y, c, losses = targets_by_loops(self.learner, self.batch, self.next_value), self.learner.config, []
        for b, t in real_transitions(self.batch):
            u, ideal = self.taken(b, t), self.greedy("", b, t)
            if self.learner.args.name == "qplex":
                losses.append((self.qplex("", b, t, u) - y[b, t]).square())
                continue
            losses_here = (self.mix("", "central", b, t, u) - y[b, t]).square()
            value, weight = self.mix("", "", b, t, u), 1.0
            if self.learner.args.name == "resq" and u != ideal:
                residual = self.mix("", "residual", b, t, u)
                value = value + (-residual.abs() if c.residual == "negative" else residual)
            if self.learner.args.name == "ow_qmix":
                weight = 1.0 if value < y[b, t] else c.alpha
            if self.learner.args.name == "cw_qmix":
                of = "target_" if c.cw_reference == "target" else ""
                weight = 1.0 if u == ideal or y[b, t] > self.mix(of, "central", b, t, ideal) else c.alpha
            losses.append(losses_here + weight * (value - y[b, t]).square())
        return torch.stack(losses).mean()


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
def test_the_loss_and_its_gradient_by_loops(alg, overrides):
    learner = learner_of(alg, overrides)
    batch = random_batch(np.random.default_rng(1), learner.args)
    if learner.reward_stats is not None:
        learner.train(batch, 0, 1)
    loss, _ = learner.loss(batch)
    expected = Loops(learner, batch).loss()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    names = parameters(learner)
    got = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    wanted = torch.autograd.grad(expected, list(names.values()), allow_unused=True)
    for name, a, b in zip(names, got, wanted):
        a, b = (torch.zeros(1) if x is None else x for x in (a, b))
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


def test_the_weights_case_by_case():
    y, q = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    assert optimistic_weight(q, y, 0.25).flatten().tolist() == [1, 0.25, 0.25]
    u, ideal = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 1]]), torch.tensor([[0, 1], [0, 0], [1, 1], [1, 0]])
    y, q_star = torch.tensor([[0.0], [3.0], [2.0], [1.0]]), torch.tensor([[2.0]] * 4)
    assert central_weight(u, ideal, y, q_star, 0.25).flatten().tolist() == [1, 1, 0.25, 0.25]


def joint_actions(learner):
    return list(itertools.product(range(learner.args.n_actions), repeat=learner.args.n_agents))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alg", ["qplex", "resq"])
def test_the_agents_greedy_actions_are_the_joint_values_own(alg, seed):
    """IGM with random weights, joint actions enumerated; and Q_tot(ū) = Σ V_i for QPLEX."""
    learner = learner_of(alg, seed=seed)
    batch = random_batch(np.random.default_rng(seed), learner.args, B=2, T=2)
    batch["avail_actions"][:] = 1
    loops = Loops(learner, batch)
    for b, t in real_transitions(batch):
        values = {}
        for u in joint_actions(learner):
            if alg == "qplex":
                values[u] = loops.qplex("", b, t, list(u)).item()
            else:
                residual = 0 if list(u) == loops.greedy("", b, t) else -loops.mix("", "residual", b, t, u).abs().item()
                values[u] = loops.mix("", "", b, t, u).item() + residual
        assert max(values, key=values.get) == tuple(loops.greedy("", b, t))


def test_qplex_with_weights_of_one_is_vdn():
    learner = make_learner("qplex", weighted_head=False)
    mixer, n = learner.mixer, learner.args.n_agents
    mixer.lambdas = lambda state, actions: torch.ones(*actions.shape)
    q, v = torch.randn(5, n), torch.randn(5, n)
    state, actions = torch.randn(5, learner.args.state_shape), torch.zeros(5, n, dtype=torch.int64)
    assert torch.allclose(mixer(q, v, state, actions), q.sum(dim=-1, keepdim=True), atol=1e-6)


def test_qplex_takes_the_names_of_pymarl2():
    theirs = ["num_kernel=3", "adv_hypernet_embed=5", "adv_hypernet_layers=1"]
    values = load("qplex", "two_step", parse_overrides(theirs), readers).values
    assert [values[key] for key in ("n_lambda_heads", "lambda_embed", "lambda_layers")] == [3, 5, 1]


def test_the_two_forms_of_qplex_have_one_value_and_two_gradients():
    mixer = make_learner("qplex").mixer
    n, s = mixer.n_agents, mixer.w[0].in_features
    v, state = torch.randn(4, n).abs(), torch.randn(4, s)
    q, actions = (v - torch.rand(4, n)).requires_grad_(), torch.randint(mixer.n_actions, (4, n))
    gradients = []
    for form in (True, False):
        object.__setattr__(mixer.config, "advantage_gradient", form)
        value = mixer(q, v, state, actions)
        gradients.append((value.detach(), torch.autograd.grad(value.sum(), q)[0]))
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-5)
    assert not torch.allclose(gradients[0][1], gradients[1][1], atol=1e-3)


def reached(learner, term):
    """Networks that a term's gradient reaches."""
    names = parameters(learner)
    gradients = torch.autograd.grad(term, list(names.values()), allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, g in zip(names, gradients) if g is not None and g.abs().max() > 0}


@pytest.mark.parametrize("alg, second", [("ow_qmix", {"agent", "mixer"}), ("cw_qmix", {"agent", "mixer"})])
def test_the_two_losses_of_weighted_qmix_share_no_network(alg, second):
    learner = learner_of(alg)
    _, metrics = learner.loss(random_batch(np.random.default_rng(0), learner.args))
    assert reached(learner, metrics["central_loss"]) == {"central_agent", "central_mixer"}
    assert reached(learner, metrics["td_loss"]) == second


def test_the_losses_of_resq_reach_their_networks():
    learner = learner_of("resq")
    _, metrics = learner.loss(random_batch(np.random.default_rng(0), learner.args))
    assert reached(learner, metrics["central_loss"]) == {"central_agent", "central_mixer"}
    assert reached(learner, metrics["td_loss"]) == {"agent", "mixer", "residual_agent", "residual_mixer"}


@pytest.mark.parametrize("alg", ["ow_qmix", "cw_qmix", "resq"])
def test_the_central_networks_never_act(alg):
    learner = learner_of(alg)
    mac, rng = learner.mac, np.random.default_rng(0)
    obs = rng.normal(size=(3, learner.args.n_agents, learner.args.obs_shape)).astype(np.float32)
    acts = []
    for _ in range(2):
        mac.init_hidden(3)
        acts.append(mac.step(obs, None))
        with torch.no_grad():
            for network in learner.networks.values():
                for parameter in network.parameters():
                    parameter.add_(1.0)
    assert np.array_equal(*acts)


def test_weighted_qmix_with_alpha_one_has_the_loss_of_qmix_with_another_target():
    learner = learner_of("ow_qmix", {"alpha": 1.0})
    batch = random_batch(np.random.default_rng(0), learner.args)
    _, metrics = learner.loss(batch)
    expected = (metrics["q_taken_mean"] - metrics["target_mean"]).square().mean()
    assert metrics["td_loss"].item() == pytest.approx(expected.item(), rel=1e-6)


PAYOFF = torch.tensor([[8.0, -12, -12], [-12, 0, 0], [-12, 0, 0]])
JOINT = torch.cartesian_prod(torch.arange(3), torch.arange(3))


@pytest.mark.parametrize("weighting", ["ow", "cw"])
def test_with_a_perfect_central_value_the_greedy_action_of_weighted_qmix_is_the_best_one(weighting):
    """A monotonic value, here a weighted sum of tables, fitted to the 3x3 game with α = 0.01."""
    torch.manual_seed(0)
    q, slope = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    best = PAYOFF.flatten()[:, None] / 10
    optimiser = torch.optim.Adam([q, slope], lr=0.05)
    for _ in range(1500):
        chosen = torch.stack([q[i, JOINT[:, i]] for i in range(2)], dim=-1)
        q_tot = (chosen * slope.exp()).sum(dim=-1, keepdim=True)
        ideal = q.argmax(dim=-1).expand(9, 2)
        of_ideal = best[ideal[:, 0] * 3 + ideal[:, 1]]
        w = (
            optimistic_weight(q_tot, best, 0.01)
            if weighting == "ow"
            else central_weight(JOINT, ideal, best, of_ideal, 0.01)
        )
        loss = (w.detach() * (q_tot - best).square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert q.argmax(dim=-1).tolist() == [0, 0]


def test_qplex_can_hold_the_payoff_that_qmix_cannot():
    """Once its greedy action is the best one, it fits all nine payoffs: no monotonic value does."""
    torch.manual_seed(0)
    args = make_learner("qplex", n_agents=2, n_actions=3, state_shape=1).args
    mixer, q = QPLEXMixer(args), torch.tensor([[1.0, 0, 0]] * 2, requires_grad=True)
    y, state = PAYOFF.flatten()[:, None] / 10, torch.ones(9, 1)
    optimiser = torch.optim.Adam([q, *mixer.parameters()], lr=5e-3)
    for _ in range(1500):
        taken = torch.stack([q[i, JOINT[:, i]] for i in range(2)], dim=-1)
        loss = (mixer(taken, q.amax(dim=-1).expand(9, 2), state, JOINT) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 1e-3 and q.argmax(dim=-1).tolist() == [0, 0]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_what_none_of_them_learns_from_is_refused(alg):
    with pytest.raises(ConfigError, match="common_reward=False: .* needs one team reward"):
        make_learner(alg, common_reward=False)
    with pytest.raises(ConfigError, match="the game has one agent"):
        make_learner(alg, n_agents=1)


@pytest.mark.parametrize("alg", ["ow_qmix", "resq"])
def test_a_mixer_that_reads_nothing_and_one_with_values_of_another_shape(alg):
    class Reads(nn.Module):
        reads, keepdim = (), True

        def forward(self, agent_qs):
            return agent_qs.sum(dim=-1, keepdim=self.keepdim)

    learner = make_learner(alg)
    learner.mixer = learner.target_mixer = mixer = Reads()
    batch = random_batch(np.random.default_rng(0), learner.args)
    assert torch.isfinite(learner.loss(batch)[0]) and learner.values(batch)["q_jt"].shape[-1] == 1
    mixer.keepdim = False
    with pytest.raises(TrainingError, match="the mixer Reads gives values of the shape"):
        learner.loss(batch)
    with pytest.raises(TrainingError, match="the mixer Reads gives values of the shape"):
        learner.values(batch)


@pytest.mark.parametrize("mixer", [None, "qatten", "qplex"])
def test_a_mixer_that_is_not_for_them(mixer):
    learner = make_learner("resq")
    args = copy.copy(learner.args)
    args.mixer = mixer
    with pytest.raises(ConfigError, match=f"mixer = {mixer}: resq wants a monotonic one that reads the state or noth"):
        learner.make_mixer(args)


@pytest.mark.parametrize(
    "alg, values, said",
    [
        ("ow_qmix", {"alpha": 1.5}, "alpha = 1.5 must be at least 0 and at most 1"),
        ("cw_qmix", {"w": 0.1}, "unknown key 'w' .*; its name here is alpha"),
        ("qplex", {"n_lambda_heads": 0}, "n_lambda_heads = 0 must be at least 1"),
        ("resq", {"residual": "abs"}, "residual = 'abs' is not one of negative, raw"),
        ("qplex", {"learner": "q_learner"}, "mixer = qplex: it belongs to another learner"),
        ("qtran_alt", {"learner": "q_learner"}, "mixer = qtran_alt: it belongs to another learner|unknown key"),
    ],
)
def test_keys_out_of_range(alg, values, said):
    with pytest.raises(ConfigError, match=said):
        make_learner(alg, **values)
