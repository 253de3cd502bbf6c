"""Runs that are stopped, killed or finished and go on: what comes out in the end, and what is refused."""

import errno
import hashlib
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from command import files, full_disk, here, toy_config, wait_until, words
from helpers import groups, make_args, scheme
from wire_mongo import WireMongo

import main
from components.episode_buffer import nbytes
from envs import REGISTRY
from modules.mixers.qmix import QMixer
from run import _check_room
from runners.episode_runner import EpisodeRunner
from utils.args import ConfigError
from utils.claim import take
from utils.logging import Logger
from utils.resume_state import FORMAT, StateFolder
from utils.rundir import RunDirectory
from utils.version import VERSION

# Rounds of two_step, by their number: 1 trains to t_env 4, 2-3 test, 4 trains to 8, 5 to 12, 6-7 test, 8 to 16, 9 to
# 20, 10-11 test, 12 trains to 24, 13-14 are the closing test. States are due at 8, 16 and 24.
GAME = ("qmix", "two_step")
EXACT = ("test_nepisode=4", "resume_interval=8", "save_model_interval=8", "runner_log_interval=8")
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """One commit, though others may work on the tree meanwhile; no pictures; all signals as in a terminal. No waiting
    for the disk: what the system has, it still has when a process is killed."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr("utils.rundir.commit", lambda: COMMIT)
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


# ---- runs that are stopped


class AtRound:
    """`with AtRound(n, act)`: act() is called at the start of the n-th round, of training or of a test."""

    def __init__(self, n, act):
        self.n, self.act = n, act

    def __enter__(self):
        self.run, numbers = EpisodeRunner.run, itertools.count(1)

        def run(runner, *args, **more):
            if next(numbers) == self.n:
                self.act()
            return self.run(runner, *args, **more)

        EpisodeRunner.run = run

    def __exit__(self, *error):
        EpisodeRunner.run = self.run


def send(signum):
    """What sends a signal to this process."""
    return lambda: os.kill(os.getpid(), signum)


def stopped(capsys, argv, n, signum=signal.SIGTERM):
    """The Outcome of a run that gets a signal in its n-th round."""
    with AtRound(n, send(signum)):
        run = here(capsys, argv)
    assert run.code == 128 + signum, run.err
    return run


class Process:
    """Another process that calls main(argv): a fork, so that nothing has to be imported anew.

    n, act: act() is called in its n-th round. It has a session of its own. What it prints goes to the file `log`.
    """

    def __init__(self, argv, log, n=0, act=None):
        self.log, self.status = Path(log), None
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                os.setsid()
                handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(handle, 1)
                os.dup2(handle, 2)
                sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, closefd=False) for fd in (1, 2))
                with AtRound(n, act):
                    code = main.main([str(word) for word in argv])
            finally:
                os._exit(code)

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self):
        """Its exit status, negative after a signal that it did not catch."""
        wait_until(self.ended)
        return self.status

    def kill(self):
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    @property
    def out(self):
        return self.log.read_text()


@contextmanager
def process(*args, **more):
    it = Process(*args, **more)
    try:
        yield it
    finally:
        it.kill()


def killed(argv, folder, n):
    """The directory of a run in `folder` that is killed in its n-th round."""
    with process(argv, folder.parent / "killed.log", n, send(signal.SIGKILL)) as run:
        assert run.wait() == -signal.SIGKILL, run.out
    return run_in(folder)


def run_in(folder):
    """The one run directory in a results folder."""
    (path,) = {p.parent for p in folder.glob("*/*/*/config.yaml")}
    return path


# ---- how runs end


def records(path):
    """metrics.jsonl, but for the times."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    found = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
    return [record for record in found if not record["key"].startswith("time_")]


def weights(path, folder=None):
    """{file: contents} of the checkpoint `folder`, by default the last one."""
    checkpoints = path / "checkpoints"
    folder = folder or str(max(int(p.name) for p in checkpoints.iterdir() if p.name.isdecimal()))
    return {f"{folder}/{f.name}": torch.load(f, weights_only=True) for f in sorted((checkpoints / folder).glob("*.th"))}


