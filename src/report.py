"""Command line: compare finished runs, ours and EPyMARL's, in one page with figures and tables.

python src/report.py results
"""

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from utils import command

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

runs are grouped by algorithm and task; runs of one algorithm whose configurations differ are variants of their own.
Only finished runs count; all others are listed with the reason, and how far they are. --watch goes on, and writes the
page anew as runs go on, until Ctrl-C; the page in the browser loads itself again. Higher values of the metric are taken
to be better.

exit status: 0 written; 2 bad input; 130 interrupted (Ctrl-C)
"""


def main(argv=None):
    """Returns the exit status."""
    return command.status_of(act, parser().parse_args(argv))


def parser():
    p = command.parser(
        "src/report.py", "Compare runs: learning curves, final performance, profiles, sample efficiency.", DETAILS
    )
    p.add_argument("paths", nargs="+", metavar="PATH", help="a folder that holds runs, at any depth; or a study")
    p.add_argument("--out", metavar="DIR", help="where to write (default: report in the first PATH)")
    p.add_argument(
        "--metric", metavar="NAME",
        help="what runs are judged by (default, for each task: test_battle_won_mean if its runs have it, else "
        "test_return_mean)",
    )  # fmt: skip
    p.add_argument(
        "--threshold", metavar="X", type=number,
        help="of sample efficiency, in the metric's units (default, for each task: half way from the first evaluation, "
        "IQM of all runs, to the best algorithm's final performance)",
    )  # fmt: skip
    p.add_argument(
        "--final", metavar="SHARE", type=share, default=0.05,
        help="the last part of the steps, over whose evaluations final performance is the mean (default: 0.05)",
    )  # fmt: skip
    p.add_argument("--reps", metavar="N", type=repetitions, default=2000, help="bootstrap resamples (default: 2000)")
    p.add_argument(
        "--watch", metavar="SECONDS", type=seconds, nargs="?", const=30.0,
        help="write the page anew as runs go on, at most each so many seconds (30), until Ctrl-C",
    )  # fmt: skip
    p.add_argument("--title", metavar="TEXT", default="Comparison of runs", help="heading of the report")
    return p


def number(text):
    value = float(text)
    if value - value != 0:  # nan, inf
        raise ValueError
    return value


def share(text):
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def seconds(text):
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; PATH goes before --watch") from None
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 to 86400 seconds")
    return value


def repetitions(text):
    value = int(text)
    if not 100 <= value <= 50_000:
        raise argparse.ArgumentTypeError(f"{value} is not within 100 to 50000")
    return value


# ---- from runs to files


def act(options):
    plans = read_studies(options)
    if options.watch is None:
        return report(options, plans)
    from reporting import watch
    from utils.start import undo_at_ctrl_c

    check_paths(path for path in options.paths if path not in plans)  # the results of a study may come later
    live = Live(options.watch)
    undo_at_ctrl_c()
    paths = [Path(path) for path in options.paths]
    try:
        watch.keep_up(lambda: (report(options, plans, live), live.said)[1], paths, options.watch)
    finally:
        live.last(page_of(options))
    return 0


class Live:
    """A report that is renewed each so many seconds. said: of its runs; first: whether nothing was written yet."""

    def __init__(self, seconds):
        self.seconds, self.said, self.first = seconds, "", True

    def last(self, path):
        """Have the browser load the page at `path` no more."""
        from reporting import watch

        with suppress(OSError):
            mark = watch.reloading('<meta charset="utf-8">', self.seconds).encode()
            path.write_bytes(path.read_bytes().replace(mark, b'<meta charset="utf-8">', 1))


def page_of(options):
    return Path(options.out or Path(options.paths[0]) / "report") / "report.html"


def read_studies(options):
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


def not_begun(plans, entries):
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


def report(options, plans, live=None):
    """plans: {results folder: Study}. live: the Live whose page this is. Returns the exit status."""
    from reporting import figures, grid, grouping, page, palette, watch
    from reporting.comparison import compare, csv_files, final_rows, to_csv
    from reporting.extras import extras
    from reporting.results import find_results

    if not live:  # else they were checked at its start
        check_paths(options.paths)
    out = Path(options.out or Path(options.paths[0]) / "report")
    results, copies = find_results(options.paths, [options.metric] if options.metric else grouping.JUDGED_BY)
    entries = grouping.entries(results, options.metric)
    groups = grouping.by_task(entries)
    under_way = watch.UnderWay(entries, not_begun(plans, entries))
    if live:
        live.said = under_way.sentence()
    if not groups and not live:
        raise nothing_to_compare(entries, options)
    if not groups:
        files, section = under_way.page_part(options.metric)
        html = page_of_none(options.title, section, live)
        write(out, files | {"report.html": html.encode(errors="replace")})
        tell_where(out, live)
        return 0
    found = grid.searches(groups, entries, lambda: final_rows(groups, options.reps, options.final))
    compared = grid.best_alone(found, groups)
    comparison = compare(compared, options.threshold, options.reps, options.final)
    if compared is not groups:
        groups = compared
        comparison.notes.append(
            "Of each search only the best setting is in the comparison of algorithms: all are under the settings that "
            "were searched, and in grid.csv"
        )
    style = palette.styles({a for algorithms in groups.values() for a in algorithms})
    pictures = {name: figures.save(figure) for name, figure in draw(comparison, groups, style).items()}
    files = csv_files(comparison, entries)
    for name, (png, pdf) in pictures.items():
        files |= {f"{name}.png": png, f"{name}.pdf": pdf}
    more = extras(found, comparison, groups, style, options.reps, to_csv)
    files |= more.files
    if under_way.runs or under_way.not_begun:
        own, section = under_way.page_part(options.metric)
        files |= own
        more.sections.insert(0, ("under-way", "Not finished", section))
    notes = warnings(comparison, groups, entries)
    pngs = {name: png for name, (png, _) in pictures.items()}
    names = ["report.html", *sorted(files)]
    method = page.method(comparison, options.reps, copies)
    html = page.report_page(options.title, comparison, groups, entries, notes, pngs, names, method, more.sections)
    html = watch.reloading(html, live.seconds) if live else html
    write(out, files | {"report.html": html.encode(errors="replace")})
    if live and not live.first:
        return 0
    if live:
        live.first = False
    tell(out, comparison, notes, entries, copies)
    tell_settings(more.said, [str(study.path) for study in plans.values()])
    return 0


def page_of_none(title, section, live):
    """The page where no run is finished yet."""
    from reporting import watch
    from reporting.html import page

    summary = "<p>No run is finished yet that counts. The comparison comes with the first.</p>"
    return watch.reloading(page(title, summary, [], [("under-way", "Not finished", section)]), live.seconds)


def tell_where(out, live):
    if live.first:
        print(f"report: {out / 'report.html'}", flush=True)
    live.first = False


def check_paths(paths):
    from utils.args import ConfigError, nearest

    problems = []
    for path in map(Path, paths):
        if not os.path.exists(path):
            beside = []
            with suppress(OSError):
                beside = os.listdir(path.parent)
            problems.append(f"{path}: no such folder{nearest(path.name, beside)}")
        elif not os.path.isdir(path):
            problems.append(f"{path}: is a file; give a folder that holds runs")
    if problems:
        raise ConfigError("\n  ".join(problems))


def nothing_to_compare(entries, options):
    """The ConfigError for runs none of which counts."""
    from reporting.formats import count, plain
    from reporting.results import metric_names
    from utils.args import ConfigError, nearest

    where = ", ".join(map(str, options.paths))
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


def draw(comparison, groups, style):
    """{name of its files: Figure}"""
    from reporting import figures

    runs = {(task, a): [e.final for e in group] for task, algs in groups.items() for a, group in algs.items()}
    ends = {task.name: task.steps[-1] for task in comparison.tasks}
    out = {
        "final": figures.final(comparison.final, runs, style),
        "learning_curves": figures.learning_curves(comparison.learning_curves, style),
        "efficiency": figures.efficiency(comparison.efficiency, style, ends),
        "profiles": figures.profiles(comparison.profiles, style),
    }
    return out | ({"improvement": figures.improvement(comparison.improvement, style)} if comparison.improvement else {})


def write(out, files):
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


# ---- what is said


def warnings(comparison, groups, entries):
    """Sentences on what stands in the way of a fair comparison."""
    from reporting import grouping
    from reporting.formats import count

    out = []
    for task in comparison.tasks:
        out += [f"{task.name}: {said}" for said in grouping.unfair(groups[task.name]) + task.warnings]
    single = [f"{a} on {t}" for t, algs in groups.items() for a, group in algs.items() if len(group) == 1]
    if single:
        out.append(f"one seed only, so no interval: {'; '.join(single)}")
    left = [e for e in entries if e.left_out]
    if left:
        out.append(f"{count(len(left), 'run')} of {len(entries)} not in the statistics: see Left out")
    return out


def tell(out, comparison, notes, entries, copies):
    """On the console: where the report is, the final performance, what to mind, what was left out."""
    from rich.console import Console

    from reporting.formats import count, plain

    print(f"report: {out / 'report.html'}", flush=True)
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(width=200, emoji=False)
    console.print(final_table(comparison.final))
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


def tell_settings(said, studies):
    """The best settings of a search, each with a line for the study of the results. said: [(sentence, YAML)]; studies:
    that were searched, where it is known."""
    for sentence, line in said:
        print(f"{sentence}\n  {line}")
    if said:
        searched = studies[0] if len(studies) == 1 else "STUDY.yaml"
        print(f"  tuned_on: {searched}  # this study, in that of the results, which takes other seeds")


def final_table(rows):
    """The final performance, or where that is long, only that over all tasks."""
    from rich.table import Table
    from rich.text import Text

    from reporting.comparison import ALL_TASKS
    from reporting.formats import decimals, with_interval
    from reporting.page import labelled

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
        table.add_row(Text(labelled(r) if first else ""), Text(r["algorithm"]), str(r["n"]), Text(number))
    return table


if __name__ == "__main__":
    sys.exit(main())
