"""The fast path of recurrent agents against the plain one, and against the plain one in float64."""

import copy
import ctypes

import numpy as np
import pytest
import torch
from helpers import SIZES, make_args, make_learner, parameters, random_batch, same

from modules.agents import compiled, recurrence
from modules.agents.rnn_agent import RNNAgent

kind, why = recurrence.choose("auto")
pytestmark = pytest.mark.skipif(kind != "fast", reason=why)

AGENTS = {  # hidden units that are a multiple of the width of a vector, and none; sizes that fill a tile, and do not
    "a few": dict(hidden_dim=32),
    "one agent": dict(n_agents=1, hidden_dim=33),
    "many agents": dict(n_agents=110, hidden_dim=7),
    "wide": dict(obs_shape=101, n_actions=17, hidden_dim=100),
    "no last action": dict(obs_last_action=False),
    "no id": dict(obs_agent_id=False),
    "neither": dict(obs_last_action=False, obs_agent_id=False),
    "a head": dict(head_layers=1),
    "no actions but one": dict(n_actions=1),
}


def episodes(args, lengths, seed=0):
    """obs, last actions and ids of episodes of up to max(lengths) steps, and the steps of all of them."""
    generator, steps = torch.Generator().manual_seed(seed), max(max(lengths), 1)
    obs = torch.randn(len(lengths), steps, args.n_agents, args.obs_shape, generator=generator)
    last = torch.randint(args.n_actions + 1, obs.shape[:3], generator=generator)
    real = torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1)
    return (obs, last, torch.arange(args.n_agents)), real.flatten().nonzero().squeeze(-1)


def twins(**keys):
    """(a plain agent, a fast one of the same weights, their args)."""
    torch.manual_seed(0)
    args = make_args("iql", kernels="plain", **keys)
    plain = RNNAgent(args)
    fast = RNNAgent(make_args("iql", kernels="fast", **keys))
    fast.load_state_dict(plain.state_dict())
    return plain, fast, args


def outcome(agent, inputs, index):
    """q, h, and the gradient of each parameter of a sum of both that has weights of its own for each number."""
    agent.zero_grad()
    q, h = agent.unroll(*inputs, index)
    generator = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, generator=generator).to(x.dtype)).sum() for x in (q, h))
    loss.backward()
    return [q.detach(), h.detach(), *(p.grad.clone() for p in agent.parameters())]


def error(found, expected):
    """The largest relative error of a tensor, by its norm."""
    errors = [(a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30) for a, b in zip(found, expected)]
    return max(errors).item()


@pytest.mark.parametrize("lengths", [[6] * 5, [9, 1, 4, 0, 9, 2], [1], [40, 3] * 20, [0, 0]], ids=str)
@pytest.mark.parametrize("keys", AGENTS.values(), ids=AGENTS)
def test_values_and_gradients_are_those_of_the_plain_path(keys, lengths):
    plain, fast, args = twins(**keys)
    inputs, index = episodes(args, lengths)
    expected = outcome(plain, inputs, index)
    found = outcome(fast, inputs, index)
    assert error(found[:2], expected[:2]) < 1e-6 and error(found[2:], expected[2:]) < 1e-5
    exact = outcome(plain.double(), (inputs[0].double(), *inputs[1:]), index)
    assert error(found, exact) < max(3 * error(expected, exact), 3e-7)


@pytest.mark.parametrize("alg", ["qmix", "qtran_base", "qtran_alt", "iql_ns", "qtran_alt_ns"])
@pytest.mark.parametrize("double_q", [True, False])
def test_losses_and_gradients_of_learners_agree(alg, double_q):
    keys = dict(hidden_dim=64, obs_shape=20, double_q=double_q)
    learners = [make_learner(alg, kernels=kernels, **keys) for kernels in ("plain", "fast")]
    batch = random_batch(np.random.default_rng(0), learners[0].args, B=12, T=30)
    for b in range(0, 12, 3):  # ends in the middle, behind which observations go on
        batch["terminated"][b, b + 1] = True
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for some in (batch, batch[order]):
        losses = [learner.loss(some)[0] for learner in learners]
        assert abs(losses[1] / losses[0] - 1) < 1e-6
        for learner, loss in zip(learners, losses):
            learner.optimiser.zero_grad()
            loss.backward()
        plain, fast = (parameters(learner) for learner in learners)
        errors = {k: error([fast[k].grad], [plain[k].grad]) for k in plain}
        assert max(errors.values()) < 1e-5, errors