def equal(a, b):
    """Whether two nests of tensors are equal bit by bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_end(path, other):
    """Two run directories hold the same metrics and the same last weights."""
    assert records(path) == records(other)
    assert "mixer.th" in str(weights(path).keys()) and equal(weights(path), weights(other))


def assert_same_checkpoints(path, other):
    """All checkpoints of two runs are the same, the best one among them."""
    assert files(path / "checkpoints") == files(other / "checkpoints")
    for folder in (path / "checkpoints").iterdir():
        assert equal(weights(path, folder.name), weights(other, folder.name)), folder
        assert (folder / "meta.json").read_text() == (other / "checkpoints" / folder.name / "meta.json").read_text()


def contents(path):
    """{file: bytes} of a run directory but for its claims."""
    return {f: (path / f).read_bytes() for f in files(path) if not f.startswith("claims/")}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """never_stopped(capsys, alg, env, *values): the directory of such a run, which never stopped."""
    runs = {}

    def find(capsys, alg, env, *values):
        key = (alg, env, *values)
        if key not in runs:
            run = here(capsys, words(alg, env, tmp_path_factory.mktemp("never"), *EXACT, *values))
            assert run.code == 0, run.err
            runs[key] = run.path
        return runs[key]

    return find


def resumed(capsys, path, *argv):
    """The Outcome of --resume, which finishes the run."""
    run = here(capsys, ["--resume", path, *argv])
    assert run.code == 0, run.err
    assert run.path == path and run.summary["status"] == "finished"
    return run


# ---- the same end


@pytest.mark.parametrize(
    "alg, env, n, values",
    [
        (*GAME, 1, ()),
        ("qtran_alt", "matrix_game", 8, ()),
        ("qtran_base", "predator_prey", 4, ()),
        ("qmix", "predator_prey", 5, ("env_workers=True",)),
        ("qatten", "gaussian_squeeze", 6, ("buffer_size=5",)),
    ],
)
def test_a_run_that_was_stopped_ends_as_one_that_never_was(alg, env, n, values, never_stopped, tmp_path, capsys):
    run = stopped(capsys, words(alg, env, tmp_path, *EXACT, *values), n)
    assert run.summary["status"] == "interrupted" and run.summary["reason"] == "SIGTERM"
    assert f"--resume {run.path}" in run.err
    t_env = run.summary["t_env"]
    end = resumed(capsys, run.path)
    never = never_stopped(capsys, alg, env, *values)
    assert_same_end(run.path, never)
    assert_same_checkpoints(run.path, never)
    assert [r["t_env"] for r in end.summary["resumed"]] == [t_env]
    assert end.summary["resumed"][0]["differs"] == []


def test_a_run_that_is_stopped_again_and_again_ends_the_same(never_stopped, tmp_path, capsys):
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), 3)
    times = 1
    while run.summary["t_env"] < 24:
        run = stopped(capsys, ["--resume", run.path], 3)
        times += 1
    end = resumed(capsys, run.path)
    assert times > 3 and len(end.summary["resumed"]) == times
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize("n", [2, 6, 12, 14])
def test_a_killed_run_ends_as_one_that_never_was(n, never_stopped, tmp_path, capsys):
    """n = 2: before its first state."""
    path = killed(words(*GAME, tmp_path / "results", *EXACT), tmp_path / "results", n)
    assert (path / "state").exists() == (n > 2)
    end = resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(path, never_stopped(capsys, *GAME))
    assert end.summary["resumed"][0]["t_env"] == {2: 0, 6: 8, 12: 16, 14: 24}[n]
    assert files(tmp_path / "results" / "sacred") == [
        f"qmix/two_step/1/{f}" for f in ("config.json", "cout.txt", "metrics.json", "run.json")
    ]


def test_nothing_stands_twice_in_any_place(never_stopped, tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with WireMongo() as mongo:
        values = ("use_tensorboard=True", f"mongo_url={mongo.url}", "mongo_db=runs")
        # The last state is of t_env 8; what came of the updates to 12 and of the test then lies beyond it.
        path = killed(words(*GAME, tmp_path / "results", *EXACT, *values), tmp_path / "results", 8)
        run = resumed(capsys, path)
        database = mongo.client["runs"]
        (entry,) = database.runs.find()
        stored = {m["name"]: list(zip(m["steps"], m["values"])) for m in database.metrics.find()}
        names = [m["name"] for m in database.metrics.find()]
    expected = {k: [tuple(p) for p in series] for k, series in run.series.items()}
    assert entry["status"] == "COMPLETED" and stored == expected and len(names) == len(set(names))
    assert_same_end(path, never_stopped(capsys, *GAME))
    beyond = [json.loads(line) for line in (path / "metrics.superseded.jsonl").read_text().splitlines()]
    assert {m["t_env"] for m in beyond} == {12}
    sacred = json.loads((tmp_path / "results/sacred/qmix/two_step/1/metrics.json").read_text())
    assert {k: list(zip(v["steps"], v["values"])) for k, v in sacred.items()} == expected
    board = EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert {k: [e.step for e in board.Scalars(k)] for k in board.Tags()["scalars"]} == {
        k: [t for t, _ in v] for k, v in expected.items()
    }


# ---- other values


def test_what_cannot_change_what_is_learned_may_be_given(never_stopped, tmp_path, capsys):
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), 5)
    values = {"resume_interval": 4, "log_interval": 4, "keep_replay": True, "label": "again", "lease_seconds": 9.0}
    resumed(capsys, run.path, "with", *(f"{k}={v}" for k, v in values.items()))
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert {k: config[k] for k in values} == values


@pytest.mark.parametrize("when", ["interrupted", "finished", "killed in the closing test"])
def test_a_longer_run_is_as_if_it_had_been_so_long_from_the_start(when, never_stopped, tmp_path, capsys):
    argv = words(*GAME, tmp_path / "results", *EXACT)
    if when == "interrupted":
        path = stopped(capsys, argv, 9).path
    elif when == "finished":
        path = here(capsys, [*argv, "keep_replay=True"]).path
    else:
        path = killed([*argv, "keep_replay=True"], tmp_path / "results", 14)
    run = resumed(capsys, path, "with", "t_max=36")
    assert run.summary["t_env"] == 36
    never = never_stopped(capsys, *GAME, "t_max=36")
    assert_same_end(path, never)
    assert equal(weights(path, "best"), weights(never, "best"))
    assert yaml.safe_load((path / "config.yaml").read_text())["t_max"] == 36


def test_a_run_that_was_interrupted_in_its_closing_test_can_be_made_longer(never_stopped, tmp_path, capsys):
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), 14)
    resumed(capsys, run.path, "with", "t_max=36")
    assert_same_end(run.path, never_stopped(capsys, *GAME, "t_max=36"))


def refused(capsys, argv, path, *said):
    """--resume ends with status 2 and one message, and leaves the run directory as it was."""
    before = contents(path) if path.is_dir() else None
    run = here(capsys, argv)
    assert run.code == 2, (run.out, run.err)
    assert run.err.count("\nerror:") + run.err.startswith("error:") == 1 and "Traceback" not in run.err
    assert all(word in run.err for word in said), run.err
    assert before is None or contents(path) == before
    return run


@pytest.fixture
def halfway(tmp_path, capsys):
    """The directory of a run that was stopped at t_env 12, with states of 8 and 12."""
    return stopped(capsys, words(*GAME, tmp_path / "results", *EXACT), 5).path


@pytest.mark.parametrize(
    "value, said",
    [
        ("lr=0.1", "lr is"),
        ("seed=2", "seed is 1"),
        ("batch_size_run=4", "batch_size_run"),
        ("env_workers=True", "env_workers"),
        ("t_max=20", "longer, not shorter"),
        ("evaluate=True", "to play the run's last checkpoint: --from"),
        ("no_such_key=1", "no_such_key"),
        ("use_cuda=3", "use_cuda"),
        ("local_results_path=elsewhere", "local_results_path"),
    ],
)
def test_what_would_make_another_run_of_it_is_refused(value, said, halfway, capsys):
    refused(capsys, ["--resume", halfway, "with", value], halfway, said)


def test_explain_of_a_run_to_resume_runs_nothing(halfway, capsys):
    before = contents(halfway)
    run = here(capsys, ["--resume", halfway, "--explain", "with", "num_threads=2"])
    row = next(line for line in run.out.splitlines() if " num_threads " in line)
    assert run.code == 0 and "2" in row and "command line" in row
    assert contents(halfway) == before


def test_several_problems_are_one_message(halfway, capsys):
    refused(capsys, ["--resume", halfway, "with", "lr=0.1", "gamma=0.5"], halfway, "lr", "gamma")
    refused(capsys, ["--resume", halfway, "--config=qmix"], halfway, "remove --config, --env-config and --from")


def test_a_learning_rate_that_depends_on_t_max_forbids_a_longer_run(tmp_path, capsys):
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT, "lr_decay_start=8"), 5)
    refused(capsys, ["--resume", run.path, "with", "t_max=36"], run.path, "lr_decay_start")
    edit(run.path, t_max=36)
    refused(capsys, ["--resume", run.path], run.path, "t_max")
    edit(run.path, t_max=24)
    resumed(capsys, run.path)


def test_a_finished_run(tmp_path, capsys):
    path = here(capsys, words(*GAME, tmp_path, *EXACT)).path
    assert not list(path.glob("state/replay.*"))
    before = contents(path)
    again = here(capsys, ["--resume", path])
    assert again.code == 0 and "finished" in again.out and contents(path) == before
    refused(capsys, ["--resume", path, "with", "t_max=36"], path, "keep_replay")


# ---- the newest


def test_latest_starts_goes_on_and_is_done(never_stopped, tmp_path, capsys):
    argv = ["--resume=latest", *words(*GAME, tmp_path, *EXACT)]
    first = stopped(capsys, argv, 5)
    other = stopped(capsys, ["--resume=latest", *words(*GAME, tmp_path, *EXACT, "seed=2")], 1)
    assert other.path != first.path
    second = here(capsys, [*argv, "log_interval=7"])
    assert second.code == 0 and second.path == first.path and "resumed from t_env 12" in second.err
    assert_same_end(first.path, never_stopped(capsys, *GAME))
    before = contents(first.path)
    third = here(capsys, argv)
    assert third.code == 0 and third.path == first.path and "finished" in third.out
    assert contents(first.path) == before and len(list(first.path.parent.iterdir())) == 2


@pytest.mark.parametrize("value", ["lr=0.1", "env_workers=True", "num_threads=2", "t_max=36"])
def test_latest_takes_no_run_of_another_configuration(value, halfway, tmp_path, capsys):
    run = stopped(capsys, ["--resume=latest", *words(*GAME, tmp_path / "results", *EXACT, value)], 1)
    assert run.path != halfway and run.summary["resumed"] == []
    torch.set_num_threads(1)


def test_latest_needs_a_seed(tmp_path, capsys):
    run = here(capsys, ["--resume=latest", *words(*GAME, tmp_path, "seed=null")])
    assert run.code == 2 and "seed" in run.err and files(tmp_path) == []


def test_latest_does_not_go_on_where_the_run_failed_by_itself(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")
    config = toy_config(tmp_path / "c.yaml", "vdn", fault="raise", at=15)
    failed = here(capsys, ["--from", config])
    assert failed.code == 1 and failed.summary["status"] == "failed"
    again = here(capsys, ["--resume=latest", "--from", config])
    assert again.code == 1 and again.path == failed.path and f"--resume {failed.path}" in again.err
    assert "the game's engine has stopped" in again.err and "Traceback" not in again.err


def test_a_failed_run_goes_on_from_its_last_state(never_stopped, tmp_path, capsys):
    def fail():
        raise RuntimeError("a fault of the machine")

    with AtRound(9, fail):
        run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 1 and run.summary["status"] == "failed"
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))


# ---- what is refused


def test_what_is_no_run_is_refused(tmp_path, capsys):
    refused(capsys, ["--resume", tmp_path / "none"], tmp_path / "none", "no such folder")
    refused(capsys, ["--resume", tmp_path], tmp_path, "config.yaml")
    (tmp_path / "config.yaml").write_text("listen: 80\nhosts: [a, b]\n")
    refused(capsys, ["--resume", tmp_path], tmp_path)
    (tmp_path / "config.yaml").write_text("- 1\n")
    refused(capsys, ["--resume", tmp_path], tmp_path)
    assert files(tmp_path) == ["config.yaml"]


def test_a_folder_with_a_configuration_alone_is_no_run_or_begins_again(halfway, tmp_path, capsys):
    """As a run leaves it that is killed in its first moment."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((halfway / "config.yaml").read_bytes())
    run = here(capsys, ["--resume", folder])
    assert run.code in (0, 2) and "Traceback" not in run.err


