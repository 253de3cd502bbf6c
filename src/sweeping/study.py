"""A study file, read and checked for its form: which algorithms, environments, overrides and seeds it names.

`python src/sweep.py --help` shows one. What the names and keys amount to is for `sweeping/plan.py`.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeping import grid
from utils.args import ConfigError, nearest
from utils.config_files import is_path, names
from utils.disk import NAMES_A_FOLDER, expanded, names_a_folder
from utils.identity import FAIRNESS
from utils.messages import shown
from utils.yaml_file import read_yaml

KEYS = (
    "title",
    "question",
    "algorithms",
    "environments",
    "overrides",
    "seeds",
    "allow_different",
    "results",
    "modules",
    *grid.FIELDS,
    "tuned_on",
)
NEEDED = ("algorithms", "environments", "seeds")
SET_BY_THE_PLAN = ("name", "seed", "local_results_path")
CONFIGURATIONS = "configurations"  # folder of a study that was sent to a cluster: YAML files of the user's own
MOST_SEEDS = 10_000
MOST_PAIRS = 1000  # of an algorithm and an environment, each of which is checked by itself


@dataclass
class Study:
    """What a study file says. `problems`: what is wrong with it; what is sound is there all the same.

    Changes are {dotted key: value}.
    """

    path: Path
    title: str = ""
    question: str = ""
    # {label: (name of a file in config/algs or config/envs, or the path of one of the user's own; changes)}
    algorithms: dict[str, tuple[str, dict]] = field(default_factory=dict)
    environments: dict[str, tuple[str, dict]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)  # {dotted key: value}
    seeds: list[int] = field(default_factory=list)
    allow_different: list[str] = field(default_factory=list)
    results: str = ""
    modules: list[Path] = field(default_factory=list)  # files and folders of Python that the runs import
    settings: dict[str, tuple[str, dict]] = field(default_factory=dict)  # {label: (its algorithm, searched values)}
    problems: list[str] = field(default_factory=list)


def read_study(path: str | Path, sent: bool = False) -> Study:
    """The Study of a file. ConfigError where there is none, or where it is no mapping.

    sent: it is a copy that was sent to a cluster; what it was tuned on was looked at before.
    """
    path = Path(path)
    raw = _read(path)
    study = Study(path)
    study.problems += [
        f"unknown key {shown(k)}; known: {', '.join(KEYS)}{nearest(k, KEYS)}" for k in raw if k not in KEYS
    ]
    study.problems += [f"missing key {k!r}; `python src/sweep.py --help` shows a study" for k in NEEDED if k not in raw]
    study.title, study.question, study.results = (
        _text(raw, k, study.problems) for k in ("title", "question", "results")
    )
    own = {}

    def places(name: str) -> list[Path]:
        """Where a file of the user's own may be; of a study that was sent only the copy that was made then."""
        if sent:
            return [path.parent / CONFIGURATIONS / Path(name).name]
        return [path.parent / expanded(name), expanded(name)]

    if "algorithms" in raw:
        entries = _entries(raw["algorithms"], "algorithms", "config", study.problems)
        entries, own = _own_settings(entries, study.problems)
        study.algorithms = _labelled(entries, "algorithms", "config", "algs", places, study.problems)
    if "environments" in raw:
        entries = _entries(raw["environments"], "environments", "env-config", study.problems)
        study.environments = _labelled(entries, "environments", "env-config", "envs", places, study.problems)
    study.overrides = _changes(raw.get("overrides"), "overrides", study.problems)
    taken = {f"environments: {label}": changes for label, (_, changes) in study.environments.items()}
    study.algorithms, study.settings = grid.expand(
        study.algorithms,
        grid.take(raw, "", study.problems),
        own,
        {"overrides": study.overrides} | taken,
        study.problems,
    )
    if len(study.algorithms) * len(study.environments) > MOST_PAIRS:
        told = f"{len(study.algorithms)} algorithms on {len(study.environments)} environments"
        raise ConfigError(f"{path}: {told}; at most {MOST_PAIRS} pairs are run: make several studies of it")
    if "seeds" in raw:
        study.seeds = seeds(raw["seeds"], "seeds", study.problems)
    if not sent:
        _refuse_tuned_on(raw.get("tuned_on"), study)
    study.allow_different = _allowed(raw.get("allow_different"), study.problems)
    study.modules = _modules(raw.get("modules"), path.parent, study.problems)
    return study


