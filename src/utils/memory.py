"""How much memory this process may still take: of the machine, and of the containers (control groups) that it is in."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch


def free_memory(device: str, root: Path = Path("/")) -> int | None:
    """Free bytes on `device`, or None where the system does not say. root: of the file system, for tests.

    What a group uses for files that it has read does not count: the system takes that back first.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _of_the_machine(root)
    left = [limit - used for limit, used in _groups(root)]
    known = [n for n in (free, *left) if n is not None]
    return max(0, min(known)) if known else None


def _of_the_machine(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError, IndexError):
        return None


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use without those of files) of each control group around this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    top = root / "sys/fs/cgroup"
    places = [(top, "", ("memory.max", "memory.current", "inactive_file"))]
    for line in lines:
        _, kinds, path = line.split(":", 2) if line.count(":") >= 2 else ("", "", "")
        if kinds == "":  # version 2
            places.append((top, path, ("memory.max", "memory.current", "inactive_file")))
        elif "memory" in kinds.split(","):  # version 1
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            places += [(top / "memory", path, files), (top / "memory", "", files)]
    seen = set()
    for base, path, files in places:
        inner = base / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder not in seen and folder.is_relative_to(base):
                seen.add(folder)
                yield from _read_group(folder, *files)


def _read_group(folder: Path, limit: str, used: str, of_files: str) -> Iterator[tuple[int, int]]:
    try:
        most = int((folder / limit).read_text(encoding="utf-8"))  # "max": no limit
        in_use = int((folder / used).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    try:
        stat = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        in_use -= next(int(line.split()[1]) for line in stat if line.startswith(f"{of_files} "))
    except (OSError, ValueError, StopIteration, IndexError):
        pass  # it is not told apart
    yield most, in_use


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next use; whether that could be done. For this process, from now on.

    It gives large blocks back to the system, which has to clear them anew each time: a fifth of an update of large
    batches.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(trim_threshold, 2**31 - 1) and libc.mallopt(mmap_max, 0))
    except (OSError, AttributeError):  # another system
        return False
