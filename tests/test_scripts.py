"""The commands of studies/ and bench/: each answers --help by itself, and bad input is one message."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import greedy_choices
import predator_prey_fit
import pytest
import results_figure
import squeeze_joint_value
from command import ROOT, as_in_the_foreground, full_disk, here, outcome, wait_until, words
from made_runs import ours

sys.path.append(str(ROOT / "bench"))  # behind src, whose names it shares

import matrix_seeds

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in ("studies", "bench") for path in (ROOT / folder).glob("*.py")
)
NO_COMMAND = ["bench/side.py"]  # bench/run.py starts it, and talks with it on stdin
WITH_PATH = ["bench/env_vector.py", "bench/smax.py"]  # called as `PYTHONPATH=src python …`, which they say


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in NO_COMMAND])
def test_each_script_answers_help(script, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(ROOT / "src")} if script in WITH_PATH else {}
    done = subprocess.run([sys.executable, ROOT / script, "--help"], cwd=tmp_path, env=env, **PIPES)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and done.stderr == "", done


def bad(command, capsys, argv, said):
    ended = outcome(command, capsys, argv)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err, ended


# ---- studies/predator_prey_fit.py


@pytest.mark.parametrize(
    "argv, said",
    [
        (["qplexx"], "did you mean 'qplex'?"),
        (["vdn", "nonsense"], "'nonsense' is not KEY=VALUE"),
        (["vdn", "every=0"], "every: 0 must be at least 1"),
        (["vdn", "updates=x"], "updates: 'x' is text, must be a whole number"),
        (["vdn", "gamm=1"], "unknown key 'gamm'"),
        ([], "the following arguments are required: ALGORITHM"),
    ],
)
def test_bad_input_of_predator_prey_fit(argv, said, capsys):
    bad(predator_prey_fit.main, capsys, argv, said)


def test_predator_prey_fit_scores_both_policies(capsys, monkeypatch):
    monkeypatch.setattr("optima.Transitions.policy_return", lambda *_: 1.5)  # tests/test_optima.py is about it
    done = outcome(predator_prey_fit.main, capsys, ["qtran_alt", "updates=0", "batch=8", "hidden_dim=8"])
    said = "qtran_alt updates=0 batch=8 hidden_dim=8: 0 updates: agents 1.50, joint 1.50\n"
    assert done.code == 0 and done.out == said, done


# ---- the pictures


TABLES = {
    "payoff": [[8.0, 0.0], [0.0, 6.0]], "q_i": [[1.0, 0.0], [1.0, 0.0]], "q_jt": [[7.0, 0.0], [0.5, 6.0]],
    "q_prime": [[2.0, 1.0], [1.0, 0.0]], "v_jt": 3.0, "greedy_joint_action": [0, 0], "greedy_payoff": 8.0,
    "best_payoff": 8.0,
}  # fmt: skip
PIECES = {
    "no tables": (None, "it has no tables.json"),
    "damaged": ({"payoff": 1}, "is not as a run writes it"),
    "no joint value": (TABLES | {"q_jt": None, "v_jt": None}, "has no joint value"),
    "three agents": (TABLES | {"q_i": [[1.0, 0.0]] * 3}, "only games of two agents"),
    "two states": ({"states": [TABLES, TABLES]}, "with a single state"),
    "another game": (TABLES | {"payoff": [[1.0, 0.0], [0.0, 6.0]]}, "are of different games"),
}


def left(folder, tables, **keys):
    path = ours(folder, **keys)
    if tables is not None:
        (path / "tables.json").write_text(json.dumps(tables))
    return path


@pytest.mark.parametrize("piece", PIECES)
def test_runs_that_greedy_choices_cannot_draw(piece, tmp_path, capsys):
    tables, said = PIECES[piece]
    runs = [left(tmp_path, TABLES, name="qtran_alt"), left(tmp_path, tables, name="qmix")]
    bad(greedy_choices.main, capsys, [*runs, "--out", tmp_path / "a.png"], said)
    assert not (tmp_path / "a.png").exists()


def test_folders_that_greedy_choices_cannot_use(tmp_path, capsys):
    run = left(tmp_path, TABLES)
    bad(greedy_choices.main, capsys, [tmp_path / "nowhere", "--out", tmp_path / "a.png"], "nowhere: no such folder")
    bad(greedy_choices.main, capsys, [run, "--out", tmp_path / "no" / "a.png"], "a.png: cannot be written")
    bad(greedy_choices.main, capsys, [run, "--out", tmp_path / "a.xyz"], "a.xyz: cannot be written")
    (run / "config.yaml").unlink()
    bad(greedy_choices.main, capsys, [run, "--out", tmp_path / "a.png"], "config.yaml")


def test_a_place_where_results_figure_cannot_write(tmp_path, capsys):
    bad(results_figure.main, capsys, [tmp_path / "no" / "a.png"], "a.png: cannot be written")


# ---- studies/squeeze_joint_value.py


def test_bad_input_of_squeeze_joint_value(tmp_path, capsys):
    bad(
        squeeze_joint_value.main, capsys, [tmp_path, "--draws", "1"], "--draws: '1' is not a whole number of at least 2"
    )
    bad(squeeze_joint_value.main, capsys, [tmp_path, "--starts", "0"], "'0' is not a whole number of at least 1")
    bad(squeeze_joint_value.main, capsys, [tmp_path], "config.yaml")
    run = here(capsys, words("qtran_base", "gaussian_squeeze", tmp_path, "save_model=False")).path
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    bad(squeeze_joint_value.main, capsys, [run], "checkpoint")


# ---- bench/matrix_seeds.py

STAND_IN = """\
import json, sys, time
from pathlib import Path

