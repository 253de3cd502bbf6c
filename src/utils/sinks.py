"""The sinks of a run's numbers: JSONL, Sacred, TensorBoard, Weights & Biases.

The `Logger` (`utils/logging.py`) hands each of them every record. The JSONL file is the full record; Sacred
gets a thinned one (see `SacredSink`).
"""

import hashlib
import itertools
import json
import math
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from utils.args import ConfigError
from utils.logging import brief, missing_package, unwritable

JSONL_CHUNK = 1000  # lines handed to the disk at once when a backlog is written


class Sink:
    """Takes the records of a run. Any method may raise: the Logger warns and calls again later."""

    def write(self, record):
        raise NotImplementedError

    def flush(self):
        """Write out what is held back, if anything."""

    def close(self):
        """No records will follow."""


class JsonlSink(Sink):
    """Appends one JSON object a line to a file: {"key", "value", "t_env", "episode", "time"}.

    Non-finite values are null. A line goes to the system as it is logged, so that a killed run
    keeps it. When the disk is full the lines wait in memory and go out, in order and once each, as
    soon as there is space. Raises ConfigError when the file cannot be opened.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._lines = deque()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._size = self._end_of_last_line()
        # Half a line follows _size: of a run that was killed, or of a write that failed.
        self._torn = self._size != os.fstat(self._fd).st_size

    def write(self, record):
        value = record.value if math.isfinite(record.value) else None
        line = json.dumps(record._replace(value=value)._asdict(), allow_nan=False)
        self._lines.append(line.encode() + b"\n")
        self.flush()

    def flush(self):
        while self._lines:
            chunk = list(itertools.islice(self._lines, JSONL_CHUNK))
            self._append(b"".join(chunk))
            for _ in chunk:
                self._lines.popleft()

    def close(self):
        try:
            self.flush()
        except OSError as error:
            raise OSError(f"{len(self._lines)} records lost: {error}") from error
        finally:
            os.close(self._fd)

    def _append(self, data):
        """Write all of `data` or, with an OSError, none of it."""
        if self._torn:
            self._cut()
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            error.filename = str(self.path)
            self._torn = True
            with suppress(OSError):  # tried again before the next write
                self._cut()
            raise
        self._size += len(data)

    def _cut(self):
        os.ftruncate(self._fd, self._size)
        self._torn = False

    def _end_of_last_line(self):
        size = os.fstat(self._fd).st_size
        start = max(0, size - 65536)  # far longer than a line
        return start + os.pread(self._fd, size - start, start).rfind(b"\n") + 1


class SacredSink(Sink):
    """Hands Sacred at most about `points` values of each key, evenly spaced over `t_max` steps.

    Sacred's observers rewrite all metrics at each heartbeat (10 s), so the number of points is what
    a heartbeat costs. Test metrics, which are few, all arrive, and so does the last value of every
    key, when the sink is closed. `run.info` is left alone.
    """

    def __init__(self, run, t_max, points=500):
        self._run = run
        self._spacing = max(1, t_max / points)  # environment steps
        self._slot = {}  # {key: index of the last spacing that gave a value}
        self._held = {}  # {key: last record, if it was not handed over}

    def write(self, record):
        slot = record.t_env // self._spacing
        if record.key.startswith("test_") or self._slot.get(record.key) != slot:
            self._slot[record.key] = slot
            self._held.pop(record.key, None)
            self._hand_over(record)
        else:
            self._held[record.key] = record

    def close(self):
        while self._held:
            self._hand_over(self._held.popitem()[1])

    def _hand_over(self, record):
        self._run.log_scalar(record.key, record.value, record.t_env)


class TensorBoardSink(Sink):
    """TensorBoard event files in `directory`. Raises ConfigError when tensorboard is missing."""

    def __init__(self, directory):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("use_tensorboard", "tensorboard==2.20.0") from error
        try:
            self._writer = SummaryWriter(str(directory))
        except OSError as error:
            raise unwritable(directory, error) from error

    def write(self, record):
        self._writer.add_scalar(record.key, record.value, record.t_env, walltime=record.time)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


class WandbSink(Sink):
    """Weights & Biases, as EPyMARL does it: values of one step in one call, seeds in one group.

    config: the run's whole configuration. Raises ConfigError when wandb is missing or refuses.
    """

    def __init__(self, config, team, project, mode):
        try:
            import wandb
        except ImportError as error:
            raise missing_package("use_wandb", "wandb==0.31.0") from error
        group = group_name(config)
        try:
            self._run = wandb.init(entity=team, project=project, config=config, group=group, mode=mode)
        except Exception as error:  # no account, no network, no such team
            raise ConfigError(f"use_wandb: {brief(error)}; wandb_mode: offline needs no network") from error
        self._t_env = None
        self._values = {}  # of step _t_env, not sent yet

    def write(self, record):
        if record.t_env != self._t_env:
            self.flush()
        self._t_env = record.t_env
        self._values[record.key] = record.value

    def flush(self):
        # Emptied first: W&B adds later values of the same step to it, and a failed step is not sent twice.
        values, self._values = self._values, {}
        if values:
            self._run.log(values, step=self._t_env)

    def close(self):
        self.flush()
        self._run.finish()


def group_name(config):
    """EPyMARL's W&B group, alg_env_hash: one for all the seeds of a configuration."""
    env_args = {k: v for k, v in config["env_args"].items() if k != "seed"}
    task = env_args.get("map_name", env_args.get("key"))
    same_for_all_seeds = {**config, "env_args": env_args}
    same_for_all_seeds.pop("seed", None)
    text = json.dumps(same_for_all_seeds, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[-10:]
    return "_".join(str(part) for part in (config["name"], config["env"], task, digest) if part is not None)
