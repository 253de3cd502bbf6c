"""IQL, VDN, QMIX and Qatten against loops over every transition and agent."""

import numpy as np
import pytest
import torch
from helpers import (
    make_learner,
    parameters,
    random_batch,
    real_transitions,
    stepped,
    targets_by_loops,
)

from learners.transitions import transition_mask
from utils.args import ConfigError

ALGORITHMS = ["iql", "vdn", "qmix", "qatten"]
OVERRIDES = [
    {"double_q": True},
    {"double_q": False},
    {"td_lambda": 0.6, "standardise_rewards": True},
    {"bootstrap_on_truncation": False, "agent": "rnn_ns"},
]


def loss_by_loops(learner, batch):
    """Mean over real transitions (and, for IQL, agents) of (Q_tot - y)²; for Qatten with its penalty."""
    agents = range(learner.mac.n_agents)
    q, _ = stepped(learner.mac, batch)
    q_target, _ = stepped(learner.target_mac, batch)

    def mix(mixer, q_agents, b, t):
        if mixer is None:
            return q_agents
        return mixer(q_agents[None, None], batch["state"][b, t][None, None], batch["obs"][b, t][None, None])[0, 0]

    def next_value(b, t):
        picks = q if learner.config.double_q else q_target
        best = []
        for i in agents:
            available = batch["avail_actions"][b, t, i].nonzero().flatten().tolist()
            best.append(max(available, key=lambda a: picks[b, t, i, a].item()))
        return mix(learner.target_mixer, torch.stack([q_target[b, t, i, best[i]] for i in agents]), b, t)

    y, errors, penalties = targets_by_loops(learner, batch, next_value), [], []
    for b, t in real_transitions(batch):
        taken = torch.stack([q[b, t, i, batch["actions"][b, t, i, 0].long()] for i in agents])
        errors.append((mix(learner.mixer, taken, b, t) - y[b, t]).square().mean())
        if learner.args.mixer == "qatten":
            here = batch["state"][b, t][None, None], batch["obs"][b, t][None, None]
            penalties.append(learner.mixer.regulariser(*here, torch.ones(1, 1, 1)))
    return torch.stack(errors).mean() + (torch.stack(penalties).mean() if penalties else 0)


def check(learner, batch):
    if learner.reward_stats is not None:
        learner.reward_stats.update(batch["reward"][:, :-1], transition_mask(batch))
    loss, expected = learner.loss(batch)[0], loss_by_loops(learner, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    named = parameters(learner)
    for k, a, b in zip(named, *(torch.autograd.grad(x, list(named.values())) for x in (loss, expected))):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12, msg=k)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_loss_and_its_gradient_by_loops(alg, overrides):
    learner = make_learner(alg, dtype=torch.float64, **overrides)
    check(learner, random_batch(np.random.default_rng(0), learner.args, dtype=torch.float64))


@pytest.mark.parametrize("overrides", OVERRIDES, ids=str)
def test_iql_learns_from_a_reward_for_each_agent(overrides):
    learner = make_learner("iql", dtype=torch.float64, common_reward=False, **overrides)
    batch = random_batch(np.random.default_rng(0), learner.args, dtype=torch.float64)
    assert batch["reward"].shape[-1] == learner.mac.n_agents
    check(learner, batch)


@pytest.mark.parametrize("alg", ["vdn", "qmix", "qatten"])
def test_mixers_refuse_a_reward_for_each_agent(alg):
    with pytest.raises(ConfigError, match="common_reward"):
        make_learner(alg, common_reward=False)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_values_are_those_of_the_joint_actions_in_the_batch(alg):
    learner = make_learner(alg)
    batch = random_batch(np.random.default_rng(0), learner.args)
    values, (q, _) = learner.values(batch), stepped(learner.mac, batch)
    real = batch["filled"][:, :-1, 0]
    torch.testing.assert_close(values["q"][real], q[:, :-1][real])
    assert ("q_jt" in values) == (alg != "iql")
    if alg == "vdn":
        taken = q[:, :-1].gather(-1, batch["actions"][:, :-1].long())
        torch.testing.assert_close(values["q_jt"][real], taken.sum(dim=2)[real])
