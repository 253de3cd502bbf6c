"""The command line: options, exit statuses, bad input that leaves nothing behind, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import PROGRAM, as_in_the_foreground, files, full_disk, here, toy_config, words

import main
from envs import REGISTRY
from envs.games.two_step import TwoStep
from utils.config_files import names

QTRAN = ("qtran_alt", "matrix_game")


# ---- help, list, explain


def test_help_needs_no_torch():
    code = "import sys, main\ntry: main.main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    source = Path(PROGRAM[1]).parent
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    assert all(word in run.stdout for word in ("--config", "--env-config", "--list", "--explain", "exit status"))


def test_list_shows_every_file_and_what_is_installed(capsys, monkeypatch):
    monkeypatch.setattr(TwoStep, "needs", ("no_such_package",))
    monkeypatch.setattr(TwoStep, "install", "pip install -r requirements/none.txt")
    monkeypatch.setenv("COLUMNS", "300")
    run = here(capsys, ["--list"])
    assert run.code == 0 and "yes" in run.out and "pip install -r requirements/none.txt" in run.out
    assert all(name in run.out for kind in ("algs", "envs") for name in names(kind))


def test_list_shows_files_that_cannot_be_read(capsys, tmp_path, monkeypatch):
    for kind in ("algs", "envs"):
        (tmp_path / kind).mkdir()
    (tmp_path / "algs" / "a.yaml").write_bytes(b"# \xe1")
    (tmp_path / "algs" / "b.yaml").symlink_to("nowhere")
    (tmp_path / "envs" / "c.yaml").write_text("# mine [/bold]\nenv: [x]")
    monkeypatch.setattr("utils.config_files.FOLDER", tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    run = here(capsys, ["--list"])
    assert run.code == 0 and "not UTF-8" in run.out and "No such file" in run.out
    assert "mine [/bold]" in run.out and "env = ['x'] must be text" in run.out


@pytest.mark.parametrize(
    "style", [["--config=vdn", "--env-config=two_step"], ["--config", "vdn", "--env-config", "two_step"]]
)
def test_explain_runs_nothing(style, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = here(capsys, [*style, "--explain", "with", "lr=0.3"])
    row = next(line for line in run.out.splitlines() if " lr " in line)
    assert run.code == 0 and all(part in row for part in ("0.3", "command line", "QLearner", "step size"))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "missing --config=NAME; known: cw_qmix"),
        (["--config=vdn"], "missing --env-config=NAME; known: gaussian_squeeze"),
        (["--config=vdn", "--env-config=two_step", "seed=1"], "values come after the word `with`: with seed=1"),
        (["--conf=vdn"], "unrecognized arguments: --conf=vdn"),
        (["--config"], "expected one argument"),
        (["--resume=", "--config=vdn", "--env-config=two_step"], "--resume is empty; give it a path, or leave it out"),
        (["--from", ""], "--from is empty"),
        (["--status="], "--status is empty"),
        (["--from", "nowhere.yaml"], "cannot read nowhere.yaml: No such file"),
        (["--from", "x.yaml", "--config=vdn"], "remove --config and --env-config"),
    ],
)
def test_a_wrong_command_line(argv, said, capsys):
    run = here(capsys, argv)
    assert run.code == 2 and said in run.err and run.out == ""


# ---- bad input: one message, exit status 2, nothing written


def refused(capsys, folder, argv, *said):
    """Check that the command is refused as bad input has to be."""
    run = here(capsys, argv)
    assert run.code == 2, run.err
    assert run.err.count("error:") == 1 and "Traceback" not in run.err and "run directory" not in run.out
    assert all(part in run.err for part in said), run.err
    assert not folder.exists()


@pytest.mark.parametrize(
    "game, values, said",
    [
        (("qtran_atl", "matrix_game"), [], ["--config=qtran_atl: unknown", "did you mean 'qtran_alt'?"]),
        (("qtran_alt", "matrix"), [], ["--env-config=matrix: unknown", "'matrix_game'"]),
        (QTRAN, ["lr=abc", "gamma=1.5", "batch_size=0"], ["lr = 'abc'", "gamma = 1.5", "batch_size = 0"]),
        (QTRAN, ["foo"], ["'foo' is not KEY=VALUE"]),
        (("vdn", "two_step"), ["t_max=1"], ["t_max = 1 is shorter than one episode (2 steps)"]),
        (("vdn", "predator_prey"), ["env_args.episode_limit=25"], ["(25 steps, env_args.episode_limit)"]),
        (QTRAN, ["batch_steps=3", "use_rnn=True"], ["batch_steps = 3 cuts", "use_rnn=False, or batch_steps=null"]),
        (QTRAN, ["batch_steps=3", "obs_last_action=True"], ["give obs_last_action=False"]),
        (QTRAN, ["common_reward=False"], ["common_reward=False", "give common_reward=True"]),
        (QTRAN, ["env_args.payoff=[[1,2],[3]]"], ["env_args.payoff[1]", "1 entries instead of 2"]),
        (QTRAN, ["env_args.payoff=[[1,2],[3,1e999]]"], ["env_args.payoff[1][1]: inf is not a finite number"]),
        (QTRAN, ["env_args.payoff=[[1,2],[3,'x']]"], ["env_args.payoff[1][1]: 'x' is not a finite number"]),
        (QTRAN, ["buffer_size=1000000000000"], ["1000000000000 episodes need", "GiB free", "episodes fit"]),
        (QTRAN, ["evaluate=True"], ["evaluate=True needs checkpoint_path=FOLDER"]),
        (QTRAN, ["checkpoint_path=/no/where"], ["checkpoint_path: '/no/where' is not a folder"]),
        (QTRAN, ["checkpoint_path=/"], ["holds no checkpoint"]),
        (QTRAN, ["mongo_url=http://x", "mongo_db=a"], ["mongo_url 'http://x'", "Invalid URI scheme"]),
    ],
)  # fmt: skip
def test_bad_input(game, values, said, tmp_path, capsys):
    folder = tmp_path / "results"
    refused(capsys, folder, words(*game, folder, *values), *said)


def test_a_refusal_in_a_worker_process_reads_the_same(tmp_path, capsys):
    folder = tmp_path / "results"
    refused(capsys, folder, words(*QTRAN, folder, "env_args.payoff=[[1,2],[3]]", "env_workers=True"), "payoff[1]")


def test_what_only_a_game_can_refuse(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")
    for changes, said in (
        (dict(fault="refuse"), "this game cannot be made"),
        (dict(common_reward=False), "common_reward=False: toy gives one team reward; give common_reward=True"),
        (dict(pays_each=True, common_reward=False, alg="qtran_alt"), "QTRAN factorises one team reward"),
        (dict(pays_each=True, common_reward=False, alg="vdn"), "vdn needs one team reward; only iql"),
        (dict(lr="5e-4"), "lr = '5e-4' is text (5e-4 is read as text; write 0.0005)"),
    ):
        refused(capsys, tmp_path / "results", ["--from", toy_config(tmp_path / "c.yaml", **changes)], said)


def test_a_missing_package_is_named_with_its_pip_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TwoStep, "needs", ("no_such_package",))
    monkeypatch.setattr(TwoStep, "install", "pip install -r requirements/none.txt")
    refused(capsys, tmp_path / "r", words("vdn", "two_step", tmp_path / "r"), "pip install -r requirements/none.txt")


@pytest.mark.parametrize(
    "package, value", [("torch.utils.tensorboard", "use_tensorboard=True"), ("wandb", "use_wandb=True")]
)
def test_a_missing_sink_leaves_no_folder(package, value, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    folder = tmp_path / "results"
    argv = words("vdn", "two_step", folder / "deep", value, "wandb_team=a", "wandb_project=b")
    run = here(capsys, argv)
    assert run.code == 2 and "pip install" in run.last_line and files(tmp_path) == []


def test_a_results_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    run = here(capsys, words("vdn", "two_step", tmp_path / "file"))
    assert run.code == 2 and "local_results_path" in run.err and "Traceback" not in run.err
    assert here(capsys, words("vdn", "two_step", "/proc/nowhere")).code == 2


def test_a_full_disk_at_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("utils.rundir.write_atomically", full_disk)
    run = here(capsys, words("vdn", "two_step", tmp_path / "results"))
    assert run.code == 2 and "No space left" in run.err and "Traceback" not in run.err and files(tmp_path) == []


# ---- checkpoints that do not fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run directory of a short run of vdn on matrix_game."""
    folder = tmp_path_factory.mktemp("trained")
    assert main.main(words("vdn", "matrix_game", folder)) == 0
    return next((folder / "vdn" / "matrix_game").iterdir())


