"""Runs inside a host (PYTHONPATH is its src), for `test_agreement.py`: learns what it is told to.

Each line of standard input is a folder with `job.th`: args (the host's configuration), sizes, batches
[{field: [B, T+1, …]}], updates (how many batches are learned from), weights {"agent", "mixer", "target_agent",
"target_mixer"}, agent_folder (of agent.th to start from, or None), repaired. The folder gets what the learner saves and
`result.th`: the weights afterwards, and q [B, T+1, N, A] on the last batch; or `error.txt`. `done` follows on standard
output.
"""

import logging
import sys
import traceback
from types import SimpleNamespace

import torch
from components.transforms import OneHot

from components.episode_buffer import EpisodeBatch
from controllers import REGISTRY as MACS
from learners import REGISTRY as LEARNERS


class SilentLogger:
    console_logger = logging.getLogger("silent")

    def log_stat(self, *_):
        pass


def host_batch(fields, args):
    group = {"group": "agents"}
    scheme = {
        "state": {"vshape": args.state_shape},
        "obs": {"vshape": args.obs_shape, **group},
        "actions": {"vshape": (1,), "dtype": torch.long, **group},
        "avail_actions": {"vshape": (args.n_actions,), "dtype": torch.int, **group},
        "reward": {"vshape": (1,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }
    b, t = fields["filled"].shape[:2]
    onehot = {"actions": ("actions_onehot", [OneHot(out_dim=args.n_actions)])}
    batch = EpisodeBatch(scheme, {"agents": args.n_agents}, b, t, preprocess=onehot)
    batch.update({k: fields[k] for k in scheme}, mark_filled=False)
    batch["filled"][:] = fields["filled"]
    return batch


def repair(mac):
    """Hidden states [B*N, H] between two steps: the hosts' own QTRAN splits its rows so, and scrambles [B, N, H]."""

    class Repaired(type(mac)):
        def forward(self, batch, t, test_mode=False):
            self.hidden_states = self.hidden_states.reshape(batch.batch_size, self.n_agents, -1)
            q = super().forward(batch, t, test_mode=test_mode)
            self.hidden_states = self.hidden_states.reshape(batch.batch_size * self.n_agents, -1)
            return q

    mac.__class__ = Repaired


def act(folder):
    job = torch.load(f"{folder}/job.th", weights_only=True)
    args = SimpleNamespace(**job["args"], **job["sizes"], device="cpu", use_cuda=False)
    batches = [host_batch(fields, args) for fields in job["batches"]]
    mac = MACS[args.mac](batches[0].scheme, {"agents": args.n_agents}, args)
    if job["repaired"]:
        repair(mac)
    learner = LEARNERS[args.learner](mac, batches[0].scheme, SilentLogger(), args)
    modules = {"agent": mac.agent, "target_agent": learner.target_mac.agent}
    modules |= {"mixer": learner.mixer, "target_mixer": learner.target_mixer}
    for name, weights in job["weights"].items():
        modules[name].load_state_dict(weights)
    if job["agent_folder"]:
        mac.load_models(job["agent_folder"])
    for i, batch in enumerate(batches[: job["updates"]]):
        learner.train(batch, i, i)
    with torch.no_grad():
        mac.init_hidden(batches[-1].batch_size)
        q = torch.stack([mac.forward(batches[-1], t=t) for t in range(batches[-1].max_seq_length)], dim=1)
    learner.save_models(folder)
    result = {name: module.state_dict() for name, module in modules.items()}
    torch.save({**result, "q": q, "learner": type(learner).__module__}, f"{folder}/result.th")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        try:
            act(line.strip())
        except Exception:
            with open(f"{line.strip()}/error.txt", "w") as f:
                f.write(traceback.format_exc())
        print("\ndone", flush=True)
