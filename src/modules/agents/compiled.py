"""C++ that is compiled where it is used, once on each machine: for what torch has no fast operation for."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread")
SECONDS = 300  # that a compiler may take; it takes three


class NotCompiled(Exception):
    """Why there is no library, in a line."""


def library(source: Path) -> ctypes.CDLL:
    """The library made of a C++ file. NotCompiled where none can be made.

    It is kept in ~/.cache/qtran ($XDG_CACHE_HOME) for the next process: its name holds a hash of source, flags and
    processor (home folders may be shared by machines) and a checksum of the file. Where nothing can be kept it is made
    anew each time.
    """
    cache, key = _cache(), _key(source)
    with contextlib.suppress(OSError):  # it cannot be read, or nothing may be run from there
        for path in cache.glob(f"{key}_*.so") if cache else ():
            if path.name == _name(key, path.read_bytes()):  # a damaged one can end the process
                return ctypes.CDLL(str(path))
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, f"{source.stem}.so")
            _compile(source, made)
            with contextlib.suppress(OSError):
                if cache:
                    return ctypes.CDLL(str(_keep(made, cache, key)))
            return ctypes.CDLL(str(made))  # once it is loaded it needs no file
    except OSError as error:
        raise NotCompiled(f"{source.name}: {_line(str(error))}") from error


def _cache() -> Path | None:
    """Where libraries are kept; None for a user without a home."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "qtran")
    return folder if folder.is_absolute() else None


def _key(source: Path) -> str:
    told = [source.read_text(encoding="utf-8"), *FLAGS, platform.system(), platform.machine(), _processor()]
    return f"{source.stem}_{_sum(chr(0).join(told).encode())}"


def _name(key: str, contents: bytes) -> str:
    return f"{key}_{_sum(contents)}.so"


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def _processor() -> str:
    """What the processor can do."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            told = {line for line in f if line.startswith(("model name", "flags", "CPU part", "Features"))}
    except OSError:
        told = {platform.processor()}
    return "".join(sorted(told))


def _compile(source: Path, to: Path) -> None:
    try:
        found = shlex.split(os.environ.get("CXX", "")) or [name for name in COMPILERS if shutil.which(name)][:1]
    except ValueError as error:
        raise NotCompiled(f"CXX={os.environ['CXX']}: {error}") from error
    if not found:
        raise NotCompiled(f"no C++ compiler ({', '.join(COMPILERS)}) was found; CXX=NAME in the environment names one")
    try:
        with open(to.with_suffix(".txt"), "w+", encoding="utf-8", errors="replace") as f:
            command = [*found, *FLAGS, str(source), "-o", str(to)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, timeout=SECONDS)
            f.seek(0)
            said = f.read().splitlines() or [f"exit status {done.returncode}"]
    except subprocess.TimeoutExpired:
        raise NotCompiled(f"the C++ compiler {found[0]} did not end in {SECONDS} seconds") from None
    except OSError as error:
        raise NotCompiled(f"the C++ compiler {found[0]} failed: {_line(str(error))}") from error
    if done.returncode or not to.is_file():
        errors = [line for line in said if "error" in line.lower()] or said[-1:]
        raise NotCompiled(f"the C++ compiler {found[0]} failed: {_line(errors[0])}")


def _keep(made: Path, cache: Path, key: str) -> Path:
    """Where it is kept: whole, as other processes may do the same or load it at this moment."""
    contents = made.read_bytes()
    kept = cache / _name(key, contents)
    cache.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=cache)
    try:
        with open(handle, "wb") as f:
            f.write(contents)
        os.replace(aside, kept)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    return kept


def _line(text: str, most: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
