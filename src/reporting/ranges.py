"""Known ranges of scores: what is 0 and what is 1 on the scale that scores of several tasks share.

A win rate is such a score already. A return is scaled by the game's own random play (0) and best play (1), as declared
beside the game (`VectorEnv.score_range`), noted by a run of a user's own game, or given with --ranges.
"""

import math
from contextlib import suppress
from typing import Any, NamedTuple

from envs import score_range
from reporting.grouping import Entry
from utils.args import ConfigError, nearest
from utils.messages import short

RETURNS = ("test_return_mean", "test_total_return_mean", "return_mean")


class Range(NamedTuple):
    """low and high: the scores that are 0 and 1 on the common scale; what: they are, in words."""

    low: float
    high: float
    what: str


WON = Range(0.0, 1.0, "win rates as they are")
BEST = "returns: random play is 0, best play 1"
FOOD = "returns: no food is 0, all food 1"


def of_task(entries: list[Entry], metric: str, given: dict[str, Range]) -> Range | None:
    """The range of the scores of one task, or None where it is not known. entries: its runs; given: {name: Range} of
    --ranges, by task or environment."""
    e = entries[0]
    for name in (e.task, e.shown_task, e.task_name, str(e.keys.get("env"))):
        if name in given:
            return given[name]
    if "battle_won" in metric:
        return WON
    if metric not in RETURNS or e.keys.get("reward_scalarisation") == "mean" and e.keys.get("env") == "gymma":
        return None  # of a mean over agents, whose number is not known here, nothing is declared
    known = _declared(e) or _noted(entries)
    forages = str(e.keys.get("env_args.key")).startswith("lbforaging")  # no random play is declared of it
    return None if known is None else Range(*known, FOOD if forages else BEST)


def _declared(entry: Entry) -> tuple[float, float] | None:
    """Of a built-in game. Where its package is missing or the run's keys are not the game's, nothing is known."""
    env_args = entry.result.config.get("env_args")
    with suppress(Exception):  # a run of another version, or of EPyMARL, may hold anything
        return _sound(score_range(str(entry.keys["env"]), env_args if isinstance(env_args, dict) else {}))
    return None


def _noted(entries: list[Entry]) -> tuple[float, float] | None:
    """What a run of a user's own game wrote under `game` in summary.json."""
    return next((known for e in entries if (known := _sound(e.result.score_range))), None)


def _sound(pair: Any) -> tuple[float, float] | None:
    """`pair` as two finite numbers, the lower one first, or None where it is anything else."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return None
    if not all(isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for x in pair):
        return None
    low, high = map(float, pair)
    return (low, high) if low < high else None


def read_ranges(path: str) -> dict[str, Range]:
    """{task or environment: Range} of a YAML file with lines `NAME: [LOW, HIGH]`. ConfigError where it is none."""
    from reporting.labels import mapping_of

    out = {}
    for name, pair in mapping_of(path, "--ranges").items():
        known = _sound(pair)
        if known is None:
            raise ConfigError(
                f"--ranges={path}: {name}: {short(pair, 60)} is no range; write two numbers, [LOW, HIGH], such as "
                "[return of random play, best return]"
            )
        out[name] = Range(*known, f"as given with --ranges, {known[0]:g} is 0 and {known[1]:g} is 1")
    return out


def check_names(path: str, given: dict[str, Range], entries: list[Entry]) -> None:
    """ConfigError where a name of --ranges is that of no task or environment."""
    known = {name for e in entries for name in (e.task, e.shown_task, e.task_name, str(e.keys.get("env")))}
    for name in given:
        if name not in known:
            raise ConfigError(
                f"--ranges={path}: {name!r} is no task or environment of these runs{nearest(name, known)}; known: "
                f"{', '.join(sorted(known))}"
            )
