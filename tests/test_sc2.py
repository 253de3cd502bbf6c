"""Whole runs on StarCraft, with the fake smacv2: what they leave when games fail, and when they give up."""

import re

import pytest
from battles import FAKES, games, gone, install, order
from command import here, outcome, words

import doctor


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Where faults are ordered."""
    for name, value in install(tmp_path / "machine").items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(FAKES)
    yield tmp_path / "machine"
    assert gone(games(tmp_path / "machine"))


def test_a_run_goes_on_when_games_fail_and_says_so(machine, tmp_path, capsys):
    order(machine, "crash step 3", "garble step 2")
    run = here(capsys, words("qtran_alt", "sc2", tmp_path, "env_args.map_name=3m"))
    assert run.code == 0, run.err
    series = run.series
    assert series["env_restarts"][-1][1] == 2 and "Traceback" not in run.err
    names = ("battle_won_mean", "dead_allies_mean", "dead_enemies_mean", "return_mean", "ep_length_mean")
    assert {prefix + name for name in names for prefix in ("", "test_")} <= series.keys()
    assert run.summary["versions"]["starcraft"] == "4.10.0.75689" and run.path.parent.name == "3m"
    assert (run.path / "log.txt").read_text().count("the episode is lost, the game starts again") == 2


def test_it_gives_up_saving_first(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.IN_A_ROW", 1)
    order(machine, "crash reset 4")  # training, test, training, and no more
    values = ("batch_size_run=1", "test_nepisode=1", "test_interval=100", "t_max=100")
    run = here(capsys, words("vdn", "sc2", tmp_path, *values, without=["t_max", "test_interval", "batch_size_run"]))
    assert run.code == 1 and run.summary["status"] == "failed"
    assert "failures without a whole episode" in run.summary["reason"]
    assert "imaginary memory is full" in run.summary["reason"] and "Traceback" not in run.err
    assert (run.path / "checkpoints" / str(run.summary["t_env"]) / "agent.th").exists() and run.summary["t_env"] > 8


def test_an_exception_leaves_no_game_behind(machine, tmp_path, capsys, monkeypatch):
    def broken(self, batch, t_env, episode):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("learners.value_learner.ValueLearner.update", broken)
    assert here(capsys, words("vdn", "sc2v2", tmp_path, "batch_size=1")).code == 1
    started = games(machine)
    assert started and gone(started)


def test_a_replay_is_saved_where_it_is_said(machine, tmp_path, capsys):
    trained = here(capsys, words("vdn", "sc2", tmp_path))
    values = (f"checkpoint_path={trained.path}", "evaluate=True", "save_replay=True", "env_args.replay_dir=there")
    run = here(capsys, words("vdn", "sc2", tmp_path, *values))
    assert run.code == 0 and "replay: there/3m.SC2Replay" in run.err, run.err


def test_the_doctor_plays_an_episode(machine, capsys, monkeypatch):
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")  # any protobuf will do then
    run = outcome(doctor.main, capsys, ["--start", "sc2", "with", "buffer_size=50", "seed=1", "use_cuda=False"])
    assert run.code == 0, run.out
    assert re.search("one episode of sc2 .*3 agents, 9 actions.* starcraft 4.10.0.75689; battle_won [01]", run.out)
    order(machine, "crash step 1")
    run = outcome(doctor.main, capsys, ["--start", "sc2", "with", "buffer_size=50", "seed=1", "use_cuda=False"])
    assert run.code == 1 and "failed in the middle of the episode" in run.out and "Traceback" not in run.err
    run = outcome(doctor.main, capsys, ["--start", "sc2", "with", "buffer_size=50", "env_args.map_name=8m"])
    assert run.code == 1 and "the map '8m' is not in" in run.out


def test_a_machine_without_the_game_is_told_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run = here(capsys, words("vdn", "sc2", tmp_path))
    assert run.code == 2 and run.last_line.endswith("install it with: pip install -r requirements/sc2.txt")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.delenv("SC2PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = here(capsys, words("vdn", "sc2", tmp_path))
    assert run.code == 2 and "SC2PATH is not set: give the folder of StarCraft II as SC2PATH=FOLDER" in run.last_line
    assert "SC2PATH is not set" in here(capsys, ["--list"]).out.replace("\n", " ")
    assert here(capsys, ["--config=vdn", "--env-config=sc2", "--explain"]).code == 0
