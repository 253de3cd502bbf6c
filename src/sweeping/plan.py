"""A study's plan: algorithms × environments × seeds as runs with complete configurations, checked before any starts.

Who executes the runs, and where, is of no concern here. What is complete is read off the run directories alone.
"""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeping.study import Study, read_study, seeds
from utils import own_modules
from utils.args import ConfigError, nearest
from utils.config import CHOICES, BadConfiguration, Readers, load, parse_overrides
from utils.config_files import own_files
from utils.disk import expanded
from utils.identity import AS_IF_ABSENT, FAIRNESS, NOT_SET, counts, flat, identity, text
from utils.messages import short, shown, told
from utils.runs import Run

MOST_RUNS = 20_000


@dataclass(eq=False)
class PlannedRun:
    """One run. algorithm, environment: the study's labels; alg, env: as --config and --env-config name them."""

    algorithm: str
    environment: str
    seed: int
    alg: str
    env: str
    overrides: dict[str, Any]  # {dotted key: value}: what the study sets
    values: dict[str, Any]  # the complete configuration
    base: str = ""  # the study's algorithm, where `algorithm` is a setting of it from a grid

    def __post_init__(self) -> None:
        self.base = self.base or self.algorithm

    def __str__(self) -> str:
        return f"{self.algorithm} on {self.environment}, seed {self.seed}"

    def words(self, **changes: Any) -> list[str]:
        """The command line of main.py. changes: keys that replace the run's."""
        own = {"name": self.algorithm, "seed": self.seed, "local_results_path": self.values["local_results_path"]}
        values = [f"{key}={literal(value)}" for key, value in (self.overrides | own | changes).items()]
        return [f"--config={self.alg}", f"--env-config={self.env}", "with", *values]


@dataclass
class Plan:
    """A study, ready to run. runs: seeds outermost, so that each algorithm has some early."""

    title: str
    question: str
    algorithms: list[str]  # labels
    environments: list[str]  # labels
    seeds: list[int]
    results: Path
    runs: list[PlannedRun]
    modules: list[Path] = field(default_factory=list)  # the user's own, which the runs import
    settings: dict[str, tuple[str, dict]] = field(default_factory=dict)  # as the study's
    configurations: list[Path] = field(default_factory=list)  # YAML files of the user's own

    def selected(
        self, algorithms: list[str] | None = None, environments: list[str] | None = None, wanted: str | None = None
    ) -> list[PlannedRun]:
        """The runs of these labels and seeds ("1-3, 7"); None: of all. ConfigError for what the study lacks."""
        problems, settings = [], {}  # {algorithm of the study: its settings}
        for label, (base, _) in self.settings.items():
            settings.setdefault(base, []).append(label)
        known_algorithms = list(dict.fromkeys([*settings, *self.algorithms]))
        chosen = self.seeds if wanted is None else seeds(wanted, "--seeds", problems)
        for option, asked, known in (
            ("--algorithms", algorithms or (), known_algorithms),
            ("--environments", environments or (), self.environments),
            ("--seeds", chosen, self.seeds),
        ):
            listed = "; ".join(map(str, known[:30])) + (f"; and {len(known) - 30} more" if len(known) > 30 else "")
            problems += [
                f"{option} {x}: not in the study, which has: {listed}{nearest(x, known)}"
                for x in asked
                if x not in known
            ]
        if problems:
            raise ConfigError(told(problems))
        wanted_algorithms = algorithms or self.algorithms
        return [
            run
            for run in self.runs
            if (run.algorithm in wanted_algorithms or run.base in wanted_algorithms)
            and run.environment in (environments or self.environments)
            and run.seed in chosen
        ]


def read_plan(
    path: str | Path,
    readers: Readers,
    results: str | Path | None = None,
    modules: Path | None = None,
    sent: bool = False,
) -> Plan:
    """The Plan of the study file `path`; ConfigError with every problem that it has.

    readers: as for config.load. results: a folder in place of the study's own. modules: the folder of the user's
    modules, where it is not that of the study's `modules`. sent: as for read_study.
    """
    study = read_study(path, sent)
    folders = [module.parent for module in study.modules] if modules is None else [modules]
    for folder in folders:
        own_modules.search(str(folder))
    if folders:  # kept with each run, so that it finds them again wherever it is resumed
        study.overrides = {"modules_path": str(folders[0])} | study.overrides
    results = expanded(results or study.results or Path("results", "studies", study.path.stem))
    firsts = _first_runs(study, results, readers)
    study.problems += _clashes(study, firsts) + _unfair(study, firsts)
    if study.problems:
        raise ConfigError(f"{path}:\n  " + told(study.problems))
    count = len(firsts) * len(study.seeds)
    if count > MOST_RUNS:
        more = "give fewer seeds, or make several studies of it"
        raise ConfigError(f"{path}: {count} runs; at most {MOST_RUNS} are planned: {more}")
    runs = [_with_seed(run, seed) for seed in study.seeds for run in firsts]
    own = list(dict.fromkeys([*study.modules, *_named_modules(firsts)]))
    title = study.title or study.path.stem
    return Plan(
        title,
        study.question,
        [*study.algorithms],
        [*study.environments],
        study.seeds,
        results,
        runs,
        own,
        study.settings,
        _configurations(firsts),
    )


