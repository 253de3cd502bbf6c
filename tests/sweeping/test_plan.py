"""From a study to its runs: precedence, order, what is refused; and which of them are complete on disk."""

import json
from pathlib import Path

import pytest
import yaml
from command import ROOT

from parts import readers
from sweeping.plan import Existing, differences, folder_name, literal, read_plan
from utils.args import ConfigError
from utils.config import load, parse_overrides
from utils.runs import find_runs

STUDY = """
algorithms:
  qmix:
  "alt, no V": {config: qtran_alt, v_input: none, gamma: 0.5}
environments:
  P = 0.5: {env-config: predator_prey, env_args.penalty: 0.5}
  two: {env-config: two_step, t_max: 3000, lr: 0.003, gamma: 0.7}
overrides: {t_max: 2000, lr: 0.002, gamma: 0.9}
seeds: 1-2
"""


def plan_of(tmp_path, text=STUDY, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_plan(path, readers, **{"results": tmp_path / "results"} | changes)


def refusal(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, text)
    return str(error.value)


def test_the_runs_of_a_study(tmp_path):
    plan = plan_of(tmp_path)
    assert [(run.seed, run.environment, run.algorithm) for run in plan.runs] == [
        (seed, e, a) for seed in (1, 2) for e in ("P = 0.5", "two") for a in ("qmix", "alt, no V")
    ]
    run = plan.runs[1]
    assert {k: run.values[k] for k in ("name", "seed", "mixer", "v_input", "env")} == {
        "name": "alt, no V", "seed": 1, "mixer": "qtran_alt", "v_input": "none", "env": "predator_prey",
    }  # fmt: skip
    assert run.values["local_results_path"] == str(tmp_path / "results" / "P=0.5")


def test_the_more_particular_wins(tmp_path):
    first, second, third, fourth = plan_of(tmp_path).runs[:4]
    keys = ("t_max", "lr", "gamma", "batch_size_run")
    assert [first.values[k] for k in keys] == [2000, 0.002, 0.9, 32]  # overrides over config files
    assert [third.values[k] for k in keys] == [3000, 0.003, 0.7, 8]  # environment over overrides
    assert (second.values["gamma"], fourth.values["gamma"]) == (0.5, 0.5)  # algorithm over all


def test_results_lie_beside_others_by_the_name_of_the_study(tmp_path):
    assert str(plan_of(tmp_path, results=None).results) == "results/studies/study"
    assert str(plan_of(tmp_path, STUDY + "results: mine\n", results=None).results) == "mine"


def test_the_command_of_a_run_makes_its_configuration(tmp_path):
    for run in plan_of(tmp_path, STUDY + "title: x\n", results=tmp_path / "a folder, with 'signs'").runs:
        alg, env, with_, *values = run.words()
        assert (alg, env, with_) == (f"--config={run.alg}", f"--env-config={run.env}", "with")
        assert load(run.alg, run.env, parse_overrides(values), readers).values == run.values


@pytest.mark.parametrize(
    "value",
    ["plain", "a b", "None", "null", "True", "False", "nullable", "1", "-1", "0x10", "inf", "1e5", "a=b", " x ", ".5",
     "it's", "", "/a/b-c.d", True, None, 0.1, 1e-9, [1, [2.5]], "qtran_alt, no V_jt", "[1"],
)  # fmt: skip
def test_a_value_survives_the_command_line(value):
    assert parse_overrides([f"label={literal(value)}"]) == {"label": value}


@pytest.mark.parametrize("label, folder", [("P = 0.5", "P=0.5"), ("a/b c", "a_b_c"), ("..", "_"), ("5x5", "5x5")])
def test_folder_names(label, folder):
    assert folder_name(label) == folder


def test_all_problems_in_one_message(tmp_path):
    said = refusal(
        tmp_path,
        "algorithms: [qmix, vdn, qmx]\nenvironments: [two_step, matrix_game]\nseeds: 2-1\nallow: 1\n"
        "overrides: {t_maxx: 3, lr: -1, mixing_embed_dim: 3}\n",
    )
    assert said.startswith(f"{tmp_path / 'study.yaml'}:\n")
    for part in (
        "unknown key 'allow'", "'qmx' is no file", "'2-1' is neither", "unknown key 't_maxx'", "did you mean 't_max'?",
        "lr = -1 must be above 0 (all runs)", "unknown key 'mixing_embed_dim' (value 3)", "(vdn)",
    ):  # fmt: skip
        assert said.count(part) == 1, (part, said)
    assert "command line" not in said


def test_more_than_can_be_planned_is_refused(tmp_path):
    algorithms = ", ".join(f"a{n}: {{config: vdn, lr: 0.{n + 1}}}" for n in range(3))
    text = f"algorithms: {{{algorithms}}}\nenvironments: [two_step]\nseeds: 1-10000\n"
    assert "30000 runs; at most 20000 are planned" in refusal(tmp_path, text)
    algorithms = ", ".join(f"a{n}: {{config: vdn}}" for n in range(1001))
    text = f"algorithms: {{{algorithms}}}\nenvironments: [two_step]\nseeds: 1\n"
    assert "1001 algorithms on 1 environments; at most 1000 pairs are run" in refusal(tmp_path, text)


def test_of_many_problems_the_first_are_told(tmp_path):
    text = "algorithms: [vdn]\nenvironments: [two_step]\nseeds: 1\noverrides: {title: " + "x" * 10_000
    said = refusal(tmp_path, text + ", " + ", ".join(f"k{n}: 1" for n in range(1000)) + "}\n")
    assert "unknown key 'k1'" in said and "and 971 more" in said and len(said) < 5000


@pytest.mark.parametrize(
    "algorithms, environments, said",
    [
        ("{a: {config: qmix}, b: {config: qmix}}", "[two_step]", ["algorithms: 'a' and 'b' have the same settings"]),
        ("[qmix]", "{a: {env-config: two_step}, two_step: }", ["environments: 'a' and 'two_step' are the same game"]),
        (
            "[qmix]",
            "{P = 1: {env-config: two_step}, P=1: {env-config: matrix_game}}",
            ["environments: 'P = 1' and 'P=1' claim one folder"],
        ),
        ("{qmix: , QMIX: {config: qmix, lr: 1}}", "[two_step]", ["'qmix' and 'QMIX' claim one folder"]),
        (
            "{qmix: {batch_size_run: 4}, vdn: }",
            "[two_step]",
            [
                "two_step: batch_size_run differs between algorithms: 4 (qmix), 8 (vdn)",
                "allow_different: [batch_size_run]",
            ],
        ),
        (
            "{qmix: {env_args.penalty: 1}, vdn: }",
            "[predator_prey]",
            ["env_args.penalty differs between algorithms: 1.0 (qmix), 0.5 (vdn)"],
        ),
        ("{qmix: {test_nepisode: 4}, vdn: }", "[two_step]", ["test_nepisode differs"]),
        ("{qmix: {evaluation_epsilon: 0.1}, vdn: }", "[two_step]", ["evaluation_epsilon differs"]),
    ],
)
def test_what_is_no_fair_plan(algorithms, environments, said, tmp_path):
    text = refusal(tmp_path, f"algorithms: {algorithms}\nenvironments: {environments}\nseeds: 1\n")
    assert all(part in text for part in said), text


def test_what_differs_on_purpose(tmp_path):
    text = "algorithms: {qmix: {batch_size_run: 4, lr: 1}, vdn: }\nenvironments: [two_step]\nseeds: 1\n"
    assert len(plan_of(tmp_path, text + "allow_different: [batch_size_run]\n").runs) == 2
    assert "batch_size_run differs" in refusal(tmp_path, text + "allow_different: [t_max]\n")


def test_a_selection(tmp_path):
    plan = plan_of(tmp_path)
    some = plan.selected(["alt, no V"], ["two"], "2")
    assert [str(run) for run in some] == ["alt, no V on two, seed 2"]
    assert plan.selected() == plan.runs
    with pytest.raises(ConfigError) as error:
        plan.selected(["alt no V"], ["tow"], "2-3")
    for part in ("--algorithms alt no V: not in the study, which has: qmix; alt, no V; did you mean 'alt, no V'?",
                 "--environments tow: not in the study", "--seeds 3: not in the study, which has: 1; 2"):  # fmt: skip
        assert part in str(error.value)


# ---- what is complete


def leave(run, status="finished", **changes):
    """The run directory of a planned run; changes: keys of its config.yaml."""
    folder = Path(run.values["local_results_path"], run.algorithm, run.environment)
    path = folder / f"seed{run.seed}_{len(list(folder.glob('*')))}"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(run.values | changes))
    (path / "summary.json").write_text(json.dumps({"status": status}))
    return path


