"""QTRAN here, the plugin inside a host, and the host's own QTRAN-base learn the same; agent.th goes both ways.

Against our small hosts always; against a real checkout with `HOST_DIR=PATH pytest -m host`, in whose Python the
checkout must start (`python src/plugin.py check PATH`). The checkout itself is not touched: a copy is.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stand_in_host
import torch
from helpers import SIZES, garbage_in_padding, lengths_of, make_args, make_learner, random_batch

import plugin
from hosts.recognise import recognise
from learners.transitions import unroll

UPDATES = 5
# PyMARL's settings in our names, with targets that are copied within the UPDATES.
OURS = dict(
    v_input="state", joint_use_state=True, optimizer="rmsprop", nopt_loss=0.1, mixing_embed_dim=64,
    target_update_interval_or_tau=2, target_update_unit="episodes",
)  # fmt: skip
# What a host's args hold, whatever its layout.
THEIRS = dict(
    mac="basic_mac", agent="rnn", use_rnn=True, hidden_dim=8, rnn_hidden_dim=8, agent_output_type="q",
    action_selector="epsilon_greedy", epsilon_start=1.0, epsilon_finish=0.05, epsilon_anneal_time=50000,
    evaluation_epsilon=0.0, obs_agent_id=True, obs_last_action=True, learner="qtran_learner", mixer="qtran_base",
    mixing_embed_dim=64, opt_loss=1, nopt_min_loss=0.1, lr=5e-4, optim_alpha=0.99, optim_eps=1e-5, grad_norm_clip=10,
    gamma=0.99, target_update_interval=2, learner_log_interval=10**9, common_reward=True, standardise_returns=False,
    standardise_rewards=False, env="none", optimizer="rmsprop", t_max=10**6,
)  # fmt: skip
NOT_SHARED = dict(mac="non_shared_mac", agent="rnn_ns", obs_agent_id=False)
OWN = dict(qtran_arch="qtran_paper", network_size="small")  # what the hosts' own QTRAN reads
MIXER = {"encode_q": "action_encoding", "f_r": "Q", "f_v": "V"}  # our names of its modules: theirs


class Host:
    """A checkout with the plugin in it, and a process that learns there (drive.py)."""

    def __init__(self, root, real):
        self.layout, self.real = recognise(root).layout, real
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", Path(__file__).with_name("drive.py")],
            env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def learn(self, folder, learner, args, batches, names=None, **job):
        """What drive.py leaves: weights and q after learning from `batches`, starting where `learner` is."""
        folder.mkdir()
        weights = {name: _renamed(module.state_dict(), names, name) for name, module in modules(learner).items()}
        fields = ("state", "obs", "actions", "avail_actions", "reward", "terminated", "filled")
        job = dict(agent_folder=None, repaired=False, updates=len(batches)) | job
        job |= dict(args=args, sizes=SIZES, weights=weights, batches=[{k: b[k] for k in fields} for b in batches])
        torch.save(job, folder / "job.th")
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        while (line := self.process.stdout.readline()).strip() != "done":
            assert line, "the host's process ended"
        if (folder / "error.txt").exists():
            raise AssertionError((folder / "error.txt").read_text())
        return torch.load(folder / "result.th", weights_only=True)

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module", params=[*stand_in_host.LAYOUTS, pytest.param("HOST_DIR", marks=pytest.mark.host)])
def host(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "host"
    if request.param == "HOST_DIR":
        if "HOST_DIR" not in os.environ:
            pytest.fail("HOST_DIR=PATH names the checkout to test against")
        shutil.copytree(os.environ["HOST_DIR"], folder, ignore=shutil.ignore_patterns(".git", "results", "3rdparty"))
    else:
        stand_in_host.make(folder, request.param)
    assert plugin.main(["install", str(folder)]) == 0
    host = Host(folder, real=request.param == "HOST_DIR")
    yield host
    host.close()


def modules(learner):
    out = {"agent": learner.mac.agent, "target_agent": learner.target_mac.agent}
    return out | {"mixer": learner.mixer, "target_mixer": learner.target_mixer}


def _renamed(weights, names, module):
    """A module's weights under the host's names."""
    if not names or "mixer" not in module:
        return weights
    return {f"{names[key.split('.', 1)[0]]}.{key.split('.', 1)[1]}": value for key, value in weights.items()}


def assert_same(learner, result, names=None):
    """The learner's weights, online and target, are those of a result from a host."""
    for name, module in modules(learner).items():
        ours, theirs = _renamed(module.state_dict(), names, name), result[name]
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(
                ours[key], theirs[key], rtol=0, atol=1e-6, msg=lambda m, k=f"{name}.{key}": f"{k}: {m}"
            )


