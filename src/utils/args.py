"""Hyperparameters: declared beside the class that reads them, read from an EPyMARL-style `args`.

A class states what it reads in a frozen dataclass named `Config`::

    class VDNMixer(nn.Module):
        @dataclass(frozen=True)
        class Config:
            lr: float = key("step size of the optimiser", above=0)

and gets its values by `read(VDNMixer.Config, args)`. Values live in YAML, never here. The same
declarations type-check a run's configuration (`utils/config.py`) and explain it (`--explain`).

Plugin file: imports only the standard library, so it also runs inside an EPyMARL checkout, where
`args` holds EPyMARL's or PyMARL's names; `aliases` maps them to ours.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

C = TypeVar("C")


class ConfigError(ValueError):
    """Bad input by the user. The message names the thing, its value, what is allowed, what to do."""


class TrainingError(RuntimeError):
    """Training cannot go on (a non-finite loss, say). The message names the step and the term."""


class NotFinite(TrainingError):
    """A number is not finite: in an update, which is then not made, or in an episode. name: of that update or episode,
    as a file may be called."""

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


def key(
    doc: str,
    *,
    unit: str = "",
    choices: Sequence[Any] | None = None,
    words: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    aliases: Sequence[str] = (),
) -> Any:
    """Declare one hyperparameter of a `Config` dataclass.

    doc: one line, what it does. unit: of its value. choices: the values allowed. words: values beside numbers.
    low, high: inclusive bounds; above: exclusive lower bound. aliases: names that other frameworks
    of the family use for the same thing.
    """
    return dataclasses.field(
        metadata=dict(
            doc=doc, unit=unit, choices=choices, words=words, low=low, high=high, above=above, aliases=tuple(aliases)
        )
    )


def declared(config_class: type) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """{name: (type, metadata)} of a `Config` dataclass."""
    types_ = typing.get_type_hints(config_class)
    return {f.name: (types_[f.name], f.metadata) for f in dataclasses.fields(config_class)}


def nearest(word: object, allowed: Iterable[object]) -> str:
    """`; did you mean 'x'?` for the closest allowed name, or the empty string."""
    names = {str(a).lower(): str(a) for a in allowed}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def convert(value: Any, type_: Any, meta: Mapping[str, Any]) -> Any:
    """`value` as `type_` and within the bounds of `meta`; ValueError says what is allowed."""
    options = typing.get_args(type_) if _is_union(type_) else (type_,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and value in meta.get("words", ()):
        return value
    wanted, choices = next(o for o in options if o is not type(None)), meta.get("choices")
    if choices and value not in choices:
        raise ValueError(f"is not one of {', '.join(map(str, choices))}{nearest(value, choices)}")
    value = _as(value, wanted)
    bounds = [
        (meta.get("low"), lambda v, b: v >= b, "at least"),
        (meta.get("high"), lambda v, b: v <= b, "at most"),
        (meta.get("above"), lambda v, b: v > b, "above"),
    ]
    wrong = [b for b in bounds if b[0] is not None and not b[1](value, b[0])]
    if wrong:
        raise ValueError("must be " + " and ".join(f"{word} {bound}" for bound, _, word in bounds if bound is not None))
    return value


def read(config_class: type[C], args: types.SimpleNamespace, also: Iterable[type] = ()) -> C:
    """An instance of `config_class` from the attributes of `args`.

    Raises ConfigError that names every key that is missing or wrong, not only the first. also: other
    Config dataclasses that will be read from the same `args`; their problems are in the same message.
    """
    values, problems = _read(config_class, args)
    for other in also:
        problems += [problem for problem in _read(other, args)[1] if problem not in problems]
    if problems:
        raise ConfigError(f"{config_class.__qualname__}:\n  " + "\n  ".join(problems))
    return config_class(**values)


def _read(config_class: type, args: types.SimpleNamespace) -> tuple[dict[str, Any], list[str]]:
    """({name: value}, [problem])."""
    values, problems = {}, []
    for name, (type_, meta) in declared(config_class).items():
        present = [n for n in (name, *meta["aliases"]) if hasattr(args, n)]
        if not present:
            also = f" (also accepted: {', '.join(meta['aliases'])})" if meta["aliases"] else ""
            problems.append(f"missing key {name!r}: {meta['doc']}{also}")
            continue
        value = getattr(args, present[0])
        try:
            values[name] = convert(value, type_, meta)
        except ValueError as error:
            problems.append(f"{present[0]}: {value!r} {error}")
    return values, problems


def _is_union(type_: Any) -> bool:
    return typing.get_origin(type_) in (typing.Union, types.UnionType)


def _as(value: Any, wanted: type) -> Any:
    if wanted is bool:
        if not isinstance(value, bool):
            raise ValueError("must be True or False")
        return value
    if wanted in (int, float):
        if isinstance(value, str):
            raise ValueError(f"is text{_numeric_hint(value, wanted)}, must be {_NAMES[wanted]}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be {_NAMES[wanted]}")
        if wanted is int and isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"must be at most {2**63 - 1}")
        if abs(value) > sys.float_info.max or not math.isfinite(value):
            raise ValueError("must be finite")
        if wanted is int and value != int(value):
            raise ValueError("must be a whole number")
        return wanted(value)
    if wanted is str:
        if not isinstance(value, str):
            raise ValueError("must be text (a number as text: '4.10' in YAML, \"'4.10'\" on a command line)")
        return value
    if not isinstance(value, wanted):
        raise ValueError(f"must be a {wanted.__name__}")
    return value


_NAMES = {int: "a whole number", float: "a number"}


def _numeric_hint(text: str, wanted: type) -> str:
    try:
        number = float(text)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    number = int(number) if wanted is int and number.is_integer() else number
    return f" ({text} is read as text; write {number!r})"
