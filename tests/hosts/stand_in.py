"""A small host of our own with the interfaces of EPyMARL, PyMARL2 and PyMARL: `make(folder, layout)` writes it.

It has what the plugin touches and relies on: main.py with `--config`, `--env-config` and `with`, registries, the MAC and
its hidden states, EpisodeBatch, an episode runner, saving and loading, and a QTRAN of its own that reads `qtran_arch`.
The layouts differ as the originals do: names of keys, the shape of hidden states, what an environment's step returns.
"""

import subprocess
import textwrap

LAYOUTS = ("EPyMARL", "PyMARL2", "PyMARL")

FILES = {
    "src/main.py": '''
        import os, sys, yaml
        from run import run

        def layer(kind, flag):
            name = next(w.split("=")[1] for w in sys.argv if w.startswith(flag))
            with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "config", kind, name + ".yaml")) as f:
                return yaml.safe_load(f)

        if __name__ == "__main__":
            with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "config", "default.yaml")) as f:
                config = yaml.safe_load(f)
            config.update(layer("envs", "--env-config"))
            config.update(layer("algs", "--config"))
            for word in sys.argv[sys.argv.index("with") + 1 :]:
                key, value = word.split("=")
                config[key] = yaml.safe_load(value)
            run(config)
        ''',
    "RUN": '''
        import os
        from types import SimpleNamespace
        import torch
        from components.episode_buffer import EpisodeBatch, ReplayBuffer
        from components.transforms import OneHot
        from controllers import REGISTRY as MACS
        from learners import REGISTRY as LEARNERS
        from runners.episode_runner import EpisodeRunner

        class Logger:
            def log_stat(self, key, value, t):
                print(f"{key}: {value:.4f} at {t}")

        def run(config):
            torch.manual_seed(config["seed"])
            args = SimpleNamespace(**config, device="cpu")
            args.use_cuda = False
            runner = EpisodeRunner(args, Logger())
            info = runner.env.get_env_info()
            args.n_agents, args.n_actions, args.state_shape = info["n_agents"], info["n_actions"], info["state_shape"]
            group = {"group": "agents"}
            scheme = {
                "state": {"vshape": info["state_shape"]},
                "obs": {"vshape": info["obs_shape"], **group},
                "actions": {"vshape": (1,), "dtype": torch.long, **group},
                "avail_actions": {"vshape": (args.n_actions,), "dtype": torch.int, **group},
                "reward": {"vshape": (1,)},
                "terminated": {"vshape": (1,), "dtype": torch.uint8},
            }
            onehot = {"actions": ("actions_onehot", [OneHot(out_dim=args.n_actions)])}
            groups, length = {"agents": args.n_agents}, info["episode_limit"] + 1
            buffer = ReplayBuffer(scheme, groups, args.buffer_size, length, preprocess=onehot)
            mac = MACS[args.mac](buffer.scheme, groups, args)
            runner.setup(lambda: EpisodeBatch(scheme, groups, 1, length, preprocess=onehot), mac)
            learner = LEARNERS[args.learner](mac, buffer.scheme, Logger(), args)
            if args.checkpoint_path:
                last = max(int(name) for name in os.listdir(args.checkpoint_path))
                learner.load_models(os.path.join(args.checkpoint_path, str(last)))
                runner.t_env = last
                print(f"loaded {last}")
            episode, next_test = 0, 0
            while runner.t_env <= args.t_max:
                buffer.insert_episode_batch(runner.run(test_mode=False))
                if buffer.can_sample(args.batch_size):
                    learner.train(buffer.sample(args.batch_size), runner.t_env, episode)
                if runner.t_env >= next_test:
                    runner.run(test_mode=True)
                    next_test += args.test_interval
                episode += 1
            folder = os.path.join(args.local_results_path, "models", str(runner.t_env))
            os.makedirs(folder)
            learner.save_models(folder)
        ''',
    "src/runners/__init__.py": "",
    "src/runners/episode_runner.py": '''
        from envs import REGISTRY

        class EpisodeRunner:
            def __init__(self, args, logger):
                self.env, self.logger, self.t_env = REGISTRY[args.env](**args.env_args, {ENV_EXTRA}), logger, 0

            def setup(self, new_batch, mac):
                self.new_batch, self.mac = new_batch, mac

            def observe(self, batch, t):
                env = self.env
                seen = {"state": [env.get_state()], "avail_actions": [env.get_avail_actions()], "obs": [env.get_obs()]}
                batch.update(seen, ts=t)

            def run(self, test_mode):
                batch, t, over, total = self.new_batch(), 0, False, 0.0
                self.env.reset()
                self.mac.init_hidden(1)
                while not over:
                    self.observe(batch, t)
                    actions = self.mac.select_actions(batch, t_ep=t, t_env=self.t_env, test_mode=test_mode)
                    {STEP}
                    total += reward
                    batch.update({"actions": actions, "reward": [(reward,)], "terminated": [(over,)]}, ts=t)
                    t += 1
                self.observe(batch, t)
                if test_mode:
                    self.logger.log_stat("test_return_mean", total, self.t_env)
                else:
                    self.t_env += t
                return batch
        ''',
    "src/envs/__init__.py": """
        REGISTRY = {}
        """,
    "src/components/__init__.py": "",
    "src/components/transforms.py": '''
        import torch

        class OneHot:
            def __init__(self, out_dim):
                self.out_dim = out_dim

            def transform(self, x):
                return torch.nn.functional.one_hot(x.squeeze(-1).long(), self.out_dim).float()
        ''',
    "src/components/episode_buffer.py": '''
        import numpy as np
        import torch

        class EpisodeBatch:
            def __init__(self, scheme, groups, batch_size, max_seq_length, data=None, preprocess=None, device="cpu"):
                self.scheme, self.groups, self.preprocess, self.device = dict(scheme), groups, preprocess or {}, device
                self.batch_size, self.max_seq_length = batch_size, max_seq_length
                for source, (new, (transform,)) in self.preprocess.items():
                    self.scheme[new] = {"vshape": (transform.out_dim,), "group": "agents"}
                self.scheme["filled"] = {"vshape": (1,), "dtype": torch.long}
                self.data = data or {k: torch.zeros(batch_size, max_seq_length, *self.shape(v),
                                                    dtype=v.get("dtype", torch.float32)) for k, v in self.scheme.items()}

            def shape(self, field):
                v = field["vshape"]
                return ((self.groups["agents"],) if "group" in field else ()) + ((v,) if isinstance(v, int) else v)

            def update(self, data, bs=slice(None), ts=slice(None), mark_filled=True):
                for k, v in data.items():
                    target = self.data[k]
                    v = torch.as_tensor(np.array(v) if isinstance(v, list) else v, dtype=target.dtype)
                    target[bs, ts] = v.reshape(target[bs, ts].shape)
                    if k in self.preprocess:
                        new, (transform,) = self.preprocess[k]
                        self.data[new][bs, ts] = transform.transform(target[bs, ts])
                if mark_filled:
                    self.data["filled"][bs, ts] = 1

            def __getitem__(self, item):
                if isinstance(item, str):
                    return self.data[item]
                data = {k: v[item] for k, v in self.data.items()}
                b, t = data["filled"].shape[:2]
                return EpisodeBatch(self.scheme, self.groups, b, t, data=data)

        class ReplayBuffer(EpisodeBatch):
            def __init__(self, scheme, groups, buffer_size, max_seq_length, preprocess=None):
                super().__init__(scheme, groups, buffer_size, max_seq_length, preprocess=preprocess)
                self.size, self.seen = buffer_size, 0

            def insert_episode_batch(self, batch):
                for k, v in batch.data.items():
                    self.data[k][self.seen % self.size] = v[0]
                self.seen += 1

            def can_sample(self, n):
                return self.seen >= n

            def sample(self, n):
                return self[torch.randperm(min(self.seen, self.size))[:n], :]
        ''',
    "src/controllers/__init__.py": """
        from .basic_controller import BasicMAC
        REGISTRY = {"basic_mac": BasicMAC}
        """,
    "src/controllers/basic_controller.py": '''
        import torch
        from modules.agents import Agent

        class BasicMAC:
            def __init__(self, scheme, groups, args):
                self.args, self.n_agents, self.hidden_states = args, args.n_agents, None
                self.agent = Agent(scheme["obs"]["vshape"] + args.n_actions + args.n_agents, args)

            def select_actions(self, batch, t_ep, t_env, bs=slice(None), test_mode=False):
                q, avail = self.forward(batch, t_ep), batch["avail_actions"][:, t_ep]
                left = max(0.0, 1 - t_env / self.args.epsilon_anneal_time)
                epsilon = self.args.epsilon_finish + left * (self.args.epsilon_start - self.args.epsilon_finish)
                greedy = q.masked_fill(avail == 0, -float("inf")).argmax(-1)
                chance = torch.distributions.Categorical(avail.float()).sample()
                explore = torch.rand(greedy.shape) < (0.0 if test_mode else epsilon)
                return torch.where(explore, chance, greedy)

            def forward(self, batch, t, test_mode=False):
                b = batch.batch_size
                last = batch["actions_onehot"][:, t - 1] if t else torch.zeros_like(batch["actions_onehot"][:, 0])
                ids = torch.eye(self.n_agents).expand(b, -1, -1)
                x = torch.cat([batch["obs"][:, t], last, ids], dim=-1).reshape(b * self.n_agents, -1)
                q, h = self.agent(x, self.hidden_states)
                self.hidden_states = h{HIDDEN}
                return q.view(b, self.n_agents, -1)

            def init_hidden(self, batch_size):
                self.hidden_states = torch.zeros(batch_size, self.n_agents, self.args.{WIDTH})

            def parameters(self):
                return self.agent.parameters()

            def load_state(self, other):
                self.agent.load_state_dict(other.agent.state_dict())

            def save_models(self, path):
                torch.save(self.agent.state_dict(), f"{path}/agent.th")

            def load_models(self, path):
                self.agent.load_state_dict(torch.load(f"{path}/agent.th"))
        ''',
    "src/modules/__init__.py": "",
    "src/modules/agents/__init__.py": '''
        import torch
        from torch import nn

        class Agent(nn.Module):
            def __init__(self, width, args):
                super().__init__()
                h = self.h = args.{WIDTH}
                self.fc1, self.rnn, self.fc2 = nn.Linear(width, h), nn.GRUCell(h, h), nn.Linear(h, args.n_actions)

            def forward(self, x, hidden):
                h = self.rnn(torch.relu(self.fc1(x)), hidden.reshape(-1, self.h))
                return self.fc2(h), h
        ''',
    "src/modules/mixers/__init__.py": "",
    "src/modules/mixers/qtran.py": '''
        import torch
        from torch import nn

        class QTranBase(nn.Module):
            """The stand-in's own: Q_jt reads the state and the sum of encodings, V_jt the state."""

            def __init__(self, args):
                super().__init__()
                assert args.qtran_arch == "qtran_paper" and args.network_size == "small"
                e, m, s = args.rnn_hidden_dim + args.n_actions, args.mixing_embed_dim, args.state_shape
                self.action_encoding = nn.Sequential(nn.Linear(e, e), nn.ReLU(), nn.Linear(e, e))
                self.Q = nn.Sequential(*self.layers(s + e, m))
                self.V = nn.Sequential(*self.layers(s, m))

            def layers(self, n_in, m):
                return nn.Linear(n_in, m), nn.ReLU(), nn.Linear(m, m), nn.ReLU(), nn.Linear(m, 1)

            def forward(self, state, hidden, onehot):
                encoded = self.action_encoding(torch.cat([hidden, onehot], dim=-1)).sum(dim=2)
                return self.Q(torch.cat([state, encoded], dim=-1)).squeeze(-1), self.V(state).squeeze(-1)
        ''',
    "src/learners/__init__.py": """
        from .qtran_learner import QLearner as QTranLearner

        REGISTRY = {}
        REGISTRY["qtran_learner"] = QTranLearner
        """,
    "src/learners/qtran_learner.py": '''
        import copy
        import torch
        from modules.mixers.qtran import QTranBase

        class QLearner:
            """The stand-in's own QTRAN-base. Its hidden states must be [B*N, H]."""

            def __init__(self, mac, scheme, logger, args):
                self.args, self.mac, self.mixer, self.last = args, mac, QTranBase(args), 0
                self.target_mac, self.target_mixer = copy.deepcopy(mac), copy.deepcopy(self.mixer)
                self.params = [*mac.parameters(), *self.mixer.parameters()]
                self.optimiser = torch.optim.RMSprop(self.params, args.lr, args.optim_alpha, args.optim_eps)

            def unroll(self, mac, batch):
                mac.init_hidden(batch.batch_size)
                q, h = [], []
                for t in range(batch.max_seq_length):
                    q.append(mac.forward(batch, t=t))
                    assert mac.hidden_states.dim() == 2
                    h.append(mac.hidden_states.view(batch.batch_size, mac.n_agents, -1))
                return torch.stack(q, 1), torch.stack(h, 1)

            def train(self, batch, t_env, episode):
                over = batch["terminated"][:, :-1, 0].float()
                mask = batch["filled"][:, :-1, 0].float()
                mask[:, 1:] = mask[:, 1:] * (1 - over[:, :-1])
                avail, onehot, state = batch["avail_actions"] > 0, batch["actions_onehot"][:, :-1], batch["state"]
                best = lambda q: torch.nn.functional.one_hot(q.masked_fill(~avail, -1e7).argmax(-1), q.shape[-1]).float()
                q, h = self.unroll(self.mac, batch)
                with torch.no_grad():
                    q_target, h_target = self.unroll(self.target_mac, batch)
                    greedy = best(q if self.args.double_q else q_target)
                    next_q, _ = self.target_mixer(state[:, 1:], h_target[:, 1:], greedy[:, 1:])
                    y = batch["reward"][:, :-1, 0] + self.args.gamma * (1 - over) * next_q
                    greedy = best(q)[:, :-1]
                joint, v = self.mixer(state[:, :-1], h[:, :-1], onehot)
                joint_best, _ = self.mixer(state[:, :-1], h[:, :-1], greedy)
                td = joint - y
                opt = (q[:, :-1] * greedy).sum((2, 3)) - joint_best.detach() + v
                nopt = ((q[:, :-1] * onehot).sum((2, 3)) - joint.detach() + v).clamp(max=0)
                losses = [(mask * x**2).sum() / mask.sum() for x in (td, opt, nopt)]
                loss = losses[0] + self.args.opt_loss * losses[1] + self.args.nopt_min_loss * losses[2]
                self.optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.params, self.args.grad_norm_clip)
                self.optimiser.step()
                if episode - self.last >= self.args.target_update_interval:
                    self.target_mac.load_state(self.mac)
                    self.target_mixer.load_state_dict(self.mixer.state_dict())
                    self.last = episode

            def save_models(self, path):
                self.mac.save_models(path)
        ''',
    "src/utils/__init__.py": "",
    "src/config/default.yaml": """
        mac: basic_mac
        {WIDTH}: 8
        {COMMON}
        seed: 1
        gamma: 0.99
        batch_size: 8
        buffer_size: 64
        lr: 0.0005
        optim_alpha: 0.99
        optim_eps: 0.00001
        grad_norm_clip: 10
        obs_agent_id: True
        obs_last_action: True
        checkpoint_path: ""
        local_results_path: results
        """,
    "src/config/envs/empty.yaml": "env: none\n",
    "src/config/algs/qtran.yaml": """
        name: qtran
        learner: qtran_learner
        mixer: qtran_base
        qtran_arch: qtran_paper
        network_size: small
        mixing_embed_dim: 64
        opt_loss: 1
        nopt_min_loss: 0.1
        target_update_interval: 200
        double_q: True
        """,
}


