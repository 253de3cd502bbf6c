"""Command line: compare finished runs, ours and EPyMARL's, in one page with figures and tables.

python src/report.py results
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import argparse
import gc
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from utils import command
from utils.words import Several, names, points, seeds, steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from reporting.comparison import Comparison
    from reporting.grouping import Entry, Groups
    from reporting.labels import Names
    from reporting.palette import Styles
    from sweeping.study import Study
    from utils.args import ConfigError

MOST_ROWS = 40  # of the table on the console
MOST_LEFT_OUT = 20  # runs told on the console

DETAILS = """\
reads every run directory and every Sacred folder (EPyMARL's results/sacred) in or below PATH and writes to DIR

  report.html          opens by itself in a browser, offline; all figures and tables are inside
  *.png, *.pdf         the figures: learning_curves, final, profiles, improvement, efficiency
  *.csv                each number of a figure, and runs.csv with every run that was found

  python src/report.py results
  python src/report.py results --watch
  python src/report.py studies/two_step.yaml     the results of a study, and which of its runs have not begun
  python src/report.py results/qmix results/qtran_alt --out figures --metric test_return_mean --threshold 6
  python src/report.py results --algorithms qmix,qtran_alt --environments predator_prey --seeds 1-5 --until 400000
  python src/report.py results=ours epymarl/results=EPyMARL --order "QMIX (ours)","QMIX (EPyMARL)"

runs are grouped by algorithm and task; runs of one algorithm whose configurations differ are variants of their own.
Only finished runs count; all others are listed with the reason, and how far they are. --watch goes on, and writes the
page anew as runs go on, until Ctrl-C; the page in the browser loads itself again. Higher values of the metric are taken
to be better.

names are those of the configuration (qtran_alt) or those of the figures (QTRAN-alt); * stands for anything ("qmix*").
--labels FILE holds lines `qtran_alt: ours`, --ranges FILE lines `my_game: [0.5, 20]`, both in YAML.

the score over all tasks: a win rate counts as it is; a return is 0 for random play and 1 for the best play of its game,
as the game declares (score_range of its class), whichever runs are compared. docs/comparing.md says more.

exit status: 0 written; 2 bad input; 130 interrupted (Ctrl-C)
"""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    p = command.parser(
        "src/report.py", "Compare runs: learning curves, final performance, profiles, sample efficiency.", DETAILS
    )
    p.add_argument(
        "paths", nargs="+", metavar="PATH[=LABEL]",
        help="a folder that holds runs, at any depth; LABEL is what its runs are called, after the algorithm where it "
        "holds several",
    )  # fmt: skip
    p.add_argument("--out", metavar="DIR", help="where to write (default: report in the first PATH)")
    p.add_argument("--title", metavar="TEXT", default="Comparison of runs", help="heading of the report")
    p.add_argument("--json", metavar="FILE", help="write the data in the format of marl-eval too")
    which = p.add_argument_group("which runs")
    add_list(which, "--algorithms", "NAME", "only these algorithms, or variants of them")
    add_list(which, "--environments", "NAME", "only these environments, maps or tasks")
    which.add_argument("--seeds", metavar="LIST", type=seeds, help="only these seeds, such as 1-5,8")
    which.add_argument("--until", metavar="STEPS", type=steps, help="leave out what was measured after so many steps")
    which.add_argument(
        "--skip-shorter", action="store_true",
        help="leave out runs that end before --until, or without it before the longest run of their task",
    )  # fmt: skip
    measure = p.add_argument_group("what is measured")
    measure.add_argument(
        "--metric", metavar="NAME",
        help="what runs are judged by (default, for each task: test_battle_won_mean if its runs have it, else "
        "test_return_mean)",
    )  # fmt: skip
    measure.add_argument(
        "--threshold", metavar="X", type=number,
        help="of sample efficiency, in the metric's units (default, for each task: half way from the first evaluation, "
        "IQM of all runs, to the best algorithm's final performance)",
    )  # fmt: skip
    measure.add_argument(
        "--final", metavar="SHARE", type=share, default=0.05,
        help="the last part of the steps, over whose evaluations final performance is the mean (default: 0.05)",
    )  # fmt: skip
    measure.add_argument(
        "--ranges", metavar="FILE", help="scores that are 0 and 1 in the score over all tasks, of games without them"
    )  # fmt: skip
    measure.add_argument(
        "--reps", metavar="N", type=repetitions, default=2000, help="bootstrap resamples (default: 2000)"
    )  # fmt: skip
    shown = p.add_argument_group("how it is shown")
    shown.add_argument("--labels", metavar="FILE", help="names of algorithms and tasks in figures and tables")
    add_list(shown, "--order", "NAME", "algorithms in this order, the others after them")
    shown.add_argument(
        "--smooth", metavar="N", type=points, default=1,
        help="in learning curves, each point of a run is the mean of N evaluations (default: 1, as measured)",
    )  # fmt: skip
    p.add_argument(
        "--watch", metavar="SECONDS", type=seconds, nargs="?", const=30.0,
        help="write the page anew as runs go on, at most each so many seconds (30), until Ctrl-C",
    )  # fmt: skip
    return p


def add_list(group: argparse._ArgumentGroup, option: str, metavar: str, text: str) -> None:
    group.add_argument(option, metavar=metavar, nargs="+", type=names, action=Several, help=f"{text}: A,B or A B")


def number(text: str) -> float:
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; PATH goes before --watch") from None
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 to 86400 seconds")
    return value


def repetitions(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 50_000:
        raise argparse.ArgumentTypeError(f"{value} is not within 100 to 50000")
    return value


# ---- from runs to files


def act(options: argparse.Namespace) -> int:
    plans = read_studies(options)
    if options.watch is None:
        return report(options, plans)
    from reporting import selection, watch
    from utils.start import undo_at_ctrl_c

    _, folders = selection.of(options, plans)  # the results of a study may come later
    live = Live(options.watch)
    undo_at_ctrl_c()
    paths = [Path(path) for path in folders]
    try:
        watch.keep_up(lambda: (report(options, plans, live), live.said)[1], paths, options.watch)
    finally:
        live.last(page_of(options))
    return 0


class Live:
    """A report that is renewed each so many seconds. said: of its runs; first: whether nothing was written yet."""

    def __init__(self, seconds: float):
        self.seconds, self.said, self.first = seconds, "", True

    def last(self, path: Path) -> None:
        """Have the browser load the page at `path` no more."""
        from reporting import watch

        with suppress(OSError):
            mark = watch.reloading('<meta charset="utf-8">', self.seconds).encode()
            path.write_bytes(path.read_bytes().replace(mark, b'<meta charset="utf-8">', 1))


def page_of(options: argparse.Namespace) -> Path:
    from reporting.selection import split

    return Path(options.out or Path(split(options.paths[0])[0]) / "report") / "report.html"


def read_studies(options: argparse.Namespace) -> dict[str, Study]:
    """{results folder: Study} of the studies among the paths, in whose place their folders are put."""
    from sweeping.study import read_study
    from utils.args import ConfigError
    from utils.disk import expanded

    plans = {}
    for k, path in enumerate(options.paths):
        if path.endswith((".yaml", ".yml")) and os.path.isfile(path):
            study = read_study(path)
            if study.problems:
                raise ConfigError(f"{path}:\n  " + "\n  ".join(study.problems[:10]))
            folder = str(expanded(study.results or Path("results", "studies", study.path.stem)))
            if options.watch is None and not os.path.exists(folder):
                raise ConfigError(f"{path}: no run of it has begun: {folder} is not there; python src/sweep.py {path}")
            options.paths[k], plans[folder] = folder, study
    return plans


def not_begun(plans: dict[str, Study], entries: list[Entry]) -> list[tuple[str, str, list[int]]]:
    """[(algorithm, environment, [seed])] of the runs of studies that have no run directory."""
    from sweeping.plan import folder_name

    there = {(str(e.result.path.parents[2]), e.name, e.seed) for e in entries if len(e.result.path.parents) > 2}
    out = []
    for folder, study in plans.items():
        for environment in study.environments:
            for algorithm in study.algorithms:
                place = str(Path(folder, folder_name(environment)))
                seeds = [seed for seed in study.seeds if (place, algorithm, seed) not in there]
                out += [(algorithm, environment, seeds)] if seeds else []
    return out


def report(options: argparse.Namespace, plans: dict[str, Study], live: Live | None = None) -> int:
    """plans: {results folder: Study}. live: the Live whose page this is. Returns the exit status."""
    from reporting import grid, grouping, marl_eval, page, palette, ranges, selection, watch
    from reporting.comparison import compare, csv_files, final_rows, to_csv
    from reporting.extras import extras
    from reporting.labels import Names
    from reporting.results import find_results

    chosen, folders = selection.of(options, plans if live else ())
    out = Path(options.out or Path(folders[0]) / "report")
    given = ranges.read_ranges(options.ranges) if options.ranges else {}
    results, copies = find_results(folders, [options.metric] if options.metric else grouping.JUDGED_BY)
    if results or not live:
        results = selection.chosen(results, chosen)
    entries = grouping.entries(results, options.metric)
    if entries:
        entries = selection.narrow(entries, chosen)
    counting = grouping.counting(entries)
    under_way = watch.UnderWay(entries, not_begun(plans, entries))
    if live:
        live.said = under_way.sentence()
    if not counting:
        if live is None:
            raise nothing_to_compare(entries, options)
        files, section = under_way.page_part(options.metric)
        html = page_of_none(options.title, section, live)
        write(out, files | {"report.html": html.encode(errors="replace")})
        tell_where(out, live)
        return 0
    ranges.check_names(options.ranges, given, counting)
    names = Names(counting, options.labels)
    order = names.in_order(options.order or [])
    groups = {task: {a: here[a] for a in order if a in here} for task, here in grouping.by_task(entries).items()}
    found = grid.searches(groups, entries, lambda: final_rows(groups, options.reps, options.final))
    compared = grid.best_alone(found, groups)
    comparison = compare(compared, options.threshold, options.reps, options.final, given, options.smooth)
    if compared is not groups:
        groups = compared
        comparison.notes.append(
            "Of each search only the best setting is in the comparison of algorithms: all are under the settings that "
            "were searched, and in grid.csv"
        )
    order = [a for a in order if any(a in here for here in groups.values())]
    style = palette.styles(order)
    pictures = paint(comparison, style, names)
    files = csv_files(comparison, entries)
    for name, (png, pdf) in pictures.items():
        files |= {f"{name}.png": png, f"{name}.pdf": pdf}
    more = extras(found, comparison, groups, style, options.reps, to_csv, names)
    files |= more.files
    if under_way.runs or under_way.not_begun:
        own, section = under_way.page_part(options.metric)
        files |= own
        more.sections.insert(0, ("under-way", "Not finished", section))
    notes = warnings(comparison, groups, entries)
    if options.json:
        found = marl_eval.data(comparison.tasks, groups, names)
        notes += marl_eval.problems(found)
        write_json(options.json, marl_eval.text(found))
    pngs = {name: png for name, (png, _) in pictures.items()}
    file_names = ["report.html", *sorted(files)]
    method = page.method(comparison, options.reps, copies)
    html = page.report_page(
        options.title, comparison, groups, entries, notes, pngs, file_names, method, names, order, more.sections
    )  # fmt: skip
    html = watch.reloading(html, live.seconds) if live else html
    write(out, files | {"report.html": html.encode(errors="replace")})
    if live and not live.first:
        return 0
    if live:
        live.first = False
    tell(out, comparison, notes, entries, copies, names)
    tell_settings(more.said, [str(study.path) for study in plans.values()])
    return 0


def page_of_none(title: str, section: str, live: Live) -> str:
    """The page where no run is finished yet."""
    from reporting import watch
    from reporting.html import page

    summary = "<p>No run is finished yet that counts. The comparison comes with the first.</p>"
    return watch.reloading(page(title, summary, [], [("under-way", "Not finished", section)]), live.seconds)


def tell_where(out: Path, live: Live) -> None:
    if live.first:
        print(f"report: {out / 'report.html'}", flush=True)
    live.first = False


def check_paths(paths: Iterable[str | Path]) -> None:
    """ConfigError where a path is no folder."""
    from reporting.selection import unlike_a_folder
    from utils.args import ConfigError

    if problems := [said for path in paths for said in unlike_a_folder(str(path))]:
        raise ConfigError("\n  ".join(problems))


def nothing_to_compare(entries: list[Entry], options: argparse.Namespace) -> ConfigError:
    """The ConfigError for runs none of which counts."""
    from reporting import selection
    from reporting.formats import count, plain
    from reporting.results import metric_names
    from utils.args import ConfigError, nearest

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


def paint(comparison: Comparison, style: Styles, names: Names) -> dict[str, tuple[bytes, bytes]]:
    """{name of its files: (PNG, PDF)}, one figure at a time for the memory that they take. A figure is many small
    objects that stay: looking for garbage among them would take a sixth of the time."""
    from reporting import figures

    out, was = {}, gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        for name, figure in draw(comparison, style, names):
            out[name] = figures.save(figure)
            del figure
            gc.collect()
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
    return out


def draw(comparison: Comparison, style: Styles, names: Names) -> Iterator[tuple[str, Figure]]:
    """Yields (name of its files, Figure)."""
    from reporting import figures, page

    runs = {(t.name, a): list(values) for t in comparison.tasks for a, values in t.final.items()}
    ends = {t.name: t.steps[t.compared - 1] for t in comparison.tasks}
    over_all = page.over_all(comparison)
    single, smooth = comparison.single, comparison.smooth
    yield "final", figures.final(comparison.final, runs, style, names, over_all)
    yield "learning_curves", figures.learning_curves(comparison.learning_curves, style, names, single, smooth)
    if any(r["threshold"] == r["threshold"] for r in comparison.efficiency):
        yield "efficiency", figures.efficiency(comparison.efficiency, style, names, ends)
    yield "profiles", figures.profiles(comparison.profiles, style, names, over_all)
    if comparison.improvement:
        yield "improvement", figures.improvement(comparison.improvement, style, names)


def write(out: Path, files: dict[str, bytes]) -> None:
    from utils.args import ConfigError

    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            partial = out / f"{name}.partial"  # a browser that loads the page meanwhile gets a whole one
            try:
                partial.write_bytes(data)
                os.replace(partial, out / name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written: {error.strerror}; give --out=DIR") from error


def write_json(path: str, text: str) -> None:
    from utils.args import ConfigError

    try:
        Path(path).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--json={path}: cannot be written: {error.strerror}; give another FILE") from error


# ---- what is said


def warnings(comparison: Comparison, groups: Groups, entries: list[Entry]) -> list[str]:
    """Sentences on what stands in the way of a fair comparison."""
    from reporting import grouping
    from reporting.formats import count

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
    """On the console: where the report is, the final performance, what to mind, what was left out."""
    from rich.console import Console

    from reporting.formats import count, plain

    print(f"report: {out / 'report.html'}", flush=True)
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
    from rich.table import Table
    from rich.text import Text

    from reporting.comparison import ALL_TASKS
    from reporting.formats import decimals, with_interval
    from reporting.page import labelled

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


if __name__ == "__main__":
    sys.exit(main())
