"""Signals to a run, at any moment: how it ends, and that what goes on from there ends as if nothing had happened."""

import importlib
import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import PROGRAM, files, here, words
from test_resume import (
    EXACT,
    GAME,
    AtRound,
    assert_same_checkpoints,
    assert_same_end,
    process,
    records,
    resumed,
    run_in,
    send,
    stopped,
    wait_until,
)
from test_resume import never_stopped as never_stopped  # fixtures
from test_resume import quiet as quiet

from envs.games.two_step import TwoStep
from utils.runs import find_runs

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140}


def number(name):
    return getattr(signal, name)


# ---- once


@pytest.mark.parametrize("name, code", CODES.items())
def test_each_signal_ends_the_round_and_its_updates(name, code, never_stopped, tmp_path, capsys):
    """It comes in the round from t_env 8 to 12, behind which a test is due."""
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), 5, number(name))
    reason = "Ctrl-C" if name == "SIGINT" else name
    assert run.code == code and run.last_line.endswith(f"interrupted: {reason}") and "Traceback" not in run.err
    summary = run.summary
    assert (summary["status"], summary["reason"], summary["t_env"]) == ("interrupted", reason, 12)
    never = never_stopped(capsys, *GAME)
    expected = [r for r in records(never) if r["t_env"] <= 12]
    there = records(run.path)
    assert there == [r for r in expected if not (r["t_env"] == 12 and r["key"].startswith("test_"))]
    assert any(r["key"] == "loss" and r["t_env"] == 12 for r in there)
    sacred = json.loads((tmp_path / "sacred/qmix/two_step/1/run.json").read_text())
    assert sacred["status"] == "INTERRUPTED"
    resumed(capsys, run.path)
    assert_same_end(run.path, never)
    assert_same_checkpoints(run.path, never)
    assert json.loads((tmp_path / "sacred/qmix/two_step/1/run.json").read_text())["status"] == "COMPLETED"


def test_a_test_is_broken_off_at_once(tmp_path, capsys, monkeypatch):
    """The first round plays two steps, the test behind it four; in its second one the signal comes."""
    steps, step = [], TwoStep.step

    def counted(game, actions):
        steps.append(actions)
        if len(steps) == 4:
            send(signal.SIGTERM)()
        return step(game, actions)

    monkeypatch.setattr(TwoStep, "step", counted)
    run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 143 and len(steps) == 4 and run.summary["t_env"] == 4


@pytest.mark.parametrize("n", [2, 3, 6, 7, 10, 13, 14])
def test_a_signal_in_a_test(n, never_stopped, tmp_path, capsys):
    """That test is repeated when the run is resumed, and stands in the metrics once."""
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT), n)
    t_env = run.summary["t_env"]
    assert not any(r["key"].startswith("test_") and r["t_env"] == t_env for r in records(run.path))
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_what_is_ignored_stays_ignored(name, never_stopped, tmp_path, capsys):
    """SIGHUP under nohup; Ctrl-C of a job in the background."""
    signal.signal(number(name), signal.SIG_IGN)
    with AtRound(5, send(number(name))):
        run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 0 and run.summary["status"] == "finished"
    assert_same_end(run.path, never_stopped(capsys, *GAME))


def test_an_evaluation_is_interrupted_without_a_word_of_resuming(never_stopped, tmp_path, capsys):
    path = never_stopped(capsys, *GAME)
    run = stopped(capsys, words(*GAME, tmp_path, *EXACT, "evaluate=True", f"checkpoint_path={path}"), 1)
    assert run.summary["status"] == "interrupted" and "--resume" not in run.err
    again = here(capsys, ["--resume", run.path])
    assert again.code == 2 and "evaluates" in again.err


# ---- twice


