"""Runs in a thread, as notebooks, Prefect and Optuna start them: how they end, and what the process may do then."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import ROOT, files, here, outcome, words
from test_resume import EXACT, GAME, AtRound, assert_same_end, resumed, run_in, wait_until
from test_resume import never_stopped as never_stopped  # fixtures
from test_resume import quiet as quiet

import sync


def in_a_thread(capsys, argv):
    """The Outcome of main(argv) in a thread; what main raises is raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(here, capsys, argv).result()


def stop(error):
    """What raises it, as a callback of somebody else may."""

    def act():
        raise error

    return act


@pytest.mark.parametrize("values", [(), ("env_workers=True",)], ids=["arrays", "workers"])
def test_a_run_in_a_thread_ends_as_any_other(values, never_stopped, tmp_path, capsys):
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    run = in_a_thread(capsys, words(*GAME, tmp_path, *EXACT, *values))
    assert run.code == 0 and run.summary["status"] == "finished", run.err
    assert_same_end(run.path, never_stopped(capsys, *GAME, *values))
    assert handlers == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    "error, status, code",
    [
        (RuntimeError("no more"), "failed", 1),
        (SystemExit(3), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_run_in_a_thread_that_is_stopped_from_within(error, status, code, never_stopped, tmp_path, capsys):
    with AtRound(5, stop(error)):
        run = in_a_thread(capsys, words(*GAME, tmp_path, *EXACT))
    assert (run.code, run.summary["status"]) == (code, status)
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))


def test_what_is_no_exception_is_raised_and_the_run_has_failed(never_stopped, tmp_path, capsys):
    """asyncio's CancelledError is such a one."""
    with AtRound(5, stop(GeneratorExit("cancelled"))), pytest.raises(GeneratorExit):
        in_a_thread(capsys, words(*GAME, tmp_path, *EXACT))
    path = run_in(tmp_path)
    assert json.loads((path / "summary.json").read_text())["status"] == "failed"
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))


def test_ctrl_c_in_the_main_thread_does_not_reach_the_run(never_stopped, tmp_path, capsys):
    """Python raises it in the main thread alone, whose own affair it is."""
    told = threading.Event()

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        assert told.wait(60)

    with AtRound(5, interrupt), ThreadPoolExecutor(1) as pool:
        future = pool.submit(here, capsys, words(*GAME, tmp_path, *EXACT))
        try:
            future.result()
        except KeyboardInterrupt:
            told.set()
        run = future.result()
    assert told.is_set() and run.code == 0 and run.summary["status"] == "finished"
    assert_same_end(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize("first", ["thread", "main thread"])
def test_one_run_at_a_time_in_a_process(first, never_stopped, tmp_path, capsys):
    """The second one is refused, be it in a thread or not; the first one does not notice."""
    answers = []

    def others():
        before = files(tmp_path)
        answers.append(in_a_thread(capsys, words(*GAME, tmp_path, *EXACT)))
        answers.append(in_a_thread(capsys, ["--resume", run_in(tmp_path)]))
        with ThreadPoolExecutor(1) as pool:
            argv = [run_in(tmp_path), "with", "mongo_url=mongodb://h", "mongo_db=runs"]
            answers.append(pool.submit(outcome, sync.main, capsys, argv).result())
        assert files(tmp_path) == before

    with AtRound(5, others):
        argv = words(*GAME, tmp_path, *EXACT)
        run = in_a_thread(capsys, argv) if first == "thread" else here(capsys, argv)
    for answer in answers:
        assert answer.code == 2 and answer.err.count("\n") == 1, answer.err
        assert "another run is under way in this process" in answer.err and "a process of its own" in answer.err
    assert len(answers) == 3 and run.code == 0 and run.summary["status"] == "finished"
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert "Recent Stats | t_env:         24" in (run.path / "log.txt").read_text()
    assert here(capsys, words(*GAME, tmp_path, *EXACT)).code == 0  # afterwards another one may


ENDS = """
import os, signal, sys, threading, time
import main
from test_resume import AtRound
from utils import rundir

rundir.commit = lambda: "0" * 40  # as the runs that it is compared with

class Here(threading.Event):
    def act(self):
        self.set()
        time.sleep(3600)

here, how = Here(), sys.argv[1]
AtRound(5, here.act).__enter__()
thread = threading.Thread(target=main.main, args=(sys.argv[2:],), daemon=how == "daemon")
thread.start()
here.wait()
print("reached", flush=True)
if how == "error":
    1 / 0
"""


@pytest.mark.parametrize("how", ["daemon", "error"])
def test_a_process_that_ends_while_the_run_goes_on(how, never_stopped, tmp_path, capsys):
    """A daemon thread ends with its process. Another one is waited for, until Ctrl-C ends the waiting."""
    argv = words(*GAME, tmp_path / "results", *EXACT)
    command = [sys.executable, "-c", ENDS, how, *map(str, argv)]
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", "tests"))
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "PYTHONPATH": paths},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), text=True,
        )  # fmt: skip
    with process:
        assert process.stdout is not None and "reached\n" in iter(process.stdout.readline, "")
        if how != "daemon":
            time.sleep(0.5)
            assert process.poll() is None
        wait_until(lambda: process.poll() is not None or how != "daemon" and process.send_signal(signal.SIGINT))
        assert "Fatal" not in (tmp_path / "log").read_text()
    path = run_in(tmp_path / "results")
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["t_env"]) == ("interrupted", 8) and "in a thread" in summary["reason"]
    resumed(capsys, path)
    assert_same_end(path, never_stopped(capsys, *GAME))
