"""Runs the learner of an authors' checkout on values that stand in tables: `python authors.py SRC KIND IN OUT`.

IN holds, as torch saves them, tables of Q values [B, T+1, N, A], a batch and the mixers' weights; OUT gets the loss and
the gradients of the tables. Repairs, for what the code asks of its place and not of the algorithm: a `.cuda()` does
nothing; packages that are imported and not used here are empty.
"""

import sys
import types
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch

src, kind, given, out = sys.argv[1:]
sys.path.insert(0, src)
for name in ("controllers", "components", "components.episode_buffer"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["components.episode_buffer"].EpisodeBatch = object
for name in ("modules.mixers.qmix_central_attention", "utils.logging", "matplotlib", "matplotlib.pyplot"):
    sys.modules.setdefault(name, MagicMock())
torch.Tensor.cuda = lambda self, *_, **__: self
data = torch.load(given, weights_only=True)


class Tables(torch.nn.Module):
    """Stands for a controller: its values are parameters."""

    def __init__(self, values):
        super().__init__()
        self.q = torch.nn.Parameter(values.clone())

    def init_hidden(self, batch_size):
        pass

    def forward(self, batch, t):
        return self.q[:, t]


class Central(Tables):
    def forward(self, batch, t):
        return self.q[:, t].unsqueeze(-1)  # the values of each action are vectors of one number there


class Batch(dict):
    batch_size = data["batch"]["filled"].shape[0]
    max_seq_length = data["batch"]["filled"].shape[1]


tables = data["tables"]
central = Central(tables.get("central_agent", tables["agent"]))
sys.modules["controllers"].REGISTRY = {"basic_central_mac": lambda scheme, args: central}
args = SimpleNamespace(**data["args"])
logged = {}
logger = SimpleNamespace(log_stat=lambda k, v, t: logged.update({k: v}), console_logger=MagicMock())
module, name = {
    "qplex": ("learners.dmaq_qatten_learner", "DMAQ_qattenLearner"),
    "wqmix": ("learners.max_q_learner", "MAXQLearner"),
    "resq": ("learners.rest_q_learner_central", "RestQLearnerCentral"),
}[kind]
sys.modules["learners"] = types.ModuleType("learners")  # its registry imports what is not needed
sys.modules["learners"].__path__ = [f"{src}/learners"]
learner = getattr(__import__(module, fromlist=[name]), name)(Tables(tables["agent"]), None, logger, args)
learner.target_mac = Tables(tables["target_agent"])
of = {"agent": learner.mac}
if kind != "qplex":
    learner.target_central_mac = Central(tables["target_central_agent"])
    of["central_agent"] = learner.central_mac
    learner.central_mixer.load_state_dict(data["mixers"]["central_mixer"])
    learner.target_central_mixer.load_state_dict(data["mixers"]["target_central_mixer"])
if kind == "resq":
    with torch.no_grad():
        learner.rest_mac.q.copy_(tables["residual_agent"])
    of["residual_agent"] = learner.rest_mac
    learner.rest_mixer.load_state_dict(data["mixers"]["residual_mixer"])
learner.mixer.load_state_dict(data["mixers"]["mixer"])
learner.target_mixer.load_state_dict(data["mixers"]["target_mixer"])
learner.train(Batch(data["batch"]), 0, 0)
loss = logged["loss"] if "loss" in logged else logged["qmix_loss"] + logged["central_loss"]
torch.save({"loss": torch.tensor(loss), "grads": {k: mac.q.grad for k, mac in of.items()}}, out)
