"""The report as a page: its sections, tables and sentences."""

import math
from collections.abc import Iterable
from html import escape

from reporting import grouping
from reporting.comparison import ALL_TASKS, Comparison, Row, Task
from reporting.formats import commit, decimals, metric_label, plain, steps, with_interval
from reporting.grouping import Entry, Groups
from reporting.html import bullets, page, picture, table
from reporting.labels import Names
from utils.messages import count, duration


def report_page(
    title: str,
    comparison: Comparison,
    groups: Groups,
    entries: list[Entry],
    warnings: list[str],
    pictures: dict[str, bytes],
    files: list[str],
    method: list[str],
    names: Names,
    order: list[str],
    more: Iterable[tuple[str, str, str]] = (),
) -> str:
    """report.html. groups: {task: {algorithm: [Entry]}}; entries: of all runs; pictures: {name: PNG}; names: what they
    are called; order: the algorithms in the order of tables; more: further sections, [(id, heading, HTML)], which come
    first."""
    algorithms = [a for a in order if any(a in here for here in groups.values())]
    n_used = sum(e.left_out is None for e in entries)
    summary = (
        f"<p>{count(n_used, 'run')} of {count(len(algorithms), 'algorithm')} on {count(len(groups), 'task')}. "
        "Intervals are 95 % bootstrap intervals over runs; "
        '<a href="#method">Method</a> says how each number is computed.</p>'
    )
    n = _numbers_of_seeds(groups)
    shown = {name: picture(name, png, f"{CAPTIONS[name]} {n}") for name, png in pictures.items()}
    left_out = [e for e in entries if e.left_out]
    sections = [
        *more,
        ("final", "Final performance", shown["final"] + final_table(comparison, algorithms, names)),
        ("curves", "Learning curves", shown["learning_curves"]),
        (
            "efficiency",
            "Sample efficiency",
            shown.get("efficiency", "") + efficiency_table(comparison.efficiency, names),
        ),
        ("profiles", "Performance profiles", shown["profiles"]),
        (
            "improvement",
            "Probability of improvement",
            shown.get("improvement", "") + pairs(comparison.improvement, names),
        ),
        ("ran", "What ran", ran_table(groups)),
        ("differences", "Configuration keys that differ", differences(groups)),
        ("left-out", "Left out", left_out_table(left_out) if left_out else ""),
        ("method", "Method", bullets(method) + task_table(comparison.tasks, names)),
        ("files", "Files", f"<p>{', '.join(f'<code>{escape(name)}</code>' for name in files)}</p>"),
    ]
    return page(title, summary, warnings, [section for section in sections if section[2]])


CAPTIONS = {
    "final": (
        "Final performance: a point is the interquartile mean (IQM) over runs, the line its 95 % interval, and each "
        "tick below a single run; further right is better."
    ),
    "learning_curves": (
        "Learning curves: a line is the IQM over runs at each evaluation, the band its pointwise 95 % interval; higher "
        "and further left is better. Thin lines are single runs, where the runs of an algorithm end in two groups. "
        "A cross: from there on fewer runs, the others have ended."
    ),
    "efficiency": (
        "Sample efficiency: a point is the median number of steps until a run first reaches the threshold, the line "
        "its 95 % interval; an open arrow at the right edge means never: the median if there is no point, else the "
        "upper end of the interval; k/n: k of n runs reach it; further left is better. A task where nothing improved "
        "has no panel."
    ),
    "profiles": (
        "Performance profiles: the share of runs whose final performance is above τ, with pointwise 95 % intervals; a "
        "curve above another is better."
    ),
    "improvement": (
        "Probability that a run of the algorithm in the row ends better than one of that in the column, ties counting "
        "half; bold: the 95 % interval excludes one half."
    ),
}


def _numbers_of_seeds(groups: Groups) -> str:
    numbers = sorted({len(group) for algorithms in groups.values() for group in algorithms.values()})
    if len(numbers) > 1:
        none = "; no interval where a task has one run only" if numbers[0] == 1 else ""
        return f"n = {numbers[0]} to {numbers[-1]} seeds, as in the table of final performance{none}."
    if numbers == [1]:
        return "n = 1 seed for each algorithm and task: no intervals."
    return f"n = {count(numbers[0], 'seed')} for each algorithm and task."


