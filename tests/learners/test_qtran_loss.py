"""Each formula against numbers worked out by hand, and against loops over every transition, agent and action."""

import pytest
import torch

from learners.qtran_loss import (
    counterfactual_sum,
    mean_square,
    nopt_loss,
    nopt_min_loss,
    opt_loss,
    td_loss,
    td_target,
)

INF, NAN = float("inf"), float("nan")


def column(*values):
    """[1, T, 1]"""
    return torch.tensor(values).reshape(1, -1, 1)


# ---------------------------------------------------------------------- worked by hand


def test_td_target_by_hand():
    y = td_target(column(1.0, 2.0, -3.0), column(0, 0, 1), column(10.0, -4.0, 100.0), gamma=0.5)
    assert y.flatten().tolist() == [6.0, 0.0, -3.0]


def test_td_target_of_heads_by_hand():
    y = td_target(column(1.0, 2.0), column(0, 1), torch.tensor([[[2.0, 4.0], [6.0, 8.0]]]), gamma=0.5)
    assert y.tolist() == [[[2.0, 3.0], [2.0, 2.0]]]


def test_td_loss_by_hand():
    # errors 2, -1 and one in the padding: (4 + 1) / 2
    assert td_loss(column(3.0, 1.0, 9.0), column(1.0, 2.0, 0.0), column(1.0, 1.0, 0.0)) == 2.5


def test_opt_loss_by_hand():
    # 1 - 4 + 2 = -1 and 5 - 1 - 1 = 3: both signs count, (1 + 9) / 2
    assert opt_loss(column(1.0, 5.0), column(4.0, 1.0), column(2.0, -1.0), column(1.0, 1.0)) == 5.0


def test_nopt_loss_by_hand():
    # defects -3, 2 and 0: only the negative one costs, 9 / 3
    assert nopt_loss(column(1.0, 5.0, 1.0), column(4.0, 1.0, 1.0), column(0.0, -2.0, 0.0), torch.ones(1, 3, 1)) == 3.0


def test_nopt_min_loss_by_hand():
    # agent 1: defects 1 - 0 + 1 = 2 and 4 - 0 + 1 = 5, minimum 2; agent 2: 3 - 5 + 1 = -1 (and 0, unavailable
    # -7), minimum -1: (4 + 1) / 2
    q_sum_cf = torch.tensor([[[[1.0, 4.0, 9.0], [3.0, 2.0, 0.0]]]])
    q_jt_cf = torch.tensor([[[[0.0, 0.0, 0.0], [5.0, 3.0, 8.0]]]])
    avail = torch.tensor([[[[1, 1, 0], [1, 1, 0]]]])
    assert nopt_min_loss(q_sum_cf, q_jt_cf, column(1.0), avail, column(1.0)) == 2.5


def test_counterfactual_sum_by_hand():
    q = torch.tensor([[[[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]]])
    taken = torch.tensor([[[2.0, 10.0, 200.0]]])
    assert counterfactual_sum(q, taken).tolist() == [[[[211.0, 212.0], [212.0, 222.0], [112.0, 212.0]]]]


def test_nothing_but_padding_is_no_loss():
    assert mean_square(torch.ones(2, 3, 1), torch.zeros(2, 3, 1)) == 0


# ---------------------------------------------------------------------- by loops


def draw(seed, dtype=torch.float64, B=3, T=4, N=3, A=5):
    """Random arguments by name; each episode is padded, each agent has an action available."""
    torch.manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, dtype=dtype)

    avail = torch.rand(B, T, N, A) < 0.5
    avail[..., 2] |= ~avail.any(dim=-1)
    lengths = torch.tensor([T, 1, 2])
    return dict(
        scalar=normal(B, T, 1), other=normal(B, T, 1), v=normal(B, T, 1), heads=normal(B, T, N),
        q=normal(B, T, N, A), cf=normal(B, T, N, A), actions=torch.randint(A, (B, T, N)),
        terminated=torch.rand(B, T, 1) < 0.3, avail=avail,
        mask=(torch.arange(T) < lengths[:, None]).to(dtype).unsqueeze(-1),
    )  # fmt: skip


