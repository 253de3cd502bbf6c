"""Every sink gets every record, and none of them can end a run."""

import datetime
import json
import logging
import math
import os
import random
import subprocess
import sys
import types
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from recording.sinks import JsonlSink, SacredSink, Sink, TensorBoardSink, WandbSink, cut_metrics, group_name
from utils.args import ConfigError, read
from utils.logging import WINDOW, Logger, LoggingConfig, Record, get_logger

SRC = Path(__file__).parents[2] / "src"


class Lines(logging.Handler):
    """Keeps the messages of a logger."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def logger(lines):
    console = logging.Logger("test")
    console.addHandler(lines)
    return Logger(console)


class Kept(Sink):
    """A sink that keeps what it gets and fails while `broken`."""

    def __init__(self):
        self.records, self.broken, self.closed = [], None, 0

    def write(self, record):
        if self.broken:
            raise self.broken
        self.records.append(record)

    def close(self):
        self.closed += 1


def objects(path):
    """The objects of a JSONL file; an error if any line is not strict JSON."""
    return [json.loads(line, parse_constant=pytest.fail) for line in Path(path).read_text().splitlines()]


# ---- Logger


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0), torch.tensor(2.0, requires_grad=True)]
)
def test_values_become_python_numbers(logger, value):
    sink = Kept()
    logger.add_sink(sink)
    logger.episode = 3
    logger.log_stat("loss", value, np.int64(7))
    (record,) = sink.records
    assert (record.key, record.value, record.t_env, record.episode) == ("loss", 2.0, 7, 3)
    assert type(record.value) is float and type(record.t_env) is int
    assert logger.latest == {"loss": 2.0} and list(logger.stats["loss"]) == [(7, 2.0)]


def test_memory_is_bounded(logger):
    for t in range(1000):
        logger.log_stat("loss", t, t)
    assert [t for t, _ in logger.stats["loss"]] == list(range(1000 - WINDOW, 1000))


def test_recent_stats_fit_the_terminal(logger, lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for k in range(6):
        logger.log_stat(f"a_figure_with_a_long_name_{k}_mean", k, 1)
    logger.print_recent_stats()
    assert max(map(len, lines.messages[-1].splitlines())) <= 80
    assert all(f"_{k}_mean:" in lines.messages[-1] for k in range(6))


def test_recent_stats_are_aligned_columns_of_means(logger, lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for t, value in enumerate([1, 2, 3, 4, 5, 6]):  # 1 falls out of the window
        logger.log_stat("loss", value, t)
        logger.log_stat("epsilon", value, t)
    for name in ["a", "test_return_mean", "grad_norm"]:
        logger.log_stat(name, 1e-6, 10)
    logger.episode = 12
    logger.print_recent_stats()
    header, *rows = lines.messages[0].splitlines()
    assert header == "INFO Recent Stats | t_env:         10 | Episode:       12"
    assert rows[0].split()[::2] == ["a:", "epsilon:", "grad_norm:", "loss:"]
    assert rows[0].split()[1::2] == ["1.000e-06", "6.0000", "1.000e-06", "4.0000"]
    assert rows[1] == "test_return_mean:  1.000e-06"
    assert rows[0].startswith("a:                 1.000e-06   epsilon:")


def test_recent_stats_before_any(logger, lines):
    logger.print_recent_stats()
    assert lines.messages == ["INFO Recent Stats | t_env:          0 | Episode:        0"]


def test_broken_sink_costs_one_warning_each_outage(logger, lines):
    broken, sound = Kept(), Kept()
    logger.add_sink(broken)
    logger.add_sink(sound)
    for broken.broken in [OSError("no space"), OSError("no space"), None, None, ValueError("again"), None]:
        logger.log_stat("loss", 1.0, 0)
    assert len(sound.records) == 6 and len(broken.records) == 3
    assert lines.messages == [
        "WARNING Kept: OSError: no space; the run goes on without it and tries again",
        "INFO Kept: works again",
        "WARNING Kept: ValueError: again; the run goes on without it and tries again",
        "INFO Kept: works again",
    ]


def test_interrupts_are_not_swallowed(logger):
    sink = Kept()
    sink.broken = KeyboardInterrupt()
    logger.add_sink(sink)
    with pytest.raises(KeyboardInterrupt):
        logger.log_stat("loss", 1.0, 0)


def made_records(count, seed=0):
    """Records as a training run logs them: several keys a step, a few of them tests."""
    draw = random.Random(seed)
    keys = ["loss", "epsilon", "test_return_mean"]
    return [Record(draw.choice(keys), draw.random(), 10 * (i // 3), i, 1.7e9 + i + draw.random()) for i in range(count)]


def test_restored_logger_is_the_one_that_logged(logger, lines):
    sink, again = Kept(), Logger(logger.console_logger)
    logger.add_sink(sink)
    for i, record in enumerate(made_records(50)):
        logger.log_stat(record.key, record.value, i)
    again.add_sink(unwritten := Kept())
    again.restore(sink.records)
    assert again.stats == logger.stats and again.latest == logger.latest and unwritten.records == []
    assert all(values.maxlen == WINDOW for values in again.stats.values())
    logger.print_recent_stats()
    again.print_recent_stats()
    assert lines.messages[0] == lines.messages[1] and "t_env:         49" in lines.messages[0]


class Resuming(Kept):
    def resume(self, kept):
        if self.broken:
            raise self.broken
        self.resumed = kept


def test_only_a_resumed_run_resumes_its_sinks(logger, lines):
    new, resumed, from_nothing = Resuming(), Resuming(), Resuming()
    logger.add_sink(new)
    kept = made_records(3)
    logger.add_sink(resumed, kept)
    logger.add_sink(from_nothing, [])
    assert not hasattr(new, "resumed") and resumed.resumed == kept and from_nothing.resumed == []
    assert resumed.records == []


def test_sink_that_cannot_resume_costs_a_warning(logger, lines):
    sink = Resuming()
    sink.broken = OSError("no space")
    logger.add_sink(sink, made_records(3))
    sink.broken = None
    logger.log_stat("loss", 1.0, 0)
    assert lines.messages[0].startswith("WARNING Resuming: OSError: no space") and len(sink.records) == 1


def test_finish_closes_once(logger):
    sink = Kept()
    logger.add_sink(sink)
    logger.finish()
    logger.finish()
    assert sink.closed == 1


# ---- JSONL


def test_jsonl_lines(logger, tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    logger.add_sink(JsonlSink(path))
    logger.episode = 2
    for value in [0.5, math.nan, math.inf]:
        logger.log_stat("loss", value, 10)
    on_disk = objects(path)  # before any flush
    assert [set(o) for o in on_disk] == [{"key", "value", "t_env", "episode", "time"}] * 3
    assert [o["value"] for o in on_disk] == [0.5, None, None]
    assert (on_disk[0]["key"], on_disk[0]["t_env"], on_disk[0]["episode"]) == ("loss", 10, 2)
    assert on_disk[0]["time"] > 1.7e9


@pytest.mark.parametrize("left", [b'{"key": "a"}\n{"key": "b", "va', b'{"key": "a"}\n', b'{"key', b""])
def test_jsonl_appends_after_the_last_whole_line(logger, tmp_path, left):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(left)
    logger.add_sink(JsonlSink(path))
    logger.log_stat("c", 1, 1)
    assert [o["key"] for o in objects(path)] == ["a"] * left.count(b"\n") + ["c"]


def test_jsonl_in_an_impossible_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/metrics\.jsonl: cannot be written: .*File exists"):
        JsonlSink(tmp_path / "file" / "metrics.jsonl")


def limited(tmp_path, body):
    """Run `body` in a Python in which no file grows past `limit(bytes)`: writes then fail in the
    middle, as on a full disk. Returns its (exit code, stderr)."""
    head = """