def method(comparison: Comparison, reps: int, copies: int) -> list[str]:
    """Sentences on how the numbers are made."""
    goal = "The threshold was given with --threshold."
    if comparison.default_threshold:
        goal = (
            "The threshold is half way from the first evaluation (IQM of all runs of the task) to the final "
            "performance (IQM) of the best algorithm; there is none where no algorithm ends above the first evaluation."
        )
    out = [
        "Interquartile mean (IQM): the mean of the runs after a quarter of them, rounded down, is cut at either end.",
        f"Intervals: percentile bootstrap with {reps:,} resamples of the runs, within each task (stratified), fixed "
        "random seed; none is given where an algorithm has only one run on a task. With fewer than about ten runs they "
        "are rough, and mostly too narrow; one of no width, [1.00, 1.00] say, is no certainty.",
        "Evaluation points of a task: those of the run that is evaluated most rarely. For each run the evaluation "
        "nearest to a point is used; nothing is interpolated or extrapolated. A curve goes on as far as at least "
        "half of the algorithm's runs do, and is then of these.",
        f"Final performance: the mean of a run's evaluations in the last {100 * comparison.final_share:g} % of the "
        "steps up to the last point that at least half of the runs of every algorithm reach; the last evaluation at "
        "least. Runs that end before that point have none.",
        f"Steps to the threshold: the first evaluation at or above it; never reached counts as infinite. {goal}",
        "P(X > Y): over all pairs of a run of X and a run of Y on a task, ties counting half, averaged over tasks.",
    ]
    if any(row["task"] == ALL_TASKS for row in comparison.final):
        out.append(
            "All tasks: on each task, final performance is put on a scale from 0 to 1 that does not depend on the runs "
            f"({comparison.scale}); a score may lie beyond it. The runs of all tasks are then "
            "pooled, each task with the same weight."
        )
    if comparison.smooth > 1:
        out.append(
            f"Learning curves: each point of a run is the mean of {comparison.smooth} evaluations, those before and "
            "after it (--smooth); no other number is smoothed."
        )
    if copies:
        out.append(f"Skipped: {count(copies, 'Sacred folder')}, copies of run directories that were read.")
    return out


def task_table(tasks: list[Task], names: Names) -> str:
    """Where the runs of each task are compared."""
    lines = [
        [
            names.task(t.name), plain(t.metric), t.compared, f"{t.steps[t.compared - 1]:,.0f}", f"{t.distance:,.0f}",
            "none" if t.threshold is None else f"{t.threshold:.{decimals([t.threshold])}f}",
        ]
        for t in tasks
    ]  # fmt: skip
    head = ["task", "metric", "points", "up to step", "evaluations at most … steps from a point", "threshold"]
    return table(head, lines, numbers=(2, 3, 4, 5))


# ---- tables of the report


def over_all(comparison: Comparison) -> tuple[str, str]:
    """(the title of what is over all tasks, what its scale is)"""
    n = len(comparison.tasks)
    title = ALL_TASKS if comparison.n_scaled == n else f"{comparison.n_scaled} of {n} tasks"
    return title, comparison.scale


def labelled(row: Row, comparison: Comparison, names: Names) -> str:
    """(task with its metric)"""
    if row["task"] == ALL_TASKS:
        return f"{over_all(comparison)[0]} (normalised: {comparison.scale})"
    return f"{names.task(row['task'])} ({plain(metric_label(row['metric']))})"


def final_table(comparison: Comparison, algorithms: list[str], names: Names) -> str:
    """Tasks by algorithms, the fewer of them across."""
    columns = []
    rows = comparison.final
    for task in dict.fromkeys(r["task"] for r in rows):
        here = {r["algorithm"]: r for r in rows if r["task"] == task}
        digits = decimals([r["iqm"] for r in here.values()])
        bold = among_the_best(here)
        column: list = [labelled(next(iter(here.values())), comparison, names)]
        for r in map(here.get, algorithms):
            if r is None:
                column.append("–")
                continue
            text = with_interval(r["iqm"], r["lower"], r["upper"], digits, "\n") + f"\nn={r['n']}"
            column.append((text, "best" if r["algorithm"] in bold else ""))
        columns.append(column)
    cells = [["", *map(names.algorithm, algorithms)], *columns]
    if len(columns) < len(algorithms):
        cells = [list(row) for row in zip(*cells)]
    return table(cells[0], cells[1:], numbers=range(1, len(cells[0]))) + f'<p class="note">{BOLD}</p>'


BOLD = (
    "Bold: the highest IQM of a task, and every other whose 95 % interval reaches that of the highest: these runs do "
    "not tell them apart. A single run has no interval; its value stands for one."
)


def among_the_best(rows: dict[str, dict]) -> set[str]:
    """The algorithms, of rows of one task by algorithm, that are printed bold: see BOLD."""
    first = max(rows.values(), key=lambda r: r["iqm"])
    low = first["lower"] if math.isfinite(first["lower"]) else first["iqm"]
    reach = {a: r["upper"] if math.isfinite(r["upper"]) else r["iqm"] for a, r in rows.items()}
    return {a for a, high in reach.items() if high >= low}


def pairs(rows: list[Row], names: Names) -> str:
    """The pairs over all tasks, or of the only one."""
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    if len(tasks) == 1 or ALL_TASKS in tasks:
        return improvement_table(rows, ALL_TASKS if ALL_TASKS in tasks else tasks[0], names)
    return ""


