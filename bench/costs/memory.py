"""`run.py memory`: a run's peak of memory above its replay; or, with --minutes, whether a long run's memory grows."""

from costs import growth
from costs.games import Rules
from costs.options import Options
from costs.ours import PYMARL
from costs.report import Notes, Table, measure
from costs.sides import Job, spread
from costs.sizes import BATTLES, SMALL

COLUMNS = ["QTRAN-base", "ours, MiB", "EPyMARL, MiB", "ours / EPyMARL", "replay", "before the run"]
MIB = 2**20


def run(options: Options, notes: Notes) -> None:
    """The most memory that a process of training has held, less its replay: 64 full episodes, updates of 32, one
    environment in the same process."""
    if options.minutes is not None:
        growth.watch(options.minutes, options.rest)
        return
    table = Table("Peak of a run's memory above its replay (median, quartiles)", COLUMNS)
    peer = next(iter(options.peers_of("epymarl")), None)
    for name in ("small",) if options.quick else ("MMM2",):
        if not options.wants(name):
            continue
        size = SMALL if options.quick else BATTLES[name]
        rules = Rules(size.agents, size.actions, size.obs, size.state, size.steps, size.steps).as_dict()
        keys = {
            "batch_size_run": 1,
            "buffer_size": 64,
            "batch_size": size.batch,
            "t_max": (size.batch + 4) * size.steps,
        }
        shared = {"threads": options.threads, "cores": options.threads, "device": options.device, "fresh": True}
        ours = {"algorithm": "qtran_base", "env": "two_step", "rules": rules, "keys": PYMARL | keys | options.keys}
        jobs = {"ours": Job("ours:whole", ours, **shared)}
        if peer:
            theirs = {"path": peer.path, "algorithm": "qtran", "rules": rules, "keys": keys}
            jobs["EPyMARL"] = Job("epymarl:whole", theirs, python=options.python, **shared)

        def row(turns: dict, name: str = name) -> None:
            sides = [turns.get(side, []) for side in ("ours", "EPyMARL")]
            above = [[(t["peak"] - t["replay"]) / MIB for t in side] for side in sides]
            also = [", ".join(f"{s[0][what] / MIB:.0f}" for s in sides if s) for what in ("replay", "imported")]
            table.add(name, *(spread(a) for a in above), spread([a / b for a, b in zip(*above)], 2), *also)

        measure(row, jobs, options.repeats or (1 if options.quick else 3), notes)
