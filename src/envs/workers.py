"""E environments in E processes: for games that hold the interpreter, or that are programs of their own.

Arrays travel through shared memory; the pipe of a worker carries one byte for a step. A worker hosts a
VectorEnv of one environment, so its contract (frozen ends, no reset by itself) is everywhere the same.
Axes: E environments, N agents, A actions, O observation, S state.
"""

import atexit
import contextlib
import multiprocessing
import pickle
import signal
import time
import traceback
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from envs.vector import Observation, Step, VectorEnv
from utils.args import ConfigError, TrainingError

OBSERVED = ("obs", "state", "avail")
PATIENCE = 5  # seconds that workers get to close their games, all together
STEP = b"s"  # the one command that is not pickled: it is sent at each step


class WorkerEnv(VectorEnv):
    """`n_envs` processes that each play an `env_class` (importable by name) with `config`; environment i
    has its own random stream."""

    def __init__(self, env_class, config, n_envs, seed=None):
        self.n_envs = n_envs
        self.pipes, self.processes, self.memory = [], [], None
        atexit.register(self.close)  # before multiprocessing waits for workers that nobody told to end
        try:
            for child in np.random.SeedSequence(seed).spawn(n_envs):
                self._start(env_class, config, child)
            infos = [pickle.loads(self._receive(i)) for i in range(n_envs)]
            self.env_info, self.common_reward = infos[0]
            n_rewards = 1 if self.common_reward else self.env_info.n_agents
            self.memory = SharedMemory(create=True, size=_layout(self.env_info, n_rewards, n_envs)[1])
            self.arrays = _views(self.memory, self.env_info, n_rewards, n_envs)
            self._call([("attach", i, n_envs, n_rewards, self.memory.name) for i in range(n_envs)])
        except BaseException:
            self.close()
            raise

    def _start(self, env_class, config, seed):
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half
        ours, theirs = context.Pipe()
        self.pipes.append(ours)
        process = context.Process(target=_serve, args=(theirs, env_class, config, seed), daemon=True)
        process.start()
        self.processes.append(process)
        theirs.close()  # so that a dead worker reads as the end of the pipe

    def reset(self, seed=None, mask=None):
        seeds = [None] * self.n_envs if seed is None else np.random.SeedSequence(seed).spawn(self.n_envs)
        mask = np.ones(self.n_envs, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        self._call([("reset", s, bool(m)) for s, m in zip(seeds, mask)])
        return Observation(*(self.arrays[k].copy() for k in OBSERVED))

    def step(self, actions):
        actions = np.asarray(actions)
        if actions.shape != self.arrays["actions"].shape or not np.issubdtype(actions.dtype, np.integer):
            shape = self.arrays["actions"].shape
            raise ValueError(f"actions must be integers of shape {shape}, not {actions.dtype} {actions.shape}")
        self.arrays["actions"][:] = actions
        for i in range(self.n_envs):
            self._send(i, STEP)
        info = {}
        for i in range(self.n_envs):
            reply = self._receive(i)
            if reply:  # an episode's end
                for name, value in pickle.loads(reply).items():
                    info.setdefault(name, np.zeros(self.n_envs))[i] = value
        a = {k: v.copy() for k, v in self.arrays.items()}
        reward = a["reward"][:, 0] if self.common_reward else a["reward"]
        return Step(a["obs"], a["state"], a["avail"], reward, a["terminated"], a["truncated"], info)

    def render(self):
        return self._call([("render",)])[0]

    def save_replay(self):
        self._call([("save_replay",)])

    def state_dict(self):
        return {"workers": self._call([("state_dict",)] * self.n_envs)}

    def load_state_dict(self, state):
        self._call([("load_state_dict", s) for s in state["workers"]])

    def close(self):
        atexit.unregister(self.close)
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send_bytes(pickle.dumps(("close",)))
            pipe.close()
        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(timeout=max(0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self.pipes, self.processes = [], []
        if self.memory is not None:
            self.arrays = {}
            self.memory.close()
            self.memory.unlink()
            self.memory = None

    def _call(self, commands):
        """Send command i to worker i, all at once, then gather the answers."""
        for i, command in enumerate(commands):
            self._send(i, pickle.dumps(command))
        return [pickle.loads(self._receive(i)) for i in range(len(commands))]

    def _send(self, i, message):
        try:
            self.pipes[i].send_bytes(message)
        except OSError as error:
            raise self._death(i) from error

    def _receive(self, i):
        try:
            reply = self.pipes[i].recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death(i) from error
        if reply[:1] == b"!":
            error, trace = pickle.loads(reply[1:])
            if isinstance(error, ConfigError):
                raise error
            raise RuntimeError(f"environment {i} failed: {error}\nin its worker process:\n{trace}")
        return reply[1:]

    def _death(self, i):
        self.processes[i].join(timeout=1)
        return TrainingError(f"the worker process of environment {i} died (exit code {self.processes[i].exitcode})")


def _serve(pipe, env_class, config, seed):
    """A worker: answers each message with b"." and a result, or b"!" and an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's; it closes us
    signal.signal(signal.SIGTERM, lambda *_: None)  # as is a scheduler's kill; not SIG_IGN, which a game inherits
    env, views, row = None, {}, 0
    try:
        env = env_class(config, n_envs=1, seed=seed)
        pipe.send_bytes(b"." + pickle.dumps((env.env_info, env.common_reward)))
        while True:
            message = pipe.recv_bytes()
            if message == STEP:
                step = env.step(views["actions"][row : row + 1])
                _write(views, row, step)
                over = step.terminated[0] or step.truncated[0]
                pipe.send_bytes(b"." + (pickle.dumps({k: v[0] for k, v in step.info.items()}) if over else b""))
                continue
            command, *arguments = pickle.loads(message)
            answer = None
            if command == "attach":
                row, n_envs, n_rewards, memory_name = arguments
                memory = SharedMemory(memory_name)  # kept by this frame as long as its views
                views = _views(memory, env.env_info, n_rewards, n_envs)
            elif command == "reset":
                seed, mine = arguments
                observed = env.reset(seed, np.array([mine]))
                if mine:
                    _write(views, row, observed)
            elif command == "close":
                return
            else:
                answer = getattr(env, command)(*arguments)
            pipe.send_bytes(b"." + pickle.dumps(answer))
    except EOFError:  # the trainer is gone
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send_bytes(b"!" + pickle.dumps((_picklable(error), traceback.format_exc())))
    finally:
        if env is not None:
            env.close()


def _write(views, row, values):
    for name in (*OBSERVED, "reward", "terminated", "truncated"):
        if hasattr(values, name):
            views[name][row] = getattr(values, name)[0]


def _picklable(error):
    return error if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"


def _layout(info, n_rewards, n_envs):
    """([(name, shape, dtype, offset)], size in bytes) of the shared arrays."""
    e, n, a = n_envs, info.n_agents, info.n_actions
    fields = [
        ("actions", (e, n), np.int64),
        ("obs", (e, n, info.obs_shape), np.float32),
        ("state", (e, info.state_shape), np.float32),
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


def _views(memory, info, n_rewards, n_envs):
    fields, _ = _layout(info, n_rewards, n_envs)
    return {name: np.ndarray(shape, dtype, memory.buf, offset) for name, shape, dtype, offset in fields}
