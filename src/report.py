"""Command line: compare finished runs, ours and EPyMARL's, in one page with figures and tables.

python src/report.py results
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.start import leave_at_once

    leave_at_once()

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from utils import command
from utils.words import add_list, points, seeds, steps

if TYPE_CHECKING:
    from reporting.grouping import Entry
    from reporting.ranges import Range
    from reporting.results import Result
    from reporting.selection import Selection
    from reporting.watch import Live, UnderWay
    from sweeping.study import Study
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
page anew as runs go on, until Ctrl-C; the browser reloads the page. Higher values of the metric are taken to be better.

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
        report(options, plans)
        return 0
    from reporting import selection, watch
    from utils.start import undo_at_ctrl_c

    _, folders = selection.of(options, plans)  # the results of a study may come later
    live = watch.Live(page_of(options), options.watch)
    undo_at_ctrl_c()

    def renew() -> str:
        report(options, plans, live)
        return live.said

    try:
        watch.keep_up(renew, [Path(path) for path in folders], options.watch)
    finally:
        live.end()
    return 0


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


def not_begun(plans: dict[str, Study], results: list[Result], chosen: Selection) -> list[tuple[str, str, list[int]]]:
    """[(algorithm, environment, [seed])] of the runs of studies that are chosen and have no run directory. results: of
    all runs that were found."""
    from sweeping.plan import folder_name

    there = set()
    for r in results:
        place = r.path.resolve().parent.parent.parent
        there.add((place, str(r.config.get("name")), str(r.config.get("seed"))))  # a strange run may hold anything
    out = []
    for folder, study in plans.items():
        seeds = [seed for seed in study.seeds if chosen.seeds is None or seed in chosen.seeds]
        for environment, (file, changes) in study.environments.items():
            keys = changes.keys() & {"env_args.map_name", "env_args.key"}
            names = {environment, file, *(str(changes[key]) for key in keys)}
            place = Path(folder, folder_name(environment)).resolve()
            for algorithm, (base, _) in study.algorithms.items():
                left = [seed for seed in seeds if (place, algorithm, str(seed)) not in there]
                if left and chosen.keeps({algorithm, base}, names):
                    out.append((algorithm, environment, left))
    return out


def report(options: argparse.Namespace, plans: dict[str, Study], live: Live | None = None) -> None:
    """Write the report of the runs that are there. plans: {results folder: Study}; live: the page, with --watch."""
    from reporting import grouping, messages, ranges, selection, watch
    from reporting.files import write
    from reporting.results import find_results

    chosen, folders = selection.of(options, plans if live else ())
    given = ranges.read_ranges(options.ranges) if options.ranges else {}
    results, copies = find_results(folders, [options.metric] if options.metric else grouping.JUDGED_BY)
    waiting = not_begun(plans, results, chosen)
    later = set()  # names of runs that may begin while the page is renewed
    for study in plans.values() if live else ():
        for named in (study.algorithms, study.environments):
            later |= {name for label, (file, _) in named.items() for name in (label, file)}
    if results or not live:
        results = selection.chosen(results, chosen, bool(live and waiting))
    entries = grouping.entries(results, options.metric)
    if entries:
        entries = selection.narrow(entries, chosen, later)
    under_way = watch.UnderWay(entries, waiting)
    if live:
        live.said = under_way.sentence()
    page = page_of(options)
    if counting := grouping.counting(entries):
        ranges.check_names(options.ranges, given, counting)
        html, files, tell = compared(options, plans, entries, copies, given, under_way)
    elif live:
        files, section = under_way.page_part(options.metric)
        html, tell = watch.page_of_none(options.title, section), lambda: None
    else:
        raise messages.nothing_to_compare(entries, options)
    html = watch.reloading(html, live.seconds) if live else html
    write(page.parent, files | {page.name: html.encode(errors="replace")})
    if live is None or live.first:
        print(f"report: {page}", flush=True)
        tell()
    if live:
        live.first = False


def compared(
    options: argparse.Namespace,
    plans: dict[str, Study],
    entries: list[Entry],
    copies: int,
    given: dict[str, Range],
    under_way: UnderWay,
) -> tuple[str, dict[str, bytes], Callable[[], None]]:
    """(the page, {name: bytes} of the files beside it, what prints what is said of it). entries: of all runs; copies:
    Sacred folders that were skipped; given: {name: Range} of --ranges."""
    from reporting import grid, grouping, marl_eval, messages, page, palette
    from reporting.comparison import compare, final_rows
    from reporting.extras import extras
    from reporting.files import csv_files, write_json
    from reporting.labels import Names
    from reporting.pictures import paint

    names = Names(grouping.counting(entries), options.labels)
    order = names.in_order(options.order or [])
    every = {task: {a: here[a] for a in order if a in here} for task, here in grouping.by_task(entries).items()}
    algorithms = {folder: study.algorithms for folder, study in plans.items()}
    found = grid.searches(every, entries, lambda: final_rows(every, options.reps, options.final), algorithms)
    groups = grid.best_alone(found, every)
    comparison = compare(groups, options.threshold, options.reps, options.final, given, options.smooth)
    if groups is not every:
        comparison.notes.append(grid.BEST_ALONE)
    style = palette.styles([a for a in order if any(a in here for here in groups.values())])
    pictures = paint(comparison, style, names)
    files = csv_files(comparison, entries)
    for name, (png, pdf) in pictures.items():
        files |= {f"{name}.png": png, f"{name}.pdf": pdf}
    more = extras(found, comparison, groups, style, options.reps, names)
    files |= more.files
    if under_way.runs or under_way.not_begun:
        own, section = under_way.page_part(options.metric)
        files |= own
        more.sections.insert(0, ("under-way", "Not finished", section))
    notes = messages.warnings(comparison, groups, entries)
    if options.json:
        data = marl_eval.data(comparison.tasks, groups, names)
        notes += marl_eval.problems(data)
        write_json(options.json, marl_eval.text(data))
    pngs = {name: png for name, (png, _) in pictures.items()}
    file_names = ["report.html", *sorted(files)]
    method = page.method(comparison, options.reps, copies)
    html = page.report_page(
        options.title, comparison, groups, entries, notes, pngs, file_names, method, names, list(style), more.sections
    )  # fmt: skip

    def tell() -> None:
        messages.tell(page_of(options).parent, comparison, notes, entries, copies, names)
        messages.tell_settings(more.said, [str(study.path) for study in plans.values()])
        for sentence in grid.lacking(found):
            print(sentence)

    return html, files, tell


if __name__ == "__main__":
    sys.exit(main())
