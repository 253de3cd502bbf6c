"""Real Sacred experiments with the real observers: what they store, and what a failing disk or server costs.

MongoDB is `wire_mongo.WireMongo`. With QTRAN_TEST_MONGO=mongodb://host:port the first test also runs
against a real server (database qtran_test).
"""

import datetime
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
import types
import uuid
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pymongo
import pytest
import torch
from command import wait_until
from sacred import Experiment
from sacred.metrics_logger import MetricsLogger, linearize_metrics
from wire_mongo import WireMongo, free_port

from recording.mongo_entry import deliver, ping_mongo
from recording.mongo_observer import PatientMongoObserver
from recording.observers import file_observer, plain
from recording.sinks import JsonlSink, SacredSink, cut_metrics
from utils.args import ConfigError
from utils.logging import Record
from utils.messages import without_password, without_passwords

SRC = Path(__file__).parents[2] / "src"
CONFIG = {
    "name": "qmix",
    "env": "sc2",
    "env_args": {"map_name": "3m"},
    "common_reward": True,
    "reward_scalarisation": "sum",
    "lr": np.float32(0.5),
    "seed": 1,
}
BEAT = 0.1  # s between heartbeats
PATIENCE = 0.5  # s an event may take; pymongo looks for a server in steps of 0.5


def run_experiment(observers, main):
    """Run `main(_run)` as Sacred does, with CONFIG; returns the Sacred run."""
    experiment = Experiment("test", save_git_info=False)
    experiment.observers.extend(observers)
    experiment.add_config(CONFIG)

    @experiment.main
    def body(_run):
        return main(_run)

    return experiment.run(options={"--beat-interval": BEAT, "--capture": "no"})


def three_points(run):
    for t in range(3):
        run.log_scalar("test_return_mean", t / 2, 10 * t)


@pytest.fixture
def lines():
    """The warnings and news of the logger "qtran"."""
    handler = logging.Handler()
    messages = []
    handler.emit = lambda record: messages.append(f"{record.levelname} {record.getMessage()}")
    logger = logging.getLogger("qtran")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def server():
    with WireMongo() as server:
        yield server


@pytest.fixture
def observe():
    """Makes observers of a URL and closes them afterwards."""
    made = []

    def make(url, seconds=PATIENCE, db_name="marl", **more):
        made.append(PatientMongoObserver(url, db_name, seconds, **more))
        return made[-1]

    yield make
    for observer in made:
        observer.close()


def warnings(lines):
    return [line for line in lines if line.startswith("WARNING")]


def test_plain_leaves_no_numpy_and_no_torch():
    value = {"a": np.float32(0.5), "b": (np.int64(1), torch.tensor(2)), "c": np.zeros(2), "d": "x", "e": None}
    assert json.dumps(plain(value)) == '{"a": 0.5, "b": [1, 2], "c": [0.0, 0.0], "d": "x", "e": null}'


# ---- runs that are killed and resumed

T_MAX = 1000  # steps
RUN_ID = "0123456789abcdef"


class Process:
    """One process of a run as Sacred drives `observer`, but with heartbeats when the test asks for them.

    metrics: the run's metrics.jsonl. kept: what a resumed run keeps of it. Nothing more is called once it is killed.
    """

    def __init__(self, observer, metrics, kept=None):
        self.observer, self.run = observer, types.SimpleNamespace(_metrics=MetricsLogger())
        self.run.log_scalar = self.run._metrics.log_scalar_metric
        self.started = datetime.datetime.utcnow()
        experiment = {"sources": [], "base_dir": "."}
        self.id = observer.started_event(experiment, "main", {}, self.started, CONFIG, {}, None)
        self.jsonl, self.sacred = JsonlSink(metrics), SacredSink(self.run, T_MAX, points=20)
        if kept is not None:
            self.sacred.resume(kept)

    def log(self, *records):
        for record in records:
            self.jsonl.write(record)
            self.sacred.write(record)

    def beat(self, output=""):
        self.observer.log_metrics(linearize_metrics(self.run._metrics.get_last_metrics()), {})
        self.observer.heartbeat_event({}, output, datetime.datetime.utcnow(), None)

    def end(self):
        self.sacred.close()
        self.beat()
        self.observer.completed_event(datetime.datetime.utcnow(), None)


