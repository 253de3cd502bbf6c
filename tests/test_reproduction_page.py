"""Figures of docs/reproduction.md and docs/smax.md hold what the packed runs say."""

import json
import tarfile

import numpy as np
import pytest
from command import ROOT

from reporting.statistics import iqm
from utils.runs import find_runs

FOLDER = ROOT / "docs" / "reproduction"
STEPS = (2528, 5048, 7568)  # of the tests in the table, before its last column


def packed(file, key, folder):
    """(run, {step: value of a test}) of each run in a file."""
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")
    for run in find_runs(folder):
        records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        yield run, {r["t_env"]: r["value"] for r in records if r["key"] == key}


@pytest.mark.parametrize("k", [1, 2])
def test_the_squeeze_at_the_budget_of_the_authors_code(k, tmp_path):
    section = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").partition(f"| K = {k} | step 2,528 |")[2]
    values = {}  # {algorithm: one list for each seed, the returns of the four columns}
    for run, tests in packed(FOLDER / "squeeze_short_runs.tar.xz", "test_return_mean", tmp_path):
        if run.config["env_args"]["k"] != k:
            continue
        last = [value for step, value in tests.items() if step >= 9500]
        values.setdefault(run.config["name"], []).append([*(tests[step] for step in STEPS), np.mean(last)])
    assert values.keys() == {"qtran_alt", "qtran_base", "qmix", "vdn"}
    for algorithm, seeds in values.items():
        assert len(seeds) == 10
        line = next(line for line in section.splitlines() if line.startswith(f"| {algorithm} |"))
        said = [float(cell.split()[0]) for cell in line.strip("| ").split("|")[1:]]
        assert said == [round(float(iqm(np.array(column))), 2) for column in zip(*seeds)], algorithm


def test_the_first_runs_of_three_million_steps_on_5m_vs_6m(tmp_path):
    section = (ROOT / "docs" / "smax.md").read_text(encoding="utf-8").partition("| seed 1 |")[2]
    found = list(packed(ROOT / "docs" / "smax" / "5m_vs_6m_long_runs.tar.xz", "test_battle_won_mean", tmp_path))
    assert len(found) == 4
    for run, tests in found:
        line = next(line for line in section.splitlines() if line.startswith(f"| {run.config['name']} |"))
        near = [tests[min(tests, key=lambda step: abs(step - at))] for at in (0.5e6, 1e6, 1.5e6, 2e6, 2.5e6)]
        last = np.mean([value for step, value in tests.items() if step >= 0.95 * 3e6])
        said = [float(cell) for cell in line.strip("| ").split("|")[1:]]
        assert said == [round(float(value), 2) for value in [*near, last]], run.config["name"]


def test_the_first_runs_of_predator_prey_with_falling_epsilon(tmp_path):
    page = " ".join((ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").split()).replace("−", "-")
    found = packed(FOLDER / "predator_prey_epsilon_runs.tar.xz", "test_return_mean", tmp_path)
    ends = {
        run.config["name"]: np.mean([value for step, value in tests.items() if step >= 0.95 * 3e6])
        for run, tests in found
    }
    assert f"QTRAN-alt has {ends['qtran_alt']:.1f}, and QTRAN-base {ends['qtran_base']:.1f}," in page