@pytest.mark.parametrize(
    "game, values, said",
    [
        (("qtran_alt", "matrix_game"), [], ["was written by 'vdn', not by 'qtran_alt'", "mixer=vdn (here qtran_alt)"]),
        (("iql", "matrix_game"), [], ["was written by 'vdn'", "mixer=vdn (here None)"]),
        (("vdn_ns", "matrix_game"), [], ["agent=rnn (here rnn_ns)"]),
        (
            ("vdn", "matrix_game"),
            ["hidden_dim=9"],
            ["does not fit RNNAgent", "'fc1.weight' is (8, 3), needed (9, 3)", "hidden_dim = 8, here 9"],
        ),
        (("vdn", "two_step"), [], ["does not fit RNNAgent", "needed (8, ", "env = 'matrix_game', here 'two_step'"]),
        (("vdn", "matrix_game"), ["t_max=24"], ["t_max = 24: the checkpoint", "give a larger t_max"]),
        (("vdn", "matrix_game"), ["evaluate=True", "save_replay=True"], ["matrix_game cannot save replays"]),
    ],
)
def test_a_checkpoint_that_does_not_fit(game, values, said, trained, tmp_path, capsys):
    folder = tmp_path / "results"
    refused(capsys, folder, words(*game, folder, "t_max=99", f"checkpoint_path={trained}", *values), *said)


