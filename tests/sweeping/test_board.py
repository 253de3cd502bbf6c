"""What is shown of a sweep: a live table in a terminal, lines elsewhere."""

import io
from types import SimpleNamespace

from rich.console import Console

from sweeping import board
from sweeping.board import Board, totals


class Run(SimpleNamespace):
    def __str__(self):
        return self.name


def state():
    run = Run(name="[qmix] on P, seed 1", values={"t_max": 20000})
    return {
        "done": 3, "running": 2, "waiting": 4, "failed": 1, "left": 7300,
        "jobs": [(run, 5000, 1234.5, 42.0), (Run(name="vdn on P, seed 1", values={"t_max": 9}), 0, None, None)],
        "failures": [(Run(name="iql on P, seed 1"), "error [1]: no luck")],
    }  # fmt: skip


def shown(terminal):
    out, asked = io.StringIO(), []
    console = Console(file=out, force_terminal=terminal, width=100, height=40, color_system=None)
    with Board(console) as shown_board:
        shown_board.event("started: [qmix]")
        shown_board.update(lambda: asked.append(1) or state())
        shown_board.update(lambda: asked.append(1) or state())
    return out.getvalue(), len(asked)


def test_a_terminal_sees_totals_runs_and_failures():
    text, drawings = shown(terminal=True)
    for part in (
        "3 done, 2 running, 4 waiting, 1 failed; time left: 2 h 1 min",
        "[qmix] on P, seed 1  5,000 / 20,000  1,234    42 s",
        "vdn on P, seed 1     0 / 9                    starting",
        "failed: iql on P, seed 1: error [1]: no luck",
    ):
        assert part in text, text
    assert drawings == 1 and "started" not in text  # a drawing a second


def test_elsewhere_there_are_lines(monkeypatch):
    assert shown(terminal=False) == ("started: [qmix]\n", 0)
    monkeypatch.setattr(board, "SECONDS_BETWEEN_LINES", 0)
    assert shown(terminal=False) == ("started: [qmix]\n" + f"{totals(state())}\n" * 2, 2)
