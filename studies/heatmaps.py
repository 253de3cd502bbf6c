"""Heat maps of what was learned in a two-agent matrix game, at several points of training, beside the payoff.

python studies/heatmaps.py results/studies/matrix_21x21 --out docs/reproduction
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from utils import command
from utils.args import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from envs.games.matrix_game import MatrixGame
    from utils.runs import Run


WIDTH, ROW = 7.2, 1.85  # inches: two columns of a paper; a row of panels
COLOURS = "viridis"  # its lightness rises with the value, so it says the same in grey
BEST: dict[str, Any] = dict(marker="*", ms=7, mfc="white", mec="black", mew=0.6, ls="none", label="best joint action")
LOCAL: dict[str, Any] = dict(
    marker="v", ms=4.5, mfc="white", mec="black", mew=0.6, ls="none", label="other local optimum"
)
GREEDY: dict[str, Any] = dict(marker="s", ms=9, mfc="none", mec="black", mew=2.2, ls="none")
GREEDY_INNER: dict[str, Any] = GREEDY | dict(mec="white", mew=1.0)
MEDIANS = ("gap", "max_abs_q_jt_error")  # columns of the CSV file that the console shows

DETAILS = """\
reads the checkpoints of the finished runs in or below PATH (a study with save_model_interval) and writes to DIR,
for a game of 21x21 actions,

  heatmaps_21x21.png, .pdf  the payoff, and the joint value of each algorithm at each of the steps, for one seed
  heatmaps_21x21.csv        for every algorithm, seed and step: the greedy joint action and what it pays, the gap
                            between the largest and the second largest joint value, max |Q_jt - payoff|

The joint value of QTRAN is Q'_jt + V_jt, where Q'_jt is the sum of the agents' values, which the paper shows. V_jt is
one number for all joint actions of a one-step game: it moves the colours, not the picture, and makes Q'_jt a payoff.
Of the others it is Q_tot. IQL has none: it is in the CSV file alone. At each step the nearest checkpoint is read.

exit status: 0 written; 2 bad input; 130 interrupted (Ctrl-C)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "studies/heatmaps.py",
        "Draw the joint values learned in a two-agent matrix game at several points of training.",
        DETAILS,
    )
    p.add_argument("path", metavar="PATH", help="a folder that holds runs, such as results/studies/matrix_21x21")
    p.add_argument("--out", metavar="DIR", required=True, help="where to write")
    p.add_argument("--seed", metavar="N", type=int, default=1, help="of the runs that are drawn (default: 1)")
    p.add_argument(
        "--steps", metavar="N", type=step, nargs="+", default=[2000, 10000, 20000, 40000],
        help="environment steps, one column each (default: 2000 10000 20000 40000)",
    )  # fmt: skip
    return p


