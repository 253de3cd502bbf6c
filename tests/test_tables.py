"""The tables of a one-step game as they are shown: the paper's letters, labels at their axes, text that can be read."""

import io

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console

import tables

STATE = {
    "payoff": [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0]],
    "q_i": [[5.0, 1.0], [4.0, 1.0, 0.5]],
    "q_jt": [[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0]],
    "q_prime": [[9.0, 6.0, 5.5], [5.0, 2.0, 1.5]],
    "v_jt": -1.0,
    "greedy_joint_action": [0, 2],
    "greedy_payoff": -12.0,
    "best_payoff": 8.0,
}


def test_actions_have_the_papers_letters_as_far_as_they_go():
    assert tables.action_names(3) == ["A", "B", "C"]
    assert tables.action_names(26)[-1] == "Z" and tables.action_names(27) == [str(u) for u in range(27)]


def test_the_terminal_shows_letters():
    out = io.StringIO()
    tables.show([STATE], Console(file=out, width=200))
    said = out.getvalue()
    assert "greedy joint action (A, C)" in said and "5.00 (A)" in said and "0.50 (C)" in said


def test_each_agents_actions_stand_at_its_own_axis():
    figure = Figure(layout="constrained")
    tables._two_agents(figure, STATE)
    *maps, bars, _ = figure.axes
    assert len(maps) == 4
    for ax in maps:
        assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]
        assert [t.get_text() for t in ax.get_xticklabels()] == ["A", "B", "C"]
        assert "agent 1" in ax.get_ylabel() and "agent 2" in ax.get_xlabel()
        assert ax.xaxis.get_label_position() == "top"
        (frame,) = ax.patches  # around the greedy joint action, row A and column C
        assert frame.get_x() < 2 < frame.get_x() + frame.get_width() and frame.get_y() < 0 < frame.get_y() + 1
    assert [t.get_text() for t in bars.get_xticklabels()] == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["viridis", "gray", "PuOr_r"])
def test_numbers_can_be_read_on_every_colour_of_a_cell(name):
    """A contrast of 4.5 to 1, what WCAG 2 asks of text."""
    for colour in colormaps[name](np.linspace(0, 1, 101)):
        ink = 0.0 if tables._readable(colour) == "black" else 1.0
        linear = np.where(colour[:3] <= 0.03928, colour[:3] / 12.92, ((colour[:3] + 0.055) / 1.055) ** 2.4)
        light = linear @ (0.2126, 0.7152, 0.0722)
        dark, bright = sorted((light, ink))
        assert (bright + 0.05) / (dark + 0.05) > 4.5


def test_many_actions_are_named_now_and_then():
    figure = Figure(layout="constrained")
    payoff = np.arange(441.0).reshape(21, 21)
    q = np.arange(21.0).tolist()
    state = STATE | {"payoff": payoff.tolist(), "q_i": [q, q], "q_jt": None, "q_prime": payoff.tolist(), "v_jt": None}
    tables._two_agents(figure, state)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == list("ACEGIKMOQSU")
    assert len(figure.axes[0].texts) == 0
