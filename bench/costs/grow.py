"""`run.py grow`: how cost grows with agents, actions, steps and environments; a table and a figure."""

from dataclasses import replace

from costs.options import Options
from costs.report import Notes, Table, measure
from costs.sides import BadInput, Job, quartiles, spread
from costs.sizes import BATTLES, SMALL

COLUMNS = ["what grows", "base, ms", "alt, ms", "EPyMARL's base, ms"]
SIDES = ("base", "alt", "EPyMARL")
SERIES = {"agents": (2, 5, 10, 20, 40), "actions": (6, 11, 20, 40, 80), "steps": (30, 60, 120, 240)}
ENVIRONMENTS = (1, 2, 4, 8, 16, 32, 64)


def run(options: Options, notes: Notes) -> None:
    """An update on 2s3z's shapes with one of them changed, then acting with more environments."""
    if options.figure is not None and not options.figure.endswith((".png", ".svg", ".pdf")):
        raise BadInput(f"--figure {options.figure}: give a name that ends in .png, .svg or .pdf")
    clock = "wall" if options.device == "cuda" else "cpu"
    peer = next(iter(options.peers_of("epymarl")), None)
    shared = {"threads": options.threads, "cores": options.threads, "device": options.device}
    base = SMALL if options.quick else BATTLES["2s3z"]
    drawn: dict = {}  # {what grows: {side: [(size, value)]}}

    def point(table: Table, what: str, size: int, jobs: dict, per: str, unit: float) -> None:
        def row(turns: dict) -> None:
            cells = []
            for side in SIDES if per == "updates" else ("base", "EPyMARL"):
                values = [unit * t[clock] / t[per] for t in turns.get(side, [])]
                if values:
                    drawn.setdefault(what, {}).setdefault(side, []).append((size, quartiles(values)[1]))
                cells.append(spread(values, 1))
            table.add(f"{what} {size}", *cells)

        measure(row, jobs, options.repeats or (1 if options.quick else 5), notes)

    table = Table("One update (median, quartiles)", COLUMNS)
    for what, sizes in SERIES.items():
        for size in sizes[:1] if options.quick else sizes:
            if not options.wants(f"{what} {size}"):
                continue
            arguments = {"sizes": replace(base, **{what: size}).as_dict()}
            jobs = {
                side: Job("ours:update", arguments | {"algorithm": side, "keys": options.keys}, **shared)
                for side in ("base", "alt")
            }
            if peer:
                jobs["EPyMARL"] = Job(
                    "epymarl:update", arguments | {"path": peer.path}, python=options.python, **shared
                )
            point(table, what, size, jobs, "updates", 1000)
    columns = ["what grows", "ours, µs", "EPyMARL, µs"]
    table = Table("Acting, CPU time an environment step (median, quartiles)", columns)
    for n_envs in ENVIRONMENTS[:1] if options.quick else ENVIRONMENTS:
        if not options.wants(f"environments {n_envs}"):
            continue
        arguments = {"sizes": base.as_dict(), "n_envs": n_envs, "rounds": 1 if options.quick else 3}
        jobs = {"base": Job("ours:act", arguments | {"keys": options.keys}, **shared)}
        if peer:
            jobs["EPyMARL"] = Job("epymarl:act", arguments | {"path": peer.path}, python=options.python, **shared)
        point(table, "environments", n_envs, jobs, "steps", 1e6)
    if options.figure is not None and drawn:
        draw(drawn, options.figure)


def draw(drawn: dict, path: str) -> None:
    """drawn: {what grows: {side: [(size, value)]}}."""
    import matplotlib
    import matplotlib.ticker

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(drawn), figsize=(3.6 * len(drawn), 3.2), squeeze=False)
    styles = {"base": ("#1f77b4", "o", "QTRAN-base"), "alt": ("#d62728", "s", "QTRAN-alt"),
              "EPyMARL": ("#7f7f7f", "^", "EPyMARL's base")}  # fmt: skip
    for axis, (what, sides) in zip(axes[0], drawn.items()):
        for side, points in sides.items():
            colour, marker, label = styles[side]
            axis.plot(*zip(*points), color=colour, marker=marker, label=label)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xticks([size for size, _ in next(iter(sides.values()))])
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        values = [value for points in sides.values() for _, value in points]
        axis.set_ylim(min(values) / 1.6, max(values) * 1.6)  # room for more than one power of two
        axis.set_xlabel(what)
        axis.set_ylabel("acting, µs an environment step" if what == "environments" else "an update, ms")
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"figure: {path}")