def mean_over_real(mask, value):
    """Mean of value(b, t) over the transitions that are real."""
    real = [(b, t) for b in range(mask.shape[0]) for t in range(mask.shape[1]) if mask[b, t, 0]]
    return sum(value(b, t) for b, t in real) / len(real)


every_dtype = pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
every_seed = pytest.mark.parametrize("seed", range(3))


@every_seed
@every_dtype
def test_td_by_loops(seed, dtype, tolerance):
    d = draw(seed, dtype)
    y = td_target(d["other"], d["terminated"], d["heads"], 0.9)
    for b, t, i in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        end = d["terminated"][b, t, 0]
        expected = d["other"][b, t, 0] + (0 if end else 0.9 * d["heads"][b, t, i])
        assert y[b, t, i] == pytest.approx(expected.item(), rel=tolerance)
    expected = mean_over_real(d["mask"], lambda b, t: (d["scalar"][b, t, 0].item() - d["other"][b, t, 0].item()) ** 2)
    assert td_loss(d["scalar"], d["other"], d["mask"]).item() == pytest.approx(expected, rel=tolerance)


@every_seed
@every_dtype
def test_opt_and_nopt_by_loops(seed, dtype, tolerance):
    d = draw(seed, dtype)

    def defect(b, t):
        return (d["scalar"][b, t, 0] - d["other"][b, t, 0] + d["v"][b, t, 0]).item()

    arguments = d["scalar"], d["other"], d["v"], d["mask"]
    expected = mean_over_real(d["mask"], lambda b, t: defect(b, t) ** 2)
    assert opt_loss(*arguments).item() == pytest.approx(expected, rel=tolerance)
    expected = mean_over_real(d["mask"], lambda b, t: min(defect(b, t), 0.0) ** 2)
    assert nopt_loss(*arguments).item() == pytest.approx(expected, rel=tolerance)


@every_seed
@every_dtype
def test_nopt_min_by_loops(seed, dtype, tolerance):
    d = draw(seed, dtype)
    agents, actions = range(d["q"].shape[2]), range(d["q"].shape[3])

    def q_sum(b, t, i, u_i):
        u = d["actions"][b, t].tolist()
        u[i] = u_i
        return sum(d["q"][b, t, j, u[j]].item() for j in agents)

    def worst(b, t, i):
        available = [u_i for u_i in actions if d["avail"][b, t, i, u_i]]
        return min(q_sum(b, t, i, u_i) - d["cf"][b, t, i, u_i].item() + d["v"][b, t, 0].item() for u_i in available)

    taken = d["q"].gather(-1, d["actions"].unsqueeze(-1)).squeeze(-1)
    q_sum_cf = counterfactual_sum(d["q"], taken)
    for b, t, i, u_i in torch.cartesian_prod(*map(torch.arange, q_sum_cf.shape)).tolist():
        assert q_sum_cf[b, t, i, u_i].item() == pytest.approx(q_sum(b, t, i, u_i), rel=tolerance, abs=tolerance)
    expected = mean_over_real(d["mask"], lambda b, t: sum(worst(b, t, i) ** 2 for i in agents) / len(agents))
    loss = nopt_min_loss(q_sum_cf, d["cf"], d["v"], d["avail"], d["mask"])
    assert loss.item() == pytest.approx(expected, rel=tolerance)


