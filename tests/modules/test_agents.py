"""The agents' networks: EPyMARL's names, and the plain formula."""

import pytest
import torch
from helpers import make_args
from torch import nn

from modules.agents import agent_class
from modules.agents.rnn_agent import _stages

SWITCHES = [
    {},
    {"use_rnn": False},
    {"head_layers": 2},
    {"obs_last_action": False},
    {"obs_agent_id": False},
    {"obs_last_action": False, "obs_agent_id": False},
]
B, T = 3, 4


def make_agent(name, **overrides):
    torch.manual_seed(0)
    args = make_args("iql", agent=name, **overrides)
    return agent_class(name)(args), args


def inputs(args):
    """obs, last actions (none before the first), ids."""
    last = torch.randint(args.n_actions, (B, T, args.n_agents))
    last[:, 0] = args.n_actions
    return torch.randn(B, T, args.n_agents, args.obs_shape), last, torch.arange(args.n_agents)


def explicit(args, obs, last):
    """[observation, one-hot last action, one-hot id] of each agent at one step, EPyMARL's order: [B, N, I]."""
    parts = [obs]
    if args.obs_last_action:
        none_yet = torch.zeros(1, args.n_actions)
        parts.append(torch.cat([torch.eye(args.n_actions), none_yet])[last])
    if args.obs_agent_id:
        parts.append(torch.eye(args.n_agents).expand(len(obs), -1, -1))
    return torch.cat(parts, dim=-1)


def by_hand(args, weights, inputs):
    """q [B, T, A] and h [B, T, H] of one network for one agent, stepped through nn.GRUCell. inputs [B, T, I]."""
    linear = lambda name, x: x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # noqa: E731
    hidden, qs, hs = torch.zeros(B, args.hidden_dim), [], []
    for t in range(T):
        x = torch.relu(linear("fc1", inputs[:, t]))
        if args.use_rnn:
            cell = nn.GRUCell(args.hidden_dim, args.hidden_dim)
            cell.load_state_dict({k[4:]: v for k, v in weights.items() if k.startswith("rnn.")})
            hidden = cell(x, hidden)
        else:
            hidden = torch.relu(linear("rnn", x))
        read = hidden
        for layer in range(args.head_layers):
            read = torch.relu(linear(f"head.{layer}.0", read))
        qs.append(linear("fc2", read))
        hs.append(hidden)
    return torch.stack(qs, dim=1), torch.stack(hs, dim=1)


def weights_of(agent, name, i):
    """The weights that agent i uses."""
    prefix = "" if name == "rnn" else f"agents.{i}."
    return {k.removeprefix(prefix): v for k, v in agent.state_dict().items() if k.startswith(prefix)}


every_agent = pytest.mark.parametrize("name", ["rnn", "rnn_ns"])


@every_agent
@pytest.mark.parametrize("overrides", SWITCHES, ids=str)
def test_one_call_and_single_steps_equal_the_plain_network(name, overrides):
    agent, args = make_agent(name, **overrides)
    obs, last, ids = inputs(args)
    q, h = agent.unroll(obs, last, ids)
    x = torch.stack([explicit(args, obs[:, t], last[:, t]) for t in range(T)], dim=1)  # [B, T, N, I]
    for i in range(args.n_agents):
        expected = by_hand(args, weights_of(agent, name, i), x[:, :, i])
        torch.testing.assert_close((q[:, :, i], h[:, :, i]), expected)
    hidden = agent.init_hidden(B, args.n_agents)
    assert hidden.shape == (B, args.n_agents, args.hidden_dim) and not hidden.any()
    for t in range(T):
        q_t, hidden = agent(obs[:, t], last[:, t], ids, hidden)
        torch.testing.assert_close((q_t, hidden), (q[:, t], h[:, t]))


