"""What only a GPU shows: that it computes what the CPU does, repeats itself, and reads and writes the same files."""

import numpy as np
import pytest
import torch
from command import here, words
from helpers import (
    garbage_in_padding,
    make_args,
    make_learner,
    modules,
    parameters,
    random_batch,
    real_transitions,
    same,
    stepped,
    weights,
)

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
DEVICE = "cuda"
SIX = ["iql", "vdn", "qmix", "qatten", "qtran_base", "qtran_alt"]


def on_card(learner):
    """The learner itself, moved there."""
    learner.cuda()
    assert all(p.device.type == DEVICE for p in parameters(learner).values())
    return learner


def twins(alg, dtype=torch.float32, **keys):
    """Two learners with the same weights: on the CPU, and on the card."""
    return make_learner(alg, dtype=dtype, **keys), on_card(make_learner(alg, dtype=dtype, **keys))


def gradients(learner, batch):
    """(loss, {name: gradient}) as float64 on the CPU."""
    loss, _ = learner.loss(batch)
    loss.backward()
    return loss.item(), {k: p.grad.double().cpu() for k, p in parameters(learner).items()}


@pytest.mark.parametrize("keys", [{}, {"td_lambda": 0.6, "double_q": True}, {"use_rnn": False}], ids=str)
@pytest.mark.parametrize("alg", SIX)
def test_losses_and_gradients_are_those_of_the_cpu(alg, keys):
    cpu, card = twins(alg, torch.float64, **keys)
    batch = random_batch(np.random.default_rng(0), cpu.args, B=6, T=7, dtype=torch.float64)
    (a, of_a), (b, of_b) = gradients(cpu, batch), gradients(card, batch.to(DEVICE))
    assert b == pytest.approx(a, rel=1e-9)
    for name, gradient in of_a.items():
        torch.testing.assert_close(of_b[name], gradient, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("alg", ["qmix", "qtran_base", "qtran_alt"])
def test_an_update_in_single_precision_is_near_that_of_the_cpu(alg):
    cpu, card = twins(alg, hidden_dim=64, mixing_embed_dim=64)
    batch = random_batch(np.random.default_rng(1), cpu.args, B=8, T=20)
    (a, of_a), (b, of_b) = gradients(cpu, batch), gradients(card, batch.to(DEVICE))
    assert b == pytest.approx(a, rel=5e-3)  # cuDNN's GRU may round to TF32
    norm = sum((g**2).sum() for g in of_a.values()).sqrt()
    assert sum(((of_b[k] - g) ** 2).sum() for k, g in of_a.items()).sqrt() < 0.02 * norm


def test_the_unroll_is_the_steps_one_after_the_other_and_reads_no_padding():
    cpu, card = twins("qtran_base", torch.float64)
    rng = np.random.default_rng(2)
    batch = random_batch(rng, cpu.args, B=6, T=9, dtype=torch.float64)
    q, h = stepped(cpu.mac, batch)
    for shown in (batch, garbage_in_padding(batch, rng)):
        q_card, h_card = (x.cpu() for x in card.mac.unroll(shown.to(DEVICE)))
        for b, t in real_transitions(batch):
            torch.testing.assert_close(q_card[b, t], q[b, t])
            torch.testing.assert_close(h_card[b, t], h[b, t])


@pytest.mark.parametrize("alg", ["qmix", "qtran_alt"])
@pytest.mark.parametrize("to_card", [True, False])
def test_a_checkpoint_goes_from_one_device_to_the_other(alg, to_card, tmp_path):
    """With its optimiser: both go on to the same weights."""
    args = make_args(alg)
    batch = random_batch(np.random.default_rng(3), args)
    cpu, card = make_learner(alg), on_card(make_learner(alg, seed=1))
    first, second = (cpu, card) if to_card else (card, cpu)
    first.train(batch.to(first.args.device if first is cpu else DEVICE), 0, 0)
    first.save_models(tmp_path)
    second.load_models(tmp_path)
    assert same([p.cpu() for p in parameters(first).values()], [p.cpu() for p in parameters(second).values()])
    devices = {p.device.type for p in parameters(second).values()}
    assert devices == {DEVICE if to_card else "cpu"}
    for x, y in zip(modules(first, "target_"), modules(second, "target_")):
        x.load_state_dict(y.state_dict())
    for learner in (first, second):
        learner.train(batch.to("cpu" if learner is cpu else DEVICE), 1, 1)
    for x, y in zip(parameters(first).values(), parameters(second).values()):
        torch.testing.assert_close(x.cpu(), y.cpu(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alg", ["qmix", "qtran_base", "qtran_alt"])
def test_the_same_updates_give_the_same_weights(alg):
    args = make_args(alg, hidden_dim=64)
    batch = random_batch(np.random.default_rng(4), args, B=16, T=20).to(DEVICE)
    learned = []
    for _ in range(2):
        learner = on_card(make_learner(alg, hidden_dim=64))
        for i in range(5):
            learner.train(batch, i, i)
        learned.append(weights(learner))
    assert same(*learned)


# ---- whole runs


@pytest.fixture
def run(capsys, tmp_path):
    pytest.importorskip("sacred")

    def run(name, *values, without=()):
        """The Outcome of a short run of QTRAN-base on the card, with results in a folder `name`."""
        keys = ("use_cuda=True", "keep_replay=True", *values)
        ended = here(capsys, words("qtran_base", "two_step", tmp_path / name, *keys, without=("use_cuda", *without)))
        assert ended.code == 0, ended.err
        assert "on cuda" in (ended.path / "log.txt").read_text()
        return ended

    return run


def learned(ended):
    """The last weights of a run."""
    folder = max(ended.path.glob("checkpoints/[0-9]*"), key=lambda f: int(f.name))
    files = [torch.load(folder / f, map_location="cpu", weights_only=True) for f in ("agent.th", "mixer.th")]
    return [weight for file in files for weight in file.values()]


def test_the_same_seed_gives_the_same_weights(run):
    assert same(learned(run("a")), learned(run("b")))


def test_a_run_with_its_replay_on_the_card_learns_the_same(run):
    there = run("card", "buffer_cpu_only=False")
    told = (there.path / "log.txt").read_text().splitlines()
    assert any("replay: " in line and line.endswith("on cuda") for line in told)
    assert same(learned(there), learned(run("memory")))


@pytest.mark.parametrize("staleness", [0, 1])
def test_environments_in_worker_processes(run, staleness):
    """Their hidden states are kept on the card."""
    values = ("env_workers=True", f"max_staleness={staleness}", "epsilon_start=0.0", "epsilon_finish=0.0")
    assert same(learned(run("a", *values)), learned(run("b", *values)))


@pytest.mark.parametrize("replay", ["buffer_cpu_only=True", "buffer_cpu_only=False"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(run, replay, capsys):
    first, whole = run("stopped", replay), run("whole", replay, "t_max=48", without=("t_max",))
    resumed = here(capsys, ["--resume", first.path, "with", "t_max=48"])
    assert resumed.code == 0, resumed.err
    assert same(learned(resumed), learned(whole))
