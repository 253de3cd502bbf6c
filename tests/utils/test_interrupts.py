"""Signals as exceptions: at once, behind a `held` block, and once more where they were lost."""

import os
import signal
from contextlib import suppress

import pytest

from utils import interrupts


@pytest.fixture(autouse=True)
def caught():
    before = [signal.getsignal(signum) for signum in interrupts.SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background may ignore it
    interrupts.catch()
    yield
    interrupts.release()
    assert signal.getsignal(signal.SIGTERM) is before[1]
    signal.signal(signal.SIGINT, before[0])


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)])
def test_a_signal_is_raised_at_once_and_behind_a_held_block(signum, error):
    with pytest.raises(error):
        send(signum)
    interrupts.release()
    interrupts.catch()
    done = []
    with pytest.raises(error), interrupts.held():
        with interrupts.held():
            send(signum)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_a_held_signal_says_that_it_waits_and_a_second_one_does_not(capfd):
    with pytest.raises(interrupts.Terminated), interrupts.held():
        send(signal.SIGTERM)
        assert "interrupt it again to end it at once" in capfd.readouterr().err
        send(signal.SIGTERM)
        raise AssertionError("the second was not raised")


def test_what_was_raised_and_lost_is_raised_again_by_check():
    interrupts.check()
    with suppress(KeyboardInterrupt):  # as Python does with what is raised in a callback of the garbage collector
        send(signal.SIGTERM)
    with interrupts.held():
        pass  # raised once already: cleaning up is not disturbed
    with pytest.raises(interrupts.Terminated):
        interrupts.check()


def test_what_is_being_written_is_not_torn():
    interrupts.ignore()
    send(signal.SIGTERM)
    send(signal.SIGINT)
    interrupts.check()


def test_ctrl_c_stays_ignored_where_it_was():
    interrupts.release()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.catch()
    send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