def test_one_flipped_bit_in_any_file_of_the_state(halfway, never_stopped, tmp_path, capsys):

    state = files(halfway / "state")
    kinds = {f.split(".")[0] for f in state}
    assert kinds == {"manifest", "parts", "replay"} and len([f for f in state if f.startswith("manifest")]) == 2
    outcomes = set()
    for i, file in enumerate(state):
        path = tmp_path / "copies" / f"seed1_{i}"
        shutil.copytree(halfway, path)
        data = bytearray((path / "state" / file).read_bytes())
        data[len(data) // 2] ^= 1 << (i % 8)
        (path / "state" / file).write_bytes(data)
        before = contents(path)
        run = here(capsys, ["--resume", path])
        outcomes.add((run.code, "WARNING" in run.err))
        if run.code == 2:
            assert contents(path) == before and "no state in it is whole" in run.err
        else:
            assert run.code == 0, run.err
            assert_same_end(path, never_stopped(capsys, *GAME))
    assert (0, True) in outcomes


@pytest.mark.parametrize("damage", ["truncated", "empty", "gone"])
@pytest.mark.parametrize("kind", ["manifest", "parts", "replay"])
def test_a_damaged_state_without_another_is_refused(kind, damage, tmp_path, capsys):
    path = stopped(capsys, words(*GAME, tmp_path, *EXACT), 1).path
    file = min(path.glob(f"state/{kind}.*"))
    data = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    if (kind, damage) == ("manifest", "gone"):
        assert here(capsys, ["--resume", path]).code in (0, 2)
    else:
        refused(capsys, ["--resume", path], path, "no state in it is whole", file.name)


@pytest.mark.parametrize(
    "file, code",
    [
        ("checkpoints/best/agent.th", 0), ("checkpoints/[0-9]*/meta.json", 0), ("log.txt", 2), ("metrics.jsonl", 2),
        ("summary.json", 0), ("claims/000001.json", 2),
    ],
)  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(file, code, halfway, capsys):
    path = min(halfway.glob(file))
    path.unlink()
    os.mkfifo(path)
    run = here(capsys, ["--resume", halfway])
    assert run.code == code and "Traceback" not in run.err, run.err
    assert code == 0 or path.name in run.err or "damaged" in run.err


def rewrite(path, change):
    """Change the newest manifest, and make its checksum right."""

    file = max(path.glob("state/manifest.*"))
    manifest = json.loads(file.read_text())["manifest"]
    change(manifest)
    text = json.dumps(manifest, sort_keys=True)
    file.write_text(json.dumps({"checksum": hashlib.sha256(text.encode()).hexdigest(), "manifest": manifest}))


def resaved(path, change):
    """Change the parts of the newest state, and make its checksums right."""
    file = max(path.glob("state/parts.*"))
    parts = torch.load(file, weights_only=True)
    change(parts)
    torch.save(parts, file)
    data = file.read_bytes()
    rewrite(path, lambda m: m["parts"].update(bytes=len(data), checksum=hashlib.sha256(data).hexdigest()))


def moments(parts):
    return parts["learner"]["optimiser"]["state"][0]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda p: moments(p).update(exp_avg=torch.zeros(2)), "exp_avg' is (2,)"),
        (lambda p: moments(p).update(exp_avg_sq=-torch.ones_like(moments(p)["exp_avg_sq"])), "has values below 0"),
        (lambda p: p["learner"]["optimiser"].update(param_groups=[]), "'param_groups' is not a list of one dict"),
        (lambda p: p["learner"].update(counters=[1.5, 0, 0]), "counters[0] is a float, not a int"),
        (lambda p: p["runner"].update(t_env="x"), "does not say how many steps were done"),
        (lambda p: p["runner"].update(episodes=2**70), "episodes is a number that is too large"),
        (lambda p: p["runner"]["stats"].update(lengths=[torch.zeros(2, 2), torch.zeros(1)]), "does not fit"),
        (lambda p: p.update(best={"metric": 1}), "best is"),
        (lambda p: p.update(best_files={"../x": torch.zeros(1, dtype=torch.uint8)}), "best_files has ../x"),
        (lambda p: p.pop("runner"), "does not say what it is of"),
    ],
)
def test_a_state_with_other_contents_and_right_checksums_is_refused(change, said, halfway, capsys):
    resaved(halfway, change)
    refused(capsys, ["--resume", halfway], halfway, "state", said)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(metrics=-1),
        lambda m: m.update(parts="x"),
        lambda m: m.update(facts=[]),
        lambda m: m.pop("replay"),
        lambda m: m["parts"].update(name="../config.yaml"),
        lambda m: m["replay"][0].update(fields=[1]),
    ],
)
def test_a_manifest_with_other_contents_and_a_right_checksum_is_refused(change, halfway, capsys):
    rewrite(halfway, change)
    min(halfway.glob("state/manifest.*")).unlink()
    refused(capsys, ["--resume", halfway], halfway, "is not as this program writes it")