def improvement_table(rows: list[Row], task: str, names: Names) -> str:
    """Each pair once, the first that stands in the rows."""
    order = {a: k for k, a in enumerate(dict.fromkeys(r["x"] for r in rows))}
    lines = [
        [
            names.algorithm(r["x"]),
            names.algorithm(r["y"]),
            r["n_x"],
            r["n_y"],
            with_interval(r["probability"], r["lower"], r["upper"], 2),
        ]
        for r in rows
        if r["task"] == task and order[r["x"]] < order[r["y"]]
    ]
    return table(["X", "Y", "runs of X", "runs of Y", "P(X > Y) [95 % interval]"], lines, numbers=(2, 3, 4))


def efficiency_table(rows: list[Row], names: Names) -> str:
    lines = []
    for r in rows:
        digits = decimals([r["threshold"]])
        ends = dict.fromkeys(steps(r[k]) for k in ("lower", "upper"))  # one, where they are the same
        threshold = "–" if math.isnan(r["threshold"]) else f"{r['threshold']:.{digits}f}"
        reached = f"{r['reached']} of {r['n']}"
        lines.append(
            [
                names.task(r["task"]),
                threshold,
                names.algorithm(r["algorithm"]),
                reached,
                steps(r["median_steps"]),
                " to ".join(ends),
            ]
        )
    head = ["task", "threshold", "algorithm", "runs that reach it", "median steps", "95 % interval"]
    return table(head, lines, numbers=(1, 3, 4, 5))


def ran_table(groups: Groups) -> str:
    """What ran, one line an algorithm and task; versions and commit are said once where they are the same for all."""
    lines = []
    for algorithms in groups.values():
        for entries in algorithms.values():
            results = [e.result for e in entries]
            ends = sorted({r.t_env for r in results})
            updates = sorted({round(r.updates, 1) for r in results if r.updates is not None})
            parameters = sorted({r.parameters for r in results if r.parameters is not None})
            walls = sorted(r.wall_time_s for r in results if r.wall_time_s is not None)
            versions = [", ".join(f"{k} {v}" for k, v in r.versions.items()) or "–" for r in results]
            lines.append(
                [
                    entries[0].shown_task, entries[0].shown_algorithm, len(entries), grouping.seeds(entries),
                    f"{ends[0]:,}" if len(ends) == 1 else f"{ends[0]:,} to {ends[-1]:,}",
                    " to ".join(f"{u:g}" for u in dict.fromkeys(updates[:1] + updates[-1:])) or "–",
                    " to ".join(f"{p:,}" for p in dict.fromkeys(parameters[:1] + parameters[-1:])) or "–",
                    duration(walls[len(walls) // 2]) if walls else "–", "; ".join(dict.fromkeys(versions)),
                    ", ".join(dict.fromkeys(commit(r.commit) for r in results)),
                ]
            )  # fmt: skip
    head = [
        "task",
        "algorithm",
        "runs",
        "seeds",
        "steps",
        "updates in 1,000 steps",
        "parameters",
        "median wall time",
        "versions",
        "commit",
    ]
    shared = ""
    if len({tuple(line[-2:]) for line in lines}) == 1:
        shared = f"<p>All runs: {escape(lines[0][-2])}; commit {escape(lines[0][-1])}.</p>"
        head, lines = head[:-2], [line[:-2] for line in lines]
    return shared + table(head, lines, numbers=(2, 4, 5, 6, 7))


def differences(groups: Groups) -> str:
    """Tables of the configuration keys that differ between algorithms; tasks with the same table share it."""
    same = {}
    for algorithms in groups.values():
        lines = tuple(
            (name, *(grouping.short(v, 40) for v in values))
            for name, values in grouping.differing(list(algorithms.values())).items()
        )
        if lines:
            shown = (group[0].shown_algorithm for group in algorithms.values())
            same.setdefault((("key", *shown), lines), []).append(next(iter(algorithms.values()))[0].shown_task)
    return "".join(f"<h3>{escape(', '.join(tasks))}</h3>{table(*both)}" for both, tasks in same.items())


def left_out_table(entries: list[Entry]) -> str:
    lines = []
    for e in entries:
        t_max = e.keys.get("t_max")
        far = f"{e.result.t_env:,}" + (f" of {t_max:,}" if isinstance(t_max, int) else "")
        seed = "–" if e.seed is None else e.seed
        lines.append(
            [
                e.shown_algorithm or e.algorithm or "–",
                e.shown_task or e.task or "–",
                seed,
                far,
                e.left_out,
                plain(str(e.result.path)),
            ]
        )
    return table(["algorithm", "task", "seed", "steps", "why", "path"], lines, numbers=(2, 3))
