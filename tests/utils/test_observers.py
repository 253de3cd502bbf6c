"""Real Sacred experiments with the real observers: what they store, and what a failing disk or server costs.

MongoDB is `wire_mongo.WireMongo`. With QTRAN_TEST_MONGO=mongodb://host:port the first test also runs
against a real server (database qtran_test).
"""

import json
import logging
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pymongo
import pytest
import torch
from sacred import Experiment
from wire_mongo import WireMongo, free_port

from utils.args import ConfigError
from utils.mongo_observer import PatientMongoObserver
from utils.observers import file_observer, plain

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


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


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

    def make(url, seconds=PATIENCE, db_name="marl"):
        made.append(PatientMongoObserver(url, db_name, seconds))
        return made[-1]

    yield make
    for observer in made:
        observer.close()


def warnings(lines):
    return [line for line in lines if line.startswith("WARNING")]


def test_plain_leaves_no_numpy_and_no_torch():
    value = {"a": np.float32(0.5), "b": (np.int64(1), torch.tensor(2)), "c": np.zeros(2), "d": "x", "e": None}
    assert json.dumps(plain(value)) == '{"a": 0.5, "b": [1, 2], "c": [0.0, 0.0], "d": "x", "e": null}'


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
from utils.observers import file_observer

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
        wait_for(lambda: servers[0].client["marl"]["metrics"].count_documents({}))
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
        wait_for(lambda: server.client["marl"]["metrics"].count_documents({}))
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
        wait_for(lambda: server.client["marl"]["metrics"].count_documents({}))
        server.kill()
        run.log_scalar("loss", 2.0, 2)
        wait_for(lambda: warnings(lines))
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
        wait_for(lambda: server.client["marl"]["metrics"].count_documents({}))
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
        wait_for(lambda: warnings(lines))
        run.log_scalar("loss", 0.5, 2)

    run_experiment([observe(server.url)], main)
    assert [m["name"] for m in server.client["marl"]["metrics"].find()] == ["loss"]
    assert "OverflowError" in warnings(lines)[0]


def test_document_that_is_too_large(lines, server, observe):
    def main(run):
        three_points(run)
        run.info["huge"] = "x" * 17_000_000
        run.captured_out = "y" * 17_000_000
        wait_for(lambda: warnings(lines))

    assert run_experiment([observe(server.url, seconds=3)], main).status == "COMPLETED"
    assert "DocumentTooLarge" in warnings(lines)[0]
    record = server.client["marl"]["runs"].find_one({})
    assert record["status"] == "COMPLETED" and record["stop_time"]
    assert server.client["marl"]["metrics"].find_one({})["steps"] == [0, 10, 20]


def test_long_output_is_cut(server, observe, lines):
    def main(run):
        run.captured_out = "y" * 17_000_000 + "end"
        wait_for(lambda: server.client["marl"]["runs"].find_one({})["captured_out"].endswith("end"))

    assert run_experiment([observe(server.url, seconds=3)], main).status == "COMPLETED"
    assert len(server.client["marl"]["runs"].find_one({})["captured_out"]) == 1_000_000
    assert not warnings(lines)


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
