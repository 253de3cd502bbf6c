"""The tables of docs/comparators.md hold what the data beside them say."""

import csv
import json
import tarfile

import numpy as np
import pytest
from command import ROOT

from reporting.statistics import iqm
from utils.runs import find_runs

NUMBERS = ("iqm", "lower", "upper", "min")
PAGE = (ROOT / "docs" / "comparators.md").read_text(encoding="utf-8")


def row(label):
    """{algorithm: cell} of the row that begins with `label`, by the header of its table."""
    lines = PAGE.splitlines()
    (at,) = (k for k, line in enumerate(lines) if line.startswith(f"| {label}"))
    head = max(k for k, line in enumerate(lines[:at]) if line.startswith("| game |"))
    names, cells = ([cell.strip(" `") for cell in line.split("|")] for line in (lines[head], lines[at]))
    return dict(zip(names, cells))


def finals(study, tmp_path, key="test_return_mean"):
    """{(folder of the environment, algorithm): final values of `key`} of the packed runs of a study."""
    with tarfile.open(ROOT / "docs" / "comparators" / f"{study}_runs.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    out = {}
    for run in find_runs(tmp_path):
        records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        tests = [(r["t_env"], r["value"]) for r in records if r["key"] == key]
        last = [value for step, value in tests if step >= 0.95 * tests[-1][0]]
        out.setdefault((run.path.parents[2].name, run.config["name"]), []).append(np.mean(last))
    return out


@pytest.mark.parametrize(
    "label, file", [("3×3 game", "comparators_3x3.json"), ("3×3, a random payoff", "comparators_random_3x3.json")]
)
def test_the_runs_that_found_the_best_joint_action(label, file):
    cells = row(label)
    for algorithm, runs in json.loads((ROOT / "bench" / file).read_text()).items():
        assert sorted(run["seed"] for run in runs) == list(range(1, 21))
        best = sum(run["greedy_payoff"] == run["best_payoff"] for run in runs)
        assert cells[algorithm] == str(best), algorithm


def test_the_two_step_game(tmp_path):
    cells = row("two-step game")
    for (_, algorithm), returns in finals("two_step_all", tmp_path).items():
        assert len(returns) == 20 and cells[algorithm] == str(sum(r == 8 for r in returns))


def of_results(file, digits=1):
    """{(task, algorithm): its line} of a final.csv in docs/: numbers as the page prints them."""

    def printed(number):
        return f"{round(float(number), digits) + 0:.{digits}f}".replace("-", "−")

    with (ROOT / "docs" / file).open(encoding="utf-8") as lines:
        found = {(line["task"], line["algorithm"]): line for line in csv.DictReader(lines)}
    return {key: {name: printed(line[name]) for name in NUMBERS} for key, line in found.items()}


@pytest.mark.parametrize("algorithm", ["qtran_alt", "qtran_base", "qmix", "vdn"])
def test_the_other_algorithms(algorithm):
    """Their numbers are those of the other pages of results."""
    of_21 = of_results("reproduction/matrix_21x21_final.csv")["qtran_21x21", algorithm]
    assert row("21×21 game")[algorithm] == "{iqm} [{lower}, {upper}]".format(**of_21)
    assert row("its smallest return")[algorithm] == of_21["min"]
    battles = of_results("smax/3m_final.csv", 2)["3m", algorithm]
    assert row("SMAX 3m, share of battles won")[algorithm] == "{iqm} [{lower}, {upper}]".format(**battles)
    prey = of_results("reproduction/predator_prey_final.csv")
    for penalty in ("1.0", "1.5"):
        (line,) = (line for (task, name), line in prey.items() if name == algorithm and f"penalty={penalty}" in task)
        assert row(f"predator-prey, P = {penalty} ")[algorithm] == "{iqm} [{lower}, {upper}]".format(**line)


def test_the_21x21_game(tmp_path):
    cells, smallest = row("21×21 game"), row("its smallest return")
    for (_, algorithm), returns in finals("matrix_21x21", tmp_path).items():
        assert len(returns) == 20
        assert float(cells[algorithm].split(" ")[0]) == round(float(iqm(np.array(returns))), 1)
        assert float(smallest[algorithm]) == round(min(returns), 1)


@pytest.mark.parametrize(
    "study, label, key, digits, combinations",
    [
        ("predator_prey", "predator-prey, {} ", "test_return_mean", 1, 8),
        ("smax_3m", "SMAX {}, share of battles won", "test_battle_won_mean", 2, 4),
    ],
)
def test_predator_prey_and_battles(study, label, key, digits, combinations, tmp_path):
    found = finals(study, tmp_path, key)
    assert len(found) == combinations
    for (folder, algorithm), returns in found.items():
        cell = row(label.format(folder.replace("=", " = ")))[algorithm]
        assert len(returns) == 3, (folder, algorithm)
        value = float(cell.split(" ")[0].replace("−", "-"))
        assert value == round(float(iqm(np.array(returns))), digits), (folder, algorithm)
