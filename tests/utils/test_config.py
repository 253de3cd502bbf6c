"""From YAML and the command line to one configuration: precedence, names, messages, explanation."""

import os
import shlex

import pytest
import yaml

from parts import readers
from utils import config_files
from utils.args import ConfigError
from utils.config import EPYMARL, explain, load, load_from, parse_overrides, task_folder, task_name
from utils.config_files import names


def loaded(alg="qtran_alt", env="matrix_game", *words):
    return load(alg, env, parse_overrides(words), readers)


def message(*args):
    with pytest.raises(ConfigError) as caught:
        loaded(*args)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of src/config to change: folder(kind, name, text) writes one file."""
    for kind in ("algs", "envs"):
        (tmp_path / kind).mkdir()
        for name in names(kind):
            text = (config_files.FOLDER / kind / f"{name}.yaml").read_text()
            (tmp_path / kind / f"{name}.yaml").write_text(text)
    (tmp_path / "default.yaml").write_text((config_files.FOLDER / "default.yaml").read_text())
    monkeypatch.setattr(config_files, "FOLDER", tmp_path)
    return lambda kind, name, text: (tmp_path / kind / f"{name}.yaml").write_text(text)


# ---- who wins


def test_default_then_environment_then_algorithm_then_command_line(folder):
    folder("envs", "e", "env: two_step\nenv_args: {}\nlr: 0.2\ngamma: 0.2\nhidden_dim: 2\n")
    folder("algs", "a", "name: a\nlearner: q_learner\nlr: 0.3\ngamma: 0.3\n")
    config = loaded("a", "e", "lr=0.4")
    assert (config.values["lr"], config.values["gamma"], config.values["hidden_dim"]) == (0.4, 0.3, 2)
    files = [config.sources[k] for k in ("lr", "gamma", "hidden_dim", "td_lambda")]
    assert files == ["command line", "config/algs/a.yaml", "config/envs/e.yaml", "config/default.yaml"]


def test_an_algorithm_extends_another(folder):
    folder("algs", "a", "extends: qmix\nname: a\nmixing_embed_dim: 7\n")
    config = loaded("a", "two_step")
    assert config.values["mixing_embed_dim"] == 7 and config.sources["hypernet_embed"] == "config/algs/qmix.yaml"


def test_a_preset_applies_where_the_environment_or_the_command_line_asks_for_it(folder):
    folder("envs", "e", "env: two_step\nenv_args: {}\npreset: battle\n")
    for config in (loaded("qtran_alt", "e"), loaded("qtran_alt", "two_step", "preset=battle")):
        assert config.values["v_input"] == "state_hidden"
        assert config.sources["v_input"] == "config/algs/qtran_alt.yaml [battle]"
    assert loaded("qtran_alt", "e", "v_input=none").values["v_input"] == "none"
    assert loaded("qtran_alt", "e", "preset=None").values["v_input"] == "hidden"
    assert loaded("vdn", "e").values["preset"] == "battle"  # an algorithm without presets stays as it is
    assert "preset = 'batle' is none of qtran_alt's: battle" in message("qtran_alt", "e", "preset=batle")


def test_an_algorithm_s_own_preset_goes_before_the_environment_s(folder):
    folder("algs", "a", "extends: qtran_alt\npreset: battle\n")
    assert [loaded("a", env).values["v_input"] for env in ("two_step", "predator_prey")] == ["state_hidden"] * 2
    assert loaded("a", "two_step", "preset=None").values["v_input"] == "hidden"


def test_a_run_s_file_takes_no_other_preset(tmp_path):
    """It has the values of its preset already: another name would change nothing."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(loaded("qtran_alt", "predator_prey").values))
    for preset in (None, "battle"):
        with pytest.raises(ConfigError, match="preset = .*: the file of a run has the values of its preset already"):
            load_from(tmp_path, {"preset": preset}, readers)
    assert load_from(tmp_path, {"preset": "grid"}, readers).values["opt_loss"] == 0.03


