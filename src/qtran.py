"""From Python: train, load what was learned, play.

    import sys; sys.path.insert(0, "src")
    from qtran import load_policy, make, train

    run = train("qtran_alt", "two_step", t_max=4000, seed=1)
    policy, env = load_policy(run.path), make("two_step")
    seen = env.reset(seed=1)
    step = env.step(policy(seen))

Axes: E environments, N agents, A actions.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import envs
from components.episode_buffer import make_scheme
from controllers import MAC, mac_class
from envs.vector import EnvInfo, Observation, Step, VectorEnv
from parts import readers, with_sizes
from run import launch_here
from utils.args import ConfigError
from utils.args import TrainingError as TrainingError
from utils.checkpoint import find_checkpoint, load_weights
from utils.config import load, load_from


@dataclass(frozen=True)
class Result:
    """How a run went. status: finished, failed or interrupted; reason: why, where it is not finished. test: the figures
    of its last test, {"test_return_mean": 8.0, ...}."""

    path: Path
    status: str
    reason: str | None
    test: dict[str, float]


def train(config: str | os.PathLike, env_config: str | os.PathLike, **values: object) -> Result:
    """Train as `python src/main.py --config=config --env-config=env_config with KEY=VALUE ...` does.

    values: as after `with`; arguments of the game as env_args={"penalty": 1.5}; numbers may be numpy's, and paths Path
    objects. ConfigError for bad input, before anything is written; how training itself went is in the Result.
    """
    return _result(launch_here(load(_plain(config), _plain(env_config), _plain(values), readers, said="train(...)")))


def make(name: str, env_args: dict[str, Any] | None = None, n_envs: int = 1, **options: Any) -> VectorEnv:
    """`n_envs` copies of a game: `envs.make`, which has the options; numbers and paths as for `train`."""
    return envs.make(name, _plain(env_args), _plain(n_envs), **_plain(options))


def _plain(value: Any) -> Any:
    """`value` with numbers of Python for those of numpy, and text for paths: what a YAML file can hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _result(path: Path) -> Result:
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return Result(path, summary["status"], summary.get("reason"), summary.get("test") or {})


class Policy:
    """The agents of a run as they act in tests: greedily. They remember the episode; `reset` begins another one."""

    def __init__(self, mac: MAC, info: EnvInfo) -> None:
        self.mac, self.info = mac, info
        self.actions: np.ndarray | None = None  # of the step before, [E, N]

    def reset(self) -> None:
        """Forget the episode."""
        self.actions = None

    def __call__(self, seen: Observation | Step) -> np.ndarray:
        """Actions [E, N], int64, for what a game shows: the return value of its `reset` or `step`."""
        obs, avail = np.ascontiguousarray(seen.obs), np.asarray(seen.avail)
        expected = (self.info.n_agents, self.info.obs_shape)
        if obs.shape[1:] != expected:
            raise ConfigError(
                f"observations have the shape {obs.shape}; the policy was trained on [environments, "
                f"{expected[0]} agents, {expected[1]} numbers]"
            )
        if self.actions is None or len(self.actions) != len(obs):
            self.mac.init_hidden(len(obs))
            self.actions = None
        actions = self.mac.select_actions(obs, avail, self.actions, t_env=0, test_mode=True)
        self.actions = actions
        return actions


def load_policy(run_dir: str | os.PathLike, load_step: int | str = 0) -> Policy:
    """The Policy of a run directory's last checkpoint, on the CPU. load_step: the nearest one; "best": the one that
    tested best."""
    values = load_from(str(run_dir), {}, readers).values
    folder, _ = find_checkpoint(str(run_dir), load_step, says="load_policy")
    env = make(values["env"], values["env_args"])
    try:
        args = with_sizes(SimpleNamespace(**values, device="cpu"), env.env_info)
        args.kernels, args.evaluation_epsilon = "plain", 0.0
        mac = mac_class(args.mac)(make_scheme(env.env_info, args.common_reward), {"agents": args.n_agents}, args)
        load_weights(mac.agent, f"{folder}/agent.th")
        return Policy(mac, env.env_info)
    finally:
        env.close()


__all__ = ["ConfigError", "Policy", "Result", "TrainingError", "VectorEnv", "load_policy", "make", "train"]
