"""One writer at a time in a run directory: whoever wants to write there takes a claim first, on any machine.

FOLDER/claims/000001.json, 000002.json, ...: one file for each process that ever held the folder, never deleted. The
highest number is the claim that counts. The next number is made by link(2), which only one process can win, on NFS
too (where flock does not hold). A holder renews its file's time stamp, its lease; a claim is free for the next process
once it is released, its process is seen to be dead, or its stamp is older than its lease.

Ages are measured by the file server's clock: the stamp of a fresh file minus that of the claim. A process that was
frozen learns from `mine` or `look` that it was replaced: call one of them before each write that counts. What it had
begun to write by then still lands. Do not delete the files to free a folder: its holder stops when it notices.
"""

import errno
import json
import os
import re
import socket
import stat
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from utils.args import ConfigError
from utils.messages import unwritable

LEASE = 120.0  # seconds; NFS clients may show a file's state of a minute ago
ATTEMPTS = 50  # to win the next number, when others take and release the folder at the same time
LARGEST = 2**16  # bytes of a claim
LONGEST_WAIT = 3600.0  # seconds between two renewals, however long the lease
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # a file system without hard links


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder. Of a damaged claim the host is "unknown", pid and taken are None.

    taken: UTC ISO time. age_seconds: since it last renewed its claim. state: alive, frozen (it is there but did not
    renew for longer than its lease) or dead (or, on another machine, silent for longer than its lease).
    """

    host: str
    pid: int | None
    taken: str | None
    age_seconds: float
    state: str


class Held(ConfigError):
    """Another process holds the folder; `holder` says which one."""

    holder: Holder


class ClaimLost(BaseException):
    """This process does not hold its folder any more and must not write there.

    Not an Exception: what swallows the errors of things that a run can do without must let it pass.
    """


class Claim:
    """A folder that this process holds. Made by `take`.

    run_id: the same for all processes that ever held the folder (the first one's token). path: the claim's file.
    """

    def __init__(self, folder: Path, path: Path, contents: dict[str, Any], run_id: str) -> None:
        self.folder, self.path, self.run_id = folder, path, run_id
        self._contents = contents
        self._claims, self._next = str(path.parent), str(_path(path.parent, int(path.stem) + 1))
        self._over = ""  # why this claim no longer counts; once set it stays
        # Read only: a server may leave the time stamps of a file that is open for writing to the client's clock.
        self._fd = os.open(path, os.O_RDONLY)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)
        self._thread.start()

    def mine(self) -> bool:
        """Whether this process still holds the folder. Microseconds, on NFS one request; once False, always False."""
        if not self._over:
            with suppress(OSError):  # opening a folder has an NFS client ask whether it changed; a stat may not
                os.close(os.open(self._claims, os.O_RDONLY))
            if os.path.exists(self._next):
                self._over = self._replaced()
        return not self._over

    def look(self) -> None:
        """Raise ClaimLost unless this process still holds the folder."""
        if not self.mine():
            raise ClaimLost(self._over)

    def release(self) -> None:
        """Free the folder for the next process; from then on `mine` is False. Safe to call twice, in any state.

        Raises no OSError: a claim that cannot be written ends with its lease, or with this process. Does nothing in a
        forked child.
        """
        if os.getpid() != self._contents["pid"]:
            return
        self._stop.set()
        self._thread.join()  # before the file is replaced: NFS keeps what is open under another name
        private = self.path.with_name(f".{self._contents['token']}")
        with suppress(OSError):
            if self.mine() and not self._is_gone():
                contents = self._contents | {"released": _utc()}
                try:
                    _write(private, contents)
                    os.replace(private, self.path)
                except OSError:  # a full disk has no room for a second file, but for this one in place of the old
                    _overwrite(self.path, contents)
        with suppress(OSError):
            private.unlink(missing_ok=True)
        self._over = self._over or f"{self.folder}: this process has released its claim and writes nothing more"

    def _renew(self) -> None:
        """The thread: renews the stamp, the server sets the time, until the claim is over."""
        period = min(max(0.05, self._contents["lease_seconds"] / 6), LONGEST_WAIT)
        try:
            while self.mine():
                with suppress(OSError):  # the next one may succeed
                    os.utime(self._fd)
                    if self._is_gone():
                        self._over = self._over or (
                            f"{self.folder}: the claim of this process, {self.path}, was deleted or moved, so nothing "
                            "keeps other processes away; this one stops and writes nothing more"
                        )
                if self._stop.wait(period):
                    break
        finally:
            os.close(self._fd)

    def _is_gone(self) -> bool:
        """Whether the file was deleted, or is another process's. Raises OSError when that cannot be seen."""
        try:
            return _read(self.path)[0].get("token", self._contents["token"]) != self._contents["token"]
        except FileNotFoundError:
            return True

    def _replaced(self) -> str:
        newer: dict[str, Any] = {}
        with suppress(OSError):
            newer = _read(Path(self._next))[0]
        return (
            f"{self.folder}: another process (host {newer.get('host', 'unknown')}, pid {newer.get('pid', 'unknown')}) "
            f"has taken over this run because this one did not renew its claim for longer than "
            f"{self._contents['lease_seconds']:g} s; this one stops and writes nothing more"
        )


def take(folder: Path, lease_seconds: float = LEASE) -> Claim:
    """Claim `folder`, which exists, for this process.

    lease_seconds: how long this process may go without a sign of life before another one may replace it. Raises Held
    when another process (or another part of this one) holds the folder, ConfigError when it cannot be written.
    """
    if not lease_seconds > 0:
        raise ConfigError(f"lease_seconds is {lease_seconds}, must be above 0")
    folder = Path(folder).absolute()  # the process may change its working directory
    claims, token, pid = folder / "claims", uuid.uuid4().hex, os.getpid()
    contents = {
        "token": token,
        **_machine(),
        "pid": pid,
        "process_start": _process(pid)[0],
        "lease_seconds": float(lease_seconds),
        "taken": _utc(),
        "released": None,
    }
    private = claims / f".{token}"
    try:
        claims.mkdir(exist_ok=True)
        try:
            _write(private, contents)
            return Claim(folder, *_win(folder, private, contents))
        finally:
            with suppress(OSError):
                private.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def take_idle(folder: Path) -> Claim:
    """The claim on a run directory for a tool that reads or completes it: also refused (ConfigError) while a process
    that holds it is frozen, for that one may go on."""
    held = holder(folder)
    if held is not None and held.state == "frozen":
        raise ConfigError(
            f"{folder}: process {held.pid} on host {held.host} holds this run and has been silent for "
            f"{held.age_seconds:.0f} s, but it is there; wait until it is done, or stop it"
        )
    return take(folder)


def holder(folder: Path) -> Holder | None:
    """Which process holds `folder`, in whatever state; None when none does, or what is there cannot be read.

    Needs no right to write there, but without it the age is measured by this machine's clock.
    """
    claims = Path(folder) / "claims"
    private = claims / f".{uuid.uuid4().hex}"
    try:
        if not _numbers(claims):
            return None
        try:
            os.close(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            now = _stamp(private)
        except OSError:
            now = time.time()
        finally:
            with suppress(OSError):
                private.unlink(missing_ok=True)
        contents, stamp = _read(_path(claims, _numbers(claims)[-1]))
    except OSError:
        return None
    return _judge(contents, now - stamp, LEASE)


def _win(folder: Path, private: Path, contents: dict[str, Any]) -> tuple[Path, dict[str, Any], str]:
    """Make the next claim file of `private`: (its path, contents, the run's id). Held, OSError."""
    for _ in range(ATTEMPTS):
        # The present first, then the claim: a process that is frozen in between finds it too young, never too old.
        now, numbers = _stamp(private), _numbers(private.parent)
        try:
            if numbers:
                found, stamp = _read(_path(private.parent, numbers[-1]))
                current = _judge(found, now - stamp, contents["lease_seconds"])
                if current and current.state == "alive":
                    raise _held(folder, current, found.get("lease_seconds", contents["lease_seconds"]))
            first = next(filter(None, (_token(_path(private.parent, number)) for number in numbers)), contents["token"])
            path = _path(private.parent, numbers[-1] + 1 if numbers else 1)
            _put(private, path, contents)
            return path, contents, first
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ESTALE):  # another one won; it was released as we read it
                raise
        time.sleep(0.01)
    raise ConfigError(f"{folder}: other processes keep taking this run and releasing it; try again when they are done")


def _put(private: Path, path: Path, contents: dict[str, Any]) -> None:
    """Make `path`, with the contents of `private`, unless it exists (FileExistsError)."""
    try:
        os.link(private, path)
    except OSError as error:
        if error.errno in NO_LINKS:
            # If this write fails the file stays, damaged: a number that vanished could be won twice.
            _write(path, contents)
        elif _token(path) != contents["token"]:
            raise
        # Else the link was made, and the server's answer was lost.


def _judge(contents: dict[str, Any], age: float, lease: float) -> Holder | None:
    """The Holder of a claim; None when it was released. lease: of a damaged one, in seconds."""
    if contents.get("released"):
        return None
    stale, running = age > contents.get("lease_seconds", lease), _running(contents)
    state = "dead" if running is False or (stale and running is None) else "frozen" if stale else "alive"
    return Holder(contents.get("host", "unknown"), contents.get("pid"), contents.get("taken"), max(0.0, age), state)


def _held(folder: Path, current: Holder, lease: float) -> Held:
    who = f"process {current.pid} on host {current.host}" if current.pid else "a process whose claim is damaged"
    error = Held(
        f"{folder}: {who} holds this run and renewed its claim {current.age_seconds:.1f} s ago; wait until it is done, "
        f"or stop it, or, if that machine is gone, wait {lease:g} s"
    )
    error.holder = current
    return error


def _running(contents: dict[str, Any]) -> bool | None:
    """Whether the process of a claim exists; None when it cannot be seen from here, as on another machine."""
    here = _machine()
    if not contents or None in here.values() or any(contents.get(k) != v for k, v in here.items()):
        return None
    try:
        os.kill(contents["pid"], 0)  # /proc may hide the processes of other users
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    start, ended = _process(contents["pid"])
    reused = start is not None and contents.get("process_start") not in (None, start)
    return not (ended or reused)


def _process(pid: int) -> tuple[int | None, bool]:
    """(start of a process in clock ticks since boot, whether it has ended and only waits for its parent)."""
    try:
        # After the name, which may hold spaces and parentheses: field 3 of proc(5) and what follows it.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]), fields[0] in (b"Z", b"X") and int(fields[17]) <= 1  # no other threads either
    except (OSError, ValueError, IndexError):
        return None, False


def _machine() -> dict[str, str | None]:
    """What two processes have in common that can see each other. Without /proc: None, so that only the lease counts."""
    boot, namespace = None, None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "pid_namespace": namespace}