def test_a_state_of_another_format_is_refused(halfway, capsys):
    rewrite(halfway, lambda m: m.update(format=FORMAT + 1))
    refused(capsys, ["--resume", halfway], halfway, f"format {FORMAT + 1}", COMMIT)


def edit(path, **values):
    """Change config.yaml by hand."""
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | values))


@pytest.mark.parametrize("values", [{"lr": 0.1}, {"seed": 2}, {"env_workers": True}, {"t_max": 12}, {"hidden_dim": 16}])
def test_a_configuration_that_was_edited_by_hand_is_refused(values, halfway, capsys):
    edit(halfway, **values)
    refused(capsys, ["--resume", halfway], halfway, *values)


def test_other_shapes_are_refused(halfway, capsys):
    rewrite(halfway, lambda m: m["facts"]["shapes"].update(obs_shape=9))
    refused(capsys, ["--resume", halfway], halfway, "obs_shape was 9", f"written by version {VERSION}, commit {COMMIT}")


def test_other_weights_are_refused(halfway, capsys, monkeypatch):
    """Of another version of the program, whose networks are others."""
    made = QMixer.__init__

    def make(mixer, *args, **more):
        made(mixer, *args, **more)
        mixer.one_more = torch.nn.Linear(1, 1)

    monkeypatch.setattr(QMixer, "__init__", make)
    by = f"written by version {VERSION}, commit {COMMIT}"
    refused(capsys, ["--resume", halfway], halfway, "does not fit", by)


