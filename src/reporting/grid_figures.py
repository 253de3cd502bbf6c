"""Figures of the settings that a study has searched (`reporting/grid.py`)."""

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reporting import palette
from reporting.formats import decimals, metric_label, plain, with_interval
from reporting.grid import Search, shown_value, words
from reporting.layout import WIDTH, legend_of_lines, panels
from reporting.palette import STYLE
from utils.identity import text

MOST_ROWS = 30  # of a sorted figure
MOST_CELLS = 12  # along a side of a heat map
WIDE = 20  # a range whose ends are so many times apart has a logarithmic axis


def figures(found: list[Search]) -> dict[str, Figure]:
    """{name of its files: Figure}, one or two for all searches of the same keys."""
    by_keys = {}
    for search in found:
        by_keys.setdefault(search.keys, []).append(search)
    out = {}
    for n, (keys, group) in enumerate(by_keys.items(), start=1):
        name = "grid" if len(by_keys) == 1 else f"grid_{n}"
        if len(keys) == 1:
            out[name] = _points(group)
        elif len(keys) <= 3 and all(map(_fits_cells, group)):
            out[name] = _heat_maps(group)
        else:
            out[name] = _sorted_points(group)
            out[f"{name}_keys"] = _by_key(group)
    return out


def _values(search: Search, key: str) -> list:
    """The values of a key, each once, ascending."""
    return sorted({text(row["values"][key]): row["values"][key] for row in search.rows}.values(), key=_ascending)


