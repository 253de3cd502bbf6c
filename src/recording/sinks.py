"""The sinks of a run's numbers: JSONL, Sacred, TensorBoard, Weights & Biases.

The `Logger` (`utils/logging.py`) hands each of them every record. The JSONL file is the full record; Sacred
gets a thinned one (see `SacredSink`).

A run that is resumed goes on from a position in that file. `cut_metrics` drops what lies beyond, and the other sinks
get what is left (`Sink.resume`): they then hold what they would hold had the run never stopped, except that a value
that was infinite is nan in them.
"""

import hashlib
import itertools
import json
import math
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from utils.args import ConfigError
from utils.disk import sync_folder
from utils.logging import Record
from utils.messages import brief, missing_package, unwritable
from utils.runs import Damaged, is_step

JSONL_CHUNK = 1000  # lines handed to the disk at once when a backlog is written
COPY_CHUNK = 2**20  # bytes
LAST_SECOND = 2**37  # the year 6325: beyond are no dates
MOST_BEYOND = 2**30  # bytes of records since the last state


def cut_metrics(path: Path, position: int, aside: Path, look: Callable[[], None] = lambda: None) -> list[Record]:
    """Cut metrics.jsonl at the byte `position` and return the records before it (null values as nan).

    What lies beyond is appended to the file `aside` of the same folder first; it is there twice if the process dies
    between the two. The kept lines always get a new file: a former process may still hold the old one open. A file
    that is not there counts as empty. Raises Damaged when no line ends at `position` or one before it is not a
    record, OSError when the disk refuses; metrics.jsonl is then as it was. look: as for `JsonlSink`; called before each
    of the two files is changed.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        _check_rest(path, position)
        with open(path, "rb") as old:
            with open(partial, "xb") as new:
                kept = list(_copy_records(old, new, position))
                _sync(new)
            look()
            if os.fstat(old.fileno()).st_size > position:
                _append_rest(old, aside)
        look()
        os.replace(partial, path)
    except FileNotFoundError:
        if position == 0:
            return []
        raise Damaged(f"{path} is damaged: it is missing, and should hold {position} bytes") from None
    except ValueError as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return kept


def _check_rest(path: Path, position: int) -> None:
    """ValueError for what is no file, and where more lies beyond `position` than one process can have written there."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a file")
    if status.st_size - position > MOST_BEYOND:
        raise ValueError(f"it has {status.st_size} bytes, and the last state is of {position}")


def _copy_records(old: BinaryIO, new: BinaryIO, position: int) -> Iterator[Record]:
    """The records of the lines of `old` up to `position`, each line copied to `new`. ValueError when it is damaged."""
    at = 0
    while at < position:
        line = old.readline(position - at)
        at += len(line)
        if at > position or not line.endswith(b"\n"):
            raise ValueError(f"no line ends at byte {position}")
        try:
            fields = json.loads(line)
            fields["key"] = sys.intern(fields["key"])  # one string for all lines of a key
            fields["value"] = math.nan if fields["value"] is None else fields["value"]
            record = _checked(Record(**fields))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"the line that ends at byte {at} is not a record: {error}") from error
        new.write(line)
        yield record


def _checked(record: Record) -> Record:
    """The record. ValueError where one of its numbers is none."""
    value, seconds = record.value, record.time
    numbers = all(type(number) in (int, float) and not abs(number) > sys.float_info.max for number in (value, seconds))
    if not (numbers and is_step(record.t_env) and is_step(record.episode) and 0 <= seconds < LAST_SECOND):
        raise ValueError("a number in it is none")
    return record


def _append_rest(file: BinaryIO, aside: Path) -> None:
    """Append what `file` still holds to `aside`, as whole lines."""
    last = b""
    with open(aside, "ab+") as target:
        if target.tell() and os.pread(target.fileno(), 1, target.tell() - 1) != b"\n":  # of a kill in the midst of this
            target.write(b"\n")
        while chunk := file.read(COPY_CHUNK):
            target.write(chunk)
            last = chunk
        if not last.endswith(b"\n"):  # half a line, of the kill
            target.write(b"\n")
        _sync(target)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


