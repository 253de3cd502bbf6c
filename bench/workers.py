"""What processes cost: steps of 8 trivial environments in workers, against 8 pipes that carry numpy arrays.

    PYTHONPATH=src python bench/workers.py [--n-envs 8] [--steps 300] [--repeats 15]

The pipes do what EPyMARL's parallel runner does: send ("step", actions), receive a dictionary of arrays, stack them.
The sizes are those of SMAC's 2s3z, and no environment computes anything. The two are timed in turn, so that a noisy
machine slows both; medians over repeats. The aim is a ratio of at least 3. About 20 seconds on two cores.
"""

import argparse
import multiprocessing
import time
from dataclasses import dataclass

import numpy as np

from envs.vector import EnvInfo, Observation, Step, VectorEnv
from envs.workers import WorkerEnv

N, A = 5, 11
INFO = EnvInfo(N, A, obs_shape=80, state_shape=120, episode_limit=100)


class Trivial(VectorEnv):
    """Shows zeros, for ever."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config, n_envs=1, seed=None):
        self.env_info = INFO
        obs, state = np.zeros((1, N, INFO.obs_shape)), np.zeros((1, INFO.state_shape))
        self.seen = Observation(np.float32(obs), np.float32(state), np.ones((1, N, A), bool))
        self.paid, self.over = np.zeros(1, np.float32), np.zeros(1, bool)

    def reset(self, seed=None, mask=None):
        return self.seen

    def step(self, actions):
        return Step(*self.seen, self.paid, self.over, self.over, {})


def serve(pipe):
    env = Trivial(None)
    while pipe.recv() is not None:
        obs, state, avail = env.seen
        data = {"obs": obs[0], "state": state[0], "avail_actions": avail[0], "reward": 0.0, "terminated": False}
        pipe.send(data | {"info": {}})


class Pipes:
    def __init__(self, n_envs):
        self.pipes = []
        for _ in range(n_envs):
            ours, theirs = multiprocessing.get_context("spawn").Pipe()
            multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True).start()
            self.pipes.append(ours)

    def step(self, actions):
        for pipe, a in zip(self.pipes, actions):
            pipe.send(("step", a))
        data = [pipe.recv() for pipe in self.pipes]
        return [np.stack([d[k] for d in data]) for k in ("obs", "state", "avail_actions")]

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)


def seconds(env, actions, steps):
    start = time.perf_counter()
    for _ in range(steps):
        env.step(actions)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-envs", type=int, default=8, help="environments (default: 8)")
    parser.add_argument("--steps", type=int, default=300, help="steps between two looks at the clock (default: 300)")
    parser.add_argument("--repeats", type=int, default=15, help="timed stretches of steps (default: 15)")
    args = parser.parse_args()
    workers, pipes = WorkerEnv(Trivial, Trivial.Config(), args.n_envs), Pipes(args.n_envs)
    workers.reset()
    actions = np.zeros((args.n_envs, N), dtype=np.int64)
    times = [[seconds(env, actions, args.steps) for env in (workers, pipes)] for _ in range(args.repeats + 1)]
    rates = args.n_envs * args.steps / np.array(times[1:])  # the first one warms up
    for name, rate in zip(("workers", "pipes"), rates.T):
        print(f"{name:8s} {np.median(rate):8.0f} environment steps a second")
    low, ratio, high = np.quantile(rates[:, 0] / rates[:, 1], (0.25, 0.5, 0.75))
    print(f"ratio {ratio:.1f} (quartiles {low:.1f} to {high:.1f}, {args.repeats} pairs)")
    workers.close()
    pipes.close()


if __name__ == "__main__":
    main()
