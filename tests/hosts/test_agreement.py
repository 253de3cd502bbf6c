"""QTRAN here, the plugin inside a host, and the host's own QTRAN-base learn the same; agent.th goes both ways.

Against the stand-in always; against a real checkout with `HOST_DIR=PATH pytest -m host`, in whose Python the checkout
must start (`python src/plugin.py check PATH`). The checkout itself is not touched: a copy is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import stand_in
import torch
from helpers import SIZES, garbage_in_padding, lengths_of, make_args, make_learner, random_batch

import plugin
from hosts.recognise import recognise
from learners.value_learner import unroll

TOLERANCE = dict(rtol=0, atol=1e-6)
UPDATES = 5
HIDDEN = 8
# PyMARL's settings in our names.
OURS = dict(
    v_input="state", joint_use_state=True, optimizer="rmsprop", nopt_loss=0.1, mixing_embed_dim=64,
    target_update_interval_or_tau=2, target_update_unit="episodes",
)  # fmt: skip
MIXER = {"action_encoding": "encode_q", "Q": "f_r", "V": "f_v"}  # the hosts' QTranBase: ours


@pytest.fixture(
    scope="module", params=[*stand_in.LAYOUTS, pytest.param("HOST_DIR", marks=pytest.mark.host)]
)  # fmt: skip
def host(request, tmp_path_factory):
    """A Host with the plugin and the game in it; `own`: whether it has a QLearner of its own."""
    folder = tmp_path_factory.mktemp("hosts") / "host"
    if request.param == "HOST_DIR":
        if "HOST_DIR" not in os.environ:
            pytest.fail("HOST_DIR=PATH names the checkout to test against")
        shutil.copytree(os.environ["HOST_DIR"], folder, ignore=shutil.ignore_patterns(".git", "results", "3rdparty"))
    else:
        stand_in.make(folder, request.param, git=False)
    assert plugin.main(["install", str(folder), "--with-games"]) == 0
    return recognise(folder)


def host_args(host, **changes):
    """The configuration of a host of any layout, PyMARL's settings."""
    args = dict(
        mac="basic_mac", agent="rnn", use_rnn=True, hidden_dim=HIDDEN, rnn_hidden_dim=HIDDEN, agent_output_type="q",
        action_selector="epsilon_greedy", epsilon_start=1.0, epsilon_finish=0.05, epsilon_anneal_time=50000,
        evaluation_epsilon=0.0, obs_agent_id=True, obs_last_action=True, learner="qtran_learner", mixer="qtran_base",
        mixing_embed_dim=64, opt_loss=1, nopt_min_loss=0.1, lr=5e-4, optim_alpha=0.99, optim_eps=1e-5,
        grad_norm_clip=10, gamma=0.99, target_update_interval=2, learner_log_interval=10**9, common_reward=True,
        standardise_returns=False, standardise_rewards=False, env="none", optimizer="rmsprop",
    )  # fmt: skip
    return args | changes


def episodes(args, seed=0, n=UPDATES):
    """Batches with padding, ends, unavailable actions, and time limits at full length, as hosts have them."""
    out = []
    for i in range(n):
        batch = random_batch(np.random.default_rng(seed + i), args, B=6, T=5)
        for b, length in enumerate(lengths_of(batch)):
            if length < 5:
                batch["truncated"][b] = False
                batch["terminated"][b, length - 1] = True
        out.append(batch)
    return out