import json, logging, resource, sys
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
free = resource.RLIM_INFINITY
from utils.logging import Logger, get_logger
from recording.sinks import JsonlSink
"""
    script = tmp_path / "script.py"
    script.write_text(head + body)
    done = subprocess.run(
        [sys.executable, "-B", str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_jsonl_loses_and_repeats_nothing_when_the_disk_was_full(tmp_path):
    code, stderr = limited(
        tmp_path,
        """
logger = Logger(get_logger())
logger.add_sink(JsonlSink("m.jsonl"))
limit(10_000)
for i in range(3000):
    logger.log_stat("loss", i, i)
during = open("m.jsonl").read()
assert during.endswith("}\\n") and 8000 < len(during) <= 10_000, len(during)
assert [json.loads(line)["t_env"] for line in during.splitlines()] == list(range(during.count("\\n")))
limit(free)
logger.log_stat("loss", 3000, 3000)
logger.finish()
""",
    )
    assert code == 0, stderr
    assert [o["t_env"] for o in objects(tmp_path / "m.jsonl")] == list(range(3001))
    assert stderr.count("WARNING") == 1 and stderr.count("works again") == 1, stderr
    assert "File too large: 'm.jsonl'" in stderr


def test_position_is_the_size_on_disk(logger, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "va')  # the half line does not count
    sink = JsonlSink(path)
    assert sink.position() == len(b'{"key": "a"}\n')
    logger.add_sink(sink)
    for t in range(10):
        logger.log_stat("loss", t, t)
        assert sink.position() == path.stat().st_size


def test_position_is_synced(tmp_path, monkeypatch):
    sink, synced = JsonlSink(tmp_path / "metrics.jsonl"), []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or real(fd))
    sink.write(made_records(1)[0])
    assert synced == []  # not at each record
    sink.position()
    assert synced == [(tmp_path / "metrics.jsonl").stat().st_ino, tmp_path.stat().st_ino]


def test_no_position_while_lines_wait(tmp_path):
    code, stderr = limited(
        tmp_path,
        """
