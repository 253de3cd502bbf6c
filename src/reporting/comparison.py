"""The numbers of a report: every figure and table is drawn from the rows made here, and the CSV files hold them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reporting import statistics as st
from reporting.formats import plain
from reporting.grouping import Algorithms, Entry, Groups
from reporting.ranges import Range, of_task

ALL_TASKS = "all tasks"
NORMALISED = "normalised score"
SPLIT = 0.35  # of the values of a task: how far apart two groups of runs end
N_TAUS = 101  # points of a performance profile


Row = dict[str, Any]  # {column: value}
Strata = dict[str, list[np.ndarray]]  # {algorithm: [scores [n] on each task]}


@dataclass
class Task:
    """The runs of one task on one grid of evaluation points. Runs of an algorithm are ordered by seed.

    C ≤ T points are those that most runs of every algorithm reach; final performance and steps to the threshold are of
    these, and of the runs m ≤ n that reach the last of them.
    """

    name: str
    metric: str
    steps: np.ndarray  # [T]
    compared: int  # C
    curves: dict[str, np.ndarray]  # {algorithm: [T, n]}; NaN where a run has ended
    whole: dict[str, np.ndarray]  # {algorithm: mask [n] of the runs that reach point C}
    final: dict[str, np.ndarray]  # {algorithm: [m]}
    threshold: float | None
    distance: float  # steps, at most, between a point and the evaluation that stands for it
    warnings: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """tasks: [Task]. Rows are dicts {column: value}, NaN where there is no value."""

    tasks: list[Task]
    learning_curves: list[Row]
    final: list[Row]
    profiles: list[Row]
    improvement: list[Row]
    efficiency: list[Row]
    notes: list[str]
    default_threshold: bool
    final_share: float  # of the steps
    scale: str = ""  # what the score over all tasks is, in words
    n_scaled: int = 0  # tasks in that score
    smooth: int = 1  # evaluations that a point of a learning curve is the mean of
    # {(task, algorithm): (steps [T], runs [T, n])} drawn one by one
    single: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def compare(
    groups: Groups,
    threshold: float | None = None,
    reps: int = 2000,
    final_share: float = 0.05,
    given: dict[str, Range] | None = None,
    smooth: int = 1,
) -> Comparison:
    """The Comparison of {task: {algorithm: [Entry]}}. threshold: of sample efficiency; None: one for each task.

    final_share: final performance is the mean over the evaluations in this last part of the steps. given: {name: Range}
    of --ranges. smooth: evaluations that each point of a learning curve is the mean of, for each run.
    Sets `final` and `steps_to_threshold` of each entry.
    """
    tasks = [_task(name, algorithms, threshold, final_share) for name, algorithms in groups.items()]
    shown = {e.algorithm: e.shown_algorithm for algorithms in groups.values() for e in _entries(algorithms)}
    shown_tasks = {e.task: e.shown_task for algorithms in groups.values() for e in _entries(algorithms)}
    everywhere, notes = _on_every_task(tasks, shown, shown_tasks)
    found = {t.name: of_task(_entries(groups[t.name]), t.metric, given or {}) for t in tasks} if everywhere else {}
    ranges = {name: known for name, known in found.items() if known is not None}
    scaled = [t for t in tasks if t.name in ranges]
    without = [shown_tasks[t.name] for t in tasks if t not in scaled]
    notes += _without_range(without, len(scaled)) if everywhere else []
    final = [row for t in tasks for row in _final(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]
    profiles = [row for t in tasks for row in _profiles(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]
    improvement = [row for t in tasks for row in _improvement(t.name, {a: [x] for a, x in t.final.items()}, reps)]
    if len(scaled) > 1:
        strata = {
            a: [st.normalise(t.final[a], ranges[t.name].low, ranges[t.name].high) for t in scaled] for a in everywhere
        }  # {algorithm: [scores on each task]}
        final += _final(ALL_TASKS, NORMALISED, strata, reps)
        profiles += _profiles(ALL_TASKS, NORMALISED, strata, reps)
    improvement += _improvement(ALL_TASKS, {a: [t.final[a] for t in tasks] for a in everywhere}, reps)
    return Comparison(
        tasks,
        [row for t in tasks for row in _learning_curves(t, reps, smooth)],
        final,
        profiles,
        improvement,
        [row for t in tasks for row in _efficiency(t, groups[t.name], reps)],
        notes,
        default_threshold=threshold is None,
        final_share=final_share,
        scale="; ".join(dict.fromkeys(ranges[t.name].what for t in scaled)),
        n_scaled=len(scaled),
        smooth=smooth,
        single={(t.name, a): (t.steps, runs) for t in tasks for a, runs in _split(t, smooth).items()},
    )


def _split(task: Task, smooth: int) -> dict[str, np.ndarray]:
    """{algorithm: runs [T, n]} of the algorithms whose runs end in two groups, some at 0.9 and some at 0.05: no mean
    stands for them."""
    out = {}
    values = np.concatenate([curve.ravel() for curve in task.curves.values()])
    span = float(np.nanmax(values) - np.nanmin(values))
    for algorithm, final in task.final.items():
        if len(final) > 2 and span and float(np.diff(np.sort(final)).max()) >= SPLIT * span:
            out[algorithm] = _smoothed(task.curves[algorithm], smooth)
    return out


def _entries(algorithms: Algorithms) -> list[Entry]:
    return [e for group in algorithms.values() for e in group]


def final_rows(groups: Groups, reps: int = 2000, final_share: float = 0.05) -> list[Row]:
    """The rows of final performance alone, on each task. Arguments as for `compare`."""
    tasks = [_task(name, algorithms, None, final_share) for name, algorithms in groups.items()]
    return [row for t in tasks for row in _final(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]


def _on_every_task(
    tasks: list[Task], shown: dict[str, str], shown_tasks: dict[str, str]
) -> tuple[list[str], list[str]]:
    """(algorithms with runs on every one of several tasks, sentences on the others)."""
    if len(tasks) < 2:
        return [], []
    names = list(dict.fromkeys(a for t in tasks for a in t.final))
    everywhere = [a for a in names if all(a in t.final for t in tasks)]
    lacking = {}  # {what they lack: algorithms}
    for a in names:
        if missing := tuple(shown_tasks[t.name] for t in tasks if a not in t.final):
            lacking.setdefault(missing, []).append(shown[a])
    notes = []
    for missing, who in lacking.items():
        verb, have = ("is", "it has") if len(who) == 1 else ("are", "they have")
        notes.append(
            f"{', '.join(who)} {verb} not in the comparison over all tasks: {have} no run of {', '.join(missing)}"
        )
    return everywhere, notes


def _without_range(without: list[str], n_scaled: int) -> list[str]:
    """Sentences on tasks whose scores cannot be put on the common scale."""
    if not without:
        return []
    what = "there is no score over all tasks"
    if n_scaled > 1:
        what = f"{'it is' if len(without) == 1 else 'they are'} left out of the score over all tasks"
    return [
        f"no range of scores is known of {', '.join(without)}, so {what}; give --ranges=FILE with a line "
        "`NAME: [return of random play, best return]` for each"
    ]


# ---- one task


def _task(name: str, algorithms: Algorithms, threshold: float | None, final_share: float) -> Task:
    """Bring the runs of a task on one grid."""
    entries = _entries(algorithms)
    metric = entries[0].metric
    series = [e.result.series[metric] for e in entries]
    steps = st.longest_grid([s for s, _ in series])
    columns, distances = zip(*(st.nearest(s, v, steps) for s, v in series))
    half = st.widest_gap([s for s, _ in series]) / 2
    alive = [steps <= s[-1] + half for s, _ in series]  # [T] each
    curves, reaches, done = {}, {}, 0
    for algorithm, group in algorithms.items():
        here = slice(done, done + len(group))
        held = np.stack(alive[here], axis=1)
        curves[algorithm] = np.where(held, np.stack(columns[here], axis=1), np.nan)
        reaches[algorithm] = int(_most(held).sum())
        done += len(group)
    compared = min(reaches.values())
    window = np.zeros(len(steps), dtype=bool)
    window[:compared] = st.final_window(steps[:compared], final_share)
    whole = {a: np.isfinite(curve[compared - 1]) for a, curve in curves.items()}
    final = {a: curve[window][:, whole[a]].mean(axis=0) for a, curve in curves.items()}
    for algorithm, group in algorithms.items():
        for e, value in zip((e for e, ends in zip(group, whole[algorithm]) if ends), final[algorithm]):
            e.final = float(value)
    threshold = _threshold(curves, final) if threshold is None else threshold
    distance = max(float(d[held].max()) for d, held in zip(distances, alive))
    task = Task(name, metric, steps, compared, curves, whole, final, threshold, distance)
    _tell(task, algorithms)
    return task


def _most(held: np.ndarray) -> np.ndarray:
    """Mask [T] of the points where at least half of the runs [T, n] have not ended."""
    return 2 * held.sum(axis=1) >= held.shape[1]


def _threshold(curves: dict[str, np.ndarray], final: dict[str, np.ndarray]) -> float | None:
    """Half way from the untrained level (the first evaluation, all runs) to the best algorithm's final performance.

    None where no algorithm ends above the untrained level.
    """
    first = np.concatenate([c[0] for c in curves.values()])
    start = float(st.iqm(first[np.isfinite(first)]))
    best = max(float(st.iqm(x)) for x in final.values())
    return (start + best) / 2 if best > start else None


def _tell(task: Task, algorithms: Algorithms) -> None:
    """Add to the task what a reader has to know of its runs."""
    entries = _entries(algorithms)
    ends = [int(e.result.series[task.metric][0][-1]) for e in entries]
    last = task.steps[task.compared - 1]
    if task.compared < len(task.steps):
        reach = {a: int(_most(np.isfinite(curve)).sum()) for a, curve in task.curves.items()}
        who = " and ".join(algorithms[a][0].shown_algorithm for a, n in reach.items() if n == task.compared)
        task.warnings.append(
            f"runs end between {min(ends):,} and {max(ends):,} steps; final performance is compared at {last:,.0f}, as "
            f"far as {who} goes"
        )
    short = [e for a, group in algorithms.items() for e, reaches in zip(group, task.whole[a]) if not reaches]
    if short:
        who = "; ".join(f"{e.shown_algorithm}, seed {plain(str(e.seed))}, ends at {_end(e):,}" for e in short[:5])
        who += f"; and {len(short) - 5} more" if len(short) > 5 else ""
        task.warnings.append(
            f"ends before step {last:,.0f}, so in the learning curve only: {who}; --skip-shorter leaves such runs out"
        )
    if len(task.steps) == 1:
        task.warnings.append(f"only one evaluation point, {task.steps[0]:,.0f}, is common to all runs")
    nulls = [len(e.result.nonfinite[task.metric]) for e in entries]
    if any(nulls):
        task.warnings.append(
            f"{sum(nulls):,} values of {plain(task.metric)} in {sum(n > 0 for n in nulls)} runs are not finite: "
            "the nearest other points are used instead"
        )
    damaged = [e.result.damaged_lines for e in entries]
    if any(damaged):
        task.warnings.append(f"{sum(damaged):,} damaged lines in {sum(n > 0 for n in damaged)} runs were skipped")


def _end(entry: Entry) -> int:
    return int(entry.result.series[entry.metric][0][-1])


# ---- rows


def _learning_curves(task: Task, reps: int, smooth: int) -> Iterator[Row]:
    for algorithm, curve in task.curves.items():
        for rows, held in _spans(curve):
            values = _smoothed(curve, smooth)[rows][:, held]
            lower, upper = st.iqm_interval(values, reps)
            for step, mid, low, high in zip(task.steps[rows], st.iqm(values), lower, upper):
                yield dict(
                    task=task.name, algorithm=algorithm, metric=task.metric, step=int(step), n=values.shape[1],
                    iqm=float(mid), lower=float(low), upper=float(high),
                )  # fmt: skip


def _smoothed(curve: np.ndarray, smooth: int) -> np.ndarray:
    return curve if smooth == 1 else st.running_mean(curve, smooth)


def _spans(curve: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(points, runs) as masks [T], [n] for each stretch of a curve over which the same runs go on, as far as at least
    half of them do."""
    held = np.isfinite(curve)
    numbers = np.where(_most(held), held.sum(axis=1), 0)
    for n in sorted(set(numbers.tolist()) - {0}, reverse=True):
        rows = numbers == n
        yield rows, held[rows][0]


