"""A worker process as the trainer sees it: how it is started, spoken to, listened to and ended.

`worker_process.py` is what runs inside it.
"""

import contextlib
import multiprocessing
import os
import pickle
import select
import shutil
import signal
import tempfile
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from envs.vector import GameError, VectorEnv
from envs.workers.worker_process import ERROR, MESSAGE, NOTHING, STEP, serve, write_message
from utils import interrupts
from utils.args import ConfigError

PYTHON = 60  # seconds that a worker gets to import what it needs
LAST_WORDS = 5  # lines
# Processes of games that outlive their workers, then the folder; again where a game that was dying wrote a last file.
CLEAN = """read -r _
for group in "$0"/*/*.group; do group=${group##*/}; kill -9 "-${group%.group}"; done
rm -rf "$0" || { sleep 1; rm -rf "$0"; }"""


class Worker:
    """A process that plays environment i, the pipe to it, and a folder in `folder` for its temporary files.

    It begins by sending (env_info, common_reward, versions, facts, notes). owes: answers that have not been received.
    delay: seconds that it waits first.
    """

    def __init__(
        self, i: int, env_class: type[VectorEnv], config: Any, seed: np.random.SeedSequence, folder: str, delay: int = 0
    ) -> None:
        self.name = f"environment {i}"
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half
        self.pipe, theirs = context.Pipe()
        self.poll = select.poll()
        self.poll.register(self.pipe.fileno(), select.POLLIN)
        self.folder, self.delay = tempfile.mkdtemp(prefix="worker-", dir=folder), delay
        self.owes, self.greeted, self.attached, self.episodes = 1, False, False, 0
        arguments = (theirs, env_class, config, seed, self.folder, os.getpid(), delay)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        try:
            with interrupts.blocked():  # until the process has set its handlers
                resource_tracker.ensure_running()  # it leaves some of them unblocked here
                with interrupts.blocked():
                    self.process.start()
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise GameError(f"{error}; fewer environments (batch_size_run) need fewer processes") from error
        finally:
            theirs.close()  # so that a dead worker reads as the end of the pipe

    def send(self, message: bytes | tuple[Any, ...]) -> None:
        """STEP or (command, *arguments). What cannot be sent shows when the answer is received."""
        self.owes += 1
        with contextlib.suppress(OSError):
            if message is STEP:
                os.write(self.pipe.fileno(), STEP)
            else:
                write_message(self.pipe, MESSAGE, message)

    def receive(self, deadline: float | None = None) -> Any:
        """The next answer. Raises what the environment raised: ConfigError, GameError, or else a RuntimeError;
        GameError when the process is dead, or still silent at the deadline."""
        if deadline is not None and not self.poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise GameError(f"{self.name} hangs: it does not answer{self.last_words()}")
        try:
            kind = os.read(self.pipe.fileno(), 1)
            answer: Any = None if kind == NOTHING else pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            self.process.join(timeout=1)
            reason = f"the worker process of {self.name} died (exit code {self.process.exitcode})"
            raise GameError(f"{reason}{self.last_words()}") from error
        self.owes, self.greeted = self.owes - 1, True
        if kind == ERROR:
            self._raise(*answer)
        return answer

    def _raise(self, error: Any, trace: str) -> NoReturn:
        if isinstance(error, GameError):
            raise GameError(f"{self.name}: {error}{self.last_words()}")
        if isinstance(error, ConfigError):
            raise error
        raise RuntimeError(f"{self.name} failed: {error}\nin its worker process:\n{trace}")

    def settle(self, timeout: float | None = None) -> Any:
        """The last of all the answers that are owed. timeout: seconds for each."""
        answer = None
        while self.owes:
            seconds = timeout if self.greeted or timeout is None else PYTHON + self.delay
            answer = self.receive(None if seconds is None else time.monotonic() + seconds)
        return answer

    def last_words(self) -> str:
        """The end of the last log that a game has left in the folder."""
        logs = sorted(Path(self.folder).rglob("*.log"), key=lambda file: file.stat().st_mtime)
        lines = logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:] if logs else []
        return "; the end of the game's log:\n  " + "\n  ".join(lines) if lines else ""

    def end(self) -> None:
        """Kill the process if it has not ended, and all that it or its game has started."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        if self.process.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
