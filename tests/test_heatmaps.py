"""Heat maps of a study's checkpoints: what they show is what the runs learned."""

import csv
import importlib.util
import json

import matplotlib.image
import pytest
from command import ROOT, here, words

spec = importlib.util.spec_from_file_location("heatmaps", ROOT / "studies" / "heatmaps.py")
heatmaps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(heatmaps)


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
        assert (row["gap"] == "") == (left["q_jt"] is None)
    picture = matplotlib.image.imread(tmp_path / "out" / "heatmaps_3x3.png")
    assert picture.std() > 0 and (tmp_path / "out" / "heatmaps_3x3.pdf").read_bytes().startswith(b"%PDF")


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