def _final(task: str, metric: str, strata: Strata, reps: int) -> Iterator[Row]:
    """strata: {algorithm: [scores [n] on each task]}"""
    for algorithm, scores in strata.items():
        lower, upper = st.interval(st.pooled_iqm, *scores, reps=reps)
        runs = np.concatenate(scores)
        yield dict(
            task=task, algorithm=algorithm, metric=metric, n=len(runs), iqm=float(st.pooled_iqm(*scores)),
            lower=float(lower), upper=float(upper), mean=st.pooled_mean(*scores), median=st.pooled_median(*scores),
            min=float(runs.min()), max=float(runs.max()),
        )  # fmt: skip


def _profiles(task: str, metric: str, strata: Strata, reps: int) -> Iterator[Row]:
    every = np.concatenate([x for scores in strata.values() for x in scores])
    taus = np.linspace(every.min(), every.max(), N_TAUS if np.ptp(every) else 1)
    for algorithm, scores in strata.items():
        above = [x > taus[:, None] for x in scores]  # [taus, n]
        share, (lower, upper) = st.share_above(*above), st.interval(st.share_above, *above, reps=reps)
        for tau, mid, low, high in zip(taus, share, lower, upper):
            yield dict(
                task=task, algorithm=algorithm, metric=metric, n=sum(map(len, scores)), tau=float(tau),
                share=float(mid), lower=float(low), upper=float(high),
            )  # fmt: skip