def _first_runs(study: Study, results: Path, readers: Readers) -> list[PlannedRun]:
    """The run of each algorithm on each environment with one seed. Adds to the study's problems."""
    runs, found = [], {}  # {problem: [(algorithm, environment) that have it]}
    unfit = _unfit_settings(study, readers)
    for environment, (env, of_environment) in study.environments.items():
        for algorithm, (alg, of_algorithm) in study.algorithms.items():
            base = study.settings[algorithm][0]
            if base in unfit:
                continue
            overrides = study.overrides | of_environment | of_algorithm
            own = {"name": algorithm, "seed": 0, "local_results_path": str(results / folder_name(environment))}
            try:
                values = load(alg, env, overrides | own, readers, said="study").values
                runs.append(PlannedRun(algorithm, environment, 0, alg, env, overrides, values, base))
            except ConfigError as error:
                for line in error.problems if isinstance(error, BadConfiguration) else str(error).split("\n  "):
                    found.setdefault(line, []).append((algorithm, environment))
    study.problems += [f"{problem} ({_of(pairs, study)})" for problem, pairs in found.items()]
    return runs


def _unfit_settings(study: Study, readers: Readers) -> set[str]:
    """The algorithms of the study whose searched keys do not fit them. Adds to its problems, once for all settings."""
    points, found = {}, {}  # {algorithm: its settings}, {problem: [algorithms that have it]}
    for label, (base, point) in study.settings.items():
        if point:
            points.setdefault(base, [label]).append(point)
    for base, (first, *settings) in points.items():
        alg, changes = study.algorithms[first]
        env, of_environment = next(iter(study.environments.values()), ("", {}))
        others = study.overrides | of_environment | {k: v for k, v in changes.items() if k not in settings[0]}
        for point in _telling(settings) if env else []:
            own = {"name": base, "seed": 0}
            try:
                config = load(alg, env, others | point | own, readers, said="study")
                lines = [
                    f"{key}: write the key that it is another name of" for key in point if key not in config.schema
                ]
            except BadConfiguration as error:
                lines = [about for problem in error.problems if (about := _about(problem, point))]
            except ConfigError:
                lines = []  # told with the runs
            for line in lines:
                key = line.partition(" =")[0]  # several values of it may be wrong
                if all(base not in bases for told, bases in found.items() if told.partition(" =")[0] == key):
                    found.setdefault(line, []).append(base)
    study.problems += [f"grid or sample: {line} ({', '.join(bases)})" for line, bases in found.items()]
    return {base for bases in found.values() for base in bases}


def _telling(settings: list[dict]) -> list[dict]:
    """The first setting, and for each key some that differ from it there: the ends of many numbers, else each value."""
    first = settings[0]
    out = [first]
    for key in first:
        values = [
            value for k, point in enumerate(settings) if (value := point[key]) not in [p[key] for p in settings[:k]]
        ]
        if len(values) > 10 and all(isinstance(value, (int, float)) for value in values):  # of a range
            values = [min(values), max(values)]
        out += [first | {key: value} for value in values if value != first[key]]
    return out


def _about(line: str, point: dict) -> str | None:
    """A problem of a configuration without the value, where it is about a key of the setting `point`; else None."""
    for key, value in point.items():
        unknown = f"study: unknown key {shown(key)} (value {shown(value)})"
        if line.startswith(unknown):
            hint = line.removeprefix(unknown)
            own = "; search it in these alone: ALGORITHM: {grid: {KEY: [...]}}" if "it belongs to" in hint else ""
            return f"unknown key {shown(key)}{hint}{own}"
        if line.startswith(f"study: {key} = "):
            return line.removeprefix("study: ")
    return None


def _named_modules(runs: list[PlannedRun]) -> list[Path]:
    """The files and folders of the MODULE:CLASS that runs name, as far as they lie in the folder kept with the run."""
    found = []
    for run in runs:
        names = [run.values.get(key) for key in CHOICES] + [run.values["env_args"].get("key")]
        for name in [str(name).partition(":")[0].partition(".")[0] for name in names if ":" in str(name)]:
            folder = Path(run.values.get("modules_path") or os.devnull)
            found += [path for path in (folder / f"{name}.py", folder / name) if path.exists()][:1]
    return found


