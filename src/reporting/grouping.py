"""Which runs count in a comparison, and what they are called: task, algorithm, variant.

Runs are averaged together only where their configurations agree in every key but the seed and those that cannot
change what is learned (`utils/identity.py`). Nothing is dropped: a run that does not count has `left_out` say why.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from reporting import labels
from reporting.formats import plain
from reporting.results import Result
from utils.config import task_name
from utils.identity import FAIRNESS, JUDGED_BY, NOT_SET, flat, matters, text
from utils.messages import short

MOST_SAID = 500  # characters on why a run is left out
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass
class Entry:
    """A run in a comparison. keys: its flat configuration; left_out: why it does not count, or None."""

    result: Result
    keys: dict
    name: str  # of the configuration, or the label of PATH=LABEL
    algorithm: str  # with what distinguishes it from other variants
    task: str  # with what distinguishes it from other tasks of that name
    task_name: str
    metric: str = ""
    left_out: str | None = None
    final: float | None = None
    steps_to_threshold: float | None = None
    shown_algorithm: str = ""  # both as they are read in figures and tables
    shown_task: str = ""

    @property
    def seed(self) -> Any:
        return self.keys.get("seed")


Algorithms = dict[str, list[Entry]]  # {algorithm: its runs}
Groups = dict[str, Algorithms]  # {task: {algorithm: its runs}}


class Seeded(Protocol):
    """A run, planned or read back."""

    @property
    def seed(self) -> Any: ...


def entries(results: list[Result], metric: str | None = None) -> list[Entry]:
    """[Entry] of all runs, those that count with their labels and the metric that their task is judged by."""
    out = [_entry(result) for result in results]
    _name_labelled(out)
    for e in counting(out):  # a run that says nothing must not take the place of another
        held = [name for name in JUDGED_BY if name in e.result.nonfinite]
        names = [metric] if metric else held or ["test_return_mean"]
        reasons = [_says_nothing(e.result, name) for name in names]
        if all(reasons):
            e.metric, e.left_out = names[0], reasons[0]
    _leave_out_superseded(out)
    n = None
    while n != len(counting(out)):  # again where a run was left out: it must not rename others
        n = len(counting(out))
        _label(counting(out))
        for group in _by(counting(out), lambda e: e.task).values():
            name = metric or _metric_of(group)
            for e in group:
                e.metric, e.left_out = name, _says_nothing(e.result, name)
    return out


def counting(all_entries: list[Entry]) -> list[Entry]:
    return [e for e in all_entries if e.left_out is None]


def by_task(all_entries: list[Entry]) -> Groups:
    """{task: {algorithm: [Entry]}} of the runs that count, tasks and algorithms in order, runs by seed."""
    tasks = sorted(_by(counting(all_entries), lambda e: e.task).values(), key=lambda group: _task_order(group[0]))
    return {
        group[0].task: _by(sorted(group, key=lambda e: (e.algorithm, str(e.seed).zfill(20))), lambda e: e.algorithm)
        for group in tasks
    }


def differing(groups: list[list[Entry]]) -> dict[str, list[Any]]:
    """{key: [value of each of `groups`, lists of entries]} for the keys in which they differ, sorted."""
    firsts = [group[0].keys for group in groups]
    names = sorted(set().union(*firsts), key=str)
    table = {name: [keys.get(name, NOT_SET) for keys in firsts] for name in names if matters(name)}
    return {name: values for name, values in table.items() if len(set(map(text, values))) > 1}


def unfair(algorithms: Algorithms) -> list[str]:
    """Sentences on what differs between the algorithms of one task and should not. algorithms: {name: [Entry]}."""
    told = {
        name: [short(value) for value in values]
        for name, values in differing(list(algorithms.values())).items()
        if name in FAIRNESS or name.startswith("env_args.")
    }
    numbers = [str(len(group)) for group in algorithms.values()]
    if len(set(numbers)) > 1:
        told["the number of seeds"] = numbers
    return [f"{name} differs: {_who_has_what(algorithms, values)}" for name, values in told.items()]


def _who_has_what(algorithms: Algorithms, values: list[str]) -> str:
    """`8 (qmix, vdn); 1 (iql)`, or `1 (iql); 8 (all others)` where most have the same."""
    groups = _by(zip(algorithms, values), lambda pair: pair[1])
    *rare, (most, common) = sorted(groups.items(), key=lambda item: len(item[1]))
    shown = {name: group[0].shown_algorithm for name, group in algorithms.items()}
    parts = [f"{value} ({' and '.join(shown[name] for name, _ in pairs)})" for value, pairs in rare]
    who = "all others" if len(common) > 2 else " and ".join(shown[name] for name, _ in common)
    return "; ".join([*parts, f"{most} ({who})"])


# ---- which runs count


def task_of(config: dict) -> str:
    """The map, key or environment of a configuration that may hold anything; empty where it holds nothing."""
    env_args = config.get("env_args")
    return (
        task_name({"env": None} | config | {"env_args": env_args if isinstance(env_args, dict) else {}})
        if config
        else ""
    )


def _name_labelled(all_entries: list[Entry]) -> None:
    """Runs below PATH=LABEL are called LABEL, or where they are several algorithms `qmix (LABEL)`."""
    for label, group in _by(all_entries, lambda e: e.result.label).items():
        several = len({e.name for e in group if e.result.config}) > 1
        for e in group if label else ():
            e.name = e.algorithm = f"{e.name} ({label})" if several else label


def _entry(result: Result) -> Entry:
    keys = flat(result.config)
    if keys.get("env_args.game_version", "") is None:  # the newest there was: results of two are not comparable
        del keys["env_args.game_version"]
    if "starcraft" in result.versions:
        keys["env_args.game_version"] = result.versions["starcraft"]
    name, task = plain(str(keys.get("name", ""))), plain(task_of(result.config))
    left_out = _not_a_training_run(result)
    if left_out:
        left_out = short(plain(" ".join(left_out.split())), MOST_SAID)
    return Entry(result, keys, name, name, task, task, left_out=left_out)


def _not_a_training_run(result: Result) -> str | None:
    """Why a run cannot count, from what it is."""
    config = result.config
    if result.status != "finished":
        status = "running, or killed" if result.status == "running" else result.status
        return f"{status}: {result.problem}" if result.problem else status
    if config.get("evaluate"):
        return "evaluate=True: no training"
    if config.get("checkpoint_path"):
        return f"goes on from a checkpoint ({config['checkpoint_path']}): its curve has no beginning"
    return None


def _leave_out_superseded(all_entries: list[Entry]) -> None:
    """Of finished runs with one configuration and seed the newest counts."""
    for group in _by(counting(all_entries), lambda e: (e.seed, e.algorithm, _identity(e.keys))).values():
        *older, newest = sorted(group, key=lambda e: (e.result.started, str(e.result.path)))
        for e in older:
            e.left_out = f"superseded by {plain(str(newest.result.path))}"


def _metric_of(group: list[Entry]) -> str:
    """The first of JUDGED_BY that all runs of the task have; where none is, the one that most have."""
    having = [sum(name in e.result.series for e in group) for name in JUDGED_BY]
    return JUDGED_BY[having.index(max(having))]


def _says_nothing(result: Result, name: str) -> str | None:
    """Why a metric does not tell how good a run is, or None."""
    if name not in result.series:
        there = len(result.nonfinite.get(name, ()))
        return f"no value of {plain(name)} is finite" if there else f"has no metric {plain(name)}"
    if result.series[name][0][-1] < 0.95 * result.last_step(name):  # it diverged, before the last 5 % of its steps
        return f"its last values of {plain(name)} are not finite"
    return None


# ---- what they are called


def _label(group: list[Entry]) -> None:
    """Add to task and algorithm the keys in which runs of one name differ."""
    for same in _by(group, lambda e: e.task_name).values():  # SMAC's 3m and SMAX's are two games
        several = len({_env(e) for e in same}) > 1
        for e in same:
            e.task, e.algorithm = (f"{_env(e)} {e.task_name}" if several else e.task_name), e.name
    for same in _by(group, lambda e: e.task).values():
        names = _varying(same, lambda key: key.startswith("env_args.") and matters(key), where_set=True)
        for e, label in zip(same, _labels(same, names, " ")):
            e.task += plain(label)
    for same in _by(group, lambda e: e.algorithm).values():
        tasks = _by(same, lambda e: e.task).values()
        names = sorted(set().union(*(_varying(runs, matters) for runs in tasks)))
        for e, label in zip(same, _labels(same, names, ", ")):
            e.algorithm += plain(label)
    for e in group:
        e.shown_task = labels.task(_env(e), e.task_name, e.task)
        label, base = e.result.label, plain(str(e.keys.get("name", "")))
        e.shown_algorithm = labels.algorithm(e.name if label else base, e.algorithm)
        if label and e.name != label:
            e.shown_algorithm = labels.algorithm(base, base) + e.shown_algorithm.removeprefix(base)


def _env(e: Entry) -> str:
    return plain(str(e.keys.get("env", "")))


def _varying(group: list[Entry], wanted: Callable[[str], bool], where_set: bool = False) -> list[str]:
    """The wanted keys in which the entries differ. where_set: a key that some lack is no difference by itself."""
    names = sorted(key for key in set().union(*(e.keys for e in group)) if wanted(key))
    out = []
    for name in names:
        values = {text(e.keys.get(name, NOT_SET)) for e in group if name in e.keys or not where_set}
        if len(values) > 1:
            out.append(name)
    return out


def _labels(group: list[Entry], names: list[str], separator: str) -> list[str]:
    """For each entry `, key=value` of each of `names`; ` #n` where that is long or does not tell them apart."""
    values = [tuple(text(e.keys.get(name, NOT_SET)) for name in names) for e in group]
    labels = [
        "".join(f"{separator}{name.removeprefix('env_args.')}={short(e.keys.get(name, NOT_SET))}" for name in names)
        for e in group
    ]
    if len(names) > 3 or len(set(labels)) < len(set(values)):
        number = {v: n for n, v in enumerate(sorted(set(values)), start=1)}
        return [f" #{number[v]}" for v in values]
    return labels


def _task_order(e: Entry) -> tuple:
    """Tasks by environment, then by env_args as numbers where they are numbers."""
    values = [e.keys[k] for k in sorted(k for k in e.keys if k.startswith("env_args.") and matters(k))]
    ordered = [(0, v, "") if isinstance(v, (int, float)) else (1, 0.0, text(v)) for v in values]
    return e.task_name, ordered, e.task


def _identity(keys: dict) -> str:
    return text({k: v for k, v in keys.items() if matters(k)})


def _by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def seeds(group: Iterable[Seeded]) -> str:
    """The seeds of a group in words: 1-3, 7."""
    numbers = sorted({e.seed for e in group if type(e.seed) is int})
    words = [plain(str(e.seed)) for e in group if type(e.seed) is not int]
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if numbers else []:
        words.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ", ".join(words)
