"""E environments in E processes: for games that hold the interpreter, or that are programs of their own.

Arrays travel through shared memory; the pipe of a worker carries one byte for a step. A worker hosts a
VectorEnv of one environment, so its contract (frozen ends, no reset by itself) is everywhere the same.

All can step together, as in every VectorEnv, or each on its own (`begin`, `act`, `arrived`).

A worker may die or hang at any moment. It is then killed, with all that it has started, and another takes its place, so
that nothing stale is left. Where all step together, this is done for games that are programs of their own
(`own_process`), and the episode is `lost`; another game's death is an error.
Axes: E environments, N agents, A actions, O observation, S state.
"""

import atexit
import logging
import os
import resource
import select
import shutil
import sys
import time
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.vector import GameError, Observation, Seed, Step, VectorEnv
from envs.workers.worker import CLEAN, PYTHON, Worker
from envs.workers.worker_process import OBSERVED, STEP, layout, views_of
from utils.args import ConfigError
from utils.memory_needs import Part, refuse_if_too_large
from utils.seeding import stream
from utils.temporary_folders import temporary_folder

PATIENCE = 5  # seconds that workers get to close their games, all together
GRACE = 2  # seconds beyond its timeout that a worker gets to say itself what its game does
STARTING = 3  # timeouts that a game may take to start, or to begin an episode
STARTS, EPISODES = range(2)  # what streams are for
FILES = 4  # that this process holds open for each worker
SRC = Path(__file__).resolve().parents[2]
SHARED = "/dev/shm"  # where shared memory is, on Linux
BACKOFF = 1  # seconds: after the second failure in a row a new process waits for so long, then 3, 7 and so on
IN_A_ROW = 5  # failures of a game without a whole episode between them, before the run gives up