def test_a_copy_of_qtran_s_file_keeps_what_is_added_to_it(tmp_path):
    """Its block for other checkouts is left out, and nothing else."""
    text = (config_files.FOLDER / "algs" / "qtran_alt.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"td_lambda: 0.8\nbuffer_size: 123\n{text}")
    values = loaded(str(mine), "two_step").values
    assert (values["td_lambda"], values["buffer_size"]) == (0.8, 123)
    assert values["epsilon_finish"] == loaded("qtran_alt", "two_step").values["epsilon_finish"] == 1.0
    mine.write_text(text.replace("  td_lambda: 0.0", "  td_lambda: 0.8"))
    assert "mine.yaml: in_hosts: td_lambda = 0.8 is for an EPyMARL checkout alone" in message(str(mine), "two_step")


def test_nested_keys_merge(folder):
    config = loaded("vdn", "predator_prey", "env_args.penalty=1.5", "env_args={'sight': None}")
    assert config.values["env_args"]["sight"] is None
    assert loaded("vdn", "predator_prey", "env_args.penalty=2").values["env_args"]["map_size"] == 5


@pytest.mark.parametrize(
    "alias, key", [("rnn_hidden_dim", "hidden_dim"), ("target_update_interval", "target_update_interval_or_tau"),
                   ("nopt_min_loss", "nopt_loss")],
)  # fmt: skip
def test_names_of_epymarl_and_pymarl_are_accepted(alias, key):
    config = loaded("qtran_alt", "matrix_game", f"{alias}=3")
    assert config.values[key] == 3 and alias not in config.values


# ---- words after `with`


@pytest.mark.parametrize(
    "word, value",
    [
        ("lr=5e-4", 0.0005), ("lr=abc", "abc"), ("lr=", ""), ("seed=None", None), ("seed=null", None),
        ("lr={{}}", "{{}}"), ("use_cuda=False", False), ("label=a=b", "a=b"), ("label=two words", "two words"),
    ],
)  # fmt: skip
def test_words_are_read_as_sacred_reads_them(word, value):
    assert parse_overrides([word]) == {word.split("=")[0]: value}


def test_nested_words():
    assert parse_overrides(["env_args.payoff=[[5,0],[0,9]]"]) == {"env_args.payoff": [[5, 0], [0, 9]]}


def test_a_mapping_within_env_args_by_dotted_words():
    words = ["env_args.kwargs.a=1", "env_args.kwargs.b.c=x", "env_args.key=y"]
    assert parse_overrides(words) == {"env_args.kwargs": {"a": 1, "b": {"c": "x"}}, "env_args.key": "y"}


CODE = "{'py/reduce':[{'py/function':'os.system'},{'py/tuple':['touch %s']}]}"


@pytest.mark.parametrize("key", ["label", "env_args.kwargs", "lr"])
def test_no_value_runs_code(key, tmp_path):
    with pytest.raises(ConfigError, match="the key 'py/reduce', which jsonpickle would decode"):
        parse_overrides([f"{key}={CODE % (tmp_path / 'ran')}"])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"env": "gymma", "env_args": {"kwargs": {"py/reduce": [1]}}}))
    with pytest.raises(ConfigError, match="holds the key 'py/reduce'"):
        load_from(str(tmp_path / "c.yaml"), {}, readers)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["foo"], "'foo' is not KEY=VALUE"),
        (["env_args=5"], "must be a mapping"),
        (["label=b'x'"], "label: \"b'x'\" holds a value of type bytes"),
        ([f"lr=0x{'f' * 5000}"], "lr: '0xfffffffffffffffffffff…' holds a whole number of more than 300 digits"),
        ([f"lr={{(0x{'f' * 5000}, 1): 2}}"], "holds a key that is a tuple, no text"),
        (["lr={1,2}"], "a value of type set"),
        (["lr=1j"], "a value of type complex"),
        (["lr=0.1", "lr.x=2"], "lr.x and lr are both given"),
        (["lr.x=2", "lr=0.1"], "lr and lr.x are both given"),
        (["lr=" + "-" * 5000 + "1"], "is nested too deep"),
        (["lr=" + "[" * 90 + "]" * 90], "more than 50 levels"),
        (["name='\\ud800'"], "not valid Unicode"),
        (["=1"], "is not KEY=VALUE"),
        ([".env_args.key=x"], "'.env_args.key=x' names no key: a part of it is empty"),
        (["env_args..key=x"], "names no key"),
        (["env_args.=x"], "names no key"),
    ],
)
def test_other_words_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        parse_overrides(words)


