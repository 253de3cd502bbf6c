"""Mixers against their formulas, written with loops, explicit one-hots and explicit sums."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import make_args

from modules.mixers import mixer_class

B, T = 2, 3


def make_mixer(name, seed=0, **overrides):
    """A mixer in float64 with its args, and random agent_qs, state, obs [B, T, …]."""
    torch.manual_seed(seed)
    args = make_args(name, **overrides)
    mixer = mixer_class(args.mixer)(args).double()
    with torch.no_grad():  # well away from the small values of a new network
        for p in mixer.parameters():
            p.mul_(2)
    shapes = (args.n_agents,), (args.state_shape,), (args.n_agents, args.obs_shape)
    return mixer, args, *(torch.randn(B, T, *shape, dtype=torch.float64) for shape in shapes)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


each_step = list(itertools.product(range(B), range(T)))


# ---------------------------------------------------------------------- Q_tot from the Q_i


def test_vdn_is_the_sum():
    mixer, *_, qs, state, obs = make_mixer("vdn")
    for b, t in each_step:
        assert mixer(qs, state, obs)[b, t].tolist() == pytest.approx([sum(qs[b, t].tolist())])


@pytest.mark.parametrize(
    "name, overrides",
    [("vdn", {}), ("qmix", {}), ("qmix", {"hypernet_layers": 1}), ("qatten", {}), ("qatten", {"weighted_head": False})],
)
def test_q_tot_rises_with_each_q_i(name, overrides):
    for seed in range(5):
        mixer, args, qs, state, obs = make_mixer(name, seed, **overrides)
        for i in range(args.n_agents):
            more = qs.clone()
            more[..., i] += torch.rand(B, T) * 5
            assert (mixer(more, state, obs) > mixer(qs, state, obs)).all()


@pytest.mark.parametrize("layers", [1, 2])
def test_qmix_by_loops(layers):
    mixer, args, qs, state, _ = make_mixer("qmix", hypernet_layers=layers, mixing_embed_dim=5)
    for b, t in each_step:
        s, width = state[b, t], 5
        w_1, b_1 = mixer.hyper_w_1(s).abs(), mixer.hyper_b_1(s)  # w_1[i, m] at place i * width + m, as in EPyMARL
        w_2, q_tot = mixer.hyper_w_final(s).abs(), mixer.V(s)[0]
        for m in range(width):
            x = (b_1[m] + sum(qs[b, t, i] * w_1[i * width + m] for i in range(args.n_agents))).item()
            q_tot = q_tot + w_2[m] * (x if x > 0 else math.exp(x) - 1)
        close(mixer(qs, state)[b, t, 0], q_tot)


def qatten_logits(mixer, args, state, obs, head):
    """key_{i,h} · query_h / √d of each agent, at one step."""
    d, query = args.attention_dim, mixer.query[head](state)
    rows = slice(head * d, (head + 1) * d)
    weight, bias = mixer.key.weight[rows], mixer.key.bias[rows]
    return [((weight @ obs[i] + bias) @ query / math.sqrt(d)).item() for i in range(args.n_agents)]


@pytest.mark.parametrize("weighted", [True, False])
def test_qatten_by_loops(weighted):
    mixer, args, qs, state, obs = make_mixer("qatten", weighted_head=weighted, attention_dim=7)
    for b, t in each_step:
        q_tot = mixer.c(state[b, t])[0].item()
        for head in range(args.n_attention_heads):
            weight = abs(mixer.head_weight(state[b, t])[head].item()) if weighted else 1
            logits = qatten_logits(mixer, args, state[b, t], obs[b, t], head)
            shares = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
            q_tot += weight * sum(share * q for share, q in zip(shares, qs[b, t].tolist()))
        assert mixer(qs, state, obs)[b, t, 0].item() == pytest.approx(q_tot, rel=1e-10)


def test_qattens_penalty_by_loops():
    mixer, args, _, state, obs = make_mixer("qatten", attention_reg_coef=0.25)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]]).unsqueeze(-1)
    state[1, 1:] = torch.nan  # padding
    total = 0
    for b, t in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        for head in range(args.n_attention_heads):
            logits = np.array(qatten_logits(mixer, args, state[b, t], obs[b, t], head))
            total += np.square(logits * args.attention_dim**0.5).mean()  # before the division by √d
    assert mixer.regulariser(state, obs, mask).item() == pytest.approx(0.25 * total / 4, rel=1e-10)
    mixer, *_ = make_mixer("qatten", attention_reg_coef=0)
    assert mixer.regulariser(state, obs, mask) == 0


def test_qmix_has_epymarls_names_and_shapes():
    mixer, args, *_ = make_mixer("qmix")
    s, n, m, h = args.state_shape, args.n_agents, args.mixing_embed_dim, args.hypernet_embed
    expected = {
        "hyper_w_1.0": (h, s), "hyper_w_1.2": (m * n, h), "hyper_w_final.0": (h, s), "hyper_w_final.2": (m, h),
        "hyper_b_1": (m, s), "V.0": (m, s), "V.2": (1, m),
    }  # fmt: skip
    assert {k: tuple(p.shape) for k, p in mixer.state_dict().items()} == {
        **{f"{k}.weight": shape for k, shape in expected.items()},
        **{f"{k}.bias": shape[:1] for k, shape in expected.items()},
    }


# ---------------------------------------------------------------------- Q_jt and V_jt

CASES = [
    {},
    {"agent_pool": "mean"},
    {"joint_use_state": True, "v_input": "state_hidden"},
    {"joint_use_state": True, "v_input": "state", "agent_pool": "mean"},
    {"v_input": "none"},
    {"hidden_dim": 5},
    {"hidden_dim": 1, "agent_pool": "mean"},
]
qtran_cases = pytest.mark.parametrize("overrides", CASES, ids=str)
both = pytest.mark.parametrize("name", ["qtran_base", "qtran_alt"])


def qtran_inputs(name, lead=(B, T), **overrides):
    mixer, args, *_ = make_mixer(name, **overrides)
    shapes = (args.state_shape,), (args.n_agents, args.hidden_dim)
    state, hidden = (torch.randn(*lead, *shape, dtype=torch.float64) for shape in shapes)
    actions = torch.randint(args.n_actions, (*lead, args.n_agents))
    return mixer, args, state, hidden, actions


def joint_values_by_hand(mixer, args, state, hidden, actions):
    """Q_jt (base) or [Q_jt(·,u_-i)]_i (alt), and V_jt, at one step. hidden [N, H], actions [N]."""
    agents = range(args.n_agents)
    eye = torch.eye(args.n_actions, dtype=state.dtype)
    h_q = [mixer.encode_q(torch.cat([hidden[i], eye[actions[i]]])) for i in agents]

    def pool(values):
        total = sum(values, start=torch.zeros_like(values[0]))
        return total / len(values) if args.agent_pool == "mean" else total

    s = [state] if args.joint_use_state else []
    if args.mixer == "qtran_base":
        q_jt = mixer.f_r(torch.cat([*s, pool(h_q)]))
    else:
        q_jt = torch.stack(
            [
                mixer.f_r(torch.cat([*s, mixer.encode_v(hidden[i]), pool([h_q[j] for j in agents if j != i])]))
                for i in agents
            ]
        )
    reads = {"state": [state], "hidden": [0], "state_hidden": [state, 0], "none": []}[args.v_input]
    reads = [pool([mixer.encode_v(hidden[i]) for i in agents]) if x is not state else x for x in reads]
    return q_jt, mixer.f_v(torch.cat(reads)) if reads else torch.zeros(1, dtype=state.dtype)


@both
@qtran_cases
@pytest.mark.parametrize("lead", [(B, T), (4,), (2, 1, 3)], ids=str)
def test_joint_values_are_the_plain_formulas(name, overrides, lead):
    mixer, args, state, hidden, actions = qtran_inputs(name, lead, **overrides)
    found = mixer(state, hidden, actions)
    assert found.q_jt.shape == found.v_jt.shape == (*lead, 1)
    for place in itertools.product(*map(range, lead)):
        q_jt, v_jt = joint_values_by_hand(mixer, args, state[place], hidden[place], actions[place])
        close(found.v_jt[place], v_jt)
        if name == "qtran_base":
            assert found.q_jt_cf is None
            close(found.q_jt[place], q_jt)
        else:
            close(found.q_jt_cf[place], q_jt)
            taken = [q_jt[i, actions[place][i]] for i in range(args.n_agents)]
            close(found.q_jt[place][0], sum(taken) / len(taken))


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_alts_head_of_a_lone_agent_reads_nothing_of_others(pool):
    mixer, _, state, hidden, actions = qtran_inputs("qtran_alt", n_agents=1, agent_pool=pool)
    nobody = torch.zeros(B, T, 1, mixer.encode_q[2].out_features)
    close(mixer(state, hidden, actions).q_jt_cf, mixer.f_r(torch.cat([mixer.encode_v(hidden), nobody], dim=-1)))


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_head_i_of_alt_is_moved_by_every_other_agents_action_and_not_by_its_own(pool):
    mixer, args, state, hidden, actions = qtran_inputs("qtran_alt", agent_pool=pool)
    before = mixer(state, hidden, actions).q_jt_cf
    for j in range(args.n_agents):
        changed = actions.clone()
        changed[..., j] = (changed[..., j] + 1) % args.n_actions
        after = mixer(state, hidden, changed).q_jt_cf
        for i in range(args.n_agents):
            moved = (after[:, :, i] - before[:, :, i]).abs()
            assert (moved < 1e-12).all() if i == j else (moved.amax(dim=-1) > 1e-6).all()


@both
def test_the_state_is_read_only_where_asked(name):
    for overrides in CASES:
        mixer, args, state, hidden, actions = qtran_inputs(name, **overrides)
        before, after = mixer(state, hidden, actions), mixer(state + 1, hidden, actions)
        assert torch.equal(before.q_jt, after.q_jt) == (not args.joint_use_state)
        assert torch.equal(before.v_jt, after.v_jt) == ("state" not in args.v_input)
        if args.v_input == "none":
            assert not before.v_jt.any()


@both
def test_an_unbatched_state_shape_of_epymarl_is_understood(name):
    mixer, args, *_ = make_mixer(name, joint_use_state=True)
    args.state_shape = (args.state_shape,)
    shapes = {k: p.shape for k, p in mixer_class(name)(args).state_dict().items()}
    assert shapes == {k: p.shape for k, p in mixer.state_dict().items()}
