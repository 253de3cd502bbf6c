"""EPyMARL's side, in a checkout of somebody's own (github.com/uoe-agents/epymarl).

It does not start as it is: what is repaired, in its process and never in its files, is in `REPAIRS`.
"""

# It imports modules of the checkout, which have the names of ours: what pyright knows of ours is wrong of them.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

import sys
import tempfile
import types
from collections import deque
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from costs.games import Play, Rules
from costs.ours import IN_A_ROW, Silent
from costs.progress import Progress, memory
from costs.sides import Made
from costs.sizes import Sizes, fields

OURS = str(Path(__file__).parents[2] / "src")
REPAIRS = {
    "smaclite": "an empty package `smaclite`, which it imports whatever it plays",
    "qtran": "keys that its QTRAN reads and no file of it has: rnn_hidden_dim, target_update_interval, qtran_arch, "
    "network_size, opt_loss, nopt_min_loss",
}
GAME = "bench_game"
QTRAN = {
    "name": "qtran", "mixer": "qtran_base", "learner": "qtran_learner", "mac": "basic_mac", "agent": "rnn",
    "agent_output_type": "q", "action_selector": "epsilon_greedy", "epsilon_start": 1.0, "epsilon_finish": 0.05,
    "epsilon_anneal_time": 50000, "evaluation_epsilon": 0.0, "double_q": True, "use_rnn": True, "obs_agent_id": True,
    "obs_last_action": True, "obs_individual_obs": False, "hidden_dim": 64, "rnn_hidden_dim": 64,
    "mixing_embed_dim": 64, "qtran_arch": "qtran_paper", "network_size": "small", "opt_loss": 1.0,
    "nopt_min_loss": 0.1, "lr": 5e-4, "optim_alpha": 0.99, "optim_eps": 1e-5, "grad_norm_clip": 10, "gamma": 0.99,
    "target_update_interval": 200, "common_reward": True, "learner_log_interval": 10**9, "buffer_size": 5000,
}  # fmt: skip
QUIET = {
    "seed": 1, "test_interval": 10**9, "test_nepisode": 1, "log_interval": 10**9, "runner_log_interval": 10000,
    "learner_log_interval": 10**9,
}  # fmt: skip


def update(path: str, sizes: dict, device: str, threads: int) -> Made:
    """Work: an update of its QTRAN-base on one batch of random episodes; on a GPU `IN_A_ROW`."""
    repairs = _prepare(path, threads, "qtran")
    import torch

    from components.episode_buffer import EpisodeBatch
    from controllers import REGISTRY as controllers
    from learners import REGISTRY as learners

    size = Sizes(**sizes)
    args = SimpleNamespace(
        **QTRAN, n_agents=size.agents, n_actions=size.actions, state_shape=size.state, device=device,
        use_cuda=device == "cuda",
    )  # fmt: skip
    scheme, groups, preprocess = scheme_of(size)
    batch = EpisodeBatch(scheme, groups, size.batch, size.steps + 1, preprocess=preprocess)
    batch.update(fields(torch, size), mark_filled=False)
    torch.manual_seed(0)
    mac = controllers[args.mac](batch.scheme, groups, args)
    learner = learners[args.learner](mac, batch.scheme, Silent(), args)
    if device == "cuda":
        learner.cuda()
        batch.to("cuda")
    times = IN_A_ROW if device == "cuda" else 1

    def work() -> dict:
        for _ in range(times):
            learner.train(batch, 0, 0)
        return {"updates": times}

    for _ in range(3):
        work()
    return work, {"repairs": repairs}


