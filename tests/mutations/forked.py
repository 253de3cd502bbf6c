"""A command in a fork of this process, which has imported everything: how it ends, and what is wrong with that.

The fork sees a folder of its own as its whole world: working directory, home and temporary files are in it, and what it
writes elsewhere is refused and told. Its memory and its time are limited, and it has the disk's promise that what is
written stays.
"""

import contextlib
import faulthandler
import gc
import hashlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SRC = Path(__file__).parents[2] / "src"
SCRIPTS = ("pack_runs", "learned_tables")  # of studies/
BEYOND_THE_CORE = ("torch._dynamo", "torch.utils.tensorboard", "matplotlib.backends.backend_agg", "mongomock")
FREE = 2**29  # bytes of memory that a run is told are free
LARGEST = FREE + 2**29  # bytes that it may take: of what a run makes on its way the sum knows little
SECONDS = 60  # to end, or to begin training
TRAINING_SECONDS = 3  # that a run which has begun is given, then it is told to stop
STOPPING_SECONDS = 5  # until it is told again, and after that until it is killed
LONGEST = 20_000  # characters of a message
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^Fatal Python error|^Exception ignored", re.MULTILINE)
WORK, HOME, TEMPORARY, CANARY, BEFORE = "work", "home", "tmp", "canary", "before"
NAMES = "names"  # of what was mutated, where only `prepare` knows
DEVICES = ("/dev/null", "/dev/shm/", "/dev/tty")


@dataclass
class Case:
    """A mutated input, and the command that is given it."""

    command: str
    argv: list[str]
    names: tuple[str, ...] = ()  # one of them stands in a refusal; none: any refusal will do
    prepare: Callable[[Path], Any] | None = None  # makes the files, given the working directory; may return more names
    results: tuple[str, ...] = ("results",)  # folders in the working directory that may be written
    anywhere: bool = False  # it says itself where results go
    codes: tuple[int, ...] = (0,)  # exit statuses beside 2 that need no reason
    training: float = TRAINING_SECONDS  # seconds that a run which has begun is given
    draw: bool = False  # pictures are drawn, which takes as long as all the rest
    told: list[str] = field(default_factory=list)  # what was mutated, for the reader of a failure

    def __repr__(self) -> str:
        told = "\n  ".join(f"{line:.400}" for line in self.told)
        return f"{self.command}.py {shortened(self.argv)}\n  {told}"


def shortened(words: list[str]) -> str:
    text = repr(words)
    return text if len(text) <= 3000 else f"{text[:2000]} … {text[-900:]}"


@dataclass
class End:
    """How it ended. code: exit status, negative after a signal. stopped: it was told to stop as it trained."""

    code: int
    out: str
    err: str
    stopped: bool
    hung: bool
    peak: int  # bytes beyond what it began with
    elsewhere: list[str]  # what it wrote outside
    seconds: float


