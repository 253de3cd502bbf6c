"""Where the time of a run goes."""

import time

PARTS = ("acting", "environment", "storing", "waiting", "sampling", "learning", "testing", "saving", "other")


class Clock:
    """Seconds of each part of a run. Time is given to the part that has just ended: `lap`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.last = time.perf_counter()
        self._told, self._told_at = dict(self.seconds), self.last

    def start(self) -> None:
        """Time counts from now on: what was before, such as the making of networks, is not of the run's time."""
        self.last = self._told_at = time.perf_counter()

    def begin(self, seconds: dict[str, float]) -> None:
        """Go on from those of an earlier process."""
        self.seconds |= seconds
        self._told = dict(self.seconds)

    def lap(self, part: str) -> None:
        """All since the last call was `part`."""
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def shares(self) -> dict[str, float]:
        """{part: its share of the wall clock between the last laps before this call and the one before}."""
        wall = max(self.last - self._told_at, 1e-9)
        spent = {part: seconds - self._told[part] for part, seconds in self.seconds.items()}
        self._told, self._told_at = dict(self.seconds), self.last
        return {part: seconds / wall for part, seconds in spent.items()}


def in_words(seconds: dict[str, float]) -> str:
    """`learning 62 %, acting 20 %, …` of {part: seconds}, the largest first."""
    total = sum(seconds.values()) or 1
    parts = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{part} {100 * s / total:.0f} %" for part, s in parts if s >= 0.005 * total)
