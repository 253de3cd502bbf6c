import os
from types import SimpleNamespace

import torch
from components.transforms import OneHot

from components.episode_buffer import EpisodeBatch, ReplayBuffer
from controllers import REGISTRY as MACS
from learners import REGISTRY as LEARNERS
from runners.episode_runner import EpisodeRunner


class Logger:
    def log_stat(self, key, value, t):
        print(f"{key}: {value:.4f} at {t}")


def run(config):
    torch.manual_seed(config["seed"])
    args = SimpleNamespace(**config, device="cpu", use_cuda=False)
    runner = EpisodeRunner(args, Logger())
    buffer, mac = build(args, runner)
    learner = LEARNERS[args.learner](mac, buffer.scheme, Logger(), args)
    if args.checkpoint_path:
        runner.t_env = max(int(name) for name in os.listdir(args.checkpoint_path))
        learner.load_models(os.path.join(args.checkpoint_path, str(runner.t_env)))
        print(f"loaded {runner.t_env}")
    if args.evaluate:
        runner.run(test_mode=True)
        return
    train(args, runner, buffer, learner)
    folder = os.path.join(args.local_results_path, "models", str(runner.t_env))
    os.makedirs(folder)
    learner.save_models(folder)


def build(args, runner):
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
    return buffer, mac


def train(args, runner, buffer, learner):
    episode, next_test = 0, 0
    while runner.t_env <= args.t_max:
        buffer.insert_episode_batch(runner.run(test_mode=False))
        if buffer.can_sample(args.batch_size):
            learner.train(buffer.sample(args.batch_size), runner.t_env, episode)
        if runner.t_env >= next_test:
            runner.run(test_mode=True)
            next_test += args.test_interval
        episode += 1
