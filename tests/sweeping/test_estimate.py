"""How long runs take: by the nearest that is known, n at a time, in words, and by a short try."""

from types import SimpleNamespace

import pytest
from command import ROOT, SHORT

from parts import readers
from sweeping import estimate
from sweeping.estimate import Estimate, makespan, probe
from sweeping.plan import read_plan
from utils.messages import duration


def run(algorithm, environment, t_max=100, base=None):
    return SimpleNamespace(
        algorithm=algorithm, environment=environment, values={"t_max": t_max}, base=base or algorithm
    )


def test_the_nearest_that_is_known_counts():
    known = Estimate([(run("a", "x"), 0.1), (run("a", "x"), 0.3), (run("a", "y"), 0.8), (run("b", "x"), 1.2)])
    assert known(run("a", "x")) == pytest.approx(20)
    assert known(run("a", "x", t_max=10)) == pytest.approx(2)
    assert known(run("a", "z")) == pytest.approx(40)
    assert known(run("c", "x")) == pytest.approx(60)
    assert Estimate([])(run("a", "x")) is None


def test_a_setting_goes_by_the_other_settings_of_its_algorithm():
    known = Estimate([(run("a, lr=1", "x", base="a"), 0.1), (run("a, lr=2", "y", base="a"), 0.3), (run("b", "x"), 8)])
    assert known(run("a, lr=3", "x", base="a")) == pytest.approx(10)
    assert known(run("a, lr=3", "z", base="a")) == pytest.approx(20)
    assert known(run("a, lr=1", "z", base="a")) == pytest.approx(10)


@pytest.mark.parametrize(
    "left, waiting, workers, expected",
    [
        ([], [], 2, 0), ([], [1, 1, 1], 2, 2), ([], [3, 1, 1, 1], 2, 3), ([5], [1, 1], 2, 5), ([5, 1], [6], 2, 7),
        ([], [4], 3, 4), ([None], [1], 2, None), ([1], [None], 2, None),
    ],
)  # fmt: skip
def test_makespan(left, waiting, workers, expected):
    assert makespan(left, waiting, workers) == expected


@pytest.mark.parametrize(
    "seconds, words",
    [
        (None, "unknown"), (0, "0 s"), (42.4, "42 s"), (120, "2 min"), (3600, "1 h"), (12000, "3 h 20 min"),
        (86400 * 2 + 3600 * 5.5, "2 d 5 h"), (3599.9, "60 min"),
    ],
)  # fmt: skip
def test_duration(seconds, words):
    assert duration(seconds) == words


def planned(tmp_path, algorithms):
    values = {k: v for k, v in SHORT.items() if k != "seed"} | {"t_max": 2000}
    lines = [f"algorithms: {algorithms}", "environments: [two_step]", "seeds: 1", f"overrides: {values}"]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    return read_plan(tmp_path / "study.yaml", readers, tmp_path / "results").runs


def test_a_probe_measures_and_leaves_nothing(tmp_path):
    runs = planned(tmp_path, "[vdn]")
    samples, problems = probe(runs, 1, 60, lambda: False)
    assert problems == [] and [run for run, _ in samples] == runs
    assert 0.0005 < samples[0][1] < 0.05  # 1 to 100 s a run: the start of a process is in it
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_probe_that_measures_nothing_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeping.jobs.MAIN", ROOT / "tests" / "pretended_main.py")
    monkeypatch.setenv("PRETENDED", str(tmp_path))
    runs = planned(
        tmp_path, "{bad input: {config: vdn, lr: 1.0}, fails: {config: vdn}, killed: {config: vdn, lr: 0.1}}"
    )
    for r in runs:
        (tmp_path / f"{r.algorithm}.yaml").write_text("seed: 1\n")
    samples, problems = probe(runs, 3, 60, lambda: False)
    assert samples == [] and sorted(problems) == [
        "bad input on two_step, seed 1: configuration: t_max = 1 is too short and so on",
        "fails on two_step, seed 1: failed: the loss is nan",
        "killed on two_step, seed 1: ended by signal 9 (Killed)",
    ]