class Sink:
    """Takes the records of a run. Any method may raise: the Logger warns and calls again later."""

    def resume(self, kept: Sequence[Record]) -> None:
        """Hold exactly `kept`, all that a resumed run keeps. Called once, before the first `write`, if at all.

        A former process of the run may have handed over the same records and more. Not called in a new run.
        """

    def write(self, record: Record) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Write out what is held back, if anything."""

    def close(self) -> None:
        """No records will follow."""


class JsonlSink(Sink):
    """Appends one JSON object a line to a file: {"key", "value", "t_env", "episode", "time"}.

    Non-finite values are null. A line goes to the system as it is logged, so that a killed run
    keeps it. When the disk is full the lines wait in memory and go out, in order and once each, as
    soon as there is space. Raises ConfigError when the file cannot be opened.

    look: called before each write to the file. What it raises (a BaseException, or the Logger would swallow it) comes
    out of `write`, `flush`, `position` and `close`, and nothing is written: another process has taken over the run.
    """

    def __init__(self, path: str | Path, look: Callable[[], None] = lambda: None) -> None:
        self.path, self._look = Path(path), look
        self._lines = deque()
        self.lost = 0  # records, when it was closed
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._size = self._end_of_last_line()
        # Half a line follows _size: of a run that was killed, or of a write that failed.
        self._torn = self._size != os.fstat(self._fd).st_size

    def write(self, record: Record) -> None:
        value = record.value if math.isfinite(record.value) else None
        line = json.dumps(record._replace(value=value)._asdict(), allow_nan=False)
        self._lines.append(line.encode() + b"\n")
        self.flush()

    def flush(self) -> None:
        while self._lines:
            chunk = list(itertools.islice(self._lines, JSONL_CHUNK))
            self._append(b"".join(chunk))
            for _ in chunk:
                self._lines.popleft()

    @property
    def waiting(self) -> int:
        """Records that are not in the file yet."""
        return len(self._lines)

    def position(self) -> int:
        """The bytes of the file, all whole lines, when every record is on disk. OSError when lines have to wait."""
        self.flush()
        os.fsync(self._fd)
        sync_folder(self.path.parent)
        return self._size

    def close(self) -> None:
        try:
            self.flush()
        except OSError as error:
            self.lost = len(self._lines)
            raise OSError(f"{self.lost} records lost: {error}") from error
        finally:
            os.close(self._fd)

    def _append(self, data: bytes) -> None:
        """Write all of `data` or, with an OSError, none of it."""
        self._look()
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

    def _cut(self) -> None:
        os.ftruncate(self._fd, self._size)
        self._torn = False

    def _end_of_last_line(self) -> int:
        size = os.fstat(self._fd).st_size
        start = max(0, size - 65536)  # far longer than a line
        return start + os.pread(self._fd, size - start, start).rfind(b"\n") + 1


class SacredSink(Sink):
    """Hands Sacred at most about `points` values of each key, evenly spaced over `t_max` steps.

    Sacred's observers rewrite all metrics at each heartbeat (10 s), so the number of points is what
    a heartbeat costs. Test metrics, which are few, all arrive, and so does the last value of every
    key, when the sink is closed. `run.info` is left alone.
    """

    def __init__(self, run: Any, t_max: int, points: int = 500) -> None:
        self._run = run
        self._spacing = max(1, t_max / points)  # environment steps
        self._slot = {}  # {key: index of the last spacing that gave a value}
        self._held = {}  # {key: last record, if it was not handed over}

    def resume(self, kept: Sequence[Record]) -> None:
        """Thins `kept` as `write` does. Sacred's observers replace what they stored before (`observers.py`)."""
        from sacred.metrics_logger import ScalarMetricLogEntry

        for record in kept:
            if self._is_due(record):
                # What log_scalar of Sacred 0.8.7 (pinned) does, but that takes the time of now.
                when = datetime.fromtimestamp(record.time, timezone.utc).replace(tzinfo=None)
                entry = ScalarMetricLogEntry(record.key, record.t_env, when, record.value)
                self._run._metrics._logged_metrics.put(entry)

    def write(self, record: Record) -> None:
        if self._is_due(record):
            self._hand_over(record)

    def close(self) -> None:
        while self._held:
            self._hand_over(self._held.popitem()[1])

    def _is_due(self, record: Record) -> bool:
        """Whether the record is to be handed over now; if not, it is held."""
        slot = record.t_env // self._spacing
        if record.key.startswith("test_") or self._slot.get(record.key) != slot:
            self._slot[record.key] = slot
            self._held.pop(record.key, None)
            return True
        self._held[record.key] = record
        return False

    def _hand_over(self, record: Record) -> None:
        self._run.log_scalar(record.key, record.value, record.t_env)