def _configurations(runs: list[PlannedRun]) -> list[Path]:
    """The user's own YAML files that the runs read."""
    names = dict.fromkeys([pair for run in runs for pair in (("algs", run.alg), ("envs", run.env))])
    return list(dict.fromkeys(file for kind, name in names for file in own_files(kind, name)))


def _of(pairs: list[tuple[str, str]], study: Study) -> str:
    """The runs of [(algorithm, environment)] in words."""
    algorithms, environments = (list(dict.fromkeys(labels)) for labels in zip(*pairs))
    words = [] if len(algorithms) == len(study.algorithms) else [", ".join(algorithms)]
    words += [] if len(environments) == len(study.environments) else ["on " + ", ".join(environments)]
    return " ".join(words) or "all runs"


def _with_seed(run: PlannedRun, seed: int) -> PlannedRun:
    return replace(run, seed=seed, values=run.values | {"seed": seed})


def folder_name(label: str) -> str:
    """An environment's label as the name of a folder."""
    return re.sub(r"[^\w.+=-]+", "_", label.replace(" = ", "=")).strip("_.") or "_"


def literal(value: Any) -> str:
    """A value as `with` reads it: a Python literal; plain words that are read as themselves go without quotes."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./-]*", value)
    return value if plain and parse_overrides([f"key={value}"]) == {"key": value} else repr(value)


# ---- what a study may not hold


def _clashes(study: Study, runs: list[PlannedRun]) -> list[str]:
    """Problems: labels that claim one folder, and runs that are the same under two labels."""
    problems = []
    for where, labels, folder in (
        ("algorithms", study.algorithms, str),
        ("environments", study.environments, folder_name),
    ):
        claimed = {}
        for label in labels:
            other = claimed.setdefault(folder(label).casefold(), label)  # case: some file systems do not tell it apart
            if other != label:
                problems.append(f"{where}: {other!r} and {label!r} claim one folder; rename one")
    twins = {}
    for run in runs:
        other = twins.setdefault(identity(run.values, without=("name",)), run)
        if other.environment != run.environment:
            problems.append(f"environments: {other.environment!r} and {run.environment!r} are the same game; drop one")
        elif other is not run:
            problems.append(f"algorithms: {other.algorithm!r} and {run.algorithm!r} have the same settings; drop one")
    return list(dict.fromkeys(problems))


def _unfair(study: Study, runs: list[PlannedRun]) -> list[str]:
    """Problems: keys that differ between the algorithms of an environment and matter for a comparison."""
    found = {}  # {problem: [environments that have it]}
    for environment in study.environments:
        configs = {run.algorithm: flat(run.values) for run in runs if run.environment == environment}
        for key in sorted(set().union(*configs.values())):
            values = {algorithm: config.get(key, NOT_SET) for algorithm, config in configs.items()}
            compared = (key in FAIRNESS or key.startswith("env_args.")) and key not in study.allow_different
            if compared and len({text(value) for value in values.values()}) > 1:
                listed = ", ".join(f"{short(value)} ({algorithm})" for algorithm, value in values.items())
                problem = f"{key} differs between algorithms: {listed}; if meant, write allow_different: [{key}]"
                found.setdefault(problem, []).append(environment)
    return [f"{', '.join(environments)}: {problem}" for problem, environments in found.items()]


# ---- what is complete


@dataclass
class Existing:
    """What the results folder holds of a plan. `resumable`: the newest unfinished run of each planned run that is not
    complete; `other`: finished, of no planned configuration."""

    complete: dict[PlannedRun, Run]
    resumable: dict[PlannedRun, Run]
    unfinished: list[Run]
    other: list[Run]

    def __init__(self, runs: list[PlannedRun], found: list[Run]):
        self.complete, self.resumable, self.unfinished, self.other = {}, {}, [], []
        planned = {identity(run.values): run for run in runs}
        settings = {identity(run.values, without=("seed",)) for run in runs}
        for run in found:
            match = planned.get(identity(run.config))
            if run.status != "finished":
                self.unfinished.append(run)
                if match and run.path.name >= (self.resumable[match].path.name if match in self.resumable else ""):
                    self.resumable[match] = run
            elif match:
                self.complete[match] = run
            elif identity(run.config, without=("seed",)) not in settings:
                self.other.append(run)
        for match in self.complete:
            self.resumable.pop(match, None)


def differences(found: dict, planned: dict) -> list[str]:
    """[`key is VALUE, planned VALUE`] of two configurations, their seeds aside."""
    a, b = flat(found), flat(planned)
    keys = sorted(key for key in a.keys() | b.keys() if key != "seed" and counts(key))
    absent = {key: AS_IF_ABSENT.get(key, NOT_SET) for key in keys}
    pairs = [(key, a.get(key, absent[key]), b.get(key, absent[key])) for key in keys]
    return [f"{key} is {short(x)}, planned {short(y)}" for key, x, y in pairs if text(x) != text(y)]
