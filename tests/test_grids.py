"""A search from its study to the study of its results: real runs, their report, and what a report says of runs that go
on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import ROOT, as_in_the_foreground, wait_until
from made_runs import ours
from test_report import Said, unpainted
from test_sweep import study, swept

from report import not_begun
from reporting.results import Result
from reporting.selection import Selection
from sweeping.study import Study, read_study
from utils.claim import take

unpainted = unpainted
REPORT = ROOT / "src" / "report.py"


def test_a_search_from_the_study_to_that_of_its_results(tmp_path, capsys, unpainted):
    path = study(tmp_path, algorithms="[qtran_alt]", seeds="1001", absolute_metric=True, save_model=False)
    path.write_text(path.read_text() + "grid: {lr: [0.0005, 0.01], opt_loss: [0.03, 1]}\n")
    run = swept(capsys, path, "--workers", 2, "--algorithms", "qtran_alt, lr=0.01, opt_loss=1")
    assert run.code == 0, run.err + run.out
    results = tmp_path / "results" / "report"
    before = Said(path, out=results)
    assert before.code == 0 and "1 of 4 runs finished; 3 not begun" in before.html
    assert "grid.csv" not in os.listdir(results)
    run = swept(capsys, path, "--workers", 2)
    assert run.code == 0 and "qtran_alt: 4 settings of lr, opt_loss" in run.out and "1 of 1" in run.out
    run = swept(capsys, path, "--dry-run")
    assert "4 of 4 runs complete" in run.out
    said = Said(path, out=results)
    rows = said.rows("grid")
    assert {(r["lr"], r["opt_loss"]) for r in rows} == {(a, b) for a in ("0.0005", "0.01") for b in ("0.03", "1")}
    best = max(rows, key=lambda r: float(r["iqm"]))
    assert f"the best of 4 settings is lr={best['lr']}, opt_loss={best['opt_loss']}: " in said.out
    assert "chance may have chosen" in said.out
    opt_loss = float(best["opt_loss"])
    assert f"  qtran_alt: {{lr: {best['lr']}, opt_loss: {opt_loss}}}\n" in said.out
    assert f"  tuned_on: {path}  #" in said.out
    assert 'id="grid"' in said.html and 'id="absolute"' in said.html and "not begun" not in said.html
    assert len(said.rows("absolute")) == 4

    final = tmp_path / "final.yaml"
    text = path.read_text().partition("grid:")[0] + f"tuned_on: {path}\n"
    final.write_text(text)
    run = swept(capsys, final, "--dry-run")
    assert run.code == 2 and "seeds: 1001: settings were chosen on it" in run.err


def searched(folder, points, name="qtran_alt", env="two_step", seeds=(1001, 1002)):
    """Runs of each setting; points: {lr: final return}."""
    for lr, value in points.items():
        for seed in seeds:
            ours(folder, {0: 0.0, 100: value + 0.1 * (seed % 2)}, name=f"{name}, lr={lr}", env=env, seed=seed, lr=lr)


def test_the_best_setting_on_each_task_and_over_all(tmp_path, unpainted):
    searched(tmp_path, {0.1: 1.0, 0.2: 3.0, 0.3: 2.0})
    searched(tmp_path, {0.1: 1.0, 0.2: 2.0, 0.3: 2.5}, env="other")
    ours(tmp_path, name="qtran_alt, lr=0.4", lr=0.4, status="interrupted")
    ours(tmp_path, {0: 0.0, 100: 4.0}, name="qmix")  # nothing is searched in it
    said = Said(tmp_path)
    assert "qtran_alt on two_step: the best of 3 settings is lr=0.2: 3.05 [3.00, 3.10], seeds 1001-1002" in said.out
    assert "; the intervals of 0 of the 2 others reach into its own; 1 setting without a run that counts" in said.out
    assert "qtran_alt on other: the best of 3 settings is lr=0.3" in said.out
    assert "qtran_alt over 2 tasks: the best mean rank, 1.5 of 3, has lr=0.2; settings with the same: 1\n" in said.out
    assert [r["lr"] for r in said.rows("grid", task="two_step")] == ["0.2", "0.3", "0.1"]
    assert "qmix" not in "".join(r["algorithm"] for r in said.rows("grid"))


def test_the_lines_to_paste_repeat_the_settings(tmp_path, unpainted):
    """They have what the study says of the algorithm; without the study the report says that it is missing."""
    (tmp_path / "my.yaml").write_text("extends: vdn\n")
    algorithms = (
        "{small one: {config: vdn, hidden_dim: 8, grid: {lr: [0.1, 0.2]}}, my.yaml: {grid: {gamma: [0.9, 0.99]}}, "
        "qmix: {env_args: {payoff: [[8, 0], [0, 6]]}, grid: {lr: [0.1, 0.2]}}}"
    )
    path = study(tmp_path, algorithms, environments="[two_step, matrix_game]")
    expected = {
        "small one": {"config": "vdn", "hidden_dim": 8, "lr": 0.2},
        "my": {"config": str(tmp_path / "my.yaml"), "gamma": 0.99},
        "qmix": {"env_args.payoff": [[8, 0], [0, 6]], "lr": 0.2},
    }
    for env in ("two_step", "matrix_game"):
        folder = tmp_path / "results" / env
        searched(folder, {0.1: 1.0, 0.2: 2.0}, "small one", env)
        searched(folder, {0.1: 1.0, 0.2: 2.0}, "qmix", env)
        for gamma, value in ((0.9, 1.0), (0.99, 2.0)):
            ours(folder, {0: 0.0, 100: value}, name=f"my, gamma={gamma}", gamma=gamma, env=env)
    said = Said(path, out=tmp_path / "results" / "report")
    assert said.code == 0, said.err
    lines = [yaml.safe_load(line) for line in said.out.splitlines() if re.match("  .*: {", line)]
    assert len(lines) == 9  # of each on both tasks, and over them
    assert all(line == {label: expected[label]} for line in lines for label in line)
    assert "is not known" not in said.out + said.html
    assert "To paste: small one: {config: vdn, hidden_dim: 8" in said.html
    final = tmp_path / "final.yaml"
    final.write_text(yaml.safe_dump({"algorithms": expected, "environments": ["two_step"], "seeds": 1}))
    assert not read_study(final).problems

    said = Said(tmp_path / "results")
    told = "my, qmix, small one: the study is not known, so the lines to paste lack the `config`"
    assert "  small one: {lr: 0.2}\n" in said.out and said.out.count(told) == 1
    assert told in said.html


def test_of_many_settings_the_best_alone_is_compared_with_other_algorithms(tmp_path, unpainted):
    searched(tmp_path, {k / 100: float(k) for k in range(10, 25)})
    ours(tmp_path, {0: 0.0, 100: 4.0}, name="qmix")
    said = Said(tmp_path)
    assert [r["algorithm"] for r in said.rows("final")] == ["qmix", "qtran_alt, lr=0.24"]
    assert len(said.rows("grid")) == 15 and len(said.rows("runs")) == 31
    assert "Of each search only the best setting is in the comparison" in said.html


@pytest.mark.parametrize(
    "points, names",
    [
        ([{"lr": 0.1}, {"lr": 0.2}], {"grid"}),
        ([{"lr": lr, "gamma": g} for lr in (0.1, 0.2) for g in (0.9, 1)], {"grid"}),
        ([{"lr": 0.1 * k, "gamma": 1 / k} for k in range(2, 8)], {"grid", "grid_keys"}),
        ([{"lr": 0.1, "mixer": m, "gamma": g, "k": k} for m in ("a", None) for g in (0.9, 1) for k in (True, 2)],
         {"grid", "grid_keys"}),
    ],
)  # fmt: skip
def test_the_figures_of_a_search(points, names, tmp_path):
    for point in points:
        name = ", ".join(["qtran_alt", *(f"{k}={'null' if v is None else v}" for k, v in point.items())])
        ours(tmp_path, name=name, **point)
    assert Said(tmp_path, "--reps", 100).code == 0
    files = os.listdir(tmp_path / "report")
    assert {f.removesuffix(".png") for f in files if f.startswith("grid") and f.endswith(".png")} == names
    assert all((tmp_path / "report" / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in names)


def test_the_absolute_metric_has_a_table_of_its_own(tmp_path, unpainted):
    for seed, value in ((1, 5.0), (2, 7.0), (3, None)):
        path = ours(tmp_path, seed=seed)
        if value is not None:
            summary = json.loads((path / "summary.json").read_text())
            summary["absolute"] = {"return_mean": value, "t_env": 30, "episodes": 320}
            (path / "summary.json").write_text(json.dumps(summary))
    ours(tmp_path, name="vdn")
    said = Said(tmp_path)
    (row,) = said.rows("absolute")
    assert (row["algorithm"], row["n"], row["of"], float(row["iqm"])) == ("qmix", "2", "3", 6.0)
    assert (row["metric"], float(row["median_t_env"])) == ("absolute_return_mean", 30)
    assert {float(r["iqm"]) for r in said.rows("final")} == {4.0}  # the end of the curves


# ---- runs that go on


def test_what_is_not_finished_and_how_far_it_is(tmp_path, unpainted):
    ours(tmp_path, seed=1)
    alive = ours(tmp_path, {0: 0.0, 25: 1.0}, status="running", seed=2)
    ours(tmp_path, {0: 0.0, 50: 1.0}, status="running", seed=3)
    ours(tmp_path, {0: 0.0}, status="failed", seed=4)
    new = ours(tmp_path, {}, seed=5)
    (new / "summary.json").unlink()
    damaged = ours(tmp_path, seed=6)
    (damaged / "summary.json").write_text("{")
    claims = [take(path) for path in (alive, new)]
    try:
        html = Said(tmp_path).html
    finally:
        for claim in claims:
            claim.release()
    assert "1 of 6 runs finished; 1 running, 1 starting, 1 killed, 1 failed, 1 broken" in html
    told = html.partition('id="under-way"')[2].partition("</section>")[0]
    assert "25 of 100" in told and "25 %" in told and "50 %" in told
    assert "3 min" in told  # it had 60 s for its 25 steps, and 75 are left
    assert "http-equiv" not in html


def test_a_watched_report_is_renewed_until_ctrl_c(tmp_path):
    runs, page = tmp_path / "runs", tmp_path / "runs" / "report" / "report.html"
    run = ours(runs, {0: 0.0, 10: 1.0}, status="running")
    command = [sys.executable, str(REPORT), str(runs), "--watch", "1", "--reps", "100"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, preexec_fn=as_in_the_foreground, **pipes)
    try:
        wait_until(lambda: page.is_file() and "No run is finished yet" in page.read_text())
        assert 'http-equiv="refresh" content="1"' in page.read_text()
        summary = json.loads((run / "summary.json").read_text()) | {"status": "finished"}
        (run / "summary.json").write_text(json.dumps(summary))
        wait_until(lambda: "Final performance" in page.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == ""
    assert out.startswith(f"report: {page}\n") and "1 of 1 run finished" in out
    assert "http-equiv" not in page.read_text()  # and a browser loads it no more
    assert not list(page.parent.glob("*.partial"))


def test_a_study_that_has_not_begun(tmp_path, monkeypatch):
    path = study(tmp_path)
    said = Said(path, out=tmp_path)
    assert said.code == 2 and f"no run of it has begun: {tmp_path / 'results'} is not there" in said.err

    def ctrl_c(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("reporting.watch.time.sleep", ctrl_c)  # behind the first page
    page = tmp_path / "results" / "report" / "report.html"
    said = Said(path, "--watch", out=page.parent)
    assert said.code == 130 and "0 of 2 runs finished; 2 not begun" in said.out
    assert "qmix" in said.html and "No run is finished yet" in said.html


def test_what_has_not_begun_beside_runs_of_any_kind():
    """A run directory at the root, as in a container, and one whose seed is a list are no run of the study."""
    odd = [Result(Path("/run"), "run directory", {"name": ["qmix"], "seed": [1]}), Result(Path("/"), "Sacred")]
    plan = Study(Path("s.yaml"), algorithms={"qmix": ("qmix", {})}, environments={"a": ("two_step", {})}, seeds=[1])
    assert not_begun({"results": plan}, odd, Selection()) == [("qmix", "a", [1])]
    assert not_begun({"results": plan}, odd, Selection(environments=["matrix_game"])) == []


def test_runs_that_were_not_asked_for_are_not_missing(tmp_path, monkeypatch):
    """A selection of a report is one of the study's runs too; what is finished has begun, chosen or not."""
    path = study(tmp_path, algorithms="[qmix, vdn]", seeds="1-3")
    for name, seeds in (("qmix", (1, 2, 3)), ("vdn", (1, 2))):
        for seed in seeds:
            ours(tmp_path / "results" / "two_step", name=name, seed=seed)

    def sentence(*argv):
        said = Said(path, *argv, out=tmp_path / "results" / "report")
        assert said.code == 0, said.err
        return re.findall(r"\d+ of \d+ runs? finished[^.]*", said.html)

    assert sentence() == ["5 of 6 runs finished; 1 not begun"]
    assert sentence("--seeds", "1,3") == ["3 of 4 runs finished; 1 not begun"]
    assert sentence("--algorithms", "qmix") == sentence("--seeds", "2") == []  # all of them are finished

    def ctrl_c(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("reporting.watch.time.sleep", ctrl_c)  # after the first page
    said = Said(path, "--algorithms", "vdn", "--seeds", "3", "--watch", out=tmp_path / "results" / "report")
    assert said.code == 130 and "0 of 1 run finished; 1 not begun" in said.out


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--watch", "now"], "'now' is no number of seconds; PATH goes before --watch"),
        (["--watch", "0"], "0 is not within 1 to 86400 seconds"),
    ],
)
def test_bad_seconds(argv, said, tmp_path):
    run = Said(tmp_path, *argv)
    assert run.code == 2 and said in run.err
