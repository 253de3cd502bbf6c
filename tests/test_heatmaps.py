"""Heat maps of a study's checkpoints: what they show is what the runs learned."""

import csv
import json

import heatmaps
import matplotlib.image
import numpy as np
import pytest
from command import here, words

from envs.games.matrix_game import PAYOFFS


@pytest.fixture
def study(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())
    runs = [
        here(capsys, words(alg, "matrix_game", tmp_path / "study", "save_model_interval=8", f"seed={seed}"))
        for alg in ("qtran_alt", "iql")
        for seed in (1, 2)
    ]
    assert all(run.code == 0 for run in runs)
    return tmp_path / "study", runs


def drawn(study, out, *options):
    return heatmaps.main([str(study), "--out", str(out), *map(str, options)])


def test_the_last_checkpoint_shows_the_tables_that_the_run_left(study, tmp_path):
    folder, runs = study
    assert drawn(folder, tmp_path / "out", "--steps", 8, 24) == 0
    with open(tmp_path / "out" / "heatmaps_3x3.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 8  # two algorithms, two seeds, two steps
    for run in runs:
        left = json.loads((run.path / "tables.json").read_text())
        (row,) = [
            r for r in rows if r["algorithm"] in str(run.path) and r["seed"] == run.path.name[4] and r["step"] == "24"
        ]
        assert [int(row["greedy_action_1"]), int(row["greedy_action_2"])] == left["greedy_joint_action"]
        assert float(row["greedy_payoff"]) == left["greedy_payoff"] and float(row["best_payoff"]) == 8
        if left["q_jt"] is None:  # IQL
            assert row["gap"] == row["max_abs_q_jt_error"] == ""
            continue
        second, first = np.sort(np.ravel(left["q_prime"]))[-2:]
        error = np.abs(np.array(left["q_jt"]) - left["payoff"]).max()
        assert [float(row["gap"]), float(row["max_abs_q_jt_error"])] == pytest.approx([first - second, error], rel=1e-4)
    picture = matplotlib.image.imread(tmp_path / "out" / "heatmaps_3x3.png")
    assert picture.std() > 0 and (tmp_path / "out" / "heatmaps_3x3.pdf").read_bytes().startswith(b"%PDF")


def test_a_panel_is_the_joint_value_in_the_payoffs_colours(study, tmp_path, monkeypatch):
    folder, runs = study
    figures = []
    monkeypatch.setattr("reporting.figures.save", lambda figure: (figures.append(figure) or b"png", b"pdf"))
    assert drawn(folder, tmp_path / "out", "--steps", 8, 24, "--seed", 2) == 0
    images = [ax.images[0] for ax in figures[0].axes if ax.images]
    left = json.loads((runs[1].path / "tables.json").read_text())
    assert len(images) == 3  # the payoff, alt at two steps; IQL has no joint value
    assert np.array_equal(images[0].get_array(), left["payoff"])
    assert np.allclose(images[2].get_array(), np.array(left["q_prime"]) + left["v_jt"], atol=1e-5)
    assert {image.get_clim() for image in images} == {(-12, 8)}


def test_the_optima_of_the_21x21_game():
    payoff = PAYOFFS["qtran_21x21"](0)[0]
    assert heatmaps.optima(payoff) == [(5, 15), (15, 5)]


@pytest.mark.parametrize(
    "change, said",
    [("seed=1", "are the same algorithm with the same seed"), ("env_args.clip=-5", "are of different games")],
)
def test_runs_that_do_not_belong_together(change, said, study, tmp_path, capsys):
    here(capsys, words("iql", "matrix_game", study[0], change))
    assert drawn(study[0], tmp_path / "out") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [(["--seed", 7], "--seed=7: no finished run has it; there are: 1, 2"), (["--steps", 9, 10], "give steps that are")],
)
def test_bad_input(options, said, study, tmp_path, capsys):
    assert drawn(study[0], tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_no_runs(tmp_path, capsys):
    assert drawn(tmp_path, tmp_path / "out") == 2
    assert "no finished run of matrix_game" in capsys.readouterr().err
