"""Signals as exceptions: at once, behind a `held` block, and once more where they were lost; the second one leaves."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from command import ROOT

from utils import interrupts
from utils.args import ConfigError


@pytest.fixture(autouse=True)
def caught():
    before = {signum: signal.getsignal(signum) for signum in interrupts.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background may ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupts.catch()
    yield
    interrupts.release()
    assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    for signum, handler in before.items():
        signal.signal(signum, handler)


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", interrupts.SIGNALS)
def test_a_signal_is_raised_at_once_and_behind_a_held_block(signum):
    with pytest.raises(interrupts.Interrupted) as error:
        send(signum)
    assert error.value.status == 128 + signum and isinstance(error.value, KeyboardInterrupt)
    interrupts.release()
    interrupts.catch()
    done = []
    with pytest.raises(interrupts.Interrupted), interrupts.held():
        with interrupts.held():
            send(signum)
            interrupts.check()
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"] and interrupts.requested()


def test_a_held_signal_says_that_it_waits(capfd):
    with pytest.raises(interrupts.Interrupted), interrupts.held():
        send(signal.SIGTERM)
        assert "interrupt again to leave at once" in capfd.readouterr().err


def test_what_was_raised_and_lost_is_raised_again_by_check():
    interrupts.check()
    with suppress(KeyboardInterrupt):  # as Python does with what is raised in a callback of the garbage collector
        send(signal.SIGTERM)
    with interrupts.held():
        pass  # raised once already: cleaning up is not disturbed
    with pytest.raises(interrupts.Interrupted):
        interrupts.check()


def test_at_the_end_a_first_signal_changes_nothing():
    with interrupts.held(to_the_end=True):
        send(signal.SIGTERM)


LEAVE = """
import os, signal, sys, time
from utils import interrupts
interrupts.catch()
interrupts.on_leave(lambda why: print("the last word:", why, flush=True))
with interrupts.held():
    os.kill(os.getpid(), signal.{first})
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.{second})
    print("never", flush=True)
"""


@pytest.mark.parametrize("first, second", [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGTERM"), ("SIGHUP", "SIGUSR2")])
def test_the_second_signal_leaves_at_once(first, second):
    code = LEAVE.format(first=first, second=second)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert run.returncode == 128 + getattr(signal, first)
    assert run.stdout == "goes on\nthe last word: a second signal: it left at once\n"


def test_of_a_run_that_a_sweep_started_several_sigterms_are_one():
    """A scheduler sends it to each process of a job, and the sweep passes it on."""
    for second, printed in (("SIGTERM", "goes on\nnever\n"), ("SIGINT", "goes on\nthe last word: a second signal:")):
        code = LEAVE.format(first="SIGTERM", second=second)
        env = os.environ | {interrupts.ONE_STOP: "1"}
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", env=env, capture_output=True, text=True)
        assert run.stdout.startswith(printed), run.stdout + run.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_stays_ignored(signum):
    interrupts.release()
    signal.signal(signum, signal.SIG_IGN)  # as nohup does with SIGHUP
    interrupts.catch()
    send(signum)
    assert signal.getsignal(signum) == signal.SIG_IGN and not interrupts.requested()


def test_in_another_thread_nothing_is_caught():
    interrupts.release()
    before, errors = signal.getsignal(signal.SIGTERM), []

    def use():
        try:
            interrupts.catch()
            with interrupts.held():
                interrupts.check()
            interrupts.release()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == [] and signal.getsignal(signal.SIGTERM) is before
    interrupts.catch()


def test_one_at_a_time():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError, match="another run is under way in this process"):
        interrupts.catch()
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(interrupts.Interrupted):
        send(signal.SIGTERM)
    child = os.fork()
    if child == 0:  # a process of its own
        code = 1
        try:
            interrupts.catch()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_signal_that_comes_at_once_leaves_all_as_it_was(monkeypatch):
    interrupts.release()
    before, set_handler = signal.getsignal(signal.SIGTERM), signal.signal

    def handler(signum, act):
        previous = set_handler(signum, act)
        if signum == signal.SIGHUP and callable(act):
            send(signum)
        return previous

    monkeypatch.setattr("signal.signal", handler)
    with pytest.raises(interrupts.Interrupted):
        interrupts.catch()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is before
    interrupts.catch()


def test_a_process_that_is_started_while_signals_are_blocked_begins_with_them_blocked():
    code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with interrupts.blocked():
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert shown.count("SIG") == len(interrupts.SIGNALS)
    assert not set(interrupts.SIGNALS) & set(signal.pthread_sigmask(signal.SIG_BLOCK, []))