def seeds(value: Any, where: str, problems: list[str]) -> list[int]:
    """The seeds of 3, "1-5", "1-3, 7" or a list of such, in the order given."""
    out = []
    for word in value if isinstance(value, list) else str("" if value is None else value).split(","):
        match = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10})\s*)?", str(word))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            problems.append(f"{where}: {shown(word)} is neither a number nor a range; write 3, 1-5, or 1-3, 7")
        elif last >= 2**32:
            problems.append(f"{where}: {shown(word)}: the largest seed is {2**32 - 1}")
        elif len(out) + last - first >= MOST_SEEDS:
            problems.append(f"{where}: {shown(word)} makes more than {MOST_SEEDS} seeds")
            break
        else:
            out += range(first, last + 1)
    twice = sorted(seed for seed, n in Counter(out).items() if n > 1)
    problems += [f"{where}: {seed} is there twice" for seed in twice[:3]]
    if isinstance(value, list) and not value:
        problems.append(f"{where}: none are given")
    return list(dict.fromkeys(out))


def _read(path: Path) -> dict:
    if not path.is_file():
        raise _no_such_study(path)
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not raw:
        held = "is empty" if not raw else f"holds {type(raw).__name__}, not `key: value` lines"
        raise ConfigError(f"{path} {held}; `python src/sweep.py --help` shows a study")
    return raw


def _no_such_study(path: Path) -> ConfigError:
    """The ConfigError that lists the studies there are."""
    if path.is_dir():
        return ConfigError(f"{path} is a folder; give a study, such as {path / 'NAME.yaml'}")
    studies = sorted({*Path("studies").glob("*.yaml"), *path.parent.glob("*.yaml")})
    hint = nearest(path.stem, [study.stem for study in studies])
    return ConfigError(f"{path}: no such study; there are: {', '.join(map(str, studies)) or 'none in studies/'}{hint}")


def _text(raw: dict, key: str, problems: list[str]) -> str:
    value = raw.get(key)
    if value is None or isinstance(value, (str, int, float)):
        return "" if value is None else str(value).strip()
    problems.append(f"{key}: {shown(value)} must be text")
    return ""


def _entries(entries: Any, where: str, file_key: str, problems: list[str]) -> Any:
    """A list of names as a mapping; a YAML file of the user's own has its stem for a label."""
    if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries):
        pairs = [(entry, None) for entry in entries]
    elif isinstance(entries, dict):
        pairs = [(str(label), entry) for label, entry in entries.items()]
    else:
        return entries
    out = {}
    for label, entry in pairs:
        if is_path(label) and isinstance(entry, (dict, type(None))) and file_key not in (entry or {}):
            label, entry = Path(label).stem, {file_key: label} | (entry or {})
        if label in out:
            problems.append(f"{where}: {shown(label)} is there twice")
        out[label] = entry
    return out


def _labelled(
    entries: Any, where: str, file_key: str, kind: str, places: Callable[[str], list[Path]], problems: list[str]
) -> dict[str, tuple[str, dict]]:
    """{label: (file, changes)} of a mapping of labels. places: where a file of the user's own may be."""
    if entries is not None and not isinstance(entries, dict):
        problems.append(f"{where}: must be a list of names, or lines LABEL: {{{file_key}: NAME, KEY: VALUE}}")
        return {}
    if not entries:
        problems.append(f"{where}: none are given, so there is nothing to run; known: {', '.join(names(kind))}")
    out = {}
    for label, entry in (entries or {}).items():
        changes = _changes(entry, f"{where}: {label}", problems)
        name, known = changes.pop(file_key, label), names(kind)
        if is_path(name):
            file = next((place for place in places(name) if place.is_file()), None)
            if file is None:
                told = "there is no such file beside the study, nor in the working directory"
                problems.append(f"{where}: {file_key}: {shown(name)}: {told}")
                continue
            name = str(file.absolute())
        elif name not in known:
            own = "" if name != label else f"; a label of your own needs {file_key}: NAME"
            hint = f"known: {', '.join(known)}{nearest(name, known)}{own}"
            problems.append(f"{where}: {shown(name)} is no file of config/{kind}; {hint}")
            continue
        if not names_a_folder(label) or label.startswith("-"):  # a word of a command line
            rule = f"{NAMES_A_FOLDER}, and no - at its beginning"
            problems.append(f"{where}: the label {shown(label)} names a folder: {rule}")
        else:
            out[label] = name, changes
    return out


