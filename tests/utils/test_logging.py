"""Every sink gets every record, and none of them can end a run."""

import json
import logging
import math
import subprocess
import sys
import types
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.args import ConfigError, read
from utils.logging import WINDOW, Logger, LoggingConfig, get_logger
from utils.sinks import JsonlSink, SacredSink, Sink, TensorBoardSink, WandbSink, group_name

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


def test_recent_stats_are_aligned_columns_of_means(logger, lines):
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
from utils.sinks import JsonlSink
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


# ---- TensorBoard, Weights & Biases


def test_tensorboard(logger, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger.add_sink(TensorBoardSink(tmp_path / "tb"))
    logger.log_stat("loss", 0.5, 10)
    logger.log_stat("loss", 0.25, 20)
    logger.finish()
    events = accumulator.EventAccumulator(str(tmp_path / "tb")).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(10, 0.5), (20, 0.25)]


CONFIG = {"name": "qmix", "env": "sc2", "env_args": {"map_name": "3m", "seed": 1}, "seed": 1, "lr": 5e-4}


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package that records the calls."""
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append(("log", step, values)), finish=lambda: calls.append(("finish",))
    )
    module = types.ModuleType("wandb")
    module.init = lambda **arguments: calls.append(("init", arguments)) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    module.calls = calls
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
