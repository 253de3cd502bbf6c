"""What a run takes in memory: named part by part before it is made, and refused with the sum where it does not fit."""

from dataclasses import dataclass
from typing import Any

from utils.args import ConfigError


@dataclass(frozen=True)
class Part:
    """Something that takes memory."""

    what: str  # "networks: 12 parameters"
    nbytes: int
    keys: dict[str, Any]  # {key: value} of what makes it so large
    note: str = ""  # what the bytes hold too: " with targets and optimiser"
    episodes: bool = False  # it is as many episodes as its one key says


def of_episodes(what: str, nbytes: int, keys: dict[str, Any]) -> Part:
    """The Part of as many episodes as the first of `keys` says."""
    return Part(f"{what}: {next(iter(keys.values()))} episodes", nbytes, keys, episodes=len(keys) == 1)


def refuse_if_too_large(parts: list[Part], place: str, free: float | None) -> None:
    """ConfigError, with the sum and what to lower, where all `parts` take more than the `free` bytes of `place`.

    place: cpu, cuda or a folder. free: None where the system does not say.
    """
    need = sum(part.nbytes for part in parts)
    if free is None or need <= free:
        return
    largest, *others = sorted(parts, key=lambda part: -part.nbytes)
    named = [largest, *(part for part in others if part.nbytes >= 2**30 / 100)]
    total = f", {_gib(need)} in all" if len(named) > 1 else ""
    raise ConfigError(
        f"{', '.join(f'{part.what} need {_gib(part.nbytes)}{part.note}' for part in named)}{total}, but {place} has "
        f"{_gib(free)} free; {_advice(named, free - (need - largest.nbytes))}"
    )


def _gib(nbytes: float) -> str:
    return f"{nbytes / 2**30:.2f} GiB"


def _advice(parts: list[Part], left: float) -> str:
    """What to do about `parts`, the largest first, for which the others leave `left` bytes."""
    largest = parts[0]
    if largest.episodes and left > 0:
        ((name, count),) = largest.keys.items()
        fits = int(count * left / largest.nbytes * 0.8)
        return f"about {fits} episodes fit: {name}={fits}" if fits > 0 else "not one fits: give a lower time limit"
    keys = largest.keys if left > 0 else {name: value for part in parts for name, value in part.keys.items()}
    return "lower what makes it so large: " + ", ".join(f"{name}={value}" for name, value in keys.items())