def test_an_empty_mapping_gives_way_to_what_comes_later():
    assert parse_overrides(["lr={}", "lr=0.1"]) == {"lr": 0.1}


def test_a_seed_is_chosen_where_none_is_given():
    first, second = loaded(), loaded()
    assert first.sources["seed"] == "chosen now" and first.values["seed"] != second.values["seed"]


# ---- messages


@pytest.mark.parametrize(
    "words, said",
    [
        (["gama=0.9"], "command line: unknown key 'gama' (value 0.9); did you mean 'gamma'?"),
        (["penalty=1"], "unknown key 'penalty' (value 1); did you mean 'env_args.penalty'?"),
        (["env_args.kay=x"], "unknown key 'env_args.kay' (value 'x'); did you mean 'env_args.key'?"),
        (["env_args.sight=1"], "unknown key 'env_args.sight' (value 1); it belongs to predator_prey"),
        (["Env_Args.sight=1"], "unknown key 'Env_Args' (value {'sight': 1}); did you mean 'env_args'?"),
        (["hypernet_embed=1"], "'hypernet_embed' (value 1); it belongs to cw_qmix, ow_qmix, qmix, qplex, resq"),
        (["alpha=0.5"], "unknown key 'alpha' (value 0.5); it belongs to cw_qmix, ow_qmix"),
        (["rnn_hidden_dim=8", "hidden_dim=9"], "rnn_hidden_dim = 8 and hidden_dim = 9 are one key; give one"),
        (["presets={}"], "unknown key 'presets' (value {}); did you mean 'preset'?"),
        (["map_size=3"], "unknown key 'map_size' (value 3); env_args.map_size belongs to predator_prey"),
        (["env_args.key=climb"], "is not one of qtran_3x3, qtran_21x21, two_state, climbing, penalty; did you mean "),
        (["action_selector=epsilon_gredy"], "unknown action selector 'epsilon_gredy'; known: epsilon_greedy"),
        (["mixer=qtran"], "command line: mixer: unknown mixer 'qtran'; known: "),
        (["batch_size=3000"], "batch_size = 3000 is larger than buffer_size = 2000 (episodes)"),
        (["batch_size_run=3000"], "batch_size_run = 3000 is larger than buffer_size = 2000 (episodes)"),
        (["use_wandb=True"], "use_wandb needs both wandb_team and wandb_project"),
        (["mongo_url=mongodb://x"], "mongo_db is not set"),
    ],
)  # fmt: skip
def test_bad_values(words, said):
    assert said in message("qtran_alt", "matrix_game", *words)


def test_a_number_where_text_belongs_says_how_to_write_it():
    said = message("vdn", "sc2", "env_args.game_version=4.10")
    assert """game_version = 4.1 must be text (a number as text: '4.10' in YAML, "'4.10'" on a command line)""" in said
    config = loaded("vdn", "sc2", *shlex.split("""env_args.game_version="'4.10'" env_args.difficulty="'3'\""""))
    assert config.values["env_args"]["game_version"] == "4.10" and config.values["env_args"]["difficulty"] == "3"


