"""The figures of a report, drawn from the rows of `reporting/comparison.py`: for print, and for the colour-blind.

Every function returns a matplotlib Figure, 7.2 inches wide (two columns of a paper), one panel for each task. names:
what algorithms and tasks are called. Panels with the same metric have the same axis; where that would press one game
into a fifth of it or less, only those of one game have.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reporting.comparison import ALL_TASKS, Row
from reporting.formats import metric_label, plain
from reporting.labels import Names
from reporting.palette import STYLE, Styles

WIDTH = 7.2  # inches
COLUMNS = 3
NAME_WIDTH = 24  # characters of a line of a name beside a panel
MOST_LINES = 4  # of a name
BOLD = 0.083  # inches of a character of a title, about
ALIKE = 0.2  # of a common axis that every panel must fill to share it with other games

Curves = tuple[np.ndarray, np.ndarray]  # steps [T], values [T, n]
Panels = dict[str, dict[str, list[Row]]]  # {task: {algorithm: rows}}
Spans = dict[str, tuple[float, float]]  # {task: (lowest, highest)}


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
    panels, single = _panels(rows), single or {}
    figure, axes = _grid([1.75] * len(panels))
    unit, word = _step_unit(max(r["step"] for r in rows))
    spans = {}
    for task, algorithms in panels.items():
        values = [v for points in algorithms.values() for k in ("iqm", "lower", "upper") for v in _column(points, k)]
        values += [v for (t, _), (_, runs) in single.items() if t == task for v in runs.ravel()]
        spans[task] = _span(values)
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms) in zip(axes, panels.items()):
            for k, (algorithm, points) in enumerate(algorithms.items()):
                colour = style[algorithm]["color"]
                if (task, algorithm) in single:
                    steps, values = single[task, algorithm]
                    ax.plot(steps / unit, values, color=colour, linewidth=0.5, alpha=0.65)
                x, iqm, n = _column(points, "step") / unit, _column(points, "iqm"), _column(points, "n")
                line = style[algorithm] | {"markersize": 3.5, "markevery": _marks(k, algorithms, points)}
                ax.plot(x, iqm, **line)
                fewer = np.flatnonzero(np.diff(n) < 0)
                ax.plot(x[fewer], iqm[fewer], "x", color=colour, markersize=5, mew=1.2)
                band = _column(points, "lower"), _column(points, "upper")
                ax.fill_between(x, *band, color=colour, alpha=0.18, linewidth=0)
            _title(ax, names.task(task))
            _tell_single(ax, algorithms, names, 0.98)
        mean = f"; mean of {smooth} tests" if smooth > 1 else ""
        labels = [f"{_metric(a)}\n(IQM, 95 % interval{mean})" for a in panels.values()]
        _label_axes(figure, axes, f"environment steps{word}", labels)
        _equal(axes, panels, spans, names, "y")
        _one_length(axes, [max(p["step"] for points in a.values() for p in points) / unit for a in panels.values()])
        _legend(figure, style, {r["algorithm"] for r in rows}, names)
    return figure


def final(
    rows: list[Row],
    runs: Mapping[tuple[str, str], list[float]],
    style: Styles,
    names: Names,
    over_all: tuple[str, str] = ("", ""),
) -> Figure:
    """runs: {(task, algorithm): values of single runs}. over_all: (title, scale) of the panel of all tasks."""
    panels = _panels(rows)
    figure, axes, shown = _row_grid(panels, style, names)
    spans = {}
    for task, algorithms in panels.items():
        values = [row[k] for (row,) in algorithms.values() for k in ("iqm", "lower", "upper")]
        spans[task] = _span(values + [v for a in algorithms for v in runs.get((task, a), [])])
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms), here in zip(axes, panels.items(), shown):
            for algorithm, (row,) in algorithms.items():
                y = here.index(algorithm)
                values = runs.get((task, algorithm), [])
                ax.plot(values, [y + 0.28] * len(values), "|", color=style[algorithm]["color"], markersize=4, mew=0.7)
                _interval(ax, row["iqm"], row, y, style[algorithm])
            _name_rows(ax, here, names)
            _title(ax, over_all[0] if task == ALL_TASKS else names.task(task))
            ax.set_xlabel(_axis_label(algorithms) + (_scale(over_all[1]) if task == ALL_TASKS else ""))
        _equal(axes, panels, spans, names, "x")
    return figure


def profiles(rows: list[Row], style: Styles, names: Names, over_all: tuple[str, str] = ("", "")) -> Figure:
    panels = _panels(rows)
    figure, axes = _grid([1.75] * len(panels))
    spans = {task: _span([r["tau"] for points in algs.values() for r in points]) for task, algs in panels.items()}
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
            scale = _scale(over_all[1]) if task == ALL_TASKS else ""
            ax.set(ylim=(-0.03, 1.03), xlabel=f"final {_metric(algorithms)} τ{scale}")
            _title(ax, over_all[0] if task == ALL_TASKS else names.task(task))
            _tell_single(ax, algorithms, names, 0.03)
        _label_axes(figure, axes, None, ["share of runs with score > τ"] * len(panels))
        _equal(axes, panels, spans, names, "x")
        for ax in axes:
            if _place(ax)[1]:
                ax.tick_params(labelleft=False)
        _legend(figure, style, {r["algorithm"] for r in rows}, names)
    return figure


def improvement(rows: list[Row], style: Styles, names: Names) -> Figure:
    tasks = {task: list(group) for task, group in groupby(rows, key=itemgetter("task"))}
    every = [a for a in style if any(a == r["x"] for r in rows)]
    shown = [[a for a in every if any(a == r["x"] for r in pairs)] for pairs in tasks.values()]
    same = all(here == shown[0] for here in shown)
    longest = max(len(names.algorithm(a)) for a in every)
    most = max(map(len, shown))
    beside = 0.9 + 0.06 * min(longest, NAME_WIDTH)  # inches of the names and the scale
    room = (WIDTH - beside) if same else WIDTH
    columns = int(room / (0.24 * most + (0 if same else beside)))  # of cells that hold 0.00
    heights = [0.6 + max(0.25, _row_height(here, names)) * len(here) for here in shown]
    share = dict(sharey=True, sharex=True) if same else {}
    figure, axes = _grid(heights, columns, **share)
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
            _name_rows(ax, here, names, told, invert=False)
            _title(ax, "all tasks" if task == ALL_TASKS else names.task(task))
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2 / figure.get_figheight()), aspect=15, pad=0.02)
        bar.ax.set_ylim(0, 1)
        bar.set_label("P(row ends better\nthan column)")
    return figure


def efficiency(rows: list[Row], style: Styles, names: Names, ends: dict[str, float]) -> Figure:
    """ends: {task: steps up to which its runs are compared}, the right edge of its panel. A task without a threshold
    has no panel; one at least has one."""
    panels = _panels([r for r in rows if not math.isnan(r["threshold"])])
    figure, axes, shown = _row_grid(panels, style, names)
    unit, word = _step_unit(max(ends[task] for task in panels))
    with matplotlib.rc_context(STYLE):
        for ax, (task, algorithms), here in zip(axes, panels.items(), shown):
            end = ends[task] / unit or 1.0
            for algorithm, (row,) in algorithms.items():
                _one_efficiency(ax, row, here.index(algorithm), unit, end, style[algorithm])
            threshold = next(iter(algorithms.values()))[0]["threshold"]
            ax.set(xlim=(0, end), xlabel=f"environment steps{word}\nto {_metric(algorithms)} ≥ {threshold:.3g}")
            _name_rows(ax, here, names)
            _title(ax, names.task(task))
        _label_axes(figure, axes, None, None)
    return figure


def _one_efficiency(ax: Axes, row: Row, y: int, unit: float, end: float, style: dict[str, Any]) -> None:
    """The median of one algorithm in row y; what lies beyond `end` is an arrow there."""
    scaled = {k: min(row[k] / unit, end) for k in ("lower", "upper", "median_steps")}
    if math.isfinite(row["median_steps"]):
        _interval(ax, scaled["median_steps"], scaled, y, style)
    if math.inf in (row["median_steps"], row["upper"]):
        ax.plot(end, y, ">", color=style["color"], markersize=4, clip_on=False, mfc="white")
    text = f"{row['reached']}/{row['n']}"
    ax.text(1.04, y, text, transform=ax.get_yaxis_transform(), fontsize=6.5, va="center")


# ---- parts of figures


def _panels(rows: list[Row]) -> Panels:
    """{task: {algorithm: rows}} in the order of the rows."""
    out = {}
    for row in rows:
        out.setdefault(row["task"], {}).setdefault(row["algorithm"], []).append(row)
    return out


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def _grid(heights: list[float], columns: int = COLUMNS, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of `heights`, in inches, in at most so many columns, and the list of its axes."""
    n = len(heights)
    columns = 2 if n == 4 and columns > 2 else max(1, min(n, columns, COLUMNS))
    tall = [max(heights[k : k + columns]) for k in range(0, n, columns)]  # of the rows of panels
    size = WIDTH if n > 1 else WIDTH * 0.6, 0.3 + sum(tall) + 0.35 * len(tall)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(tall), columns, squeeze=False, height_ratios=tall, **share).ravel()
        for ax in axes[n:]:
            ax.remove()
        for ax in axes[max(0, n - columns) : n]:  # the lowest of their columns
            ax.tick_params(labelbottom=True)
    return figure, list(axes[:n])


