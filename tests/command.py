"""What the tests of the command line share: `main` in this process, short runs, their outcome."""

import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

import main
from parts import readers
from utils.config import load

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "src" / "config"
PROGRAM = [sys.executable, str(ROOT / "src" / "main.py")]
SHORT = dict(
    t_max=24, batch_size=4, buffer_size=16, batch_size_run=2, updates_per_run=1, hidden_dim=8, test_nepisode=2,
    test_interval=8, log_interval=1000, runner_log_interval=1, learner_log_interval=1, save_model_interval=1000,
    learning_starts=0, use_cuda=False, seed=1,
)  # fmt: skip
# What makes the longest games short too.
SHORT_GAMES = {"predator_prey": {"env_args.episode_limit": 6}, "gaussian_squeeze": {"env_args.n_agents": 3}}


@dataclass
class Outcome:
    """How a command ended: its exit status and what it printed."""

    code: int
    out: str
    err: str

    @property
    def path(self):
        """The run directory that it names."""
        return Path(re.findall(r"^run directory: (.*)$", self.out, re.MULTILINE)[-1])

    @property
    def last_line(self):
        return self.err.splitlines()[-1]

    @property
    def summary(self):
        return json.loads((self.path / "summary.json").read_text())

    @property
    def metrics(self):
        """The objects of metrics.jsonl."""
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    @property
    def series(self):
        """{key: [(t_env, value)]} of metrics.jsonl."""
        out = {}
        for m in self.metrics:
            out.setdefault(m["key"], []).append((m["t_env"], m["value"]))
        return out

    @property
    def figures(self):
        """What a repetition has to repeat of `series`: all but shares of time."""
        return {key: points for key, points in self.series.items() if not key.startswith("time_")}


def wait_until(true, process=None, seconds=60):
    """What true() returns, as soon as it is true, if it is before `seconds` and the end of a Popen `process`."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process has ended: {process.communicate()}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def here(capsys, argv):
    """The Outcome of main(argv) in this process."""
    return outcome(main.main, capsys, argv)


def outcome(command, capsys, argv):
    """The Outcome of command(argv), a command's `main`, in this process."""
    capsys.readouterr()
    try:
        code = command([str(word) for word in argv])
    except SystemExit as error:  # argparse
        code = error.code
    return Outcome(code, *capsys.readouterr())


def words(alg, env, folder, *values, without=()):
    """The command line of a short run of `alg` on `env` with results in `folder`."""
    short = SHORT | SHORT_GAMES.get(env, {}) | {"local_results_path": folder}
    short = [f"{k}={v}" for k, v in short.items() if k not in without]
    return [f"--config={alg}", f"--env-config={env}", "with", *short, *values]


def toy_config(path, alg="vdn", **changes):
    """Write a complete config.yaml at `path` that runs `alg` on Toy; changes: keys, those of Toy among them."""
    env_args = {"fault": "none", "at": 0, "pays_each": False}
    values = load(alg, "two_step", {"seed": 1}, readers).values | SHORT
    values |= {"env": "toy", "local_results_path": str(path.parent / "results")}
    values |= {k: v for k, v in changes.items() if k not in env_args}
    values["env_args"] = {k: changes.get(k, v) for k, v in env_args.items()}
    path.write_text(yaml.safe_dump(values))
    return path


def files(folder):
    """The files under `folder`, as relative paths."""
    return sorted(str(Path(top, f).relative_to(folder)) for top, _, names in os.walk(folder) for f in names)


def as_in_the_foreground():
    """For a child process: tests may run in the background or under nohup, where signals are ignored."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def full_disk(*_, **__):
    """Stands for what writes a file."""
    raise OSError(28, "No space left on device")
