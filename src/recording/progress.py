"""How far a long job is: a live line in a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from utils.logging import Logger

SECONDS_BETWEEN_LINES = 10  # where there is no terminal to draw in


class TrainingProgress:
    """Steps done of `t_max`, steps a second, time left, the last test return. Use as a context.

    start: steps that were done before. beat(): called at each update.
    """

    def __init__(
        self, t_max: int, logger: Logger, console: Console, start: int = 0, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.t_max, self.logger, self.console, self.start, self.beat = t_max, logger, console, start, beat
        self.began = self.last_line = time.monotonic()
        self.live = None

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            self.live = Progress(
                TextColumn("t_env {task.completed:>8.0f} / {task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[rate]:>7.0f} steps/s  left"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}"),
                console=self.console,
                refresh_per_second=4,
            )
            self.task = self.live.add_task("", total=self.t_max, rate=0, figures="")
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def update(self, t_env: int) -> None:
        """Call as often as you like."""
        self.beat()
        now = time.monotonic()
        if self.live is not None:
            self.live.update(
                self.task, completed=min(t_env, self.t_max), rate=self._rate(t_env, now), figures=self._figures()
            )
        elif now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            rate = self._rate(t_env, now)
            left = max(0, self.t_max - t_env) / rate if rate else float("inf")
            self.logger.console_logger.info(
                f"t_env {t_env} / {self.t_max}, {rate:.0f} steps/s, {left:.0f} s left{self._figures()}"
            )

    def _rate(self, t_env: int, now: float) -> float:
        return (t_env - self.start) / max(now - self.began, 1e-9)

    def _figures(self) -> str:
        latest = self.logger.latest
        return "".join(
            f"  {label} {latest[name]:.3g}"
            for name, label in (("test_return_mean", "test return"), ("loss", "loss"))
            if name in latest
        )
