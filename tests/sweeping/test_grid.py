"""Grids and samples of a study: which runs they make, what these are called, and what is refused in one message."""

import pytest

from parts import readers
from sweeping import grid
from sweeping.plan import read_plan
from utils.args import ConfigError
from utils.settings import name_of, read_back

GOOD = "algorithms: [qtran_alt, qtran_base]\nenvironments: [two_step]\nseeds: 1001-1002\n"
GRID = "grid: {lr: [5e-4, 0.001], opt_loss: [0.03, 1]}\n"
NAMES = [
    "qtran_alt, lr=0.0005, opt_loss=0.03", "qtran_alt, lr=0.0005, opt_loss=1", "qtran_alt, lr=0.001, opt_loss=0.03",
    "qtran_alt, lr=0.001, opt_loss=1",
]  # fmt: skip


def plan_of(tmp_path, text, name="study.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return read_plan(path, readers, tmp_path / "results")


def refused(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, text)
    return str(error.value)


def test_each_setting_has_runs_of_its_own(tmp_path):
    plan = plan_of(tmp_path, GOOD + GRID)
    assert plan.algorithms == NAMES + [name.replace("alt", "base") for name in NAMES]
    assert len(plan.runs) == 8 * 2
    run = plan.runs[2]
    assert (run.algorithm, run.base, run.seed) == (NAMES[2], "qtran_alt", 1001)
    assert (run.values["name"], run.values["lr"], run.values["opt_loss"]) == (NAMES[2], 0.001, 0.03)
    assert {f"name={NAMES[2]!r}", "lr=0.001", "opt_loss=0.03"} < set(run.words())


def test_runs_are_chosen_by_the_algorithm_or_by_the_setting(tmp_path):
    plan = plan_of(tmp_path, GOOD + GRID)
    assert [r.algorithm for r in plan.selected(["qtran_alt"], wanted="1002")] == NAMES
    assert {r.algorithm for r in plan.selected([NAMES[1]])} == {NAMES[1]}
    with pytest.raises(
        ConfigError, match="qtran_al: not in the study, which has: qtran_alt; qtran_base; qtran_alt, lr"
    ):
        plan.selected(["qtran_al"])


def test_an_algorithm_has_a_grid_of_its_own_beside_that_of_all(tmp_path):
    text = "algorithms: {qmix: , alt: {config: qtran_alt, v_input: none, grid: {opt_loss: [0.1, 1]}}}\n"
    plan = plan_of(tmp_path, text + "environments: [two_step]\nseeds: 1\ngrid: {gamma: [0.9, 1]}\n")
    assert plan.algorithms == [
        "qmix, gamma=0.9", "qmix, gamma=1", "alt, gamma=0.9, opt_loss=0.1", "alt, gamma=0.9, opt_loss=1",
        "alt, gamma=1, opt_loss=0.1", "alt, gamma=1, opt_loss=1",
    ]  # fmt: skip
    assert plan.runs[2].values["v_input"] == "none" and plan.runs[2].alg == "qtran_alt"


SAMPLE = {
    "number": 40, "seed": 3, "lr": {"log_uniform": [1e-4, "1e-2"]}, "gamma": {"uniform": [0.9, 1]},
    "batch_size": {"integer": [4, 6]}, "hidden_dim": {"choice": [32, 64]},
}  # fmt: skip


def sample(**changes):
    problems = []
    points = grid.take({"sample": SAMPLE | changes}, "", problems)
    assert problems == []
    return points


def test_draws_lie_in_their_ranges_and_depend_on_the_seed_alone():
    points = sample()
    assert len(points) == 40 and points == sample() and points != sample(seed=4)
    assert sample(number=10) == points[:10]  # with a larger number those that there were stay
    without = {k: v for k, v in SAMPLE.items() if k != "gamma"}
    fewer = grid.take({"sample": without}, "", [])
    assert [p["lr"] for p in fewer] == [p["lr"] for p in points]  # and with another key too
    lr = sorted(p["lr"] for p in points)
    assert 1e-4 <= lr[0] < 3e-4 and 3e-3 < lr[-1] <= 1e-2 and 3e-4 < lr[20] < 3e-3  # evenly over the logarithm
    assert all(0.9 <= p["gamma"] <= 1 and len(str(p["gamma"])) <= 7 for p in points)
    assert {p["batch_size"] for p in points} == {4, 5, 6} and {p["hidden_dim"] for p in points} == {32, 64}


@pytest.mark.parametrize(
    "values",
    [{"lr": 0.0005, "fix_q_jt": True, "lr_decay_start": None}, {"env_args.penalty": -1.5, "v_input": "none"}, {}],
)
def test_a_name_is_read_back(values):
    nested = {k: v for k, v in values.items() if "." not in k}
    config = nested | {"env_args": {k[9:]: v for k, v in values.items() if "." in k}, "gamma": 0.9}
    assert read_back(name_of("alt, no V", values), config) == ("alt, no V", values)
    assert read_back("alt, gamma=1", config) == ("alt, gamma=1", {})  # the configuration says something else
    assert read_back("alt, gamma=9.0e-1", config) == ("alt", {"gamma": 0.9})


@pytest.mark.parametrize(
    "more, said",
    [
        ("grid: {lr: [0.1]}", "grid: lr: 0.1 alone is nothing to search; write it under `overrides`, or give two"),
        ("grid: {lr: []}", "grid: lr: it is empty, or give two values or more"),
        ("grid: {lr: 0.1}", "grid: lr: 0.1 must be a list of values, such as [0.0005, 0.001]"),
        ("grid: {}", "grid: {} must be a mapping"),
        ("grid: [lr]", "grid: ['lr'] must be a mapping"),
        ("grid: {lr: [0.1, 1e-1]}", "grid: lr: 0.1 is there twice"),
        ("grid: {lr: [0.1, .inf]}", "grid: lr: inf is not finite"),
        ("grid: {lr: [0.1, [1]]}", "grid: lr: [1] must be a number, a word, True or null"),
        ("grid: {v_input: [none, 'a, b']}", "grid: v_input: 'a, b' must be a word"),
        ("grid: {lr: {uniform: [0, 1]}}", "a range goes into `sample`"),
        ("grid: {seed: [1, 2]}", "grid: seed: seeds are given as `seeds`"),
        ("grid: {lr: [0.1, fast]}", "grid or sample: lr = 'fast' is text, must be a number (qtran_alt, qtran_base)"),
        ("grid: {lr: [0.1, -1, -2]}", "grid or sample: lr = -1 must be above 0 (qtran_alt, qtran_base)"),
        ("grid: {keep_checkpoints: [null, 1, 2, 3, 4, 5, 6, 7, 8, 9, x]}", "keep_checkpoints = 'x' is text, must be"),
        ("grid: {hiden_dim: [8, 16]}", "unknown key 'hiden_dim'; did you mean 'hidden_dim'? (qtran_alt, qtran_base)"),
        ("grid: {rnn_hidden_dim: [8, 16]}", "rnn_hidden_dim: write the key that it is another name of"),
        ("grid: {key_x: [a, b], lr: [1, 2]}\noverrides: {lr: 0.1}", "lr is set in overrides too, to 0.1; drop one"),
        ("grid: {lr: [1, 2]}\nsample: {number: 2, lr: {uniform: [1, 2]}}", "grid: lr is in sample too; drop one"),
        ("grid: {lr: [1, 2], gamma: " + str([k / 1000 for k in range(600)]) + "}", "1,200 settings; at most 1,000"),
        ("sample: {lr: {uniform: [0, 1]}}", "sample: number is missing: how many settings are drawn"),
        ("sample: {number: 1, lr: {uniform: [0, 1]}}", "sample: number: 1 must be a whole number, 2 to 1000"),
        ("sample: {number: 3}", "sample: no range is given"),
        ("sample: {number: 3, lr: 0.1}", "sample: lr: 0.1 must be one range, such as {uniform: [LOW, HIGH]}"),
        ("sample: {number: 3, lr: {unifrom: [0, 1]}}", "'unifrom' is no kind of range"),
        ("sample: {number: 3, lr: {unifrom: [0, 1]}}", "did you mean 'uniform'?"),
        ("sample: {number: 3, lr: {uniform: [0]}}", "lr: uniform: [0] must be two numbers, [LOW, HIGH]"),
        ("sample: {number: 3, lr: {uniform: [0, a]}}", "lr: uniform: [0, 'a'] must be two numbers, [LOW, HIGH]"),
        ("sample: {number: 3, lr: {uniform: [1, 0.1]}}", "must go from the lower to the higher number"),
        ("sample: {number: 3, lr: {log_uniform: [0, 1]}}", "must be above 0, as its logarithm is drawn"),
        ("sample: {number: 3, lr: {log_uniform: [1.0e-300, 1]}}", "and at least 1e-100"),
        ("sample: {number: 3, lr: {uniform: [-1.0e+308, 1.0e+308]}}", "[LOW, HIGH], of at most 1e+100"),
        ("sample: {number: 3, hidden_dim: {integer: [8, 16.5]}}", "must be two whole numbers"),
        ("sample: {number: 3, hidden_dim: {uniform: [8, 16]}}", "must be a whole number (qtran_alt, qtran_base)"),
        ("sample: {number: 5, hidden_dim: {choice: [8, 16]}}", "number = 5, but these ranges have only 2 settings"),
        ("tuned_on: 3", "tuned_on: 3 must be a study"),
        ("tuned_on: tunin.yaml", "tuned_on: tunin.yaml: no such study; did you mean 'tuning'?"),
        (
            "tuned_on: tuning.yaml",
            "seeds: 1002: settings were chosen on it in {folder}/tuning.yaml, so results on the same seeds look better "
            "than they are; give seeds that it does not have",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(more, said, tmp_path):
    (tmp_path / "tuning.yaml").write_text(GOOD.replace("1001-1002", "1002-1003") + GRID)
    message = refused(tmp_path, GOOD + more + "\n")
    assert said.replace("{folder}", str(tmp_path)) in message and len(message.splitlines()) <= 4, message


def test_a_key_that_one_algorithm_does_not_read(tmp_path):
    said = refused(tmp_path, GOOD.replace("qtran_base", "qmix") + GRID)
    assert "unknown key 'opt_loss'; it belongs to qtran_alt, qtran_base; search it in these alone" in said
    assert said.endswith("(qmix)")


def test_a_label_that_is_too_long(tmp_path):
    text = GOOD.replace("[qtran_alt, qtran_base]", "{" + "a" * 90 + ": {config: qtran_alt}}")
    assert "at most 100: give the algorithm a shorter label" in refused(tmp_path, text + GRID)


def test_seeds_that_nothing_was_chosen_on(tmp_path):
    (tmp_path / "tuning.yaml").write_text(GOOD + GRID)
    assert plan_of(tmp_path, GOOD.replace("1001-1002", "1-3") + "tuned_on: [tuning.yaml]\n").seeds == [1, 2, 3]
