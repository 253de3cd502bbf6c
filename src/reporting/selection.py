"""Which of the runs that were found a report is about: its options, and what they keep."""

import argparse
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from reporting import grouping
from reporting.formats import plain
from reporting.results import Result
from utils.args import ConfigError, nearest
from utils.messages import count


@dataclass
class Selection:
    """What was asked for; None: everything. labels: {folder: label} of PATH=LABEL."""

    algorithms: list[str] | None = None
    environments: list[str] | None = None
    seeds: list[int] | None = None
    until: int | None = None
    skip_shorter: bool = False
    labels: dict[Path, str] = field(default_factory=dict)

    def keeps(self, algorithm: set[str], environment: set[str]) -> bool:
        """Whether a run of these names is chosen."""
        return all(
            words is None or any(_matches(word, names) for word in words)
            for words, names in ((self.algorithms, algorithm), (self.environments, environment))
        )


def of(options: argparse.Namespace, later: Collection[str] = ()) -> tuple[Selection, list[str]]:
    """(Selection, the folders) of the command line. later: folders that need not be there yet. ConfigError where
    another is not there."""
    folders, labels = paths(options.paths, later)
    chosen = Selection(options.algorithms, options.environments, options.seeds, options.until, options.skip_shorter)
    chosen.labels = labels
    return chosen, folders


def split(word: str) -> tuple[str, str]:
    """(folder, label) of PATH or PATH=LABEL. A word that names a folder as it stands has no label."""
    path, equals, label = word.rpartition("=")
    return (path, label) if equals and not os.path.exists(word) else (word, "")


def paths(words: list[str], later: Collection[str] = ()) -> tuple[list[str], dict[Path, str]]:
    """(folders, {folder: label}) of words PATH or PATH=LABEL. ConfigError where a folder is not there."""
    folders, labels, problems = [], {}, []
    for word in words:
        path, label = split(word)
        if path != word and not label.strip():
            problems.append(f"{word}: an empty label; write PATH=LABEL")
        problems += [] if path in later else unlike_a_folder(path)
        folders.append(path)
        if label.strip():
            labels[Path(path).resolve()] = plain(" ".join(label.split()))
    if problems:
        raise ConfigError("\n  ".join(problems))
    return folders, labels


def unlike_a_folder(path: str) -> list[str]:
    """What is wrong with a folder of runs, as a list of one sentence or none."""
    if os.path.isdir(path):
        return []
    if os.path.exists(path):
        return [f"{path}: is a file; give a folder that holds runs"]
    beside = []
    with suppress(OSError):
        beside = os.listdir(Path(path).parent)
    return [f"{path}: no such folder{nearest(Path(path).name, beside)}"]


def check_paths(paths: Iterable[str | Path]) -> None:
    """ConfigError where a path is no folder."""
    if problems := [said for path in paths for said in unlike_a_folder(str(path))]:
        raise ConfigError("\n  ".join(problems))


# ---- before runs have their names


def chosen(results: list[Result], selection: Selection, more: bool = False) -> list[Result]:
    """The results that the selection keeps, as far as their configuration tells. A run without a readable configuration
    stays, and is listed as one that does not count. more: whether chosen runs of a study have not begun. ConfigError
    where a word keeps nothing."""
    for words, names in ((selection.environments, _environments), (selection.algorithms, _algorithms)):
        plain_words = [w for w in words or () if any(_matches(w, names(r)) for r in results)]
        if words is not None and len(plain_words) == len(words):  # else some name a variant: later
            results = [r for r in results if not r.config or any(_matches(w, names(r)) for w in words)]
    if selection.seeds is not None:
        known = sorted({r.config["seed"] for r in results if type(r.config.get("seed")) is int})
        results = [r for r in results if not r.config or r.config.get("seed") in selection.seeds]
        if known and not more and not any(r.config for r in results):
            raise ConfigError(
                f"--seeds={','.join(map(str, selection.seeds))}: no run has one of these seeds; there are: "
                f"{', '.join(map(str, known[:30]))}{', …' if len(known) > 30 else ''}"
            )
    for r in results:
        _label(r, selection.labels)
    if selection.until is not None:
        _cut(results, selection.until)
    return results


def _algorithms(result: Result) -> set[str]:
    return {str(result.config.get("name", ""))} if result.config else set()


def _environments(result: Result) -> set[str]:
    return {str(result.config.get("env")), grouping.task_of(result.config)} if result.config else set()


def _matches(word: str, names: set[str]) -> bool:
    """Whether a word, which may have * and ?, is one of some names."""
    return any(word == name or fnmatchcase(name, word) for name in names)


def _label(result: Result, labels: dict[Path, str]) -> None:
    """The label of the nearest folder above a run."""
    if labels:
        where = Path(result.path).resolve()
        result.label = next((labels[p] for p in (where, *where.parents) if p in labels), "")


def _cut(results: list[Result], until: int) -> None:
    """Leave out what came after step `until`. ConfigError where nothing was before."""
    first = min((int(steps[0]) for r in results for steps, _ in r.series.values()), default=None)
    for r in results:
        r.nonfinite = {name: steps[steps <= until] for name, steps in r.nonfinite.items()}
        early = {name: (steps, values, steps <= until) for name, (steps, values) in r.series.items()}
        r.series = {name: (steps[at], values[at]) for name, (steps, values, at) in early.items() if at.any()}
    if first is not None and not any(r.series for r in results):
        raise ConfigError(f"--until={until}: no run has a test so early; the first is at step {first:,}")


# ---- when they have


def narrow(entries: list, selection: Selection, later: Collection[str] = ()) -> list:
    """The entries that the selection keeps by their names, variants among them; sets `left_out` of those that are too
    short. later: names of a study whose runs may begin. ConfigError where a word of the selection names no run."""
    for option, words, names in (
        ("environments", selection.environments, lambda e: _environments(e.result) | {e.task, e.shown_task}),
        ("algorithms", selection.algorithms, lambda e: {e.name, e.algorithm, e.shown_algorithm}),
    ):
        if words is None:
            continue
        for word in words:
            if not _matches(word, set(later)) and not any(_matches(word, names(e)) for e in entries):
                known = sorted(set().union(*(names(e) for e in entries)) - {""})
                raise ConfigError(
                    f"--{option}={word}: no run has it{nearest(word, known)}; known: {', '.join(known) or 'none'}"
                )
        entries = [e for e in entries if not e.result.config or any(_matches(w, names(e)) for w in words)]
    if selection.skip_shorter:
        _skip_shorter(grouping.counting(entries), selection.until)
    return entries


def _skip_shorter(entries: list, until: int | None) -> None:
    """Leave out the runs that end an evaluation or more before step `until`, or the end of their task's longest run."""
    tasks = {}
    for e in entries:
        tasks.setdefault(e.task, []).append(e)
    for group in tasks.values():
        longest = max(e.result.series[e.metric][0][-1] for e in group)
        goal = longest if until is None else until
        for e in group:
            steps = e.result.series[e.metric][0]
            gap = float(np.median(np.diff(steps))) if len(steps) > 1 else 0.0
            if steps[-1] < goal and steps[-1] + gap <= goal:
                e.left_out = f"ends at {steps[-1]:,.0f} of {goal:,.0f} steps (--skip-shorter)"


def none_left(entries: list) -> str | None:
    """What is to be said where --skip-shorter has left nothing, or None."""
    short = [e for e in entries if "(--skip-shorter)" in (e.left_out or "")]
    if not short:
        return None
    furthest = max(e.result.last_step(e.metric) for e in short)
    return f"--skip-shorter: leaves none of {count(len(short), 'run')}; the longest ends at step {furthest:,}"
