"""The figures of a report, drawn from the rows of `reporting/comparison.py`: for print, and for the colour-blind.

Every function returns a matplotlib Figure, 7.2 inches wide (two columns of a paper), one panel for each task. names:
what algorithms and tasks are called. Panels with the same metric have the same axis; where that would press one game
into a fifth of it or less, only those of one game have.
"""

import io
import math
import warnings
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from reporting import layout
from reporting.comparison import ALL_TASKS, Row
from reporting.labels import Names
from reporting.palette import STYLE, Styles

Curves = tuple[np.ndarray, np.ndarray]  # steps [T], values [T, n]


def save(figure: Figure) -> tuple[bytes, bytes]:
    """(PNG, PDF) of a figure as bytes, the same for the same figure."""
    png, pdf = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there
        for ax in figure.axes:
            _spare(ax)
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")  # laid out once, not once for each file
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png.getvalue(), pdf.getvalue()


def _spare(ax: Axes) -> None:
    """Spare matplotlib what it would look for again and again and not find: a fifth of the time of a figure."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.remove_overlapping_locs = False  # there are no minor ticks
        if not axis.get_label_text():
            axis.set_label_coords(0.5, 0.5)  # the place of no label
    for spine in ax.spines.values():
        spine.set_in_layout(False)  # they lie on the edge of the panel


# ---- figures


def learning_curves(
    rows: list[Row], style: Styles, names: Names, single: dict[tuple[str, str], Curves] | None = None, smooth: int = 1
) -> Figure:
    """single: {(task, algorithm): (steps [T], values [T, n])} of the runs that are drawn one by one, thin. smooth: the
    evaluations that a point is the mean of."""
    panels, single = layout.by_panel(rows), single or {}
    figure, axes = layout.grid([1.75] * len(panels))
    unit, word = layout.step_unit(max(r["step"] for r in rows))
    spans = {}
    for task, algorithms in panels.items():
        values = [
            v for points in algorithms.values() for k in ("iqm", "lower", "upper") for v in layout.column(points, k)
        ]
        values += [v for (t, _), (_, runs) in single.items() if t == task for v in runs.ravel()]
        spans[task] = layout.span(values)
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for k, (algorithm, points) in enumerate(algorithms.items()):
                colour = style[algorithm]["color"]
                if (task, algorithm) in single:
                    steps, values = single[task, algorithm]
                    ax.plot(steps / unit, values, color=colour, linewidth=0.5, alpha=0.65)
                x, iqm, n = (
                    layout.column(points, "step") / unit,
                    layout.column(points, "iqm"),
                    layout.column(points, "n"),
                )
                line = style[algorithm] | {"markersize": 3.5, "markevery": layout.marks(k, algorithms, points)}
                ax.plot(x, iqm, **line)
                fewer = np.flatnonzero(np.diff(n) < 0)
                ax.plot(x[fewer], iqm[fewer], "x", color=colour, markersize=5, mew=1.2)
                band = layout.column(points, "lower"), layout.column(points, "upper")
                ax.fill_between(x, *band, color=colour, alpha=0.18, linewidth=0)
            layout.set_title(ax, names.task(task))
            layout.tell_single(ax, algorithms, names, 0.98)
        mean = f"; mean of {smooth} tests" if smooth > 1 else ""
        labels = [f"{layout.metric_name(a)}\n(IQM, 95 % interval{mean})" for a in panels.values()]
        layout.label_axes(figure, axes, f"environment steps{word}", labels)
        layout.equal_axes(axes, panels, spans, names, "y")
        layout.one_length(
            axes, [max(p["step"] for points in a.values() for p in points) / unit for a in panels.values()]
        )
        layout.legend(figure, style, {r["algorithm"] for r in rows}, names)
    return figure


def final(
    rows: list[Row],
    runs: Mapping[tuple[str, str], list[float]],
    style: Styles,
    names: Names,
    over_all: tuple[str, str] = ("", ""),
) -> Figure:
    """runs: {(task, algorithm): values of single runs}. over_all: (title, scale) of the panel of all tasks."""
    panels = layout.by_panel(rows)
    figure, axes, shown = layout.row_grid(panels, style, names)
    spans = {}
    for task, algorithms in panels.items():
        values = [row[k] for (row,) in algorithms.values() for k in ("iqm", "lower", "upper")]
        spans[task] = layout.span(values + [v for a in algorithms for v in runs.get((task, a), [])])
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms), here in zip(axes, panels.items(), shown):
            for algorithm, (row,) in algorithms.items():
                y = here.index(algorithm)
                values = runs.get((task, algorithm), [])
                ax.plot(values, [y + 0.28] * len(values), "|", color=style[algorithm]["color"], markersize=4, mew=0.7)
                layout.draw_interval(ax, row["iqm"], row, y, style[algorithm])
            layout.name_rows(ax, here, names)
            layout.set_title(ax, over_all[0] if task == ALL_TASKS else names.task(task))
            ax.set_xlabel(
                layout.axis_label(algorithms) + (layout.scale_words(over_all[1]) if task == ALL_TASKS else "")
            )
        layout.equal_axes(axes, panels, spans, names, "x")
    return figure


def profiles(rows: list[Row], style: Styles, names: Names, over_all: tuple[str, str] = ("", "")) -> Figure:
    panels = layout.by_panel(rows)
    figure, axes = layout.grid([1.75] * len(panels))
    spans = {task: layout.span([r["tau"] for points in algs.values() for r in points]) for task, algs in panels.items()}
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for k, (algorithm, points) in enumerate(algorithms.items()):
                x = layout.column(points, "tau")
                line = style[algorithm] | {"markersize": 3.5, "markevery": layout.marks(k, algorithms, points)}
                ax.plot(x, layout.column(points, "share"), drawstyle="steps-post", **line)
                band = layout.column(points, "lower"), layout.column(points, "upper")
                ax.fill_between(x, *band, step="post", alpha=0.12, linewidth=0, color=line["color"])
            scale = layout.scale_words(over_all[1]) if task == ALL_TASKS else ""
            ax.set(ylim=(-0.03, 1.03), xlabel=f"final {layout.metric_name(algorithms)} τ{scale}")
            layout.set_title(ax, over_all[0] if task == ALL_TASKS else names.task(task))
            layout.tell_single(ax, algorithms, names, 0.03)
        layout.label_axes(figure, axes, None, ["share of runs with score > τ"] * len(panels))
        layout.equal_axes(axes, panels, spans, names, "x")
        for ax in axes:
            if layout.place(ax)[1]:
                ax.tick_params(labelleft=False)
        layout.legend(figure, style, {r["algorithm"] for r in rows}, names)
    return figure


def improvement(rows: list[Row], style: Styles, names: Names) -> Figure:
    tasks = {task: list(group) for task, group in groupby(rows, key=itemgetter("task"))}
    every = [a for a in style if any(a == r["x"] for r in rows)]
    shown = [[a for a in every if any(a == r["x"] for r in pairs)] for pairs in tasks.values()]
    same = all(here == shown[0] for here in shown)
    longest = max(len(names.algorithm(a)) for a in every)
    most = max(map(len, shown))
    beside = 0.9 + 0.06 * min(longest, layout.NAME_WIDTH)  # inches of the names and the scale
    room = (layout.WIDTH - beside) if same else layout.WIDTH
    columns = int(room / (0.24 * most + (0 if same else beside)))  # of cells that hold 0.00
    heights = [0.6 + max(0.25, layout.row_height(here, names)) * len(here) for here in shown]
    share = dict(sharey=True, sharex=True) if same else {}
    figure, axes = layout.grid(heights, columns, **share)
    across: dict[str, Any] = dict(rotation=45, ha="right", rotation_mode="anchor") if longest <= 14 else {}
    image: Any = None
    with matplotlib.rc_context(STYLE):
        for ax, (task, pairs), here in zip(axes, tasks.items(), shown):
            table = np.full((len(here), len(here)), np.nan)
            for r in pairs:
                i, j = here.index(r["x"]), here.index(r["y"])
                table[i, j] = r["probability"]
                sure = r["lower"] > 0.5 or r["upper"] < 0.5
                text = f"{r['probability']:.2f}"
                ax.text(j, i, text, ha="center", va="center", fontsize=6, weight="bold" if sure else "normal")
            image = ax.imshow(table, cmap="PuOr_r", vmin=-0.3, vmax=1.3, aspect="auto")  # pale enough for black text
            ax.grid(False)
            numbers = [str(every.index(a) + 1) for a in here]
            short = [names.algorithm(a) for a in here] if longest <= 14 else numbers
            ax.set_xticks(range(len(here)), short, **across)
            told = {a: f"{names.algorithm(a)}  {n}" for a, n in zip(here, numbers)} if longest > 14 else None
            layout.name_rows(ax, here, names, told, invert=False)
            layout.set_title(ax, "all tasks" if task == ALL_TASKS else names.task(task))
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2 / figure.get_figheight()), aspect=15, pad=0.02)
        bar.ax.set_ylim(0, 1)
        bar.set_label("P(row ends better\nthan column)")
    return figure


def efficiency(rows: list[Row], style: Styles, names: Names, ends: dict[str, float]) -> Figure:
    """ends: {task: steps up to which its runs are compared}, the right edge of its panel. A task without a threshold
    has no panel; one at least has one."""
    panels = layout.by_panel([r for r in rows if not math.isnan(r["threshold"])])
    figure, axes, shown = layout.row_grid(panels, style, names)
    unit, word = layout.step_unit(max(ends[task] for task in panels))
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms), here in zip(axes, panels.items(), shown):
            end = ends[task] / unit or 1.0
            for algorithm, (row,) in algorithms.items():
                _one_efficiency(ax, row, here.index(algorithm), unit, end, style[algorithm])
            threshold = next(iter(algorithms.values()))[0]["threshold"]
            ax.set(
                xlim=(0, end), xlabel=f"environment steps{word}\nto {layout.metric_name(algorithms)} ≥ {threshold:.3g}"
            )
            layout.name_rows(ax, here, names)
            layout.set_title(ax, names.task(task))
        layout.label_axes(figure, axes, None, None)
    return figure


def _one_efficiency(ax: Axes, row: Row, y: int, unit: float, end: float, style: dict[str, Any]) -> None:
    """The median of one algorithm in row y; what lies beyond `end` is an arrow there."""
    scaled = {k: min(row[k] / unit, end) for k in ("lower", "upper", "median_steps")}
    if math.isfinite(row["median_steps"]):
        layout.draw_interval(ax, scaled["median_steps"], scaled, y, style)
    if math.inf in (row["median_steps"], row["upper"]):
        ax.plot(end, y, ">", color=style["color"], markersize=4, clip_on=False, mfc="white")
    text = f"{row['reached']}/{row['n']}"
    ax.text(1.04, y, text, transform=ax.get_yaxis_transform(), fontsize=6.5, va="center")
