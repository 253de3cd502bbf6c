"""The files of a report: its numbers as CSV, and how files are written."""

import csv
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

from reporting.comparison import Comparison, Row
from reporting.grouping import Entry, by_task
from utils.args import ConfigError


def csv_files(comparison: Comparison, entries: list[Entry]) -> dict[str, bytes]:
    """{name: CSV file as bytes}. entries: of all runs that were found."""
    tables = {
        "learning_curves": comparison.learning_curves,
        "final": comparison.final,
        "profiles": comparison.profiles,
        "improvement": comparison.improvement,
        "efficiency": comparison.efficiency,
        "runs": [_run_row(e) for e in entries],
    }
    if comparison.single:
        tables["single_runs"] = list(_single_rows(comparison, entries))
    return {f"{name}.csv": to_csv(rows) for name, rows in tables.items()}


def _single_rows(comparison: Comparison, entries: list[Entry]) -> Iterator[Row]:
    """The runs that are drawn one by one. The runs of an algorithm are in the order of its counting entries by seed."""
    groups = by_task(entries)
    for (task, algorithm), (steps, runs) in comparison.single.items():
        for e, values in zip(groups[task][algorithm], runs.T):
            for step, value in zip(steps, values):
                if math.isfinite(value):
                    yield dict(task=task, algorithm=algorithm, seed=e.seed, step=int(step), value=float(value))


def _run_row(e: Entry) -> Row:
    r = e.result
    row = dict(path=r.path, source=r.source, algorithm=e.algorithm, task=e.task, seed=e.seed, status=r.status)
    row |= dict(counts="no" if e.left_out else "yes", left_out=e.left_out, metric=e.metric, final=e.final)
    row |= dict(steps_to_threshold=e.steps_to_threshold, steps=r.t_env, t_max=e.keys.get("t_max"))
    row |= dict(evaluations=len(r.series.get(e.metric, [[]])[0]), nonfinite=len(r.nonfinite.get(e.metric, ())))
    row |= dict(damaged_lines=r.damaged_lines, wall_time_s=r.wall_time_s, updates_per_1000_steps=r.updates)
    row |= dict(parameters=r.parameters, commit=r.commit, qtran=r.versions.get("qtran"))
    return row | {name: r.versions.get(name) for name in ("python", "torch", "numpy")}


def to_csv(rows: list[Row]) -> bytes:
    """CSV text; a number that does not exist is an empty cell."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None or v != v else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode(errors="replace")


def write(out: Path, files: dict[str, bytes]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            # A browser that loads the page meanwhile gets a whole one. Another report may write to the same folder.
            partial = out / f"{name}.{os.getpid()}.partial"
            try:
                partial.write_bytes(data)
                os.replace(partial, out / name)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out={out}: cannot be written: {error.strerror}; give --out=DIR") from error


def write_json(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--json={path}: cannot be written: {error.strerror}; give another FILE") from error
