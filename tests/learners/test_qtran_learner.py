"""QTRAN's loss against an oracle that reads the paper's formulas literally: the agents stepped through time,
every joint action enumerated, the joint network asked for one joint action at a time."""

import itertools

import numpy as np
import pytest
import torch
from helpers import (
    garbage_in_padding,
    make_args,
    make_learner,
    parameters,
    random_batch,
    real_transitions,
    scheme,
    stepped,
    targets_by_loops,
)

from learners.qtran_learner import QTranLearner
from learners.transitions import transition_mask
from utils.args import ConfigError

SWITCHES = {  # what differs from the YAML
    "td_target": ["additive"],
    "alt_td_target": ["mean", "max_counterfactual"],
    "double_q": [True],
    "v_input": ["state", "state_hidden", "none"],
    "joint_use_state": [True],
    "agent_pool": ["mean"],
    "detach_encoder_for_joint": [True],
    "fix_q_jt": [False],
    "td_lambda": [0.6],
    "bootstrap_on_truncation": [False],
    "standardise_rewards": [True],
    "opt_loss": [0.3],
    "nopt_loss": [2.0],
    "agent": ["rnn_ns"],
    "use_rnn": [False],
    "obs_last_action": [False],
}


def some_of_the_switches(rng):
    return {k: rng.choice(v).item() for k, v in SWITCHES.items() if rng.random() < 0.5}


def case_name(case):
    return case if isinstance(case, str) else ",".join(f"{k}={v}" for k, v in case.items()) or "as in the YAML"


ALGORITHMS = ["qtran_base", "qtran_alt"]
both = pytest.mark.parametrize("alg", ALGORITHMS)
ONE_SWITCH = [
    (alg, {k: v})
    for alg in ALGORITHMS
    for k, values in SWITCHES.items()
    for v in values
    if (alg, k) != ("qtran_base", "alt_td_target")  # base does not read it
]
SEVERAL = [some_of_the_switches(np.random.default_rng(seed)) for seed in range(8)]


class Oracle:
    """One network, online or target, at the observations of a batch."""

    def __init__(self, mac, mixer, batch, detach=False):
        self.q, self.h = stepped(mac, batch)
        self.h_joint = self.h.detach() if detach else self.h
        self.mixer, self.batch = mixer, batch
        self.agents = range(mac.n_agents)

    def available(self, b, t, i):
        return self.batch["avail_actions"][b, t, i].nonzero().flatten().tolist()

    def q_sum(self, b, t, u):
        """Q'_jt(τ,u)"""
        return sum(self.q[b, t, i, u[i]] for i in self.agents)

    def greedy(self, b, t):
        """ū, the best of all joint actions that are available."""
        q = self.q[b, t].tolist()
        joint = itertools.product(*(self.available(b, t, i) for i in self.agents))
        return list(max(joint, key=lambda u: sum(q[i][u[i]] for i in self.agents)))

    def _ask(self, b, t, u, h):
        return self.mixer(self.batch["state"][b, t][None, None], h[b, t][None, None], torch.tensor(u)[None, None])

    def v_jt(self, b, t):
        return self._ask(b, t, [0 for _ in self.agents], self.h).v_jt[0, 0, 0]

    def heads(self, b, t, u):
        """Q_jt(τ,u) of each head: [1] for base, [N] for alt."""
        joint = self._ask(b, t, u, self.h_joint)
        if joint.q_jt_cf is None:
            return joint.q_jt[0, 0]
        return torch.stack([joint.q_jt_cf[0, 0, i, u[i]] for i in self.agents])

    def defect(self, b, t, u):
        return self.q_sum(b, t, u) - self.heads(b, t, u).mean() + self.v_jt(b, t)

    def counterfactual(self, b, t, u, i, u_i):
        """Q_jt(τ,u_i,u_-i) of head i, asked with u_i in the place of what i did."""
        u = u[:i] + [u_i] + u[i + 1 :]
        return self.heads(b, t, u)[i]


