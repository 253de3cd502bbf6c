"""What the command line asks for."""

import sys
from dataclasses import dataclass, field

from costs.peers import Peer


@dataclass(frozen=True)
class Options:
    """only: words that a row's label must hold. keys: of our configuration, over those of a row. repeats: turns of each
    side; None: as many as the subcommand finds enough. sleep: milliseconds of a step of `collect`, least and most.
    python: the peers' interpreter. figure: where `grow` draws. rest: words after `--`."""

    peers: tuple[Peer, ...] = ()
    device: str = "cpu"
    threads: int = 1
    repeats: int | None = None
    quick: bool = False
    only: tuple[str, ...] = ()
    keys: dict = field(default_factory=dict)
    python: str = sys.executable
    staleness: tuple[int, ...] = (0,)
    sleep: tuple[float, float] = (5.0, 15.0)
    updates: bool = False
    minutes: float | None = None
    figure: str | None = None
    rest: tuple[str, ...] = ()

    def wants(self, label: str) -> bool:
        return set(self.only) <= set(label.replace(",", "").split())

    def peers_of(self, *kinds: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.kind in kinds]
