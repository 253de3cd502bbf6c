"""The form of a study file: what is read, and what is refused in one message."""

import pytest

from sweeping.study import read_study, seeds
from utils.args import ConfigError

GOOD = "algorithms: [qmix]\nenvironments: [two_step]\nseeds: 1-2\n"


def study(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


def test_labels_files_and_changes(tmp_path):
    got = study(
        tmp_path,
        """
title: A study
algorithms:
  qmix:
  vdn: {lr: 0.01}
  "alt, no V": {config: qtran_alt, v_input: none, env_args: {penalty: 2.0}}
environments:
  P = 0.5: {env-config: predator_prey, env_args.penalty: 0.5}
overrides: {t_max: 100}
seeds: "1-3, 7"
allow_different: [t_max, env_args.penalty]
results: here
""",
    )
    assert got.problems == []
    assert got.algorithms == {
        "qmix": ("qmix", {}),
        "vdn": ("vdn", {"lr": 0.01}),
        "alt, no V": ("qtran_alt", {"v_input": "none", "env_args.penalty": 2.0}),
    }
    assert got.environments == {"P = 0.5": ("predator_prey", {"env_args.penalty": 0.5})}
    assert (got.title, got.overrides, got.seeds, got.results) == ("A study", {"t_max": 100}, [1, 2, 3, 7], "here")


def test_a_list_of_names_is_each_as_it_is(tmp_path):
    got = study(tmp_path, GOOD.replace("[qmix]", "[qmix, vdn]"))
    assert got.problems == [] and got.algorithms == {"qmix": ("qmix", {}), "vdn": ("vdn", {})}


@pytest.mark.parametrize(
    "value, expected",
    [
        (3, [3]), ("1-3", [1, 2, 3]), ("4, 1-2", [4, 1, 2]), ([1, "5-6"], [1, 5, 6]), (" 1 - 2 ,3", [1, 2, 3]),
        (2**32 - 1, [2**32 - 1]),
    ],
)  # fmt: skip
def test_seeds(value, expected):
    problems = []
    assert seeds(value, "seeds", problems) == expected and problems == []


@pytest.mark.parametrize(
    "value, said",
    [
        ("5-1", "'5-1' is neither"), ("x", "'x' is neither"), (-1, "'-1' is neither"), (1.5, "'1.5' is neither"),
        ("", "'' is neither"), (None, "'' is neither"), (True, "'True' is neither"), ([[1]], "[1] is neither"),
        ("1-3, 2", "2 is there twice"), ([], "none are given"), (2**32, "the largest seed is 4294967295"),
        ("1-4000000000", "more than 10000 seeds"), ("1-99999999999", "is neither"),
        ([f"{n}0000-{n}9999" for n in range(1, 3000)], "'20000-29999' makes more than 10000 seeds"),
    ],
)  # fmt: skip
def test_seeds_that_are_none(value, said):
    problems = []
    assert len(seeds(value, "seeds", problems)) <= 10_000
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("{}", "is empty"),
        ("- qmix\n", "holds list, not `key: value` lines"),
        ("just words", "holds str, not"),
        ("algorithms: [qmix\n", "is not valid YAML"),
        (GOOD + "seeds: 3\n", "'seeds' is given twice"),
        (GOOD.replace("[qmix]", "{qmix: , qmix: {lr: 1}}"), "'qmix' is given twice"),
        ("a: \x00", "is not valid YAML"),
    ],
)
def test_no_study_at_all(text, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        study(tmp_path, text)
    assert said in str(error.value) and "study.yaml" in str(error.value)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("seeds", "seedz", "unknown key 'seedz'; known: title, question"),
        ("seeds", "seedz", "did you mean 'seeds'?"),
        ("seeds", "seedz", "missing key 'seeds'"),
        ("[qmix]", "[qmx]", "'qmx' is no file of config/algs; known: cw_qmix,"),
        ("[qmix]", "[qmx]", "did you mean 'qmix'?"),
        ("[qmix]", "{mine: {lr: 1}}", "a label of your own needs config: NAME"),
        ("[qmix]", "{mine: {config: qmx}}", "'qmx' is no file"),
        ("[qmix]", "[qmix, qmix]", "'qmix' is there twice"),
        ("[qmix]", "qmix", "must be a list of names"),
        ("[qmix]", "[1, {a: b}]", "must be a list of names"),
        ("[qmix]", "[]", "none are given, so there is nothing to run"),
        ("[two_step]", "", "environments: none are given"),
        ("[two_step]", "[twostep]", "did you mean 'two_step'?"),
        ("[qmix]", "{qmix: fast}", "algorithms: qmix: 'fast' must be a mapping"),
        ("[qmix]", "{qmix: {seed: 1}}", "algorithms: qmix: seed is set by the sweep"),
        ("[qmix]", "{qmix: {env_args: 3}}", "env_args: 3 must be a mapping"),
        ("[qmix]", "{a/b: {config: qmix}}", "the label 'a/b' names a folder"),
        ("[qmix]", "{..: {config: qmix}}", "the label '..' names a folder"),
        ("[qmix]", "{-x: {config: qmix}}", "the label '-x' names a folder"),
        ("[qmix]", f"{{{'ä' * 51}: {{config: qmix}}}}", "1 to 100 bytes"),
        ("1-2", "1-2\nallow_different: batch_size_run", "must be a list of keys"),
        ("1-2", "1-2\nallow_different: [batch_size_rum]", "did you mean 'batch_size_run'?"),
        ("1-2", "1-2\noverrides: 3", "overrides: 3 must be a mapping"),
        ("1-2", "1-2\noverrides: {name: x}", "overrides: name is set by the sweep"),
        ("1-2", "1-2\ntitle: [a]", "title: ['a'] must be text"),
    ],
)
def test_problems_of_form(old, new, said, tmp_path):
    got = study(tmp_path, GOOD.replace(old, new))
    assert any(said in problem for problem in got.problems), got.problems