def losses_by_loops(learner, batch):
    """L_td, L_opt, L_nopt (base) or L_nopt-min (alt)."""
    c, alt = learner.config, learner.args.mixer == "qtran_alt"
    online = Oracle(learner.mac, learner.mixer, batch, c.detach_encoder_for_joint)
    target = Oracle(learner.target_mac, learner.target_mixer, batch)

    def next_value(b, t):
        u = (online if c.double_q else target).greedy(b, t)
        if c.td_target == "additive":
            return target.q_sum(b, t, u).reshape(1)
        if alt and c.alt_td_target == "max_counterfactual":
            return torch.stack(
                [target.counterfactual(b, t, u, i, a) for i in target.agents for a in target.available(b, t, i)]
            ).max()
        heads = target.heads(b, t, u)
        return heads.mean() if c.alt_td_target == "mean" else heads

    def hat(q_jt):
        return q_jt.detach() if c.fix_q_jt else q_jt

    y, terms = targets_by_loops(learner, batch, next_value), []
    for b, t in real_transitions(batch):
        u, u_greedy, v = batch["actions"][b, t, :, 0].tolist(), online.greedy(b, t), online.v_jt(b, t)
        td = (online.heads(b, t, u) - y[b, t]).square().mean()
        opt = (online.q_sum(b, t, u_greedy) - hat(online.heads(b, t, u_greedy)) + v).square().mean()
        if alt:
            nopt = 0
            for i in online.agents:
                defects = [
                    online.q_sum(b, t, u[:i] + [u_i] + u[i + 1 :]) - hat(online.counterfactual(b, t, u, i, u_i)) + v
                    for u_i in online.available(b, t, i)
                ]
                nopt = nopt + min(defects) ** 2 / len(online.agents)
        else:
            nopt = torch.clamp(online.q_sum(b, t, u) - hat(online.heads(b, t, u)[0]) + v, max=0) ** 2
        terms.append(torch.stack([td, opt, nopt]))
    return torch.stack(terms).mean(dim=0)


def learner_and_batch(alg, seed=0, B=3, T=3, **overrides):
    learner = make_learner(alg, seed=seed, dtype=torch.float64, **overrides)
    batch = random_batch(np.random.default_rng(seed), learner.args, B, T, dtype=torch.float64)
    with torch.no_grad():  # defects of both signs
        online = Oracle(learner.mac, learner.mixer, batch)
        defects = [online.defect(b, t, batch["actions"][b, t, :, 0].tolist()) for b, t in real_transitions(batch)]
        learner.mixer.f_r[-1].bias += torch.stack(defects).mean()
    if learner.reward_stats is not None:
        learner.reward_stats.update(batch["reward"][:, :-1], transition_mask(batch))
    return learner, batch


def loss_and_terms(learner, batch):
    loss, metrics = learner.loss(batch)
    return loss, torch.stack([metrics[name] for name in ("td_loss", "opt_loss", "nopt_loss")])


def gradients(loss, learner):
    """{parameter: gradient} of those that the loss reaches."""
    named = parameters(learner)
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {k: grad for k, grad in zip(named, grads) if grad is not None and grad.any()}


# ---------------------------------------------------------------------- the loss


@pytest.mark.parametrize(
    "alg, overrides",
    [(alg, case) for alg in ALGORITHMS for case in ({}, *SEVERAL)] + ONE_SWITCH,
    ids=case_name,
)
def test_the_loss_and_its_gradient_by_loops(alg, overrides):
    learner, batch = learner_and_batch(alg, seed=len(overrides), **overrides)
    loss, terms = loss_and_terms(learner, batch)
    expected_terms = losses_by_loops(learner, batch)
    assert (expected_terms > 0).all()
    torch.testing.assert_close(terms, expected_terms, rtol=1e-9, atol=0)
    c = learner.config
    expected = expected_terms @ torch.tensor([1.0, c.opt_loss, c.nopt_loss], dtype=torch.float64)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradients(loss, learner), gradients(expected, learner), rtol=1e-8, atol=1e-12)


@both
def test_where_every_step_is_an_end_the_target_is_the_reward(alg):
    learner, batch = learner_and_batch(alg, T=1, bootstrap_on_truncation=False)
    torch.testing.assert_close(loss_and_terms(learner, batch)[1], losses_by_loops(learner, batch), rtol=1e-9, atol=0)
    torch.testing.assert_close(learner.loss(batch)[1]["td_targets"], batch["reward"][:, 0])


@pytest.mark.parametrize("alg, switch", ONE_SWITCH, ids=case_name)
def test_every_switch_changes_the_loss_or_its_gradient(alg, switch):
    def outcome(**overrides):
        learner, batch = learner_and_batch(alg, **overrides)
        loss, _ = learner.loss(batch)
        return loss.item(), {k: v.tolist() for k, v in gradients(loss, learner).items()}

    assert outcome() != outcome(**switch)


@both
def test_values_are_those_of_the_joint_actions_in_the_batch(alg):
    learner, batch = learner_and_batch(alg)
    values, online = learner.values(batch), Oracle(learner.mac, learner.mixer, batch)
    for b, t in real_transitions(batch):
        heads = online.heads(b, t, batch["actions"][b, t, :, 0].tolist())
        torch.testing.assert_close(values["q_jt"][b, t, 0], heads.mean())
        torch.testing.assert_close(values["v_jt"][b, t, 0], online.v_jt(b, t))
        torch.testing.assert_close(values["q"][b, t], online.q[b, t])
        if alg == "qtran_alt":
            torch.testing.assert_close(values["q_jt_heads"][b, t], heads)


# ---------------------------------------------------------------------- who learns from what