def test_a_state_that_would_run_code_is_refused(halfway, tmp_path, capsys):

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    for n, file in enumerate(sorted(halfway.glob("state/parts.*"))):
        if n % 2:
            torch.save({"learner": Trap()}, file)
        else:
            file.write_bytes(pickle.dumps(Trap()))
        manifest = file.with_name(f"manifest.{file.name.split('.')[1]}.json")
        data = file.read_bytes()
        entry = {"name": file.name, "bytes": len(data), "checksum": hashlib.sha256(data).hexdigest()}
        whole = json.loads(manifest.read_text())["manifest"] | {"parts": entry}
        text = json.dumps(whole, sort_keys=True)
        manifest.write_text(json.dumps({"checksum": hashlib.sha256(text.encode()).hexdigest(), "manifest": whole}))
    refused(capsys, ["--resume", halfway], halfway, "cannot be read")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("start", [True, False])
def test_a_disk_without_room_for_the_state_is_said_before_training(start, halfway, tmp_path, capsys, monkeypatch):

    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=100))
    if start:
        new = tmp_path / "new"
        for value in ("resume_minutes=1", "resume_minutes=0"):  # a state is written at the end in any case
            refused(capsys, words(*GAME, new, value), new, "free", "local_results_path=FOLDER", "buffer_size")
            assert not new.exists()
    else:
        for file in halfway.glob("state/*"):
            file.unlink()
        run = refused(capsys, ["--resume", halfway], halfway, "free; make room on this disk")
        assert "buffer_size" not in run.err  # which a resumed run cannot change


def test_how_much_room_is_asked_for(tmp_path, monkeypatch):
    """Two whole replays where there are several states, no more than the run plays, less what is there already."""
    args = make_args("qmix")
    parts = SimpleNamespace(
        scheme=scheme(args), groups=groups(args), buffer=SimpleNamespace(max_seq_length=11),
        resuming=SimpleNamespace(resume_minutes=5.0, resume_interval=None), values={"local_results_path": "results"},
        training=SimpleNamespace(buffer_size=10, t_max=1000),
    )  # fmt: skip
    usage = shutil.disk_usage("/")
    monkeypatch.chdir(tmp_path)

    def needed(size, states=None):
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=size))
        _check_room(parts, states)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=size - 1))
        with pytest.raises(ConfigError, match="free; make room"):
            _check_room(parts, states)

    one = nbytes(parts.scheme, parts.groups, 10, 11)
    needed(2 * one)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "replay.0-10.npy").write_bytes(bytes(one // 2))
    needed(2 * one - one // 2, Path("state"))
    parts.resuming.resume_minutes = 0
    needed(one)
    parts.training.t_max = 20
    needed(nbytes(parts.scheme, parts.groups, 1, 40))


def test_a_disk_that_fails_while_a_state_is_read_says_nothing_of_its_version(halfway, capsys, monkeypatch):
    def fails(path, names):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("utils.resume_state._read_fields", fails)
    run = refused(capsys, ["--resume", halfway], halfway, "the state cannot be read", "Input/output error")
    assert "version" not in run.err


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(commit="1" * 40), "commit"),
        (dict(processor="Z80"), "processor"),
        (dict(device="cuda"), "device"),
        (dict(num_threads=3), "num_threads"),
        (dict(torch="0.1"), "torch"),
        (dict(qtran="0.1"), "qtran"),
    ],
)
def test_a_state_of_another_machine_is_a_warning_and_with_strict_refused(change, said, halfway, capsys):
    rewrite(halfway, lambda m: m["facts"]["machine"].update(change))
    refused(capsys, ["--resume", halfway, "--strict"], halfway, "--strict", said)
    run = resumed(capsys, halfway)
    assert run.err.count("not promised") == 1
    (entry,) = run.summary["resumed"]
    assert len(entry["differs"]) == 1 and said in entry["differs"][0]


