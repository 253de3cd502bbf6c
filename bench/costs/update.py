"""`run.py update`: one update of QTRAN-base and QTRAN-alt on shapes of battles.

Beside the times stands what our graph asks for: its products of matrices at the rate of one large product, which is a
floor, and the bytes that its operations read and write at the rate of one large copy, which caches can beat.
"""

from dataclasses import replace

from costs.options import Options, Peer
from costs.report import Notes, Table, measure
from costs.sides import Job, quartiles, spread
from costs.sizes import BATTLES, SMALL, UNEVEN, Sizes

COLUMNS = ["update", "ours, ms", "{peer}, ms", "{peer} / ours", "products, ms", "bytes, ms", "ours / products"]


def run(options: Options, notes: Notes) -> None:
    """A row for each algorithm, shape and kind of lengths, and for each peer that learns it."""
    shapes = {"small": SMALL} if options.quick else BATTLES
    clock = "wall" if options.device == "cuda" else "cpu"
    for peer in options.peers_of("epymarl", "starry") or [None]:
        name = "peer" if peer is None else f"{peer.name}'s {'base' if peer.kind == 'epymarl' else 'alt'}"
        table = Table("One update (median, quartiles)", [column.format(peer=name) for column in COLUMNS])
        for algorithm in ("base", "alt"):
            for shape, full in shapes.items():
                for kind in ("full", "uneven"):
                    label = f"{algorithm} {shape} {kind}"
                    if not options.wants(label) or (peer and peer.kind == "starry" and algorithm == "base"):
                        continue
                    sizes = full if kind == "full" else replace(full, shortest=round(UNEVEN * full.steps))
                    _row(options, notes, table, f"{label}, {sizes.batch} episodes", algorithm, sizes, peer, clock)


def _row(
    options: Options,
    notes: Notes,
    table: Table,
    label: str,
    algorithm: str,
    sizes: Sizes,
    peer: Peer | None,
    clock: str,
) -> None:
    about = {}
    shared = {"threads": options.threads, "cores": options.threads, "device": options.device}
    arguments = {"sizes": sizes.as_dict()}
    jobs = {"ours": Job("ours:update", arguments | {"algorithm": algorithm, "keys": options.keys}, **shared)}
    if peer:
        jobs[peer.name] = Job(f"{peer.kind}:update", arguments | {"path": peer.path}, python=options.python, **shared)
    jobs["machine"] = Job("machine:rates", **shared)

    def row(turns: dict) -> None:
        about.update(turns["about"]["ours"])
        ours = [turn[clock] / turn["updates"] for turn in turns["ours"]]
        theirs = [turn[clock] / turn["updates"] for turn in turns[peer.name]] if peer else []
        products = [about["flops"] / turn["flops"] for turn in turns["machine"]]
        moved = [about["bytes"] / turn["bytes"] for turn in turns["machine"]]
        milliseconds = [[1000 * t for t in times] for times in (ours, theirs)]
        table.add(
            label, *(spread(times, 1) for times in milliseconds), spread([b / a for a, b in zip(ours, theirs)], 2),
            f"{1000 * quartiles(products)[1]:.1f}", f"{1000 * quartiles(moved)[1]:.1f}",
            spread([a / f for a, f in zip(ours, products)], 1),
        )  # fmt: skip

    measure(row, jobs, options.repeats or (2 if options.quick else 15), notes)
