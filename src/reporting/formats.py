"""Numbers and names as the report writes them."""

import math
from collections.abc import Iterable

LABELS = {
    "test_return_mean": "test return",
    "test_total_return_mean": "test return, all agents",
    "test_battle_won_mean": "test win rate",
    "return_mean": "training return",
    "battle_won_mean": "training win rate",
    "absolute_return_mean": "absolute test return",
    "absolute_total_return_mean": "absolute test return, all agents",
    "absolute_battle_won_mean": "absolute test win rate",
}


def metric_label(metric: str) -> str:
    return LABELS.get(metric, metric)


def plain(text: str) -> str:
    """A text of others as one line that can be shown anywhere: what does not print, a line end, a mark that turns the
    direction, half a character, is written as \\n, \\u202e, \\ud800."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def decimals(values: Iterable[float]) -> int:
    """How many decimals show three digits of the largest of `values`."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0)
    return min(4, max(0, 2 - math.floor(math.log10(largest)))) if largest else 0


def with_interval(middle: float, lower: float, upper: float, digits: int, between: str = " ") -> str:
    """12.3 [11.9, 12.8]; without the interval where there is none."""
    if not math.isfinite(lower):
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f}{between}[{lower:.{digits}f}, {upper:.{digits}f}]"


def steps(value: float) -> str:
    """Environment steps as text."""
    if math.isnan(value):
        return "–"
    return "not reached" if math.isinf(value) else f"{value:,.0f}"


def commit(text: str | None) -> str:
    """The first ten digits, with the + of a changed tree."""
    text = str(text or "–")
    return text[:10] + ("+" if text.endswith("+") and len(text) > 10 else "")