def _ascending(value: Any) -> tuple:
    """Sorts numbers by size, and words after them."""
    return (0, value, "") if _is_number(value) else (1, 0, text(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits_cells(search: Search) -> bool:
    sizes = [len(_values(search, key)) for key in search.keys]
    return math.prod(sizes) <= 2 * len(search.rows) and max(sizes) <= MOST_CELLS


def _points(group: list[Search]) -> Figure:
    """One key: a panel for each task, a line for each algorithm."""
    tasks, (key,) = list(dict.fromkeys(s.task for s in group)), group[0].keys
    style = palette.styles({s.base for s in group})
    every = {text(row["values"][key]): row["values"][key] for s in group for row in s.rows}
    order = sorted(every, key=lambda name: _ascending(every[name]))
    figure, axes = panels(len(tasks), min(3, len(tasks)), 2.0)
    with matplotlib.rc_context(STYLE):
        for ax, task in zip(axes, tasks):
            here = [s for s in group if s.task == task]
            for k, s in enumerate(here):
                rows = sorted(s.rows, key=lambda row: order.index(text(row["values"][key])))
                shift = 0.12 * (k - (len(here) - 1) / 2)
                x = [order.index(text(row["values"][key])) + shift for row in rows]
                line = style[s.base] | {"linewidth": 0.8, "markersize": 4}
                ax.plot(x, [row["iqm"] for row in rows], label=s.base, **line)
                for at, row in zip(x, rows):
                    ax.plot([at, at], [row["lower"], row["upper"]], color=line["color"], linewidth=2, alpha=0.5)
            ax.set_title(plain(task))
            ax.set_xlabel(plain(key))
            ax.set_ylabel(_label(here[0]))
            ax.set_xticks(range(len(order)), [shown_value(every[name]) for name in order])
            ax.set_xlim(-0.5, len(order) - 0.5)
        legend_of_lines(figure, axes, style, columns=4)
    return figure


def _heat_maps(group: list[Search]) -> Figure:
    """Two keys: a map for each algorithm and task. Three: one for each value of the third key."""
    down, across, *third = group[0].keys
    shown = []  # (search, value of the third key or None, rows)
    for s in group:
        for value in _values(s, third[0]) if third else [None]:
            rows = [row for row in s.rows if not third or text(row["values"][third[0]]) == text(value)]
            shown.append((s, value, rows))
    n_x, n_y = (max(len(_values(s, key)) for s in group) for key in (across, down))
    columns = max(1, min(len(shown), int((WIDTH - 0.6) / (0.55 + 0.85 * n_x))))
    figure, axes = panels(len(shown), columns, 0.65 + max(0.36 * n_y, 0.6), width=0.6 + columns * (0.55 + 0.85 * n_x))
    with matplotlib.rc_context(STYLE):
        for ax, (s, value, rows) in zip(axes, shown):
            task = [row for other in group if other.task == s.task for row in other.rows]  # colours: of the whole task
            _heat_map(ax, s, (down, across), rows, task)
            more = f"\n{plain(third[0])} = {shown_value(value)}" if third else ""
            ax.set_title(f"{plain(s.base)}, {plain(s.task)}{more}")
        figure.suptitle(f"{_label(group[0])} [95 % interval]", fontsize=8)
    return figure


def _heat_map(ax: Axes, search: Search, keys: tuple[str, str], rows: list[dict], task: list[dict]) -> None:
    ys, xs = (_values(search, key) for key in keys)
    at = {(text(row["values"][keys[0]]), text(row["values"][keys[1]])): row for row in rows}
    cells = [[at.get((text(y), text(x))) for x in xs] for y in ys]
    map_ = np.array([[row["iqm"] if row else np.nan for row in line] for line in cells])
    low, high = min(row["iqm"] for row in task), max(row["iqm"] for row in task)
    digits = decimals([low, high])
    ax.imshow(map_, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto")
    for i, line in enumerate(cells):
        for j, row in enumerate(line):
            dark = row is not None and high > low and (row["iqm"] - low) / (high - low) < 0.55
            number = with_interval(row["iqm"], row["lower"], row["upper"], digits, "\n") if row else "–"
            weight = "bold" if row is not None and row["iqm"] == search.best["iqm"] else "normal"
            colour = "white" if dark or row is not None and high == low else "black"
            ax.text(j, i, number, ha="center", va="center", fontsize=6, color=colour, weight=weight)
    ax.grid(False)
    ax.set_xticks(range(len(xs)), [shown_value(x) for x in xs])
    ax.set_yticks(range(len(ys)), [shown_value(y) for y in ys])
    ax.tick_params(length=0)
    ax.set_xlabel(plain(keys[1]))
    ax.set_ylabel(plain(keys[0]))


def _sorted_points(group: list[Search]) -> Figure:
    """Many keys, or values that were drawn: the settings of each algorithm and task under one another, best first."""
    most = min(MOST_ROWS, max(len(s.rows) for s in group))
    longest = max(len(words(row["values"])) for s in group for row in s.rows)
    columns = 2 if len(group) > 1 and longest <= 40 else 1
    figure, axes = panels(len(group), columns, 0.6 + 0.14 * most, width=WIDTH)
    with matplotlib.rc_context(STYLE):
        for ax, s in zip(axes, group):
            style = palette.styles({s.base})[s.base]
            rows = s.rows[:most]
            for y, row in enumerate(rows):
                ax.plot([row["lower"], row["upper"]], [y, y], color=style["color"], linewidth=2, alpha=0.5)
                ax.plot(row["iqm"], y, "o", color=style["color"], markersize=4)
            ax.set_yticks(range(len(rows)), [words(row["values"]) for row in rows], fontsize=6)
            ax.set_ylim(most - 0.4, -0.6)
            more = f", the best {most} of {len(s.rows)}" if len(s.rows) > most else ""
            ax.set_title(f"{plain(s.base)}, {plain(s.task)}{more}")
            ax.set_xlabel(f"{_label(s)}, 95 % interval")
    return figure


def _by_key(group: list[Search]) -> Figure:
    """The same settings over the values of each key by itself: a row for each algorithm and task."""
    keys = group[0].keys
    columns = min(4, len(keys))
    lines = -(-len(keys) // columns)
    figure, axes = panels(columns * lines * len(group), columns, 1.6, width=WIDTH)
    with matplotlib.rc_context(STYLE):
        for k, s in enumerate(group):
            style = palette.styles({s.base})[s.base]
            mine = axes[k * columns * lines : (k + 1) * columns * lines]
            for ax, key in zip(mine, keys):
                _scatter(ax, s, key, style["color"])
            mine[0].set_ylabel(f"{plain(s.base)}, {plain(s.task)}\n{_label(s)}")
            for ax in mine[len(keys) :]:
                ax.remove()
    return figure


def _scatter(ax: Axes, search: Search, key: str, colour: str) -> None:
    values = _values(search, key)
    numbers = all(map(_is_number, values)) and len(values) > 3
    for row in search.rows:
        value = row["values"][key]
        x = value if numbers else [text(v) for v in values].index(text(value))
        ax.plot([x, x], [row["lower"], row["upper"]], color=colour, linewidth=1, alpha=0.35)
        ax.plot(x, row["iqm"], "o", color=colour, markersize=3)
    if not numbers:
        ax.set_xticks(range(len(values)), [shown_value(v) for v in values])
        ax.set_xlim(-0.5, len(values) - 0.5)
    elif values[0] > 0 and values[-1] / values[0] >= WIDE:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1,) if values[-1] / values[0] >= 100 else (1, 3)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(plain(key))


def _label(search: Search) -> str:
    return f"{plain(metric_label(search.metric))} (IQM)"