sink = JsonlSink("m.jsonl")
logger = Logger(get_logger())
logger.add_sink(sink)
logger.log_stat("loss", 0, 0)
before = sink.position()
limit(before + 10)
logger.log_stat("loss", 1, 1)
try:
    sink.position()
    sys.exit("no error")
except OSError:
    pass
limit(free)
after = sink.position()
lines = open("m.jsonl", "rb").read()
assert len(lines) == after > before and lines.count(b"\\n") == 2
""",
    )
    assert code == 0, stderr


class TakenOver(BaseException):
    pass


def test_nothing_is_written_once_another_process_has_the_run(logger, lines, tmp_path):
    path, taken = tmp_path / "metrics.jsonl", []

    def look():
        if taken:
            raise TakenOver

    sink, later = JsonlSink(path, look), Kept()
    logger.add_sink(sink)
    logger.add_sink(later)
    logger.log_stat("loss", 1, 1)
    with open(path, "ab") as file:
        file.write(b'{"half')
    sink._torn = True  # as after a write that failed in the middle
    before = path.read_bytes()
    taken.append(True)
    with pytest.raises(TakenOver):
        logger.log_stat("loss", 2, 2)
    for call in (sink.flush, sink.position, logger.finish):
        with pytest.raises(TakenOver):
            call()
    assert path.read_bytes() == before and len(later.records) == 1 and lines.messages == []


def test_lines_lost_in_the_end_are_told(tmp_path):
    code, stderr = limited(
        tmp_path,
        """
logger = Logger(get_logger())
logger.add_sink(JsonlSink("m.jsonl"))
limit(0)
for i in range(30):
    logger.log_stat("loss", i, i)
logger.finish()
""",
    )
    assert code == 0 and stderr.count("WARNING") == 2, stderr
    assert "closing JsonlSink: OSError: 30 records lost: [Errno 27] File too large: 'm.jsonl'" in stderr


def test_log_file_on_a_full_disk_is_one_warning(tmp_path):
    code, stderr = limited(
        tmp_path,
        """
console = get_logger("log.txt")
console.info("before")
limit(500)
for i in range(100):
    console.info("line %d", i)
limit(free)
console.info("after")
""",
    )
    assert code == 0
    assert "Traceback" not in stderr and stderr.count("WARNING") == 1, stderr
    assert stderr.count("] line ") == 100
    text = (tmp_path / "log.txt").read_text()
    assert text.splitlines()[0].endswith("] before") and text.splitlines()[-2].endswith("] after")


# ---- cutting the JSONL file


def write_lines(path, records):
    """Write a metrics.jsonl; the byte positions before each record and at the end."""
    sink = JsonlSink(path)
    positions = [0]
    for record in records:
        sink.write(record)
        positions.append(path.stat().st_size)
    sink.close()
    return positions


def same(one, other):
    """Whether two lists of records are equal, nan included."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("torn", [b"", b'{"key": "loss", "val', b"\x00\x00"])