def make(folder, layout, git=True):
    """Write the stand-in with `layout` into `folder`, committed where `git`; returns the folder."""
    words = {
        "{ENV_EXTRA}": "common_reward=True, seed=1" if layout == "EPyMARL" else "seed=1",
        "{STEP}": "reward, over, info = self.env.step(actions[0])",
        "{HIDDEN}": ".view(b, self.n_agents, -1)" if layout == "PyMARL2" else "",
        "{WIDTH}": "hidden_dim" if layout == "EPyMARL" else "rnn_hidden_dim",
        "{COMMON}": "common_reward: True" if layout == "EPyMARL" else "",
    }
    if layout == "EPyMARL":
        words["{STEP}"] = "_, reward, over, truncated, info = self.env.step(actions[0])"
    files = dict(FILES)
    run = files.pop("RUN")
    if layout == "PyMARL2":
        files["src/run/__init__.py"], files["src/run/run.py"] = "from .run import run\n", run
    else:
        files["src/run.py"] = run
    for path, content in files.items():
        content = textwrap.dedent(content).lstrip("\n")
        for word, value in words.items():
            content = content.replace(word, value)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    if git:
        commit(folder)
    return folder


def commit(folder):
    """Commit everything in `folder`, in a repository of its own."""
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.fileMode=true"]
    for words in (["init", "-q"], ["add", "-A"], [*name, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
