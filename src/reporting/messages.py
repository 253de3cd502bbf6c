"""What a report says of its runs beside its figures and tables: warnings, the console, the error where none counts."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reporting import grouping, selection
from reporting.comparison import ALL_TASKS, Comparison
from reporting.formats import decimals, plain, with_interval
from reporting.grouping import Entry, Groups
from reporting.labels import Names
from reporting.page import labelled
from reporting.results import metric_names
from utils.args import ConfigError, nearest
from utils.messages import count

MOST_ROWS = 40  # of the table on the console
MOST_LEFT_OUT = 20  # runs told on the console


def nothing_to_compare(entries: list[Entry], options: argparse.Namespace) -> ConfigError:
    """The ConfigError for runs none of which counts."""
    where = ", ".join(map(str, options.paths))
    if said := selection.none_left(entries):
        return ConfigError(said)
    if not entries:
        return ConfigError(
            f"{where}: no runs found; a run is a folder with config.yaml and metrics.jsonl, or Sacred's with "
            "config.json, run.json and metrics.json"
        )
    lacking = [e.result for e in entries if (e.left_out or "").startswith("has no metric")]
    if lacking:
        known = [plain(name) for name in metric_names(lacking)]
        asked = f"--metric={options.metric}" if options.metric else "test_return_mean"
        hint = nearest(options.metric, known) if options.metric else "; give --metric=NAME"
        return ConfigError(f"{asked}: no finished run has it; known: {', '.join(known) or 'none'}{hint}")
    lines = [f"{plain(str(e.result.path))}: {e.left_out}" for e in entries[:10]]
    rest = [f"and {len(entries) - 10} more"] if len(entries) > 10 else []
    return ConfigError(
        f"{where}: {count(len(entries), 'run')} found, none that counts:\n  " + "\n  ".join(lines + rest)
    )


def warnings(comparison: Comparison, groups: Groups, entries: list[Entry]) -> list[str]:
    """Sentences on what stands in the way of a fair comparison."""
    out = []
    for task in comparison.tasks:
        algorithms = groups[task.name]
        shown = next(iter(algorithms.values()))[0].shown_task
        out += [f"{shown}: {said}" for said in grouping.unfair(algorithms) + task.warnings]
    one = [group[0] for algs in groups.values() for group in algs.values() if len(group) == 1]
    single = [f"{e.shown_algorithm} on {e.shown_task}" for e in one]
    if single:
        out.append(f"one seed only, so no interval: {'; '.join(single)}")
    out += comparison.notes
    left = [e for e in entries if e.left_out]
    if left:
        out.append(f"{count(len(left), 'run')} of {len(entries)} not in the statistics: see Left out")
    return out


def tell(out: Path, comparison: Comparison, notes: list[str], entries: list[Entry], copies: int, names: Names) -> None:
    """On the console: the final performance, what to mind, what was left out. out: the folder of the report."""
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(width=200, emoji=False)
    console.print(final_table(comparison, names))
    for note in notes:
        console.print(f"warning: {note}", markup=False, highlight=False, style="yellow")
    if copies:
        console.print(f"{count(copies, 'Sacred folder')} skipped: copies of run directories", highlight=False)
    left = [e for e in entries if e.left_out]
    for e in left[:MOST_LEFT_OUT]:
        text = f"left out: {plain(str(e.result.path))}: {e.left_out}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if len(left) > MOST_LEFT_OUT:
        console.print(f"and {len(left) - MOST_LEFT_OUT} more: see {out / 'runs.csv'}", highlight=False)


def tell_settings(said: list[tuple[str, str]], studies: list[str]) -> None:
    """The best settings of a search, each with a line for the study of the results. said: [(sentence, YAML)]; studies:
    that were searched, where it is known."""
    for sentence, line in said:
        print(f"{sentence}\n  {line}")
    if said:
        searched = studies[0] if len(studies) == 1 else "STUDY.yaml"
        print(f"  tuned_on: {searched}  # this study, in that of the results, which takes other seeds")


def final_table(comparison: Comparison, names: Names) -> Table:
    """The final performance, or where that is long, only that over all tasks."""
    rows = comparison.final
    over_all = [r for r in rows if r["task"] == ALL_TASKS]
    shown = over_all if len(rows) > MOST_ROWS and over_all else rows
    title = None if shown is rows else f"over all tasks; {len(rows) - len(over_all)} rows more in final.csv"
    table = Table("task", "algorithm", title=title)
    table.add_column("runs", justify="right")
    table.add_column("final IQM [95 % interval]", justify="right")
    for k, r in enumerate(shown):
        first = k == 0 or shown[k - 1]["task"] != r["task"]
        if first and k:
            table.add_section()
        digits = decimals([other["iqm"] for other in shown if other["task"] == r["task"]])
        number = with_interval(r["iqm"], r["lower"], r["upper"], digits)
        table.add_row(
            Text(labelled(r, comparison, names) if first else ""),
            Text(names.algorithm(r["algorithm"])),
            str(r["n"]),
            Text(number),
        )
    return table