def plugin_args(alg, **changes):
    """THEIRS, and what the plugin reads beside it."""
    names = "td_lambda double_q td_target alt_td_target v_input joint_use_state agent_pool detach_encoder_for_joint "
    names += "fix_q_jt lr_decay_start target_update_unit bootstrap_on_truncation mixer"
    ours = vars(make_args(alg, **(OURS | changes)))
    return THEIRS | {name: ours[name] for name in names.split()}


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


def learn(learner, batches):
    """As drive.py does; the weights must have moved."""
    before = {name: [p.clone() for p in module.parameters()] for name, module in modules(learner).items()}
    for i, batch in enumerate(batches):
        learner.train(batch, i, i)
    moved = [not torch.equal(p, q) for n, m in modules(learner).items() for p, q in zip(m.parameters(), before[n])]
    assert all(moved)


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_the_plugin_in_a_host_learns_as_here(host, alg, double_q, tmp_path):
    learner = make_learner(alg, **OURS, double_q=double_q)
    batches = episodes(learner.args)
    result = host.learn(tmp_path / "job", learner, plugin_args(alg, double_q=double_q), batches)
    assert result["learner"] == "learners.qtran_learner"
    learn(learner, batches)
    assert_same(learner, result)


@pytest.mark.parametrize("double_q", [True, False])
def test_qtran_base_learns_as_the_hosts_own(host, double_q, tmp_path):
    """The host's own, given the keys that it reads and hidden states in the shape that it can split."""
    adam = {"optimizer": "adam"} if host.layout == "PyMARL2" and host.real else {}  # without a switch
    learner = make_learner("qtran_base", **(OURS | adam), double_q=double_q)
    batches = episodes(learner.args)
    args = THEIRS | OWN | dict(double_q=double_q)
    result = host.learn(tmp_path / "job", learner, args, batches, names=MIXER, repaired=True)
    assert result["learner"] == "learners.host_qtran_learner"
    learn(learner, batches)
    assert_same(learner, result, MIXER)


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_one_network_for_each_agent(host, alg, tmp_path):
    """EPyMARL's non_shared_mac, whose hidden states are [B, N, H]."""
    if host.layout != "EPyMARL":
        pytest.skip("only EPyMARL has a non_shared_mac")
    learner = make_learner(f"{alg}_ns", **OURS)
    batches = episodes(learner.args)
    result = host.learn(tmp_path / "job", learner, plugin_args(f"{alg}_ns") | NOT_SHARED, batches)
    learn(learner, batches)
    assert_same(learner, result)