def _row_grid(panels: Panels, style: Styles, names: Names) -> tuple[Figure, list[Axes], list[list[str]]]:
    """(figure, axes, [algorithms of each panel, a row each]). Where panels have different algorithms each names its
    own, so that none has an empty row."""
    shown = [[a for a in style if a in algorithms] for algorithms in panels.values()]
    same = all(here == shown[0] for here in shown)
    heights = [0.7 + max(0.16, _row_height(here, names)) * len(here) for here in shown]
    figure, axes = _grid(heights, COLUMNS if same else 2, **(dict(sharey=True) if same else {}))
    return figure, axes, shown


def _marks(k: int, algorithms: dict[str, list[Row]], points: list[Row]) -> tuple[int, int]:
    """Where the k-th line has its markers: apart from those of the others, so that coinciding lines all show."""
    every = -(-len(points) // 5)
    return every * k // len(algorithms), every


def _interval(ax: Axes, middle: float, row: Row, y: int, style: dict[str, Any]) -> None:
    """A point, and its interval where there is one."""
    colour = style["color"]
    if math.isfinite(row["lower"]):
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, linewidth=2, alpha=0.6)
    ax.plot(middle, y, style["marker"], color=colour, markersize=4.5)


def _name_rows(
    ax: Axes, algorithms: list[str], names: Names, told: dict[str, str] | None = None, invert: bool = True
) -> None:
    """told: {algorithm: text} in place of its name."""
    texts = [(told or {}).get(a, names.algorithm(a)) for a in algorithms]
    ax.set_yticks(range(len(texts)), [_wrapped(text, NAME_WIDTH) for text in texts])
    ax.tick_params(axis="y", length=0)
    if invert:
        ax.set_ylim(len(texts) - 0.4, -0.6)