def test_cut_keeps_what_is_before_and_puts_the_rest_aside(tmp_path, torn):
    records = made_records(20)
    records[3] = records[3]._replace(value=math.nan)
    for k in range(21):
        path, aside = tmp_path / f"metrics{k}.jsonl", tmp_path / f"aside{k}.jsonl"
        position = write_lines(path, records)[k]
        with open(path, "ab") as file:
            file.write(torn)
        whole, inode = path.read_bytes(), path.stat().st_ino
        with open(path, "rb"):  # as a former process does
            assert same(cut_metrics(path, position, aside), records[:k])
            assert path.stat().st_ino != inode
        assert path.read_bytes() == whole[:position]
        rest = aside.read_bytes() if aside.exists() else b""
        assert rest == whole[position:] + (b"\n" if torn else b"") and aside.exists() == bool(rest)
        assert not list(tmp_path.glob("*.partial"))


def test_former_process_that_wakes_up_does_not_reach_the_new_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    frozen, records = JsonlSink(path), made_records(2)
    frozen.write(records[0])
    position = frozen.position()
    assert len(cut_metrics(path, position, tmp_path / "aside.jsonl")) == 1
    frozen.write(records[1])
    assert path.stat().st_size == position and not (tmp_path / "aside.jsonl").exists()


def test_second_cut_appends_to_what_the_first_put_aside(tmp_path):
    path, aside, records = tmp_path / "metrics.jsonl", tmp_path / "aside.jsonl", made_records(6)
    positions = write_lines(path, records)
    with open(path, "ab") as file:
        file.write(b'{"half')
    first = path.read_bytes()[positions[4] :]
    cut_metrics(path, positions[4], aside)
    second = path.read_bytes()[positions[1] :]
    assert same(cut_metrics(path, positions[1], aside), records[:1])
    assert aside.read_bytes() == first + b"\n" + second
    JsonlSink(path).write(records[1])
    assert [o["episode"] for o in objects(path)] == [0, 1]


def test_infinite_values_come_back_as_nan(logger, tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path)
    logger.add_sink(sink)
    for value in (math.inf, -math.inf, math.nan):
        logger.log_stat("loss", value, 1)
    assert all(math.isnan(record.value) for record in cut_metrics(path, sink.position(), tmp_path / "aside.jsonl"))


def test_cut_of_a_file_that_is_not_there(tmp_path):
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "aside.jsonl"
    assert cut_metrics(path, 0, aside) == [] and not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"metrics\.jsonl is damaged: it is missing, and should hold 7 bytes"):
        cut_metrics(path, 7, aside)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda whole, position: (whole[: position - 1], position), "no line ends at byte"),
        (lambda whole, position: (whole, position - 1), "no line ends at byte"),
        (lambda whole, position: (whole, position + 1), "no line ends at byte"),
        (lambda whole, position: (whole, len(whole) + 1), "no line ends at byte"),
        (lambda whole, position: (b"{}\n" + whole, position + 3), "line that ends at byte 3 is not a record"),
        (lambda whole, position: (b"[]\n" + whole, position + 3), "line that ends at byte 3 is not a record"),
        (lambda whole, position: (b"\x00\xff\n" + whole, position + 3), "line that ends at byte 3 is not a record"),
        (lambda whole, position: (b"[" * 9999 + b"\n" + whole, position + 10_000), "is not a record"),
        (lambda whole, position: (another(whole, value="x"), position + 2), "is not a record: a number in it is none"),
        (lambda whole, position: (another(whole, t_env=-1), position + 1), "is not a record: a number in it is none"),
        (lambda whole, position: (another(whole, time=1e12), len(another(whole))), "a number in it is none"),
    ],
)
def test_damaged_file_is_refused_and_left_alone(tmp_path, damage, message):
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "aside.jsonl"
    position = write_lines(path, made_records(5))[3]
    damaged, position = damage(path.read_bytes(), position)
    path.write_bytes(damaged)
    inode = path.stat().st_ino
    with pytest.raises(ConfigError, match=rf"metrics\.jsonl is damaged: .*{message}"):
        cut_metrics(path, position, aside)
    assert path.read_bytes() == damaged and path.stat().st_ino == inode and list(tmp_path.iterdir()) == [path]


