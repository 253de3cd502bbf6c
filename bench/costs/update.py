"""`run.py update`: one update of QTRAN-base and QTRAN-alt, and of the comparators, on shapes of battles.

Beside the times stands what our graph asks for: its products of matrices at the rate of one large product, which is a
floor, and the bytes that its operations read and write at the rate of one large copy, which caches can beat.
"""

from dataclasses import replace

from costs.options import Options
from costs.report import Notes, Table, measure
from costs.sides import Job, quartiles, spread
from costs.sizes import BATTLES, SMALL, UNEVEN

# {peer: the algorithms that are measured beside it}
ALGORITHMS = {
    "epymarl": ("base", "alt"),
    "starry": ("alt",),
    "pymarl2": ("qplex",),
    "wqmix": ("ow_qmix", "cw_qmix"),
    "resq": ("resq",),
}
THEIRS = {"epymarl": "base", "starry": "alt"}  # what the peer learns; the others learn the row's algorithm
COLUMNS = ["update", "ours, ms", "{peer}, ms", "{peer} / ours", "products, ms", "bytes, ms", "ours / products"]


def run(options: Options, notes: Notes) -> None:
    """A row for each algorithm, shape and kind of lengths, and for each peer that learns it."""
    shapes = {"small": SMALL} if options.quick else BATTLES
    clock = "wall" if options.device == "cuda" else "cpu"
    every = [name for names in ALGORITHMS.values() for name in names]
    for peer in options.peers_of(*ALGORITHMS) or [None]:
        name = f"{peer.name}'s {THEIRS.get(peer.kind, '')}".removesuffix("'s ") if peer else "peer"
        table = Table("One update (median, quartiles)", [column.format(peer=name) for column in COLUMNS])
        named = tuple(name for name in dict.fromkeys(every) if name in options.only)
        for algorithm in ALGORITHMS[peer.kind] if peer else named or ("base", "alt"):
            for shape, full in shapes.items():
                for kind in ("full", "uneven"):
                    label = f"{algorithm} {shape} {kind}"
                    if not options.wants(label):
                        continue
                    sizes = full if kind == "full" else replace(full, shortest=round(UNEVEN * full.steps))
                    _row(options, notes, table, f"{label}, {sizes.batch} episodes", algorithm, sizes, peer, clock)


def _row(options, notes, table, label, algorithm, sizes, peer, clock) -> None:
    about = {}
    shared = {"threads": options.threads, "cores": options.threads, "device": options.device}
    arguments = {"sizes": sizes.as_dict()}
    ours = f"qtran_{algorithm}" if algorithm in ("base", "alt") else algorithm
    jobs = {"ours": Job("ours:update", arguments | {"algorithm": ours, "keys": options.keys}, **shared)}
    if peer:
        side = "authors" if peer.kind not in THEIRS else peer.kind
        theirs = arguments | {"path": peer.path} | ({"algorithm": algorithm} if side == "authors" else {})
        jobs[peer.name] = Job(f"{side}:update", theirs, python=options.python, **shared)
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