def _tell_single(ax: Axes, algorithms: dict[str, list[Row]], names: Names, y: float) -> None:
    """Say in the panel, at height y, who has one run and therefore no interval."""
    single = [names.algorithm(a) for a, points in algorithms.items() if points[0]["n"] == 1]
    if single:
        who = "all" if len(single) == len(algorithms) else ", ".join(single)
        place: dict[str, Any] = dict(
            transform=ax.transAxes, fontsize=6, va="top" if y > 0.5 else "bottom", color="#444444"
        )
        box = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=0.5)
        ax.text(0.02, y, _wrapped(f"one seed, no interval: {who}", 40, most_lines=20), bbox=box, **place)


def _span(values: Iterable[float]) -> tuple[float, float]:
    """(lowest, highest) of the finite ones."""
    finite = [v for v in values if math.isfinite(v)]
    return min(finite), max(finite)


def _equal(axes: list[Axes], panels: Panels, spans: Spans, names: Names, which: str) -> None:
    """The same limits for the panels that show the same metric, which are then labelled at the edge only. spans:
    {task: (lowest, highest)}; which: x or y."""
    by_task = dict(zip(panels, axes))
    for tasks in _together(panels, spans, names):
        low, high = min(spans[t][0] for t in tasks), max(spans[t][1] for t in tasks)
        margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        low, high = low - margin, high + margin
        ticks = [x for x in MaxNLocator(5).tick_values(low, high) if low <= x <= high]
        places = {_place(by_task[t]) for t in tasks}
        for ax in (by_task[t] for t in tasks):
            ax.set(**{f"{which}lim": (low, high), f"{which}ticks": ticks})
            row, column = _place(ax)
            if which == "y" and (row, column - 1) in places:
                ax.tick_params(labelleft=False)
                ax.set_ylabel("")
            elif which == "x" and (row + 1, column) in places:
                ax.tick_params(labelbottom=False)
                ax.set_xlabel("")


def _one_length(axes: list[Axes], ends: list[float]) -> None:
    """Where all panels end at about the same step, they have one axis of steps, labelled below the lowest only."""
    if max(ends) - min(ends) > 0.02 * max(ends):
        return
    low, high = -0.04 * max(ends), 1.04 * max(ends)
    ticks = [x for x in MaxNLocator(5).tick_values(0, max(ends)) if x <= high]
    places = set(map(_place, axes))
    for ax in axes:
        row, column = _place(ax)
        if high > low:
            ax.set(xlim=(low, high), xticks=ticks)
        if (row + 1, column) in places:
            ax.tick_params(labelbottom=False)


