"""A file system of a few MB that really is full when it is full.

A tmpfs, in name spaces of its own, which need no rights where the system lets anybody make them (`unshare -r`). It
lives as long as the shell that holds it, and is seen through /proc/PID/root.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PAGE = 4096  # bytes, of which a tmpfs gives whole ones


class SmallDisk:
    """path: the file system's root. filler: a file that takes what room there is."""

    def __init__(self, shell: subprocess.Popen, place: Path):
        self._shell, self._place = shell, place
        self.path = Path(f"/proc/{shell.pid}/root{place}")
        self.filler = self.path / "filler"

    def free(self) -> int:
        """Bytes."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def fill(self, but: int = 0) -> None:
        """Leave room for `but` pages."""
        with open(self.filler, "ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(0, self.free() - but * PAGE))

    def make_room(self) -> None:
        """Take the filler away."""
        self.filler.unlink()

    def resize(self, size: str) -> None:
        assert self._run(f"mount -o remount,size={size} {self._place}")

    def _run(self, command: str) -> bool:
        self._shell.stdin.write(f"{command} && echo done || echo failed\n")
        self._shell.stdin.flush()
        return self._shell.stdout.readline() == "done\n"

    def mount(self, size: str) -> bool:
        return self._run(f"mount -t tmpfs -o size={size} none {self._place}")


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk]:
    """A SmallDisk of `size` ("4m") at the folder `place`; the test is skipped where none can be mounted."""
    place.mkdir(exist_ok=True)
    for options in ("-rm", "-m"):
        with suppress(FileNotFoundError, BrokenPipeError), _shell_of("unshare", options, "sh") as shell:
            disk = SmallDisk(shell, place)
            if disk.mount(size):
                yield disk
                return
    pytest.skip("no file system can be mounted here")


@contextmanager
def _shell_of(*command: str) -> Iterator[subprocess.Popen]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as shell:
        try:
            yield shell
        finally:
            shell.kill()
