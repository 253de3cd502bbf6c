"""The report as a command: pages, figures, numbers, bad input."""

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from command import ROOT, files
from made_runs import CONFIG, POINTS, ours, sacred

import report

STEPS = list(POINTS)


class Said:
    """How the command ended, what it printed and left."""

    def __init__(self, *argv, out=None):
        with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
            try:
                self.code = report.main([str(word) for word in argv])
            except SystemExit as error:  # argparse
                self.code = error.code
        self.out, self.err = stdout.getvalue(), stderr.getvalue()
        self.folder = out or Path(argv[0]) / "report"

    @property
    def html(self):
        return (self.folder / "report.html").read_text()

    def rows(self, name, **where):
        """The rows of a CSV file whose columns have these values."""
        with open(self.folder / f"{name}.csv", encoding="utf-8") as f:
            return [r for r in csv.DictReader(f) if all(r[k] == str(v) for k, v in where.items())]


def curves(folder, name="qmix", scale=1.0, seeds=(1, 2, 3), **changes):
    """Runs whose returns rise to 4 · scale + seed."""
    for seed in seeds:
        ours(folder, {s: scale * v + seed * (s > 0) for s, v in POINTS.items()}, name=name, seed=seed, **changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three algorithms on two tasks, three seeds; and a run that failed."""
    folder = tmp_path_factory.mktemp("study")
    for k, name in enumerate(("qmix", "vdn", "qtran_alt")):
        for penalty in (0.5, 1.5):
            curves(folder, name, scale=1 + k * penalty, env="predator_prey", env_args={"penalty": penalty})
    ours(folder, name="iql", env="predator_prey", env_args={"penalty": 0.5}, status="failed")
    return folder


@pytest.fixture(scope="module")
def said(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return Said(study, "--out", folder, "--reps", 200, out=folder)


@pytest.fixture
def unpainted(monkeypatch):
    """Figures are drawn but not painted, which is what takes the time."""
    monkeypatch.setattr("reporting.figures.save", lambda figure: (b"png", b"pdf"))


# ---- what is written


def test_the_files(said):
    figures = {"learning_curves", "final", "profiles", "improvement", "efficiency"}
    assert said.code == 0 and said.err == ""
    assert (
        {path.stem for path in said.folder.glob("*.png")}
        == {path.stem for path in said.folder.glob("*.pdf")}
        == figures
    )
    assert {path.stem for path in said.folder.glob("*.csv")} == figures | {"runs"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in said.folder.glob("*.png"))
    assert all(path.read_bytes().startswith(b"%PDF") for path in said.folder.glob("*.pdf"))


def test_the_default_folder(tmp_path, unpainted):
    curves(tmp_path)
    run = Said(tmp_path, "--reps", 100)
    assert f"report: {tmp_path / 'report' / 'report.html'}" in run.out.splitlines()
    assert "report/report.html" in files(tmp_path)


def test_the_same_runs_give_the_same_bytes(said, study, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import report; report.main(sys.argv[1:])"
    argv = [sys.executable, "-c", code, study, "--out", again, "--reps", "200"]
    subprocess.run(argv, check=True, capture_output=True)
    assert files(again) == files(said.folder)
    for name in files(again):
        assert (again / name).read_bytes() == (said.folder / name).read_bytes(), name


class Page(HTMLParser):
    """What a page refers to, its headings' names, and whether its elements are closed."""

    def __init__(self, text):
        super().__init__()
        self.refers, self.names, self.open = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.refers += [values[k] for k in ("src", "href", "srcset", "data", "action") if k in values]
        self.names |= {values["id"]} if "id" in values else set()
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_it(said):
    page = Page(said.html)
    assert page.open == []
    assert not re.search(r"https?://|url\(|@import", said.html)
    pictures = [r for r in page.refers if r.startswith("data:image/png;base64,")]
    inside = {base64.b64decode(r.split(",")[1]) for r in pictures}
    assert inside == {path.read_bytes() for path in said.folder.glob("*.png")}
    links = [r for r in page.refers if not r.startswith("data:")]
    assert links and all(r[0] == "#" and r[1:] in page.names for r in links)


def test_the_page_says_what_ran_and_how(said):
    for part in (
        "predator-prey, P = 0.5",
        "1-3",
        "Interquartile mean",
        "200 resamples",
        "n = 3 seeds",
        "failed: the",
    ):
        assert part in said.html, part
    assert said.html.index("P = 0.5") < said.html.index("P = 1.5")


def test_text_of_runs_cannot_break_the_page(tmp_path, unpainted):
    curves(tmp_path, name="<script>alert(1)</script>", env="a&b<i>")
    run = Said(tmp_path, "--reps", 100, "--title", "<b>me & you")
    assert run.code == 0 and Page(run.html).open == [] and "&lt;b&gt;me &amp; you" in run.html


def test_fonts_are_embedded_as_truetype(said):
    for path in said.folder.glob("*.pdf"):
        assert b"/FontFile2" in path.read_bytes() and b"/Type3" not in path.read_bytes()


# ---- the numbers


def test_learning_curves(said):
    rows = said.rows("learning_curves", task="predator_prey penalty=0.5", algorithm="qmix")
    assert [int(r["step"]) for r in rows] == STEPS and {r["n"] for r in rows} == {"3"}
    assert [float(r["iqm"]) for r in rows] == [0, 3, 4, 5, 6]  # of three values, the mean: seeds add 1, 2, 3
    assert [(float(r["lower"]), float(r["upper"])) for r in rows][-1] == (5, 7)


def test_final_performance_is_in_both_tables(said):
    (row,) = said.rows("final", task="predator_prey penalty=1.5", algorithm="vdn")
    single = [float(r["final"]) for r in said.rows("runs", task=row["task"], algorithm="vdn")]
    assert sorted(single) == [11, 12, 13]  # 4 · 2.5 + seed
    assert [float(row[k]) for k in ("iqm", "mean", "median", "min", "max")] == [12, 12, 12, 11, 13]


def test_all_tasks_are_on_the_scale_of_the_game(said):
    rows = {r["algorithm"]: r for r in said.rows("final", task="all tasks")}
    assert set(rows) == {"qmix", "vdn", "qtran_alt"} and {r["n"] for r in rows.values()} == {"6"}
    # studies/optima.py: random play has -11.4006 (P = 0.5) and -36.3566 (1.5), the best 28.894 and 23.771
    easy, hard = (
        [(r - low) / (best - low) for r in (5, 6, 7)] for low, best in ((-11.4006, 28.894), (-36.3566, 23.771))
    )
    assert float(rows["qmix"]["iqm"]) == pytest.approx(np.mean(sorted(easy + hard)[1:-1]))  # one is cut at either end


def test_improvement(said):
    p = {(r["x"], r["y"]): float(r["probability"]) for r in said.rows("improvement", task="predator_prey penalty=0.5")}
    assert len(p) == 6 and p["vdn", "qmix"] == 8.5 / 9  # 7, 8, 9 against 5, 6, 7
    assert p["qmix", "vdn"] == pytest.approx(0.5 / 9)
    overall = {(r["x"], r["y"]): float(r["probability"]) for r in said.rows("improvement", task="all tasks")}
    assert overall["vdn", "qmix"] == pytest.approx((8.5 / 9 + 1) / 2)


def test_efficiency_with_the_default_threshold(said):
    (row,) = said.rows("efficiency", task="predator_prey penalty=0.5", algorithm="qmix")
    assert float(row["threshold"]) == 5  # half way from 0 to qtran_alt's 10
    assert (row["reached"], row["n"], row["median_steps"]) == ("3", "3", "30.0")
    # seeds 1, 2, 3 rise to 5, 6, 7: at 5 first after 40, 30, 20 steps
    assert [r["steps_to_threshold"] for r in said.rows("runs", task=row["task"], algorithm="qmix")] == [
        "40.0",
        "30.0",
        "20.0",
    ]


def test_a_threshold_that_is_never_reached(tmp_path, unpainted):
    curves(tmp_path)
    run = Said(tmp_path, "--reps", 100, "--threshold", 6.5)
    (row,) = run.rows("efficiency")
    assert (row["reached"], row["median_steps"], row["upper"]) == ("1", "inf", "inf")
    assert "not reached" in run.html and "1 of 3" in run.html and "--threshold" in run.html


def test_the_part_of_the_steps_that_is_final(tmp_path, unpainted):
    ours(tmp_path, {0: 1.0, 50: 2.0, 100: 6.0})
    for argv, final, said in [
        ((), "6.0", "last 5 % of the steps"),
        (("--final", 0.5), "4.0", "last 50 % of the steps"),
    ]:
        run = Said(tmp_path, "--reps", 100, *argv)
        assert run.rows("runs")[0]["final"] == final and said in run.html


def test_nothing_improves(tmp_path, unpainted):
    for seed in (1, 2):
        ours(tmp_path, {0: 1.0, 10: 1.0}, seed=seed)
    run = Said(tmp_path, "--reps", 100)
    assert run.code == 0 and run.rows("efficiency")[0]["threshold"] == ""


def test_profiles(said):
    rows = said.rows("profiles", task="predator_prey penalty=0.5", algorithm="qmix")
    share = {float(r["tau"]): float(r["share"]) for r in rows}
    assert share[5] == pytest.approx(2 / 3) and share[8] == 0 and min(share) == 5 and max(share) == 11


# ---- runs that differ


def test_one_seed_has_no_interval_and_it_is_said(tmp_path, unpainted):
    curves(tmp_path, seeds=[1])
    curves(tmp_path, "vdn")
    run = Said(tmp_path, "--reps", 100)
    (row,) = run.rows("final", algorithm="qmix")
    assert (row["n"], row["lower"], row["upper"]) == ("1", "", "") and run.rows("final", algorithm="vdn")[0]["lower"]
    for text in (run.out, run.html):
        assert "one seed only, so no interval: QMIX on two-step game" in text


def test_different_evaluation_points(tmp_path, unpainted):
    curves(tmp_path)
    for seed in (1, 2):
        ours(tmp_path, {step: step / 10 for step in range(1, 62, 5)}, name="vdn", seed=seed)
    run = Said(tmp_path, "--reps", 100)
    rows = run.rows("learning_curves", algorithm="vdn")
    assert [int(r["step"]) for r in rows] == [*STEPS, 46, 51, 56, 61]  # it goes on where the other has ended
    assert [float(r["iqm"]) for r in rows] == [0.1, 1.1, 2.1, 3.1, 4.1, 4.6, 5.1, 5.6, 6.1]
    assert [int(r["step"]) for r in run.rows("learning_curves", algorithm="qmix")] == STEPS
    assert run.rows("final", algorithm="vdn")[0]["iqm"] == "4.1"  # the comparison itself is fair
    for text in (run.out, run.html):
        assert "runs end between 40 and 61 steps; final performance is compared at 40, as far as QMIX goes" in text


def test_an_unfair_comparison_is_told(tmp_path, unpainted):
    curves(tmp_path)
    curves(tmp_path, "vdn", test_nepisode=1, batch_size_run=1)
    run = Said(tmp_path, "--reps", 100)
    for text in (run.out, run.html):
        assert "test_nepisode differs: 8 (QMIX); 1 (VDN)" in text and "batch_size_run differs" in text


def test_variants_have_lines_of_their_own(tmp_path, unpainted):
    curves(tmp_path)
    curves(tmp_path, lr=0.1)
    run = Said(tmp_path, "--reps", 100)
    assert {(r["algorithm"], r["n"]) for r in run.rows("final")} == {("qmix, lr=0.0005", "3"), ("qmix, lr=0.1", "3")}


def test_every_run_is_in_the_list(study, said):
    rows = said.rows("runs")
    assert len(rows) == 19 and [r["counts"] for r in rows].count("no") == 1
    (failed,) = said.rows("runs", counts="no")
    assert "1 run of 19 not in the statistics" in said.html and "1 run of 19 not in the statistics" in said.out
    assert failed["left_out"] == "failed: the reason" and failed["path"].startswith(str(study))
    assert f"left out: {failed['path']}: failed: the reason" in said.out.replace("\n", " ")


def test_an_algorithm_that_lacks_a_task_is_not_compared_over_all(tmp_path, unpainted):
    curves(tmp_path)
    curves(tmp_path, env="other")
    curves(tmp_path, "vdn")
    run = Said(tmp_path, "--reps", 100)
    assert {r["x"] for r in run.rows("improvement", task="all tasks")} == set()  # one algorithm has no pairs
    assert "VDN is not in the comparison over all tasks: it has no run of other" in run.html


def test_one_algorithm_has_no_pairs(tmp_path, unpainted):
    curves(tmp_path)
    run = Said(tmp_path, "--reps", 100)
    assert run.code == 0 and run.rows("improvement") == [] and "improvement.png" not in files(run.folder)


def test_damage_is_told(tmp_path, unpainted):
    curves(tmp_path)
    path = ours(tmp_path, {0: 1.0, 10: 2.0, 20: None, 30: 3.0, 40: 4.0}, seed=9)
    with open(path / "metrics.jsonl", "a") as f:
        f.write('{"key": "test_ret\n{"key": "loss", "value": 1, "t_env": 40}\n{"key": "te')
    run = Said(tmp_path, "--reps", 100)
    assert run.rows("final")[0]["n"] == "4"
    assert "1 values of test_return_mean in 1 runs are not finite" in run.html
    assert "1 damaged lines in 1 runs" in run.html


def test_sacred_runs_of_epymarl(tmp_path, unpainted):
    results = tmp_path / "results"
    for seed in (1, 2, 3):
        sacred(results, seed, seed=seed, env="battle", metric="test_battle_won_mean", env_args={"seed": seed})
    sacred(results, 4, seed=4, env="battle", status="FAILED")
    (sacred(results, 5, seed=5, env="battle") / "run.json").unlink()
    run = Said(results, "--reps", 100)
    (row,) = run.rows("final")
    assert (row["task"], row["metric"], row["n"], row["iqm"]) == ("battle", "test_battle_won_mean", "3", "4.0")
    assert "test win rate" in run.html and "torch 1.9" in run.html
    assert [r["left_out"] for r in run.rows("runs", counts="no")] == [
        "failed: ValueError: no",
        "broken: run.json is missing",
    ]


def test_our_own_sacred_copies_are_counted_once(tmp_path, unpainted):
    curves(tmp_path, seeds=[1, 2])
    for seed in (1, 2):
        sacred(tmp_path, seed, seed=seed)
    run = Said(tmp_path, "--reps", 100)
    assert run.rows("final")[0]["n"] == "2" and "2 Sacred folders skipped" in run.out


def test_a_report_does_not_change_the_next_one(tmp_path, unpainted):
    curves(tmp_path)
    first = Said(tmp_path, "--reps", 100).html
    assert Said(tmp_path, "--reps", 100).html == first


# ---- bad runs beside good ones


def written(name, content, make=ours, **changes):
    """A function that makes a run in a folder with `content` (text, bytes, or what is written as JSON) in a file."""

    def made(folder):
        path = make(folder, **{"seed": 1, "stamp": "20270101T000000Z"} | changes) / name
        if not isinstance(content, (str, bytes)):
            path.write_text(json.dumps(content))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return made


def config(text):
    """A config.yaml of a run, but for its last lines."""
    return written("config.yaml", "name: qmix\nenv: two_step\nenv_args: {}\nseed: 1\n" + text)


def line(value, step=40, key="test_return_mean"):
    return f'{{"key": "{key}", "value": {value}, "t_env": {step}}}\n'


def metrics(text):
    return written("metrics.jsonl", text)


def summary(**changes):
    return written("summary.json", {"status": "finished", "t_env": 40} | changes)


def theirs(name, content):
    return written(name, content, lambda folder, seed, stamp: sacred(folder, seed=7))


def instead(name, make, run=ours):
    """A function that makes a run with something else in the place of a file."""

    def made(folder):
        path = run(folder, seed=1) / name
        path.unlink()
        make(path)

    return made


DEEP = "[" * 25_000
DEEP_PAIRS = '{"a": ' * 100 + "1" + "}" * 100
DIGITS = "9" * 310
SURROGATE = "\\ud800"
BAD = {  # name: (makes it, a part of the reason)
    "yaml brackets": (written("config.yaml", DEEP), "levels"),
    "yaml circle": (config("label: &a [*a]"), "levels"),
    "yaml many aliases": (config("a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" + "".join(
        f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("bcdef", "cdefg"))), "values"),
    "yaml date": (config("label: 2026-01-01"), "config.yaml"),
    "yaml tag": (config("label: !!python/object/apply:os.getcwd []"), "not valid YAML"),
    "yaml twice": (config("seed: 2"), "given twice"),
    "yaml surrogate": (config('label: "\\ud800"'), "Unicode"),
    "yaml hexadecimal": (config("label: 0x" + "f" * 9000), "more than 300 digits"),
    "yaml keys": (config("env_args2: {1: a, b: c}"), "cannot be compared"),
    "yaml number as key": (config("7: a"), "a key is no text"),
    "yaml bytes": (written("config.yaml", b"\xff\xfe\x00"), "config.yaml"),
    "yaml is empty": (written("config.yaml", ""), "config.yaml is not that of a run"),
    "yaml of others": (written("config.yaml", "a: 1"), "config.yaml is not that of a run"),
    "yaml folder": (instead("config.yaml", os.mkdir), "config.yaml cannot be read"),
    "yaml pipe": (instead("config.yaml", os.mkfifo), "config.yaml cannot be read"),
    "yaml gone": (instead("config.yaml", lambda path: None), "config.yaml is missing"),
    "no name": (written("config.yaml", CONFIG | {"name": None}), "name is null"),
    "name is a list": (written("config.yaml", CONFIG | {"name": ["a"]}), 'name is ["a"]'),
    "env is a mapping": (written("config.yaml", CONFIG | {"env": {"a": 1}}), "env is {"),
    "env_args is a list": (written("config.yaml", CONFIG | {"env_args": [1]}), "env_args is [1]"),
    "seed is a list": (written("config.yaml", CONFIG | {"seed": [1]}), "seed is [1]"),
    "summary deep": (written("summary.json", DEEP), "nested too deep"),
    "summary deep pairs": (written("summary.json", DEEP_PAIRS), "more than 50 levels"),
    "summary folder": (instead("summary.json", os.mkdir), "summary.json cannot be read"),
    "summary pipe": (instead("summary.json", os.mkfifo), "summary.json cannot be read"),
    "summary circle": (instead("summary.json", lambda path: path.symlink_to(path)), "summary.json cannot be read"),
    "summary digits": (written("summary.json", f'{{"status": "finished", "t_env": {DIGITS * 20}}}'), "summary.json"),
    "summary bytes": (written("summary.json", b"\xed\xa0\x80"), "summary.json cannot be read"),
    "summary list": (written("summary.json", [1]), "summary.json is not that of a run"),
    "status list": (summary(status=["finished"]), "['finished']"),
    "status surrogate": (written("summary.json", f'{{"status": "{SURROGATE}"}}'), r"\ud800"),
    "reason": (summary(status="failed", reason=["\x1b[2J\n\u202e", {"a": [DIGITS]}]), "failed: ["),
    "long reason": (summary(status="failed", reason="word \n" * 10**5), "failed: word word"),
    "metrics folder": (instead("metrics.jsonl", os.mkdir), "metrics.jsonl cannot be read: it is not a file"),
    "metrics pipe": (instead("metrics.jsonl", os.mkfifo), "metrics.jsonl cannot be read: it is not a file"),
    "metrics device": (instead("metrics.jsonl", lambda p: p.symlink_to("/dev/zero")), "metrics.jsonl cannot be read"),
    "metrics gone": (instead("metrics.jsonl", lambda path: None), "has no metric"),
    "metrics deep": (metrics(line(DEEP) + line(DEEP[:900] + "]" * 900)), "no value of test_return_mean is finite"),
    "metrics digits": (metrics(line(DIGITS) + line(f"-{DIGITS}", 50)), "no value of test_return_mean is finite"),
    "metrics too many digits": (metrics(line(DIGITS * 20)), "has no metric"),
    "metrics infinite": (metrics(line("1e999") + line("NaN") + line("-Infinity")), "is finite"),
    "metrics booleans": (metrics(line("true") + line("false", 50)), "no value of test_return_mean is finite"),
    "metrics text": (metrics(line('"1"') + line("null", 50)), "no value of test_return_mean is finite"),
    "negative steps": (metrics(line(1.0, -10) + line(2.0, -20)), "has no metric"),
    "huge steps": (metrics(line(1.0, 10**30) + line(2.0, DIGITS)), "has no metric"),
    "steps are no numbers": (metrics(line(1.0, "true") + line(2.0, "1.5") + line(3.0, "[]")), "has no metric"),
    "ends in digits": (metrics(line(1.0, 0) + line(2.0, 10) + line(DIGITS, 40)), "its last values"),
    "metrics bytes": (metrics(b"\xff\x00\xed\xa0\x80\n" * 9), "has no metric"),
    "metrics of a surrogate": (metrics(line(1.0, key=SURROGATE)), "has no metric"),
    "other Sacred": (theirs("config.json", DEEP), "config.json is damaged"),
    "Sacred's pairs": (theirs("config.json", DEEP_PAIRS), "config.json is damaged"),
    "Sacred's surrogate": (theirs("config.json", CONFIG | {"name": "\ud800"}), "config.json holds text"),
    "Sacred's seed": (theirs("config.json", CONFIG | {"seed": {}}), "config.json is not that of a run: seed is {}"),
    "Sacred's run is a list": (theirs("run.json", [1]), "run.json is damaged"),
    "Sacred's run": (theirs("run.json", {"status": {"a": 1}, "host": 3, "experiment": [], "fail_trace": 7}), "{'a'"),
    "Sacred's trace": (theirs("run.json", {"status": "FAILED", "fail_trace": "a\nno \ud800"}), r"failed: no \ud800"),
    "Sacred's metrics": (theirs("metrics.json", '{"test_return_mean": ' + DEEP), "metrics.json is damaged"),
    "Sacred's digits": (theirs("metrics.json", f'{{"test_return_mean": {{"steps": [1], "values": [{DIGITS}]}}}}'),
                        "no value of test_return_mean is finite"),
    "Sacred's steps": (theirs("metrics.json", {"test_return_mean": {"steps": [-1, 10**30, "a"], "values": [1, 2, 3]}}),
                       "has no metric"),
    "Sacred's pipe": (instead("metrics.json", os.mkfifo, lambda folder, seed: sacred(folder, seed=7)), "not a file"),
    "Sacred's commit": (theirs("run.json", {"experiment": {"repositories": [{"commit": 7}], "dependencies": 8}}), "no"),
    "link to nothing": (lambda folder: folder.symlink_to("/nowhere"), "leads nowhere"),
}  # fmt: skip


def test_bad_runs_are_listed_and_change_no_number_of_the_good_ones(tmp_path, unpainted):
    """The bad ones have seed 1 as a good one has, and are newer."""
    curves(tmp_path / "alone" / "results", seeds=[1, 2])
    curves(tmp_path / "beside" / "results", seeds=[1, 2])
    for name, (make, _) in BAD.items():
        make(tmp_path / "beside" / "results" / "bad" / name)
    alone, beside = (Said(tmp_path / where / "results", "--reps", 100) for where in ("alone", "beside"))
    assert (alone.code, beside.code, beside.err) == (0, 0, "")
    rows = beside.rows("runs", counts="no")
    reasons = {Path(row["path"]).relative_to(tmp_path / "beside/results/bad").parts[0]: row["left_out"] for row in rows}
    assert reasons.keys() == BAD.keys() and len(BAD) > 40
    assert {name: said for name, said in reasons.items() if BAD[name][1] not in said} == {}
    assert all(len(said) <= 500 and said.isprintable() for said in reasons.values())
    for name in ("learning_curves", "final", "profiles", "improvement", "efficiency"):
        assert (beside.folder / f"{name}.csv").read_bytes() == (alone.folder / f"{name}.csv").read_bytes(), name
    assert f"{len(BAD)} runs of {len(BAD) + 2} not in the statistics" in beside.out
    assert Page(beside.html).open == []


def test_points_that_are_no_numbers_are_passed_over(tmp_path, unpainted):
    curves(tmp_path, seeds=[1, 2])
    path = ours(tmp_path, {0: 0.0, 10: 4.0, 20: 5.0, 30: 6.0, 40: 7.0}, seed=3)
    with open(path / "metrics.jsonl", "a") as f:
        f.write("".join(line(value, 35) for value in (DIGITS, "true")) + line(9.0, -5) + line(7.0, 40))
    run = Said(tmp_path, "--reps", 100)
    assert run.rows("final")[0]["n"] == "3" and run.rows("runs", seed=3)[0]["final"] == "7.0"
    assert "1 values of test_return_mean in 1 runs are not finite" in run.html and "1 damaged lines in 1" in run.html


NAMES = [
    "$a^{b$c",
    "_under",
    "two\nlines\ttab",
    "\u202eright to left\u200f",
    "x" * 300,
    "中文 ü 🙂",
    r"\frac{",
    "%s {0}",
    "",
]


def test_names_are_plain_text_in_figures_and_tables(tmp_path):
    """Two tasks, algorithms of all names, and a variant of each for a key of that name."""
    for k, name in enumerate(NAMES):
        for seed, value in enumerate((name, f"{name}2"), start=1):
            path = ours(tmp_path, seed=seed, stamp=f"{k:08}T000000Z")
            values = CONFIG | {"name": name, "env": NAMES[k % 2 * 4], "seed": seed, name: value}
            (path / "config.yaml").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    run = Said(tmp_path, "--reps", 100)
    assert run.code == 0 and run.err == "" and Page(run.html).open == []
    assert [row["left_out"] for row in run.rows("runs", counts="no")] == []
    algorithms = " ".join(row["algorithm"] for row in run.rows("final"))
    for name in ("$a^{b$c", "_under", r"two\nlines\ttab", r"\u202eright to left\u200f", "x" * 300, "中文 ü 🙂"):
        assert f"{name}, {name}={name}2" in algorithms or f"{name} #2" in algorithms
    assert (run.folder / "improvement.png").read_bytes().startswith(b"\x89PNG")


def test_a_metric_with_any_name(tmp_path):
    for name in ("$a^{b$c", "\udc80 \n"):
        folder = tmp_path / str(len(name))
        curves(folder, metric=name)
        run = Said(folder, "--reps", 100, "--metric", name, "--title", name)
        assert run.code == 0 and run.err == "" and run.rows("final")[0]["iqm"] == "6.0"
        run = Said(folder, "--metric", "other")
        assert run.code == 2 and "other: no finished run has it; known: " in run.err


# ---- bad input


@pytest.mark.parametrize(
    "argv, said",
    [
        (["results/qmx"], "results/qmx: no such folder; did you mean 'qmix'?"),
        (["results/note.txt"], "results/note.txt: is a file; give a folder"),
        (["empty"], "empty: no runs found; a run is a folder with config.yaml"),
        (
            ["results", "--metric", "test_return"],
            "--metric=test_return: no finished run has it; known: loss, test_return_",
        ),
        (["results", "--metric", "test_return"], "did you mean 'test_return_mean'?"),
        (["results", "--out", "results/note.txt"], "--out=results/note.txt: cannot be written"),
        (["unfinished"], "unfinished: 2 runs found, none that counts:\n  unfinished/qmix/two_step/seed1"),
        (["results", "--reps", "3"], "3 is not within 100 to 50000"),
        (["results", "--final", "0"], "--final: 0 is not above 0 and at most 1"),
        (["results", "--threshold", "nan"], "--threshold: invalid number value: 'nan'"),
        (["results", "--metrics", "x"], "unrecognized arguments: --metrics"),
        ([], "the following arguments are required: PATH"),
    ],
)
def test_bad_input(argv, said, tmp_path, unpainted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curves(tmp_path / "results")
    (tmp_path / "results" / "note.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for seed in (1, 2):
        ours(tmp_path / "unfinished", seed=seed, status="running")
    before = files(tmp_path)
    run = Said(*argv, out=tmp_path)
    assert run.code == 2 and said in run.err and run.err.count("error:") == 1 and "Traceback" not in run.err
    assert run.out == ""
    assert files(tmp_path) == before


def test_help_needs_no_numpy():
    code = "import sys, report\ntry: report.main(['--help'])\nfinally: assert 'numpy' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert all(word in run.stdout for word in ("--metric", "--threshold", "report.html", "exit status"))