def another(whole, **values):
    """The lines of a metrics.jsonl, with other values in the first of them."""
    first, rest = whole.split(b"\n", 1)
    return json.dumps(json.loads(first) | values).encode() + b"\n" + rest


@pytest.mark.parametrize("make, said", [(os.mkfifo, "it is not a file"), (os.mkdir, "it is not a file")])
def test_what_is_no_file_is_refused(make, said, tmp_path):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigError, match=said):
        cut_metrics(tmp_path / "metrics.jsonl", 7, tmp_path / "aside.jsonl")


def test_more_than_a_process_can_have_written_since_its_last_state_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    position = write_lines(path, made_records(5))[3]
    os.truncate(path, 2**34)
    with pytest.raises(ConfigError, match="it has 17179869184 bytes, and the last state is of"):
        cut_metrics(path, position, tmp_path / "aside.jsonl")


def test_a_log_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(ConfigError, match="log.txt: cannot be written: it is not a file"):
        get_logger(tmp_path / "log.txt")


@pytest.mark.parametrize("allowed, aside_is_written", [(0, False), (1, True)])
def test_process_that_is_replaced_while_it_cuts_does_not_put_the_new_file_in_place(tmp_path, allowed, aside_is_written):
    path, aside, looks = tmp_path / "metrics.jsonl", tmp_path / "aside.jsonl", []
    position = write_lines(path, made_records(5))[3]
    before, inode = path.read_bytes(), path.stat().st_ino

    def look():
        looks.append(True)
        if len(looks) > allowed:
            raise TakenOver

    with pytest.raises(TakenOver):
        cut_metrics(path, position, aside, look)
    assert path.read_bytes() == before and path.stat().st_ino == inode
    assert aside.exists() == aside_is_written and not list(tmp_path.glob("*.partial"))


def test_cut_on_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "m.jsonl"
    position = write_lines(path, made_records(200))[100]
    before = path.read_bytes()
    code, stderr = limited(
        tmp_path,
        f"""
from pathlib import Path
from recording.sinks import cut_metrics
limit(1000)
try:
    cut_metrics(Path("m.jsonl"), {position}, Path("aside.jsonl"))
    sys.exit("no error")
except OSError:
    pass
""",
    )
    assert code == 0, stderr
    assert path.read_bytes() == before and not list(tmp_path.glob("*.partial"))


# ---- Sacred


class FakeRun:
    def __init__(self):
        self.info, self.scalars = {}, {}

    def log_scalar(self, key, value, t):
        self.scalars.setdefault(key, []).append((t, value))


def test_sacred_gets_a_bounded_number_of_points(logger):
    run, t_max = FakeRun(), 2_000_000
    logger.add_sink(SacredSink(run, t_max, points=500))
    for t in range(0, t_max, 50):  # 40k values
        logger.log_stat("loss", t, t)
        if t % 1000 == 0:
            logger.log_stat("test_return_mean", t, t)
    before_end = len(run.scalars["loss"])
    logger.finish()
    steps = [t for t, _ in run.scalars["loss"]]
    assert before_end == 500 and steps[:2] == [0, 4000] and steps == sorted(set(steps))
    assert run.scalars["loss"][-1] == (t_max - 50, t_max - 50)  # the last value, once
    assert [t for t, _ in run.scalars["test_return_mean"]] == list(range(0, t_max, 1000))
    assert run.info == {}


def test_sacred_gets_the_last_value_once(logger):
    run = FakeRun()
    logger.add_sink(SacredSink(run, t_max=100, points=10))
    for t in [0, 5, 10]:  # 5 is held back, then overtaken
        logger.log_stat("loss", t, t)
    logger.finish()
    assert [t for t, _ in run.scalars["loss"]] == [0, 10]


def test_sacred_gets_everything_of_a_short_run(logger):
    run = FakeRun()
    logger.add_sink(SacredSink(run, t_max=100))
    for t in range(100):
        logger.log_stat("loss", t, t)
    logger.finish()
    assert [t for t, _ in run.scalars["loss"]] == list(range(100))


class RealRun(FakeRun):
    """A FakeRun with the queue of Sacred's run, into which a resumed sink puts entries with their own time."""

    def __init__(self):
        super().__init__()
        self._metrics = types.SimpleNamespace(_logged_metrics=self)
        self.times = []

    def put(self, entry):
        self.log_scalar(entry.name, entry.value, entry.step)
        self.times.append(entry.timestamp)


