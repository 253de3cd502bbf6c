"""The numbers of a report: every figure and table is drawn from the rows made here, and the CSV files hold them."""

import csv
import io
import math
from dataclasses import dataclass, field

import numpy as np

from reporting import statistics as st
from reporting.formats import plain

ALL_TASKS = "all tasks"
NORMALISED = "normalised score"
N_TAUS = 101  # points of a performance profile


@dataclass
class Task:
    """The runs of one task on one grid of evaluation points. Runs of an algorithm are ordered by seed."""

    name: str
    metric: str
    steps: np.ndarray  # [T]
    curves: dict  # {algorithm: [T, n]}
    final: dict  # {algorithm: [n]}
    threshold: float | None
    distance: float  # steps, at most, between a point and the evaluation that stands for it
    warnings: list = field(default_factory=list)


@dataclass
class Comparison:
    """tasks: [Task]. Rows are dicts {column: value}, NaN where there is no value."""

    tasks: list
    learning_curves: list
    final: list
    profiles: list
    improvement: list
    efficiency: list
    notes: list
    default_threshold: bool
    final_share: float  # of the steps


def compare(groups, threshold=None, reps=2000, final_share=0.05):
    """The Comparison of {task: {algorithm: [Entry]}}. threshold: of sample efficiency; None: one for each task.

    final_share: final performance is the mean over the evaluations in this last part of the steps.
    Sets `final` and `steps_to_threshold` of each entry.
    """
    tasks = [_task(name, algorithms, threshold, final_share) for name, algorithms in groups.items()]
    everywhere, notes = _on_every_task(tasks)
    normalised = {t.name: dict(zip(t.final, st.normalise(list(t.final.values())))) for t in tasks}
    strata = {a: [normalised[t.name][a] for t in tasks] for a in everywhere}  # {algorithm: [scores on each task]}
    final = [row for t in tasks for row in _final(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]
    profiles = [row for t in tasks for row in _profiles(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]
    improvement = [row for t in tasks for row in _improvement(t.name, {a: [x] for a, x in t.final.items()}, reps)]
    if strata:
        final += _final(ALL_TASKS, NORMALISED, strata, reps)
        profiles += _profiles(ALL_TASKS, NORMALISED, strata, reps)
        improvement += _improvement(ALL_TASKS, strata, reps)
    return Comparison(
        tasks,
        [row for t in tasks for row in _learning_curves(t, reps)],
        final,
        profiles,
        improvement,
        [row for t in tasks for row in _efficiency(t, groups[t.name], reps)],
        notes,
        default_threshold=threshold is None,
        final_share=final_share,
    )


def final_rows(groups, reps=2000, final_share=0.05):
    """The rows of final performance alone, on each task. Arguments as for `compare`."""
    tasks = [_task(name, algorithms, None, final_share) for name, algorithms in groups.items()]
    return [row for t in tasks for row in _final(t.name, t.metric, {a: [x] for a, x in t.final.items()}, reps)]


def _on_every_task(tasks):
    """(algorithms with runs on every one of several tasks, sentences on the others)."""
    if len(tasks) < 2:
        return [], []
    names = sorted(set().union(*(t.final for t in tasks)))
    everywhere = [a for a in names if all(a in t.final for t in tasks)]
    notes = []
    for a in names:
        missing = [t.name for t in tasks if a not in t.final]
        if missing:
            notes.append(f"{a} is not in the comparison over all tasks: it has no run of {', '.join(missing)}")
    return everywhere, notes


# ---- one task


def _task(name, algorithms, threshold, final_share):
    """Bring the runs of a task on one grid."""
    entries = [e for group in algorithms.values() for e in group]
    metric = entries[0].metric
    series = [e.result.series[metric] for e in entries]
    steps = st.common_grid([s for s, _ in series])
    columns, distances = zip(*(st.nearest(s, v, steps) for s, v in series))
    window = st.final_window(steps, final_share)
    curves, final, done = {}, {}, 0
    for algorithm, group in algorithms.items():
        curves[algorithm] = np.stack(columns[done : done + len(group)], axis=1)
        final[algorithm] = curves[algorithm][window].mean(axis=0)
        done += len(group)
        for e, value in zip(group, final[algorithm]):
            e.final = float(value)
    threshold = _threshold(curves, final) if threshold is None else threshold
    task = Task(name, metric, steps, curves, final, threshold, float(np.max(distances)))
    _tell(task, entries)
    return task


def _threshold(curves, final):
    """Half way from the untrained level (the first evaluation, all runs) to the best algorithm's final performance.

    None where no algorithm ends above the untrained level.
    """
    start = float(st.iqm(np.concatenate([c[0] for c in curves.values()])))
    best = max(float(st.iqm(x)) for x in final.values())
    return (start + best) / 2 if best > start else None


def _tell(task, entries):
    """Add to the task what a reader has to know of its runs."""
    ends = [e.result.last_step[task.metric] for e in entries]
    gap = float(np.median(np.diff(task.steps))) if len(task.steps) > 1 else 0.0
    if max(ends) > task.steps[-1] + gap:
        short = plain(str(entries[ends.index(min(ends))].result.path))
        task.warnings.append(
            f"runs end between {min(ends):,} and {max(ends):,} steps; all are compared up to {task.steps[-1]:,.0f}, "
            f"where {short} ends; to compare further, leave such runs out"
        )
    if len(task.steps) == 1:
        task.warnings.append(f"only one evaluation point, {task.steps[0]:,.0f}, is common to all runs")
    nulls = [e.result.nonfinite[task.metric] for e in entries]
    if any(nulls):
        task.warnings.append(
            f"{sum(nulls):,} values of {plain(task.metric)} in {sum(n > 0 for n in nulls)} runs are not finite: "
            "those points are missing, the nearest others stand in"
        )
    damaged = [e.result.damaged_lines for e in entries]
    if any(damaged):
        task.warnings.append(f"{sum(damaged):,} damaged lines in {sum(n > 0 for n in damaged)} runs were passed over")


# ---- rows


def _learning_curves(task, reps):
    for algorithm, curve in task.curves.items():
        lower, upper = st.iqm_interval(curve, reps)
        for step, mid, low, high in zip(task.steps, st.iqm(curve), lower, upper):
            yield dict(
                task=task.name, algorithm=algorithm, metric=task.metric, step=int(step), n=curve.shape[1],
                iqm=float(mid), lower=float(low), upper=float(high),
            )  # fmt: skip


def _final(task, metric, strata, reps):
    """strata: {algorithm: [scores [n] on each task]}"""
    for algorithm, scores in strata.items():
        lower, upper = st.interval(st.pooled_iqm, *scores, reps=reps)
        runs = np.concatenate(scores)
        yield dict(
            task=task, algorithm=algorithm, metric=metric, n=len(runs), iqm=float(st.iqm(runs)), lower=float(lower),
            upper=float(upper), mean=float(runs.mean()), median=float(np.median(runs)), min=float(runs.min()),
            max=float(runs.max()),
        )  # fmt: skip


def _profiles(task, metric, strata, reps):
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


def _improvement(task, strata, reps):
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


def _efficiency(task, groups, reps):
    for algorithm, curve in task.curves.items():
        row = dict(task=task.name, algorithm=algorithm, metric=task.metric, threshold=math.nan, n=curve.shape[1])
        if task.threshold is None:
            yield row | dict(reached=0, median_steps=math.nan, lower=math.nan, upper=math.nan)
            continue
        steps = st.steps_to(task.threshold, task.steps, curve)
        for e, value in zip(groups[algorithm], steps):
            e.steps_to_threshold = float(value)
        lower, upper = st.interval(st.median, steps, reps=reps)
        yield row | dict(
            threshold=float(task.threshold), reached=int(np.isfinite(steps).sum()),
            median_steps=float(st.median(steps)), lower=float(lower), upper=float(upper),
        )  # fmt: skip


# ---- files


def csv_files(comparison, entries):
    """{name: CSV file as bytes}. entries: of all runs that were found."""
    tables = {
        "learning_curves": comparison.learning_curves,
        "final": comparison.final,
        "profiles": comparison.profiles,
        "improvement": comparison.improvement,
        "efficiency": comparison.efficiency,
        "runs": [_run_row(e) for e in entries],
    }
    return {f"{name}.csv": to_csv(rows) for name, rows in tables.items()}


def _run_row(e):
    r = e.result
    row = dict(path=r.path, source=r.source, algorithm=e.algorithm, task=e.task, seed=e.seed, status=r.status)
    row |= dict(counts="no" if e.left_out else "yes", left_out=e.left_out, metric=e.metric, final=e.final)
    row |= dict(steps_to_threshold=e.steps_to_threshold, steps=r.t_env, t_max=e.keys.get("t_max"))
    row |= dict(evaluations=len(r.series.get(e.metric, [[]])[0]), nonfinite=r.nonfinite.get(e.metric, 0))
    row |= dict(damaged_lines=r.damaged_lines, wall_time_s=r.wall_time_s, updates_per_1000_steps=r.updates)
    row |= dict(parameters=r.parameters, commit=r.commit, qtran=r.versions.get("qtran"))
    return row | {name: r.versions.get(name) for name in ("python", "torch", "numpy")}


def to_csv(rows):
    """CSV text; a number that does not exist is an empty cell."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None or v != v else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode(errors="replace")
