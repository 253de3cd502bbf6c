"""A network that goes wrong on demand: a proxy on loopback between pymongo and a server, `wire_mongo.WireMongo`."""

import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 65536  # bytes read at once
KINDS = ("drop", "stall", "delay", "garble")


@dataclass(frozen=True)
class Fault:
    """What happens to a connection, after `after` bytes of one direction: way "requests" or "answers".

    drop: it is closed. stall: nothing more gets through, and nobody is told. delay: each piece waits `seconds`.
    garble: a few bytes of each piece are others, drawn by `seed`.
    """

    kind: str
    way: str = "answers"
    after: int = 0
    seconds: float = 0.0
    seed: int = 0


class Network(socketserver.ThreadingTCPServer):
    """Passes on to 127.0.0.1:`server_port` what comes to its own port. url: for pymongo.

    fault: what happens to the n-th connection, from 0; it may be changed at any time, and acts on what comes then.
    What has stalled gets through once the fault is gone. opened: connections so far.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, server_port: int, fault: Callable[[int], Fault | None] = lambda n: None):
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"mongodb://127.0.0.1:{self.server_address[1]}"
        self.server_port, self.fault = server_port, fault
        self.opened, self.closed = 0, False
        self.counting = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def all(self, fault: Fault | None) -> None:
        """From now on this happens to each connection, old or new; None: nothing does."""
        self.fault = lambda n: fault

    def __exit__(self, *exception):
        self.closed = True
        self.shutdown()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: Network

    def handle(self):
        with self.server.counting:
            self.number, self.server.opened = self.server.opened, self.server.opened + 1
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.server_port)) as further:
            pairs = (self.request, further, "requests"), (further, self.request, "answers")
            pumps = [threading.Thread(target=self.pump, args=pair, daemon=True) for pair in pairs]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()

    def pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        passed = 0
        with suppress(OSError):  # one of the two has left
            while data := source.recv(CHUNK):
                data = self.spoil(data, way, passed, target)
                target.sendall(data)
                passed += len(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def spoil(self, data: bytes, way: str, passed: int, target: socket.socket) -> bytes:
        """What gets through of `data`, when it does; OSError where the connection ends here."""
        fault = self.fault(way, passed + len(data))
        if fault is None:
            return data
        at = max(0, fault.after - passed)  # where in `data` the fault begins
        if fault.kind == "delay":
            time.sleep(fault.seconds)
        elif fault.kind == "garble":
            return data[:at] + _garbled(data[at:], way, random.Random(f"{fault.seed} {self.number} {way} {passed}"))
        else:
            target.sendall(data[:at])
            while fault.kind == "stall" and self.fault(way, passed + len(data)) == fault and not self.server.closed:
                time.sleep(0.005)
            if fault.kind == "drop":
                raise ConnectionAbortedError
            return data[at:]
        return data

    def fault(self, way: str, passed: int) -> Fault | None:
        """The fault that acts on a piece which ends at the byte `passed` of its direction."""
        fault = self.server.fault(self.number)
        return fault if fault and fault.way in (way, "both") and passed > fault.after else None


def _garbled(data: bytes, way: str, rng: random.Random) -> bytes:
    """In an answer anything may stand. In a request bytes that no text has: a server refuses most of it, as the check
    sums of TCP do, and what is stored does not look right."""
    at = rng.randrange(max(1, len(data)))
    new = rng.randbytes(rng.randint(1, 16)) if way == "answers" else b"\xff" * 8
    return (data[:at] + new + data[at + len(new) :])[: len(data)]