@every_agent
@pytest.mark.parametrize("overrides", SWITCHES, ids=str)
def test_acting_gives_the_same_bits_as_a_step(name, overrides):
    agent, args = make_agent(name, **overrides)
    obs, last, ids = inputs(args)
    hidden = agent.init_hidden(B, args.n_agents)
    with torch.inference_mode():
        act = agent.acting(ids)
        for t in range(T):
            expected = agent(obs[:, t], last[:, t], ids, hidden)
            given = act(obs[:, t], last[:, t], hidden)
            assert all(torch.equal(a, b) for a, b in zip(given, expected))
            hidden = expected[1]


@pytest.mark.parametrize("use_rnn", [True, False])
def test_names_and_shapes_are_epymarls(use_rnn):
    agent, args = make_agent("rnn", use_rnn=use_rnn)
    h, a, n_in = args.hidden_dim, args.n_actions, args.obs_shape + args.n_actions + args.n_agents
    memory = {"weight_ih": (3 * h, h), "weight_hh": (3 * h, h), "bias_ih": (3 * h,), "bias_hh": (3 * h,)}
    expected = {
        "fc1.weight": (h, n_in), "fc1.bias": (h,), "fc2.weight": (a, h), "fc2.bias": (a,),
        **({f"rnn.{k}": shape for k, shape in memory.items()} if use_rnn else {"rnn.weight": (h, h), "rnn.bias": (h,)}),
    }  # fmt: skip
    assert {k: tuple(v.shape) for k, v in agent.state_dict().items()} == expected
    separate, _ = make_agent("rnn_ns", use_rnn=use_rnn)
    assert {k: tuple(v.shape) for k, v in separate.state_dict().items()} == {
        f"agents.{i}.{k}": shape for i in range(args.n_agents) for k, shape in expected.items()
    }


@every_agent
@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize("use_rnn", [True, False])
@pytest.mark.parametrize("lengths", [[T] * B, [T, *[1] * (B - 1)], [3, *[2] * (B - 1)], [1, 0, 3], [0] * B], ids=str)
def test_only_the_steps_that_are_asked_for_count(name, kernels, use_rnn, lengths):
    agent, args = make_agent(name, kernels=kernels, use_rnn=use_rnn)
    obs, last, ids = inputs(args)
    real = torch.tensor([[t < length for t in range(T)] for length in lengths])  # [B, T]
    index = real.flatten().nonzero().squeeze(-1).flip(0)
    noisy = torch.where(real[..., None, None], obs, 1e3)
    all_steps = [x.flatten(end_dim=1)[index] for x in agent.unroll(obs, last, ids)]
    found = []
    for q, h in (all_steps, agent.unroll(noisy, last, ids, index)):
        agent.zero_grad()
        (q.square().sum() + h.sum()).backward()
        found.append([q, h, *(p.grad.clone() for p in agent.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "lengths, n_steps, stages",
    [
        ([5], 5, [(0, 5, 1)]),
        ([9, 7, 4, 2], 9, [(0, 2, 4), (2, 4, 3), (4, 7, 2), (7, 9, 1)]),
        ([6, 6, 6, 6, 6, 3], 6, [(0, 6, 6)]),
        ([8, 7, 6, 5, 4, 3, 2, 1], 8, [(0, 2, 8), (2, 4, 6), (4, 6, 4), (6, 8, 2)]),
        ([4, 4, 2, 2], 9, [(0, 2, 4), (2, 4, 2), (4, 9, 1)]),
    ],
)
def test_stages_cover_every_step_of_every_episode(lengths, n_steps, stages):
    assert _stages(lengths, n_steps) == stages


def test_separate_networks_share_nothing():
    agent, args = make_agent("rnn_ns", obs_agent_id=False)
    obs, last, ids = inputs(args)
    q, _ = agent.unroll(obs, last, ids)
    q[:, :, 1].sum().backward()
    assert all(bool(p.grad.any()) == k.startswith("agents.1.") for k, p in agent.named_parameters())
    twins, _ = agent.unroll(obs[:, :, [0, 0, 0]], last[:, :, [0, 0, 0]], ids)
    assert not torch.allclose(twins[:, :, 0], twins[:, :, 1])