def made_records(draw, count):
    """Records as a training run logs them, some of them nan."""
    keys, values = ["loss", "epsilon", "test_return_mean"], [0.5, 1.5, math.nan]
    return [
        Record(draw.choice(keys), draw.choice(values), T_MAX * i // count, i, time.time() - count + i)
        for i in range(count)
    ]


def run_with_kills(draw, records, make_observer, metrics, trouble=lambda: None):
    """Log all `records` in a run that is killed several times at random places, behind random states; its processes."""
    processes, kept, done = [], None, 0
    kills = draw.randint(1, 4)
    while True:
        processes.append(Process(make_observer(), metrics, kept))
        end = len(records) if kills == 0 else draw.randint(done, len(records))
        state = done, processes[-1].jsonl.position()
        while done < end:
            trouble()
            if draw.random() < 0.1:
                processes[-1].beat()
            if draw.random() < 0.05:
                state = done, processes[-1].jsonl.position()
            processes[-1].log(records[done])
            done += 1
        if kills == 0:
            return processes
        if draw.random() < 0.5:  # as when it is killed in the very end
            processes[-1].sacred.close()
            processes[-1].beat()
        kills -= 1
        done, position = state if draw.random() < 0.8 else (0, 0)
        kept = cut_metrics(metrics, position, metrics.with_name("metrics.superseded.jsonl"))


def never_stopped(records):
    """{metric: (steps, values)} that Sacred gets in a run that logs `records` without a stop."""
    return series(given_to_sacred(records))


def given_to_sacred(records):
    """{metric: {"steps", "values", "timestamps"}} that Sacred gets of all records, the last ones too."""
    run = types.SimpleNamespace(_metrics=MetricsLogger())
    run.log_scalar = run._metrics.log_scalar_metric
    sink = SacredSink(run, T_MAX, points=20)
    for record in records:
        sink.write(record)
    sink.close()
    return linearize_metrics(run._metrics.get_last_metrics())


def series(by_name):
    """{metric: (steps, values)}, the values as text so that nan equals nan."""
    assert all(len(m["timestamps"]) == len(m["steps"]) for m in by_name.values())
    return {name: (metric["steps"], repr(metric["values"])) for name, metric in by_name.items()}


def contents(folder):
    """{name: bytes} of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("seed", range(25))
def test_files_of_a_killed_run_are_those_of_one_that_never_stopped(tmp_path, seed):
    draw = random.Random(seed)
    records = made_records(draw, draw.choice([1, 5, 150]))
    processes = run_with_kills(
        draw, records, lambda: file_observer(tmp_path, "qmix", "3m", RUN_ID), tmp_path / "metrics.jsonl"
    )
    folder = tmp_path / "sacred/qmix/3m/1"
    assert [process.id for process in processes] == ["1"] * len(processes) and len(processes) > 1
    assert read(folder, "run.json")["status"] == "RUNNING"
    processes[-1].end()
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert series(read(folder, "metrics.json")) == never_stopped(records)
    record = read(folder, "run.json")
    assert (record["status"], record["run_id"]) == ("COMPLETED", RUN_ID)
    assert record["start_time"] == processes[0].started.isoformat()
    assert not list(folder.glob("*.new"))


def test_entry_of_a_resumed_run(tmp_path):
    artifact = tmp_path / "agent.th"
    artifact.write_text("weights")
    make = lambda: file_observer(tmp_path, "qmix", "3m", RUN_ID)  # noqa: E731
    failed = Process(make(), tmp_path / "metrics.jsonl")
    failed.observer.artifact_event("agent.th", str(artifact))
    failed.observer.resource_event(str(artifact))
    failed.beat("first\n")
    failed.observer.failed_event(datetime.datetime.utcnow(), ["Traceback"])
    folder = tmp_path / "sacred/qmix/3m/1"
    before = read(folder, "run.json")
    (folder / "run.json.new").write_text("half")  # of a kill
    resumed = Process(make(), tmp_path / "metrics.jsonl", [])
    entry = read(folder, "run.json")
    assert entry["status"] == "RUNNING" and not entry.keys() & {"stop_time", "fail_trace", "result"}
    assert entry["artifacts"] == ["agent.th"] and entry["resources"] == before["resources"] != []
    resumed.observer.artifact_event("mixer.th", str(artifact))
    resumed.beat("second\n")
    assert read(folder, "run.json")["artifacts"] == ["agent.th", "mixer.th"]
    assert (folder / "cout.txt").read_text() == "first\nsecond\n"


def test_old_metrics_stay_until_the_new_ones_come(tmp_path):
    path, records = tmp_path / "metrics.jsonl", made_records(random.Random(1), 50)
    killed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path)
    killed.log(*records)
    killed.beat()
    metrics = tmp_path / "sacred/qmix/3m/1/metrics.json"
    before = metrics.read_bytes()
    resumed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path, records[:20])
    assert metrics.read_bytes() == before
    resumed.beat()
    assert series(json.loads(metrics.read_text())).keys() == {record.key for record in records[:20]}
    assert metrics.read_bytes() != before
    stamp = json.loads(metrics.read_text())[records[0].key]["timestamps"][0]
    assert datetime.datetime.fromisoformat(stamp + "+00:00").timestamp() == pytest.approx(records[0].time, abs=1e-3)


def test_run_that_begins_again_loses_its_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    killed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path)
    killed.log(*made_records(random.Random(1), 50))
    killed.beat()
    folder = tmp_path / "sacred/qmix/3m/1"
    assert (folder / "metrics.json").exists()
    resumed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path, cut_metrics(path, 0, tmp_path / "aside"))
    resumed.beat()
    assert not (folder / "metrics.json").exists()
    resumed.log(Record("loss", 0.5, 3, 1, time.time()))
    resumed.beat()
    assert series(read(folder, "metrics.json")) == {"loss": ([3], "[0.5]")}
    resumed.end()
    assert read(folder, "run.json")["status"] == "COMPLETED"


def test_full_disk_does_not_lose_what_a_resumed_run_replaces(tmp_path, monkeypatch):
    path, records = tmp_path / "metrics.jsonl", made_records(random.Random(1), 50)
    killed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path)
    killed.log(*records)
    killed.beat()
    metrics = tmp_path / "sacred/qmix/3m/1/metrics.json"
    before = metrics.read_bytes()
    resumed = Process(file_observer(tmp_path, "qmix", "3m", RUN_ID), path, records[:20])
    real = os.replace

    def full(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    resumed.beat()
    assert metrics.read_bytes() == before
    monkeypatch.setattr(os, "replace", real)
    resumed.log(*records[20:])
    resumed.end()
    assert series(json.loads(metrics.read_text())) == never_stopped(records)


def test_runs_side_by_side_keep_to_their_folders(tmp_path):
    folder = tmp_path / "sacred/qmix/3m"
    make = {run_id: lambda run_id=run_id: file_observer(tmp_path, "qmix", "3m", run_id) for run_id in ("aa", "bb")}
    for run_id in make:
        Process(make[run_id](), tmp_path / run_id).log(Record("loss", 0.5, 1, 1, 0.0))
    for number, damaged in enumerate(["", '{"run_id": "aa', '["aa"]', '{"run_id": "cc"}', "\x00"], start=3):
        (folder / str(number)).mkdir()
        (folder / str(number) / "run.json").write_text(damaged)
    (folder / "8").mkdir()
    (folder / "9").touch()
    (folder / "aa").mkdir()
    (folder / "aa/run.json").write_text('{"run_id": "aa"}')
    before = {n: contents(folder / n) for n in "345678"}
    for run_id, number in {"bb": "2", "aa": "1", "dd": "10"}.items():
        process = Process(file_observer(tmp_path, "qmix", "3m", run_id), tmp_path / run_id, [])
        assert process.id == number
        process.log(Record(f"loss_{run_id}", 0.5, 1, 1, 0.0))
        process.end()
        assert read(folder / number, "metrics.json").keys() == {f"loss_{run_id}"}
    assert before == {n: contents(folder / n) for n in "345678"}
    without = Process(file_observer(tmp_path, "qmix", "3m"), tmp_path / "metrics.jsonl")
    assert without.id == "11" and "run_id" not in read(folder / "11", "run.json")


def test_former_process_writes_no_file_once_another_has_the_run(tmp_path, lines):
    holder, records = ["first"], made_records(random.Random(1), 30)
    make = lambda name: file_observer(tmp_path, "qmix", "3m", RUN_ID, lambda: holder[0] == name)  # noqa: E731
    first = Process(make("first"), tmp_path / "metrics.jsonl")
    first.log(*records[:20])
    holder[0] = "second"
    second = Process(make("second"), tmp_path / "metrics.jsonl", records[:10])
    second.log(*records[10:])
    second.end()
    folder = tmp_path / "sacred/qmix/3m/1"
    before = contents(folder)
    first.beat("late")
    first.observer.artifact_event("agent.th", __file__)
    first.observer.resource_event(__file__)
    first.observer.interrupted_event(datetime.datetime.utcnow(), "INTERRUPTED")
    first.observer.failed_event(datetime.datetime.utcnow(), ["Traceback"])
    first.end()
    assert contents(folder) == before and lines == []
    assert series(read(folder, "metrics.json")) == never_stopped(records)


def test_process_that_is_replaced_while_it_writes_a_file_does_not_put_it_in_place(tmp_path):
    answers = []
    observer = file_observer(tmp_path, "qmix", "3m", RUN_ID, lambda: answers.pop(0) if answers else True)
    process = Process(observer, tmp_path / "metrics.jsonl")
    before = read(tmp_path / "sacred/qmix/3m/1", "run.json")
    answers[:] = [True, False]  # as the event begins, and when the file is written
    observer.completed_event(process.started, None)
    assert answers == [] and read(tmp_path / "sacred/qmix/3m/1", "run.json") == before


KILLED_RUN = """
import os, signal, sys, time
from pathlib import Path
from sacred import Experiment
from utils.logging import Logger, get_logger
from recording.mongo_observer import PatientMongoObserver
from recording.observers import file_observer
from recording.sinks import JsonlSink, SacredSink, cut_metrics

url, position, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
path, logger = Path("metrics.jsonl"), Logger(get_logger())
kept = cut_metrics(path, position, Path("metrics.superseded.jsonl")) if position >= 0 else None
experiment = Experiment("test", save_git_info=False)
experiment.observers += [file_observer(".", "qmix", "3m", "ab12"), PatientMongoObserver(url, "marl", 5, "ab12")]
experiment.add_config(seed=1)

@experiment.main
def main(_run):
    logger.add_sink(JsonlSink(path), kept)
    logger.add_sink(SacredSink(_run, 100), kept)
    for t in range(len(kept or []), 100):
        if t == stop:
            time.sleep(0.5)  # for a heartbeat
            os.kill(os.getpid(), signal.SIGKILL)
        logger.log_stat("loss", t / 2, t)
    logger.finish()

experiment.run(options={"--beat-interval": 0.05, "--capture": "no"})
"""


def test_killed_process_and_its_successor(tmp_path, server):
    """Real processes, Sacred's own threads, files and MongoDB at once."""
    (tmp_path / "script.py").write_text(KILLED_RUN)

    def start(*arguments):
        command = [sys.executable, "-B", "script.py", server.url, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=60
        )

    assert start(-1, 60).returncode == -signal.SIGKILL
    folder, database = tmp_path / "sacred/qmix/3m/1", server.client["marl"]
    before, document = read(folder, "run.json"), database["runs"].find_one({})
    assert read(folder, "metrics.json")["loss"]["steps"] == database["metrics"].find_one({})["steps"] == [*range(60)]
    position = sum(map(len, (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:30]))
    done = start(position, 200)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    for stored in (read(folder, "metrics.json")["loss"], database["metrics"].find_one({})):
        assert stored["steps"] == [*range(100)] and stored["values"] == [t / 2 for t in range(100)]
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert database["runs"].count_documents({}) == database["metrics"].count_documents({}) == 1
    entry, resumed = read(folder, "run.json"), database["runs"].find_one({})
    assert (entry["status"], entry["start_time"]) == ("COMPLETED", before["start_time"])
    assert (resumed["status"], resumed["start_time"]) == ("COMPLETED", document["start_time"])
    assert len((tmp_path / "metrics.superseded.jsonl").read_text().splitlines()) == 30


# ---- files


def load_results(path, metric):
    """[(config, steps, values)] as EPyMARL's plot_results.load_results reads them."""
    found = []
    for file in Path(path).glob("**/metrics.json"):
        config = json.loads((file.parent / "config.json").read_text())
        metrics = json.loads(file.read_text())
        del config["seed"]
        assert {"name", "env", "env_args", "common_reward", "reward_scalarisation"} <= set(config)
        found.append((config, metrics[metric]["steps"], metrics[metric]["values"]))
    return found


def test_epymarls_plot_script_can_read_the_files(tmp_path):
    def main(run):
        three_points(run)
        return np.float64(1.5)

    for _ in range(2):
        run_experiment([file_observer(tmp_path, "qmix", "3m")], main)
    folder = tmp_path / "sacred" / "qmix" / "3m"
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]  # no _sources
    (config, steps, values), _ = load_results(tmp_path, "test_return_mean")
    assert (steps, values, config["lr"]) == ([0, 10, 20], [0.0, 0.5, 1.0], 0.5)
    assert len(json.loads((folder / "1/metrics.json").read_text())["test_return_mean"]["timestamps"]) == 3
    record = json.loads((folder / "1/run.json").read_text())
    assert record["status"] == "COMPLETED" and record["result"] == 1.5


