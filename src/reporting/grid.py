"""Settings that a study has searched (`sweeping/grid.py`): their results, the best of them, and how a page says it.

Which keys were searched is read off the names of runs, and the values off their configurations (`utils/settings.py`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from reporting import grouping
from reporting.comparison import Row
from reporting.formats import decimals, plain, with_interval
from reporting.grouping import Entry, Groups
from reporting.html import bullets, picture, table
from utils.identity import text
from utils.messages import count
from utils.settings import read_back, told

MOST_COMPARED = 12  # algorithms and settings that a figure can tell apart
BEST_ALONE = (  # where `best_alone` has left some out
    "Of each search only the best setting is in the comparison of algorithms: all are under the settings that were "
    "searched, and in grid.csv"
)
LACKING = (
    "{}: the study is not known, so the lines to paste lack the `config` and the other changes that it may have there; "
    "python src/report.py STUDY.yaml prints the whole lines"
)

OfStudy = Mapping[str, tuple[str, dict]]  # of a study: {label: (file, {key: value})}, each setting by itself


@dataclass
class Search:
    """The settings of one algorithm on one task, best first. rows: {"values": {key: value}, "iqm", "lower", "upper",
    "n", "seeds", "algorithm": its label, "changes": what its study says of it, {"config": NAME, key: value}, or None
    where the study is not known}. lacking: settings of which no run counts."""

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


def searches(
    groups: Groups,
    entries: list[Entry],
    final_rows: Callable[[], list[Row]],
    studies: Mapping[str, OfStudy],
) -> list[Search]:
    """One for each algorithm and task with two settings or more. groups: {task: {algorithm: [Entry]}}; entries: of all
    runs. final_rows(): the rows of final performance, which are asked for where something was searched. studies:
    {results folder: the algorithms of its study}."""
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
                named = {"algorithm": algorithm, "seeds": grouping.seeds(group)}
                changes = _changes(group[0], base, studies)
                search.rows.append({"values": values, "changes": changes, **named, **numbers})
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


def _changes(entry: Entry, base: str, studies: Mapping[str, OfStudy]) -> dict | None:
    """What a run's study says of its algorithm, which is called `base` without its setting: see `Search`."""
    algorithms = next((studies[str(p)] for p in entry.result.path.parents if str(p) in studies), {})
    if entry.name not in algorithms:
        return None
    file, changes = algorithms[entry.name]
    return ({} if file == base else {"config": file}) | changes


def best_alone(found: list[Search], groups: Groups) -> Groups:
    """`groups` with, of the settings of a search, only the best one of each task, where there are more algorithms and
    settings than a figure can tell apart."""
    searched = {row["algorithm"] for search in found for row in search.rows}
    best = {search.best["algorithm"] for search in found}
    if len({a for algorithms in groups.values() for a in algorithms}) <= MOST_COMPARED or not searched:
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
        said = f"{search.base} on {search.task}: the best of {len(search.rows)} settings is {words(best['values'])}"
        out.append((f"{said}: {number}, seeds {best['seeds']}{sure}{lacking}", _yaml(search.base, best)))
    for base in dict.fromkeys(search.base for search in found):
        of_base = [search for search in found if search.base == base]
        ranked = _by_mean_rank(of_base) if len(of_base) > 1 else []
        if ranked:
            rank, row = ranked[0]
            same = sum(other == rank for other, _ in ranked) - 1
            level = f"; settings with the same: {same}" if same else ""
            said = f"{base} over {len(of_base)} tasks: the best mean rank, {rank:.1f} of {len(ranked)}, has"
            out.append((f"{said} {words(row['values'])}{level}", _yaml(base, row)))
    return out


def lacking(found: list[Search]) -> list[str]:
    """What the lines of `choices` lack, as a list of one sentence or none."""
    bases = dict.fromkeys(plain(search.base) for search in found if search.best["changes"] is None)
    return [LACKING.format(", ".join(bases))] if bases else []


def _by_mean_rank(of_base: list[Search]) -> list[tuple[float, dict]]:
    """(mean rank over the tasks, a row) of the settings that are on all of them, among these alone, best first."""
    tasks = [{text(row["values"]): row for row in search.rows} for search in of_base]
    everywhere = set.intersection(*(set(rows) for rows in tasks))
    ranks = dict.fromkeys(everywhere, 0)
    for rows in tasks:
        for key in everywhere:
            ranks[key] += 1 + sum(rows[other]["iqm"] > rows[key]["iqm"] for other in everywhere)
    ordered = sorted((total / len(tasks), key) for key, total in ranks.items())
    return [(rank, tasks[-1][key]) for rank, key in ordered]


def words(values: dict) -> str:
    """A setting: lr=0.0005, opt_loss=1."""
    return ", ".join(f"{plain(key)}={shown_value(value)}" for key, value in values.items())


def shown_value(value: Any) -> str:
    """A value in figures and tables: 1, not 1.0, as it stands in the names of runs."""
    return plain(told(int(value) if isinstance(value, float) and value.is_integer() else value))


def _yaml(base: str, row: dict) -> str:
    """The line of a study that repeats a setting."""
    entry = (row["changes"] or {}) | row["values"]
    braced = yaml.safe_dump({base: entry}, default_flow_style=True, sort_keys=False, width=10_000)
    return braced.strip()[1:-1]


# ---- the page


def section(found: list[Search], pictures: dict[str, bytes]) -> str:
    """HTML: figures, the best settings with their YAML, and every setting in a table."""
    shown = "".join(picture(name, png, CAPTION) for name, png in pictures.items())
    best = choices(found)
    lines = [f"{said}. To paste: {line}" for said, line in best] + lacking(found)
    lines.append(
        "A best setting looks better than it is on the seeds that it was chosen on. Report it on other seeds: "
        "tuned_on: STUDY.yaml in the study of the results refuses these"
    )
    rows = [
        [s.task, s.base, *(shown_value(v) for v in row["values"].values()), _number(s, row), row["n"], row["seeds"]]
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
        | {key: shown_value(row["values"][key]) if key in row["values"] else None for key in keys}
        | {name: row[name] for name in ("n", "iqm", "lower", "upper", "seeds")}
        for s in found
        for row in s.rows
    ]
