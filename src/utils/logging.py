"""Where a run's numbers and words go: the console, JSONL, Sacred, TensorBoard, Weights & Biases.

`Logger.log_stat` is EPyMARL's call. Each sink gets every record; none of them can end a run. The
JSONL file is the full record; Sacred gets a thinned one (see `SacredSink`).
"""

import hashlib
import itertools
import json
import logging
import math
import os
import sys
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from utils.args import ConfigError, key

WINDOW = 5  # recent values of a key that the console line averages, as in EPyMARL
COLUMNS = 4  # of the console's table
JSONL_CHUNK = 1000  # lines handed to the disk at once when a backlog is written


@dataclass(frozen=True)
class LoggingConfig:
    """What the run writes, and where to."""

    local_results_path: str = key("folder for logs, checkpoints and Sacred's files")
    use_tensorboard: bool = key("also write TensorBoard event files")
    use_wandb: bool = key("also log to Weights & Biases")
    wandb_team: str | None = key("Weights & Biases entity that owns the project")
    wandb_project: str | None = key("Weights & Biases project")
    wandb_mode: str = key("offline writes to disk, online uploads", choices=("offline", "online"))
    mongo_url: str | None = key("MongoDB server for Sacred, mongodb://host:port; null: none")
    mongo_db: str | None = key("database on mongo_url that holds the runs")

    def __post_init__(self):
        if self.mongo_url and not self.mongo_db:
            url = without_password(self.mongo_url)
            raise ConfigError(f"mongo_url is {url!r} but mongo_db is not set; name a database")
        if self.use_wandb and not (self.wandb_team and self.wandb_project):
            raise ConfigError("use_wandb needs both wandb_team and wandb_project")


class Outage:
    """Swallows the errors of what a run can do without, and tells the console once of each outage.

    with outage: ...   an Exception inside ends the block, not the run. The first one of an outage
    is a console warning, the first success after it a console line.
    """

    def __init__(self, name, console, consequence="the run goes on without it and tries again"):
        self.name, self.console, self.consequence = name, console, consequence
        self.active = False

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None:
            if self.active:
                self.active = False
                self.console.info("%s: works again", self.name)
            return False
        if not isinstance(error, Exception):  # KeyboardInterrupt, SystemExit
            return False
        if not self.active:
            self.active = True  # before the message: the console may be what fails
            self.console.warning("%s: %s; %s", self.name, brief(error), self.consequence)
        return True


def brief(error, limit=200):
    """An exception as one short line: pymongo's and wandb's messages run to pages."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:limit]}{'…' if len(text) > limit else ''}"


class Record(NamedTuple):
    """One logged value. t_env: environment steps so far; time: unix seconds."""

    key: str
    value: float
    t_env: int
    episode: int
    time: float


class Logger:
    """Hands each statistic of a run to the sinks and prints the recent ones.

    console_logger: a `logging.Logger`. `episode`: episodes so far, set by the training loop.
    `stats`: {key: the last few (t, value)}. `latest`: {key: last value}.
    """

    Config = LoggingConfig

    def __init__(self, console_logger):
        self.console_logger = console_logger
        self.episode = 0
        self.stats = defaultdict(lambda: deque(maxlen=WINDOW))
        self.latest = {}
        self._t_env = 0
        self._sinks = []  # of (sink, its Outage)

    def add_sink(self, sink):
        """Give `sink` every record from now on."""
        self._sinks.append((sink, Outage(type(sink).__name__, self.console_logger)))

    def log_stat(self, key, value, t):
        """Log `value` (a number, or a numpy or torch scalar) of `key` at environment step `t`."""
        # .item(): float() of a tensor that carries a gradient warns.
        value, self._t_env = float(value.item() if hasattr(value, "item") else value), int(t)
        self.stats[key].append((self._t_env, value))
        self.latest[key] = value
        record = Record(key, value, self._t_env, self.episode, time.time())
        for sink, outage in self._sinks:
            with outage:
                sink.write(record)

    def print_recent_stats(self):
        """Print the mean of each key's recent values (of epsilon: the last), in columns."""
        names = sorted(name for name in self.stats if name != "episode")
        width = max((len(name) for name in names), default=0) + 1
        cells = [f"{name + ':':<{width}} {_number(self._recent(name)):>10}" for name in names]
        rows = ["   ".join(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
        header = f"Recent Stats | t_env: {self._t_env:>10} | Episode: {self.episode:>8}"
        self.console_logger.info("\n".join([header, *rows]))

    def flush(self):
        """Have the sinks write out what they hold."""
        for sink, outage in self._sinks:
            with outage:
                sink.flush()

    def finish(self):
        """Close the sinks; what one of them lost is a console warning. A second call does nothing.

        Call it before Sacred's main function returns, or Sacred misses the last values.
        """
        sinks, self._sinks = self._sinks, []
        for sink, _ in sinks:
            # A new Outage: what is lost in the end is told even when the failure is an old one.
            with Outage(f"closing {type(sink).__name__}", self.console_logger, "the run itself is complete"):
                sink.close()

    def _recent(self, name):
        values = [value for _, value in self.stats[name]]
        return values[-1] if name == "epsilon" else sum(values) / len(values)


def _number(value):
    """Four decimals as EPyMARL prints, an exponent where those would hide the value."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


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


def get_logger(path=None):
    """The logger "qtran": `[INFO 12:34:56] ...` lines to stderr, and to the file `path` if given.

    Leaves the root logger alone. A second call replaces the handlers. Raises ConfigError when the
    file cannot be opened; a disk that fills up later costs one warning.
    """
    logger = logging.getLogger("qtran")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if path is not None:
        handlers.append(_open_log_file(Path(path)))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    return logger


class _ConsoleHandler(logging.StreamHandler):
    """Writes to what sys.stderr is at the time, so that a capture of it (Sacred's) sees the lines."""

    def emit(self, record):
        self.stream = sys.stderr
        super().emit(record)


class _LogFileHandler(logging.FileHandler):
    """A FileHandler that warns once, on the logger itself, where the standard one prints a
    traceback for each line that a full disk refuses."""

    def __init__(self, path):
        super().__init__(path, encoding="utf-8")
        self._outage = Outage(str(path), logging.getLogger("qtran"), "lines will be missing there")

    stream: Any

    def emit(self, record):
        with self._outage:
            self.stream.write(self.format(record) + self.terminator)
            self.flush()

    def close(self):
        with suppress(OSError):  # lines that the full disk did not take, told already
            super().close()


def _open_log_file(path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _LogFileHandler(path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path, error):
    """The ConfigError for a place that an OSError bars."""
    return ConfigError(f"{path}: cannot be written: {error}; change local_results_path")


def missing_package(wanted_by, requirement):
    """The ConfigError for an optional package, with its pip line. wanted_by: the key that asks for it."""
    package = requirement.split("==")[0]
    return ConfigError(f"{wanted_by} needs {package}; install it with: pip install {requirement}")


def without_password(url):
    """mongodb://user:secret@host as mongodb://host."""
    return url.split("//", 1)[0] + "//" + url.rsplit("@", 1)[1] if "@" in url else url
