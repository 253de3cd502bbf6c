"""Runs that are killed on purpose: `main.main` in a process that sends itself SIGKILL at a chosen moment.

A moment is the n-th event of a phase (see PHASES), of a kind, of both, or of all. Events are what may leave something
half done: each file under the results that is opened, written, synced, renamed or removed, each step of a game, each
update, each round. A kill at a write leaves half of what was to be written.

As a program it has imported all that a run needs, and forks for each order, a line of JSON: {"argv", "phase", "kind",
"number", "folder", "report"}. Its answer is the exit status as subprocess has it. With `once ORDER` it does a single
one, in itself: for games that bear no fork (jax).
"""

import builtins
import collections
import functools
import json
import os
import random
import re
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Between the beginning of the process and its training; the same of a resumed one; rounds of training; tests; states;
# checkpoints; all from the last state on.
PHASES = ("start", "resume", "round", "test", "state", "checkpoint", "closing")
PATIENCE = 300  # seconds for an attempt


class Bomb:
    """Counts events and kills the process at the `number`-th of `phase` and `kind` (None: of all). number -1: never.

    folder: only files below it count. report: a file that then says what was passed, and where it stopped.
    """

    def __init__(self, phase: str | None, kind: str | None, number: int, folder: str, report: str):
        self.at, self.number, self.folder, self.file = (phase, kind), number, folder, report
        self.phase = "start"
        self.passed = {name: collections.Counter() for name in PHASES}  # by kind
        self.write = os.write  # the real one

    def event(self, kind: str, half: Callable[[], Any] = lambda: None) -> None:
        """Something happens now. half: does a part of it."""
        self.passed[self.phase][kind] += 1
        self.number -= all(wanted in (None, is_) for wanted, is_ in zip(self.at, (self.phase, kind)))
        if self.number == 0:
            half()
            self.report([self.phase, kind])
            os.kill(os.getpid(), signal.SIGKILL)

    def report(self, killed: list[str] | None = None) -> None:
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.write(handle, json.dumps({"killed": killed, "passed": self.passed}).encode())
        os.close(handle)

    def name(self, path: Any, dir_fd: int | None = None) -> str | None:
        """A file's name without what differs from run to run; None where it does not lie in the folder."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        folder, name = os.path.split(os.path.abspath(path))
        if not folder.startswith(self.folder):
            return None
        return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{8,}", "x", name))


def arm(bomb: Bomb) -> None:
    """Have all that matters tell the bomb."""
    for name in ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir", "fsync", "ftruncate"):
        _wrap_call(bomb, name)
    _wrap_write(bomb)
    _wrap_open(bomb)
    _wrap_the_program(bomb)


def _wrap_call(bomb: Bomb, name: str) -> None:
    call = getattr(os, name)

    @functools.wraps(call)
    def told(path, *args, **more):
        target = args[0] if name in ("replace", "rename", "link") else path
        found = bomb.name(target, more.get("dir_fd"))
        if found is not None:
            bomb.event(f"{name} {found}")
        if name != "fsync":  # what the system has, it still has when the process is killed
            call(path, *args, **more)
        if found is not None and name == "rename":
            bomb.event(f"renamed {found}")

    setattr(os, name, told)


def _wrap_write(bomb: Bomb) -> None:
    def told(handle, data):
        found = bomb.name(handle) if stat.S_ISREG(os.fstat(handle).st_mode) else None
        if found is not None:
            bomb.event(f"write {found}", lambda: bomb.write(handle, data[: len(data) // 2]))
        return bomb.write(handle, data)

    os.write = told


def _wrap_open(bomb: Bomb) -> None:
    real = builtins.open

    def told(path, mode="r", *args, **more):
        found = bomb.name(path) if not isinstance(path, int) and set(mode) & set("wxa") else None
        if found is None:
            return real(path, mode, *args, **more)
        bomb.event(f"open {found}")
        return _File(real(path, mode, *args, **more), found, bomb)

    builtins.open = told


class _File:
    """An open file of which the 1st, 2nd, 4th, 8th, … write is an event: some write every letter by itself."""

    def __init__(self, file, name: str, bomb: Bomb):
        self._file, self._name, self._bomb, self._writes = file, name, bomb, 0

    def write(self, data):
        self._writes += 1
        if self._writes & (self._writes - 1) == 0:
            self._bomb.event(f"write {self._name}", lambda: self._half(data))
        return self._file.write(data)

    def _half(self, data):
        self._file.write(data[: len(data) // 2])
        self._file.flush()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __iter__(self):
        return iter(self._file)


def _wrap_the_program(bomb: Bomb) -> None:
    import keeper
    import open_run
    import parts
    import resuming
    import run
    import training
    from learners.value_learner import ValueLearner
    from runners.episode_runner import EpisodeRunner
    from utils import resume_state, rundir

    rundir.commit = resuming.commit = lambda: "a commit"  # git takes its time, and others commit meanwhile
    open_run.tables.draw = lambda learned, path, title: path.touch()  # so does a picture

    def around(owner, name, phase=None):
        setattr(owner, name, _told(bomb, getattr(owner, name), name.strip("_"), phase))

    around(run, "resume", "resume")
    around(open_run, "train", "round")
    around(training, "_test", "test")
    around(keeper.Keeper, "state", "state")
    around(keeper.Keeper, "last_state", "closing")
    around(rundir.RunDirectory, "save_checkpoint", "checkpoint")
    for owner, name in (
        (open_run, "cut_metrics"), (run, "OpenRun"), (resume_state.StateFolder, "read"), (keeper.Keeper, "load"),
        (keeper.Keeper, "finished"), (rundir.RunDirectory, "put_checkpoint"),
        (parts.Parts, "_build"), (EpisodeRunner, "run"), (ValueLearner, "update"),
        (resume_state.StateFolder, "_remove_but"), (rundir.RunDirectory, "limit_checkpoints"),
    ):  # fmt: skip
        around(owner, name)
    build = parts.Parts.__init__

    def built(self, *args, **more):
        build(self, *args, **more)
        self.env.step = _told(bomb, self.env.step, "step", None)

    parts.Parts.__init__ = built


def _told(bomb: Bomb, call, name: str, phase: str | None):
    """`call` with an event before and after, in `phase`; closing is a phase that does not end."""

    @functools.wraps(call, updated=())
    def told(*args, **more):
        before = bomb.phase
        bomb.phase = before if phase is None or before == "closing" else phase
        bomb.event(f"begin {name}")
        result = call(*args, **more)
        bomb.event(f"end {name}")
        bomb.phase = bomb.phase if bomb.phase == "closing" or phase is None else before
        return result

    return told


def attempt(order: dict) -> int:
    """The exit status of main.main, if it lives to have one."""
    import main

    bomb = Bomb(*(order[name] for name in ("phase", "kind", "number", "folder", "report")))
    arm(bomb)
    try:
        return main.main(order["argv"])
    finally:
        bomb.report()


def serve() -> None:
    """A child for each line of stdin; its exit status goes to stdout. What it says goes to REPORT.out."""
    answers, out = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    _warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _be_the_child(order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _warm_up() -> None:
    """A run, so that all is imported. It must leave no thread behind, which no fork would take along."""
    import main

    with tempfile.TemporaryDirectory() as folder:
        short = "t_max=2", "batch_size=1", "batch_size_run=1", "use_cuda=False", f"local_results_path={folder}"
        main.main(["--config=vdn", "--env-config=two_step", "with", "seed=1", *short])
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("there are threads: a fork would be half a process")


def _be_the_child(order: dict) -> None:
    code = 70
    try:
        signal.alarm(PATIENCE)
        out = os.open(order["report"] + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _forget()
        code = attempt(order)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _forget() -> None:
    """Seed the global generators at random: all forks begin with the same, and could not miss a seed."""
    import numpy
    import torch

    random.seed()
    numpy.random.seed()
    torch.seed()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    if sys.argv[1:2] == ["once"]:
        sys.exit(attempt(json.loads(sys.argv[2])))
    serve()
