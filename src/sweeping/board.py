"""What a sweep shows while it runs: a live table in a terminal, a line now and then elsewhere."""

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from utils.messages import duration

SECONDS_BETWEEN_LINES = 30  # of progress, where there is no terminal to draw in
SECONDS_BETWEEN_DRAWINGS = 1
MOST_FAILED = 10  # shown live; the end lists all


class Board:
    """Use as a context. event(text): something began or ended; update(state): call as often as you like.

    state(): {"done", "running", "waiting", "elsewhere", "failed": numbers, "left": seconds or None,
    "jobs": [(run, t_env, steps a second or None, seconds left or None)], "failures": [(run, reason)]}.
    """

    def __init__(self, console: Console):
        self.console, self.live = console, None
        self.last = time.monotonic()

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            # Drawn by update(): a thread of its own would make starting child processes unsafe.
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
            self.last = -math.inf
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def event(self, text: str) -> None:
        if self.live is None:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.last = -math.inf  # what has changed is drawn at once

    def update(self, state: Callable[[], dict[str, Any]]) -> None:
        spacing = SECONDS_BETWEEN_LINES if self.live is None else SECONDS_BETWEEN_DRAWINGS
        if time.monotonic() - self.last < spacing:
            return
        self.last = time.monotonic()
        if self.live is None:
            self.event(totals(state()))
        else:
            self.live.update(_drawing(state()), refresh=True)


def totals(state: dict[str, Any]) -> str:
    words = ("done", "running", "waiting", *(["elsewhere"] if state.get("elsewhere") else []), "failed")
    numbers = ", ".join(f"{state[word]} {word}" for word in words)
    return f"{numbers}; time left: {duration(state['left'])}"


def _drawing(state: dict[str, Any]) -> Group:
    table = Table("running", "t_env", "steps/s", "left", box=None, pad_edge=False)
    for run, t_env, rate, left in state["jobs"]:
        of_all = f"{t_env:,} / {run.values['t_max']:,}"
        table.add_row(escape(str(run)), of_all, f"{rate:,.0f}" if rate else "", duration(left) if rate else "starting")
    failures = [f"failed: {escape(f'{run}: {reason}')}" for run, reason in state["failures"][-MOST_FAILED:]]
    return Group(f"[bold]{totals(state)}[/bold]", table, *failures)