def act(path: str, sizes: dict, n_envs: int, rounds: int, device: str, threads: int) -> Made:
    """Work: `rounds` rounds of its runner in a game that costs nothing; with several environments without its pipes,
    which cost as much as all the rest."""
    repairs, size = _prepare(path, threads, "qtran"), Sizes(**sizes)
    import envs
    from controllers import REGISTRY as controllers
    from runners import REGISTRY as runners
    from runners import parallel_runner

    envs.REGISTRY[GAME] = _Game
    parallel_runner.Pipe, parallel_runner.Process = _direct_pipe, _DirectProcess
    rules = Rules(size.agents, size.actions, size.obs, size.state, size.steps, size.steps).as_dict()
    args = SimpleNamespace(
        **QTRAN | QUIET | {"epsilon_start": 0.05}, n_agents=size.agents, n_actions=size.actions,
        state_shape=size.state, device=device, use_cuda=device == "cuda", batch_size_run=n_envs, env=GAME,
        env_args={**rules, "seed": 1}, reward_scalarisation="sum", render=False,
    )  # fmt: skip
    runner = runners["parallel" if n_envs > 1 else "episode"](args=args, logger=Silent())
    scheme, groups, preprocess = scheme_of(size)
    from components.episode_buffer import EpisodeBatch

    known = EpisodeBatch(scheme, groups, 1, 1, preprocess=preprocess).scheme
    mac = controllers[args.mac](known, groups, args)
    if device == "cuda":
        mac.cuda()
    scheme.pop("filled", None)  # EpisodeBatch adds it to what it is given
    runner.setup(scheme=scheme, groups=groups, preprocess=preprocess, mac=mac)

    def work() -> dict:
        before = runner.t_env
        for _ in range(rounds):
            scheme.pop("filled", None)
            runner.run()
        return {"steps": runner.t_env - before}

    work()
    settings = ["acts through calls in the place of its pipes (8 environments)"] if n_envs > 1 else []
    return work, {"repairs": repairs, "settings": settings}


def whole(
    path: str, algorithm: str, keys: dict, device: str, threads: int,
    env: str | None = None, rules: dict | None = None, predator_prey: dict | None = None,
) -> Made:  # fmt: skip
    """Work: a run of its main.py from start to end. Figures: those of its Progress, and its memory.

    algorithm: a file of its config/algs, or qtran. env: a file of its config/envs; or rules: of `games.Rules`; or
    predator_prey: env_args of that game of ours.
    """
    prey = _our_predator_prey(predator_prey) if predator_prey else None
    repairs = _prepare(path, threads, *(["qtran"] if algorithm == "qtran" else []))
    import sacred
    import yaml

    import envs
    import main
    from components.episode_buffer import ReplayBuffer

    config = Path(path, "src", "config")
    layers = [config / "default.yaml"] + ([config / "envs" / f"{env}.yaml"] if env else [])
    layers += [] if algorithm == "qtran" else [config / "algs" / f"{algorithm}.yaml"]
    values: dict = {}
    for layer in layers:
        values = main.recursive_dict_update(values, yaml.safe_load(layer.read_text()))
    values = main.recursive_dict_update(values, QTRAN if algorithm == "qtran" else {})
    values = main.recursive_dict_update(values, QUIET | {"use_cuda": device == "cuda"} | keys)
    if rules or prey:
        envs.REGISTRY[GAME] = partial(_PredatorPrey, prey) if prey else _Game
        values = main.recursive_dict_update(values, {"env": GAME, "env_args": {"key": GAME, **(rules or {})}})
    progress = Progress()
    progress.attach(ReplayBuffer)
    sacred.SETTINGS["CAPTURE_MODE"] = "no"
    imported = memory("VmRSS")

    def work() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            main.ex.add_config(values)
            main.ex.observers.append(sacred.observers.FileStorageObserver(folder))
            main.ex.run()
        data = progress.buffer.data
        tensors = [*data.transition_data.values(), *data.episode_data.values()]
        replay = sum(x.numel() * x.element_size() for x in tensors)
        return progress.figures() | {"peak": memory("VmHWM"), "replay": replay, "imported": imported}

    return work, {"repairs": repairs}


def _prepare(path: str, threads: int, *repairs: str) -> list[str]:
    """Make the checkout importable; the repairs in words."""
    sys.path.insert(0, str(Path(path) / "src"))
    sys.modules.setdefault("smaclite", types.ModuleType("smaclite"))
    import torch

    torch.set_num_threads(threads)
    return [REPAIRS[name] for name in ("smaclite", *repairs)]