def test_a_repetition_has_the_same_bits():
    _, fast, args = twins(hidden_dim=40)
    inputs, index = episodes(args, [30, 20, 25, 7] * 9)
    assert same(outcome(fast, inputs, index), outcome(copy.deepcopy(fast), inputs, index))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_the_episodes(threads):
    """Of more threads than there are groups of episodes, too. What each sums up is fixed, so the bits are."""
    plain, fast, args = twins(hidden_dim=40)
    inputs, index = episodes(args, [9, 5, 7])
    expected = outcome(plain, inputs, index)
    torch.set_num_threads(threads)
    try:
        found, again = (outcome(fast, inputs, index) for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert same(found, again) and error(found, expected) < 1e-5


@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e4])
def test_gates_of_any_size(scale):
    """Where they hardly move, and where they are full: e^x leaves the range of floats."""
    plain, fast, args = twins(hidden_dim=16)
    inputs, index = episodes(args, [8, 5])
    with torch.no_grad():
        for agent in (plain, fast):
            for p in agent.rnn.parameters():
                p.mul_(scale)
    expected = outcome(plain, inputs, index)
    found = outcome(fast, inputs, index)
    assert error(found[:2], expected[:2]) < 1e-5
    assert all(torch.isfinite(x).all() for x in found)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_own_agent_and_spoils_the_gradient(bad):
    _, fast, args = twins()
    (obs, *rest), index = episodes(args, [6, 6])
    obs[0, 2, 1] = bad
    q, h, *gradients = outcome(fast, (obs, *rest), index)
    q, h = q.view(2, 6, args.n_agents, -1), h.view(2, 6, args.n_agents, -1)
    wrong = torch.zeros(2, 6, args.n_agents, dtype=torch.bool)
    wrong[0, 2:, 1] = True
    assert torch.isfinite(q).all(dim=-1)[~wrong].all() and torch.isfinite(h).all(dim=-1)[~wrong].all()
    assert not torch.isfinite(torch.cat([g.flatten() for g in gradients])).all()
    if bad != torch.inf:  # of which a gate makes a number
        assert torch.isnan(q[wrong]).all() and torch.isnan(h[wrong]).all()


def test_views_of_a_larger_batch_are_read_where_they_lie():
    plain, fast, args = twins()
    (obs, last, ids), _ = episodes(args, [8] * 6)
    part = obs[1:5, 2:7], last[1:5, 2:7], ids
    index = torch.tensor([3, 0, 11, 19])
    assert error(outcome(fast, part, index), outcome(plain, part, index)) < 1e-5
    turned = obs.transpose(2, 3).contiguous().transpose(2, 3), last.transpose(1, 2).contiguous().transpose(1, 2), ids
    assert error(outcome(fast, turned, index), outcome(plain, (obs, last, ids), index)) < 1e-5


@pytest.mark.parametrize("bad", [-1, SIZES["n_actions"] + 1])
def test_a_last_action_that_there_is_not_is_refused(bad):
    _, fast, args = twins()
    (obs, last, ids), index = episodes(args, [3, 3])
    last[1, 1, 2] = bad
    with pytest.raises(IndexError, match=str(bad)):
        fast.unroll(obs, last, ids, index)


def test_a_gradient_of_a_part_of_the_weights_is_enough():
    _, fast, args = twins()
    inputs, index = episodes(args, [5, 3])
    every = outcome(fast, inputs, index)[2:]
    fast.rnn.requires_grad_(False)
    fast.zero_grad(set_to_none=True)
    outcome_of = dict(zip((name for name, _ in fast.named_parameters()), every))
    q, h = fast.unroll(*inputs, index)
    generator = torch.Generator().manual_seed(1)
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (q, h)).backward()
    torch.testing.assert_close(fast.fc1.weight.grad, outcome_of["fc1.weight"])
    assert fast.rnn.weight_hh.grad is None


def test_without_a_gradient_nothing_is_kept(monkeypatch):
    _, fast, args = twins()
    inputs, index = episodes(args, [5, 8])
    library, kept = recurrence._library()[0], []

    class Seen:
        def forward(self, *arguments):
            kept.append([argument is not None for argument in arguments[-3:]])
            library.forward(*arguments)

    monkeypatch.setattr(recurrence, "_library", lambda: (Seen(), ""))
    with torch.no_grad():
        without = fast.unroll(*inputs, index)
    assert same(without, fast.unroll(*inputs, index))
    assert kept == [[False] * 3, [True] * 3]


@pytest.mark.parametrize("flags", [["-O1"], ["-O3", "-march=native", "-mno-avx512f"]], ids=" ".join)
def test_processors_with_shorter_vectors(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "FLAGS", ("-std=c++17", *flags, "-shared", "-fPIC", "-pthread"))
    try:
        library = compiled.library(compiled.Path(recurrence.__file__).with_suffix(".cpp"))
    except compiled.NotCompiled as error_:
        pytest.skip(str(error_))  # the processor is another one
    assert isinstance(library, ctypes.CDLL)
    monkeypatch.setattr(recurrence, "_library", lambda: (library, ""))
    plain, fast, args = twins(hidden_dim=40)
    inputs, index = episodes(args, [9, 1, 4, 9] * 4)
    assert error(outcome(fast, inputs, index), outcome(plain, inputs, index)) < 1e-5
