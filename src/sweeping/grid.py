"""`grid` and `sample` of a study: settings of hyper-parameters, each of which is run like an algorithm of its own.

    grid: {lr: [0.0005, 0.001], opt_loss: [0.03, 1]}                   # every combination
    sample: {number: 20, seed: 1, lr: {log_uniform: [0.0001, 0.01]}}   # drawn

They stand in the study, for all its algorithms, or in one of its algorithms. Settings are made when the study is read,
so whoever plans, filters, runs or resumes knows nothing of them. Draws depend on the seed, the key and their number
alone: with a larger `number` the settings that there were stay.
"""

import math
import random
from itertools import count, product
from typing import Any

from utils.args import nearest
from utils.messages import shown
from utils.settings import name_of, number

FIELDS = ("grid", "sample")
KINDS = ("uniform", "log_uniform", "integer", "choice")
MOST = 1000  # settings
MOST_LABEL = 100  # characters
LARGEST = 1e100  # bound of a range: what is computed with it stays finite
SET_ELSEWHERE = {
    "seed": "seeds are given as `seeds`",
    "name": "it is set by the sweep",
    "local_results_path": "it is set by the sweep; give `results`",
    "config": "write each as an algorithm of its own",
    "env-config": "write each as an environment of its own",
}


def take(raw: dict, where: str, problems: list[str]) -> list[dict]:
    """The settings that the fields `grid` and `sample` of a mapping make, [{dotted key: value}]; [{}] where it has
    neither. where: its place, for messages, such as `algorithms: qmix: `."""
    grid = _grid(raw["grid"], f"{where}grid", problems) if "grid" in raw else [{}]
    sample = _sample(raw["sample"], f"{where}sample", problems) if "sample" in raw else [{}]
    both = [key for key in grid[0] if key in sample[0]]
    problems += [f"{where}grid: {key} is in sample too; drop one" for key in both]
    return [] if both else _crossed(grid, sample, f"{where}grid", problems)


def expand(
    algorithms: dict, shared: list[dict], own: dict[str, list[dict]], taken: dict, problems: list[str]
) -> tuple[dict, dict]:
    """({label: (file, changes)} with one entry for each setting, {label: (label of its algorithm, setting)}).

    shared: the settings of all algorithms; own: {algorithm: its own settings}. taken: {where: {key: value}} of the
    study's other changes, which may not name a key that is searched.
    """
    out, settings = {}, {}
    for base, (file, changes) in algorithms.items():
        mine = own.get(base, [{}])
        both = [key for key in shared[0] if key in mine[0]] if shared and mine else []
        problems += [
            f"algorithms: {base}: grid: {key} is in the study's own grid or sample too; drop one" for key in both
        ]
        points = [] if both else _crossed(shared, mine, f"algorithms: {base}: grid", problems)
        searched = dict.fromkeys(key for point in points for key in point)
        for where, values in (taken | {f"algorithms: {base}": changes}).items():
            problems += [
                f"grid or sample: {key} is set in {where} too, to {shown(values[key])}; drop one"
                for key in searched
                if key in values
            ]
        for point in points:
            label = name_of(base, point)
            if len(label) > MOST_LABEL:
                problems.append(
                    f"algorithms: the label {shown(label)} has {len(label)} characters, at most {MOST_LABEL}: give the "
                    "algorithm a shorter label, LABEL: {config: NAME}, or search fewer keys"
                )
                break
            if label in out or point and label in algorithms:
                problems.append(f"algorithms: {shown(label)} is there twice")
            out[label] = file, changes | point
            settings[label] = base, point
    return out, settings


def _crossed(a: list[dict], b: list[dict], where: str, problems: list[str]) -> list[dict]:
    if len(a) * len(b) > MOST:
        problems.append(f"{where}: {len(a) * len(b):,} settings; at most {MOST:,}: give fewer values, or draw a sample")
        return []
    return [x | y for x, y in product(a, b)]


# ---- grid


def _grid(value: Any, where: str, problems: list[str]) -> list[dict]:
    if not isinstance(value, dict) or not value:
        problems.append(f"{where}: {shown(value)} must be a mapping, {{KEY: [VALUE, VALUE]}}")
        return [{}]
    keys, before = {}, len(problems)
    for key, values in dotted(value, where, problems).items():
        if key in SET_ELSEWHERE:
            problems.append(f"{where}: {key}: {SET_ELSEWHERE[key]}")
        elif isinstance(values, dict):
            hint = "a range goes into `sample`, which draws from it"
            problems.append(f"{where}: {key}: {shown(values)} must be a list of values; {hint}")
        else:
            keys[key] = _values(values, f"{where}: {key}", problems)
    size = math.prod(len(values) for values in keys.values())
    if size > MOST:
        problems.append(f"{where}: {size:,} settings; at most {MOST:,}: give fewer values, or draw a sample")
    if len(problems) > before:
        return [{}]
    return [dict(zip(keys, point)) for point in product(*keys.values())]


def _values(values: Any, where: str, problems: list[str]) -> list:
    """Two values or more, each once."""
    if not isinstance(values, list):
        problems.append(f"{where}: {shown(values)} must be a list of values, such as [0.0005, 0.001]")
        return []
    values = [number(value) for value in values]
    for value in values:
        if problem := _unfit(value):
            problems.append(f"{where}: {shown(value)} {problem}")
            return []
    distinct = []
    for value in values:
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in distinct):
            problems.append(f"{where}: {shown(value)} is there twice")
            return []
        distinct.append(value)
    if len(values) < 2:
        one = f"{shown(values[0])} alone is nothing to search; write it under `overrides`" if values else "it is empty"
        problems.append(f"{where}: {one}, or give two values or more")
    return values