class TensorBoardSink(Sink):
    """TensorBoard event files in `directory`. Raises ConfigError when tensorboard is missing."""

    def __init__(self, directory: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("use_tensorboard", "tensorboard==2.20.0") from error
        self._directory, self._new_writer = Path(directory), SummaryWriter
        try:
            self._writer = SummaryWriter(str(directory))
        except OSError as error:
            raise unwritable(directory, error) from error

    def resume(self, kept: Sequence[Record]) -> None:
        """Removes all event files of the directory and writes `kept` anew: TensorBoard shows all that it finds."""
        self._writer.close()
        for file in self._directory.glob("events.out.tfevents.*"):
            file.unlink(missing_ok=True)
        self._writer = self._new_writer(str(self._directory))
        for record in kept:
            self.write(record)
        self.flush()

    def write(self, record: Record) -> None:
        self._writer.add_scalar(record.key, record.value, record.t_env, walltime=record.time)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink(Sink):
    """Weights & Biases, as EPyMARL does it: values of one step in one call, seeds in one group.

    config: the run's whole configuration. run_id: names the run at W&B, where its later processes find it by that
    name. Raises ConfigError when wandb is missing or refuses.

    W&B takes no value of a step before the last one that it has. So a resumed run goes on after that one: of steps
    that it repeats, W&B keeps what it got first. Offline, each process of a run writes a folder of its own that holds
    all of the run, and of several with one run_id that `wandb sync` uploads the later replaces the earlier.
    """

    def __init__(self, config: dict, team: str, project: str, mode: str, run_id: str | None = None) -> None:
        try:
            import wandb
        except ImportError as error:
            raise missing_package("use_wandb", "wandb==0.31.0") from error
        group = group_name(config)
        again: dict[str, Any] = {} if run_id is None else {"id": run_id}
        if run_id is not None and mode == "online":  # offline, `wandb sync` would append the folder to the former one
            again["resume"] = "allow"
        try:
            self._run = wandb.init(entity=team, project=project, config=config, group=group, mode=mode, **again)
        except Exception as error:  # no account, no network, no such team
            raise ConfigError(f"use_wandb: {brief(error)}; wandb_mode: offline needs no network") from error
        self._t_env = None
        self._values = {}  # of step _t_env, not sent yet

    def resume(self, kept: Sequence[Record]) -> None:
        """Sends only what W&B does not have yet: the steps after its last one; offline it has none."""
        for record in kept:
            if record.t_env >= self._run.starting_step:
                self.write(record)

    def write(self, record: Record) -> None:
        if record.t_env != self._t_env:
            self.flush()
        self._t_env = record.t_env
        self._values[record.key] = record.value

    def flush(self) -> None:
        # Emptied first: W&B adds later values of the same step to it, and a failed step is not sent twice.
        values, self._values = self._values, {}
        if values:
            self._run.log(values, step=self._t_env)

    def close(self) -> None:
        self.flush()
        self._run.finish()


def group_name(config: dict) -> str:
    """EPyMARL's W&B group, alg_env_hash: one for all the seeds of a configuration."""
    env_args = {k: v for k, v in config["env_args"].items() if k != "seed"}
    task = env_args.get("map_name", env_args.get("key"))
    same_for_all_seeds = {**config, "env_args": env_args}
    same_for_all_seeds.pop("seed", None)
    text = json.dumps(same_for_all_seeds, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[-10:]
    return "_".join(str(part) for part in (config["name"], config["env"], task, digest) if part is not None)
