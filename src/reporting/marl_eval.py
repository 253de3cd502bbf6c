"""The data of a report in the format of marl-eval (Gorsane et al. 2022; github.com/instadeepai/marl-eval), which
BenchMARL and Mava write too: {environment: {task: {algorithm: {run: {step_0: {step_count, metric: [value]}, …,
absolute_metrics: {metric: [value]}}}}}}.

marl-eval wants, within an environment, the same algorithms on each task, and as many runs and evaluation steps of each.
Steps are brought to one number here; of the rest `problems` tells.
"""

import json
from typing import Any

import numpy as np

from reporting import statistics as st
from reporting.comparison import Task
from utils.identity import JUDGED_BY

METRICS = {
    "test_battle_won_mean": "win_rate", "test_return_mean": "return", "test_total_return_mean": "return",
}  # fmt: skip


def data(tasks: list[Task], groups: dict, names: Any) -> dict:
    """tasks: of a comparison; groups: {task: {algorithm: [Entry]}}; names: `reporting.labels.Names`."""
    out = {}
    for env, here in _by_environment(tasks, names).items():
        runs = {t.name: {a: _whole(t, a, group) for a, group in groups[t.name].items()} for t in here}
        every = [e for algorithms in runs.values() for group in algorithms.values() for e in group]
        metrics = [m for m in dict.fromkeys([*(t.metric for t in here), *JUDGED_BY])
                   if all(m in e.result.series for e in every)]  # fmt: skip
        same = len({tuple(e.seed for e in group) for algorithms in runs.values() for group in algorithms.values()}) == 1
        n_steps = min(t.compared for t in here)
        out[env.lower()] = {
            t.name.lower(): {
                names.algorithm(a): {
                    f"seed_{e.seed}" if same else f"run_{k}": _run(e, _points(t, n_steps), metrics)
                    for k, e in enumerate(group, start=1)
                }
                for a, group in runs[t.name].items()
            }
            for t in here
        }
    return out


def problems(found: dict) -> list[str]:
    """Sentences on what marl-eval will not take of `data`."""
    out = []
    for env, tasks in found.items():
        algorithms = {task: set(runs) for task, runs in tasks.items()}
        if len(set(map(frozenset, algorithms.values()))) > 1:
            lacking = sorted({a for held in algorithms.values() for a in set().union(*algorithms.values()) - held})
            out.append(f"{env}: {', '.join(lacking)} is not on every task; --algorithms chooses those that are")
        numbers = {len(runs) for task in tasks.values() for runs in task.values()}
        if len(numbers) > 1:
            out.append(
                f"{env}: algorithms have from {min(numbers)} to {max(numbers)} runs; --seeds chooses as many of each"
            )
        one = next(iter(next(iter(next(iter(tasks.values())).values())).values()))
        if not one["absolute_metrics"]:
            out.append(f"{env}: no metric is in all of its runs; --metric=NAME names one")
    return [f"marl-eval wants the same of every task in an environment. {said}" for said in out]


def text(found: dict) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _by_environment(tasks: list[Task], names: Any) -> dict[str, list[Task]]:
    out = {}
    for t in tasks:
        out.setdefault(names.env(t.name), []).append(t)
    return out


def _whole(task: Task, algorithm: str, group: list) -> list:
    """The entries that reach the last point of the comparison."""
    return [e for e, reaches in zip(group, task.whole[algorithm]) if reaches]


def _points(task: Task, n: int) -> np.ndarray:
    """n of the points at which the runs of a task are compared, evenly spread, the last among them."""
    return (
        task.steps[np.linspace(0, task.compared - 1, n).round().astype(int)]
        if n > 1
        else task.steps[[task.compared - 1]]
    )


def _run(entry: Any, steps: np.ndarray, metrics: list[str]) -> dict:
    """Values are means over the episodes of an evaluation, so each list has one. absolute_metrics: what the weights
    that tested best came to (absolute_metric=True), else the best evaluation, as BenchMARL has it."""
    series = entry.result.series
    values = {m: st.nearest(series[m][0], series[m][1], steps)[0] for m in reversed(metrics)}
    so_far = {m: series[m][1][series[m][0] <= steps[-1]] for m in values}  # all evaluations, also between `steps`
    best = {
        m: entry.result.absolute.get(m.removeprefix("test_"), float(max([*v, *so_far[m]]))) for m, v in values.items()
    }
    out: dict[str, dict] = {
        f"step_{k}": {"step_count": int(step)} | {_name(m): [float(v[k])] for m, v in values.items()}
        for k, step in enumerate(steps)
    }
    return out | {"absolute_metrics": {_name(m): [v] for m, v in best.items()}}


def _name(metric: str) -> str:
    return METRICS.get(metric, metric.lower())
