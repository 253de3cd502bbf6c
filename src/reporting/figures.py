"""The figures of a report, drawn from the rows of `reporting/comparison.py`: for print, and for the colour-blind.

Every function returns a matplotlib Figure, 7.2 inches wide (two columns of a paper), one panel for each task.
"""

import io
import math
import textwrap
import warnings
from itertools import groupby
from operator import itemgetter

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reporting.formats import metric_label, plain
from reporting.palette import STYLE

WIDTH = 7.2  # inches
COLUMNS = 3
NAME_WIDTH = 24  # characters of a line of a name beside a panel
MOST_LINES = 4  # of a name


def save(figure):
    """(PNG, PDF) of a figure as bytes, the same for the same figure."""
    png, pdf = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")  # laid out once, not once for each file
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png.getvalue(), pdf.getvalue()


# ---- figures


def learning_curves(rows, style):
    panels = _panels(rows)
    figure, axes = _grid(len(panels), 1.75)
    unit, word = _step_unit(max(r["step"] for r in rows))
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for k, (algorithm, points) in enumerate(algorithms.items()):
                x = _column(points, "step") / unit
                line = style[algorithm] | {"markersize": 3.5, "markevery": _marks(k, algorithms, points)}
                ax.plot(x, _column(points, "iqm"), **line)
                ax.fill_between(
                    x, _column(points, "lower"), _column(points, "upper"), color=style[algorithm]["color"], alpha=0.18,
                    linewidth=0,
                )  # fmt: skip
            ax.set_title(_wrapped(task, 30))
            _tell_single(ax, algorithms, 0.98)
        _label_axes(figure, axes, f"environment steps{word}", [_axis_label(a) for a in panels.values()])
        _legend(figure, style, {r["algorithm"] for r in rows})
    return figure


def final(rows, runs, style):
    """runs: {(task, algorithm): values of single runs}"""
    panels = _panels(rows)
    names = [a for a in style if any(a in algorithms for algorithms in panels.values())]
    figure, axes = _grid(len(panels), 0.7 + _row_height(names) * len(names), sharey=True)
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for algorithm, (row,) in algorithms.items():
                y = names.index(algorithm)
                single = runs.get((task, algorithm), [])
                ax.plot(single, [y + 0.28] * len(single), "|", color=style[algorithm]["color"], markersize=4, mew=0.7)
                _interval(ax, row["iqm"], row, y, style[algorithm])
            ax.set_title(_wrapped(task, 30))
            ax.set_xlabel(_axis_label(algorithms))
        _name_rows(axes, names)
    return figure


def profiles(rows, style):
    panels = _panels(rows)
    figure, axes = _grid(len(panels), 1.75)
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for k, (algorithm, points) in enumerate(algorithms.items()):
                x = _column(points, "tau")
                line = style[algorithm] | {"markersize": 3.5, "markevery": _marks(k, algorithms, points)}
                ax.plot(x, _column(points, "share"), drawstyle="steps-post", **line)
                ax.fill_between(
                    x, _column(points, "lower"), _column(points, "upper"), step="post", alpha=0.12, linewidth=0,
                    color=line["color"],
                )  # fmt: skip
            ax.set(ylim=(-0.03, 1.03), xlabel=f"final {_metric(algorithms)} τ")
            ax.set_title(_wrapped(task, 30))
            _tell_single(ax, algorithms, 0.03)
        _label_axes(figure, axes, None, ["share of runs with score > τ"] * len(panels))
        _legend(figure, style, {r["algorithm"] for r in rows})
    return figure