given = dict(word.split("=", 1) for word in sys.argv[sys.argv.index("with") + 1 :])
seed, path = int(given["seed"]), Path(given["local_results_path"], sys.argv[1], given["seed"])
if given.get("fails") == str(seed):
    sys.exit("error: it has failed")
if given.get("waits") == str(seed):
    (Path(__file__).parent / "waits").touch()
    time.sleep(60)
path.mkdir(parents=True)
(path / "tables.json").write_text(json.dumps(TABLES | {"greedy_payoff": float(seed)}))
(path / "summary.json").write_text(json.dumps({"wall_time_s": 1.0}))
print(f"run directory: {path}")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The path of what stands for src/main.py, which takes the keys `fails` and `waits`, a seed each."""
    path = tmp_path / "stand_in.py"
    path.write_text(f"TABLES = {TABLES!r}\n{STAND_IN}")
    monkeypatch.setattr(matrix_seeds, "MAIN", path)
    return path


@pytest.mark.parametrize(
    "argv, said",
    [
        ("--seeds 5-1", "--seeds: '5-1' is not a range of at most 100,000 seeds"),
        ("--seeds one", "--seeds: 'one' is not a seed"),
        ("--workers 0", "--workers: '0' is not a whole number of at least 1"),
        ("--shape 1x1", "--shape: '1x1' has one joint action"),
        ("--shape abc", "--shape: 'abc' is not a number of actions"),
        ("--shape 3", "--shape: '3' is not a number of actions"),
        ("--shape 999x999", "--shape 999x999: give a shape of at most 100000 joint actions"),
        ("--out {tmp}/no/x.json", "x.json: cannot be written: No such file or directory"),
        ("--out {tmp}", "is not a file; give --out FILE"),
        ("--algorithms vdn qplexx", "did you mean 'qplex'?"),
        ("--algorithms vdn t_maxx=64", "unknown key 't_maxx'"),
        ("--algorithms t_max=64", "--algorithms: no name is given"),
        ("t_max", "'t_max' is not KEY=VALUE"),
        ("env_args.payoff=[[1,2],[3]]", "env_args.payoff[1]: has 1 entries instead of 2"),
    ],
)
def test_bad_input_of_matrix_seeds_is_told_before_anything_runs(argv, said, tmp_path, stand_in, capsys):
    stand_in.write_text("raise SystemExit('it runs')")
    bad(matrix_seeds.main, capsys, argv.format(tmp=tmp_path).split(), said)


@pytest.mark.parametrize("text, seeds", [("3", [3]), ("1-3", [1, 2, 3]), ("1-2,7,2", [1, 2, 7])])
def test_seeds_of_matrix_seeds(text, seeds, stand_in, tmp_path, capsys):
    argv = ["--seeds", text, "--algorithms", "vdn", "qmix", "t_max=64", "--workers", 3, "--out", tmp_path / "x.json"]
    done = outcome(matrix_seeds.main, capsys, argv)
    assert done.code == 0, done
    results = json.loads((tmp_path / "x.json").read_text())
    assert {name: [run["seed"] for run in runs] for name, runs in results.items()} == {"vdn": seeds, "qmix": seeds}
    assert results["vdn"][0] == {
        "greedy_payoff": float(seeds[0]), "best_payoff": 8.0, "regret": (8 - seeds[0]) / 8, "gap": 1.0,
        "max_abs_q_jt_error": 1.0, "mean_square_q_jt_error": 0.3125, "seed": seeds[0], "wall_time_s": 1.0,
    }  # fmt: skip
    assert f"qmix: the greedy joint action is the best one in 0 of {len(seeds)} seeds\n" in done.out


def test_a_real_run_of_matrix_seeds(tmp_path, capsys):
    argv = ["--seeds", 1, "--algorithms", "qtran_alt", "t_max=64", "hidden_dim=8", "--out", tmp_path / "x.json"]
    done = outcome(matrix_seeds.main, capsys, argv)
    assert done.code == 0 and "block" in done.out, done
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["qtran_alt"]


def test_a_run_of_matrix_seeds_that_fails_leaves_the_others(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(matrix_seeds, "check", lambda *_: None)  # it does not know the stand-in's keys
    with pytest.raises(SystemExit, match="exit status 1\nerror: it has failed"):
        matrix_seeds.main(["--seeds", "1-3", "--workers", "1", "--out", str(tmp_path / "x.json"), "fails=2"])
    assert [run["seed"] for run in json.loads((tmp_path / "x.json").read_text())["qtran_alt"]] == [1]


def test_a_full_disk_is_told_by_matrix_seeds(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.rundir.write_atomically", full_disk)
    argv = ["--seeds", 1, "--algorithms", "vdn", "--out", tmp_path / "x.json"]
    bad(matrix_seeds.main, capsys, argv, "cannot be written: No space left on device")


def test_ctrl_c_leaves_the_finished_runs_of_matrix_seeds(stand_in, tmp_path):
    argv = ["--seeds", "1-3", "--workers", "1", "--out", str(tmp_path / "x.json"), "waits=3"]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'bench')!r}); import matrix_seeds, pathlib; "
        f"matrix_seeds.MAIN = pathlib.Path({str(stand_in)!r}); matrix_seeds.check = lambda *_: None; "
        f"sys.exit(matrix_seeds.main({argv!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], preexec_fn=as_in_the_foreground, **PIPES)
    wait_until(lambda: Path(tmp_path / "waits").exists(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=50)  # the run that waits is ended
    assert process.returncode == 130 and err.endswith("x.json has the runs that finished\n") and "Trace" not in err, err
    assert [run["seed"] for run in json.loads((tmp_path / "x.json").read_text())["qtran_alt"]] == [1, 2]
