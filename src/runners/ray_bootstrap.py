"""How an actor comes to the program's code: its class is sent whole, and imports it once its paths are set."""

import functools
from typing import Any


@functools.cache
def carrier_class() -> Any:
    """The class of actors, for Ray to start. What it is given and answers is pickled, as modules of a user's own may
    not be known before the paths are."""
    import ray

    class Carrier:
        def __init__(self, paths: list[str], first: bool, folder: str, arguments: bytes):
            """first: whether these paths come before those of Ray's own. folder: to be in, where it exists."""
            import os
            import pickle
            import sys

            at = 0 if first else len(sys.path)
            sys.path[at:at] = paths
            if os.path.isdir(folder):
                os.chdir(folder)
            sys.modules["__main__"].__dict__.pop("__file__", None)  # worker processes would import Ray's main module
            from runners.ray_actor import Player

            self.player = Player(*pickle.loads(arguments))

        @ray.method(concurrency_group="talk")
        def hello(self) -> bytes:
            import pickle

            return pickle.dumps(self.player.hello())

        def prepare(self, arguments: bytes) -> None:
            import pickle

            self.player.prepare(*pickle.loads(arguments))

        def order(self, orders: list, taken: dict) -> None:
            self.player.order(orders, taken)

        def leave(self, envs: list[int]) -> None:
            self.player.leave(envs)

        def abandon(self) -> None:
            self.player.abandon()

        @ray.method(concurrency_group="talk")
        def collect(self) -> bytes:
            import pickle

            return pickle.dumps(self.player.collect(), protocol=5)

        def close(self) -> None:
            self.player.close()

    Carrier.__name__ = Carrier.__qualname__ = "Rollouts"
    remote: Any = ray.remote
    return remote(concurrency_groups={"talk": 1})(Carrier)
