"""What the runner costs on SMAX: acting and stepping without learning, against the same loop without it.

    PYTHONPATH=src python bench/smax.py [--map 3m] [--n-envs 32] [--rounds 20]

The bare loop is jaxmarl's vmapped step_env, the same agent network and ε-greedy, and nothing else: no state, no batch,
no statistics, no checks. Both play whole rounds, until the last of the environments has ended, in turn, so that a noisy
machine slows both; CPU time, medians over rounds. The aim is a ratio of at least 0.6. About 2 minutes on one core.
Training on SMAX is measured by `bench/run.py train --only smax`.
"""

import argparse
import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import envs
from components.episode_buffer import make_scheme
from controllers import mac_class
from envs.games.smax import SMAX, make_game
from parts import readers
from runners.episode_runner import EpisodeRunner
from utils.config import load


class Silent:
    console_logger = logging.getLogger("bench")

    def log_stat(self, *_: object) -> None:
        pass


def parts(map_name: str, n_envs: int) -> tuple[EpisodeRunner, Any]:
    """A runner of ours, and the MAC that it acts with, as a run of QMIX has them."""
    values = load("qmix", "smax", {"env_args.map_name": map_name, "seed": 0, "epsilon_anneal_time": 0}, readers).values
    env = envs.make("smax", values["env_args"], n_envs, seed=0)
    info = env.env_info
    args = SimpleNamespace(**values, **vars(info), game_seed=0)
    scheme, groups = make_scheme(info, True), {"agents": info.n_agents}
    mac = mac_class(args.mac)(scheme, groups, args)
    silent: Any = Silent()
    return EpisodeRunner(env, mac, scheme, groups, silent, args), mac


class Bare:
    """The loop that somebody in a hurry writes."""

    def __init__(self, config: Any, mac: Any, n_envs: int) -> None:
        import jax
        import jax.numpy as jnp

        self.game, self.mac, self.n_envs = make_game(config), mac, n_envs
        game, agents = self.game, self.game.agents
        self.rng, self.keys = np.random.default_rng(0), jax.random.split(jax.random.PRNGKey(0), n_envs)

        def look(obs: Any, state: Any) -> tuple[Any, Any]:
            avail = game.get_avail_actions(state)
            return jnp.stack([obs[a] for a in agents]), jnp.stack([avail[a] for a in agents])

        def begin(key: Any) -> tuple[Any, ...]:
            key, now = jax.random.split(key)
            obs, state = game.reset(now)
            return key, state, *look(obs, state)

        def step(key: Any, state: Any, actions: Any) -> tuple[Any, ...]:
            key, now = jax.random.split(key)
            obs, state, reward, done, _ = game.step_env(now, state, dict(zip(agents, actions)))
            return key, state, *look(obs, state), reward[agents[0]], done["__all__"]

        self.begin, self.step = jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(step))

    @torch.inference_mode()
    def round(self) -> int:
        """Returns the steps of one episode in each environment."""
        n_agents, n_actions = self.game.num_allies, 5 + self.game.num_enemies
        self.keys, state, obs, avail = self.begin(self.keys)
        hidden = self.mac.agent.init_hidden(self.n_envs, n_agents)
        actions, live, steps = np.full((self.n_envs, n_agents), n_actions), np.ones(self.n_envs, dtype=bool), 0
        while live.any():
            last = torch.from_numpy(actions)
            q, hidden = self.mac.agent(torch.from_numpy(np.array(obs)), last, self.mac.agent_ids, hidden)
            free = np.asarray(avail).astype(bool)
            greedy = np.where(free, q.numpy(), -np.inf).argmax(axis=-1)
            explore = self.rng.random(greedy.shape) < 0.05
            actions = np.where(explore, np.where(free, self.rng.random(free.shape), -1).argmax(axis=-1), greedy)
            self.keys, state, obs, avail, reward, done = self.step(self.keys, state, actions)
            steps += live.sum()
            live &= ~np.asarray(done)
        return int(steps)


def rate(play: Callable[[], int]) -> float:
    """Environment steps per second of CPU time; play() returns the steps."""
    start = time.process_time()
    return play() / (time.process_time() - start)


def throughput(args: argparse.Namespace) -> None:
    runner, mac = parts(args.map, args.n_envs)
    assert isinstance(runner.env, SMAX)
    bare = Bare(runner.env.config, mac, args.n_envs)

    def ours() -> int:
        before = runner.t_env
        runner.run()
        return runner.t_env - before

    rates = np.array([[rate(ours), rate(bare.round)] for _ in range(args.rounds + 1)][1:])  # the first one compiles
    for name, column in zip(("our runner", "bare loop"), rates.T):
        print(f"{name:10s} {np.median(column):8.0f} environment steps a CPU second")
    low, middle, high = np.quantile(rates[:, 0] / rates[:, 1], (0.25, 0.5, 0.75))
    print(f"ratio {middle:.2f} (quartiles {low:.2f} to {high:.2f}, {args.rounds} rounds, {args.n_envs} of {args.map})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--map", default="3m", help="the scenario (default: 3m)")
    parser.add_argument("--n-envs", type=int, default=32, help="environments (default: 32)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that are measured (default: 20)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    throughput(args)


if __name__ == "__main__":
    main()