def test_a_study_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    with pytest.raises(ConfigError, match="none in studies/"):
        read_study("studies/prey.yaml")
    for name in ("predator_prey", "matrix"):
        (tmp_path / "studies" / f"{name}.yaml").write_text(GOOD)
    with pytest.raises(ConfigError) as error:
        read_study("predator_pray.yaml")
    assert "studies/matrix.yaml, studies/predator_prey.yaml; did you mean 'predator_prey'?" in str(error.value)
    with pytest.raises(ConfigError, match="is a folder; give a study"):
        read_study("studies")


def test_files_of_the_users_own(tmp_path, monkeypatch):
    """Beside the study, else in the working directory; the label is the file's stem, unless the study gives one."""
    (tmp_path / "here").mkdir()
    for name in ("own.yaml", "here/other.yaml", "here/own.yaml"):
        (tmp_path / name).write_text("extends: vdn\n")
    monkeypatch.chdir(tmp_path / "here")
    words = "{own.yaml: , other.yaml: {lr: 0.01}, mine: {config: ./here/own.yaml, gamma: 0.9}}"
    got = study(tmp_path, GOOD.replace("[qmix]", words))
    assert got.problems == []
    assert got.algorithms == {
        "own": (str(tmp_path / "own.yaml"), {}),
        "other": (str(tmp_path / "here" / "other.yaml"), {"lr": 0.01}),
        "mine": (str(tmp_path / "here" / "own.yaml"), {"gamma": 0.9}),
    }
    for words, said in {
        "[own.yaml, here/own.yaml]": "algorithms: 'own' is there twice",
        "[own.yml]": "algorithms: config: 'own.yml': there is no such file beside the study, nor in the working direct",
        "{own: {config: here}}": "algorithms: 'here' is no file of config/algs",
    }.items():
        (problem,) = study(tmp_path, GOOD.replace("[qmix]", words)).problems
        assert problem.startswith(said)
