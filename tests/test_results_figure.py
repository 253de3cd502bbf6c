"""The figure and the table of docs/results.md, and the picture of README.md."""

import re

import greedy_choices
import matplotlib.image
import pytest
import results_figure
from command import ROOT, here, words


def test_the_table_says_what_the_figure_shows():
    """Each cell is the interquartile mean and its interval of the CSV files that the figure is drawn from; the last one
    is the best return that the game declares."""
    rows = re.findall(r"^\| .* \| .*\[.*$", (ROOT / "docs" / "results.md").read_text(), re.MULTILINE)
    found = results_figure.shares()
    assert len(rows) == len(results_figure.GAMES)
    for row, game in zip(rows, results_figure.GAMES):
        cells = [cell.strip().replace("−", "-").replace("*", "") for cell in row.split("|")[3:7]]
        for cell, algorithm in zip(cells, results_figure.ALGORITHMS):
            numbers = re.findall(r"-?[\d.]+", cell)
            digits = len(numbers[0].partition(".")[2])
            values = [round(share * game.best, digits) + 0.0 for share in found[game.label][algorithm]]
            assert [float(number) for number in numbers] == pytest.approx(values), (game.label, algorithm)
        best = row.split("|")[7].strip()
        assert float(best) == pytest.approx(round(game.best, len(best.partition(".")[2]))), game.label


def test_the_figure_is_drawn(tmp_path):
    assert results_figure.main([str(tmp_path / "a.png")]) == 0
    height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
    assert width > height > 100


def test_the_picture_of_greedy_choices_is_drawn(tmp_path, capsys, monkeypatch):
    """A panel for the payoff and one for each run."""
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())
    runs = [here(capsys, words(alg, "matrix_game", tmp_path)).path for alg in ("qtran_alt", "vdn")]
    title, values, greedy, tables = greedy_choices.panel(runs[0])
    assert title.startswith("qtran_alt: ") and f"{tables['greedy_payoff']:g}" in title and values.shape == (3, 3)
    assert list(greedy) == tables["greedy_joint_action"]
    assert greedy_choices.main([*map(str, runs), "--out", str(tmp_path / "a.png")]) == 0
    height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
    assert width == pytest.approx(3 * 2.6 * 110, abs=2) and height > 100
