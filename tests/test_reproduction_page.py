"""The tables of the squeeze at the budget of the authors' code hold what the packed runs say."""

import json
import tarfile

import numpy as np
import pytest
from command import ROOT

from reporting.statistics import iqm
from utils.runs import find_runs

FOLDER = ROOT / "docs" / "reproduction"
STEPS = (2528, 5048, 7568)  # of the tests in the table, before its last column


@pytest.mark.parametrize("k", [1, 2])
def test_the_squeeze_at_the_budget_of_the_authors_code(k, tmp_path):
    section = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8").partition(f"| K = {k} | step 2,528 |")[2]
    with tarfile.open(FOLDER / "squeeze_short_runs.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    values = {}  # {algorithm: one list for each seed, the returns of the four columns}
    for run in find_runs(tmp_path):
        if run.config["env_args"]["k"] != k:
            continue
        records = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        tests = {r["t_env"]: r["value"] for r in records if r["key"] == "test_return_mean"}
        last = [value for step, value in tests.items() if step >= 9500]
        values.setdefault(run.config["name"], []).append([*(tests[step] for step in STEPS), np.mean(last)])
    assert values.keys() == {"qtran_alt", "qtran_base", "qmix", "vdn"}
    for algorithm, seeds in values.items():
        assert len(seeds) == 10
        line = next(line for line in section.splitlines() if line.startswith(f"| {algorithm} |"))
        said = [float(cell.split()[0]) for cell in line.strip("| ").split("|")[1:]]
        assert said == [round(float(iqm(np.array(column))), 2) for column in zip(*seeds)], algorithm