@every_seed
def test_the_loss_of_heads_is_the_mean_of_their_losses(seed):
    d = draw(seed)
    heads = d["heads"].split(1, dim=-1)
    for loss in (
        lambda q_jt: td_loss(q_jt, d["other"], d["mask"]),
        lambda q_jt: opt_loss(d["scalar"], q_jt, d["v"], d["mask"]),
    ):
        torch.testing.assert_close(loss(d["heads"]), torch.stack([loss(head) for head in heads]).mean())
    y = d["q"][..., 0]  # a target for each head
    each = torch.stack([td_loss(q_jt, y_head, d["mask"]) for q_jt, y_head in zip(heads, y.split(1, dim=-1))])
    torch.testing.assert_close(td_loss(d["heads"], y, d["mask"]), each.mean())


# ---------------------------------------------------------------------- gradients

LOSSES = {  # name: (loss, its arguments, which of them is Q_jt, which learn)
    "opt": (opt_loss, "scalar other v mask", "other", ("scalar", "v")),
    "opt, heads": (opt_loss, "scalar heads v mask", "heads", ("scalar", "v")),
    "nopt": (nopt_loss, "scalar other v mask", "other", ("scalar", "v")),
    "nopt_min": (nopt_min_loss, "q cf v avail mask", "cf", ("q", "v")),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def compute(name, d, **kw):
    loss, arguments, *_ = LOSSES[name]
    return loss(*(d[argument] for argument in arguments.split()), **kw)


def gradients(name, d, **kw):
    """{argument: its gradient, or None where there is none}"""
    *_, q_jt, learn = LOSSES[name]
    for argument in (q_jt, *learn):
        d[argument].requires_grad_(True)
    compute(name, d, **kw).backward()
    return {argument: d[argument].grad for argument in (q_jt, *learn)}


@every_loss
def test_the_hat_stops_the_gradient(name):
    *_, q_jt, learn = LOSSES[name]
    grads = gradients(name, draw(0))
    assert grads[q_jt] is None or not grads[q_jt].any()
    assert all(grads[argument].any() for argument in learn)


@every_loss
def test_without_the_hat_q_jt_learns_too(name):
    *_, q_jt, learn = LOSSES[name]
    assert all(grad.any() for grad in gradients(name, draw(0), fixed=False).values())
    assert compute(name, draw(0), fixed=False) == compute(name, draw(0), fixed=True)


def test_td_loss_teaches_q_jt_and_not_its_target():
    d = draw(0)
    q_jt, y = d["scalar"].requires_grad_(True), d["other"].requires_grad_(True)
    td_loss(q_jt, y, d["mask"]).backward()
    torch.testing.assert_close(q_jt.grad, 2 * (q_jt - y).detach() * d["mask"] / d["mask"].sum())
    assert y.grad is None or not y.grad.any()


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, 1e30])
@every_loss
def test_garbage_in_padding_reaches_neither_loss_nor_gradient(name, garbage):
    clean, dirty = draw(1), draw(1)
    for argument in ("scalar", "other", "v", "heads", "q", "cf"):
        shape = dirty[argument].shape
        padded = (dirty["mask"].reshape(*shape[:2], *[1] * (len(shape) - 2)) == 0).expand(shape)
        dirty[argument] = dirty[argument].masked_fill(padded, garbage)
    assert compute(name, clean) == compute(name, dirty)
    assert td_loss(clean["scalar"], clean["other"], clean["mask"]) == td_loss(
        dirty["scalar"], dirty["other"], dirty["mask"]
    )
    expected, found = gradients(name, clean, fixed=False), gradients(name, dirty, fixed=False)
    for argument in expected:
        assert torch.equal(expected[argument], found[argument]), argument


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, -1e30])
def test_garbage_in_unavailable_actions_reaches_neither_loss_nor_gradient(garbage):
    clean, dirty = draw(2), draw(2)
    for argument in ("q", "cf"):
        dirty[argument] = dirty[argument].masked_fill(~dirty["avail"], garbage)
    expected, found = gradients("nopt_min", clean, fixed=False), gradients("nopt_min", dirty, fixed=False)
    assert all(torch.equal(expected[argument], found[argument]) for argument in expected)