def test_another_number_of_threads_is_a_warning(halfway, capsys):
    run = resumed(capsys, halfway, "with", "num_threads=2")
    torch.set_num_threads(1)
    assert "num_threads was 1, is 2" in run.err and run.summary["resumed"][0]["differs"]


def test_strict_alone_is_refused(capsys):
    assert here(capsys, ["--strict", "--config=vdn", "--env-config=two_step"]).code == 2


def test_a_refused_sink_leaves_the_run_as_it_was(halfway, capsys, monkeypatch):
    """A package that is missing, an invalid address: known only when the places of records are opened."""
    refused(capsys, ["--resume", halfway, "with", "mongo_url=http://x", "mongo_db=x"], halfway, "mongo_url")
    monkeypatch.setitem(sys.modules, "wandb", None)
    wandb = ("use_wandb=True", "wandb_team=a", "wandb_project=b")
    refused(capsys, ["--resume", halfway, "with", *wandb], halfway, "wandb")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    refused(capsys, ["--resume", halfway, "with", "use_tensorboard=True"], halfway, "tensorboard")
    shutil.rmtree(halfway / "checkpoints" / "best")  # which a run that goes on puts back
    refused(capsys, ["--resume", halfway, "with", *wandb], halfway, "wandb")
    monkeypatch.undo()
    resumed(capsys, halfway)
    assert (halfway / "checkpoints" / "best" / "meta.json").exists()


def test_the_speed_of_a_run_from_a_checkpoint_that_was_killed_before_its_first_state(never_stopped, tmp_path, capsys):
    first = never_stopped(capsys, *GAME)
    argv = words(*GAME, tmp_path / "results", *EXACT, f"checkpoint_path={first}", "t_max=40")
    path = killed(argv, tmp_path / "results", 1)
    (path / "config.yaml.0123abcd.partial").touch()
    summary = resumed(capsys, path).summary
    assert (summary["t_env"], summary["resumed"][0]["t_env"]) == (40, 24)
    assert summary["env_steps_per_s"] * summary["wall_time_s"] == pytest.approx(40 - 24, rel=0.1)
    assert not list(path.glob("*.partial"))


# ---- one holder


def frozen():
    """Stop this process, as Ctrl-Z or a virtual machine does."""
    os.kill(os.getpid(), signal.SIGSTOP)


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"


def test_a_living_run_is_refused_and_latest_passes_it_by(tmp_path, capsys):
    results = tmp_path / "results"
    argv = words(*GAME, results, *EXACT, "lease_seconds=60")
    with process(argv, tmp_path / "log", 5, frozen) as run:
        wait_until(lambda: is_stopped(run.pid))
        path = run_in(results)
        refused(capsys, ["--resume", path], path, str(run.pid), os.uname().nodename)
        before = contents(path)
        other = here(capsys, ["--resume=latest", *argv])
        assert other.code == 0 and other.path != path and str(run.pid) in other.out
        status = here(capsys, ["--status", path]).out
        assert "running" in status and f"{run.pid} on {os.uname().nodename}" in status
        assert contents(path) == before
        os.kill(run.pid, signal.SIGCONT)
        assert run.wait() == 0
    assert_same_end(path, other.path)


def test_of_two_that_resume_one_works(halfway, never_stopped, tmp_path, capsys):
    argv, may_go_on = ["--resume", halfway], tmp_path / "may_go_on"

    def wait():
        wait_until(may_go_on.exists)

    with process(argv, tmp_path / "a", 4, wait) as a, process(argv, tmp_path / "b", 4, wait) as b:
        wait_until(lambda: a.ended() or b.ended())
        may_go_on.touch()
        ends, said = [a.wait(), b.wait()], a.out + b.out
    assert sorted(ends) == [0, 2] and said.count("resumed from t_env") == said.count("holds this run") == 1, said
    assert_same_end(halfway, never_stopped(capsys, *GAME))