@pytest.mark.parametrize("game, said", [("sc2", "the map says how many"), ("sc2v2", "the scenario says who fights")])
def test_more_agents_than_the_map_has(game, said):
    told = message("qtran_alt", game, "env_args.n_agents=9")
    assert f"unknown key 'env_args.n_agents' (value 9); {said}" in told and "give another env_args.map_name" in told


def test_a_key_that_epymarl_lists_and_does_not_read_is_told():
    told = message("qtran_alt", "sc2v2", "env_args.time_limit=150")
    assert "unknown key 'env_args.time_limit' (value 150); the map has a limit of its own" in told


@pytest.mark.parametrize(
    "word, said",
    [
        ("test_greedy=True", "evaluation_epsilon=0.0 plays tests greedily"),
        ("q_nstep=5", "it is read by EPyMARL's COMA, IA2C"),
        ("cg_edges=full", "it is read by EPyMARL's DCG"),
        ("env_args.max_cycles=9", "env_args.kwargs.max_cycles for the game's own limit"),
        ("env_args.common_reward=True", "did you mean 'common_reward'?"),
    ],
)
def test_keys_of_epymarl_without_a_meaning_here_are_named_with_what_replaces_them(word, said):
    told = message("qmix", "gymma", word)
    assert f"unknown key '{word.split('=')[0]}'" in told and said in told


def test_no_key_that_is_read_is_called_one_without_a_meaning():
    games = ("gymma", "sc2", "smax", "predator_prey")
    read = {key for alg in names("algs") for game in games for key in load(alg, game, {}, readers).schema}
    assert not read & EPYMARL.keys()


def test_all_problems_are_in_one_message():
    said = message(
        "qtran_alt", "matrix_game", "lr=abc", "gama=1", "batch_size=0", "batch_size_run=3000", "env_args.x=1"
    )
    for part in ("lr = 'abc'", "'gama'", "batch_size = 0", "'env_args.x'"):
        assert part in said
    said = message("qtran_alt", "matrix_game", "mixer=qtran", "agent=rnm", "lr=abc")
    assert all(part in said for part in ("mixer 'qtran'", "agent 'rnm'", "lr = 'abc'"))


def test_unknown_and_missing_files_are_named_together():
    said = message("qtran_atl", "matrix_gam")
    assert "--config=qtran_atl" in said and "'qtran_alt'" in said and "'matrix_game'" in said
    assert "missing --config=NAME; known: cw_qmix" in message(None, "matrix_game")