@pytest.mark.parametrize(
    "first, second, n, t_env",
    [("SIGTERM", "SIGTERM", 1, 0), ("SIGINT", "SIGINT", 5, 8), ("SIGUSR1", "SIGUSR2", 9, 16)],
)
def test_a_second_signal_leaves_at_once(first, second, n, t_env, never_stopped, tmp_path, capsys):
    """In a round of training: it is not finished. t_env: of the last state before it."""

    def twice():
        os.kill(os.getpid(), number(first))
        os.kill(os.getpid(), number(second))

    with process(words(*GAME, tmp_path / "results", *EXACT), tmp_path / "log", n, twice) as run:
        assert run.wait() == CODES[first], run.out
    path = run_in(tmp_path / "results")
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["t_env"]) == ("interrupted", 4 * {1: 0, 5: 2, 9: 4}[n])
    end = resumed(capsys, path)
    assert [r["t_env"] for r in end.summary["resumed"]] == [t_env]
    assert_same_end(path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(path, never_stopped(capsys, *GAME))


PLACES = {
    "utils.resume_state.StateFolder._replace": 2,
    "utils.resume_state.torch.save": 1,
    "utils.rundir.RunDirectory.save_checkpoint": 2,
    "utils.rundir.write_atomically": 4,
    "recording.sinks.JsonlSink._append": 3,
    "recording.sinks.JsonlSink.position": 1,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_second_signal_while_something_is_written(place, never_stopped, tmp_path, capsys, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    argv = words(*GAME, tmp_path / "results", *EXACT)
    with monkeypatch.context() as patch:
        at_call(patch, place, PLACES[place], twice)
        with process(argv, tmp_path / "log") as run:
            assert run.wait() == 143, run.out
    path = run_in(tmp_path / "results")
    assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))


def at_call(patch, place, n, act):
    """Have act() called before the n-th call of the function `place`: module.function or module.Class.method."""
    names = place.split(".")
    for i in range(len(names) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(names[:i]))
            break
        except ImportError:
            continue
    for name in names[i:-1]:
        owner = getattr(owner, name)
    original, numbers = owner.__dict__[names[-1]], itertools.count(1)
    function = original.__func__ if isinstance(original, classmethod) else original

    def called(*args, **more):
        if next(numbers) == n:
            act()
        return function(*args, **more)

    patch.setattr(owner, names[-1], classmethod(called) if isinstance(original, classmethod) else called)


# ---- before training, and behind it


STARTS = (
    "run._console", "run.Parts", "parts.Parts._replay", "run._check_room", "utils.rundir._make",
    "utils.rundir.write_atomically", "utils.rundir.take", "utils.rundir.commit", "open_run.Schedule", "resuming.facts",
    "open_run.JsonlSink", "open_run._sacred", "utils.rundir.RunDirectory.write_summary", "utils.interrupts.on_leave",
    "open_run._run", "open_run.SacredSink", "open_run.TrainingProgress", "open_run.train",
)  # fmt: skip


@pytest.mark.parametrize("place", STARTS)
def test_a_signal_before_training(place, never_stopped, tmp_path, capsys, monkeypatch):
    """It leaves nothing behind that a later --resume=latest could trip over."""
    argv = ["--resume=latest", *words(*GAME, tmp_path / "results", *EXACT)]
    with monkeypatch.context() as patch:
        at_call(patch, place, 1, send(signal.SIGTERM))
        with process(argv, tmp_path / "log") as run:
            assert run.wait() == 143 and "Traceback" not in run.out, run.out
    assert here(capsys, ["--status", tmp_path]).code == 0
    end = here(capsys, argv)
    assert end.code == 0, end.err
    assert_same_end(end.path, never_stopped(capsys, *GAME))
    assert [found.path for found in find_runs(tmp_path)] == [end.path] and not list(tmp_path.rglob("*.partial"))


RESUMES = (
    "run.resuming.read_run", "run.take", "run.StateFolder", "run.Parts", "run.resuming.check", "run.OpenRun",
    "keeper.Keeper.load", "open_run.cut_metrics", "open_run.JsonlSink", "utils.logging.Logger.restore",
    "open_run._remove_checkpoints_of_interruptions", "utils.rundir.RunDirectory.write_config", "open_run._sacred",
    "utils.resume_state.StateFolder.read", "utils.rundir.RunDirectory.write_summary", "run.guarded", "open_run._run",
    "open_run.train",
)  # fmt: skip


def test_a_signal_while_a_run_is_resumed_anywhere(never_stopped, tmp_path, capsys, monkeypatch):
    """One run, that is interrupted again and again before it trains."""
    path = stopped(capsys, words(*GAME, tmp_path, *EXACT), 8).path
    for place in RESUMES:
        with monkeypatch.context() as patch:
            at_call(patch, place, 1, send(signal.SIGTERM))
            run = here(capsys, ["--resume", path])
        assert run.code == 143 and "Traceback" not in run.err, (place, run.err)
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize(
    "place", ["utils.rundir.RunDirectory.write_summary", "utils.claim.Claim.release", "open_run.close"]
)
def test_a_signal_behind_the_end_changes_nothing(place, never_stopped, tmp_path, capsys, monkeypatch):
    """The summary that says `finished` is the second."""
    with monkeypatch.context() as patch:
        at_call(patch, place, 2 if "summary" in place else 1, send(signal.SIGTERM))
        run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 0 and run.summary["status"] == "finished"
    assert_same_end(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize(
    "place", ["training._test", "runners.episode_runner.EpisodeRunner.log_stats", "open_run._refuse_losses"]
)
def test_a_signal_between_the_last_state_and_the_end(place, never_stopped, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        at_call(patch, "keeper.Keeper.last_state", 1, lambda: at_call(patch, place, 1, send(signal.SIGTERM)))
        run = here(capsys, words(*GAME, tmp_path, *EXACT))
    assert run.code == 143 and run.summary["status"] == "interrupted"
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


# ---- with worker processes


def session(pid):
    """The processes of the session that `pid` leads, itself last."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found, key=lambda p: p == pid)


def to_all(signum):
    """Send a signal to every process that the test has started, as a scheduler does to those of a job."""
    for pid in session(os.getpid()):
        os.kill(pid, signum)


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_workers_ignore_what_is_meant_for_the_trainer(name, never_stopped, tmp_path, capsys):
    values = ("env_workers=True", "env_args.episode_limit=6")
    argv = words("qmix", "predator_prey", tmp_path / "results", *EXACT, *values)
    with process(argv, tmp_path / "log", 5, lambda: to_all(number(name))) as run:
        assert run.wait() == CODES[name] and "Traceback" not in run.out, run.out
        wait_until(lambda: not session(run.pid))
    path = run_in(tmp_path / "results")
    assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, "qmix", "predator_prey", *values))


@pytest.mark.parametrize("second", [False, True])
def test_a_signal_to_all_while_the_workers_start(second, tmp_path, capsys, monkeypatch):
    argv = words("qmix", "predator_prey", tmp_path / "results", *EXACT, "env_workers=True")

    def act():
        to_all(signal.SIGTERM)
        if second:
            to_all(signal.SIGTERM)

    with monkeypatch.context() as patch:
        at_call(patch, "envs.workers.worker.Worker.receive", 1, act)
        with process(["--resume=latest", *argv], tmp_path / "log") as run:
            assert run.wait() == 143 and "Traceback" not in run.out, run.out
            wait_until(lambda: not session(run.pid))
    assert files(tmp_path / "results") == []
    assert here(capsys, ["--resume=latest", *argv]).code == 0


# ---- a command in a shell


def test_a_command_under_nohup_that_its_job_ends(tmp_path):
    """A hang-up changes nothing; SIGTERM ends it in order. Another one, soon after its start, leaves no half run."""
    argv = [*PROGRAM, "--resume=latest", *words(*GAME, tmp_path / "results", *EXACT, "t_max=4000000")]

    def start():
        return subprocess.Popen(
            ["nohup", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    with start() as run:
        wait_until(lambda: list(tmp_path.glob("results/qmix/*/*/state/manifest.1.json")))
        os.killpg(run.pid, signal.SIGHUP)
        time.sleep(0.2)
        assert run.poll() is None
        os.killpg(run.pid, signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 143 and "interrupted: SIGTERM" in err, err
    path = run_in(tmp_path / "results")
    before = {f: (path / f).read_bytes() for f in files(path) if "state" in f}
    with start() as run:
        time.sleep(0.3)  # Python itself still starts, and ends by the signal
        os.killpg(run.pid, signal.SIGTERM)
        run.communicate(timeout=60)
    assert run.returncode in (143, -signal.SIGTERM)
    assert run_in(tmp_path / "results") == path and {f: (path / f).read_bytes() for f in before} == before