def record(key, t_env, time):
    return {"key": key, "t_env": t_env, "time": time}


def probed_pace(tmp_path, monkeypatch, found, learning_starts=0):
    monkeypatch.setattr(estimate, "records", lambda path: found)
    values = {"t_max": 1000, "test_interval": 200, "test_nepisode": 5, "batch_size_run": 2}
    values["learning_starts"] = learning_starts
    job = SimpleNamespace(directory=tmp_path, started=100.0, run=SimpleNamespace(values=values))
    return estimate._probed_pace(job)


START = [record("epsilon", 10, 105.0), record("test_return_mean", 10, 109.0)]
START_AND_TESTS = 5 + 5 * 3 * 4  # seconds: 5 to start, 5 times 3 rounds of tests of 4 s


def test_a_pace_is_of_the_second_half_with_start_and_tests(tmp_path, monkeypatch):
    rounds = [record("epsilon", t, 115 + t / 10 + (t > 100) * (t - 100) / 10) for t in range(20, 220, 20)]
    learning = [*START, record("loss", 10, 109.5), *rounds]
    assert probed_pace(tmp_path, monkeypatch, learning) == (pytest.approx((200 + START_AND_TESTS) / 1000), True)
    assert probed_pace(tmp_path, monkeypatch, [*START, *rounds])[1] is False
    assert probed_pace(tmp_path, monkeypatch, learning[:4]) == (None, False)
    assert probed_pace(tmp_path, monkeypatch, []) == (None, False)


def test_a_try_of_one_round_has_no_pace(tmp_path, monkeypatch):
    """Its records are of one step."""
    assert probed_pace(tmp_path, monkeypatch, [record("epsilon", 64, 101.0), record("epsilon", 64, 102.0)])[0] is None


def test_steps_before_learning_starts_are_played_at_their_own_pace(tmp_path, monkeypatch):
    # 0.1 s a step before the first update, which comes after the round that ends at step 100, 0.3 s from then on
    rounds = [record("epsilon", t, 115 + t / 10 + (t > 100) * (t - 100) / 5) for t in range(20, 220, 20)]
    found = [*START, *rounds[:5], record("loss", 100, 126.0), *rounds[5:]]
    seconds = 600 * 0.1 + 400 * 0.3 + START_AND_TESTS
    assert probed_pace(tmp_path, monkeypatch, found, learning_starts=600)[0] * 1000 == pytest.approx(seconds)
    assert probed_pace(tmp_path, monkeypatch, found)[0] * 1000 == pytest.approx(300 + START_AND_TESTS)
    seconds = 1000 * 0.1 + START_AND_TESTS
    assert probed_pace(tmp_path, monkeypatch, found, learning_starts=5000)[0] * 1000 == pytest.approx(seconds)


def test_a_try_is_timed_from_its_first_record_on(tmp_path, monkeypatch):
    """What comes before, a compiler's work say, takes longer than the try."""
    monkeypatch.setattr("sweeping.jobs.MAIN", ROOT / "tests" / "pretended_main.py")
    monkeypatch.setenv("PRETENDED", str(tmp_path))
    (tmp_path / "slow to start.yaml").write_text("seed: 1\n")
    runs = planned(tmp_path, "{slow to start: {config: vdn}}")
    ((*_, pace),), problems = probe(runs, 1, 0.5, lambda: False)
    assert problems == ["slow to start on two_step, seed 1: no update within 0.5 s, so its playing alone is counted"]
    assert 0.01 < pace < 0.03  # s a step: 0.01 of playing, the rest is its start and its tests
    monkeypatch.setattr(estimate, "STARTING_SECONDS", 0.5)
    samples, problems = probe(runs, 1, 0.5, lambda: False)
    assert samples == [] and problems == ["slow to start on two_step, seed 1: nothing measured in 1 s"]
