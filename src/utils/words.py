"""Lists and numbers as they are written on a command line: types of argparse, which wait for no import."""

import argparse
import re
from collections.abc import Callable
from typing import Any


def names(text: str) -> list[str]:
    """`qmix,vdn` as two names. A comma with a space after it belongs to a name: `qmix, lr=0.1`."""
    found = [part.strip() for part in re.split(r",(?! )", text) if part.strip()]
    if not found:
        raise argparse.ArgumentTypeError("no name given")
    return found


def seeds(text: str) -> list[int]:
    """`1-3,7` as [1, 2, 3, 7]."""
    out = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(-?\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not ends:
            raise argparse.ArgumentTypeError(f"{part!r} is not a seed; write numbers and ranges, such as 1-3,7")
        low, high = int(ends[1]), int(ends[2] or ends[1])
        if not 0 <= high - low <= 100_000:
            raise argparse.ArgumentTypeError(f"{part!r} is not a range of at most 100,000 seeds, the lower one first")
        out += range(low, high + 1)
    return out


def steps(text: str) -> int:
    """`1000000`, `1e6` or `1_000_000`."""
    try:
        value = float(text.replace("_", ""))
        if not (0 < value < 2**53 and value == int(value)):
            raise ValueError
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps above 0, such as 200000") from None
    return int(value)


def points(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of evaluations above 0")
    return int(text)


def at_least(low: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    return number


class Several(argparse.Action):
    """Words of one option, each a list, as one list."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, before + [x for word in values or () for x in word])


def add_list(group: argparse._ActionsContainer, option: str, metavar: str, text: str) -> None:
    """Add an option that takes names, as `A,B` or as `A B`."""
    group.add_argument(option, metavar=metavar, nargs="+", type=names, action=Several, help=f"{text}: A,B or A B")