class WorkerEnv(VectorEnv):
    """`n_envs` processes that each play an `env_class` (importable by name) with `config`. Each episode of environment
    i, and what its process draws from the global generators, has a stream of its own, made of the seed of the reset, i
    and the number of the episode since that seed was given. (So arrays draw other numbers from the same seed.)

    Where games are programs of their own, `config.timeout` is the seconds that they have for a step, and their workers
    are replaced every `config.restart_every` episodes (None: never), as memory tends to leak.

    mine: the environments that have a process here; None: all. The others, whose rows stay as they are, play elsewhere.
    """

    def __init__(
        self, env_class: type[VectorEnv], config: Any, n_envs: int, seed: Seed = None, mine: Sequence[int] | None = None
    ) -> None:
        self.mine = list(range(n_envs) if mine is None else mine)
        _refuse_too_many(len(self.mine))
        self.in_processes, self.shares_stream = True, False
        self.game, self.n_envs, self.own_process = (env_class, config), n_envs, env_class.own_process
        self.timeout: Any = config.timeout if self.own_process else None
        self.restart_every = config.restart_every if self.own_process else None
        self.seed = stream(seed)
        self.begun = np.zeros(n_envs, dtype=int)  # episodes with this seed
        self.started = np.zeros(n_envs, dtype=int)  # processes
        self.states: list[Any] = [None] * n_envs  # of games that may fail, after their last reset
        self.workers: list[Any] = [None] * n_envs
        self.arrays = {}
        self.working: dict[int, float] = {}  # {environment that owes an answer: when it is late}
        self.poll, self.waker = select.poll(), -1
        self.memory: Any = None
        self.cleaner = None
        atexit.register(self.close)  # before multiprocessing waits for workers that nobody told to end
        try:
            self.folder, self.cleaner = temporary_folder("workers-", CLEAN)
            for i in self.mine:
                self.workers[i] = self._worker(i)
            infos = [self.workers[i].receive() for i in self.mine]
            self.env_info, self.common_reward, self.versions, self.facts, self.notes = infos[0]
            self.n_rewards = 1 if self.common_reward else self.env_info.n_agents
            size = layout(self.env_info, self.n_rewards, n_envs)[1]
            _refuse_without_room(size, n_envs)
            self.memory = SharedMemory(create=True, size=size)
            self.arrays = views_of(self.memory, self.env_info, self.n_rewards, n_envs)
            for i in self.mine:
                self._attach(i)
            for i in self.mine:
                self.workers[i].settle()
        except (GameError, OSError) as error:
            self.close()
            note = _note_on_main() if isinstance(error, GameError) else ""
            raise ConfigError(f"{env_class.__name__}: a worker process cannot start: {error}{note}") from error
        except BaseException:
            self.close()
            raise
        self.failures = [0] * n_envs  # in a row
        if self.own_process:
            self.restarts, self.lost = 0, np.zeros(n_envs, dtype=bool)

    def reset(self, seed: Seed = None, mask: NDArray[np.bool_] | None = None) -> Observation:
        mask = np.ones(self.n_envs, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if seed is not None:
            self.seed, self.begun[:] = stream(seed), 0
        if self.own_process:
            self._reset_games(mask)
        else:
            self._call([("reset", self._next_seed(i) if m else None, bool(m)) for i, m in enumerate(mask)])
        return Observation(*(self.arrays[k].copy() for k in OBSERVED))

    def step(self, actions: NDArray[np.int64]) -> Step:
        actions = np.asarray(actions)
        if actions.shape != self.arrays["actions"].shape or not np.issubdtype(actions.dtype, np.integer):
            shape = self.arrays["actions"].shape
            raise ValueError(f"actions must be integers of shape {shape}, not {actions.dtype} {actions.shape}")
        self.arrays["actions"][:] = actions
        playing = [i for i in range(self.n_envs) if self.lost is None or not self.lost[i]]
        for i in playing:
            self.workers[i].send(STEP)
        info, deadline = {}, None if self.timeout is None else time.monotonic() + self.timeout + GRACE
        for i in playing:
            try:
                ends = self.workers[i].receive(deadline)
            except GameError as error:
                self._lose(i, error)
                continue
            if ends is not None:  # an episode's end
                self.failures[i], self.states[i] = 0, ends[1]
                for name, value in ends[0].items():
                    info.setdefault(name, np.full(self.n_envs, None))[i] = value
        a = {k: v.copy() for k, v in self.arrays.items()}
        reward = a["reward"][:, 0] if self.common_reward else a["reward"]
        return Step(a["obs"], a["state"], a["avail"], reward, a["terminated"], a["truncated"], info)

    # ---- each on its own

    def begin(self, i: int, seed: np.random.SeedSequence) -> None:
        """Ask environment i for a new episode. Once it has `arrived`, row i of `arrays` shows it."""
        if self.own_process and self.workers[i].episodes == self.restart_every:
            self._replace(i)
        worker = self.workers[i]
        self._prepare(i)
        worker.episodes += 1
        worker.send(("reset", seed, True))
        late = np.inf if self.timeout is None else STARTING * self.timeout + GRACE
        self._owes(i, late if worker.greeted or self.timeout is None else late + PYTHON + worker.delay)

    def act(self, i: int, actions: np.ndarray) -> None:
        """Play `actions` [N] in environment i."""
        self.arrays["actions"][i] = actions
        self.workers[i].send(STEP)
        self._owes(i, np.inf if self.timeout is None else self.timeout + GRACE)

    def arrived(self) -> list[tuple[int, Any]]:
        """Wait until one has answered `begin` or `act`, or is late: (i, answer) of all of these.

        answer: None; at the end of an episode ({name: value}, the game's state_dict); GameError where the worker died
        or is late: `failed` replaces it.
        """
        late = min(self.working.values(), default=np.inf)
        wait = None if late == np.inf else 1000 * max(0.0, late - time.monotonic())
        there = {fd for fd, _ in self.poll.poll(wait)}
        came, now = [], time.monotonic()
        if self.waker in there:
            os.read(self.waker, 1024)
        for i, deadline in list(self.working.items()):
            worker = self.workers[i]
            if worker.pipe.fileno() not in there and now < deadline:
                continue
            try:
                answer = worker.receive(now)
            except (GameError, ConfigError) as error:  # what was well at first may be gone: a map, a disk
                answer = error if isinstance(error, GameError) else GameError(str(error))
            if worker.owes and not isinstance(answer, GameError):
                continue
            self.poll.unregister(worker.pipe.fileno())
            del self.working[i]
            if isinstance(answer, tuple):
                self.failures[i], self.states[i] = 0, answer[1]
            came.append((i, answer if isinstance(answer, (tuple, GameError)) else None))
        return came

    def failed(self, i: int, error: GameError) -> None:
        """Another worker for environment i, whose episode is to begin again. GameError if it fails all the time."""
        self._count_failure(i, error)
        logging.getLogger("qtran").warning(f"{error}\nthe episode is lost, the game starts again and plays it anew")
        self._replace(i, delay=BACKOFF * (2 ** (self.failures[i] - 1) - 1))

    def take(self, i: int, state: dict | None, started: int) -> None:
        """Carry environment i too: `state` of its game after its last episode, and the processes that it has had."""
        self.states[i], self.failures[i] = state, 0
        self.started[i] = max(self.started[i], started)
        if i in self.mine:
            self._replace(i)
        else:
            self.mine.append(i)
            self.workers[i] = self._worker(i)

    def leave(self, i: int) -> None:
        """Carry environment i no more, whatever it does."""
        if self.working.pop(i, None) is not None:
            self.poll.unregister(self.workers[i].pipe.fileno())
        self.mine.remove(i)
        self.workers[i].end()
        self.workers[i] = None

    def wake_by(self, fd: int) -> None:
        """Let `arrived` return when something is written into the pipe that is read at `fd`."""
        self.waker = fd
        self.poll.register(fd, select.POLLIN)

    def _owes(self, i: int, seconds: float) -> None:
        self.working[i] = time.monotonic() + seconds
        self.poll.register(self.workers[i].pipe.fileno(), select.POLLIN)

    # ---- other things that environments can do

    def render(self) -> str:
        """Of the first one; it must not owe an answer."""
        self.workers[0].send(("render",))
        return self.workers[0].settle()

    def frame(self) -> NDArray[np.uint8] | None:
        """Of the first one; it must not owe an answer."""
        self.workers[0].send(("frame",))
        return self.workers[0].settle()

    def save_replay(self) -> str:
        """Of the first environment whose game has not just been lost."""
        worker = self.workers[0 if self.lost is None else int(self.lost.argmin())]
        worker.send(("save_replay",))
        return worker.settle()

    def state_dict(self) -> dict[str, Any]:
        """States of the games after their last episodes; one that has just failed, or plays, could not be asked."""
        return {"workers": list(self.states), "started": self.started.tolist()}

    def load_state_dict(self, state: dict) -> None:
        self.states, started = state["workers"], np.array(state["started"])
        if self.own_process:  # games that draw other numbers than all that were before them
            self.started = np.maximum(self.started, started)
            for i in range(self.n_envs):
                self._replace(i)
        else:
            self._call([("load_state_dict", s or {}) for s in self.states])

    def close(self) -> None:
        atexit.unregister(self.close)
        workers = [worker for worker in self.workers if worker is not None]
        for worker in workers:
            worker.send(("close",))
        deadline = time.monotonic() + PATIENCE
        for worker in workers:
            worker.process.join(timeout=max(0, deadline - time.monotonic()))
            worker.end()
        self.workers = []
        if self.memory is not None:
            self.arrays = {}
            self.memory.close()
            self.memory.unlink()
            self.memory = None
        if self.cleaner is not None:
            self.cleaner.communicate()
            self.cleaner = None

    # ---- games that fail

    def _reset_games(self, mask: np.ndarray) -> None:
        which, lost = np.flatnonzero(mask).tolist(), self.lost
        assert lost is not None
        for i in which:
            if self.workers[i].episodes == self.restart_every:
                self._replace(i)
            self._ask_reset(i)
        for i in which:
            lost[i] = True
            while lost[i]:
                try:
                    self.states[i] = self.workers[i].settle(STARTING * self.timeout + GRACE)
                    lost[i] = False
                except (GameError, ConfigError) as error:  # what was well at first may be gone: a map, a disk
                    self._lose(i, error)
                    self._ask_reset(i)

    def _ask_reset(self, i: int) -> None:
        self._prepare(i)
        self.workers[i].episodes += 1
        self.workers[i].send(("reset", self._next_seed(i), True))

    def _prepare(self, i: int) -> None:
        """A worker that is new gets the shared memory and the state of the one before it."""
        worker = self.workers[i]
        if not worker.attached:
            self._attach(i)
            if self.states[i] is not None:
                worker.send(("load_state_dict", self.states[i]))

    def _lose(self, i: int, error: Exception) -> None:
        """Forget the episode of environment i, and start another game in the place of the one that failed."""
        if not self.own_process or self.lost is None:
            raise error
        self._count_failure(i, error)
        logging.getLogger("qtran").warning(f"{error}\nthe episode is lost, the game starts again")
        self.lost[i] = True
        self.arrays["reward"][i] = 0
        self.arrays["terminated"][i], self.arrays["truncated"][i] = False, True
        self._replace(i, delay=BACKOFF * (2 ** (self.failures[i] - 1) - 1))

    def _count_failure(self, i: int, error: Exception) -> None:
        self.failures[i] += 1
        if self.failures[i] >= IN_A_ROW:
            raise GameError(f"{IN_A_ROW} failures without a whole episode between them; the last: {error}") from error
        self.restarts = (self.restarts or 0) + 1

    def _replace(self, i: Any, delay: int = 0) -> None:
        """Another worker for environment i."""
        self.workers[i].end()
        self.workers[i] = self._worker(i, delay)

    def _worker(self, i: Any, delay: int = 0) -> Worker:
        """A new process for environment i. Its game draws other numbers than those of all processes before it."""
        seed = stream(self.seed, i, STARTS, int(self.started[i]))
        self.started[i] += 1
        return Worker(i, *self.game, seed, self.folder, delay)

    def _next_seed(self, i: int) -> np.random.SeedSequence:
        """The stream of the next episode of environment i; of one that is lost and tried again it is another."""
        seed = stream(self.seed, i, EPISODES, int(self.begun[i]))
        self.begun[i] += 1
        return seed

    # ---- messages

    def _attach(self, i: int) -> None:
        """Show worker i the shared memory."""
        self.workers[i].attached = True
        self.workers[i].send(("attach", i, self.n_envs, self.n_rewards, self.memory.name))

    def _call(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send command i to worker i, all at once, then gather the answers."""
        for worker, command in zip(self.workers, commands):
            worker.send(command)
        return self._answers()[: len(commands)]

    def _answers(self) -> list[Any]:
        return [worker.settle() for worker in self.workers]


def _refuse_too_many(n_envs: int) -> None:
    """ConfigError where this process may not open as many files as `n_envs` workers need."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    need = open_now + FILES * n_envs
    if most != resource.RLIM_INFINITY and need > most:
        raise ConfigError(
            f"batch_size_run: {n_envs} worker processes need {need} open files, but {most} are allowed (ulimit -n); "
            f"at most {max(0, most - open_now) // FILES} can be started"
        )


def _note_on_main() -> str:
    """What a script of the user's own may lack; empty where a program of ours was started."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or Path(file).resolve().is_relative_to(SRC):
        return ""
    return f'; it imports {file} again: what that file does must stand below if __name__ == "__main__":'


def _refuse_without_room(size: int, n_envs: int) -> None:
    """ConfigError where the system has no room for `size` bytes of shared memory: writing to them would kill us."""
    if os.path.isdir(SHARED):
        free = shutil.disk_usage(SHARED).free
        part = Part(f"shared memory: {n_envs} environments", size, {"batch_size_run": n_envs})
        refuse_if_too_large([part], SHARED, free)