@pytest.mark.parametrize("t_max", [1000, 4000])  # raised when the run was resumed, say
def test_sacred_of_a_resumed_run_gets_what_one_gets_that_never_stopped(t_max):
    records = made_records(300)
    whole = FakeRun()
    sink = SacredSink(whole, t_max, points=20)
    for record in records:
        sink.write(record)
    sink.close()
    for cut in range(0, 301, 7):
        run = RealRun()
        sink = SacredSink(run, t_max, points=20)
        sink.resume(records[:cut])
        for record in records[cut:]:
            sink.write(record)
        sink.close()
        assert run.scalars == whole.scalars


def test_sacred_gets_the_times_that_the_records_have():
    run, record = RealRun(), Record("loss", 1.0, 5, 1, 86400.25)
    SacredSink(run, t_max=100).resume([record])
    assert run.times == [datetime.datetime(1970, 1, 2, 0, 0, 0, 250000)]  # UTC, as Sacred's own


# ---- TensorBoard, Weights & Biases


def test_tensorboard(logger, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger.add_sink(TensorBoardSink(tmp_path / "tb"))
    logger.log_stat("loss", 0.5, 10)
    logger.log_stat("loss", 0.25, 20)
    logger.finish()
    events = accumulator.EventAccumulator(str(tmp_path / "tb")).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(10, 0.5), (20, 0.25)]


def read_events(folder):
    """{tag: [(wall time, step, value)]} of all event files in `folder`."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.wall_time, e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize("cut", [0, 1, 17, 60])
def test_tensorboard_of_a_resumed_run_shows_what_one_shows_that_never_stopped(tmp_path, cut):
    records = made_records(60)
    whole = TensorBoardSink(tmp_path / "whole")
    for record in records:
        whole.write(record)
    whole.close()
    killed = TensorBoardSink(tmp_path / "tb")
    for record in records[: max(cut, 40)]:  # more than is kept
        killed.write(record)
    killed.flush()  # and no more: it was killed
    sink = TensorBoardSink(tmp_path / "tb")
    (tmp_path / "tb" / "notes.txt").touch()
    sink.resume(records[:cut])
    assert sum(map(len, read_events(tmp_path / "tb").values())) == cut
    for record in records[cut:]:
        sink.write(record)
    sink.close()
    assert read_events(tmp_path / "tb") == read_events(tmp_path / "whole")
    assert len(list((tmp_path / "tb").iterdir())) == 2  # the notes are left alone


CONFIG = {"name": "qmix", "env": "sc2", "env_args": {"map_name": "3m", "seed": 1}, "seed": 1, "lr": 5e-4}


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package that records the calls."""
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)),
        finish=lambda: calls.append(("finish",)),
        starting_step=0,
    )
    module = types.ModuleType("wandb")
    module.init = lambda **arguments: calls.append(("init", arguments)) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    module.calls, module.run = calls, run
    return module


def test_wandb_gets_the_values_of_one_step_in_one_call(logger, wandb):
    logger.add_sink(WandbSink(CONFIG, "team", "project", "offline"))
    for key, t in [("loss", 1), ("grad_norm", 1), ("loss", 2), ("grad_norm", 2)]:
        logger.log_stat(key, t / 2, t)
    logger.finish()
    assert wandb.calls[0][1] == {
        "entity": "team",
        "project": "project",
        "config": CONFIG,
        "group": group_name(CONFIG),
        "mode": "offline",
    }
    assert wandb.calls[1:] == [
        ("log", 1, {"loss": 0.5, "grad_norm": 0.5}),
        ("log", 2, {"loss": 1.0, "grad_norm": 1.0}),
        ("finish",),
    ]


@pytest.mark.parametrize(
    "mode, arguments", [("online", {"id": "ab12", "resume": "allow"}), ("offline", {"id": "ab12"})]
)
def test_wandb_finds_the_run_by_its_id(logger, wandb, mode, arguments):
    WandbSink(CONFIG, "team", "project", mode, run_id="ab12")
    names = {"entity", "project", "config", "group", "mode"}
    assert {k: v for k, v in wandb.calls[0][1].items() if k not in names} == arguments