def step(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def act(options: argparse.Namespace) -> int:
    runs = study_runs(options.path)
    seeds = sorted({run.config["seed"] for run in runs})
    if options.seed not in seeds:
        raise ConfigError(f"--seed={options.seed}: no finished run has it; there are: {', '.join(map(str, seeds))}")
    points = [point for run in runs for point in learned(run, sorted(set(options.steps)))]
    payoff = np.array(points[0].tables["payoff"])
    panels = {}  # {algorithm: the Learned of one row}
    for point in points:
        if point.seed == options.seed and point.value is not None:
            panels.setdefault(point.algorithm, []).append(point)
    name = f"heatmaps_{payoff.shape[0]}x{payoff.shape[1]}"
    write(Path(options.out), name, draw(payoff, panels, options.seed), points)
    tell(points)
    return 0


# ---- from runs to tables


@dataclass
class Learned:
    """What one checkpoint holds. tables: one of `tables.learned_tables`."""

    algorithm: str
    seed: int
    step: int
    tables: dict

    @property
    def value(self) -> NDArray[np.float64] | None:
        """The joint value [A_1, A_2] in the payoff's units; None of an algorithm that has none."""
        t = self.tables
        joint = t["q_jt"] if t["v_jt"] is None else np.array(t["q_prime"]) + t["v_jt"]
        return None if joint is None else np.array(joint)

    def row(self) -> dict[str, Any]:
        """Of the CSV file."""
        from tables import figures

        action_1, action_2 = self.tables["greedy_joint_action"]
        known = figures([self.tables])
        return {
            "algorithm": self.algorithm,
            "seed": self.seed,
            "step": self.step,
            "greedy_action_1": action_1,
            "greedy_action_2": action_2,
        } | {name: known[name] for name in ("greedy_payoff", "best_payoff", *MEDIANS)}


def study_runs(path: str | Path) -> list[Run]:
    """The finished runs of the one matrix game in or below `path`, QTRAN first."""
    from reporting.selection import check_paths
    from utils.runs import find_runs

    check_paths([path])
    runs = [run for run in find_runs(path) if run.status == "finished" and run.config["env"] == "matrix_game"]
    if not runs:
        raise ConfigError(f"{path}: no finished run of matrix_game; `python src/sweep.py` makes them")
    known = {}
    for run in runs:
        if run.config["env_args"] != runs[0].config["env_args"]:
            raise ConfigError(f"{runs[0].path} and {run.path} are of different games; give the folder of one")
        other = known.setdefault((run.config["name"], run.config["seed"]), run)
        if other is not run:
            raise ConfigError(f"{other.path} and {run.path} are the same algorithm with the same seed; keep one")
    names = sorted({name for name, _ in known}, key=lambda name: (not name.startswith("qtran"), name))
    return sorted(runs, key=lambda run: (names.index(run.config["name"]), run.config["seed"]))


def learned(run: Run, wanted: Sequence[int]) -> list[Learned]:
    """The Learned of a run at the checkpoints nearest to the steps `wanted`."""
    from utils.checkpoint import find_checkpoint

    steps = {find_checkpoint(run.path, step)[1] for step in wanted}
    if len(steps) < len(wanted):
        given, found = (", ".join(map(str, sorted(numbers))) for numbers in (wanted, steps))
        raise ConfigError(
            f"{run.path}: the checkpoints nearest to --steps {given} are those of {found} only; give steps that are "
            "further apart, or train with a smaller save_model_interval"
        )
    return [Learned(run.config["name"], run.config["seed"], step, tables_at(run, step)) for step in sorted(steps)]


def tables_at(run: Run, step: int) -> dict[str, Any]:
    """One of `tables.learned_tables`, from the run's checkpoint of a step."""
    from parts import Parts, readers
    from tables import learned_tables
    from utils.config import load_from
    from utils.logging import Logger

    loaded = {"checkpoint_path": str(run.path), "load_step": step, "evaluate": True}
    here = {"use_cuda": False, "env_workers": False}
    parts = Parts(load_from(run.path, loaded | here, readers).values, Logger(logging.getLogger("heatmaps")))
    game = cast("MatrixGame", parts.env)
    states = learned_tables(game, parts.learner, parts.scheme, parts.groups, parts.device)
    if len(states) != 1 or len(states[0]["q_i"]) != 2:
        raise ConfigError(f"{run.path}: only games of two agents with a single state can be drawn")
    return states[0]


# ---- from tables to files


def draw(payoff: NDArray[np.float64], panels: dict[str, list[Learned]], seed: int) -> Figure:
    """The Figure. panels: {algorithm: its Learned, one for each step}."""
    import matplotlib
    from matplotlib.figure import Figure

    from reporting.palette import STYLE

    n_columns = max(2, *map(len, panels.values())) if panels else 2
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.titleweight": "normal", "axes.titlesize": 7}):
        figure = Figure(figsize=(WIDTH, ROW * (1 + len(panels))), layout="constrained")
        grid = figure.add_gridspec(1 + len(panels), n_columns)
        image = panel(figure.add_subplot(grid[0, 0]), payoff, payoff, f"payoff\nthe best pays {payoff.max():g}")
        explain(figure.add_subplot(grid[0, 1:]), image, payoff, panels, seed)
        for row, (algorithm, points) in enumerate(panels.items(), start=1):
            for column, point in enumerate(points):
                u = tuple(point.tables["greedy_joint_action"])
                title = f"{algorithm}, {point.step:,} steps\ngreedy {u} pays {point.tables['greedy_payoff']:.3g}"
                panel(figure.add_subplot(grid[row, column]), point.value, payoff, title, u)
        figure.supxlabel("action of agent 2", fontsize=8)
        figure.supylabel("action of agent 1", fontsize=8)
    return figure


def panel(ax: Axes, values: Any, payoff: NDArray[np.float64], title: str, greedy: tuple[int, ...] | None = None) -> Any:
    """One heat map in the colours of the payoff's range; returns the image."""
    from matplotlib.ticker import MaxNLocator

    image = ax.imshow(values, cmap=COLOURS, vmin=payoff.min(), vmax=payoff.max())
    if greedy is not None:
        for style in (GREEDY, GREEDY_INNER):  # white on black shows on every colour
            ax.plot(greedy[1], greedy[0], **style)
    best, *others = optima(payoff)
    for u in others:
        ax.plot(u[1], u[0], **LOCAL)
    ax.plot(best[1], best[0], **BEST)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 5, 10]))
    ax.set_title(title)
    return image


