"""The sides of the comparators' authors: QPLEX in hijkzzz/pymarl2, Weighted QMIX in oxwhirl/wqmix, ResQ in
xmu-rl-3dv/ResQ. All three grew out of PyMARL and are run in the same way, with the keys of their own files.

They do not start as they are: what is repaired, in this process and never in their files, is in `REPAIRS`.
"""

# It imports modules of the checkouts, which have the names of ours: what pyright knows of ours is wrong of them.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportIndexIssue=false

import importlib
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from costs.epymarl import scheme_of
from costs.ours import Silent
from costs.sides import Made
from costs.sizes import Sizes, fields

# {algorithm: (folder of the sources, its file of config/algs, module of its learner, class)}
LEARNERS = {
    "qplex": ("src", "qplex", "dmaq_qatten_learner", "DMAQ_qattenLearner"),
    "ow_qmix": ("src", "ow_qmix", "max_q_learner", "MAXQLearner"),
    "cw_qmix": ("src", "cw_qmix", "max_q_learner", "MAXQLearner"),
    "resq": ("ResQ/src", "ResQ", "rest_q_learner_central", "RestQLearnerCentral"),
}
UNUSED = ("matplotlib", "matplotlib.pyplot", "modules.mixers.qmix_central_attention", "torch_scatter", "absl", "pysc2")
REPAIRS = {
    "unused": "modules that it imports and does not use here are empty",
    "registries": "its table of learners, which imports all of them, is passed by",
    "cuda": ".cuda() does nothing on the CPU",
}


def update(path: str, algorithm: str, sizes: dict, device: str, threads: int) -> Made:
    """Work: one update of `algorithm` on one batch of random episodes."""
    inner, file, module, name = LEARNERS[algorithm]
    src = Path(path, inner)
    sys.path.insert(0, str(src))
    import torch
    import yaml

    torch.set_num_threads(threads)
    for unused in UNUSED:
        sys.modules.setdefault(unused, MagicMock())
    sys.modules["learners"] = types.ModuleType("learners")
    sys.modules["learners"].__path__ = [str(src / "learners")]
    if device == "cpu":
        do_nothing: Any = lambda self, *_, **__: self  # noqa: E731
        torch.Tensor.cuda = torch.nn.Module.cuda = do_nothing
    from components.episode_buffer import EpisodeBatch
    from controllers import REGISTRY as controllers

    values: dict = {}
    for layer in ("default", f"algs/{file}"):
        values |= yaml.safe_load((src / "config" / f"{layer}.yaml").read_text())
    size = Sizes(**sizes)
    args = SimpleNamespace(
        **values | {"learner_log_interval": 10**9, "use_cuda": device == "cuda"}, n_agents=size.agents,
        n_actions=size.actions, state_shape=size.state, obs_shape=size.obs, episode_limit=size.steps, device=device,
    )  # fmt: skip
    scheme, groups, preprocess = scheme_of(size)
    batch = EpisodeBatch(scheme, groups, size.batch, size.steps + 1, preprocess=preprocess)
    batch.update(fields(torch, size), mark_filled=False)
    torch.manual_seed(0)
    mac = controllers[args.mac](batch.scheme, groups, args)
    learner = getattr(importlib.import_module(f"learners.{module}"), name)(mac, batch.scheme, Silent(), args)
    if device == "cuda":
        learner.cuda()
        batch.to("cuda")

    def work() -> dict:
        learner.train(batch, 0, 0)
        return {"updates": 1}

    for _ in range(3):
        work()
    return work, {"repairs": list(REPAIRS.values())}