def test_a_checkpoint_itself_is_not_a_folder_of_checkpoints(trained, tmp_path, capsys):
    path = trained / "checkpoints" / "24"
    refused(
        capsys, tmp_path / "r", words("vdn", "matrix_game", tmp_path / "r", f"checkpoint_path={path}"), "its parent"
    )


@pytest.mark.parametrize("file", ["agent.th", "mixer.th", "opt.th", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone", "list"])
def test_a_damaged_checkpoint(file, damage, trained, tmp_path, capsys):
    copy = tmp_path / "checkpoints" / "7"
    copy.mkdir(parents=True)
    for path in (trained / "checkpoints" / "24").iterdir():
        data = path.read_bytes()
        if path.name == file:
            data = {"cut": data[: len(data) // 2], "empty": b"", "text": b"not a checkpoint"}.get(damage, data)
        if path.name not in (file, "checksums.json") or damage != "gone":
            (copy / path.name).write_bytes(data)
    if damage == "list":
        (copy / file).write_text("[1]") if file == "meta.json" else torch.save([1], copy / file)
    argv = words("vdn", "matrix_game", tmp_path / "results", "t_max=99", f"checkpoint_path={tmp_path}")
    if (file, damage) == ("meta.json", "gone"):  # EPyMARL's have none
        assert here(capsys, argv).code == 0
    else:
        refused(capsys, tmp_path / "results", argv, f"checkpoint: {copy}/{file}" if damage != "gone" else file)


# ---- signals


def running(tmp_path):
    """A long run with two worker processes, past its first checkpoint."""
    argv = words("qmix", "predator_prey", tmp_path, "env_workers=True", without=["t_max"])
    process = subprocess.Popen(
        [*PROGRAM, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=as_in_the_foreground,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("qmix/*/*/checkpoints/*/meta.json")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()  # its workers end with it
            pytest.fail(f"no checkpoint: {process.communicate()}")
        time.sleep(0.1)
    return process


def shared_memory(pid):
    """The shared memory that a process has made."""
    return set(re.findall(r"/dev/shm/psm_\w+", Path(f"/proc/{pid}/maps").read_text()))


def group_is_gone(pid, seconds=10):
    """Whether every process of the group ends in time."""
    for _ in range(10 * seconds):
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("number, code, reason", [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_an_interrupted_run_ends_in_order(number, code, reason, tmp_path):
    process = running(tmp_path)
    memory = shared_memory(process.pid)
    os.killpg(process.pid, number)  # its workers get the signal too, as from a terminal or a scheduler
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert err.splitlines()[-1].endswith(f"interrupted: {reason}") and "Traceback" not in err
    path = next((tmp_path / "qmix" / "predator_prey").iterdir())
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("interrupted", reason)
    assert (path / "checkpoints" / str(summary["t_env"]) / "agent.th").exists()
    sacred = json.loads((tmp_path / "sacred/qmix/predator_prey/1/run.json").read_text())
    assert sacred["status"] == "INTERRUPTED"
    assert memory and group_is_gone(process.pid) and not any(map(os.path.exists, memory))


def test_a_killed_run_leaves_no_process_behind_and_its_last_checkpoint(tmp_path):
    process = running(tmp_path)
    memory = shared_memory(process.pid)
    process.kill()
    process.communicate(timeout=30)
    assert memory and group_is_gone(process.pid) and not any(map(os.path.exists, memory))
    path = next((tmp_path / "qmix" / "predator_prey").iterdir())
    assert json.loads((path / "summary.json").read_text())["status"] == "running"
    assert all(json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