def test_unwritable_folder(tmp_path):
    (tmp_path / "sacred").touch()
    with pytest.raises(ConfigError, match="sacred/qmix/3m: cannot be written"):
        file_observer(tmp_path, "qmix", "3m")


def test_full_disk_neither_tears_the_files_nor_loses_points(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import datetime, json, resource
from utils.logging import get_logger
from recording.observers import file_observer

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def beat(steps):
    series = {"steps": list(steps), "values": list(steps), "timestamps": [now] * len(steps), "name": "loss"}
    observer.log_metrics({"loss": series}, {})
    observer.heartbeat_event({}, "", now, None)
    return json.load(open("sacred/qmix/3m/1/metrics.json"))["loss"]["steps"]

get_logger()
now = datetime.datetime(2026, 1, 1)
observer = file_observer(".", "qmix", "3m")
observer.started_event({"sources": [], "base_dir": "."}, "main", {}, now, {}, {}, None)
assert beat(range(10)) == list(range(10))
limit(2000)
assert beat(range(10, 100)) == list(range(10))
assert beat(range(100, 200)) == list(range(10))
limit(resource.RLIM_INFINITY)
assert beat(range(200, 210)) == list(range(210))
observer.completed_event(now, None)
"""
    )
    done = subprocess.run(
        [sys.executable, "-B", str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr and "works again" in done.stderr


# ---- MongoDB


def urls():
    real = os.environ.get("QTRAN_TEST_MONGO")
    return ["wire", *([real] if real else [])]


@pytest.mark.parametrize("url", urls())
def test_run_is_recorded(url, server, observe, tmp_path):
    url = server.url if url == "wire" else url
    database = pymongo.MongoClient(url)["qtran_test"]
    artifact = tmp_path / "agent.th"
    artifact.write_bytes(b"x" * 700_000)
    tag = uuid.uuid4().hex

    def main(run):
        three_points(run)
        run.log_scalar("loss", 0.25, 5)
        run.add_artifact(artifact)
        return {"tag": tag, "win": np.float32(0.5)}

    # Beside a file observer, whose run number MongoDB must not take over.
    files = file_observer(tmp_path, "qmix", "3m")
    run = run_experiment([files, observe(url, seconds=5, db_name="qtran_test")], main)
    record = database["runs"].find_one({"result.tag": tag})
    assert record["status"] == "COMPLETED" and record["result"]["win"] == 0.5
    assert record["config"] == {**CONFIG, "lr": 0.5} and isinstance(record["_id"], int)
    stored = {m["name"]: m for m in database["metrics"].find({"run_id": record["_id"]})}
    assert stored["test_return_mean"]["steps"] == [0, 10, 20]
    assert stored["test_return_mean"]["values"] == [0.0, 0.5, 1.0] and stored["loss"]["values"] == [0.25]
    listed = {m["name"]: m["id"] for m in record["info"]["metrics"]}
    assert listed == {name: str(m["_id"]) for name, m in stored.items()}
    assert database["fs.files"].find_one({"_id": record["artifacts"][0]["file_id"]})["length"] == 700_000
    assert run.info == {}
    database.client.close()


def test_server_absent_throughout(lines, observe):
    took = {}

    def main(run):
        took["start"] = time.monotonic() - began
        for _ in range(5):
            run.add_artifact(__file__)
        took["artifacts"] = time.monotonic() - began - took["start"]
        three_points(run)
        time.sleep(3 * BEAT)

    began = time.monotonic()
    run = run_experiment([observe(f"mongodb://me:secret@127.0.0.1:{free_port()}")], main)
    assert run.status == "COMPLETED"
    # pymongo's own wait is 30 s for each; the slack is for a loaded machine.
    assert took["start"] < PATIENCE + 5 and time.monotonic() - began < 5 * PATIENCE + 15
    assert took["artifacts"] < 4 * PATIENCE  # not one wait for each of the five
    assert len(warnings(lines)) == 1 and "ServerSelectionTimeoutError" in lines[0]
    assert "secret" not in "".join(lines)


def test_server_that_comes_up_late(lines, observe):
    port, servers = free_port(), []

    def main(run):
        three_points(run)
        time.sleep(2 * BEAT)
        servers.append(WireMongo(port))
        wait_until(lambda: servers[0].client["marl"]["metrics"].count_documents({}))
        assert servers[0].client["marl"]["runs"].find_one({})["status"] == "RUNNING"

    run = run_experiment([observe(f"mongodb://127.0.0.1:{port}")], main)
    with servers[0] as server:
        record = server.client["marl"]["runs"].find_one({})
        assert record["status"] == "COMPLETED" and record["config"] == {**CONFIG, "lr": 0.5}
        late = record["start_time"] - run.start_time  # not the time of the registration
        assert abs(late.total_seconds()) < 0.01
        assert server.client["marl"]["metrics"].find_one({})["steps"] == [0, 10, 20]
    assert len(warnings(lines)) == 1 and any("works again" in line for line in lines)


def test_server_killed_in_the_middle(lines, server, observe):
    def main(run):
        run.log_scalar("loss", 1.0, 1)
        wait_until(lambda: server.client["marl"]["metrics"].count_documents({}))
        server.kill()
        run.log_scalar("loss", 2.0, 2)
        time.sleep(3 * BEAT)

    assert run_experiment([observe(server.url)], main).status == "COMPLETED"
    assert len(warnings(lines)) == 1
    assert server.client["marl"]["runs"].find_one({})["status"] == "RUNNING"  # it never heard of the end


def test_server_that_comes_back_gets_what_it_missed(lines, server, observe):
    back = []

    def main(run):
        run.log_scalar("loss", 1.0, 1)
        wait_until(lambda: server.client["marl"]["metrics"].count_documents({}))
        server.kill()
        run.log_scalar("loss", 2.0, 2)
        wait_until(lambda: warnings(lines))
        back.append(WireMongo(server.server_address[1]))
        back[0].client = server.client  # with its documents
        run.log_scalar("loss", 3.0, 3)

    assert run_experiment([observe(server.url, seconds=2)], main).status == "COMPLETED"
    back[0].kill()
    assert server.client["marl"]["metrics"].find_one({})["steps"] == [1, 2, 3]
    assert server.client["marl"]["runs"].find_one({})["status"] == "COMPLETED"


def test_hung_server_costs_a_bounded_time(lines, server, observe):
    def main(run):
        three_points(run)
        wait_until(lambda: server.client["marl"]["metrics"].count_documents({}))
        server.delay = 3600
        began["end"] = time.monotonic()

    began = {}
    run = run_experiment([observe(server.url)], main)
    # Sacred gives its heartbeat thread 2 s; the end waits for its turn and then for the server.
    assert run.status == "COMPLETED" and time.monotonic() - began["end"] < 2 + 2 * PATIENCE + 15
    assert len(warnings(lines)) == 1


def test_slow_server_cannot_hold_up_the_start(lines, server, observe):
    server.delay = 1.5  # each answer is in time; the several of a start, 6 s and more, are not
    began, took = time.monotonic(), []

    def main(run):
        took.append(time.monotonic() - began)
        server.delay = 0

    run_experiment([observe(server.url, seconds=2)], main)
    assert took[0] < 5 and warnings(lines)
    assert server.client["marl"]["runs"].find_one({})["status"] == "COMPLETED"


def test_metric_that_bson_cannot_hold_does_not_stop_the_others(lines, server, observe):
    def main(run):
        run.log_scalar("bad", 2**70, 1)
        wait_until(lambda: warnings(lines))
        run.log_scalar("loss", 0.5, 2)

    run_experiment([observe(server.url)], main)
    assert [m["name"] for m in server.client["marl"]["metrics"].find()] == ["loss"]
    assert "OverflowError" in warnings(lines)[0]


def test_document_that_is_too_large(lines, server, observe):
    def main(run):
        three_points(run)
        run.info["huge"] = "x" * 17_000_000
        run.captured_out = "y" * 17_000_000
        wait_until(lambda: warnings(lines))
        time.sleep(3 * BEAT)

    assert run_experiment([observe(server.url, seconds=3)], main).status == "COMPLETED"
    (line,) = warnings(lines)
    assert "the run's info is left out" in line and "bytes are too many" in line
    record = server.client["marl"]["runs"].find_one({})
    assert record["status"] == "COMPLETED" and record["stop_time"] and record["info"].keys() == {"left out"}
    assert server.client["marl"]["metrics"].find_one({})["steps"] == [0, 10, 20]


def test_long_output_is_cut(server, observe, lines):
    def main(run):
        run.captured_out = "y" * 17_000_000 + "end"
        wait_until(lambda: server.client["marl"]["runs"].find_one({})["captured_out"].endswith("end"))

    assert run_experiment([observe(server.url, seconds=3)], main).status == "COMPLETED"
    assert len(server.client["marl"]["runs"].find_one({})["captured_out"]) == 1_000_000
    assert not warnings(lines)


@pytest.mark.parametrize("code", [10334, 17419, 17420])
def test_metric_that_is_too_large_is_not_sent_for_ever(code, lines, server, observe, tmp_path):
    process = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    process.log(Record("test_bad", 0.5, 1, 1, 0.0), Record("test_loss", 0.5, 1, 1, 0.0))
    process.beat()
    server.refused, server.code = lambda name: name == "test_bad", code
    for t in (2, 3, 4):
        process.log(Record("test_bad", 0.5, t, t, 0.0), Record("test_loss", 0.5, t, t, 0.0))
        process.beat()
    process.end()
    stored = {metric["name"]: metric["steps"] for metric in server.client["marl"]["metrics"].find()}
    assert stored == {"test_bad": [1], "test_loss": [1, 2, 3, 4]}
    assert server.updates.count("test_bad") == 2 and server.updates.count("test_loss") == 4
    (line,) = warnings(lines)
    assert "metric test_bad is left out" in line
    assert server.client["marl"]["runs"].find_one({})["status"] == "COMPLETED"


OUTAGES = [(18, "Authentication failed."), (13, "not authorized"), (10107, "not primary"), (8000, "quota")]


@pytest.mark.parametrize("refusal", OUTAGES, ids=lambda refusal: refusal[1])
@pytest.mark.parametrize("when", ["at the start", "in the middle", "at the end"])
def test_server_that_refuses_for_a_while(when, refusal, lines, server, observe, tmp_path):
    records = made_records(random.Random(1), 40)
    server.unwilling = refusal if when == "at the start" else None
    process = Process(observe(server.url, seconds=2, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    away = {"at the start": [], "in the middle": [3, 4], "at the end": [7]}[when]
    for i in range(8):
        server.unwilling = refusal if i in away else None
        process.log(*records[5 * i : 5 * i + 5])
        process.beat()
    (line,) = warnings(lines)
    # pymongo asks another time where there is no primary; on a busy machine the time is up before it says so.
    assert "sync.py RUN_DIR" in line and (refusal[1] in line or refusal[0] == 10107 and "time limit" in line)
    server.unwilling = None
    process.end()
    check_documents(server, records, [process])
    assert sum("works again" in line for line in lines) == 1 and len(warnings(lines)) == 1


@pytest.mark.parametrize("password", ["secret", "p@ss:w/rd", "100%", "a b+c", "?x=1&y#[z]", "grün"])
def test_server_that_asks_for_a_password(password, lines, server, observe, tmp_path):
    server.users = {"me": password}
    for run_id, written in enumerate((quote_plus(password), password.replace("+", "%2B"))):
        url = server.url.replace("//", f"//me:{written}@") + "/?authSource=admin"
        Process(observe(url, seconds=5, run_id=str(run_id)), tmp_path / str(run_id)).end()
    statuses = [run["status"] for run in server.client["marl"]["runs"].find()]
    assert statuses == ["COMPLETED", "COMPLETED"] and not warnings(lines)
    assert not any(text in line for line in lines for text in (password, quote_plus(password)))


def test_wrong_password_and_one_that_is_changed(lines, server, observe, tmp_path):
    url, records = server.url.replace("//", "//me:secret@"), made_records(random.Random(1), 40)
    server.users = {"me": "another"}
    process = Process(observe(url, seconds=2, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    for i in range(8):
        process.log(*records[5 * i : 5 * i + 5])
        if i in (2, 4, 6):
            server.users = {"me": "another" if i == 4 else "secret"}
            server.hang_up()
        process.beat()
    process.end()
    check_documents(server, records, [process])
    refused, again = warnings(lines)
    assert "Authentication failed" in refused and "secret" not in refused + again


def test_server_that_comes_back_with_nothing(lines, server, observe, tmp_path):
    records = made_records(random.Random(1), 40)
    process = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    for record in records[:20]:
        process.log(record)
        process.beat()
    server.client.drop_database("marl")
    server.client["marl"]["runs"].insert_one({"_id": 1, "run_id": "another"})  # whose number this run had
    for record in records[20:]:
        process.log(record)
        process.beat()
    process.end()
    assert server.client["marl"]["runs"].find_one({"_id": 1}) == {"_id": 1, "run_id": "another"}
    server.client["marl"]["runs"].delete_one({"_id": 1})
    check_documents(server, records, [process])
    assert len(warnings(lines)) == 1


def test_slow_server_gets_all_in_the_end(lines, server, observe, tmp_path):
    """No event ends in time, but each brings it further."""
    records = made_records(random.Random(1), 40)
    process = Process(observe(server.url, seconds=1, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    process.log(*records)
    server.delay = 0.4
    process.sacred.close()
    for _ in range(4):
        process.beat()
    process.end()
    server.delay = 0
    check_documents(server, records, [process])


def test_what_others_have_added_to_a_document_stays(server, observe, tmp_path):
    """Omniboard keeps tags and notes there."""
    killed = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    killed.beat()
    server.client["marl"]["runs"].update_one({}, {"$set": {"omniboard": {"tags": ["good"]}}})
    resumed = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl", [])
    resumed.end()
    assert server.client["marl"]["runs"].find_one({})["omniboard"] == {"tags": ["good"]}


def test_points_of_former_processes_keep_their_times(server, observe, tmp_path):
    path, records = tmp_path / "metrics.jsonl", made_records(random.Random(1), 40)
    killed = Process(observe(server.url, seconds=5, run_id=RUN_ID), path)
    killed.log(*records[:20])
    killed.beat()
    before = {metric["name"]: metric["timestamps"] for metric in server.client["marl"]["metrics"].find()}
    resumed = Process(observe(server.url, seconds=5, run_id=RUN_ID), path, records[:20])
    resumed.log(*records[20:])
    resumed.end()
    after = {metric["name"]: metric["timestamps"] for metric in server.client["marl"]["metrics"].find()}
    assert all(after[name][: len(times)] == times for name, times in before.items())
    check_documents(server, records, [killed])


def test_run_that_is_registered_by_a_later_process_began_with_the_first(server, observe, tmp_path):
    began = "2026-01-02T03:04:05.678000"
    Process(observe(server.url, seconds=5, run_id=RUN_ID, began=began), tmp_path / "metrics.jsonl", []).end()
    assert server.client["marl"]["runs"].find_one({})["start_time"] == datetime.datetime.fromisoformat(began)
    Process(observe(server.url, seconds=5, run_id="odd", began="no time"), tmp_path / "metrics.jsonl", []).end()
    assert server.client["marl"]["runs"].find_one({"run_id": "odd"})["start_time"]


def test_failure_of_the_run_is_recorded(server, observe):
    def main(run):
        raise ArithmeticError("diverged")

    with pytest.raises(ArithmeticError):
        run_experiment([observe(server.url)], main)
    record = server.client["marl"]["runs"].find_one({})
    assert record["status"] == "FAILED" and "diverged" in record["fail_trace"][-1]


@pytest.mark.parametrize("url, db", [("mongodb://", "m"), ("mongodb://h:port", "m"), ("mongodb://h", "a b.c")])
def test_malformed_address(url, db):
    with pytest.raises(ConfigError, match="mongo_url"):
        PatientMongoObserver(url, db)


def test_missing_pymongo(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(ConfigError, match="pip install pymongo==4.20.0"):
        PatientMongoObserver("mongodb://h:1", "marl")


# ---- MongoDB: runs that are killed and resumed


def check_documents(server, records, processes):
    """The documents are those of one run that logged `records` and never stopped."""
    database = server.client["marl"]
    (run,), metrics = database["runs"].find(), list(database["metrics"].find())
    assert {metric["run_id"] for metric in metrics} <= {run["_id"]}
    assert len({metric["name"] for metric in metrics}) == len(metrics)
    assert series({metric["name"]: metric for metric in metrics}) == never_stopped(records)
    listed = [(metric["name"], metric["id"]) for metric in run["info"]["metrics"]]
    assert sorted(listed) == sorted((metric["name"], str(metric["_id"])) for metric in metrics)
    assert (run["status"], run["run_id"]) == ("COMPLETED", RUN_ID)
    assert abs(run["start_time"] - processes[0].started) < datetime.timedelta(milliseconds=1)


@pytest.mark.parametrize("seed", range(10))
def test_documents_of_a_killed_run_are_those_of_one_that_never_stopped(server, observe, tmp_path, seed):
    draw = random.Random(seed)
    records = made_records(draw, draw.choice([1, 5, 100]))
    make = lambda: observe(server.url, seconds=5, run_id=RUN_ID)  # noqa: E731
    processes = run_with_kills(draw, records, make, tmp_path / "metrics.jsonl")
    assert server.client["marl"]["runs"].find_one({})["status"] == "RUNNING"
    processes[-1].end()
    check_documents(server, records, processes)


ANSWERS = [("insert", "runs"), ("update", "runs"), ("update", "metrics"), ("delete", "metrics")]


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_are_lost_double_nothing(server, observe, tmp_path, seed, lines):
    draw = random.Random(seed)
    records = made_records(draw, 100)
    to_lose = [draw.choice(ANSWERS) for _ in range(4)]
    server.lost.append(("insert", "runs"))

    def trouble():
        if to_lose and draw.random() < 0.05:
            server.lost.append(to_lose.pop())

    make = lambda: observe(server.url, seconds=5, run_id=RUN_ID)  # noqa: E731
    processes = run_with_kills(draw, records, make, tmp_path / "metrics.jsonl", trouble)
    server.lost.clear()
    processes[-1].end()
    check_documents(server, records, processes)
    assert warnings(lines)


@pytest.mark.parametrize("answer", ANSWERS[:-1])
def test_answers_that_cannot_be_read_leave_nothing_out(server, observe, tmp_path, answer, lines):
    records = made_records(random.Random(3), 60)
    server.garbled.append(answer)
    process = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    for record in records:
        process.log(record)
        process.beat()
    process.end()
    (line,) = warnings(lines)
    assert server.garbled == [] and "InvalidBSON" in line and any("works again" in line for line in lines)
    check_documents(server, records, [process])


@pytest.mark.parametrize("answer", [("update", "runs"), ("update", "metrics"), ("delete", "metrics")])
def test_outage_in_the_first_delivery_of_a_resumed_run(server, observe, tmp_path, answer, lines):
    path, records = tmp_path / "metrics.jsonl", made_records(random.Random(3), 60)
    killed = Process(observe(server.url, seconds=5, run_id=RUN_ID), path)
    killed.log(*records, Record("only_beyond_the_cut", 1.0, 1, 1, 0.0))
    killed.beat()
    server.lost.append(answer)
    resumed = Process(observe(server.url, seconds=5, run_id=RUN_ID), path, records[:20])
    assert server.client["marl"]["metrics"].count_documents({"name": "only_beyond_the_cut"}) == 1
    for record in records[20:]:
        resumed.beat()
        resumed.log(record)
    resumed.end()
    assert server.lost == [] and len(warnings(lines)) == 1 and any("works again" in line for line in lines)
    check_documents(server, records, [killed])


def test_server_that_is_away_when_the_run_is_resumed(server, observe, tmp_path, lines):
    path, records = tmp_path / "metrics.jsonl", made_records(random.Random(3), 60)
    killed = Process(observe(server.url, seconds=5, run_id=RUN_ID), path)
    killed.log(*records[:50])
    killed.beat()
    server.kill()
    resumed = Process(observe(server.url, seconds=1, run_id=RUN_ID), path, records[:20])
    resumed.beat()
    resumed.log(*records[20:])
    with WireMongo(server.server_address[1]) as back:
        back.client = server.client  # with its documents
        resumed.end()
        check_documents(back, records, [killed])


def test_document_of_a_resumed_run(server, observe, tmp_path):
    make = lambda run_id=RUN_ID: observe(server.url, seconds=5, run_id=run_id)  # noqa: E731
    other = Process(make("other"), tmp_path / "other")
    other.log(Record("loss", 0.5, 1, 1, 0.0))
    other.beat()
    failed = Process(make(), tmp_path / "metrics.jsonl")
    failed.observer.artifact_event("agent.th", __file__)
    failed.log(Record("loss", 0.5, 1, 1, 0.0))
    failed.beat()
    failed.observer.failed_event(datetime.datetime.utcnow(), ["Traceback"])
    database = server.client["marl"]
    before = database["runs"].find_one({"run_id": RUN_ID})
    resumed = Process(make(), tmp_path / "metrics.jsonl", [])
    run = database["runs"].find_one({"run_id": RUN_ID})
    assert run["status"] == "RUNNING" and not run.keys() & {"stop_time", "fail_trace"}
    assert run["artifacts"] == before["artifacts"] != [] and run["info"] == before["info"] != {}
    assert database["metrics"].count_documents({"run_id": run["_id"]}) == 1
    resumed.observer.artifact_event("mixer.th", __file__)
    resumed.beat()  # without any metrics
    run = database["runs"].find_one({"run_id": RUN_ID})
    assert [artifact["name"] for artifact in run["artifacts"]] == ["agent.th", "mixer.th"]
    assert database["metrics"].count_documents({"run_id": run["_id"]}) == 0 and run["info"]["metrics"] == []
    assert database["runs"].count_documents({}) == 2
    assert database["metrics"].count_documents({}) == 1  # the other run's


def test_metrics_stay_listed_until_they_are_replaced(server, observe, tmp_path, lines):
    killed = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    killed.log(Record("loss", 0.5, 1, 1, 0.0))
    killed.beat()
    before = server.client["marl"]["runs"].find_one({})
    server.refused = lambda name: name == "loss"
    resumed = Process(observe(server.url, 5, run_id=RUN_ID), tmp_path / "metrics.jsonl", [Record("loss", 1, 1, 1, 0.0)])
    resumed.beat()
    run = server.client["marl"]["runs"].find_one({})
    assert run["heartbeat"] != before["heartbeat"] and run["info"] == before["info"] != {} and warnings(lines)


def test_late_insert_of_an_earlier_try_makes_no_second_document(server, observe, tmp_path, monkeypatch, lines):
    """The reply is lost, and the document cannot be seen yet when the run is registered again."""
    server.lost.append(("insert", "runs"))
    observer = observe(server.url, seconds=5, run_id=RUN_ID)
    real, unseen = observer._inner._go_on, [False, False]
    monkeypatch.setattr(observer._inner, "_go_on", lambda: unseen.pop() if unseen else real())
    process = Process(observer, tmp_path / "metrics.jsonl")
    process.log(Record("loss", 0.5, 1, 1, 0.0))
    process.end()
    assert unseen == [] and len(warnings(lines)) == 1
    check_documents(server, [Record("loss", 0.5, 1, 1, 0.0)], [process])


def test_number_that_another_run_takes(server, observe, tmp_path, monkeypatch):
    observer = observe(server.url, seconds=5, run_id=RUN_ID)
    runs = server.client["marl"]["runs"]
    real = observer._inner.runs.insert_one

    def insert_one(document):
        if document["_id"] == 1:
            runs.insert_one({"_id": 1, "run_id": "other"})
        return real(document)

    monkeypatch.setattr(type(observer._inner.runs), "insert_one", lambda self, document: insert_one(document))
    Process(observer, tmp_path / "metrics.jsonl")
    assert {run["_id"]: run["run_id"] for run in runs.find()} == {1: "other", 2: RUN_ID}


def test_metric_that_the_server_refuses_does_not_move_the_others(server, observe, tmp_path, lines):
    process = Process(observe(server.url, seconds=5, run_id=RUN_ID), tmp_path / "metrics.jsonl")
    server.refused = lambda name: name == "bad"
    for t in (1, 2, 3):
        for key in ("bad", "test_loss"):
            process.log(Record(key, t / 2, t, t, 0.0))
        process.beat()
        server.refused = lambda name: False
    process.end()
    stored = {metric["name"]: metric for metric in server.client["marl"]["metrics"].find()}
    assert stored["test_loss"]["steps"] == [1, 2, 3] and stored["test_loss"]["values"] == [0.5, 1.0, 1.5]
    assert stored["bad"]["steps"] == [1, 3] and len(warnings(lines)) == 1
    listed = [metric["name"] for metric in server.client["marl"]["runs"].find_one({})["info"]["metrics"]]
    assert sorted(listed) == ["bad", "test_loss"]


def test_former_process_sends_nothing_once_another_has_the_run(server, observe, tmp_path, lines):
    holder, records = ["first"], made_records(random.Random(1), 30)
    make = lambda name: observe(server.url, 5, run_id=RUN_ID, mine=lambda: holder[0] == name)  # noqa: E731
    first = Process(make("first"), tmp_path / "metrics.jsonl")
    first.log(*records[:20])
    holder[0] = "second"
    second = Process(make("second"), tmp_path / "metrics.jsonl", records[:10])
    second.log(*records[10:])
    second.end()
    database = server.client["marl"]
    before = [list(database[name].find()) for name in ("runs", "metrics", "fs.files")]
    first.beat()
    first.observer.artifact_event("agent.th", __file__)
    first.observer.failed_event(datetime.datetime.utcnow(), ["Traceback"])
    first.end()
    assert repr(before) == repr([list(database[name].find()) for name in ("runs", "metrics", "fs.files")])
    assert warnings(lines) == []
    check_documents(server, records, [first])


@pytest.mark.parametrize("seed", range(4))
def test_delivery_behind_any_trouble(server, observe, tmp_path, seed, lines):
    """A run is killed here and there, its server leaves, refuses and loses answers; the delivery is broken off too."""
    draw = random.Random(seed)
    records = made_records(draw, 100)

    def trouble():
        if draw.random() < 0.05:
            server.lost.append(draw.choice(ANSWERS))
        if draw.random() < 0.1:
            server.unwilling = draw.choice([None, None, (13, "not authorized")])
        if draw.random() < 0.05:
            server.hang_up()

    make = lambda: observe(server.url, seconds=2, run_id=RUN_ID)  # noqa: E731
    processes = run_with_kills(draw, records, make, tmp_path / "metrics.jsonl", trouble)
    server.unwilling = draw.choice([None, (18, "Authentication failed.")])
    processes[-1].end()
    server.unwilling, began = None, processes[0].started
    entry = {"start_time": began, "status": "COMPLETED", "stop_time": began, "config": CONFIG | {"lr": 0.5}}
    server.lost[:] = [draw.choice(ANSWERS) for _ in range(2)]
    arguments = server.url, "marl", RUN_ID, entry, given_to_sacred(records), 2.0
    for _ in range(3):
        with suppress(pymongo.errors.PyMongoError):
            deliver(*arguments, began=began)
    server.lost.clear()
    deliver(*arguments, began=began)
    check_documents(server, records, processes)
    before = list(server.client["marl"]["metrics"].find())
    again = deliver(*arguments, began=began)
    assert (again.new, again.changed, again.metrics, again.points, again.left_out) == (False, False, 0, 0, {})
    assert repr(list(server.client["marl"]["metrics"].find())) == repr(before)


# ---- the password


def test_the_password_comes_from_a_file(tmp_path, monkeypatch):
    """So that mongo_url, which config.yaml keeps, need not hold it."""
    file = tmp_path / "password"
    file.write_text("a/b@c:d\n")
    monkeypatch.setenv("QTRAN_MONGO_PASSWORD_FILE", str(file))
    observer = PatientMongoObserver("mongodb://trainer@127.0.0.1:1/?authSource=admin", "runs")
    credentials = observer._inner._client.options.pool_options._credentials
    observer.close()
    assert (credentials.username, credentials.password, credentials.source) == ("trainer", "a/b@c:d", "admin")
    file.unlink()
    with pytest.raises(ConfigError, match=r"QTRAN_MONGO_PASSWORD_FILE=.*password: cannot be read: No such file"):
        PatientMongoObserver("mongodb://trainer@127.0.0.1:1", "runs")


SECRET = "S3cret"
ADDRESSES = {
    "mongodb://me:S3cret@h:1/db?authSource=admin": "mongodb://me@h:1/db?authSource=admin",
    "mongodb://me:S3cret@h:1,g:2,[::1]:3": "mongodb://me@h:1,g:2,[::1]:3",
    "mongodb+srv://me:S3cret@cluster.example.net/?appName=a@b": "mongodb+srv://me@cluster.example.net/?appName=a@b",
    "mongodb://us%40er:%2FS3cret%40%3A@h": "mongodb://us%40er@h",
    "mongodb://me:p@S3cret:w@h:1": "mongodb://me@h:1",
    "mongodb://me:p/S3cret?x=1@h/db?a=b": "mongodb://me@h/db?a=b",
    "mongodb://me:12/S3cret@h": "mongodb://me@h",
    "mongodb://me:12?x=S3cret@h": "mongodb://me@h",
    "mongodb://me:[S3cret]#%zz&;=@[::1]:1/x": "mongodb://me@[::1]:1/x",
    "mongodb://me:S3cret": "mongodb://me:***",
    "me:S3cret@h": "me:***",
    "http://me:S3cret@h": "http://me@h",
    "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=S3cret&x=y": (
        "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=&x=y"
    ),
    "mongodb://me@h/?authMechanismProperties=AWS_SESSION_TOKEN:S3cret,X:y": (
        "mongodb://me@h/?authMechanismProperties=AWS_SESSION_TOKEN:,X:y"
    ),
}
WITHOUT = [
    "mongodb://h", "mongodb://me@h:1/db", "mongodb://h:1/?appName=a@b", "mongodb://h1:1,h2:2/a?b=c@d&e=f", "h:1",
    "mongodb://%2Ftmp%2Fmongodb-27017.sock", "mongodb://[::1]:1", "mongodb://", "mongodb://h:1 ",
]  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
def test_no_password_stays_in_an_address(url):
    assert without_password(url) == ADDRESSES[url] == without_password(ADDRESSES[url])
    assert url.endswith(SECRET) or url.startswith("me") or SECRET not in without_passwords(f"a = {url!r}, b")


@pytest.mark.parametrize("url", WITHOUT)
def test_address_without_a_password_stays_as_it_is(url):
    assert without_password(url) == url


@pytest.mark.parametrize("url", [url for url in ADDRESSES if not url.startswith("mongodb://h/")])
def test_no_message_about_an_address_shows_a_password(url, lines, observe, tmp_path):
    for db_name in ("runs", "a b.c"):
        try:
            Process(observe(url, seconds=0.01, db_name=db_name), tmp_path / "metrics.jsonl")
        except ConfigError as error:
            lines.append(f"WARNING {error}")
    assert warnings(lines) and SECRET not in "".join(lines)


LACKING = ["mongodb://me@{}", "mongodb://me:@{}/?authSource=admin", "mongodb://me@{}/?authMechanism=PLAIN",
           "mongodb://{}/?tls=true&tlsCertificateKeyFile=x.pem&tlsCertificateKeyFilePassword="]  # fmt: skip


@pytest.mark.parametrize("url", LACKING)
@pytest.mark.parametrize("file", [None, "\n"])
def test_without_the_password_records_wait(url, file, lines, server, observe, tmp_path, monkeypatch):
    if file is not None:
        (tmp_path / "password").write_text(file)
        monkeypatch.setenv("QTRAN_MONGO_PASSWORD_FILE", str(tmp_path / "password"))

    def main(run):
        three_points(run)
        run.add_artifact(__file__)
        time.sleep(3 * BEAT)

    observer = observe(url.format(server.url.partition("//")[2]), run_dir="results/r")
    assert run_experiment([observer], main).status == "COMPLETED"
    (line,) = lines
    assert "password is not known" in line and "python src/sync.py results/r" in line
    assert "QTRAN_MONGO_PASSWORD_FILE" in line and server.client.list_database_names() == []


def test_a_ping_without_the_password():
    with pytest.raises(ConfigError, match="mongodb://me@h: the password is not known; give it by QTRAN_MONGO_PASS"):
        ping_mongo("mongodb://me@h", "marl", 1)


@pytest.mark.parametrize("mechanism", ["MONGODB-X509", "GSSAPI"])
def test_user_who_needs_no_password(mechanism, lines, server, observe, tmp_path):
    url = server.url.replace("//", "//me@") + f"/?authMechanism={mechanism}"
    Process(observe(url), tmp_path / "metrics.jsonl").end()
    assert not any("password is not known" in line for line in lines)


@pytest.mark.parametrize("url", ["mongodb://me@", "mongodb://me@h:port", "mongodb://:x@h", "mongodb+srv://me@h:1"])
def test_malformed_address_is_refused_without_a_password_too(url):
    with pytest.raises(ConfigError, match="mongo_url"):
        PatientMongoObserver(url, "marl")
