"""A run's numbers and words: the Logger, which hands every number to the sinks (`recording/sinks.py`), and the console.

`Logger.log_stat` is EPyMARL's call. No sink can end a run.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from utils.args import ConfigError, key
from utils.messages import brief, unwritable, without_user

WINDOW = 5  # recent values of a key that the console line averages, as in EPyMARL
COLUMNS = 4  # of the console's table, at most


@dataclass(frozen=True)
class LoggingConfig:
    """What the run writes, and where to."""

    local_results_path: str = key("folder for logs, checkpoints and Sacred's files")
    use_tensorboard: bool = key("also write TensorBoard event files")
    use_wandb: bool = key("also log to Weights & Biases")
    wandb_team: str | None = key("Weights & Biases entity that owns the project")
    wandb_project: str | None = key("Weights & Biases project")
    wandb_mode: str = key("offline writes to disk, online uploads", choices=("offline", "online"))
    mongo_url: str | None = key(
        "MongoDB server for Sacred, mongodb://user@host:port; no file keeps its password; null: none"
    )
    mongo_db: str | None = key("database on mongo_url that holds the runs")

    def __post_init__(self) -> None:
        if self.mongo_url and not self.mongo_db:
            raise ConfigError(f"mongo_url is {without_user(self.mongo_url)!r} but mongo_db is not set; name a database")
        if self.use_wandb and not (self.wandb_team and self.wandb_project):
            raise ConfigError("use_wandb needs both wandb_team and wandb_project")


class Outage:
    """Swallows the errors of what a run can do without, and tells the console once of each outage.

    with outage: ...   an Exception inside ends the block, not the run. The first one of an outage
    is a console warning, the first success after it a console line.
    """

    def __init__(
        self, name: str, console: logging.Logger, consequence: str = "the run goes on without it and tries again"
    ) -> None:
        self.name, self.console, self.consequence = name, console, consequence
        self.active = False

    def __enter__(self) -> Outage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
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


class Record(NamedTuple):
    """One logged value. t_env: environment steps so far; time: unix seconds."""

    key: str
    value: float
    t_env: int
    episode: int
    time: float


LAST = {"epsilon", "updates", "updates_left_out", "episodes_left_out", "env_restarts"}  # not means, but how it is now


class Logger:
    """Hands each statistic of a run to the sinks and prints the recent ones.

    console_logger: a `logging.Logger`. `episode`: episodes so far, set by the training loop.
    `stats`: {key: the last few (t, value)}. `latest`: {key: last value}.
    """

    Config = LoggingConfig

    def __init__(self, console_logger: logging.Logger) -> None:
        self.console_logger = console_logger
        self.episode = 0
        self.stats = defaultdict(lambda: deque(maxlen=WINDOW))
        self.latest = {}
        self._t_env = 0
        self._sinks = []  # of (sink, its Outage)

    def add_sink(self, sink: Any, kept: Sequence[Record] | None = None) -> None:
        """Give `sink` every record from now on.

        kept: in a resumed run, the records of metrics.jsonl that it goes on from, if any; they go to `sink.resume`.
        """
        outage = Outage(type(sink).__name__, self.console_logger)
        self._sinks.append((sink, outage))
        if kept is not None:
            with outage:
                sink.resume(kept)

    def restore(self, kept: Sequence[Record]) -> None:
        """Have `stats`, `latest` and the printed t_env as they were after the records `kept`; no sink gets them."""
        for record in kept:
            self._remember(record)

    def log_stat(self, key: str, value: Any, t: int) -> None:
        """Log `value` (a number, or a numpy or torch scalar) of `key` at environment step `t`."""
        # .item(): float() of a tensor that carries a gradient warns.
        value = float(value.item() if hasattr(value, "item") else value)
        record = Record(key, value, int(t), self.episode, time.time())
        self._remember(record)
        for sink, outage in self._sinks:
            with outage:
                sink.write(record)

    def print_recent_stats(self) -> None:
        """Print the mean of each key's recent values (of LAST: the last), in columns."""
        names = sorted(name for name in self.stats if name != "episode")
        width = max((len(name) for name in names), default=0) + 1
        cells = [f"{name + ':':<{width}} {_number(self._recent(name)):>10}" for name in names]
        room = shutil.get_terminal_size((10_000, 0)).columns  # as many as fit; where it is no terminal, all of them
        columns = max(1, min(COLUMNS, (room + 3) // (width + 14)))
        rows = ["   ".join(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        header = f"Recent Stats | t_env: {self._t_env:>10} | Episode: {self.episode:>8}"
        self.console_logger.info("\n".join([header, *rows]))

    def finish(self) -> None:
        """Close the sinks; what one of them lost is a console warning. A second call does nothing.

        Call it before Sacred's main function returns, or Sacred misses the last values.
        """
        sinks, self._sinks = self._sinks, []
        for sink, _ in sinks:
            # A new Outage: what is lost in the end is reported even when the failure is an old one.
            with Outage(f"closing {type(sink).__name__}", self.console_logger, "the run itself is complete"):
                sink.close()

    def _remember(self, record: Record) -> None:
        self._t_env = record.t_env
        self.stats[record.key].append((record.t_env, record.value))
        self.latest[record.key] = record.value

    def _recent(self, name: str) -> float:
        values = [value for _, value in self.stats[name]]
        return values[-1] if name in LAST else sum(values) / len(values)


def _number(value: float) -> str:
    """Four decimals as EPyMARL prints, an exponent where those would hide the value."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


def get_logger(path: Path | None = None, mine: Callable[[], bool] = lambda: True) -> logging.Logger:
    """The logger "qtran": `[INFO 12:34:56] ...` lines to stderr, and to the file `path` if given, as long as mine() is
    true: the file belongs to this process.

    Leaves the root logger alone. A second call replaces the handlers. Raises ConfigError when the
    file cannot be opened; a disk that fills up later gives one warning.
    """
    logger = logging.getLogger("qtran")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if path is not None:
        handlers.append(_open_log_file(Path(path), mine))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(levelname)s %(asctime)s] %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    return logger


class _ConsoleHandler(logging.StreamHandler):
    """Writes to what sys.stderr is at the time, so that a capture of it (Sacred's) sees the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _LogFileHandler(logging.FileHandler):
    """A FileHandler that warns once, on the logger itself, where the standard one prints a
    traceback for each line that a full disk refuses."""

    def __init__(self, path: Path, mine: Callable[[], bool]) -> None:
        super().__init__(path, encoding="utf-8")
        self._mine = mine
        self._outage = Outage(str(path), logging.getLogger("qtran"), "lines will be missing there")

    stream: Any

    def emit(self, record: logging.LogRecord) -> None:
        if not self._mine():
            return
        with self._outage:
            self.stream.write(self.format(record) + self.terminator)
            self.flush()

    def close(self) -> None:
        with suppress(OSError):  # lines that the full disk did not take, told already
            super().close()


def _open_log_file(path: Path, mine: Callable[[], bool]) -> _LogFileHandler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # to open a pipe would wait for its reader
        return _LogFileHandler(path, mine)
    except OSError as error:
        raise unwritable(path, error) from error