def in_host(host, folder, learner, args, batches, **job):
    """What drive.py leaves: weights and q after learning from `batches`, starting where `learner` is."""
    folder.mkdir()
    modules = {"agent": learner.mac.agent, "target_agent": learner.target_mac.agent}
    if learner.mixer is not None and list(learner.mixer.parameters()):
        modules |= {"mixer": learner.mixer, "target_mixer": learner.target_mixer}
    job = dict(agent_file=None, repaired=False, updates=len(batches), names={}) | job
    weights = {k: m.state_dict() for k, m in modules.items()}
    for name in weights:
        if "mixer" in name:
            weights[name] = {renamed(k, job["names"]): v for k, v in weights[name].items()}
    fields = ("state", "obs", "actions", "avail_actions", "reward", "terminated", "filled")
    job |= dict(args=args, sizes=SIZES, weights=weights, batches=[{k: b[k] for k in fields} for b in batches])
    del job["names"]
    torch.save(job, folder / "job.th")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("drive.py"), folder / "job.th", folder],
        env={**os.environ, "PYTHONPATH": f"{host.root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return torch.load(folder / "result.th", weights_only=True)


def renamed(key, names):
    """A parameter's name with its first word replaced by what `names` has for it."""
    first, rest = key.split(".", 1)
    return f"{ {v: k for k, v in names.items()}.get(first, first) }.{rest}".replace(" ", "")


def learn(learner, batches):
    for i, batch in enumerate(batches):
        learner.train(batch, i, i)


def assert_same(learner, result, names=None):
    """The learner's weights, online and target, are those of a result from a host."""
    modules = {"agent": learner.mac.agent, "target_agent": learner.target_mac.agent}
    if learner.mixer is not None and "mixer" in result:
        modules |= {"mixer": learner.mixer, "target_mixer": learner.target_mixer}
    for name, module in modules.items():
        for key, ours in module.state_dict().items():
            theirs = result[name][renamed(key, names or {}) if "mixer" in name else key]
            torch.testing.assert_close(ours, theirs, **TOLERANCE, msg=lambda m, k=key, n=name: f"{n}.{k}: {m}")


def plugin_args(alg, **changes):
    """What the plugin reads in a host, beside the host's own keys."""
    names = "td_lambda double_q td_target alt_td_target v_input joint_use_state agent_pool detach_encoder_for_joint "
    names += "fix_q_jt optimizer target_update_unit bootstrap_on_truncation mixer learner"
    ours = vars(make_args(alg, **(OURS | changes)))
    return {name: ours[name] for name in names.split()}


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_the_plugin_in_a_host_learns_as_here(host, alg, double_q, tmp_path):
    learner = make_learner(alg, **OURS, double_q=double_q)
    batches = episodes(learner.args)
    changes = plugin_args(alg, double_q=double_q)
    result = in_host(host, tmp_path / "job", learner, host_args(host, **changes), batches)
    assert result["learner"] == "learners.qtran_learner"
    learn(learner, batches)
    assert_same(learner, result)


@pytest.mark.parametrize("double_q", [True, False])
def test_qtran_base_learns_as_the_hosts_own(host, double_q, tmp_path):
    """The host's own, given the keys that it reads and hidden states in the shape that it can split."""
    own = host_args(host, qtran_arch="qtran_paper", network_size="small", double_q=double_q)
    adam = {"optimizer": "adam"} if host.layout == "PyMARL2" and not is_stand_in(host) else {}
    learner = make_learner("qtran_base", **(OURS | adam), double_q=double_q)
    batches = episodes(learner.args)
    result = in_host(host, tmp_path / "job", learner, own, batches, names=MIXER, repaired=True)
    assert result["learner"] == "learners.host_qtran_learner"
    learn(learner, batches)
    assert_same(learner, result, MIXER)


def is_stand_in(host):
    return "stand-in" in (host.root / "src/learners/host_qtran_learner.py").read_text()


def test_a_learner_that_differs_is_seen(host, tmp_path):
    """The comparison can fail: another λ_nopt gives other weights."""
    learner = make_learner("qtran_base", **(OURS | {"nopt_loss": 0.2}))
    batches = episodes(learner.args)
    result = in_host(host, tmp_path / "job", learner, host_args(host, **plugin_args("qtran_base")), batches)
    learn(learner, batches)
    with pytest.raises(AssertionError):
        assert_same(learner, result)


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_agent_files_go_both_ways(host, alg, tmp_path):
    """Trained there, evaluated here, and back: the same greedy actions."""
    learner = make_learner(alg, **OURS)
    batches = episodes(learner.args)
    args = host_args(host, **plugin_args(alg))
    there = in_host(host, tmp_path / "there", learner, args, batches)
    here = make_learner(alg, **OURS, seed=1)
    here.mac.load_models(tmp_path / "there")
    assert_same_choices(here.mac, batches[-1], there["q"])

    learn(here, episodes(here.args, seed=50))
    (tmp_path / "saved").mkdir()
    here.save_models(tmp_path / "saved")
    back = in_host(host, tmp_path / "back", learner, args, batches, agent_file=str(tmp_path / "saved"), updates=0)
    assert_same_choices(here.mac, batches[-1], back["q"])


def assert_same_choices(mac, batch, q_there):
    q_here = unroll(mac, batch).q.detach()
    torch.testing.assert_close(q_here, q_there, rtol=0, atol=1e-5)
    possible = batch["avail_actions"].bool() & (batch["filled"].bool().unsqueeze(-1))
    greedy = [torch.where(possible, q, -torch.inf).argmax(dim=-1) for q in (q_here, q_there)]
    assert torch.equal(*greedy) and possible.any()


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_padding_in_a_host_changes_nothing(host, alg, tmp_path):
    learner = make_learner(alg, **OURS)
    batches = episodes(learner.args, n=2)
    noisy = [garbage_in_padding(batch, np.random.default_rng(7)) for batch in batches]
    args = host_args(host, **plugin_args(alg))
    clean, dirty = (in_host(host, tmp_path / str(i), learner, args, b) for i, b in enumerate((batches, noisy)))
    for name in ("agent", "mixer"):
        assert all(torch.equal(v, dirty[name][k]) for k, v in clean[name].items())


# ---- real checkouts only: the stand-in has no Q-learner of its own


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("alg", ["qmix", "vdn"])
def test_qmix_and_vdn_learn_as_the_hosts(host, alg, double_q, tmp_path):
    if is_stand_in(host):
        pytest.skip("the stand-in has no Q-learner")
    epymarl, half = host.layout == "EPyMARL", host.layout == "PyMARL2"
    ours = dict(
        double_q=double_q, target_update_interval_or_tau=2, optimizer="adam" if epymarl else "rmsprop",
        target_update_unit="updates" if epymarl else "episodes",
    )  # fmt: skip
    learner = make_learner(alg, **ours)
    theirs = host_args(
        host, learner="q_learner", mixer=alg, double_q=double_q, mixing_embed_dim=32, hypernet_layers=2,
        hypernet_embed=64, target_update_interval_or_tau=2,
    )  # fmt: skip
    if half:  # PyMARL2 minimises half the square: the same steps come of half of RMSprop's ε and half of the clip
        theirs |= {"optim_eps": 0.5e-5, "grad_norm_clip": 5}
    batches = episodes(learner.args)
    result = in_host(host, tmp_path / "job", learner, theirs, batches)
    learn(learner, batches)
    assert_same(learner, result)


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_one_network_for_each_agent(host, alg, tmp_path):
    """EPyMARL's non_shared_mac, whose hidden states are [B, N, H]."""
    if not (host.root / "src/controllers/non_shared_controller.py").exists():
        pytest.skip("this host has no non_shared_mac")
    learner = make_learner(f"{alg}_ns", **OURS)
    batches = episodes(learner.args)
    changes = plugin_args(f"{alg}_ns") | dict(mac="non_shared_mac", agent="rnn_ns", obs_agent_id=False)
    result = in_host(host, tmp_path / "job", learner, host_args(host, **changes), batches)
    learn(learner, batches)
    assert_same(learner, result)
    if alg == "qtran_base":
        own = dict(qtran_arch="qtran_paper", network_size="small", double_q=learner.config.double_q)
        own |= dict(mac="non_shared_mac", agent="rnn_ns", obs_agent_id=False)
        start = make_learner("qtran_base_ns", **OURS)
        result = in_host(
            host, tmp_path / "own", start, host_args(host, **own), batches, names=MIXER, repaired=True
        )  # fmt: skip
        assert_same(learner, result, MIXER)


def test_missing_keys_are_named_in_one_message(host, tmp_path):
    learner = make_learner("qtran_alt", **OURS)
    args = host_args(host, **plugin_args("qtran_alt"))
    del args["td_target"], args["agent_pool"], args["gamma"]
    with pytest.raises(AssertionError) as caught:
        in_host(host, tmp_path / "job", learner, args, episodes(learner.args, n=1))
    said = str(caught.value)
    assert all(f"missing key '{name}'" in said for name in ("td_target", "gamma")), said
    assert SimpleNamespace(**args).mixer == "qtran_alt"