def _own_settings(entries: Any, problems: list[str]) -> tuple[Any, dict[str, list[dict]]]:
    """(the entries without their `grid` and `sample`, {label: the settings that those make})."""
    if not isinstance(entries, dict):
        return entries, {}
    own, rest = {}, {}
    for label, entry in entries.items():
        rest[label] = entry
        if isinstance(entry, dict) and not set(entry).isdisjoint(grid.FIELDS):
            rest[label] = {key: value for key, value in entry.items() if key not in grid.FIELDS}
            own[str(label)] = grid.take(entry, f"algorithms: {label}: ", problems)
    return rest, own


def _refuse_tuned_on(entry: Any, study: Study) -> None:
    """Add to the study's problems the seeds that the studies of `tuned_on` have: on those its settings were chosen."""
    names = [entry] if isinstance(entry, str) else [] if entry is None else entry
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        told = f"tuned_on: {shown(entry)} must be a study, or a list of such: tuned_on: studies/tuning.yaml"
        study.problems.append(told)
        return
    for name in names:
        path = next((p for p in (study.path.parent / expanded(name), expanded(name)) if p.is_file()), None)
        if path is None:
            there = sorted({*Path("studies").glob("*.yaml"), *study.path.parent.glob("*.yaml")} - {study.path})
            hint = nearest(Path(name).stem, [other.stem for other in there])
            study.problems.append(f"tuned_on: {name}: no such study{hint}")
            continue
        said = []
        both = sorted(set(seeds(_read(path).get("seeds"), f"tuned_on: {path}: seeds", said)) & set(study.seeds))
        study.problems += said
        if both:
            listed = ", ".join(map(str, both[:5])) + (f" and {len(both) - 5} more" if len(both) > 5 else "")
            study.problems.append(
                f"seeds: {listed}: settings were chosen on {'it' if len(both) == 1 else 'them'} in {path}, so "
                "results on the same seeds look better than they are; give seeds that it does not have"
            )


def _changes(entry: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """{dotted key: value} of a mapping, which may nest env_args."""
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        problems.append(f"{where}: {shown(entry)} must be a mapping, {{KEY: VALUE}}")
        return {}
    flat = grid.dotted(entry, where, problems)
    problems += [f"{where}: {key} is set by the sweep" for key in SET_BY_THE_PLAN if key in flat]
    return {key: value for key, value in flat.items() if key not in SET_BY_THE_PLAN}


def _allowed(entry: Any, problems: list[str]) -> list[str]:
    """The keys that may differ between the algorithms of an environment."""
    if entry is not None and not (isinstance(entry, list) and all(isinstance(key, str) for key in entry)):
        problems.append(f"allow_different: {shown(entry)} must be a list of keys, such as [batch_size_run]")
        return []
    for key in entry or []:
        if key not in FAIRNESS and not key.startswith("env_args."):
            hint = f"compared are {', '.join(FAIRNESS)} and each env_args.KEY{nearest(key, FAIRNESS)}"
            problems.append(f"allow_different: {shown(key)} is not compared; {hint}")
    return entry or []


def _modules(entry: Any, folder: Path, problems: list[str]) -> list[Path]:
    """The paths of `modules`, which are told from the study's folder."""
    if entry is not None and not (isinstance(entry, list) and all(isinstance(name, str) for name in entry)):
        problems.append(f"modules: {shown(entry)} must be a list of files and folders, such as [my_game.py]")
        return []
    found = []
    for name in entry or []:
        path = (folder / expanded(name)).absolute()
        if not path.exists():
            path = (folder / "modules" / path.name).absolute()  # of a study that was sent to a cluster
        importable = path.suffix == ".py" and path.is_file() or path.is_dir()
        if not importable or not path.stem.isidentifier():
            hint = "give a file NAME.py or the folder of a package, told from the folder of the study"
            problems.append(f"modules: {shown(name)}: {path} is no module of Python; {hint}")
        else:
            found.append(path)
    return found
