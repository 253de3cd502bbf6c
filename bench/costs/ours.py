"""Our side: what a run of this project does."""

import logging
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from costs.progress import Progress, memory
from costs.sides import Made
from costs.sizes import Sizes, fields

SRC = str(Path(__file__).parents[2] / "src")
# PyMARL's settings, which EPyMARL has too.
PYMARL = {
    "optimizer": "rmsprop", "double_q": True, "use_rnn": True, "obs_last_action": True, "hidden_dim": 64,
    "head_layers": 0, "target_update_interval_or_tau": 200, "target_update_unit": "episodes", "grad_norm_clip": 10,
    "lr": 5e-4, "updates_per_run": 1, "learning_starts": 0, "learner_log_interval": 10**9,
    "epsilon_start": 1.0, "epsilon_finish": 0.05, "epsilon_anneal_time": 50000,
}  # fmt: skip
QTRAN = {"joint_use_state": True, "v_input": "state", "mixing_embed_dim": 64, "opt_loss": 1.0, "nopt_loss": 0.1}
# Of the comparators, the keys of their authors' files.
OF_ALGORITHM = {
    "qtran_base": QTRAN,
    "qtran_alt": QTRAN,
    "qplex": {"td_lambda": 0.6, "n_lambda_heads": 4, "lambda_layers": 2, "lambda_embed": 64},
    "resq": {"td_lambda": 0.6, "residual": "raw"},
}
IN_A_ROW = 5  # updates in a turn on a GPU, which is not waited for between them
# Nothing but what is measured.
QUIET = {
    "seed": 1, "test_interval": 10**9, "test_nepisode": 1, "log_interval": 10**9, "save_model": False,
    "resume_minutes": 0, "learner_log_interval": 10**9, "runner_log_interval": 10000,
}  # fmt: skip


class Silent:
    console_logger = logging.getLogger("bench")

    def log_stat(self, *words) -> None:
        pass


def update(algorithm: str, sizes: dict, device: str, threads: int, keys: dict) -> Made:
    """Work: an update of `algorithm` on one batch of random episodes; on a GPU `IN_A_ROW`.

    keys: {key: value} of our configuration that differ from PyMARL's and from `OF_ALGORITHM`. About: floating-point
    operations of the products and bytes moved in our graph, in the plain path where a faster one hides them.
    """
    sys.path.insert(0, SRC)
    import torch

    from costs.machine import count
    from utils.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()  # as a run does
    settings, keys = (algorithm, Sizes(**sizes), device), PYMARL | OF_ALGORITHM.get(algorithm, {}) | keys
    about = count(_update(*settings, keys | _plain()))
    train, times = _update(*settings, keys), IN_A_ROW if device == "cuda" else 1

    def work() -> dict:
        for _ in range(times):
            train()
        return {"updates": times}

    for _ in range(3):  # compilers, caches
        work()
    return work, about


def act(sizes: dict, n_envs: int, rounds: int, device: str, threads: int, keys: dict) -> Made:
    """Work: `rounds` rounds of `n_envs` whole episodes in a game that costs nothing, without learning."""
    sys.path.insert(0, SRC)
    from parts import Parts
    from utils.logging import Logger

    size = Sizes(**sizes)
    values = _of_game(
        "qtran_base", _rules(size, size.steps, size.steps),
        PYMARL | QTRAN | QUIET | {"epsilon_start": 0.05, "batch_size_run": n_envs, "batch_size": 1,
                                  "buffer_size": n_envs, "num_threads": threads, "use_cuda": device == "cuda",
                                  "t_max": 10**9} | keys,
    )  # fmt: skip
    runner = Parts(values, Logger(Silent.console_logger)).runner

    def work() -> dict:
        before = runner.t_env
        for _ in range(rounds):
            runner.run()
        return {"steps": runner.t_env - before}

    work()
    return work, {}


def whole(algorithm: str, env: str, keys: dict, device: str, threads: int, rules: dict | None = None) -> Made:
    """Work: a run of main.py from start to end. Figures: those of its Progress, and its memory.

    rules: of `games.Rules`: it plays that game, and `env` is a file of ours whose other keys it takes.
    """
    sys.path.insert(0, SRC)
    import yaml

    import main
    from components.episode_buffer import ReplayBuffer
    from parts import readers
    from utils.config import load

    progress, folder = Progress(), tempfile.TemporaryDirectory()
    progress.attach(ReplayBuffer)
    machine = {"num_threads": threads, "use_cuda": device == "cuda", "local_results_path": folder.name}
    keys = QUIET | machine | keys
    values = _of_game(algorithm, rules, keys, env) if rules else load(algorithm, env, keys, readers).values
    path = Path(folder.name, "config.yaml")
    path.write_text(yaml.safe_dump(values))
    imported = memory("VmRSS")

    def work() -> dict:
        with folder:
            if status := main.main(["--from", str(path)]):
                logs = [file.read_text().splitlines() for file in Path(folder.name).rglob("log.txt")]
                raise RuntimeError(f"the run ended with status {status}: {logs[0][-1] if any(logs) else 'no log'}")
        replay = sum(x.numel() * x.element_size() for x in progress.buffer.data.values())
        return progress.figures() | {"peak": memory("VmHWM"), "replay": replay, "imported": imported}

    return work, {}


def program(words: list[str], device: str, threads: int) -> Made:
    """Work: main.py with these words, as a program of its own: its whole time of CPU, start and end included."""
    command = [sys.executable, str(Path(SRC) / "main.py"), *words, f"num_threads={threads}"]

    def work() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*command, f"local_results_path={folder}"], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

    return work, {}


def _rules(size: Sizes, shortest: int, longest: int) -> dict:
    from costs.games import Rules

    return Rules(size.agents, size.actions, size.obs, size.state, shortest, longest).as_dict()


def _of_game(algorithm: str, rules: dict, keys: dict, env: str = "two_step") -> dict:
    """All keys of a run of `algorithm` on `games.Play`."""
    import envs
    from costs.our_game import NAME
    from parts import readers
    from utils.config import load

    envs.REGISTRY[NAME] = "costs.our_game:Game"
    return load(algorithm, env, keys, readers).values | {"env": NAME, "env_args": rules}


def _plain() -> dict:
    """The key that asks for operations that can be counted one by one, where there is one."""
    import yaml

    known = yaml.safe_load((Path(SRC) / "config" / "default.yaml").read_text())
    return {"kernels": "plain"} if "kernels" in known else {}


def _update(algorithm: str, sizes: Sizes, device: str, keys: dict) -> Callable[[], None]:
    """A function that makes one update."""
    import torch

    from components.episode_buffer import EpisodeBatch, make_scheme
    from controllers import mac_class
    from envs.vector import EnvInfo
    from learners import learner_class
    from parts import readers
    from utils.config import load

    values = load(algorithm, "two_step", {"seed": 0, **keys}, readers).values
    info = EnvInfo(sizes.agents, sizes.actions, sizes.obs, sizes.state, sizes.steps)
    args = SimpleNamespace(**values, **vars(info), device=device)
    scheme, groups = make_scheme(info, True), {"agents": info.n_agents}
    torch.manual_seed(0)
    mac = mac_class(args.mac)(scheme, groups, args)
    learner = learner_class(args.learner)(mac, scheme, Silent(), args)
    if device == "cuda":
        learner.cuda()
    batch = EpisodeBatch(scheme, groups, sizes.batch, sizes.steps + 1)
    batch.update(fields(torch, sizes), mark_filled=False)
    batch = batch.to(device)
    learner.train(batch, 0, 0)  # the first one logs
    return lambda: learner.update(batch, 0, 0)