def scheme_of(sizes: Sizes) -> tuple[dict, dict, dict]:
    """(scheme, groups, preprocess) of batches in a checkout that grew out of PyMARL."""
    import torch
    from components.transforms import OneHot

    group = {"group": "agents"}
    scheme = {
        "state": {"vshape": sizes.state},
        "obs": {"vshape": sizes.obs, **group},
        "actions": {"vshape": (1,), "dtype": torch.long, **group},
        "avail_actions": {"vshape": (sizes.actions,), "dtype": torch.int, **group},
        "reward": {"vshape": (1,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }
    return scheme, {"agents": sizes.agents}, {"actions": ("actions_onehot", [OneHot(out_dim=sizes.actions)])}


class _Game:
    """`games.Play` with the methods that its runners call."""

    def __init__(
        self, seed: int, common_reward: bool, reward_scalarisation: str, key: str | None = None, **rules: Any
    ) -> None:
        import numpy as np

        self.play, self.rng = Play(Rules(**rules)), np.random.default_rng(seed)
        self.avail = [[1] * rules["actions"]] * rules["agents"]
        self.episode_limit, self.rules = rules["longest"], rules

    def reset(self) -> None:
        self.play.begin(self.rng)

    def step(self, actions: Any) -> tuple:
        return None, 0.0, self.play.step(), False, {}

    def get_obs(self) -> list:
        return list(self.play.obs)

    def get_state(self) -> Any:
        return self.play.state

    def get_avail_actions(self) -> list:
        return self.avail

    def get_env_info(self) -> dict:
        shown = {"obs_shape": self.rules["obs"], "state_shape": self.rules["state"]}
        game = {"n_actions": self.rules["actions"], "n_agents": self.rules["agents"]}
        return shown | game | {"episode_limit": self.episode_limit}

    def get_stats(self) -> dict:
        return {}

    def close(self) -> None:
        pass


class _PredatorPrey:
    """One of our predator-prey games with the methods that its runners call. game: (class, config)."""

    def __init__(
        self, game: Any, seed: int, common_reward: bool, reward_scalarisation: str, key: str | None = None
    ) -> None:
        self.env = game[0](game[1], n_envs=1, seed=seed)
        self.episode_limit = self.env.env_info.episode_limit

    def reset(self) -> None:
        self.seen = self.env.reset()

    def step(self, actions: Any) -> tuple:
        import numpy as np

        step = self.env.step(np.asarray(actions)[None])
        self.seen, over = step, bool(step.terminated[0])
        info = {"episode_limit": True} if step.truncated[0] else {}
        return None, float(step.reward[0]), over, bool(step.truncated[0]), info

    def get_obs(self) -> list:
        return list(self.seen.obs[0])

    def get_state(self) -> Any:
        return self.seen.state[0]

    def get_avail_actions(self) -> list:
        return self.seen.avail[0].astype(int).tolist()

    def get_env_info(self) -> dict:
        return dict(vars(self.env.env_info))

    def get_stats(self) -> dict:
        return {}

    def close(self) -> None:
        pass


def _our_predator_prey(env_args: dict) -> tuple:
    """(class, config) of our game. Its modules are taken off the list again: EPyMARL's have the same names."""
    sys.path.insert(0, OURS)
    import envs
    from envs.games.predator_prey import PredatorPrey

    game = PredatorPrey, envs.read_env_args(PredatorPrey, env_args)
    sys.path.remove(OURS)
    for name in list(sys.modules):
        if name.split(".")[0] in ("envs", "utils"):
            del sys.modules[name]
    return game


class _DirectPipe:
    """Both ends of what stands in the place of a pipe: an answer is made when it is asked for."""

    def send(self, message: tuple) -> None:
        command, data = message
        if command == "step":
            _, reward, over, truncated, info = self.env.step(data)
            self.answers.append({**self._seen(), "reward": reward, "terminated": over or truncated, "info": info})
        elif command == "reset":
            self.env.reset()
            self.answers.append(self._seen())
        else:
            self.answers.append(getattr(self.env, command)())

    def recv(self) -> Any:
        return self.answers.popleft()

    def serve(self, env: Any) -> None:
        self.env, self.answers = env, deque()

    def _seen(self) -> dict:
        env = self.env
        return {"state": env.get_state(), "avail_actions": env.get_avail_actions(), "obs": env.get_obs()}


def _direct_pipe() -> tuple:
    pipe = _DirectPipe()
    return pipe, pipe


class _DirectProcess:
    """Stands in the place of a worker process: makes its environment here."""

    def __init__(self, target: Any, args: Any) -> None:
        self.pipe, self.make = args

    def start(self) -> None:
        self.pipe.serve(self.make.x())