def parts(learner):
    """Names of parameters: what Q_jt alone uses, what the agents share with it, f_q's last layer, f_v."""
    names = set(parameters(learner))
    also_for_v = "hidden" in learner.args.v_input
    joint = {k for k in names if k.startswith(("mixer.encode_q", "mixer.f_r"))}
    if not also_for_v:
        joint |= {k for k in names if k.startswith("mixer.encode_v")}
    shared = {k for k in names if k.startswith(("agent.fc1", "agent.rnn"))}
    last = {k for k in names if k.startswith("agent.fc2")}
    value = {k for k in names if k.startswith("mixer.f_v")}
    both_v = {k for k in names if k.startswith("mixer.encode_v")} - joint
    assert joint | shared | last | value | both_v == names
    return joint, shared, last, value, both_v


@both
@pytest.mark.parametrize("v_input", ["hidden", "state", "state_hidden"])
@pytest.mark.parametrize("detach", [False, True])
def test_l_td_reaches_the_joint_network_and_the_shared_encoder_alone(alg, v_input, detach):
    learner, batch = learner_and_batch(alg, v_input=v_input, detach_encoder_for_joint=detach)
    joint, shared, _, _, both_v = parts(learner)
    reached = set(gradients(loss_and_terms(learner, batch)[1][0], learner))
    assert reached == joint | (set() if detach else shared) | (both_v if alg == "qtran_alt" else set())


@both
@pytest.mark.parametrize("v_input", ["hidden", "state", "state_hidden", "none"])
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("term", [1, 2], ids=["opt", "nopt"])
def test_l_opt_and_l_nopt_reach_what_q_jt_alone_uses_only_if_freed(alg, v_input, fixed, term):
    learner, batch = learner_and_batch(alg, v_input=v_input, fix_q_jt=fixed)
    joint, shared, last, value, both_v = parts(learner)
    reached = set(gradients(loss_and_terms(learner, batch)[1][term], learner))
    assert reached == shared | last | value | both_v | (set() if fixed else joint)


@both
@pytest.mark.parametrize("double_q", [False, True])
def test_nothing_reaches_the_target_networks(alg, double_q):
    learner, batch = learner_and_batch(alg, double_q=double_q, td_lambda=0.6)
    learner.loss(batch)[0].backward()
    assert all(p.grad is None for p in parameters(learner, "target_").values())
    assert all(p.grad is not None for p in parameters(learner).values())


# ---------------------------------------------------------------------- invariances


@both
@pytest.mark.parametrize("overrides", [{}, *SEVERAL[:4]], ids=case_name)
def test_padding_changes_nothing(alg, overrides):
    learner, batch = learner_and_batch(alg, B=4, T=5, **overrides)
    loss, _ = learner.loss(batch)
    dirty, _ = learner.loss(garbage_in_padding(batch, np.random.default_rng(1)))
    torch.testing.assert_close(dirty, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(dirty, learner), gradients(loss, learner), rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("garbage", [1e6, -1e6])
@pytest.mark.parametrize("overrides", [{}, {"double_q": True}, {"alt_td_target": "max_counterfactual"}], ids=case_name)
def test_values_of_unavailable_actions_change_nothing(alg, garbage, overrides):
    learner, batch = learner_and_batch(alg, fix_q_jt=False, **overrides)
    batch["avail_actions"][..., 1] |= ~batch["avail_actions"][..., 1:].any(dim=-1)
    batch["avail_actions"][..., 0] = False  # nobody may ever choose action 0
    batch["actions"].clamp_(min=1)
    before, _ = learner.loss(batch)
    with torch.no_grad():
        for prefix in ("", "target_"):
            for name, p in parameters(learner, prefix).items():
                if name == "agent.fc2.bias" or (name == "mixer.f_r.4.bias" and alg == "qtran_alt"):
                    p[0] += garbage
    after, _ = learner.loss(batch)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=0)


@both
@pytest.mark.parametrize(
    "overrides", [{}, {"joint_use_state": True, "agent_pool": "mean", "v_input": "state_hidden"}], ids=case_name
)
def test_the_order_of_agents_changes_nothing(alg, overrides):
    learner, batch = learner_and_batch(alg, obs_agent_id=False, **overrides)
    before = loss_and_terms(learner, batch)[1]
    for field in ("obs", "actions", "avail_actions"):
        batch.data[field] = batch[field][:, :, [2, 0, 1]]
    torch.testing.assert_close(loss_and_terms(learner, batch)[1], before, rtol=1e-9, atol=0)
    batch.data["actions"] = batch["actions"][:, :, [1, 2, 0]]  # and what one agent did by another does
    assert not torch.allclose(loss_and_terms(learner, batch)[1], before)


@both
@pytest.mark.parametrize("key, value", [("common_reward", False), ("mixer", "vdn")])
def test_what_qtran_cannot_do_is_refused(alg, key, value):
    args, mac = make_args(alg), make_learner(alg).mac
    setattr(args, key, value)
    with pytest.raises(ConfigError, match=key):
        QTranLearner(mac, scheme(args), None, args)