def import_everything() -> None:
    """All that a command may import later; what needs a package that is not installed is left out."""
    from utils.config import import_sacred

    import_sacred()
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts[0] == "hosts" and parts[-1] == "game":
            continue  # for a checkout of EPyMARL
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in (*SCRIPTS, *BEYOND_THE_CORE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("modules.agents.recurrence").choose("auto")  # compiled once, not in each fork's home
    gc.collect()
    gc.freeze()


def end_of(case: Case, folder: Path) -> End:
    """Run a case in `folder`, which is made."""
    for name in (WORK, HOME, TEMPORARY):
        (folder / name).mkdir(parents=True)
    began, base = time.monotonic(), rss(os.getpid())
    pid = os.fork()
    if pid == 0:
        _child(case, folder)
    return _watched(pid, folder, began, base, case.training)


def wrong_with(case: Case, end: End, folder: Path) -> str | None:
    """What is wrong with an end, or None."""
    said = end.out + end.err
    if end.hung:
        return "it hangs"
    if end.code < 0:
        return f"it ended by signal {-end.code}"
    if (folder / CANARY).exists():
        return "it ran the code in its input"
    if TRACEBACK.search(said):
        return "it shows a traceback"
    if end.peak > LARGEST:
        return f"it took {end.peak / 2**20:.0f} MiB"
    if end.elsewhere and not case.anywhere:
        return f"it wrote elsewhere: {end.elsewhere[:3]}"
    before = json.loads(_read(folder / BEFORE) or b"{}")
    changed = sorted(k for k, v in _seen(folder, case).items() if before.get(k) != v)
    if changed and not case.anywhere:
        return f"it changed what is not its own: {changed[:3]}"
    if end.code == 2:
        more = json.loads(_read(folder / NAMES) or b"null") or []
        return _wrong_with_refusal((*case.names, *more) if case.names else (), end)
    if end.stopped and end.code == 128 + signal.SIGTERM:
        return None
    if end.code in case.codes:
        return None
    if end.code == 1 and re.search(r"^\[ERROR [\d:]+\] (failed|taken over): \S.*\S$", end.err, re.MULTILINE):
        return None
    return f"its exit status is {end.code}"


def _wrong_with_refusal(names: tuple[str, ...], end: End) -> str | None:
    errors = re.findall(r"^(?:error: |.*\.py: error: ).*", end.err, re.MULTILINE)
    if len(errors) != 1:
        return f"status 2 with {len(errors)} messages"
    message = end.err[end.err.index(errors[0]) :]
    if len(message) > LONGEST:
        return f"its message has {len(message)} characters"
    if "run directory: " in end.out:
        return "it refuses what it has begun"
    if names and not any(name in message for name in names):
        return f"its message names none of {names!r:.300}"
    return None


def _seen(folder: Path, case: Case) -> dict[str, str]:
    """{path: hash} of what a command must leave alone: all but results and temporary files."""
    free = [folder / TEMPORARY, *(folder / WORK / name for name in case.results)]
    out = {}
    for top, below, names in os.walk(folder):
        below[:] = [name for name in below if Path(top, name) not in free]
        for name in [*names, *(n for n in below if Path(top, n).is_symlink())]:
            path = Path(top, name)
            whole = path.is_file() and not path.is_symlink() and path.stat().st_size < 2**24
            out[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if whole else "no file"
        out |= {str(Path(top, name)): "folder" for name in below}
    return {path: value for path, value in out.items() if path not in map(str, _own(folder))}


def _own(folder: Path) -> list[Path]:
    """Files of the tests."""
    return [folder / name for name in ("stdout", "stderr", "elsewhere", BEFORE, NAMES)]


# ---------------------------------------------------------------------- in the fork


def _child(case: Case, folder: Path) -> None:
    code = 99
    try:
        if case.prepare is not None:
            (folder / NAMES).write_text(json.dumps(case.prepare(folder / WORK)))
        (folder / BEFORE).write_text(json.dumps(_seen(folder, case)))
        _sandbox(folder, case.draw)
        sys.argv = [f"{case.command}.py", *case.argv]
        try:
            code = importlib.import_module(case.command).main(list(case.argv))
        except SystemExit as error:  # as the interpreter takes it
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 98)


def _sandbox(folder: Path, draw: bool) -> None:
    os.setsid()
    for fd, path, flags in (
        (0, "/dev/null", os.O_RDONLY),
        (1, folder / "stdout", os.O_WRONLY | os.O_CREAT),
        (2, folder / "stderr", os.O_WRONLY | os.O_CREAT),
    ):
        handle = os.open(path, flags, 0o644)
        os.dup2(handle, fd)
        os.close(handle)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = open(fd, "w", encoding="utf-8", errors="strict", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(folder / WORK)
    os.environ |= {"HOME": str(folder / HOME), "TMPDIR": str(folder / TEMPORARY), "CUDA_VISIBLE_DEVICES": ""}
    import tempfile

    tempfile.tempdir = None
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    faulthandler.enable(open(2, "w", closefd=False))  # noqa: SIM115
    faulthandler.dump_traceback_later(SECONDS - 5, exit=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A disk that promises at once, one commit, a machine with little memory, few processes, and no trial runs.
    patch = pytest.MonkeyPatch()
    patch.setattr("os.fsync", lambda handle: None)
    version = sys.modules["utils.version"]
    for module in [m for m in sys.modules.values() if getattr(m, "commit", None) is version.commit]:
        patch.setattr(module, "commit", lambda: "0" * 40)
    patch.setattr("utils.memory._of_the_machine", lambda root: FREE)
    patch.setattr("envs.MOST_OBJECTS", 3)
    patch.setattr("sweeping.estimate.probe", lambda *_: ([], []))
    patch.setattr("checks.MONGO_PATIENCE", 0.2)
    patch.setattr("sync.STEP_SECONDS", 0.3)
    if not draw:
        patch.setattr("tables.draw", lambda learned, path, title: path.touch())
        patch.setattr("reporting.figures.save", lambda figure: (b"", b""))
    if (folder / WORK / "config").is_dir():
        patch.setattr("utils.config_files.FOLDER", folder / WORK / "config")
    allowed = (str(folder) + "/", *DEVICES)
    told = os.open(folder / "elsewhere", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watch(event: str, args: tuple) -> None:
        for path in _written(event, args):
            if not _absolute(path).startswith(allowed):
                os.write(told, f"{event} {path!r}\n".encode(errors="replace"))
                raise PermissionError(13, "Permission denied", path)

    sys.addaudithook(watch)


def _written(event: str, args: tuple) -> Iterator[str | bytes]:
    """The paths that an audited call changes."""
    if event == "open":
        path, _, flags = args
        if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            yield path
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"):
        if isinstance(args[0], (str, bytes)) and (len(args) < 2 or args[-1] in (-1, None)):
            yield args[0]
    elif event in ("os.rename", "os.link", "os.symlink") and isinstance(args[1], (str, bytes)):
        yield args[1]


def _absolute(path: str | bytes) -> str:
    text = os.fsdecode(path)
    with contextlib.suppress(OSError, ValueError):
        return os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
    return os.path.abspath(text)


# ---------------------------------------------------------------------- beside it


def _watched(pid: int, folder: Path, began: float, base: int, training: float) -> End:
    peak, told, hung, since, status = 0, 0, False, None, None
    try:
        while True:
            done, ended, used = os.wait4(pid, os.WNOHANG)
            if done:
                status = ended
                break
            now = time.monotonic()
            peak = max(peak, rss(pid) - base if base else 0)
            if since is None and told == 0 and now - began > 0.5 and b"run directory: " in _read(folder / "stdout"):
                since = now
            limit = since + training if since is not None else began + SECONDS
            over = limit + 2 * STOPPING_SECONDS if since is not None else limit
            if now > over or peak > 2 * LARGEST:
                hung = peak <= 2 * LARGEST
                _kill(pid)
                _, status, used = os.wait4(pid, 0)
                break
            if since is not None and now > limit + STOPPING_SECONDS * told and told < 2:
                told += 1
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.002 if now - began < 0.5 else 0.02)
    finally:
        if status is None:
            _kill(pid)
            os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)  # what it has started
    if base:  # where /proc is; elsewhere its unit is another one
        peak = max(peak, used.ru_maxrss * 1024 - base)
    out, err, elsewhere = (_read(path).decode(errors="replace") for path in _own(folder)[:3])
    code = os.waitstatus_to_exitcode(status)
    return End(code, out, err, told > 0, hung, peak, elsewhere.splitlines(), time.monotonic() - began)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def rss(pid: int) -> int:
    """Bytes of memory that a process has; 0 where that is not told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * resource.getpagesize()
    return 0


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
