"""The processes of StarCraft II that pysc2 starts: they die with their worker, never share a port, and leave their
last words in a log."""

import contextlib
import os
import random
import socket
import subprocess
import tempfile
from typing import Any

from envs.workers.worker_process import dies_with

PORTS = range(15000, 25000)  # below those that Linux gives to outgoing connections


def game_processes(timeout: float) -> type:
    """Have pysc2 start games our way. Keep what is returned: pysc2 only looks for it.

    timeout: seconds to wait for an answer of the game.
    """
    from absl import flags
    from pysc2.lib import sc_process
    from pysc2.run_configs import platforms

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["sc2"])

    class Process(sc_process.StarcraftProcess):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.reserved, port = reserve_port()
            super().__init__(*args, port=port, timeout_seconds=max(1, int(timeout)), **kwargs)

        def _launch(self, run_config: Any, args: list[str], **kwargs: Any) -> subprocess.Popen:
            worker = os.getpid()
            with open(os.path.join(tempfile.gettempdir(), "game.log"), "wb") as log:
                return subprocess.Popen(
                    args, cwd=run_config.cwd, env=run_config.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    preexec_fn=lambda: dies_with(worker),
                )  # fmt: skip

        def close(self) -> None:
            super().close()
            self.reserved.close()

    class Local(platforms.Linux):
        """pysc2 takes the run configuration of the highest priority."""

        @classmethod
        def priority(cls) -> int | None:
            standard = super().priority()
            return standard and standard + 1

        def start(self, want_rgb: bool = True, **kwargs: Any) -> Process:
            path = os.path.join(self.data_dir, f"Versions/Base{self.version.build_version:05d}", self._exec_name)
            if not os.path.exists(path):
                raise sc_process.SC2LaunchError(f"no game at {path}")
            return Process(self, exec_path=path, version=self.version, **kwargs)

    return Local


def reserve_port() -> tuple[socket.socket, int]:
    """(what to close to give it back, a free port that no other process gets from here).

    The reservation is a name in Linux's abstract space, which ends with the process that holds it.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        reserved = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            reserved.bind(f"\0starcraft-port-{port}")
            probe.bind(("127.0.0.1", port))
            return reserved, port
        reserved.close()
    raise OSError(f"no port is free from {PORTS.start} to {PORTS.stop - 1}")