@pytest.mark.parametrize(
    "text, said",
    [
        ("lr: 5e-4\n", "c.yaml: lr = '5e-4' is text (5e-4 is read as text; write 0.0005), must be a number"),
        ("lr: [1\n", "c.yaml is not valid YAML"),
        ("- lr\n", "must hold `key: value` lines, not list"),
        ("", "must hold `key: value` lines, not NoneType"),
        ("3: 4\n", "c.yaml: unknown key 3 (value 4)"),
        ("env_args: 5\n", "c.yaml: env_args = 5 must be a mapping"),
        ("\xff: 1\n", "c.yaml is not valid YAML"),
        ("lr: 1\nlr: 2\n", "c.yaml is not valid YAML: 'lr' is given twice, line"),
        ("a: 2026-02-31\n", "a value is not what its type says: day is out of range for month"),
        ("a: 2026-02-01\n", "holds a value of type date"),
        ("a: !!int abc\n", "c.yaml is not valid YAML"),
        ("a: !!int ''\n", "c.yaml is not valid YAML"),
        ("a: !!bool x\n", "c.yaml is not valid YAML"),
        ("a: !!timestamp x\n", "c.yaml is not valid YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "c.yaml is not valid YAML"),
        ("a: " + "9" * 5000 + "\n", "c.yaml is not valid YAML"),
        ("a: " + "[" * 500 + "]" * 500 + "\n", "c.yaml, line 1: more than 50 levels of lists"),
        ("a: " + "[" * 25000 + "\n", "c.yaml, line 1: more than 50 levels of lists"),
        ("- " * 25000 + "a\n", "c.yaml, line 1: more than 50 levels of lists"),
        ("a: &a [*a]\n", "more than 50 levels of lists"),
        (
            "a: &a [1,2,3,4,5,6,7,8,9]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")),
            "more than 100000 values",
        ),
        (f"x: [1, 0x{'f' * 5000}]\n", "c.yaml: x: holds a whole number of more than 300 digits"),
    ],
)
def test_a_bad_file_is_named(text, said, tmp_path):
    path = tmp_path / "c.yaml"
    values = loaded("vdn", "two_step").values if text[:2] in ("lr", "3:", "en") else {}
    values = {k: v for k, v in values.items() if not text.startswith(f"{k}:")}
    path.write_bytes(((yaml.safe_dump(values) if values else "") + text).encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_from(path, {}, readers)
    assert said in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is not a file"):
        load_from(str(tmp_path / "pipe"), {}, readers)


def test_files_that_extend_each_other_are_told_and_spoil_no_other_run(folder):
    for name, base in (("a", "b"), ("b", "a"), ("c", "nowhere")):
        folder("algs", name, f"# mine\nextends: {base}\n")
    folder("algs", "d", "[")
    with pytest.raises(ConfigError, match="a extends b extends a: these files extend each other in a circle"):
        loaded("a", "two_step")
    with pytest.raises(ConfigError, match="extends = 'nowhere': unknown"):
        loaded("c", "two_step")
    with pytest.raises(ConfigError, match="unknown key 'gama'.*did you mean 'gamma'"):
        loaded("vdn", "two_step", "gama=1")


def test_files_of_ones_own_that_extend_each_other(tmp_path, monkeypatch):
    """Beside the file that names it, else in the working directory; a circle is one however a path is spelled."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "sub/a": "extends: b.yaml",
        "sub/b": "extends: vdn\nlr: 0.1",
        "b": "extends: vdn\nlr: 0.2",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert loaded("sub/a.yaml", "two_step").values["lr"] == 0.1
    (tmp_path / "sub" / "b.yaml").unlink()
    assert loaded("sub/a.yaml", "two_step").values["lr"] == 0.2
    (tmp_path / "b.yaml").unlink()
    assert message("sub/a.yaml", "two_step") == "sub/a.yaml: extends = 'b.yaml': there is no such file"
    (tmp_path / "sub" / "a.yaml").write_text("extends: ../sub/a.yaml")
    assert message("sub/a.yaml", "two_step").endswith("in a circle")


@pytest.mark.parametrize(
    "text, said",
    [
        ("presets: 3", "algs/a.yaml: presets = 3 must be a mapping"),
        ("presets: {grid: [1]}", "algs/a.yaml: presets: grid = [1] must be a mapping"),
        ("in_hosts: 3", "algs/a.yaml: in_hosts = 3 must be a mapping"),
        ("extends: [qmix]", "algs/a.yaml: extends = ['qmix']: unknown"),
        ("preset: [grid]", "algs/a.yaml: preset = ['grid'] is none of a's: it has none"),
        ("env_args: 3", "algs/a.yaml: env_args = 3 must be a mapping"),
        ("mixer: qmx", "algs/a.yaml: mixer: unknown mixer 'qmx'"),
    ],
)
def test_a_file_of_another_form_is_named(text, said, folder):
    folder("algs", "a", f"# mine\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        loaded("a", "predator_prey")
    assert said in str(caught.value)


def test_what_means_nothing_is_left_out(folder):
    folder("algs", "a", "extends: vdn\npresets:\nin_hosts:\n")
    folder("algs", "b", "extends: a\npresets: {grid: }\n")
    assert loaded("b", "predator_prey").values["mixer"] == "vdn"


def test_what_is_no_configuration_of_a_run(tmp_path):
    (tmp_path / "summary.json").write_text('{"status": "finished", "name": "vdn", "seed": 1}')
    with pytest.raises(ConfigError, match="summary.json is no configuration of a run; give the run's folder"):
        load_from(tmp_path / "summary.json", {}, readers)


def test_a_key_that_a_class_reads_and_no_file_gives_is_named(tmp_path):
    values = loaded("vdn", "two_step").values
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if k != "gamma"}))
    with pytest.raises(ConfigError, match="missing key 'gamma', which QLearner reads: discount"):
        load_from(tmp_path, {}, readers)


# ---- every file


@pytest.mark.parametrize("env", names("envs"))
@pytest.mark.parametrize("alg", names("algs"))
def test_every_pair_of_files_is_complete_and_explained(alg, env):
    config = loaded(alg, env, "seed=1")
    assert config.values["name"] == alg
    rows = explain(config)
    keys = set(config.values) - {"env_args"} | {f"env_args.{k}" for k in config.values["env_args"]}
    assert {row[0] for row in rows} == keys == set(config.schema)
    assert all(source and reader and meaning for _, _, source, reader, meaning in rows)


def test_an_explanation_has_value_who_set_it_who_reads_it_and_its_unit():
    rows = {row[0]: row[1:] for row in explain(loaded("qtran_alt", "matrix_game", "t_max=7"))}
    meaning = "length of training [environment steps] (≥ 1)"
    assert rows["t_max"] == (7, "command line", "Training, QTranLearner", meaning)
    assert rows["env_args.penalty"][1:3] == ("config/envs/matrix_game.yaml", "MatrixGame")
    assert "(joint | additive)" in rows["td_target"][3]


def test_the_task_is_the_map_the_key_or_the_environment():
    assert task_name({"env": "sc2", "env_args": {"map_name": "3m", "key": "x"}}) == "3m"
    assert task_name({"env": "gymma", "env_args": {"key": "rware:tiny/v1"}}) == "rware:tiny_v1"
    assert task_name({"env": "two_step", "env_args": {}}) == "two_step"


@pytest.mark.parametrize(
    "word, said",
    [
        ("lr=1e999", "lr = inf must be finite"),
        ("t_max=1" + "0" * 300, "must be at most 9223372036854775807"),
        ("t_max=" + "9" * 5000, "is text"),
        ("gamma=1" + "0" * 320, "more than 300 digits"),
        ("num_threads=10000000000000", "must be at least 1 and at most 1024"),
        ("seed=01", r"write 1\)"),
        ("preset=[]", r"preset = \[\] is none of vdn's"),
        ("name=" + "x" * 300, "to 100 bytes"),
        ("name=" + "ä" * 51, "to 100 bytes"),
        ("name=../../x", "names a folder"),
        ("name='a\\nb'", "names a folder"),
        ("name=", "1 to 100 bytes"),
        ("name=' .. '", "names a folder"),
        ("mixer=qmix", "missing key 'hypernet_embed', .*; command line: mixer = 'qmix', which decides what is read"),
        ("env=matrix_game", "missing key 'env_args.clip', .*; command line: env = 'matrix_game', which decides"),
    ],
)
def test_values_that_no_run_can_have(word, said):
    with pytest.raises(ConfigError, match=said) as caught:
        loaded("vdn", "two_step", word)
    assert len(str(caught.value)) < 1500


def test_the_home_folder_may_be_written_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert loaded("vdn", "two_step", "local_results_path=~/r").values["local_results_path"] == "/home/me/r"


def test_the_folder_of_a_map_says_which_game_it_is():
    folders = {env: task_folder({"env": env, "env_args": {"map_name": "3m"}}) for env in ("sc2", "smax", "smaclite")}
    assert folders == {"sc2": "3m", "smax": "smax_3m", "smaclite": "smaclite_3m"}
    assert task_folder({"env": "gymma", "env_args": {"key": "rware:tiny-v1"}}) == "rware_tiny-v1"
