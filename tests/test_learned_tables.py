"""The figures of learned tables, and the command that sums them up over a study's runs."""

import csv
import json

import learned_tables
import numpy as np
import pytest
from command import here, words
from made_runs import ours

import tables
from envs import make
from tables import figures

STATE = {
    "payoff": [[8.0, 0.0], [0.0, 6.0]],
    "q_jt": [[7.0, 0.0], [0.5, 6.0]],
    "q_prime": [[5.0, 1.0], [4.0, 0.0]],
    "v_jt": 3.0,
    "greedy_payoff": 6.0,
    "best_payoff": 8.0,
}
SINGLE = STATE | {"payoff": [[5.0]], "q_jt": [[4.5]], "q_prime": [[1.0]], "greedy_payoff": 5.0, "best_payoff": 5.0}


def test_figures_by_hand():
    assert figures([STATE]) == {
        "greedy_payoff": 6,
        "best_payoff": 8,
        "regret": 2 / 8,
        "gap": 1,  # of Q'_jt: 5 and 4
        "max_abs_q_jt_error": 1,
        "mean_square_q_jt_error": (1 + 0.25) / 4,
    }
    assert figures([STATE | {"v_jt": None}])["gap"] == 1  # of Q_tot: 7 and 6
    other = STATE | {"q_prime": [[5.0, 4.75], [4.0, 0.0]], "q_jt": [[8.0, 3.0], [0.0, 6.0]], "greedy_payoff": 8.0}
    both = figures([STATE, other])
    assert (both["greedy_payoff"], both["gap"], both["max_abs_q_jt_error"]) == (7, 0.25, 3)
    assert figures([STATE | {"q_jt": None, "v_jt": None}])["gap"] is None  # IQL has no joint value


def test_figures_of_a_game_whose_joint_actions_pay_the_same():
    flat = STATE | {"payoff": [[1.0, 1.0], [1.0, 1.0]], "greedy_payoff": 1.0, "best_payoff": 1.0}
    assert (figures([flat])["regret"], figures([flat])["gap"]) == (0, 1)


def test_figures_of_a_single_joint_action():
    assert figures([SINGLE]) == {
        "greedy_payoff": 5,
        "best_payoff": 5,
        "regret": 0,
        "gap": None,
        "max_abs_q_jt_error": 0.5,
        "mean_square_q_jt_error": 0.25,
    }


def test_legal_payoffs_without_a_range_are_summed_up(tmp_path, capsys):
    for seed, state in ((1, SINGLE), (2, SINGLE)):
        (ours(tmp_path / "study", seed=seed) / "tables.json").write_text(json.dumps(state))
    assert learned_tables.main([str(tmp_path / "study"), "--out", str(tmp_path / "all.csv")]) == 0
    with open(tmp_path / "all.csv") as f:
        assert [(row["regret"], row["gap"]) for row in csv.DictReader(f)] == [("0", "")] * 2
    assert "5 in 2" in capsys.readouterr().out


@pytest.mark.parametrize("payoff", ["[[1,1],[1,1]]", "[[5]]"])
def test_a_run_of_such_a_payoff_is_summed_up(payoff, tmp_path, capsys):
    """With the picture that it draws."""
    done = here(capsys, words("qtran_alt", "matrix_game", tmp_path, f"env_args.payoff={payoff}"))
    assert done.code == 0, done
    assert learned_tables.main([str(tmp_path)]) == 0


def test_a_study_is_summed_up(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())
    runs = [
        here(capsys, words(alg, "matrix_game", tmp_path / "study", f"seed={seed}"))
        for alg in ("qtran_alt", "iql")
        for seed in (1, 2)
    ]
    assert learned_tables.main([str(tmp_path / "study"), "--out", str(tmp_path / "out" / "all.csv")]) == 0
    with open(tmp_path / "out" / "all.csv") as f:
        rows = list(csv.DictReader(f))
    assert [(row["algorithm"], row["seed"]) for row in rows] == [(a, s) for a in ("iql", "qtran_alt") for s in "12"]
    left = [json.loads((run.path / "tables.json").read_text()) for run in (*runs[2:], *runs[:2])]
    assert [float(row["greedy_payoff"]) for row in rows] == [t["greedy_payoff"] for t in left]
    assert [row["gap"] == "" for row in rows] == [True, True, False, False]
    assert "qtran_alt" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "[" * 9999, "[]", "{}", '{"states": [1]}', '{"payoff": "x"}', '{"q_jt": [[1], [1, 2]]}']
)
def test_damaged_tables_are_named(text, tmp_path, capsys):
    path = ours(tmp_path / "study")
    (path / "tables.json").write_text(text)
    assert learned_tables.main([str(tmp_path / "study")]) == 2
    assert f"{path / 'tables.json'}" in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_nothing_to_sum_up(make, tmp_path, capsys):
    make(tmp_path / "nothing")
    assert learned_tables.main([str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize("alg", ["qtran_alt", "qtran_base", "iql"])
def test_joint_actions_are_listed_in_pieces(alg, tmp_path, capsys, monkeypatch):
    """Nine joint actions at once, and two at a time."""
    monkeypatch.setattr("tables.draw", lambda learned, path, title: path.touch())
    found = []
    for at_once in (9, 2):
        monkeypatch.setattr("tables.AT_ONCE", at_once)
        (table,) = tables.read_json(here(capsys, words(alg, "matrix_game", tmp_path)).path / "tables.json")
        found.append(table)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        if value is not None:
            np.testing.assert_allclose(np.array(found[1][name]), np.array(value), rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_table_that_memory_does_not_hold_is_not_made():
    """Few joint actions, each with the values of all actions: 80,000 times 2 times 40,000."""
    keys = {"key": None, "payoff": [[0.0] * 40_000] * 2, "clip": None, "penalty": 0.0, "observe_state": "all"}
    game = make("matrix_game", keys)
    assert tables.learned_tables(game, None, None, None, "cpu") == []
