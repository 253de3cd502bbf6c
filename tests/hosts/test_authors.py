"""QPLEX, Weighted QMIX and ResQ beside their authors' code, on the same values, weights and batch:

AUTHORS_DIR=FOLDER pytest -m host tests/hosts/test_authors.py

FOLDER holds checkouts of hijkzzz/pymarl2 (with QPLEX as its authors wrote it), oxwhirl/wqmix and xmu-rl-3dv/ResQ, in
folders whose names contain pymarl2, wqmix and ResQ.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_learner, random_batch
from torch import nn

from learners.transitions import at

pytestmark = pytest.mark.host
FOLDER = os.environ.get("AUTHORS_DIR")
COMMON = dict(
    gamma=0.97, double_q=True, grad_norm_clip=1e9, lr=1e-9, optim_alpha=0.99, optim_eps=1e-5, learner_log_interval=-1,
    target_update_interval=1e9, mixing_embed_dim=8, hypernet_layers=2, hypernet_embed=6, mixer="qmix",
)  # fmt: skip
CENTRAL = dict(central_mixer="ff", central_mac="basic_central_mac", central_action_embed=1, central_mixing_embed_dim=7,
               central_loss=1, qmix_loss=1)  # fmt: skip
OURS = {"hypernet_embed": 6, "gamma": 0.97, "td_lambda": 0.0}
CASES = {
    "qplex": ("qplex", "pymarl2", {"n_lambda_heads": 3, "lambda_layers": 1},
              dict(mixer="dmaq", num_kernel=3, adv_hypernet_embed=4, adv_hypernet_layers=1, is_minus_one=True,
                   weighted_head=True, td_lambda=0.0)),
    "ow_qmix": ("ow_qmix", "wqmix", {"alpha": 0.3}, CENTRAL | dict(w=0.3, hysteretic_qmix=True)),
    "cw_qmix": ("cw_qmix", "wqmix", {"alpha": 0.3, "cw_reference": "target"},
                CENTRAL | dict(w=0.3, hysteretic_qmix=False)),
    "resq": ("resq", "ResQ", {"residual": "raw"},
             CENTRAL | dict(hysteretic_qmix=False, condition="max_action", resq_version="v3", noopt_loss=0,
                            td_lambda=0.0, residual_negative_abs=True)),
}  # fmt: skip
KIND = {"qplex": "qplex", "ow_qmix": "wqmix", "cw_qmix": "wqmix", "resq": "resq"}


class Tables(nn.Module):
    """Stands for an agent network: its values are parameters [B, T+1, N, A]."""

    def __init__(self, values):
        super().__init__()
        self.q = nn.Parameter(values)


def checkout(name):
    found = [path for path in Path(FOLDER or ".").glob(f"*{name}*") if path.is_dir()] if FOLDER else []
    if not found:
        pytest.skip(f"AUTHORS_DIR={FOLDER}: no checkout of {name} is in it")
    inner = found[0] / "ResQ" / "src"
    return inner if inner.is_dir() else found[0] / "src"


def of_the_authors(state, heads, n_agents):
    """The weights of our QPLEX mixer under the names of the authors' K small networks."""
    out = {}
    for theirs, ours in (("hyper_w_final", "w"), ("V", "b")):
        out |= {k.replace(ours, theirs, 1): v for k, v in state.items() if k.startswith(f"{ours}.")}
    for theirs, ours, rows in (("key", "key", 1), ("agents", "agent", n_agents), ("action", "action", n_agents)):
        for k in range(heads):
            for part in ("weight", "bias"):
                piece = state[f"{ours}.{part}"][k * rows : (k + 1) * rows]
                out[f"si_weight.{theirs}_extractors.{k}.{part}"] = piece.clone()
    return out


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_loss_and_the_gradients_are_the_authors(case, tmp_path, monkeypatch):
    alg, where, ours, theirs = CASES[case]
    src = checkout(where)
    sizes = {"central_mixing_embed_dim": 7, "mixing_embed_dim": 8} if alg != "qplex" else {}
    learner = make_learner(alg, **OURS, **sizes, **ours)
    batch = random_batch(np.random.default_rng(3), learner.args)
    batch["terminated"].copy_(batch["terminated"] | batch["truncated"])  # the authors' know no other ends
    batch["truncated"].zero_()
    n_episodes, n_steps = batch["filled"].shape[:2]
    shape = n_episodes, n_steps, learner.args.n_agents, learner.args.n_actions
    generator = torch.Generator().manual_seed(5)
    tables = {}
    for prefix in ("", "target_"):
        for name in learner.all_networks(prefix):
            if name.endswith("agent"):
                tables[prefix + name] = Tables(torch.randn(shape, generator=generator))
    learner.mac.agent, learner.target_mac.agent = tables["agent"], tables["target_agent"]
    for prefix, networks in (("", learner.networks), ("target_", learner.target_networks)):
        networks.update({name: tables[prefix + name] for name in networks if name.endswith("agent")})
    for mac in (learner.mac, learner.target_mac):
        monkeypatch.setattr(
            type(mac), "unroll", lambda mac, batch, index: (at(mac.agent.q, index), at(mac.agent.q, index))
        )
    mixers = {
        prefix + name: network.state_dict()
        for prefix in ("", "target_")
        for name, network in learner.all_networks(prefix).items()
        if name.endswith("mixer")
    }
    if alg == "qplex":
        heads, n = learner.mixer.config.n_lambda_heads, learner.args.n_agents
        mixers = {name: of_the_authors(state, heads, n) for name, state in mixers.items()}
    fields = {k: v.clone() for k, v in batch.data.items()}
    fields["actions"] = fields["actions"].long()
    fields["terminated"], fields["filled"] = fields["terminated"].to(torch.uint8), fields["filled"].long()
    fields["avail_actions"] = fields["avail_actions"].long()
    fields["actions_onehot"] = nn.functional.one_hot(fields["actions"].squeeze(-1), learner.args.n_actions).float()
    args = COMMON | theirs | {k: getattr(learner.args, k) for k in ("n_agents", "n_actions", "state_shape")}
    torch.save(
        {"batch": fields, "tables": {k: t.q.detach() for k, t in tables.items()}, "mixers": mixers, "args": args},
        tmp_path / "in.pt",
    )
    command = [sys.executable, str(Path(__file__).with_name("authors.py")), str(src), KIND[alg]]
    done = subprocess.run([*command, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peer = torch.load(tmp_path / "out.pt", weights_only=True)
    factor = 0.5 if alg == "qplex" else 1.0  # theirs is half the mean square
    loss, _ = learner.loss(batch)
    (factor * loss).backward()
    assert (factor * loss).item() == pytest.approx(peer["loss"].item(), rel=1e-6)
    for name, gradient in peer["grads"].items():
        assert torch.allclose(tables[name].q.grad, gradient, rtol=1e-5, atol=1e-6), name
