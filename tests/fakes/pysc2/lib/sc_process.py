"""The process of a game, without the game's protocol: it starts, and ends when it is closed."""

import os
import time


class SC2LaunchError(Exception):
    pass


class StarcraftProcess:
    def __init__(self, run_config, exec_path, version, port=None, timeout_seconds=None):
        self.port, self.timeout = port, timeout_seconds
        self._proc = self._launch(run_config, [exec_path, "-port", str(port)])
        while not os.path.exists(f"{os.environ['FAKE_GAMES']}/{self._proc.pid}"):  # it is there now
            time.sleep(0.01)

    def close(self):
        self._proc.kill()
        self._proc.wait()