def _improvement(task: str, strata: Strata, reps: int) -> Iterator[Row]:
    """Both orders of each pair, for the figure; the second is the first one's complement."""
    names = list(strata)
    for i, x in enumerate(names):
        for y in names[i + 1 :]:
            both = [*strata[x], *strata[y]]
            p, (low, high) = st.improvement(*both), st.interval(st.improvement, *both, reps=reps)
            n_x, n_y = (sum(map(len, strata[name])) for name in (x, y))
            row = dict(task=task, x=x, y=y, n_x=n_x, n_y=n_y)
            yield row | dict(probability=float(p), lower=float(low), upper=float(high))
            row = dict(task=task, x=y, y=x, n_x=n_y, n_y=n_x)
            yield row | dict(probability=1 - float(p), lower=1 - float(high), upper=1 - float(low))


def _efficiency(task: Task, groups: Algorithms, reps: int) -> Iterator[Row]:
    for algorithm, curve in task.curves.items():
        row = dict(task=task.name, algorithm=algorithm, metric=task.metric, threshold=math.nan)
        row["n"] = len(task.final[algorithm])
        if task.threshold is None:
            yield row | dict(reached=0, median_steps=math.nan, lower=math.nan, upper=math.nan)
            continue
        whole = task.whole[algorithm]
        steps = st.steps_to(task.threshold, task.steps[: task.compared], curve[: task.compared, whole])
        for e, value in zip((e for e, ends in zip(groups[algorithm], whole) if ends), steps):
            e.steps_to_threshold = float(value)
        lower, upper = st.interval(st.median, steps, reps=reps)
        yield row | dict(
            threshold=float(task.threshold), reached=int(np.isfinite(steps).sum()),
            median_steps=float(st.median(steps)), lower=float(lower), upper=float(upper),
        )  # fmt: skip
