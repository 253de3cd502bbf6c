"""What the figures of a report share: panels, axes that agree, titles, names of rows, legends.

`Panels` are the rows of `reporting/comparison.py` by task and algorithm, a panel for each task.
"""

import math
import re
from collections.abc import Iterable
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
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

Panels = dict[str, dict[str, list[Row]]]  # {task: {algorithm: rows}}
Spans = dict[str, tuple[float, float]]  # {task: (lowest, highest)}


def panels(n: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """(Figure, n axes) in rows of `columns`; height: inches of a row."""
    rows = -(-n // columns)
    return _figure(n, (rows, columns), (min(WIDTH, max(3.0, width)), 0.3 + rows * height))


def _figure(n: int, shape: tuple[int, int], size: tuple[float, float], **more: Any) -> tuple[Figure, list[Axes]]:
    """(Figure, n axes); shape: its rows and columns; size: inches; more: for matplotlib."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(*shape, squeeze=False, **more).ravel()
        for ax in axes[n:]:
            ax.remove()
    return figure, list(axes[:n])


def legend_of_lines(figure: Figure, axes: list[Axes], style: Styles, columns: int, most: int | None = None) -> None:
    """One for the labelled lines of all panels, above them, in the order of `style`; most: entries."""
    drawn = [pair for ax in axes for pair in zip(*ax.get_legend_handles_labels())]
    lines = {label: handle for handle, label in reversed(drawn)}
    names = [name for name in style if name in lines][:most]
    place = dict(loc="outside upper center", ncols=min(columns, len(names)), frameon=False)
    figure.legend([lines[name] for name in names], [plain(name) for name in names], **place)


def by_panel(rows: list[Row]) -> Panels:
    """{task: {algorithm: rows}} in the order of the rows."""
    out = {}
    for row in rows:
        out.setdefault(row["task"], {}).setdefault(row["algorithm"], []).append(row)
    return out


def column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def grid(heights: list[float], columns: int = COLUMNS, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of `heights`, in inches, in at most so many columns, and the list of its axes."""
    n = len(heights)
    columns = 2 if n == 4 and columns > 2 else max(1, min(n, columns, COLUMNS))
    tall = [max(heights[k : k + columns]) for k in range(0, n, columns)]  # of the rows of panels
    size = WIDTH if n > 1 else WIDTH * 0.6, 0.3 + sum(tall) + 0.35 * len(tall)
    figure, axes = _figure(n, (len(tall), columns), size, height_ratios=tall, **share)
    for ax in axes[max(0, n - columns) :]:  # the lowest of their columns
        ax.tick_params(labelbottom=True)
    return figure, axes


def row_grid(panels: Panels, style: Styles, names: Names) -> tuple[Figure, list[Axes], list[list[str]]]:
    """(figure, axes, [algorithms of each panel, a row each]). Where panels have different algorithms each names its
    own, so that none has an empty row."""
    shown = [[a for a in style if a in algorithms] for algorithms in panels.values()]
    same = all(here == shown[0] for here in shown)
    heights = [0.7 + max(0.16, row_height(here, names)) * len(here) for here in shown]
    figure, axes = grid(heights, COLUMNS if same else 2, **(dict(sharey=True) if same else {}))
    return figure, axes, shown


def marks(k: int, algorithms: dict[str, list[Row]], points: list[Row]) -> tuple[int, int]:
    """Where the k-th line has its markers: apart from those of the others, so that coinciding lines all show."""
    every = -(-len(points) // 5)
    return every * k // len(algorithms), every


def draw_interval(ax: Axes, middle: float, row: Row, y: int, style: dict[str, Any]) -> None:
    """A point, and its interval where there is one."""
    colour = style["color"]
    if math.isfinite(row["lower"]):
        ax.plot([row["lower"], row["upper"]], [y, y], color=colour, linewidth=2, alpha=0.6)
    ax.plot(middle, y, style["marker"], color=colour, markersize=4.5)


def name_rows(
    ax: Axes, algorithms: list[str], names: Names, told: dict[str, str] | None = None, invert: bool = True
) -> None:
    """Write the algorithms beside the rows of a panel. told: {algorithm: text} in place of its name; invert: the first
    row is the top one."""
    texts = [(told or {}).get(a, names.algorithm(a)) for a in algorithms]
    ax.set_yticks(range(len(texts)), [wrapped(text, NAME_WIDTH) for text in texts])
    ax.tick_params(axis="y", length=0)
    if invert:
        ax.set_ylim(len(texts) - 0.4, -0.6)


def tell_single(ax: Axes, algorithms: dict[str, list[Row]], names: Names, y: float) -> None:
    """Say in the panel, at height y, who has one run and therefore no interval."""
    single = [names.algorithm(a) for a, points in algorithms.items() if points[0]["n"] == 1]
    if single:
        who = "all" if len(single) == len(algorithms) else ", ".join(single)
        place: dict[str, Any] = dict(
            transform=ax.transAxes, fontsize=6, va="top" if y > 0.5 else "bottom", color="#444444"
        )
        box = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=0.5)
        ax.text(0.02, y, wrapped(f"one seed, no interval: {who}", 40, most_lines=20), bbox=box, **place)


def span(values: Iterable[float]) -> tuple[float, float]:
    """(lowest, highest) of the finite ones."""
    finite = [v for v in values if math.isfinite(v)]
    return min(finite), max(finite)


def equal_axes(axes: list[Axes], panels: Panels, spans: Spans, names: Names, which: str) -> None:
    """The same limits for the panels that show the same metric, which are then labelled at the edge only. spans:
    {task: (lowest, highest)}; which: x or y."""
    by_task = dict(zip(panels, axes))
    for tasks in _together(panels, spans, names):
        low, high = min(spans[t][0] for t in tasks), max(spans[t][1] for t in tasks)
        margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        low, high = low - margin, high + margin
        ticks = [x for x in MaxNLocator(5).tick_values(low, high) if low <= x <= high]
        places = {place(by_task[t]) for t in tasks}
        for ax in (by_task[t] for t in tasks):
            ax.set(**{f"{which}lim": (low, high), f"{which}ticks": ticks})
            row, column = place(ax)
            if which == "y" and (row, column - 1) in places:
                ax.tick_params(labelleft=False)
                ax.set_ylabel("")
            elif which == "x" and (row + 1, column) in places:
                ax.tick_params(labelbottom=False)
                ax.set_xlabel("")


def one_length(axes: list[Axes], ends: list[float]) -> None:
    """Where all panels end at about the same step, they have one axis of steps, labelled below the lowest only."""
    if max(ends) - min(ends) > 0.02 * max(ends):
        return
    low, high = -0.04 * max(ends), 1.04 * max(ends)
    ticks = [x for x in MaxNLocator(5).tick_values(0, max(ends)) if x <= high]
    places = set(map(place, axes))
    for ax in axes:
        row, column = place(ax)
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


def place(ax: Axes) -> tuple[int, int]:
    """(row, column) of a panel"""
    spot = ax.get_subplotspec()
    assert spot is not None  # every panel is one of a grid
    return spot.rowspan.start, spot.colspan.start


def metric_name(algorithms: dict[str, list[Row]]) -> str:
    return wrapped(plain(metric_label(next(iter(algorithms.values()))[0]["metric"])), 40)


def axis_label(algorithms: dict[str, list[Row]]) -> str:
    return f"{metric_name(algorithms)}\n(IQM, 95 % interval)"


def scale_words(words: str) -> str:
    """What the scale of the score over all tasks is, below the label of its axis."""
    return "\n" + wrapped(words, 38, most_lines=12) if words else ""


def label_axes(figure: Figure, axes: list[Axes], x: str | None, ys: list[str] | None) -> None:
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


def row_height(algorithms: list[str], names: Names) -> float:
    """Inches that a row needs for the longest name."""
    return 0.08 + 0.12 * max(_lines(wrapped(names.algorithm(a), NAME_WIDTH)) for a in algorithms)


def set_title(ax: Axes, text: str) -> None:
    """The title of a panel in lines that are no wider than it."""
    spot = ax.get_subplotspec()
    columns = spot.get_gridspec().ncols if spot is not None else 1
    names = [line for t in ax.get_yticklabels() for line in t.get_text().split("\n")] if columns > 1 else []
    beside = 0.06 * max(map(len, names), default=0)  # inches that the names of rows take
    if len(ax.get_shared_y_axes().get_siblings(ax)) > 1:  # in the first column only
        beside /= columns
    inches = cast(Figure, ax.figure).get_figwidth() / columns - 0.3 - beside
    ax.set_title(wrapped(text, max(12, int(inches / BOLD))), y=1.0)  # y: else its place is looked for in every draw


def wrapped(name: str, width: int, most_lines: int = MOST_LINES) -> str:
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


def legend(figure: Figure, style: Styles, shown: set[str], names: Names) -> None:
    """One for all panels, above them; the figure grows by what it takes."""
    handles = [Line2D([], [], **style[a], markersize=3.5, label=names.algorithm(a)) for a in style if a in shown]
    texts = [names.algorithm(a) for a in style if a in shown]
    most = int((figure.get_figwidth() - 0.8) / 0.07)  # characters of a line, about
    labels = [wrapped(text, most) for text in texts]
    widest = 0.45 + 0.066 * min(most, max(map(len, texts)))  # inches
    n_rows = -(-len(handles) // max(1, int(figure.get_figwidth() / widest)))
    columns = -(-len(handles) // n_rows)
    figure.set_figheight(figure.get_figheight() + 0.17 * (n_rows if columns > 1 else sum(map(_lines, labels))))
    place = dict(loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)
    legend = figure.legend(handles, ["name"] * len(handles), **place)
    for text, label in zip(legend.get_texts(), labels):  # now: matplotlib leaves out labels that begin with _
        text.set_text(label)


def step_unit(most: float) -> tuple[float, str]:
    """(steps in a unit, its name)"""
    return (1e6, " (millions)") if most >= 1e6 else (1e3, " (thousands)") if most >= 1e4 else (1, "")
