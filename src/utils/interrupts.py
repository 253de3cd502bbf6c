"""Signals that end a run in order, and where they must wait.

The first signal raises Interrupted in the main thread: at once, or after the `held` block that it came in. Training
holds it until a round and its updates are done. The second signal ends the process at once.

Python raises from a signal's handler wherever the program happens to be. Compiled code that calls back into Python may
not bear that (jax aborts the process later), so such code is `held` too. What is raised in some callbacks (jax has one
in the garbage collector) is lost, so a loop asks `check` for it.

One run at a time in a process: signals, log.txt and the global random generators are the process's.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from utils.args import ConfigError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
# In the environment of a run that a sweep started: several SIGTERMs are one. A scheduler sends it to every process of a
# job, the sweep passes it on, and the run should save all the same. A sweep that cannot wait sends SIGKILL.
ONE_STOP = "QTRAN_ONE_STOP"
WAITS = b"\ninterrupted: the round ends and the state is saved; interrupt again to leave at once\n"


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end."""

    def __init__(self, signum: int):
        super().__init__(name(signum))
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status that says so."""
        return 128 + self.signum


def name(signum: int) -> str:
    return "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


class _Interrupts:
    """The signal that has come since `catch`, if any; whether it was raised; how many `held` blocks are open."""

    def __init__(self) -> None:
        self.signum: Any = None  # a number, once one has come
        self.raised, self.holds = False, 0
        self.leave: Callable[[str], None] | None = None
        self.previous = {}
        self.pid: int | None = None  # of the process, between `catch` and `release`

    def arrive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            if signum == signal.SIGTERM and ONE_STOP in os.environ:
                return
            self.exit()
        self.signum = signum
        if self.holds:
            with suppress(OSError):  # stderr is full, or nobody reads it
                os.write(2, WAITS)  # not print: the handler may stand in the middle of one
        else:
            self.throw()

    def throw(self) -> NoReturn:
        self.raised = True
        raise Interrupted(self.signum)

    def exit(self) -> NoReturn:
        """Leave without a look back: all files are replaced whole, and worker processes end with this one."""
        for signum in self.previous:
            signal.signal(signum, signal.SIG_DFL)
        self.last_words("a second signal: it left at once")
        os._exit(128 + self.signum)

    def last_words(self, why: str) -> None:
        with suppress(BaseException):
            if self.leave is not None:
                self.leave(why)

    def process_ends(self) -> None:
        """The main thread is done, and the interpreter does not wait for the daemon thread that the run is in."""
        if self.pid == os.getpid():  # not a fork of it
            self.last_words("the process ended while the run went on in a thread")


_interrupts = _Interrupts()
_turn = threading.Lock()


def catch() -> None:
    """From here to `release` signals are raised as exceptions. What was ignored before (SIGHUP under nohup, Ctrl-C of a
    process in the background) is still ignored, but for SIGTERM. Outside the main thread, where Python takes no
    signals, none are caught. ConfigError while somebody else is between `catch` and `release` in this process."""
    global _interrupts
    with _turn:
        if _interrupts.pid == os.getpid():  # not of the process that this one was forked from
            raise ConfigError(
                "another run is under way in this process, and there can be one at a time; wait until it has ended, or "
                "start each in a process of its own (src/main.py, or src/sweep.py for many)"
            )
        _interrupts = _Interrupts()
        _interrupts.pid = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        atexit.register(_interrupts.process_ends)
        return
    try:
        for signum in SIGNALS:
            if signum == signal.SIGTERM or signal.getsignal(signum) != signal.SIG_IGN:
                _interrupts.previous[signum] = signal.signal(signum, _interrupts.arrive)
    except BaseException:  # a signal has come already
        release()
        raise


def on_leave(leave: Callable[[str], None]) -> None:
    """Have leave(why) called before the process ends in the middle of the run. It must not wait for anything."""
    _interrupts.leave = leave


def release() -> None:
    """The handlers as they were before `catch`."""
    for signum, handler in _interrupts.previous.items():
        signal.signal(signum, signal.SIG_DFL if handler is None else handler)
    atexit.unregister(_interrupts.process_ends)
    _interrupts.pid = None


def requested() -> bool:
    """Whether a signal has come, be it raised or held."""
    return _interrupts.signum is not None


def check() -> None:
    """Raise the signal that has come, even if it was raised before and lost; not inside a `held` block, and not after
    `release`: a policy that plays after a run was stopped is not that run."""
    if _interrupts.pid is not None and _interrupts.signum is not None and not _interrupts.holds:
        _interrupts.throw()


@contextmanager
def held(to_the_end: bool = False) -> Iterator[None]:
    """The first signal, if it comes inside, is raised after the block. to_the_end: not at all, as nothing is left to
    end."""
    mine = _interrupts
    mine.holds += 1
    try:
        yield
    finally:
        mine.holds -= 1
    if mine.signum is not None and not mine.raised and not mine.holds and not to_the_end:
        mine.throw()


@contextmanager
def blocked() -> Iterator[None]:
    """Processes that are started inside begin with all signals of SIGNALS blocked, until they call `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