def _unfit(value: Any) -> str | None:
    """What keeps a value out of a label, or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return "is not finite"
    if isinstance(value, str):
        plain = value.strip() == value and value.isprintable() and value and not set(value) & set(",=/\\")
        return None if plain else "must be a word, for it names runs: no comma, =, / or \\"
    return None if value is None or isinstance(value, (bool, int, float)) else "must be a number, a word, True or null"


def dotted(value: dict, where: str, problems: list[str]) -> dict:
    """A mapping with dotted keys in place of what is nested under env_args."""
    flat = {str(key): inner for key, inner in value.items()}
    nested = flat.pop("env_args", None)
    if nested is not None and not isinstance(nested, dict):
        problems.append(f"{where}: env_args: {shown(nested)} must be a mapping, {{KEY: …}}")
        nested = None
    return flat | {f"env_args.{key}": inner for key, inner in (nested or {}).items()}


# ---- sample


def _sample(value: Any, where: str, problems: list[str]) -> list[dict]:
    example = "{number: 20, lr: {log_uniform: [0.0001, 0.01]}}"
    if not isinstance(value, dict) or not value:
        problems.append(f"{where}: {shown(value)} must be a mapping, such as {example}")
        return [{}]
    before, ranges = len(problems), {}
    flat = dotted(value, where, problems)
    n = _whole(flat.pop("number", None), f"{where}: number", "how many settings are drawn", 2, MOST, problems)
    seed = _whole(flat.pop("seed", 0), f"{where}: seed", "the seed of the draws", 0, 2**32 - 1, problems)
    for key, spec in flat.items():
        if key in SET_ELSEWHERE:
            problems.append(f"{where}: {key}: {SET_ELSEWHERE[key]}")
        else:
            ranges[key] = _range(spec, f"{where}: {key}", problems)
    if not flat:
        problems.append(f"{where}: no range is given; write KEY: {{uniform: [LOW, HIGH]}}, as in {example}")
    if len(problems) > before:
        return [{}]
    points = _drawn(ranges, n, seed)
    if len(points) < n:
        problems.append(f"{where}: number = {n}, but these ranges have only {len(points)} settings; write a grid")
    return points


def _whole(value: Any, where: str, what: str, low: int, high: int, problems: list[str]) -> int:
    if value is None:
        problems.append(f"{where} is missing: {what}, a whole number from {low} on")
    elif type(value) is not int or not low <= value <= high:
        problems.append(f"{where}: {shown(value)} must be a whole number, {low} to {high}: {what}")
    else:
        return value
    return low


def _range(spec: Any, where: str, problems: list[str]) -> tuple[str, list]:
    """(kind, [low, high] or the values of a choice)."""
    told = f"{{uniform: [LOW, HIGH]}}; kinds: {', '.join(KINDS)}"
    if not isinstance(spec, dict) or len(spec) != 1:
        problems.append(f"{where}: {shown(spec)} must be one range, such as {told}")
        return "choice", []
    ((name, bounds),) = spec.items()
    kind = str(name).replace("-", "_")
    if kind not in KINDS:
        problems.append(f"{where}: {shown(name)} is no kind of range; write {told}{nearest(name, KINDS)}")
        return "choice", []
    if kind == "choice":
        return kind, _values(bounds, f"{where}: choice", problems)
    bounds: Any = [number(bound) for bound in bounds] if isinstance(bounds, list) else bounds
    wanted = int if kind == "integer" else (int, float)
    problem = None
    if not isinstance(bounds, list) or len(bounds) != 2:
        problem = "must be two numbers, [LOW, HIGH]"
    elif not all(isinstance(b, wanted) and not isinstance(b, bool) and abs(b) <= LARGEST for b in bounds):
        problem = f"must be two {'whole ' if kind == 'integer' else ''}numbers, [LOW, HIGH], of at most {LARGEST:g}"
    elif bounds[0] >= bounds[1]:
        problem = "must go from the lower to the higher number"
    elif kind == "log_uniform" and bounds[0] < 1 / LARGEST:
        problem = f"must be above 0, as its logarithm is drawn, and at least {1 / LARGEST:g}"
    if problem:
        problems.append(f"{where}: {name}: {shown(bounds)} {problem}")
        return "choice", []
    return kind, bounds


def _drawn(ranges: dict[str, tuple[str, list]], n: int, seed: int) -> list[dict]:
    """The first n settings of an endless row of draws, each once; fewer where there are no more."""
    streams = {key: random.Random(f"{seed} {key}") for key in ranges}  # the same on every machine
    points = []
    for tries in count(1):
        point = {key: _draw(*ranges[key], streams[key].random()) for key in ranges}
        if point not in points:
            points.append(point)
        if len(points) == n or tries == 100 * n:
            return points
    raise AssertionError


def _draw(kind: str, bounds: list, u: float) -> Any:
    """A value of a range. u: within [0, 1). As many digits as tell a thousandth of the range, or of the value."""
    if kind == "choice":
        return bounds[int(u * len(bounds))]
    low, high = bounds
    if kind == "integer":
        return low + int(u * (high - low + 1))
    if kind == "log_uniform":
        value = low * (high / low) ** u
        digits = 2 - math.floor(math.log10(value))
    else:
        value = low + u * (high - low)
        digits = 3 - math.floor(math.log10(high - low))
    return float(min(max(round(value, digits), low), high))