def improvement(rows, style):
    tasks = {task: list(group) for task, group in groupby(rows, key=itemgetter("task"))}
    names = [a for a in style if any(a == r["x"] for r in rows)]
    longest = max(map(len, names))
    columns = int((WIDTH - 0.9 - 0.06 * min(longest, NAME_WIDTH)) / (0.24 * len(names)))  # of cells that hold 0.00
    figure, axes = _grid(
        len(tasks), 0.6 + max(0.25, _row_height(names)) * len(names), columns, sharey=True, sharex=True
    )
    across = dict(rotation=45, ha="right", rotation_mode="anchor") if longest <= 14 else {}
    short = names if longest <= 14 else range(1, len(names) + 1)
    with matplotlib.rc_context(STYLE):
        for ax, (task, pairs) in zip(axes, tasks.items()):
            table = np.full((len(names), len(names)), np.nan)
            for r in pairs:
                i, j = names.index(r["x"]), names.index(r["y"])
                table[i, j] = r["probability"]
                sure = r["lower"] > 0.5 or r["upper"] < 0.5
                text = f"{r['probability']:.2f}"
                ax.text(j, i, text, ha="center", va="center", fontsize=6, weight="bold" if sure else "normal")
            image = ax.imshow(table, cmap="PuOr_r", vmin=-0.3, vmax=1.3, aspect="auto")  # pale enough for black text
            ax.grid(False)
            ax.set_xticks(range(len(names)), short, **across)
            ax.set_title(_wrapped(task, 30))
        _name_rows(axes, names if short is names else [f"{name}  {k}" for k, name in zip(short, names)], invert=False)
        bar = figure.colorbar(image, ax=list(axes), shrink=min(1.0, 2 / figure.get_figheight()), aspect=15, pad=0.02)
        bar.ax.set_ylim(0, 1)
        bar.set_label("P(row ends better\nthan column)")
    return figure


def efficiency(rows, style, ends):
    """ends: {task: steps that its runs cover}, the right edge of its panel."""
    panels = _panels(rows)
    names = [a for a in style if any(a in algorithms for algorithms in panels.values())]
    figure, axes = _grid(len(panels), 0.7 + _row_height(names) * len(names), sharey=True)
    unit, word = _step_unit(max(ends.values()))
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            end = ends[task] / unit or 1.0
            for algorithm, (row,) in algorithms.items():
                _one_efficiency(ax, row, names.index(algorithm), unit, end, style[algorithm])
            threshold = next(iter(algorithms.values()))[0]["threshold"]
            goal = f"to {_metric(algorithms)} ≥ {threshold:.3g}"
            goal = "no threshold: nothing improved" if math.isnan(threshold) else goal
            ax.set(xlim=(0, end), xlabel=f"environment steps{word}\n{goal}")
            ax.set_title(_wrapped(task, 30))
        _name_rows(axes, names)
        _label_axes(figure, axes, None, None)
    return figure


def _one_efficiency(ax, row, y, unit, end, style):
    """The median of one algorithm in row y; what lies beyond `end` is an arrow there."""
    scaled = {k: min(row[k] / unit, end) for k in ("lower", "upper", "median_steps")}
    if math.isfinite(row["median_steps"]):
        _interval(ax, scaled["median_steps"], scaled, y, style)
    if math.inf in (row["median_steps"], row["upper"]):
        ax.plot(end, y, ">", color=style["color"], markersize=4, clip_on=False, mfc="white")
    text = f"{row['reached']}/{row['n']}"
    ax.text(1.04, y, text, transform=ax.get_yaxis_transform(), fontsize=6.5, va="center")


# ---- parts of figures


def _panels(rows):
    """{task: {algorithm: rows}} in the order of the rows."""
    out = {}
    for row in rows:
        out.setdefault(row["task"], {}).setdefault(row["algorithm"], []).append(row)
    return out


def _column(rows, name):
    return np.array([row[name] for row in rows])


