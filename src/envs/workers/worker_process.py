"""What runs inside a worker: one environment, which answers the messages of `worker_env.py`.

On the pipe one byte says what comes: STEP and NOTHING stand alone, as they are sent at each step; after MESSAGE
comes a pickled (command, *arguments) or a result, after ERROR an error and its traceback.
Axes: E environments, N agents, A actions, O observation, S state.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.vector import EnvInfo, GameError, VectorEnv
from utils import console, interrupts
from utils.args import ConfigError
from utils.seeding import seed_globals

OBSERVED = ("obs", "state", "avail")
STEP, NOTHING, MESSAGE, ERROR = b"s", b".", b"m", b"!"
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def serve(
    pipe: Connection,
    env_class: type[VectorEnv],
    config: Any,
    seed: np.random.SeedSequence,
    folder: str,
    parent: int,
    delay: int,
) -> None:
    """Play until told to close, or the trainer is gone.

    folder: for temporary files. parent: the process to die with. delay: seconds to wait before the start.
    """
    # The trainer is told to stop, and closes us. A game inherits what is ignored, and must hear SIGTERM.
    for signum in interrupts.SIGNALS:
        signal.signal(signum, signal.SIG_IGN if signum != signal.SIGTERM else lambda *_: None)
    interrupts.unblock()
    console.protect()  # a game may print
    dies_with(parent)
    os.setpgrp()  # what a game starts in turn is found by this group, and ended with it
    Path(folder, f"{os.getpid()}.group").touch()
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    time.sleep(delay)
    env, fd = None, pipe.fileno()
    try:
        env = env_class(config, n_envs=1, seed=seed)
        write_message(pipe, MESSAGE, (env.env_info, env.common_reward, env.versions, env.facts, env.notes))
        row, views = 0, {}
        while kind := os.read(fd, 1):  # nothing: the trainer is gone
            if kind == STEP:
                step = env.step(views["actions"][row : row + 1])
                write(views, row, step)
                if step.terminated[0] or step.truncated[0]:
                    write_message(pipe, MESSAGE, ({k: v[0] for k, v in step.info.items()}, env.state_dict()))
                else:
                    os.write(fd, NOTHING)
                continue
            command, *arguments = pickle.loads(pipe.recv_bytes())
            answer = None
            if command == "attach":
                row, n_envs, n_rewards, memory_name = arguments
                memory = SharedMemory(memory_name)  # kept by this frame as long as its views
                views = views_of(memory, env.env_info, n_rewards, n_envs)
            elif command == "reset":
                seed, mine = arguments
                if mine:
                    seed_globals(seed)
                    write(views, row, env.reset(seed))
                answer = env.state_dict() if env.own_process else None  # what a replacement goes on from
            elif command == "close":
                return
            else:
                answer = getattr(env, command)(*arguments)
            write_message(pipe, MESSAGE, answer)
    except EOFError:  # the trainer went in the middle of a message
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            write_message(pipe, ERROR, (_picklable(error), traceback.format_exc()))
    finally:
        if env is not None:
            env.close()


def write_message(pipe: Connection, kind: bytes, message: Any) -> None:
    os.write(pipe.fileno(), kind)
    pipe.send_bytes(pickle.dumps(message))


def dies_with(parent: int) -> None:
    """Have this process killed when the process `parent`, which started it, ends in whatever way (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def write(views: dict[str, NDArray[Any]], row: int, values: Any) -> None:
    for name in (*OBSERVED, "reward", "terminated", "truncated"):
        if hasattr(values, name):
            views[name][row] = getattr(values, name)[0]


def _picklable(error: Exception) -> Exception | str:
    return error if isinstance(error, (ConfigError, GameError)) else f"{type(error).__name__}: {error}"


def layout(info: EnvInfo, n_rewards: int, n_envs: int) -> tuple[list[tuple[str, tuple[int, ...], Any, int]], int]:
    """([(name, shape, dtype, offset)], size in bytes) of the shared arrays."""
    e, n, a = n_envs, info.n_agents, info.n_actions
    fields = [
        ("actions", (e, n), np.int64),
        ("obs", (e, n, info.obs_shape), np.uint8 if info.pixels else np.float32),
        ("state", (e, info.state_shape), np.uint8 if info.state_pixels else np.float32),
        ("reward", (e, n_rewards), np.float32),
        ("avail", (e, n, a), np.bool_),
        ("terminated", (e,), np.bool_),
        ("truncated", (e,), np.bool_),
    ]
    placed, offset = [], 0
    for name, shape, dtype in fields:
        placed.append((name, shape, dtype, offset))
        offset += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64  # whole cache lines
    return placed, offset


def views_of(memory: SharedMemory, info: EnvInfo, n_rewards: int, n_envs: int) -> dict[str, NDArray[Any]]:
    fields, _ = layout(info, n_rewards, n_envs)
    return {name: np.ndarray(shape, dtype, memory.buf, offset) for name, shape, dtype, offset in fields}
