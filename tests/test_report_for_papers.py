"""Reports of untidy results: scores on known scales, runs of unequal length, a choice of runs, names, marl-eval."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import ROOT
from made_runs import POINTS, ours, sacred
from test_report import Said, curves

from reporting import layout, page
from reporting import statistics as st

WON = "test_battle_won_mean"


@pytest.fixture(autouse=True)
def unpainted(monkeypatch):
    """Figures are drawn but not painted, which is what takes the time. They are kept, in the order of drawing."""
    kept = []
    monkeypatch.setattr("reporting.figures.save", lambda figure: (kept.append(figure), (b"png", b"pdf"))[1])
    return kept


def said(*argv, code=0):
    first = str(argv[0])
    run = Said(*argv, "--reps", 100, out=Path(first if Path(first).is_dir() else first.rpartition("=")[0]) / "report")
    assert run.code == code, run.err
    return run


def texts(kept):
    """All that stands in the figures."""
    from matplotlib.text import Text

    return [t.get_text() for figure in kept for t in figure.findobj(Text)]


def flat(folder, value, **changes):
    """A run whose metric ends at `value`."""
    return ours(folder, {0: 0.0, 10: value}, **changes)


# ---- scores over all tasks


def two_games(folder, name="qmix", paid=(4.0, 6.0), won=(0.25, 0.75)):
    """Two seeds on a battle and on a game of two agents that pays 0, 0, 0 or 8: random play has 2, the best 8."""
    for seed, (return_, share) in enumerate(zip(paid, won), start=1):
        flat(folder, return_, name=name, seed=seed, env="matrix_game", env_args={"payoff": [[0, 0], [0, 8]]})
        flat(folder, share, name=name, seed=seed, env="smax", env_args={"map_name": "3m"}, metric=WON)


def test_a_worked_example_of_the_score_over_all_tasks(tmp_path, unpainted):
    two_games(tmp_path)
    run = said(tmp_path)
    (row,) = run.rows("final", task="all tasks")
    # (4 - 2) / 6 = 1/3, (6 - 2) / 6 = 2/3, and win rates 0.25, 0.75; the middle two of four are 1/3 and 2/3
    assert (float(row["iqm"]), float(row["min"]), float(row["max"])) == pytest.approx((0.5, 0.25, 0.75))
    assert any("random play is 0, best play 1" in t.replace("\n", " ") for t in texts(unpainted))
    assert "win rates as they are" in run.html


def test_a_task_with_more_runs_weighs_no_more_in_the_score_over_all_tasks(tmp_path):
    """Middle, interval, mean and median are of the same weights: half of the weight is at 0, half at 1."""
    for seed in range(1, 9):
        flat(tmp_path, 0.0, seed=seed, env="smax", env_args={"map_name": "3m"}, metric=WON)
    for seed in (1, 2):
        flat(tmp_path, 8.0, seed=seed, env="matrix_game", env_args={"payoff": [[0, 0], [0, 8]]})
    (row,) = said(tmp_path).rows("final", task="all tasks")
    assert [float(row[key]) for key in ("iqm", "lower", "upper", "mean", "median")] == [0.5] * 5


def test_a_bad_run_changes_nobody_elses_score(tmp_path):
    two_games(tmp_path)
    before = said(tmp_path).rows("final", task="all tasks", algorithm="qmix")
    two_games(tmp_path, "vdn", paid=(-50.0, -90.0), won=(0.0, 0.0))
    assert said(tmp_path).rows("final", task="all tasks", algorithm="qmix") == before


def test_a_task_without_a_known_range_is_named_and_left_out(tmp_path, unpainted):
    two_games(tmp_path)
    alone = said(tmp_path).rows("final", task="all tasks")
    for seed in (1, 2):
        flat(tmp_path, 900.0, seed=seed, env="own_game")
    run = said(tmp_path)
    assert run.rows("final", task="all tasks") == alone
    for text in (run.out.replace("\n", " "), run.html):
        assert "no range of scores is known of own_game, so it is left out of the score over all tasks" in text
        assert "2 of 3 tasks" in text and "--ranges=FILE" in text
    assert "2 of 3 tasks" in texts(unpainted)


def test_ranges_of_a_file(tmp_path):
    two_games(tmp_path)
    for seed in (1, 2):
        flat(tmp_path, 900.0, seed=seed, env="own_game")
    (tmp_path / "ranges.yaml").write_text("own_game: [100, 1100]\nSMAX 3m: [0.5, 1]\n")
    (row,) = said(tmp_path, "--ranges", tmp_path / "ranges.yaml").rows("final", task="all tasks")
    scores = [1 / 3, 2 / 3, -0.5, 0.5, 0.8, 0.8]
    assert float(row["iqm"]) == pytest.approx(np.mean(sorted(scores)[1:-1])) and row["n"] == "6"


def test_a_game_of_ones_own_notes_its_range_in_the_run(tmp_path):
    for env in ("mine:Game", "two_step"):
        for seed in (1, 2):
            path = flat(tmp_path, 6.0, seed=seed, env=env.replace(":", "_"))
            text = (path / "config.yaml").read_text()
            (path / "config.yaml").write_text(text.replace("env: mine_Game", "env: mine:Game"))
            summary = json.loads((path / "summary.json").read_text())
            (path / "summary.json").write_text(json.dumps(summary | {"game": {"score_range": [5, 10]}}))
    (row,) = said(tmp_path).rows("final", task="all tasks")
    assert (float(row["min"]), float(row["max"])) == pytest.approx((0.2, (6 - 4.75) / (8 - 4.75)))


@pytest.mark.parametrize("noted", [[1], [2, 1], ["a", 3], [0, float("nan")], "text", {"a": 1}, [True, 5]])
def test_a_range_that_is_none_is_not_known(noted, tmp_path):
    for env in ("own", "two_step"):
        path = flat(tmp_path, 6.0, env=env)
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps(summary | {"game": {"score_range": noted}}))
    run = said(tmp_path)
    assert run.rows("final", task="all tasks") == [] and "no range of scores is known of own" in run.html
    assert "there is no score over all tasks" in run.html


# ---- runs of unequal length


def test_one_short_run_cuts_nobodys_curve(tmp_path):
    curves(tmp_path, seeds=(1, 2, 3))
    curves(tmp_path, "vdn", seeds=(1, 2))
    ours(tmp_path, {0: 0.0, 10: 100.0}, name="vdn", seed=3)
    run = said(tmp_path)
    for name, n in (("qmix", list("33333")), ("vdn", list("33222"))):
        rows = run.rows("learning_curves", algorithm=name)
        assert [int(r["step"]) for r in rows] == list(POINTS) and [r["n"] for r in rows] == n
    rows = {r["algorithm"]: r for r in run.rows("final")}
    assert (rows["vdn"]["n"], rows["vdn"]["iqm"], rows["qmix"]["n"]) == ("2", "5.5", "3")  # of those that came so far
    (short,) = run.rows("runs", algorithm="vdn", seed=3)
    assert short["counts"] == "yes" and short["final"] == ""
    assert "ends before step 40, so in the learning curve only: VDN, seed 3, ends at 10" in run.html


def test_skip_shorter(tmp_path):
    curves(tmp_path, seeds=(1, 2))
    short = ours(tmp_path, {0: 0.0, 10: 100.0, 20: 100.0}, seed=3)
    run = said(tmp_path, "--skip-shorter")
    assert {r["n"] for r in run.rows("learning_curves")} == {"2"}
    (left,) = run.rows("runs", counts="no")
    assert left["path"] == str(short) and left["left_out"] == "ends at 20 of 40 steps (--skip-shorter)"
    run = said(tmp_path, "--skip-shorter", "--until", 20)
    assert {r["n"] for r in run.rows("learning_curves")} == {"3"}


def test_until(tmp_path):
    curves(tmp_path)
    run = said(tmp_path, "--until", "2e1")
    assert [int(r["step"]) for r in run.rows("learning_curves")] == [0, 10, 20]
    assert [r["final"] for r in run.rows("runs")] == ["3.0", "4.0", "5.0"]  # 2, and 1, 2, 3 of the seeds


def test_until_does_not_make_a_diverged_run_count(tmp_path):
    curves(tmp_path)
    diverged = ours(tmp_path, {0: 0.0, 10: 9.0, 20: None, 30: None, 40: None}, seed=9)
    for until, held in ((40, 3), (30, 2)):
        (row,) = said(tmp_path, "--until", until).rows("runs", path=str(diverged))
        assert row["counts"] == "no" and "are not finite" in row["left_out"] and row["nonfinite"] == str(held)
    (row,) = said(tmp_path, "--until", 10).rows("runs", path=str(diverged))
    assert row["counts"] == "yes" and row["nonfinite"] == "0"


# ---- which runs


@pytest.fixture
def many(tmp_path):
    for name in ("qmix", "vdn", "qtran_alt"):
        curves(tmp_path, name, seeds=(1, 2, 3))
    curves(tmp_path, "vdn", env="other")
    curves(tmp_path, "qmix", lr=0.1)
    return tmp_path


@pytest.mark.parametrize(
    "argv, kept",
    [
        (["--algorithms", "vdn"], {("two_step", "vdn"), ("other", "vdn")}),
        (["--algorithms", "VDN", "qtran*"], {("two_step", "vdn"), ("other", "vdn"), ("two_step", "qtran_alt")}),
        (
            ["--algorithms", "vdn,qtran_alt", "--environments", "two_step"],
            {("two_step", "vdn"), ("two_step", "qtran_alt")},
        ),
        (["--algorithms", "qmix, lr=0.1"], {("two_step", "qmix, lr=0.1")}),
        (["--algorithms", "qmix"], {("two_step", "qmix, lr=0.0005"), ("two_step", "qmix, lr=0.1")}),
        (["--environments", "two-step game", "--algorithms", "vdn"], {("two_step", "vdn")}),
    ],
)
def test_runs_are_chosen_by_name(argv, kept, many):
    run = said(many, *argv)
    assert {(r["task"], r["algorithm"]) for r in run.rows("final") if r["task"] != "all tasks"} == kept
    assert len(run.rows("runs")) == 3 * len(kept)


def test_runs_are_chosen_by_seed(many):
    assert {r["seed"] for r in said(many, "--seeds", "1,3-9").rows("runs")} == {"1", "3"}


def test_order_and_labels(many, unpainted):
    (many / "labels.yaml").write_text("qtran_alt: ours\nother: another game\nQMIX, lr = 0.1: tuned\n")
    run = said(many, "--labels", many / "labels.yaml", "--order", "ours,VDN")
    legend = [t.get_text() for t in unpainted[1].legends[0].get_texts()]
    assert legend == ["ours", "VDN", "QMIX, lr = 0.0005", "tuned"]
    assert "another game" in texts(unpainted)
    assert (
        "ours, QMIX, lr = 0.0005, tuned are not in the comparison over all tasks: they have no run of another game"
        in (run.html)
    )
    assert {r["algorithm"] for r in run.rows("final")} >= {"qtran_alt"}  # as in the configuration


def test_folders_have_labels(tmp_path):
    for k, place in enumerate(("a", "b=c")):
        for name in ("qmix", "vdn")[: k + 1]:
            for seed in (1, 2):
                sacred(tmp_path / place, f"{name}{seed}", name=name, seed=seed)
    run = said(f"{tmp_path}/a=first", f"{tmp_path}/b=c=EPyMARL")
    assert {(r["algorithm"], r["n"]) for r in run.rows("final")} == {
        ("first", "2"), ("qmix (EPyMARL)", "2"), ("vdn (EPyMARL)", "2"),
    }  # fmt: skip
    assert "QMIX (EPyMARL)" in run.html
    run = said(tmp_path / "b=c")  # a folder as it stands has no label
    assert {r["algorithm"] for r in run.rows("final")} == {"qmix", "vdn"}


def test_battles_on_maps_of_one_name_are_two_tasks(tmp_path, unpainted):
    for env in ("smax", "sc2"):
        for seed in (1, 2):
            ours(tmp_path, env=env, seed=seed, env_args={"map_name": "3m"}, metric=WON)
    run = said(tmp_path)
    assert {(r["task"], r["n"]) for r in run.rows("final")} == {("smax 3m", "2"), ("sc2 3m", "2"), ("all tasks", "4")}
    assert {"SMAX 3m", "SMAC 3m"} <= set(texts(unpainted))


# ---- figures and tables


def test_runs_that_end_in_two_groups_are_drawn_one_by_one(tmp_path, unpainted):
    for seed, end in enumerate((0.05, 0.04, 0.9, 0.93, 0.06), start=1):
        ours(tmp_path, {0: 0.0, 10: end / 2, 20: end}, seed=seed, metric=WON)
        ours(tmp_path, {0: 0.0, 10: 0.4, 20: 0.8 + seed / 100}, name="vdn", seed=seed, metric=WON)
    run = said(tmp_path)
    (ax,) = unpainted[1].axes
    thin = [line for line in ax.lines if line.get_linewidth() < 1 and len(line.get_xdata()) == 3]
    assert sorted(line.get_ydata()[-1] for line in thin) == [0.04, 0.05, 0.06, 0.9, 0.93]
    assert {r["algorithm"] for r in run.rows("single_runs")} == {"qmix"} and len(run.rows("single_runs")) == 15


def test_panels_of_one_metric_have_one_axis_unless_it_would_press_a_game_flat(tmp_path, unpainted):
    for map_name, end in (("3m", 0.9), ("8m", 0.5)):
        ours(tmp_path, {0: 0.0, 10: end}, env="smax", env_args={"map_name": map_name}, metric=WON)
    for env, end in (("small", 1.0), ("large", 1000.0)):
        ours(tmp_path, {0: 0.0, 10: end}, env=env)
    said(tmp_path)
    by_title = {ax.get_title(): ax.get_ylim() for ax in unpainted[1].axes}
    assert by_title["SMAX 3m"] == by_title["SMAX 8m"] and by_title["SMAX 3m"][1] < 1
    assert by_title["small"][1] < 1.1 and by_title["large"][1] > 1000


def test_a_panel_has_no_row_of_an_algorithm_that_is_not_in_it(tmp_path, unpainted):
    curves(tmp_path, "qmix")
    curves(tmp_path, "vdn", env="other")
    said(tmp_path)
    final, _, efficiency, *_ = unpainted
    for figure in (final, efficiency):
        rows = [[t.get_text() for t in ax.get_yticklabels()] for ax in figure.axes]
        assert rows == [["VDN"], ["QMIX"]]


def test_a_long_title_is_broken_where_words_end():
    assert layout.wrapped("lbforaging:Foraging-grid-2s-8x8-2p-2f-coop-v3", 20) == (
        "lbforaging:Foraging-\ngrid-2s-8x8-2p-2f-\ncoop-v3"
    )
    assert layout.wrapped("predator-prey, P = 1.5", 14) == "predator-prey,\nP = 1.5"


def rows(**algorithms):
    return {a: dict(algorithm=a, iqm=m, lower=low, upper=high) for a, (low, m, high) in algorithms.items()}


def test_bold_are_those_that_the_intervals_do_not_tell_from_the_highest():
    assert page.among_the_best(rows(a=(0.7, 0.9, 1.0), b=(0.6, 0.65, 0.71), c=(0.1, 0.2, 0.69))) == {"a", "b"}
    nan = float("nan")
    assert page.among_the_best(rows(a=(nan, 0.9, nan), b=(0.2, 0.8, 0.95), c=(nan, 0.8, nan))) == {"a", "b"}


def test_the_rule_for_bold_stands_under_the_table(tmp_path):
    curves(tmp_path)
    assert "Bold: the highest IQM" in said(tmp_path).html


def test_smoothing_by_hand():
    nan = np.nan
    curve = np.array([[0.0, 1.0], [3.0, 2.0], [6.0, nan], [0.0, nan]])
    assert np.array_equal(st.running_mean(curve, 3), [[1.5, 1.5], [3, 1.5], [3, nan], [3, nan]], equal_nan=True)
    assert np.array_equal(st.running_mean(curve, 1), curve, equal_nan=True)


def test_only_the_curves_are_smoothed_and_it_is_said(tmp_path, unpainted):
    for seed in (1, 2):
        ours(tmp_path, {0: 0.0, 10: 3.0, 20: 6.0, 30: 0.0}, seed=seed)
    run = said(tmp_path, "--smooth", 3)
    assert [float(r["iqm"]) for r in run.rows("learning_curves")] == [1.5, 3, 3, 3]
    assert run.rows("final")[0]["iqm"] == "0.0" and "mean of 3 evaluations" in run.html
    assert any("mean of 3 tests" in t for t in texts(unpainted))


def test_the_grid_goes_on_where_some_runs_have_ended():
    short, long = np.arange(0.0, 41, 10), np.arange(0.0, 81, 5)
    assert st.longest_grid([short, long]).tolist() == [0, 10, 20, 30, 40, 50, 55, 60, 65, 70, 75, 80]
    assert st.longest_grid([np.array([40.0, 80]), np.array([38.0, 79])]).tolist() == [38, 79]
    assert len(st.longest_grid([np.arange(0.0, 5000), np.arange(0.0, 9000)])) <= 500


# ---- marl-eval


@pytest.fixture
def exported(tmp_path):
    for name in ("qmix", "qtran_alt"):
        for map_name, stride in (("3m", 1), ("8m", 2)):
            for seed in (1, 2):
                points = {s * stride: v / 4 + seed / 10 for s, v in POINTS.items()}
                ours(tmp_path, points, name=name, seed=seed, env="smax", env_args={"map_name": map_name}, metric=WON)
    run = said(tmp_path, "--json", tmp_path / "raw.json")
    assert "marl-eval" not in run.out
    return json.loads((tmp_path / "raw.json").read_text())


def test_the_documented_schema_of_marl_eval(exported):
    assert exported.keys() == {"smax"} and exported["smax"].keys() == {"3m", "8m"}
    for algorithms in exported["smax"].values():
        assert algorithms.keys() == {"QMIX", "QTRAN-alt"}
        for runs in algorithms.values():
            assert runs.keys() == {"seed_1", "seed_2"}
            for run in runs.values():
                *steps, last = run
                assert steps == [f"step_{k}" for k in range(5)] and last == "absolute_metrics"
                assert all(type(run[s]["step_count"]) is int and len(run[s]["win_rate"]) == 1 for s in steps)
                assert run["absolute_metrics"] == {"win_rate": [max(run[s]["win_rate"][0] for s in steps)]}
    assert exported["smax"]["8m"]["QMIX"]["seed_2"]["step_4"] == {"step_count": 80, "win_rate": [1.2]}


def test_marl_eval_reads_it(exported):
    processing = pytest.importorskip("marl_eval.utils.data_processing_utils")
    found = processing.data_process_pipeline(exported, metrics_to_normalize=[])
    scores, curves_ = processing.create_matrices_for_rliable(found, "smax", metrics_to_normalize=[])
    final, over_time = ({a.lower(): x for a, x in found["mean_win_rate"].items()} for found in (scores, curves_))
    assert final["qmix"].tolist() == [[1.1, 1.1], [1.2, 1.2]]  # runs by tasks
    assert over_time["qtran-alt"].shape == (2, 2, 5)


def test_the_absolute_metric_of_a_run_stands_there(tmp_path):
    path = ours(tmp_path)
    summary = json.loads((path / "summary.json").read_text())
    absolute = {"return_mean": 3.25, "t_env": 30, "episodes": 80}
    (path / "summary.json").write_text(json.dumps(summary | {"absolute": absolute}))
    said(tmp_path, "--json", tmp_path / "raw.json")
    (run,) = json.loads((tmp_path / "raw.json").read_text())["two_step"]["two_step"]["QMIX"].values()
    assert run["absolute_metrics"] == {"return": [3.25]}


def test_what_marl_eval_will_not_take_is_told(tmp_path):
    curves(tmp_path, "qmix", seeds=(1, 2), env="smax", env_args={"map_name": "3m"})
    curves(tmp_path, "vdn", seeds=(1, 2, 3), env="smax", env_args={"map_name": "3m"})
    curves(tmp_path, "qmix", seeds=(1, 2), env="smax", env_args={"map_name": "8m"})
    out = said(tmp_path, "--json", tmp_path / "raw.json").out.replace("\n", " ")
    assert "VDN is not on every task" in out and "from 2 to 3 runs" in out


# ---- bad input


@pytest.mark.parametrize(
    "argv, text",
    [
        (["--algorithms", "qmx"], "--algorithms=qmx: no run has it; did you mean 'qmix'?; known: "),
        (["--environments", "3m"], "--environments=3m: no run has it; known: "),
        (["--seeds", "9"], "--seeds=9: no run has one of these seeds; there are: 1, 2, 3"),
        (["--seeds", "1-"], "--seeds: '1-' is not a seed; write numbers and ranges, such as 1-3,7"),
        (["--until", "0"], "--until: '0' is not a number of steps above 0"),
        (["--until", "9"], "--until=9: no run has a test so early; the first is at step 10"),
        (["--until", "99", "--skip-shorter"], "--skip-shorter: leaves none of 6 runs; the longest ends at step 40"),
        (["--smooth", "0"], "--smooth: '0' is not a number of evaluations above 0"),
        (["--order", "vnd"], "--order=vnd: no such algorithm; did you mean 'VDN'?"),
        (
            ["--labels", "nobody.yaml"],
            "--labels=nobody.yaml: 'qmx' is no algorithm or task of these runs; did you mean",
        ),
        (["--labels", "same.yaml"], "--labels=same.yaml: qmix and vdn would both be called 'ours'"),
        (["--labels", "list.yaml"], "--labels=list.yaml: holds no names; write a line `NAME: VALUE`"),
        (["--labels", "none.yaml"], "--labels=none.yaml: cannot be read: No such file"),
        (["--labels", "broken.yaml"], "--labels=broken.yaml: is not YAML"),
        (["--labels", "empty.yaml"], "--labels=empty.yaml: qmix: null is no label; write a text"),
        (["--ranges", "same.yaml"], "--ranges=same.yaml: qmix: ours is no range; write two numbers, [LOW, HIGH]"),
        (["--ranges", "range.yaml"], "--ranges=range.yaml: 'twostep' is no task or environment of these runs; did you"),
        (["--json", "nowhere/x.json"], "--json=nowhere/x.json: cannot be written: No such file"),
        (["--metric", "test_x"], "--metric=test_x: no finished run has it; known: loss, test_return_mean"),
        (["--algorithms", ","], "--algorithms: no name given"),
    ],
)
def test_bad_input(argv, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("qmix", "vdn"):
        for seed in (1, 2, 3):
            ours(tmp_path / "results", {k: v for k, v in POINTS.items() if k}, name=name, seed=seed)
    for name, content in {
        "nobody": "qmx: ours", "same": "qmix: ours\nvdn: ours", "list": "[a]", "broken": "a: [", "empty": "qmix:",
        "range": "twostep: [0, 1]",
    }.items():  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(content + "\n")
    run = Said("results", *argv)
    assert run.code == 2 and text in run.err and run.err.count("error:") == 1 and "Traceback" not in run.err
    assert run.out == "" and not (tmp_path / "results" / "report").exists()


def test_an_empty_label_of_a_folder(tmp_path):
    curves(tmp_path)
    run = Said(f"{tmp_path}=")
    assert run.code == 2 and "an empty label; write PATH=LABEL" in run.err


# ---- the page of the documentation


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    """One after the other, each in the folder of the tree that it is written for."""
    page = (ROOT / "docs" / "comparing.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for line in lines:
        if line.startswith("python src/report.py"):
            folder = Path(shlex.split(line)[2].partition("=")[0])
            run = Said(*shlex.split(line)[2:], "--reps", 100, out=folder / "report")
            assert run.code == 0, (line, run.err)
        else:
            subprocess.run(line, shell=True, check=True)
    assert len(lines) > 10 and (tmp_path / "raw.json").is_file()
