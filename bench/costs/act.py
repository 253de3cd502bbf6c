"""`run.py act`: playing without learning, in games that cost nothing."""

from costs.options import Options
from costs.report import Notes, Table, measure
from costs.sides import Job, spread
from costs.sizes import BATTLES, SMALL

COLUMNS = ["acting and storing", "ours, µs a step", "EPyMARL, µs a step", "EPyMARL / ours"]


def run(options: Options, notes: Notes) -> None:
    """A row for 1 and for 8 environments of 2s3z's shapes; episodes of 120 steps, the agents' GRU, ε = .05."""
    table = Table("Acting, CPU time an environment step (median, quartiles)", COLUMNS)
    clock = "wall" if options.device == "cuda" else "cpu"
    peer = next(iter(options.peers_of("epymarl")), None)
    for n_envs in (1, 8):
        label = f"{n_envs} environment{'s' * (n_envs > 1)}"
        if not options.wants(label):
            continue
        sizes = SMALL if options.quick else BATTLES["2s3z"]
        shared = {"threads": options.threads, "cores": options.threads, "device": options.device}
        arguments = {"sizes": sizes.as_dict(), "n_envs": n_envs, "rounds": 1 if options.quick else 5}
        jobs = {"ours": Job("ours:act", arguments | {"keys": options.keys}, **shared)}
        if peer:
            jobs["EPyMARL"] = Job("epymarl:act", arguments | {"path": peer.path}, python=options.python, **shared)

        def row(turns: dict, label: str = label) -> None:
            costs = {name: [1e6 * t[clock] / t["steps"] for t in turns.get(name, [])] for name in ("ours", "EPyMARL")}
            ratios = [b / a for a, b in zip(costs["ours"], costs["EPyMARL"])]
            table.add(label, spread(costs["ours"]), spread(costs["EPyMARL"]), spread(ratios, 2))

        measure(row, jobs, options.repeats or (2 if options.quick else 15), notes)
