"""What docs/extending.md shows, as it is written: trained, stopped and resumed, evaluated, loaded, reported."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import ROOT, here, outcome

import report
from parts import readers
from utils.config import load, load_from

ALGORITHMS = ["vdn_state", "weighted_sum", "window_agent", "boltzmann"]
EXAMPLES = ROOT / "examples"
TINY = [
    "t_max=48", "batch_size=4", "buffer_size=16", "batch_size_run=2", "updates_per_run=1", "test_nepisode=2",
    "test_interval=16", "learner_log_interval=1", "learning_starts=0", "use_cuda=False", "seed=1", "keep_replay=True",
]  # fmt: skip


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch):
    monkeypatch.chdir(ROOT)


def trained(capsys, folder, config, env_config, *more):
    words = [f"--config={config}", f"--env-config={env_config}", "with", *TINY, f"local_results_path={folder}", *more]
    run = here(capsys, words)
    assert run.code == 0, run.err
    return run


CASES = [(f"examples/{name}.yaml", "two_step") for name in ALGORITHMS] + [("qtran_alt", "examples/meeting.yaml")]


@pytest.mark.parametrize("config, env_config", CASES)
def test_an_example_trains_resumes_and_is_evaluated(config, env_config, tmp_path, capsys):
    whole = trained(capsys, tmp_path / "whole", config, env_config, "t_max=96")
    half = trained(capsys, tmp_path / "half", config, env_config)
    longer = here(capsys, ["--resume", half.path, "with", "t_max=96"])
    assert longer.code == 0 and longer.figures == whole.figures  # also what its own networks learned
    played = here(capsys, ["--from", whole.path, "with", "evaluate=True", f"local_results_path={tmp_path / 'e'}"])
    assert played.code == 0 and played.summary["test"] == whole.summary["test"]
    log = (played.path / "log.txt").read_text()
    assert "each episode: " in log and "Recent Stats" in log  # what comes last is there too
    episodes = (played.path / "episodes.csv").read_text().splitlines()
    assert len(episodes) == 1 + 2 and episodes[0].startswith("episode,return,length")


WINDOW = ("agent=examples.window_agent:WindowAgent", "window=4")


@pytest.mark.parametrize("name", ["qtran_base", "qtran_alt"])
def test_qtran_reads_a_memory_of_any_width(name, tmp_path, capsys):
    """WindowAgent's are 4 observations of 3 numbers, beside a hidden layer of hidden_dim."""
    run = trained(capsys, tmp_path, name, "two_step", *WINDOW, "hidden_dim=5")
    weights = torch.load(f"{run.path}/checkpoints/{run.summary['t_env']}/mixer.th", weights_only=True)
    assert run.summary["updates"] > 0 and weights["encode_q.0.weight"].shape == (12 + 2, 12 + 2)


def test_qtran_by_a_memory_of_any_width_resumes_and_is_loaded(tmp_path, capsys):
    from qtran import load_policy, make

    whole = trained(capsys, tmp_path / "whole", "qtran_alt", "two_step", *WINDOW, "t_max=96")
    half = trained(capsys, tmp_path / "half", "qtran_alt", "two_step", *WINDOW)
    longer = here(capsys, ["--resume", half.path, "with", "t_max=96"])
    assert longer.code == 0 and longer.figures == whole.figures
    assert load_policy(whole.path)(make("two_step").reset(seed=1)).shape == (1, 2)


def test_the_agent_for_images_names_the_games_that_it_fits(tmp_path, capsys):
    words = ["--config=examples/conv_agent.yaml", "--env-config=two_step", "with", *TINY]
    run = here(capsys, [*words, f"local_results_path={tmp_path / 'r'}"])
    assert run.code == 2 and "observations have the shape [3]; it is for games that show images" in run.last_line
    assert not (tmp_path / "r").exists()


def test_a_game_of_ones_own_in_worker_processes(tmp_path, capsys):
    runs = [
        trained(capsys, tmp_path / str(i), "vdn", "examples/meeting.yaml", "env_workers=True", "t_max=30")
        for i in range(2)
    ]
    assert runs[0].figures == runs[1].figures and "test_met_mean" in runs[0].figures


