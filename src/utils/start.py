"""The first thing that a command does. Imports next to nothing, so that little comes before it."""

from __future__ import annotations

import os
import signal


def leave_at_once() -> None:
    """Have signals end the process with their exit status, 128 + number: until a command has handlers of its own there
    is nothing to save, and Python's own handler would show where it was in its imports."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, lambda number, _: os._exit(128 + number))


def undo_at_ctrl_c() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt again: for a command that takes back what it has begun."""
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.default_int_handler):
        signal.signal(signal.SIGINT, signal.default_int_handler)
