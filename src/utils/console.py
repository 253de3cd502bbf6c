"""What the commands print: where it cannot be written, words are lost, and nothing else."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any


def protect() -> None:
    """From here on printing raises nothing, whatever stdout and stderr are: closed, full, a pipe that nobody reads.

    What cannot be written is lost; what the encoding lacks is written as \\xfc. Streams that somebody has put in the
    place of the process's own, a test or a notebook, are left alone.
    """
    for fd in range(3):
        _open_if_closed(fd)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream: Any = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Stream):
            protected = _stream(stream, fd, name)
            setattr(sys, name, protected)
            setattr(sys, f"__{name}__", protected)


def _open_if_closed(fd: int) -> None:
    """Or the next file that is opened has this number, and is sent what is printed."""
    try:
        os.fstat(fd)
    except OSError:
        with suppress(OSError):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _stream(before: Any, fd: int, name: str) -> _Stream:
    raw = _File(fd, "wb", closefd=False)
    raw.name = f"<{name}>"
    if before is None:
        return _Stream(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return _Stream(
        raw if before.write_through else io.BufferedWriter(raw),  # python -u
        encoding=before.encoding,
        errors="backslashreplace",
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


class _Stream(io.TextIOWrapper):
    """A stream of `protect`."""


class _File(io.FileIO):
    """Takes all that it is given. What the system refuses is lost, and told once on stderr; of a pipe that nobody reads
    nothing is told."""

    told = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        left = view
        try:
            while left:
                n = super().write(left)
                if n is None:  # full for now, and set not to block
                    select.select([], [self], [])
                left = left[n or 0 :]
        except OSError as error:
            if error.errno != errno.EPIPE and not self.told:
                self.told = True
                said = f"warning: {str(self.name)[1:-1]}: {error.strerror}; what is printed there is lost\n"
                with suppress(OSError):
                    os.write(2, said.encode())
        return len(view)