def test_a_frozen_run_is_taken_over_and_writes_nothing_more(never_stopped, tmp_path, capsys):
    results = tmp_path / "results"
    with process(words(*GAME, results, *EXACT, "lease_seconds=1"), tmp_path / "log", 9, frozen) as first:
        wait_until(lambda: is_stopped(first.pid))
        path = run_in(results)
        refused(capsys, ["--resume", path], path, str(first.pid))
        time.sleep(1.2)
        assert "silent" in here(capsys, ["--status", path]).out
        resumed(capsys, path)
        before, sacred = contents(path), contents(results / "sacred")
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait() == 1 and "has taken over this run" in first.out
    assert contents(path) == before and contents(results / "sacred") == sacred
    assert_same_end(path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(path, never_stopped(capsys, *GAME))


def test_a_run_goes_on_from_any_working_directory(never_stopped, tmp_path, capsys, monkeypatch):
    """Its local_results_path is relative: Sacred's entry must be found all the same."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "here" / stopped(capsys, words(*GAME, "results", *EXACT), 5).path
    monkeypatch.chdir(tmp_path / "there")
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))
    assert files(tmp_path / "there") == []
    entry = json.loads((tmp_path / "here/results/sacred/qmix/two_step/1/run.json").read_text())
    assert entry["status"] == "COMPLETED"


def test_latest_passes_by_what_others_work_on(tmp_path, capsys):
    argv = words(*GAME, tmp_path, *EXACT)
    old, new = (stopped(capsys, argv, 5).path for _ in range(2))
    claim = take(max(old, new))
    try:
        run = here(capsys, ["--resume=latest", *argv])
    finally:
        claim.release()
    assert run.code == 0 and run.path == min(old, new) and f"{max(old, new)}: process {os.getpid()}" in run.out


# ---- status


def test_status_lists_runs_of_all_kinds(halfway, tmp_path, capsys, monkeypatch):
    results = halfway.parents[2]
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")
    here(capsys, ["--from", toy_config(tmp_path / "c.yaml", "vdn", fault="raise", at=5)])
    finished = here(capsys, words(*GAME, results, "seed=2")).path
    gone = killed(words("vdn", "two_step", tmp_path / "more", *EXACT), tmp_path / "more", 9)
    broken = finished.with_name("seed3_broken")
    broken.mkdir()
    (broken / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    (broken / "log.txt").touch()
    out = here(capsys, ["--status", tmp_path]).out
    for path, state, steps in (
        (halfway, "interrupted", "12 of 24"),
        (finished, "finished", "24 of 24"),
        (gone, "killed", "of 24"),
        (broken, "broken", "0 of 24"),
    ):
        (row,) = (line for line in out.splitlines() if f"{path} " in line)
        assert state in row and steps in row, row
    assert "5 runs" in out and "1 failed" in out and "1 interrupted" in out and "1 killed" in out and "MiB" in out
    assert "the game's engine has stopped" in out and "summary.json is missing" in out


def test_status_of_what_holds_no_run(tmp_path, capsys):
    assert here(capsys, ["--status", tmp_path / "none"]).code == 2
    run = here(capsys, ["--status", tmp_path])
    assert run.code == 0 and "no runs" in run.out


def test_a_living_process_that_writes_nothing_is_silent(halfway, capsys, monkeypatch):
    claim = take(halfway)
    try:
        assert " running " in here(capsys, ["--status", halfway]).out
        monkeypatch.setattr("status.SILENT_SECONDS", -1)
        assert " silent " in here(capsys, ["--status", halfway]).out
    finally:
        claim.release()


# ---- when states are written, and what stays on the disk


@pytest.mark.parametrize(
    "values, t_env",
    [
        (("resume_minutes=0",), 0),
        (("resume_minutes=10",), 0),
        (("resume_minutes=0.0000001",), 16),
        (("resume_interval=12",), 12),
    ],
)
def test_when_states_are_written(values, t_env, tmp_path, capsys):
    """The run is killed in the round that begins at t_env 16."""
    argv = words(*GAME, tmp_path / "results", *(v for v in EXACT if "resume" not in v), *values)
    run = resumed(capsys, killed(argv, tmp_path / "results", 9))
    assert run.summary["resumed"][0]["t_env"] == t_env


def test_the_last_two_states_stay_until_the_run_is_finished(tmp_path, capsys):
    values = (*EXACT, "buffer_size=6", "t_max=28")
    path = killed(words(*GAME, tmp_path / "results", *values), tmp_path / "results", 13)
    small = [p.name for p in path.glob("state/*") if not p.name.startswith("replay")]
    assert sorted(small) == ["manifest.2.json", "manifest.3.json", "parts.2.pt", "parts.3.pt"]
    assert episodes(path) == list(range(2, 12))  # 12 were played, and the replay holds 6: those of both states
    run = resumed(capsys, path, "with", "keep_replay=True")
    assert run.summary["episodes"] == 14 and episodes(path) == list(range(6, 14))  # of the states of 24 and 28


def episodes(path):
    """The numbers of the episodes in a run's state."""
    spans = (map(int, p.name.split(".")[1].split("-")) for p in path.glob("state/replay.*"))
    return sorted(e for first, last in spans for e in range(first, last))


@pytest.mark.parametrize("fails", ["open", "os.fsync", "os.replace", "torch.save"])
def test_a_full_disk_stops_the_run_and_the_last_state_stays(fails, never_stopped, tmp_path, capsys, monkeypatch):
    """While the state of t_env 16 is written."""
    folder, written = tmp_path / "results", []
    write = StateFolder.write

    def full(state, *args, **more):
        written.append(1)
        if len(written) != 2:
            return write(state, *args, **more)
        with monkeypatch.context() as patch:
            patch.setattr(f"utils.resume_state.{fails}", full_disk, raising=False)
            return write(state, *args, **more)

    monkeypatch.setattr(StateFolder, "write", full)
    run = here(capsys, words(*GAME, folder, *EXACT))
    path, said = run.path, run.err
    assert run.code == 1 and said.count("the state at t_env 16 not written") == 1 and "No space left" in run.last_line
    monkeypatch.undo()
    assert not list(path.glob("state/*.partial"))
    assert resumed(capsys, path).summary["resumed"][0]["t_env"] == 8
    assert_same_end(path, never_stopped(capsys, *GAME))


# ---- checkpoints


def test_the_checkpoint_that_tested_best_stays(tmp_path, capsys, monkeypatch):
    judge(monkeypatch, {8: 5, 16: 9, 24: 9, 40: 3})
    argv = words(*GAME, tmp_path, *EXACT, "test_interval=4", "save_model_interval=4", "t_max=40")
    few, all_ = (here(capsys, [*argv, f"keep_checkpoints={keep}"]).path for keep in (2, "None"))
    meta = json.loads((few / "checkpoints/best/meta.json").read_text())
    assert (meta["t_env"], meta["value"], meta["metric"]) == (16, 9, "test_return_mean")
    assert equal([*weights(few, "best").values()], [*weights(all_, "16").values()])
    assert sorted(p.name for p in (few / "checkpoints").iterdir()) == ["36", "40", "best"]
    best = here(capsys, words(*GAME, tmp_path, "evaluate=True", f"checkpoint_path={few}", "load_step=best"))
    assert best.code == 0 and best.series["test_return_mean"] == [(16, 9)]


def test_best_goes_by_the_win_rate_where_there_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")
    run = here(capsys, ["--from", toy_config(tmp_path / "c.yaml", "vdn")])
    meta = json.loads((run.path / "checkpoints/best/meta.json").read_text())
    assert (meta["metric"], meta["value"]) == ("test_battle_won_mean", 1.0)
    assert meta["t_env"] == run.series["test_return_mean"][0][0]  # the later ones are no better


def test_best_is_known_to_a_run_that_goes_on(tmp_path, capsys, monkeypatch):
    """The first test is the best: none of the later ones, in the resumed run, may replace it."""
    judge(monkeypatch, {4: 9})
    path = stopped(capsys, words(*GAME, tmp_path, *EXACT), 8).path
    resumed(capsys, path)
    assert json.loads((path / "checkpoints/best/meta.json").read_text())["t_env"] == 4


def test_best_of_a_longer_run_is_none_that_its_closing_test_made_before(tmp_path, capsys, monkeypatch):
    judge(monkeypatch, {20: 3, 24: 9})
    paths = [here(capsys, words(*GAME, tmp_path, *EXACT, "keep_replay=True", f"t_max={t}")).path for t in (24, 36)]
    assert json.loads((paths[0] / "checkpoints/best/meta.json").read_text())["t_env"] == 24
    resumed(capsys, paths[0], "with", "t_max=36")
    assert_same_end(*paths)
    metas = [json.loads((path / "checkpoints/best/meta.json").read_text()) for path in paths]
    assert metas[0] == metas[1]


def test_a_best_checkpoint_that_could_not_be_written_is_not_the_best_one(tmp_path, capsys, monkeypatch):
    judge(monkeypatch, {4: 9, 16: 12, 24: 10})
    save = RunDirectory.save_checkpoint

    def refuses_one(directory, learner, t_env, name=None, **more):
        if (name, t_env) == ("best", 16):
            raise OSError(errno.EIO, "Input/output error")
        save(directory, learner, t_env, name, **more)

    monkeypatch.setattr(RunDirectory, "save_checkpoint", refuses_one)
    run = here(capsys, words(*GAME, tmp_path, *EXACT, "test_interval=4"))
    assert run.code == 0 and "checkpoints/best not written" in run.err
    assert json.loads((run.path / "checkpoints/best/meta.json").read_text())["t_env"] == 24


def judge(monkeypatch, returns):
    """Have tests at the t_env that `returns` names give that return, and all others 0."""
    log = Logger.log_stat

    def log_stat(logger, key, value, t):
        log(logger, key, returns.get(t, 0.0) if key == "test_return_mean" else value, t)

    monkeypatch.setattr(Logger, "log_stat", log_stat)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_signal_while_a_checkpoint_is_written_loses_none(number, never_stopped, tmp_path, capsys, monkeypatch):
    """What was written in its turn is not taken for a checkpoint of the interruption."""
    save, numbers = RunDirectory.save_checkpoint, itertools.count(1)

    def save_checkpoint(directory, learner, t_env, name=None, **more):
        if name is None and next(numbers) == number:
            send(signal.SIGTERM)()
        save(directory, learner, t_env, name, **more)

    monkeypatch.setattr(RunDirectory, "save_checkpoint", save_checkpoint)
    run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 143
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize("keep", [1, 2])
def test_few_checkpoints_stay_of_a_run_that_was_stopped(keep, never_stopped, tmp_path, capsys):
    values = (f"keep_checkpoints={keep}",)
    path = stopped(capsys, words(*GAME, tmp_path, *EXACT, *values), 8).path
    resumed(capsys, path)
    assert_same_checkpoints(path, never_stopped(capsys, *GAME, *values))


def test_a_run_that_is_killed_early_after_it_was_resumed_remembers_all_that_differed(halfway, tmp_path, capsys):
    rewrite(halfway, lambda m: m["facts"]["machine"].update(commit="1" * 40))
    with process(["--resume", halfway], tmp_path / "log", 1, send(signal.SIGKILL)) as run:
        run.wait()
    entries = resumed(capsys, halfway).summary["resumed"]
    assert [e["t_env"] for e in entries] == [12, 12] and all("commit" in str(e["differs"]) for e in entries)