def _numbers(claims: Path) -> list[int]:
    """The numbers of the claims, ascending."""
    try:
        names = os.listdir(claims)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"[0-9]{6,}\.json", name))


def _path(claims: Path, number: int) -> Path:
    return claims / f"{number:06d}.json"


def _read(path: Path) -> tuple[dict[str, Any], float]:
    """(contents, {} if damaged; time stamp in seconds) of a claim file. The stamp is the open file's: NFS caches."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
        return {}, status.st_mtime
    with open(path, "rb") as file:
        stamp, text = os.fstat(file.fileno()).st_mtime, file.read(LARGEST)
    contents = {}
    try:
        contents = json.loads(text)
        whole = isinstance(contents["token"], str) and isinstance(contents["host"], str)
        whole = whole and isinstance(contents["pid"], int) and 0 < contents["pid"] < 2**31
        whole = whole and 0 < contents["lease_seconds"] < 2**63
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    return (contents if whole else {}), stamp


def _token(path: Path) -> str | None:
    """The token in a claim file; None when it is damaged or not there."""
    try:
        return _read(path)[0].get("token")
    except FileNotFoundError:
        return None


def _write(path: Path, contents: dict[str, Any]) -> None:
    """Make the file `path`, which must not exist, and have it on the disk."""
    with open(path, "x", encoding="utf-8") as file:
        file.write(json.dumps(contents) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _overwrite(path: Path, contents: dict[str, Any]) -> None:
    """Put longer `contents` in the place of those that a file has. A reader may see half of them: a damaged claim."""
    with open(path, "r+", encoding="utf-8") as file:
        file.write(json.dumps(contents) + "\n")


def _stamp(path: Path) -> float:
    """The present by the clock that stamps files in that folder, in seconds; renews the stamp of `path`."""
    os.utime(path)
    return os.stat(path).st_mtime


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
