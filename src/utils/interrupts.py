"""Ctrl-C and SIGTERM as exceptions that end a run in order, and where they must wait.

Python raises from a signal's handler wherever the program happens to be. Compiled code that calls back into Python may
not bear that (jax aborts the process later), and what is raised in some callbacks (jax has one in the garbage
collector) is lost. So code of the first kind stands in `held`, and a loop asks `check` for what was lost.
"""

import os
import signal
from contextlib import contextmanager

SIGNALS = signal.SIGINT, signal.SIGTERM
WAITS = b"\ninterrupted: the run ends when what it computes now is done; interrupt it again to end it at once\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler's kill ends a run as Ctrl-C does."""


class _Interrupts:
    """The signal that has come since `catch`, if any; whether it was raised; how many `held` blocks are open."""

    def __init__(self):
        self.signum, self.raised, self.holds = None, False, 0
        self.previous = {}

    def arrive(self, signum, frame):
        again, self.signum = self.signum is not None, signum
        if self.holds and not again:
            os.write(2, WAITS)  # not print: the handler may stand in the middle of one
        else:
            self.throw()

    def throw(self):
        self.raised = True
        raise Terminated if self.signum == signal.SIGTERM else KeyboardInterrupt


_interrupts = _Interrupts()


def catch():
    """From here to `release` both signals are raised as exceptions. (Ctrl-C is left ignored where it was.)"""
    global _interrupts
    _interrupts = _Interrupts()
    for signum in SIGNALS:
        if signum == signal.SIGTERM or signal.getsignal(signum) != signal.SIG_IGN:
            _interrupts.previous[signum] = signal.signal(signum, _interrupts.arrive)


def check():
    """Raise the signal that has come, even if it was raised before and lost."""
    if _interrupts.signum is not None:
        _interrupts.throw()


@contextmanager
def held():
    """A signal that comes inside is raised behind it; a second one is raised at once."""
    mine = _interrupts
    mine.holds += 1
    try:
        yield
    finally:
        mine.holds -= 1
    if mine.signum is not None and not mine.raised and not mine.holds:
        mine.throw()


def ignore():
    """Until `release` signals do nothing: what is being written is not torn."""
    for signum in _interrupts.previous:
        signal.signal(signum, lambda *_: None)  # not SIG_IGN, which processes that are started inherit


def release():
    """The handlers as they were before `catch`."""
    for signum, handler in _interrupts.previous.items():
        signal.signal(signum, handler)