def test_a_report_shows_them_by_name(tmp_path, capsys):
    for name in ("vdn_state", "weighted_sum"):
        trained(capsys, tmp_path / "results", f"examples/{name}.yaml", "two_step")
    told = outcome(report.main, capsys, [tmp_path / "results", "--out", tmp_path / "out", "--reps=100"])
    assert told.code == 0 and "vdn_state" in (tmp_path / "out" / "report.html").read_text()


def test_a_state_holds_an_own_network_and_a_checkpoint_too(tmp_path, capsys):
    run = trained(capsys, tmp_path, "examples/vdn_state.yaml", "two_step")
    assert (run.path / "checkpoints" / str(run.summary["t_env"]) / "v.th").is_file()


@pytest.mark.parametrize("name", ALGORITHMS + ["meeting"])
def test_an_example_is_short(name):
    code = re.sub(r'""".*?"""', "", (EXAMPLES / f"{name}.py").read_text(), flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("from", "import", "#"))]
    assert len(lines) <= 40
    assert name in (ROOT / "docs" / "extending.md").read_text()


def test_the_notebook(tmp_path):
    """Its cells, one after the other, without Jupyter."""
    cells = json.loads((EXAMPLES / "train_and_play.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[1].startswith("run = train(")
    code[0] = code[0].replace("Path.cwd()", f"Path({str(EXAMPLES)!r})")
    script = "\n".join([*code, "assert run.test['test_return_mean'] == 8 and list(returns) == [8, 8], returns"])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("results/*/two_step/*/summary.json"))) == 2


OWN = """
import torch
from learners.q_learner import QLearner
from learners.value_learner import ValueLearner

class NoLoss(ValueLearner):
    pass

class Hidden(QLearner):
    def __init__(self, *args):
        super().__init__(*args)
        self.second, self.smooth = torch.nn.Linear(2, 2), torch.zeros(1)
        self.other = torch.optim.SGD(self.second.parameters(), lr=1.0)

class Named(QLearner):
    @classmethod
    def make_networks(cls, args):
        return {"mixer": torch.nn.Linear(2, 2)}

class Column(torch.nn.Module):
    reads = ()
    def __init__(self, args):
        super().__init__()
    def forward(self, q):
        return q.sum(-1)

class NoForward(torch.nn.Module):
    pass

class Text(Column):
    reads = ("state")

class HiddenToo(Column):
    reads = ("hidden",)

class Actions(Column):
    reads = ("state", "actions")

class List(Column):
    reads = ["state"]
"""
OWN_GAMES = """
from envs.games.two_step import TwoStep

class Narrow(TwoStep):
    def _observe(self):
        seen = super()._observe()
        return seen._replace(state=seen.state[:, :1])

class Double(TwoStep):
    def _observe(self):
        seen = super()._observe()
        return seen._replace(obs=seen.obs.astype(float), state=seen.state.astype(float))
"""


@pytest.fixture
def own(tmp_path, monkeypatch, capsys):
    """own(*words): the outcome of a run whose working directory has the modules mine, my_games, broken and training."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "my_games.py").write_text(OWN_GAMES)
    (tmp_path / "broken.py").write_text("import math\nmath.no_such_thing\n")
    (tmp_path / "lacks.py").write_text("import no_such_package\n")
    (tmp_path / "odd.py").write_text("class Odd(:\n")
    (tmp_path / "training.py").write_text("class MyLearner: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("utils.own_modules._warned", set())
    yield lambda *words: here(capsys, ["--config=vdn", "--env-config=two_step", "with", *TINY, *words])
    for name in ("mine", "my_games", "broken", "lacks", "odd"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "word, said",
    [
        ("learner=mine:NoLoss", "learner 'mine:NoLoss' lacks the method loss"),
        ("learner=mine:Hidden", "Hidden: a resumed run would not have its second, smooth, other; return networks from"),
        ("learner=mine:Named", "Named: make_networks: a network cannot be called mixer"),
        ("learner=mine:Missing", "mine.py has no Missing"),
        ("learner=mine:Hiden", "did you mean 'Hidden'?"),
        ("modules_path=14", "modules_path = 14 must be text"),
        ("learner=mine:", "is not MODULE:CLASS, such as my_module:MyClass"),
        ("learner=nowhere:X", "no module 'nowhere' in the working directory {here}"),
        ("learner=broken:X", "broken.py, line 2: AttributeError: module 'math' has no attribute 'no_such_thing'"),
        ("learner=lacks:X", "lacks.py, line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("learner=odd:Odd", "odd.py, line 1: SyntaxError: invalid syntax"),
        ("learner=training:MyLearner", "a module 'training' of its own, which hides {here}/training.py"),
        ("mixer=mine:NoForward", "mixer 'mine:NoForward' lacks the method forward"),
        ("mixer=mine:Text", "mixer = mine:Text: its reads is 'state'; it must be a tuple of 'state' and 'obs'"),
        ("mixer=mine:HiddenToo", "mixer = mine:HiddenToo: its reads is ('hidden',)"),
        ("mixer=mine:Actions", "mixer = mine:Actions: its reads is ('state', 'actions')"),
        ("mixer=mine:List", "mixer = mine:List: its reads is ['state']"),
        ("agent=mine:Column", "agent 'mine:Column' lacks the method init_hidden, acting, unroll"),
    ],
)
def test_a_class_of_ones_own_that_cannot_be_used(word, said, own, tmp_path):
    run = own(word)
    assert run.code == 2 and said.format(here=tmp_path) in run.err and "Traceback" not in run.err
    assert not (tmp_path / "results").exists()


def test_a_mixer_whose_values_have_another_shape(own):
    run = own("mixer=mine:Column")
    assert run.code == 1 and "Column gives values of the shape" in run.last_line


@pytest.mark.parametrize("workers", [False, True])
def test_a_game_that_breaks_the_contract_ends_the_run_with_one_message(workers, own):
    run = own("env=my_games:Narrow", f"env_workers={workers}")
    shape = [1, 1] if workers else [2, 1]
    assert run.code == 1 and f"Narrow: state is float32 of the shape {shape}; it must be" in run.last_line
    assert "Traceback" not in run.err and run.summary["status"] == "failed"


def test_a_game_of_float64_trains_as_the_same_one_of_float32(own):
    double, single = own("env=my_games:Double"), own()
    assert double.code == 0 and double.figures == single.figures


def test_a_module_that_ours_hides_is_told(own, tmp_path):
    run = own("learner=mine:Hidden")
    assert f"{tmp_path / 'training.py'} cannot be imported as 'training'" in run.err


def test_the_folder_of_ones_own_modules_is_kept_with_the_run(own, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(OWN + "\nclass Fine(QLearner):\n    pass\n")
    run = own("learner=mine:Fine")
    assert run.code == 0, run.err
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    sys.modules.pop("mine")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    longer = here(capsys, ["--resume", tmp_path / run.path, "with", "t_max=64"])
    assert longer.code == 0, longer.err


def test_what_default_yaml_sets_and_an_own_class_does_not_read_is_left_out_but_not_a_typo(tmp_path):
    values = load("examples/window_agent.yaml", "two_step", {"seed": 1}, readers).values
    assert "head_layers" not in values and "use_rnn" not in values and values["window"] == 4
    for text, said in (("head_layer: 1", "unknown key 'head_layer'"), ("head_layers: 1", "unknown key 'head_layers'")):
        own = f"extends: vdn\nagent: examples.window_agent:WindowAgent\nwindow: 4\n{text}\n"
        (tmp_path / "my.yaml").write_text(own)
        with pytest.raises(ValueError, match=said):
            load(str(tmp_path / "my.yaml"), "two_step", {"seed": 1}, readers)


@pytest.mark.parametrize("parts, same", [("agent", ["agent"]), ("all", ["agent", "mixer"])])
def test_a_new_run_starts_with_the_weights_of_another(parts, same, tmp_path, capsys):
    old = trained(capsys, tmp_path / "old", "qmix", "two_step")
    more = [f"init_from={old.path}", f"init_parts={parts}", "learning_starts=1000", "gamma=0.5", "seed=2"]
    new = trained(capsys, tmp_path / "new", "qmix", "two_step", *more)
    weights = {
        run.path: {
            name: torch.load(f"{run.path}/checkpoints/{run.summary['t_env']}/{name}.th", weights_only=True)
            for name in ("agent", "mixer")
        }
        for run in (old, new)
    }
    for name in ("agent", "mixer"):
        theirs, ours = weights[old.path][name], weights[new.path][name]
        assert all(torch.equal(theirs[k], ours[k]) for k in theirs) == (name in same)
    assert new.metrics[0]["t_env"] < 48 and new.summary["updates"] == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["init_from={old}", "checkpoint_path={old}"], "give one of the two"),
        (["init_from=/nowhere"], "init_from: '/nowhere' is not a folder"),
        (["init_from={old}", "hidden_dim=9"], "does not fit RNNAgent"),
        (["init_from={old}", "init_parts=all"], "was written by 'qmix'"),
        (["init_from={old}", "init_parts=most"], "is not one of agent, all"),
    ],
)
def test_weights_that_a_new_run_cannot_start_with(words, said, tmp_path, capsys):
    old = trained(capsys, tmp_path / "old", "qmix", "two_step").path
    words = [word.format(old=old) for word in words] + [f"local_results_path={tmp_path / 'new'}"]
    alg = "vdn" if "init_parts=all" in words else "qmix"
    refused = here(capsys, [f"--config={alg}", "--env-config=two_step", "with", *TINY, *words])
    assert refused.code == 2 and said in refused.err and not (tmp_path / "new").exists()


def test_what_differs_is_told_when_a_checkpoint_plays_another_game(tmp_path, capsys):
    old = trained(capsys, tmp_path / "old", "vdn", "examples/meeting.yaml").path
    words = ["--config=vdn", "--env-config=examples/meeting.yaml", "with", *TINY, "env_args.length=9"]
    words += [f"checkpoint_path={old}", "evaluate=True", f"local_results_path={tmp_path / 'new'}"]
    played = here(capsys, words)
    assert played.code == 0 and "its run has other keys: env_args.length = 7, here 9" in played.err


def test_training_from_python_raises_for_bad_input(tmp_path, monkeypatch):
    import qtran

    with pytest.raises(qtran.ConfigError, match=r"train\(...\): gamma = 2 must be at least 0 and at most 1"):
        qtran.train("qtran_alt", "two_step", gamma=2, local_results_path=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()
    with pytest.raises(qtran.ConfigError, match="cannot read"):
        qtran.load_policy(tmp_path / "nowhere")


def test_numbers_of_numpy_and_paths_from_python(tmp_path):
    import qtran

    tiny = {key: int(value) for key, value in (word.split("=") for word in TINY) if value.isdigit()}
    given = tiny | {"seed": np.int64(1), "gamma": np.float32(0.5), "use_cuda": np.bool_(False), "save_model": True}
    env_args = {"payoff": np.array([[1, 2], [3, 4]])}
    run = qtran.train("vdn", "matrix_game", local_results_path=tmp_path / "r", env_args=env_args, **given)
    values = load_from(run.path, {}, readers).values
    assert run.status == "finished" and run.path.is_relative_to(tmp_path / "r")
    assert values["seed"] == 1 and values["gamma"] == 0.5 and values["env_args"]["payoff"] == [[1, 2], [3, 4]]
    assert 1 <= run.test["test_return_mean"] <= 4  # as the docstring of Result has it


def test_the_files_of_a_run_from_python_may_be_paths(tmp_path):
    import qtran

    with pytest.raises(qtran.ConfigError, match="gamma = 2"):
        qtran.train(EXAMPLES / "vdn_state.yaml", EXAMPLES / "meeting.yaml", gamma=2, local_results_path=tmp_path / "r")


@pytest.mark.parametrize("n_envs", [0, -1, 1.5, "2"])
def test_a_number_of_environments_that_no_game_can_have(n_envs):
    import qtran

    with pytest.raises(qtran.ConfigError, match=f"n_envs = {n_envs!r} must be a whole number of at least 1"):
        qtran.make("two_step", n_envs=n_envs)
    assert qtran.make("two_step", n_envs=np.int64(2)).n_envs == 2