def _grid(n, height, columns=COLUMNS, **share):
    """A figure with n panels, each `height` inches high, in at most so many columns, and the list of its axes."""
    columns = 2 if n == 4 and columns > 2 else max(1, min(n, columns, COLUMNS))
    n_rows = -(-n // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH if n > 1 else WIDTH * 0.6, 0.3 + n_rows * (height + 0.35)), layout="constrained")
        axes = figure.subplots(n_rows, columns, squeeze=False, **share).ravel()
        for ax in axes[n:]:
            ax.remove()
        for ax in axes[max(0, n - columns) : n]:  # the lowest of their columns
            ax.tick_params(labelbottom=True)
    return figure, axes[:n]


def _marks(k, algorithms, points):
    """Where the k-th line has its markers: apart from those of the others, so that coinciding lines all show."""
    every = -(-len(points) // 5)
    return every * k // len(algorithms), every


def _interval(ax, middle, row, y, style):
    """A point, and its interval where there is one."""
    colour = style["color"]
    if math.isfinite(row["lower"]):
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, linewidth=2, alpha=0.6)
    ax.plot(middle, y, style["marker"], color=colour, markersize=4.5)


def _name_rows(axes, names, invert=True):
    for ax in axes:
        ax.set_yticks(range(len(names)), [_wrapped(name, NAME_WIDTH) for name in names])
        ax.tick_params(axis="y", length=0)
        if invert:
            ax.set_ylim(len(names) - 0.4, -0.6)


def _tell_single(ax, algorithms, y):
    """Say in the panel, at height y, who has one run and therefore no interval."""
    single = [name for name, points in algorithms.items() if points[0]["n"] == 1]
    if single:
        who = "all" if len(single) == len(algorithms) else ", ".join(single)
        place = dict(transform=ax.transAxes, fontsize=6, va="top" if y > 0.5 else "bottom", color="#444444")
        box = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=0.5)
        ax.text(0.02, y, _wrapped(f"one seed, no interval: {who}", 40, most_lines=20), bbox=box, **place)


def _metric(algorithms):
    return _wrapped(plain(metric_label(next(iter(algorithms.values()))[0]["metric"])), 40)


def _axis_label(algorithms):
    return f"{_metric(algorithms)}\n(IQM, 95 % interval)"


def _label_axes(figure, axes, x, ys):
    """One label for all panels where it holds for all."""
    if x:
        figure.supxlabel(x, fontsize=8)
    if ys and len(set(ys)) == 1:
        figure.supylabel(ys[0], fontsize=8, multialignment="center")
    elif ys:
        for ax, y in zip(axes, ys):
            ax.set_ylabel(y)
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(5))


def _row_height(names):
    """Inches that a row needs for the longest name."""
    return 0.08 + 0.12 * max(_lines(_wrapped(name, NAME_WIDTH)) for name in names)


def _wrapped(name, width: int, most_lines: int = MOST_LINES) -> str:
    """In lines of `width` characters; of a name that is too long the middle is left out, for the end tells it apart."""
    half = width * most_lines // 2
    return textwrap.fill(name if len(name) <= 2 * half else f"{name[: half - 1]}…{name[-half:]}", width)


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _legend(figure, style, names):
    """One for all panels, above them; the figure grows by what it takes."""
    handles = [Line2D([], [], **style[name], markersize=3.5, label=name) for name in style if name in names]
    most = int((figure.get_figwidth() - 0.8) / 0.07)  # characters of a line, about
    labels = [_wrapped(line.get_label(), most) for line in handles]
    widest = 0.45 + 0.06 * min(most, max(len(name) for name in names))  # inches
    n_rows = -(-len(handles) // max(1, int(figure.get_figwidth() / widest)))
    columns = -(-len(handles) // n_rows)
    figure.set_figheight(figure.get_figheight() + 0.17 * (n_rows if columns > 1 else sum(map(_lines, labels))))
    place = dict(loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)
    legend = figure.legend(handles, ["name"] * len(handles), **place)
    for text, label in zip(legend.get_texts(), labels):  # now: matplotlib leaves out labels that begin with _
        text.set_text(label)


def _step_unit(most):
    """(steps in a unit, its name)"""
    return (1e6, " (millions)") if most >= 1e6 else (1e3, " (thousands)") if most >= 1e4 else (1, "")
