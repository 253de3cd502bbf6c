"""The absolute metric (Gorsane et al. 2022): what the weights that tested best came to in ten times as many episodes.

Runs with `absolute_metric=True` have it in summary.json. It is a figure and a table of its own: it is higher than the
end of a learning curve, as the best of many tests was taken.
"""

import numpy as np

from reporting import statistics as st
from reporting.comparison import Row
from reporting.formats import decimals, with_interval
from reporting.grouping import Entry, Groups
from reporting.html import bullets, table
from reporting.labels import Names

PREFIX = "absolute_"


def rows(groups: Groups, reps: int) -> list[Row]:
    """As those of final performance, of the runs that have it. groups: {task: {algorithm: [Entry]}}"""
    out = []
    for task, algorithms in groups.items():
        for algorithm, group in algorithms.items():
            having = [e for e in group if _value(e) is not None]
            if having:
                values = np.array([_value(e) for e in having])
                lower, upper = st.interval(st.pooled_iqm, values, reps=reps)
                steps = [e.result.absolute["t_env"] for e in having if "t_env" in e.result.absolute]
                out.append(
                    dict(
                        task=task, algorithm=algorithm, metric=PREFIX + having[0].metric.removeprefix("test_"),
                        n=len(having), of=len(group), iqm=float(st.iqm(values)), lower=float(lower),
                        upper=float(upper), mean=float(values.mean()), min=float(values.min()),
                        max=float(values.max()), median_t_env=float(np.median(steps)) if steps else np.nan,
                    )
                )  # fmt: skip
    return out


def _value(e: Entry) -> float | None:
    return e.result.absolute.get(e.metric.removeprefix("test_"))


def single_runs(groups: Groups) -> dict[tuple[str, str], list[float]]:
    """{(task, algorithm): values of single runs}"""
    return {
        (task, algorithm): [value for e in group if (value := _value(e)) is not None]
        for task, algorithms in groups.items()
        for algorithm, group in algorithms.items()
    }


CAPTION = (
    "Absolute metric: the weights that tested best play ten times as many episodes; a point is the interquartile mean "
    "(IQM) over runs, the line its 95 % interval, and each tick below a single run; further right is better."
)


def section(shown: list[Row], final: list[Row], figure: str, names: Names) -> str:
    """HTML: the figure, and a table beside final performance. final: its rows; names: `reporting.labels.Names`."""
    last = {(row["task"], row["algorithm"]): row for row in final}
    lines = []
    for row in shown:
        other = last[row["task"], row["algorithm"]]
        digits = decimals([row["iqm"], other["iqm"]])
        numbers = [with_interval(r["iqm"], r["lower"], r["upper"], digits) for r in (row, other)]
        step = "–" if np.isnan(row["median_t_env"]) else f"{row['median_t_env']:,.0f}"
        lines.append(
            [names.task(row["task"]), names.algorithm(row["algorithm"]), f"{row['n']} of {row['of']}", *numbers, step]
        )
    head = [
        "task",
        "algorithm",
        "runs",
        "absolute IQM [95 % interval]",
        "final IQM [95 % interval]",
        "best at step, median",
    ]
    said = [
        "Runs with absolute_metric=True have it. It says what can be had from a run, final performance what training "
        "ends with: do not put one beside the other as if they were the same."
    ]
    return figure + table(head, lines, numbers=(2, 3, 4, 5)) + bullets(said)
