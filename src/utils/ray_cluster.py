"""A Ray cluster: one on this machine, which ends with this process, or one that runs already at an address.

Ray is imported where a cluster is asked for: it is an optional package.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils import interrupts
from utils.args import ConfigError
from utils.messages import brief
from utils.registry import MissingPackage
from utils.temporary_folders import temporary_folder

INSTALL = "pip install -c requirements/constraints.txt -r requirements/ray.txt"
SOURCE = Path(__file__).resolve().parent.parent
PORT_SECONDS = 5  # to answer at an address
STORE = 256 * 2**20  # bytes of shared memory for what is under way; Ray writes more than that to a file
LONGEST = 30  # characters of a temporary folder: below it Ray makes sockets, whose paths have at most 107
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray's own telemetry
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what a later version does
    # Worker processes end with their actors by themselves. What cleans up behind an actor must outlive it.
    "RAY_kill_child_processes_on_worker_exit": "0",
}
# When stdin ends: ends Ray's processes (where this process was killed two of its agents would stay for a minute), and
# deletes the folder "$0"; again, for what was dying then.
CLEAN = """read -r _
[ -e "$0/processes" ] && kill -9 $(cat "$0/processes")
sleep 1; rm -rf "$0" || { sleep 2; rm -rf "$0"; }"""


def check_installed(what: str) -> None:
    """MissingPackage, with the pip line, where this Python has no Ray. what: needs it."""
    if importlib.util.find_spec("ray") is None:
        raise MissingPackage(f"{what} needs the package 'ray', which is not installed; install it with: {INSTALL}")


class RayCluster:
    """Ray, from here to `close`.

    what: the key or option that `address` stands for, in messages. address: of a cluster, host:port, or auto for the
    one that this machine is in; None: one is started here. cpus, gpus: that it has then. dashboard: whether it has one.
    ConfigError where there is none at the address.
    """

    def __init__(self, what: str, address: str | None, cpus: int, gpus: float | None = None, dashboard: bool = False):
        check_installed(what)
        self.address, self.folder, self.cleaner = address, None, None
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if address is None:
            within = None if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
            self.folder, self.cleaner = temporary_folder("ray-", CLEAN, within)
            options |= {"address": "local", "num_cpus": cpus, "include_dashboard": dashboard, "_temp_dir": self.folder}
            options |= {"object_store_memory": STORE}
            if gpus is not None:
                options["num_gpus"] = gpus
        else:
            _refuse_silent(what, address)
            # The very code of this process: another version on a node would play other episodes.
            sent = {"working_dir": str(SOURCE), "excludes": ["**/__pycache__"], "env_vars": ENVIRONMENT}
            options |= {"address": address, "runtime_env": sent}
        before = _descendants()
        try:
            with _as_before(), _without_signals():
                import ray

                context = ray.init(**options)
        except Exception as error:
            self.close()
            where = f"{what} = {address!r}: no Ray cluster can be used there" if address else "Ray cannot start here"
            raise ConfigError(f"{where}: {brief(error)}") from error
        except BaseException:
            self.close()
            raise
        if self.folder is not None:
            Path(self.folder, "processes").write_text(" ".join(map(str, _descendants() - before)))
        self.dashboard: str | None = context.dashboard_url or None

    def resources(self) -> dict[str, float]:
        """{"CPU": 8.0, ...} of all nodes together."""
        import ray

        return dict(ray.cluster_resources())

    def nodes(self) -> int:
        import ray

        return sum(node["Alive"] for node in ray.nodes())

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if importlib.util.find_spec("ray") is not None:
            with _as_before(signals=False):
                import ray

                ray.shutdown()
        if self.cleaner is not None:
            Path(self.folder or "", "processes").unlink(missing_ok=True)  # others may have their numbers by now
            shutil.rmtree(self.folder or "", ignore_errors=True)
            self.cleaner.communicate()
            self.cleaner = None


def _refuse_silent(what: str, address: str) -> None:
    """ConfigError where nobody listens at `address`, or it is invalid."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 2**16) or "/" in host:
        raise ConfigError(
            f"{what} = {address!r} is not an address: give host:port of a Ray head (its port is 6379 where no other "
            "was given), auto for the cluster that this machine is in, or null for a Ray on this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PORT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"{what} = {address!r}: nobody answers there ({error}); start a cluster with `ray start --head` there, or "
            "give null for a Ray on this machine"
        ) from error


def _descendants() -> set[int]:
    """Processes that this one, or one of them, has started (Linux)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


@contextlib.contextmanager
def _as_before(signals: bool = True) -> Iterator[None]:
    """Ray changes the handler of SIGTERM; and it reads ENVIRONMENT inside alone."""
    main = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.getsignal(s) for s in interrupts.SIGNALS} if main and signals else {}
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for signum, handler in handlers.items():
            if handler is not None:
                signal.signal(signum, handler)


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """What is started inside does not hear those signals that a terminal or a scheduler sends to a whole group of
    processes: the run ends its round first. SIGTERM stays, as Ray ends its processes by it."""
    ours = [s for s in interrupts.SIGNALS if s != signal.SIGTERM]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