@pytest.mark.parametrize("starting_step, sent", [(0, [1, 2, 3, 4]), (3, [3, 4]), (8, [4])])
def test_wandb_gets_no_step_twice(logger, wandb, starting_step, sent):
    """starting_step: one behind the last that W&B has; offline it has none."""
    wandb.run.starting_step = starting_step
    kept = [Record(key, t / 2, t, 0, 1.7e9) for t in (1, 2, 3) for key in ("loss", "grad_norm")]
    logger.add_sink(WandbSink(CONFIG, "team", "project", "online", "ab12"), kept)
    logger.log_stat("loss", 2.0, 4)
    logger.finish()
    values = {t: {"loss": t / 2, "grad_norm": t / 2} for t in (1, 2, 3)} | {4: {"loss": 2.0}}
    assert wandb.calls[1:] == [*(("log", t, values[t]) for t in sent), ("finish",)]


def test_wandb_that_refuses_says_what_to_do(wandb):
    def refuse(**arguments):
        raise RuntimeError("no API key configured")

    wandb.init = refuse
    with pytest.raises(ConfigError, match="no API key configured; wandb_mode: offline needs no network"):
        WandbSink(CONFIG, "team", "project", "online")


def test_group_is_epymarls_and_shared_by_the_seeds():
    other_seed = {**CONFIG, "seed": 2, "env_args": {"map_name": "3m", "seed": 2}}
    assert group_name(CONFIG) == group_name(other_seed) != group_name({**CONFIG, "lr": 1e-3})
    text = '{"env": "sc2", "env_args": {"map_name": "3m"}, "lr": 0.0005, "name": "qmix"}'
    assert group_name(CONFIG) == "qmix_sc2_3m_" + sha256(text.encode()).hexdigest()[-10:]
    gymma = {"name": "vdn", "env": "gymma", "env_args": {"key": "lbf"}}
    assert group_name(gymma).startswith("vdn_gymma_lbf_")
    assert group_name({**gymma, "env_args": {}}).startswith("vdn_gymma_")


@pytest.mark.parametrize(
    "module, make, pip_line",
    [
        ("torch.utils.tensorboard", lambda: TensorBoardSink("x"), "pip install tensorboard==2.20.0"),
        ("wandb", lambda: WandbSink(CONFIG, "team", "project", "offline"), "pip install wandb==0.31.0"),
    ],
)
def test_missing_package_is_named_with_its_pip_line(monkeypatch, module, make, pip_line):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=pip_line):
        make()


# ---- configuration and console

GOOD = dict(
    local_results_path="results",
    use_tensorboard=False,
    use_wandb=False,
    wandb_team=None,
    wandb_project=None,
    wandb_mode="offline",
    mongo_url=None,
    mongo_db=None,
)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mongo_url": "mongodb://me:secret@host:1"}, r"'mongodb://host:1' but mongo_db is not set"),
        ({"use_wandb": True, "wandb_team": "us"}, "both wandb_team and wandb_project"),
        ({"wandb_mode": "onlin"}, "did you mean 'online'"),
    ],
)
def test_contradictory_configuration(change, message):
    assert read(LoggingConfig, types.SimpleNamespace(**GOOD)).local_results_path == "results"
    with pytest.raises(ConfigError, match=message):
        read(LoggingConfig, types.SimpleNamespace(**{**GOOD, **change}))


@pytest.fixture
def qtran_logger():
    """The logger as other tests left it, afterwards too."""
    logger = logging.getLogger("qtran")
    before = logger.handlers[:], logger.propagate, logger.level
    logger.handlers = []
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate, logger.level = before


def test_console_lines(qtran_logger, capsys, tmp_path):
    root = logging.getLogger().handlers[:]
    get_logger()
    console = get_logger(tmp_path / "new" / "log.txt")  # replaces the first one's handlers
    console.info("hello %d", 3)
    console.debug("not shown")
    written = capsys.readouterr().err
    assert written == (tmp_path / "new" / "log.txt").read_text() and written.count("\n") == 1
    clock = written[len("[INFO ") : written.index("]")]
    assert written == f"[INFO {clock}] hello 3\n" and len(clock) == len("12:34:56")
    assert logging.getLogger().handlers == root


def test_log_file_in_an_impossible_place(qtran_logger, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        get_logger(tmp_path / "file" / "log.txt")