def _together(panels: Panels, spans: Spans, names: Names) -> list[list[str]]:
    """[tasks whose panels have one axis]: all win rates; of other metrics all tasks, else those of one game, else each
    for itself, the first of these in which no panel is pressed flat."""
    metrics = {}
    for task, algorithms in panels.items():
        metrics.setdefault((next(iter(algorithms.values()))[0]["metric"], task == ALL_TASKS), []).append(task)
    out = []
    for (metric, _), group in metrics.items():
        games = [[t for t in group if names.game(t) == game] for game in dict.fromkeys(map(names.game, group))]
        if "battle_won" in metric or _alike(group, spans):
            out.append(group)
        else:
            out += [part for game in games for part in ([game] if _alike(game, spans) else [[t] for t in game])]
    return out


def _alike(tasks: list[str], spans: Spans) -> bool:
    """Whether each of the tasks fills a good part of their common axis."""
    low, high = min(spans[t][0] for t in tasks), max(spans[t][1] for t in tasks)
    return all(spans[t][1] - spans[t][0] >= ALIKE * (high - low) for t in tasks)


def _place(ax: Axes) -> tuple[int, int]:
    """(row, column) of a panel"""
    spot = ax.get_subplotspec()
    assert spot is not None  # every panel is one of a grid
    return spot.rowspan.start, spot.colspan.start


def _metric(algorithms: dict[str, list[Row]]) -> str:
    return _wrapped(plain(metric_label(next(iter(algorithms.values()))[0]["metric"])), 40)


def _axis_label(algorithms: dict[str, list[Row]]) -> str:
    return f"{_metric(algorithms)}\n(IQM, 95 % interval)"


def _scale(words: str) -> str:
    """What the scale of the score over all tasks is, below the label of its axis."""
    return "\n" + _wrapped(words, 38, most_lines=12) if words else ""


def _label_axes(figure: Figure, axes: list[Axes], x: str | None, ys: list[str] | None) -> None:
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


def _row_height(algorithms: list[str], names: Names) -> float:
    """Inches that a row needs for the longest name."""
    return 0.08 + 0.12 * max(_lines(_wrapped(names.algorithm(a), NAME_WIDTH)) for a in algorithms)


def _title(ax: Axes, text: str) -> None:
    """The title of a panel in lines that are no wider than it."""
    spot = ax.get_subplotspec()
    columns = spot.get_gridspec().ncols if spot is not None else 1
    names = [line for t in ax.get_yticklabels() for line in t.get_text().split("\n")] if columns > 1 else []
    beside = 0.06 * max(map(len, names), default=0)  # inches that the names of rows take
    if len(ax.get_shared_y_axes().get_siblings(ax)) > 1:  # in the first column only
        beside /= columns
    inches = cast(Figure, ax.figure).get_figwidth() / columns - 0.3 - beside
    ax.set_title(_wrapped(text, max(12, int(inches / BOLD))), y=1.0)  # y: else its place is looked for in every draw


def _wrapped(name: str, width: int, most_lines: int = MOST_LINES) -> str:
    """In lines of `width` characters, broken at spaces, else after - _ : / or a comma; of a name that is too long the
    middle is left out, for the end tells it apart."""
    half = width * most_lines // 2
    if len(name) > 2 * half:
        name = f"{name[: half - 1]}…{name[-half:]}"
    lines = [""]
    for word in name.replace(" = ", "\0").split(" "):  # `P = 1.5` stays together
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if len(joined) + 2 * joined.count("\0") <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for part in re.findall(r"[^-_:/,]*[-_:/,]+|[^-_:/,]+", word):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            pieces = [part[k : k + width] for k in range(0, len(part), width)]
            lines[-1] += pieces[0]
            lines += pieces[1:]
    return "\n".join(lines).replace("\0", " = ")


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _legend(figure: Figure, style: Styles, shown: set[str], names: Names) -> None:
    """One for all panels, above them; the figure grows by what it takes."""
    handles = [Line2D([], [], **style[a], markersize=3.5, label=names.algorithm(a)) for a in style if a in shown]
    texts = [names.algorithm(a) for a in style if a in shown]
    most = int((figure.get_figwidth() - 0.8) / 0.07)  # characters of a line, about
    labels = [_wrapped(text, most) for text in texts]
    widest = 0.45 + 0.066 * min(most, max(map(len, texts)))  # inches
    n_rows = -(-len(handles) // max(1, int(figure.get_figwidth() / widest)))
    columns = -(-len(handles) // n_rows)
    figure.set_figheight(figure.get_figheight() + 0.17 * (n_rows if columns > 1 else sum(map(_lines, labels))))
    place = dict(loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)
    legend = figure.legend(handles, ["name"] * len(handles), **place)
    for text, label in zip(legend.get_texts(), labels):  # now: matplotlib leaves out labels that begin with _
        text.set_text(label)


def _step_unit(most: float) -> tuple[float, str]:
    """(steps in a unit, its name)"""
    return (1e6, " (millions)") if most >= 1e6 else (1e3, " (thousands)") if most >= 1e4 else (1, "")