def test_one_network_for_each_agent_as_the_hosts_own(host, tmp_path):
    if host.layout != "EPyMARL":
        pytest.skip("only EPyMARL has a non_shared_mac")
    learner = make_learner("qtran_base_ns", **OURS)
    batches = episodes(learner.args)
    args = THEIRS | OWN | NOT_SHARED | dict(double_q=learner.config.double_q)
    result = host.learn(tmp_path / "job", learner, args, batches, names=MIXER, repaired=True)
    learn(learner, batches)
    assert_same(learner, result, MIXER)


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("alg", ["qmix", "vdn"])
def test_qmix_and_vdn_learn_as_the_hosts(host, alg, double_q, tmp_path):
    adam = host.layout == "EPyMARL" and host.real  # whose Q-learner has Adam and counts updates, without a switch
    learner = make_learner(
        alg, double_q=double_q, target_update_interval_or_tau=2, optimizer="adam" if adam else "rmsprop",
        target_update_unit="updates" if adam else "episodes",
    )  # fmt: skip
    args = THEIRS | dict(
        learner="q_learner", mixer=alg, double_q=double_q, mixing_embed_dim=32, hypernet_layers=2, hypernet_embed=64,
        target_update_interval_or_tau=2,
    )  # fmt: skip
    if host.layout == "PyMARL2" and host.real:  # half the square: the same steps with half of RMSprop's ε and clip
        args |= {"optim_eps": 0.5e-5, "grad_norm_clip": 5}
    batches = episodes(learner.args)
    result = host.learn(tmp_path / "job", learner, args, batches)
    learn(learner, batches)
    assert_same(learner, result)


def test_a_learner_that_differs_is_seen(host, tmp_path):
    """The comparison can fail: another λ_nopt gives other weights."""
    learner = make_learner("qtran_base", **(OURS | {"nopt_loss": 0.2}))
    batches = episodes(learner.args)
    result = host.learn(tmp_path / "job", learner, plugin_args("qtran_base"), batches)
    learn(learner, batches)
    with pytest.raises(AssertionError, match="agent"):
        assert_same(learner, result)


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_agent_files_go_both_ways(host, alg, tmp_path):
    """Trained there, evaluated here, and back: the same greedy actions."""
    learner = make_learner(alg, **OURS)
    batches = episodes(learner.args)
    args = plugin_args(alg)
    there = host.learn(tmp_path / "there", learner, args, batches)
    here = make_learner(alg, **OURS, seed=1)
    here.mac.load_models(tmp_path / "there")
    assert_same_choices(here.mac, batches[-1], there["q"])

    learn(here, episodes(here.args, seed=50))
    (tmp_path / "saved").mkdir()
    here.save_models(tmp_path / "saved")
    saved = str(tmp_path / "saved")
    back = host.learn(tmp_path / "back", learner, args, batches, agent_folder=saved, updates=0)
    assert_same_choices(here.mac, batches[-1], back["q"])
    assert not torch.allclose(there["q"], back["q"], atol=1e-3)


def assert_same_choices(mac, batch, q_there):
    q_here = unroll(mac, batch).q.detach()
    filled = batch["filled"].bool().squeeze(-1)
    torch.testing.assert_close(q_here[filled], q_there[filled], rtol=0, atol=1e-5)
    possible = batch["avail_actions"].bool() & batch["filled"].bool().unsqueeze(-1)
    greedy = [torch.where(possible, q, -torch.inf).argmax(dim=-1) for q in (q_here, q_there)]
    assert torch.equal(*greedy) and possible.any()


@pytest.mark.parametrize("alg", ["qtran_base", "qtran_alt"])
def test_padding_in_a_host_changes_nothing(host, alg, tmp_path):
    learner = make_learner(alg, **OURS)
    batches = episodes(learner.args, n=2)
    noisy = [garbage_in_padding(batch, np.random.default_rng(7)) for batch in batches]
    args = plugin_args(alg)
    clean, dirty = (host.learn(tmp_path / str(i), learner, args, b) for i, b in enumerate((batches, noisy)))
    for name in ("agent", "mixer"):
        assert all(torch.equal(value, dirty[name][key]) for key, value in clean[name].items())


def test_missing_keys_are_named_in_one_message(host, tmp_path):
    learner = make_learner("qtran_alt", **OURS)
    args = plugin_args("qtran_alt")
    missing = ("td_target", "t_max", "lr_decay_start", "gamma", "agent_pool", "v_input")
    for name in missing:
        del args[name]
    with pytest.raises(AssertionError) as caught:
        host.learn(tmp_path / "job", learner, args, episodes(learner.args, n=1))
    assert all(f"missing key '{name}'" in str(caught.value) for name in missing)
