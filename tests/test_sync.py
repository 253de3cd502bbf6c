"""Runs whose MongoDB was away, slow, unwilling or never named: what `sync.py` brings, and where passwords stay."""

import datetime
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import sacred
import yaml
from command import PROGRAM, ROOT, files, here, outcome, words
from test_resume import EXACT, GAME, AtRound, contents, killed, process, send, stopped, wait_until
from test_resume import quiet as quiet  # a fixture
from wire_mongo import WireMongo, free_port

import open_run
import sync
from recording.mongo_observer import PatientMongoObserver
from recording.sinks import SacredSink
from utils.claim import holder
from utils.config import import_sacred

MONGO = "mongo_db=runs"
POINTS = 2  # of a metric that are given to Sacred, and the last one
PASSWORD = "p@ss:w/rd%"  # to be percent-encoded: p%40ss%3Aw%2Frd%25


@pytest.fixture
def server():
    with WireMongo() as server:
        yield server


@pytest.fixture(autouse=True)
def place(monkeypatch):
    """No password, little patience, so few points that the short runs here are thinned."""
    monkeypatch.delenv("QTRAN_MONGO_PASSWORD_FILE", raising=False)
    monkeypatch.setattr(sync, "STEP_SECONDS", 2.0)
    monkeypatch.setattr(SacredSink.__init__, "__defaults__", (POINTS,))
    begin = PatientMongoObserver.__init__
    monkeypatch.setattr(begin, "__defaults__", (1.0, *begin.__defaults__[1:]))


@pytest.fixture
def beats(monkeypatch):
    """Heartbeats each 0.05 s, not each 10."""
    import_sacred()
    monkeypatch.setattr(sacred.SETTINGS, "DEFAULT_BEAT_INTERVAL", 0.05)


def synced(capsys, path, *values, code=0):
    """The Outcome of sync.py, which leaves all of the run but its claims as it was."""
    before = contents(path)
    done = outcome(sync.main, capsys, [path, *(("with", *values) if values else ())])
    assert done.code == code, (done.out, done.err)
    assert contents(path) == before
    return done


def stored(server, times=False):
    """{metric: its document} without ids and, unless asked for, without times and what else depends on the machine."""
    found = list(server.client["runs"]["metrics"].find())
    assert len({metric["name"] for metric in found}) == len(found)
    less = {"_id", "run_id"} | (set() if times else {"timestamps"})
    (run,) = server.client["runs"]["runs"].find()
    assert {metric["run_id"] for metric in found} <= {run["_id"]}
    listed = sorted((metric["name"], metric["id"]) for metric in run["info"].get("metrics", []))
    assert listed == sorted((metric["name"], str(metric["_id"])) for metric in found)
    documents = {metric["name"]: {k: v for k, v in metric.items() if k not in less} for metric in found}
    return {name: d for name, d in documents.items() if times or not name.startswith(("time", "system_"))}


def entry(server):
    """The run's document, without what differs between any two runs."""
    (run,) = server.client["runs"]["runs"].find()
    mongo = {"mongo_url", "mongo_db", "local_results_path"}
    run["config"] = {k: v for k, v in run["config"].items() if k not in mongo}
    run["info"] = [metric["name"] for metric in run["info"].get("metrics", [])]
    odd = ("_id", "run_id", "start_time", "stop_time", "heartbeat")
    return {k: type(v) if k in odd else v for k, v in run.items()}


@pytest.fixture(scope="module")
def always(tmp_path_factory):
    """always(capsys, *values): (documents of the metrics, of the run) of a run whose server was always there."""
    found = {}

    def find(capsys, *values):
        if values not in found:
            with WireMongo() as server:
                url = f"mongo_url={server.url}"
                done = here(capsys, words(*GAME, tmp_path_factory.mktemp("always"), *EXACT, url, MONGO, *values))
                assert done.code == 0, done.err
                found[values] = stored(server), entry(server)
        return found[values]

    return find


# ---- what is delivered


