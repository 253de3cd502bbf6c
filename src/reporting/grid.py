"""Settings that a study has searched (`sweeping/grid.py`): their results, the best of them, and figures of both.

Which keys were searched is read off the names of runs, and the values off their configurations (`utils/settings.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reporting import grouping, palette
from reporting.comparison import Row
from reporting.formats import count, decimals, metric_label, plain, with_interval
from reporting.grouping import Entry, Groups
from reporting.html import bullets, picture, table
from reporting.palette import STYLE
from utils.identity import text
from utils.settings import read_back, told

WIDTH = 7.2  # inches
MOST_ROWS = 30  # of a sorted figure
MOST_LINES = 12  # of a figure that compares algorithms
MOST_CELLS = 12  # along a side of a heat map
WIDE = 20  # a range whose ends are so many times apart has a logarithmic axis
BEST_ALONE = (  # where `best_alone` has left some out
    "Of each search only the best setting is in the comparison of algorithms: all are under the settings that were "
    "searched, and in grid.csv"
)


@dataclass
class Search:
    """The settings of one algorithm on one task, best first. rows: {"values": {key: value}, "iqm", "lower", "upper",
    "n", "seeds", "algorithm": its label}. lacking: settings of which no run counts."""

    task: str
    base: str
    metric: str
    rows: list = field(default_factory=list)
    lacking: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.rows[0]["values"])

    @property
    def best(self) -> dict:
        return self.rows[0]


def searches(groups: Groups, entries: list[Entry], final_rows: Callable[[], list[Row]]) -> list[Search]:
    """One for each algorithm and task with two settings or more. groups: {task: {algorithm: [Entry]}}; entries: of all
    runs. final_rows(): the rows of final performance, which are asked for where something was searched."""
    firsts = [group[0] for algorithms in groups.values() for group in algorithms.values()]
    if not any(read_back(e.name, e.result.config)[1] for e in firsts):
        return []
    final = {(row["task"], row["algorithm"]): row for row in final_rows()}
    found = {}
    for task, algorithms in groups.items():
        for algorithm, group in algorithms.items():
            base, values = read_back(group[0].name, group[0].result.config)
            row = final[task, algorithm]
            if values:
                search = found.setdefault((task, base), Search(task, base, row["metric"]))
                numbers = {k: row[k] for k in ("iqm", "lower", "upper", "n")}
                search.rows.append(
                    {"values": values, "algorithm": algorithm, "seeds": grouping.seeds(group), **numbers}
                )
    begun = {}
    for e in entries:
        if e.result.config:
            base, values = read_back(e.name, e.result.config)
            begun.setdefault((e.task_name, base), set()).add(text(values))
    out = []
    for (task, base), search in found.items():
        name = next(e.task_name for group in groups[task].values() for e in group)
        counting = {text(row["values"]) for row in search.rows}
        search.lacking = len(begun.get((name, base), counting) - counting - {text({})})
        search.rows.sort(key=lambda row: (-row["iqm"], text(row["values"])))
        if len(search.rows) > 1 and len({tuple(row["values"]) for row in search.rows}) == 1:
            out.append(search)
    return out


def best_alone(found: list[Search], groups: Groups) -> Groups:
    """`groups` with, of the settings of a search, only the best one of each task, where there are more algorithms and
    settings than a figure can tell apart."""
    searched = {row["algorithm"] for search in found for row in search.rows}
    best = {search.best["algorithm"] for search in found}
    if len({a for algorithms in groups.values() for a in algorithms}) <= MOST_LINES or not searched:
        return groups
    kept = {
        task: {a: group for a, group in algorithms.items() if a in best or a not in searched}
        for task, algorithms in groups.items()
    }
    return {task: algorithms for task, algorithms in kept.items() if algorithms}


# ---- the choice


def choices(found: list[Search]) -> list[tuple[str, str]]:
    """(sentence, line of YAML) of the best setting of each algorithm: on each task, and over several tasks."""
    out = []
    for search in found:
        best, others = search.best, search.rows[1:]
        digits = decimals([row["iqm"] for row in search.rows])
        number = with_interval(best["iqm"], best["lower"], best["upper"], digits)
        same = sum(row["iqm"] == best["iqm"] for row in others)
        level = sum(not row["upper"] < best["lower"] for row in others if math.isfinite(row["lower"]))
        sure = ""
        if math.isfinite(best["lower"]) and any(math.isfinite(row["lower"]) for row in others):
            sure = f"; the intervals of {level} of the {len(others)} others reach into its own"
        elif best["n"] == 1:
            sure = "; one seed, so no interval: chance may have chosen"
        if same:
            sure = f"; {same} of the {len(others)} others {'has' if same == 1 else 'have'} the same result{sure}"
        lacking = f"; {count(search.lacking, 'setting')} without a run that counts" if search.lacking else ""
        said = f"{search.base} on {search.task}: the best of {len(search.rows)} settings is {_words(best['values'])}"
        out.append((f"{said}: {number}, seeds {best['seeds']}{sure}{lacking}", _yaml(search.base, best["values"])))
    for base in dict.fromkeys(search.base for search in found):
        of_base = [search for search in found if search.base == base]
        ranked = _by_mean_rank(of_base) if len(of_base) > 1 else []
        if ranked:
            rank, values = ranked[0]
            said = f"{base} over {len(of_base)} tasks: the best mean rank, {rank:.1f} of {len(ranked)}, has"
            out.append((f"{said} {_words(values)}", _yaml(base, values)))
    return out


def _by_mean_rank(of_base: list[Search]) -> list[tuple[float, dict]]:
    """(mean rank over the tasks, setting) of the settings that are on all of them, best first."""
    ranks, values = {}, {}
    for search in of_base:
        for row in search.rows:
            rank = 1 + sum(other["iqm"] > row["iqm"] for other in search.rows)
            ranks.setdefault(text(row["values"]), []).append(rank)
            values[text(row["values"])] = row["values"]
    everywhere = [(sum(r) / len(r), key) for key, r in ranks.items() if len(r) == len(of_base)]
    return [(rank, values[key]) for rank, key in sorted(everywhere)]


def _words(values: dict) -> str:
    return ", ".join(f"{plain(key)}={_told(value)}" for key, value in values.items())


def _told(value: Any) -> str:
    """A value in figures and tables: 1, not 1.0, as it stands in the names of runs."""
    return plain(told(int(value) if isinstance(value, float) and value.is_integer() else value))


def _yaml(base: str, values: dict) -> str:
    return yaml.safe_dump({base: values}, default_flow_style=None, sort_keys=False, width=10_000).strip()


# ---- the page


def section(found: list[Search], pictures: dict[str, bytes]) -> str:
    """HTML: figures, the best settings with their YAML, and every setting in a table."""
    shown = "".join(picture(name, png, CAPTION) for name, png in pictures.items())
    best = choices(found)
    lines = [f"{said}. To paste: {line}" for said, line in best]
    lines.append(
        "A best setting looks better than it is on the seeds that it was chosen on. Report it on other seeds: "
        "tuned_on: STUDY.yaml in the study of the results refuses these"
    )
    rows = [
        [s.task, s.base, *(_told(v) for v in row["values"].values()), _number(s, row), row["n"], row["seeds"]]
        for s in found
        for row in s.rows
    ]
    tables = ""
    for keys in dict.fromkeys(s.keys for s in found):
        head = ["task", "algorithm", *keys, "final IQM [95 % interval]", "runs", "seeds"]
        of_keys = [row for row, s in zip(rows, (s for s in found for _ in s.rows)) if s.keys == keys]
        tables += table(head, of_keys, numbers=range(2, len(head) - 1))
    return shown + bullets(lines) + tables


CAPTION = (
    "Final performance of each setting that was searched: the interquartile mean (IQM) over runs and its 95 % "
    "interval; higher is better, and in a map the best setting is bold."
)


def _number(search: Search, row: dict) -> str:
    return with_interval(row["iqm"], row["lower"], row["upper"], decimals([r["iqm"] for r in search.rows]))


def csv_rows(found: list[Search]) -> list[dict]:
    keys = list(dict.fromkeys(key for s in found for key in s.keys))
    return [
        {"task": s.task, "algorithm": s.base, "metric": s.metric}
        | {key: _told(row["values"][key]) if key in row["values"] else None for key in keys}
        | {name: row[name] for name in ("n", "iqm", "lower", "upper", "seeds")}
        for s in found
        for row in s.rows
    ]


# ---- figures


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
    """Sorts numbers by size, and words behind them."""
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
            ax.set_xticks(range(len(order)), [_told(every[name]) for name in order])
            ax.set_xlim(-0.5, len(order) - 0.5)
        drawn = [pair for ax in axes for pair in zip(*ax.get_legend_handles_labels())]
        lines = {label: handle for handle, label in reversed(drawn)}
        names = [name for name in style if name in lines]
        place = dict(loc="outside upper center", ncols=min(4, len(names)), frameon=False)
        figure.legend([lines[name] for name in names], [plain(name) for name in names], **place)
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
            more = f"\n{plain(third[0])} = {_told(value)}" if third else ""
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
    ax.set_xticks(range(len(xs)), [_told(x) for x in xs])
    ax.set_yticks(range(len(ys)), [_told(y) for y in ys])
    ax.tick_params(length=0)
    ax.set_xlabel(plain(keys[1]))
    ax.set_ylabel(plain(keys[0]))


def _sorted_points(group: list[Search]) -> Figure:
    """Many keys, or values that were drawn: the settings of each algorithm and task under one another, best first."""
    most = min(MOST_ROWS, max(len(s.rows) for s in group))
    longest = max(len(_words(row["values"])) for s in group for row in s.rows)
    columns = 2 if len(group) > 1 and longest <= 40 else 1
    figure, axes = panels(len(group), columns, 0.6 + 0.14 * most, width=WIDTH)
    with matplotlib.rc_context(STYLE):
        for ax, s in zip(axes, group):
            style = palette.styles({s.base})[s.base]
            rows = s.rows[:most]
            for y, row in enumerate(rows):
                ax.plot([row["lower"], row["upper"]], [y, y], color=style["color"], linewidth=2, alpha=0.5)
                ax.plot(row["iqm"], y, "o", color=style["color"], markersize=4)
            ax.set_yticks(range(len(rows)), [_words(row["values"]) for row in rows], fontsize=6)
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
        ax.set_xticks(range(len(values)), [_told(v) for v in values])
        ax.set_xlim(-0.5, len(values) - 0.5)
    elif values[0] > 0 and values[-1] / values[0] >= WIDE:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1,) if values[-1] / values[0] >= 100 else (1, 3)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(plain(key))


def panels(n: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """(Figure, n axes) in rows of `columns`; height: inches of a row."""
    rows = -(-n // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(min(WIDTH, max(3.0, width)), 0.3 + rows * height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes[n:]:
            ax.remove()
    return figure, list(axes[:n])


def _label(search: Search) -> str:
    return f"{plain(metric_label(search.metric))} (IQM)"