def existing(plan):
    return Existing(plan.runs, find_runs(plan.results))


def test_a_run_is_complete_when_one_of_its_configuration_is_finished(tmp_path):
    plan = plan_of(tmp_path)
    assert not existing(plan).complete
    leave(plan.runs[0], "interrupted")
    leave(plan.runs[0], "running")
    leave(plan.runs[1], label="mine", log_interval=1, local_results_path="/moved", num_threads=3)  # of no consequence
    leave(plan.runs[2])
    (leave(plan.runs[3]) / "summary.json").write_text('{"status": "fini')
    (leave(plan.runs[4]) / "config.yaml").write_text("name: qm")
    got = existing(plan)
    assert set(got.complete) == {plan.runs[1], plan.runs[2]}
    assert len(got.unfinished) == 4 and got.other == []


def test_finished_runs_with_other_settings_are_told(tmp_path):
    plan = plan_of(tmp_path)
    path = leave(plan.runs[0], gamma=0.1, a_key_of_old=3)
    leave(plan.runs[0], seed=9)  # a seed that the study has no more
    got = existing(plan)
    assert not got.complete and [run.path for run in got.other] == [path]
    assert differences(got.other[0].config, plan.runs[0].values) == [
        "a_key_of_old is 3, planned not set", "gamma is 0.1, planned 0.9",
    ]  # fmt: skip


def test_the_seed_and_the_label_count(tmp_path):
    plan = plan_of(tmp_path)
    leave(plan.runs[0])
    leave(plan.runs[1], name="another label")
    assert set(existing(plan).complete) == {plan.runs[0]}


def test_configurations_are_compared_as_yaml_leaves_them(tmp_path):
    text = "algorithms: [qmix]\nseeds: 1\noverrides: {optim_eps: 1.0e-10, env_args.payoff: [[1, 2], [3, 4.5]]}\n"
    plan = plan_of(tmp_path, text + "environments: [matrix_game]\n")
    plan.runs[0].values["env_args"]["payoff"] = ((1, 2), (3, 4.5))
    leave(plan.runs[0])
    assert set(existing(plan).complete) == set(plan.runs)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_come_with_the_project_are_sound(path):
    assert read_plan(path, readers).runs