def test_server_that_was_not_there(always, server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url=mongodb://127.0.0.1:{free_port()}", MONGO)).path
    done = synced(capsys, path, f"mongo_url={server.url}")
    assert (stored(server), entry(server)) == always(capsys)
    metrics = stored(server, True)
    points = sum(len(metric["steps"]) for metric in metrics.values())
    assert f"run 1 (new): delivered 1 document, {len(metrics)} metrics, {points} points" in done.out
    before = [list(server.client["runs"][name].find()) for name in ("runs", "metrics")]
    for _ in range(2):
        assert "run 1: nothing was missing" in synced(capsys, path, f"mongo_url={server.url}").out
    assert [list(server.client["runs"][name].find()) for name in ("runs", "metrics")] == before


def test_times_are_those_of_the_records(server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    synced(capsys, path, f"mongo_url={server.url}", MONGO)
    times = {}
    for line in (path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        times.setdefault((record["key"], record["t_env"]), []).append(record["time"])
    for name, metric in stored(server, times=True).items():
        for step, when in zip(metric["steps"], metric["timestamps"]):
            seconds = when.replace(tzinfo=datetime.timezone.utc).timestamp()
            assert min(abs(seconds - time) for time in times[name, step]) < 2e-3


def test_run_that_was_told_of_no_server(always, server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    synced(capsys, path, f"mongo_url={server.url}", MONGO)
    assert (stored(server), entry(server)) == always(capsys)
    files_entry = json.loads((tmp_path / "sacred/qmix/two_step/1/run.json").read_text())
    (run,) = server.client["runs"]["runs"].find()
    for name in ("start_time", "stop_time", "heartbeat"):
        assert abs(run[name] - datetime.datetime.fromisoformat(files_entry[name])).total_seconds() < 0.001
    assert run["run_id"] == files_entry["run_id"] and run["host"]["hostname"] == files_entry["host"]["hostname"]


def test_complete_run_is_left_as_it_is(server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url={server.url}", MONGO)).path
    server.client["runs"]["runs"].update_one({}, {"$set": {"omniboard": {"tags": ["good"]}}})
    before = [list(server.client["runs"][name].find()) for name in ("runs", "metrics")]
    assert "nothing was missing" in synced(capsys, path).out
    assert [list(server.client["runs"][name].find()) for name in ("runs", "metrics")] == before


def test_server_that_is_lost_in_the_middle(always, beats, tmp_path, capsys):
    servers = [WireMongo()]

    def leave():
        wait_until(lambda: servers[0].client["runs"]["metrics"].count_documents({}))
        servers[0].kill()

    argv = words(*GAME, tmp_path, *EXACT, f"mongo_url={servers[0].url}", MONGO)
    with AtRound(5, leave):
        run = here(capsys, argv)
    assert run.code == 0 and run.err.count("WARNING") == 1 and f"src/sync.py {run.path}" in run.err
    assert servers[0].client["runs"]["runs"].find_one({})["status"] == "RUNNING"
    with WireMongo(servers[0].server_address[1]) as back:
        back.client = servers[0].client
        done = synced(capsys, run.path)
        assert "run 1: delivered 1 document" in done.out and (stored(back), entry(back)) == always(capsys)


@pytest.mark.parametrize("empty", [False, True])
def test_server_that_is_lost_and_comes_back(empty, always, beats, tmp_path, capsys):
    """The run itself delivers what is missing."""
    servers = [WireMongo()]

    def leave():
        wait_until(lambda: servers[0].client["runs"]["metrics"].count_documents({}))
        servers[0].kill()

    def come_back():
        time.sleep(0.2)
        servers.append(WireMongo(servers[0].server_address[1]))
        if not empty:
            servers[1].client = servers[0].client
        wait_until(lambda: servers[1].client["runs"]["runs"].count_documents({}))

    argv = words(*GAME, tmp_path, *EXACT, f"mongo_url={servers[0].url}", MONGO)
    with AtRound(5, leave), AtRound(10, come_back):
        run = here(capsys, argv)
    with servers[1] as back:
        assert run.code == 0 and "works again" in run.err, run.err
        assert (stored(back), entry(back)) == always(capsys)
        assert "nothing was missing" in synced(capsys, run.path).out


def test_killed_process(server, tmp_path, capsys):
    """What MongoDB has then is what Sacred was given of all records; the last values are given at an end."""
    away = f"mongo_url=mongodb://127.0.0.1:{free_port()}"
    path = killed(words(*GAME, tmp_path / "results", *EXACT, away, MONGO), tmp_path / "results", 12)
    synced(capsys, path, f"mongo_url={server.url}")
    run = entry(server)
    assert run["status"] == "RUNNING" and "stop_time" not in run
    expected, slots = {}, set()
    for line in (path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        slot = record["key"], record["t_env"] // (24 / POINTS)
        if record["key"].startswith("test_") or slot not in slots:
            slots.add(slot)
            steps, values = expected.setdefault(record["key"], ([], []))
            steps.append(record["t_env"])
            values.append(record["value"])
    assert {name: (metric["steps"], metric["values"]) for name, metric in stored(server, True).items()} == expected
    assert len(expected["test_return_mean"][0]) == 3 and len(expected["epsilon"][0]) == 2
    assert "nothing was missing" in synced(capsys, path, f"mongo_url={server.url}").out


@pytest.mark.parametrize("between", [False, True])
def test_killed_and_resumed_run(between, always, server, tmp_path, capsys):
    away = f"mongo_url=mongodb://127.0.0.1:{free_port()}"
    path = killed(words(*GAME, tmp_path / "results", *EXACT, away, MONGO), tmp_path / "results", 10)
    if between:
        synced(capsys, path, f"mongo_url={server.url}")  # has points that the resumed run makes again
    assert here(capsys, ["--resume", path]).code == 0
    synced(capsys, path, f"mongo_url={server.url}")
    assert (stored(server), entry(server)) == always(capsys)
    first = json.loads((tmp_path / "results/sacred/qmix/two_step/1/run.json").read_text())["start_time"]
    start = server.client["runs"]["runs"].find_one({})["start_time"]
    assert abs(start - datetime.datetime.fromisoformat(first)).total_seconds() < 0.001


def test_run_that_is_resumed_with_a_server(always, server, tmp_path, capsys):
    """The resumed run itself brings all, as far back as its first process."""
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), 5)
    assert here(capsys, ["--resume", run.path, "with", f"mongo_url={server.url}", MONGO]).code == 0
    assert (stored(server), entry(server)) == always(capsys)
    assert "nothing was missing" in synced(capsys, run.path).out


@pytest.mark.parametrize("how", ["interrupted", "failed", "longer"])
def test_other_ends(how, server, tmp_path, capsys, monkeypatch):
    """Two runs that end the same way, one with a server and one without."""
    ends = []
    for url in (server.url, f"mongodb://127.0.0.1:{free_port()}"):
        argv = words(*GAME, tmp_path / str(len(ends)), *EXACT, f"mongo_url={url}", MONGO, "keep_replay=True")
        if how == "interrupted":
            path = stopped(capsys, argv, 5).path
        elif how == "longer":
            path = here(capsys, argv).path
            assert here(capsys, ["--resume", path, "with", "t_max=36"]).code == 0
        else:
            with monkeypatch.context() as patch:
                patch.setattr(open_run, "test", None)
                patch.setattr("training._test", lambda *_, **__: 1 / 0)
                run = here(capsys, argv)
            assert run.code == 1
            path = run.path
        synced(capsys, path, f"mongo_url={server.url}")
        ends.append((stored(server), entry(server)))
        server.client.drop_database("runs")
    assert ends[0] == ends[1]
    status = {"interrupted": "INTERRUPTED", "failed": "FAILED", "longer": "COMPLETED"}[how]
    assert ends[0][1]["status"] == status and ("fail_trace" in ends[0][1]) == (how == "failed")


def test_without_the_files_of_sacred(always, server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path / "results", *EXACT)).path
    moved = shutil.move(path, tmp_path / "elsewhere")
    (moved / "summary.json.partial").touch()
    done = synced(capsys, moved, f"mongo_url={server.url}", MONGO)
    assert done.code == 0 and stored(server) == always(capsys)[0]
    run = entry(server)
    assert run["status"] == "COMPLETED" and run["config"] == always(capsys)[1]["config"]
    began = server.client["runs"]["runs"].find_one({})["start_time"]
    assert abs(datetime.datetime.utcnow() - began).total_seconds() < 300
    assert "nothing was missing" in synced(capsys, moved, f"mongo_url={server.url}", MONGO).out


def test_two_runs_in_one_database(server, tmp_path, capsys):
    paths = [here(capsys, words(*GAME, tmp_path, *EXACT, f"label=run {n}")).path for n in range(2)]
    for path in (*paths, *paths):
        synced(capsys, path, f"mongo_url={server.url}", MONGO)
    runs = list(server.client["runs"]["runs"].find())
    assert [(run["_id"], run["config"]["label"]) for run in runs] == [(1, "run 0"), (2, "run 1")]
    assert {m["run_id"] for m in server.client["runs"]["metrics"].find()} == {1, 2}


def test_a_delivery_that_is_broken_off(always, server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    url = f"mongo_url={server.url}"
    for lost in [("insert", "runs"), ("update", "metrics"), ("update", "runs")]:
        server.lost.append(lost)
        done = synced(capsys, path, url, MONGO, code=1)
        assert "call this again" in done.err and "Traceback" not in done.err and server.lost == []
    synced(capsys, path, url, MONGO)
    assert (stored(server), entry(server)) == always(capsys)


def test_damaged_lines_are_told(server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    metrics = path / "metrics.jsonl"
    before = metrics.read_bytes().splitlines(keepends=True)
    line = json.loads(before[0])
    odd = [json.dumps(line | change).encode() + b"\n" for change in ({"value": "x"}, {"time": 1e15}, {"t_env": -1})]
    metrics.write_bytes(b"".join([before[0], b"{half\n", *odd, *before[1:], b'{"half']))
    done = synced(capsys, path, f"mongo_url={server.url}", MONGO)
    assert "metrics.jsonl: 4 lines cannot be read" in done.err
    assert sum(len(metric["steps"]) for metric in stored(server).values())


# ---- what is refused


def test_unreachable_and_unwilling(server, tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    done = synced(capsys, path, f"mongo_url=mongodb://127.0.0.1:{free_port()}", MONGO, code=1)
    assert done.err.startswith("error: MongoDB mongodb://127.0.0.1") and "nothing is lost" in done.err
    server.users = {"me": "another"}
    url = server.url.replace("//", "//me:secret@")
    done = synced(capsys, path, f"mongo_url={url}", MONGO, code=1)
    assert "Authentication failed" in done.err and "secret" not in done.out + done.err
    server.users, server.refused, server.code = None, lambda name: name == "loss", 17419
    done = synced(capsys, path, f"mongo_url={server.url}", MONGO, code=1)
    assert "metric loss is left out" in done.err and "delivered 1 document" in done.out
    server.refused = lambda name: False
    assert "delivered 1 document, 1 metric," in synced(capsys, path, f"mongo_url={server.url}", MONGO).out


def test_living_run_is_refused(server, tmp_path, capsys):
    waiting, go = tmp_path / "waiting", tmp_path / "go"

    def wait():
        waiting.touch()
        wait_until(go.exists)

    with process(words(*GAME, tmp_path / "results", *EXACT), tmp_path / "log", 5, wait) as living:
        wait_until(waiting.exists)
        (path,) = {p.parent for p in (tmp_path / "results").glob("*/*/*/config.yaml")}
        before = files(path)
        done = outcome(sync.main, capsys, [path, "with", f"mongo_url={server.url}", MONGO])
        assert done.code == 2 and f"process {living.pid}" in done.err and files(path) == before
        go.touch()
        assert living.wait() == 0
    assert server.client.list_database_names() == []
    synced(capsys, path, f"mongo_url={server.url}", MONGO)


def test_frozen_run_is_refused(server, tmp_path, capsys):
    """It may wake up; a resume takes it over, sync.py does not."""
    argv = words(*GAME, tmp_path / "results", *EXACT, "lease_seconds=0.5")
    with process(argv, tmp_path / "log", 5, lambda: send(signal.SIGSTOP)()) as frozen:
        wait_until(lambda: list((tmp_path / "results").glob("*/*/*/claims/*.json")))
        (path,) = {p.parent for p in (tmp_path / "results").glob("*/*/*/config.yaml")}
        wait_until(lambda: (held := holder(path)) and held.state == "frozen")
        done = outcome(sync.main, capsys, [path, "with", f"mongo_url={server.url}", MONGO])
        assert done.code == 2 and f"process {frozen.pid}" in done.err and "silent" in done.err
        send_to = frozen.pid
        subprocess.run(["kill", "-CONT", str(send_to)], check=True)
        assert frozen.wait() == 0


@pytest.fixture
def finished(tmp_path, capsys):
    return here(capsys, words(*GAME, tmp_path / "results", *EXACT)).path


@pytest.mark.parametrize(
    "values, said",
    [
        ([], "mongo_url and mongo_db not known"),
        (["mongo_url=mongodb://h"], "mongo_db not known"),
        (["mongo_url=5", MONGO], "mongo_url = 5 must be text"),
        (["mongo_url=mongodb://me:S3cret@h", "mongo_db=5"], "mongo_db = 5 must be text"),
        (["mongo_url=mongodb://me:S3cret@h", "mongo_db="], "mongo_db = '' must be text and not empty"),
        (["mongo_url=mongodb://h:port", MONGO], "Port contains"),
        (["mongo_url=http://me:S3cret@h", MONGO], "Invalid URI scheme"),
        (["mongo_url=mongodb://me@h", MONGO], "the password is not known; give it by QTRAN_MONGO_PASSWORD_FILE"),
        (["mongo_ulr=mongodb://me:S3cret@h", MONGO], "did you mean 'mongo_url'"),
        (["mongodb://me:S3cret@h"], "is not KEY=VALUE"),
        (["seed=1"], "not seed"),
    ],
)
def test_bad_input(values, said, finished, capsys):
    done = synced(capsys, finished, *values, code=2)
    assert said in done.err and "S3cret" not in done.err and done.err.count("\n") == 1


def test_the_word_with_is_missing(finished, capsys):
    done = outcome(sync.main, capsys, [finished, "mongo_url=mongodb://me:S3cret@h", MONGO])
    assert done.code == 2 and "values come after the word `with`" in done.err and "S3cret" not in done.err


def test_two_runs_at_once(finished, capsys):
    done = outcome(sync.main, capsys, [finished, finished])
    assert done.code == 2 and "one run directory is taken at a time" in done.err and "with`" not in done.err


def test_no_run(tmp_path, finished, capsys):
    for path, said in [
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "results", f"runs below it: {finished}"),
        (finished / "claims", "not a run directory"),
    ]:
        done = outcome(sync.main, capsys, [path])
        assert done.code == 2 and said in done.err
    (finished / "config.yaml").write_text("{")
    done = outcome(sync.main, capsys, [finished])
    assert done.code == 2 and "config.yaml" in done.err


def test_as_a_program(server, finished):
    def start(*argv):
        command = [sys.executable, str(ROOT / "src" / "sync.py"), *map(str, argv)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = start(finished, "with", f"mongo_url={server.url}", MONGO)
    assert done.returncode == 0 and "delivered 1 document" in done.stdout and done.stderr == ""
    assert "exit status" in start("--help").stdout
    assert start().returncode == start(finished / "claims").returncode == 2


# ---- passwords


def everything(folder):
    """All bytes of the files in a folder, and their names."""
    return b"\n".join(name.encode() + (folder / name).read_bytes() for name in files(folder))


WRITTEN = {"encoded": "p%40ss%3Aw%2Frd%25", "raw": PASSWORD}


def addresses(server, written):
    return server.url.replace("//", f"//me:{WRITTEN[written]}@") + "/?authSource=admin"


def nowhere(*texts):
    """No text and no file holds the password, in any way that it is written."""
    for text in texts:
        data = text if isinstance(text, bytes) else text.encode()
        assert not [written for written in (*WRITTEN.values(), "ss%3Aw", "ss:w") if written.encode() in data]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("given", ["command line", "from", "resume", "latest", "old config.yaml", "sync"])
def test_the_password_is_nowhere(given, written, server, tmp_path, capsys):
    server.users = {"me": PASSWORD}
    results, url = tmp_path / "results", addresses(server, written)
    argv = words(*GAME, results, *EXACT)
    said = []

    def run(*argv, code=0):
        done = here(capsys, argv)
        assert done.code == code, done.err
        said.extend([done.out, done.err])
        return done

    if given == "command line":
        run(*argv, f"mongo_url={url}", MONGO)
    elif given == "from":
        run(*argv)
        (config,) = results.glob("qmix/*/*/config.yaml")
        values = yaml.safe_load(config.read_text()) | {"mongo_url": url, "mongo_db": "runs"}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        run("--from", tmp_path / "mine.yaml", "with", f"local_results_path={tmp_path / 'results2'}")
        results = tmp_path / "results2"
    elif given in ("resume", "latest", "old config.yaml"):
        path = stopped(capsys, argv, 5).path
        more = ["with", f"mongo_url={url}", MONGO]
        if given == "old config.yaml":
            values = yaml.safe_load((path / "config.yaml").read_text()) | {"mongo_url": url, "mongo_db": "runs"}
            (path / "config.yaml").write_text(yaml.safe_dump(values))
            more = []
        run(*(["--resume=latest", *argv, *more[1:]] if given == "latest" else ["--resume", path, *more]))
    else:
        path = run(*argv).path
        done = synced(capsys, path, f"mongo_url={url}", MONGO)
        said.extend([done.out, done.err])
    assert server.client["runs"]["runs"].find_one({})["status"] == "COMPLETED"
    nowhere(everything(results), *said, repr(list(server.client["runs"]["runs"].find())))
    (config,) = results.glob("qmix/*/*/config.yaml")
    kept = yaml.safe_load(config.read_text())["mongo_url"]
    assert kept == (None if given == "sync" else server.url.replace("//", "//me@") + "/?authSource=admin")


@pytest.mark.parametrize("written", WRITTEN)
def test_messages_and_explanations_hold_no_password(written, server, tmp_path, capsys):
    url = addresses(server, written)
    argv = words(*GAME, tmp_path, *EXACT)
    for more, code in [
        ((f"mongo_url={url}", MONGO, "--explain"), 0),
        ((f"mongo_url={url}",), 2),
        ((f"mongo_ulr={url}", MONGO), 2),
        ((f"mongo_url={{'a': '{url}'}}", MONGO), 2),
        ((f"mongo_url=b'{url}'", MONGO), 2),
        ((f"mongo_url={url}", "mongo_db=a b.c"), 2),
        ((f"mongo_url={url}&x", MONGO), 2),
        ((f"mongo_url={url.replace('mongodb', 'http')}", MONGO), 2),
        ((url, MONGO), 2),
        ((f"mongo_url={url}", MONGO, "lr=x", f"name={url}"), 2),
    ]:
        explain = [word for word in more if word == "--explain"]
        done = here(capsys, [*explain, *argv, *(word for word in more if word not in explain)])
        assert done.code == code, (more, done.err)
        nowhere(done.out, done.err)
    assert files(tmp_path) == []


def test_run_that_fails_shows_no_password(server, tmp_path, capsys, monkeypatch):
    """Its traceback goes to log.txt and to Sacred."""
    monkeypatch.setattr("training._test", lambda *_, **__: 1 / 0)
    server.users = {"me": PASSWORD}
    done = here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url={addresses(server, 'raw')}", MONGO))
    assert done.code == 1 and "ZeroDivisionError" in (done.path / "log.txt").read_text()
    nowhere(everything(tmp_path), done.out, done.err, repr(list(server.client["runs"]["runs"].find())))
    assert server.client["runs"]["runs"].find_one({})["status"] == "FAILED"


def test_wandb_gets_a_command_line_without_it(server, tmp_path, capsys, monkeypatch):
    """It keeps sys.argv."""
    url = addresses(server, "raw")
    monkeypatch.setattr(sys, "argv", ["main.py", f"mongo_url={url}"])
    here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url={url}", MONGO))
    nowhere(repr(sys.argv))
    assert sys.argv[1].startswith("mongo_url=mongodb://me:***@127")


def test_a_resume_without_the_password(always, server, tmp_path, capsys, monkeypatch):
    """The run goes on, records wait, one line says so; then the password is given."""
    server.users = {"me": PASSWORD}
    argv = words(*GAME, tmp_path / "results", *EXACT, f"mongo_url={addresses(server, 'encoded')}", MONGO)
    path = stopped(capsys, argv, 5).path
    run = here(capsys, ["--resume", path])
    assert run.code == 0 and run.err.count("password is not known") == run.err.count("WARNING") == 1, run.err
    assert f"python src/sync.py {path}" in run.err and "QTRAN_MONGO_PASSWORD_FILE" in run.err
    assert server.client["runs"]["runs"].find_one({})["status"] == "INTERRUPTED"
    assert "the password is not known" in synced(capsys, path, code=2).err
    (tmp_path / "password").write_text(PASSWORD + "\n")
    monkeypatch.setenv("QTRAN_MONGO_PASSWORD_FILE", str(tmp_path / "password"))
    synced(capsys, path)
    assert (stored(server), entry(server)) == always(capsys)
    nowhere(everything(tmp_path / "results"), run.out, run.err)


def test_password_of_a_study(server, tmp_path):
    """sweep.py gives it to its runs, whose records and logs do not have it."""
    server.users = {"me": PASSWORD}
    short = {arg.partition("=")[0]: yaml.safe_load(arg.partition("=")[2]) for arg in words(*GAME, tmp_path)[3:]}
    short = {k: v for k, v in short.items() if k not in ("seed", "local_results_path")}
    study = {
        "algorithms": ["vdn"],
        "environments": ["two_step"],
        "seeds": 1,
        "overrides": short | {"mongo_url": addresses(server, "raw"), "mongo_db": "runs"},
        "results": str(tmp_path / "results"),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [PROGRAM[0], str(ROOT / "src" / "sweep.py"), str(tmp_path / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.client["runs"]["runs"].find_one({})["status"] == "COMPLETED"
    nowhere(
        everything(tmp_path / "results"), done.stdout, done.stderr, repr(server.client["runs"]["runs"].find_one({}))
    )
    (config,) = (tmp_path / "results").glob("*/*/*/*/config.yaml")
    assert "mongo_url: mongodb://me@127" in config.read_text()