def optima(payoff: NDArray[np.float64]) -> list[tuple[Any, ...]]:
    """Joint actions that pay more than all that lie beside them in the table, the best one first."""
    from scipy.ndimage import maximum_filter

    beside = np.ones((3, 3), dtype=bool)
    beside[1, 1] = False
    found = payoff > maximum_filter(payoff, footprint=beside, mode="constant", cval=-np.inf)
    found[np.unravel_index(payoff.argmax(), payoff.shape)] = True  # it may have an equal beside it
    return sorted(zip(*np.nonzero(found)), key=lambda u: -payoff[u])


def explain(ax: Axes, image: Any, payoff: NDArray[np.float64], panels: dict[str, list[Learned]], seed: int) -> None:
    """The colour scale, what is drawn and what the marks mean, in the room beside the payoff."""
    from matplotlib.lines import Line2D

    drawn = [v for points in panels.values() for point in points if (v := point.value) is not None]
    below, above = (any(v.min() < payoff.min() for v in drawn), any(v.max() > payoff.max() for v in drawn))
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    ax.axis("off")
    place = ax.inset_axes((0.04, 0.24, 0.92, 0.09))
    bar = ax.figure.colorbar(image, cax=place, orientation="horizontal", extend=extend)
    bar.set_label("payoff; of QTRAN $Q'_{jt} + V_{jt}$, of the others $Q_{tot}$", fontsize=7.5)
    handles = [Line2D([], [], **style) for style in (BEST, LOCAL)][: len(optima(payoff))]
    greedy: dict[str, Any] = GREEDY | dict(ms=6, mew=1.2, label=f"greedy joint action (seed {seed})")
    handles.append(Line2D([], [], **greedy))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1.0), frameon=False, fontsize=7.5)


def write(out: Path, name: str, figure: Figure, points: Sequence[Learned]) -> None:
    from reporting.figures import save

    png, pdf = save(figure)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.png").write_bytes(png)
        (out / f"{name}.pdf").write_bytes(pdf)
        with open(out / f"{name}.csv", "w", newline="") as f:
            rows = [point.row() for point in points]
            table = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written: {error.strerror}; give --out DIR") from error
    print(f"written: {out / name}.png, .pdf, .csv")


def tell(points: Sequence[Learned]) -> None:
    """On the console: over seeds, how often the best was found, and the medians of the CSV file."""
    from rich.console import Console
    from rich.table import Table

    groups = {}
    for point in points:
        groups.setdefault((point.algorithm, point.step), []).append(point.row())
    table = Table("algorithm", "step", "best found", "median gap", "median of max |Q_jt - payoff|")
    for (algorithm, at), rows in groups.items():
        best = sum(row["greedy_payoff"] == row["best_payoff"] for row in rows)
        columns = [[row[name] for row in rows] for name in rows[0] if name in MEDIANS]
        medians = ("–" if column[0] is None else f"{np.median(column):.3g}" for column in columns)
        table.add_row(algorithm, f"{at:,}", f"{best} of {len(rows)}", *medians)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
