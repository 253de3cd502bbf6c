"""The absolute metric: what the weights that tested best come to behind training, and that it changes nothing else."""

import pytest
import torch
from command import here, words
from test_resume import assert_same_checkpoints, assert_same_end, equal, killed, quiet, records, resumed, stopped

from runners.episode_runner import EpisodeRunner
from utils.identity import identity

GAME = ("qmix", "two_step")
VALUES = ("test_nepisode=4", "resume_interval=8", "save_model_interval=8", "lr=0.05", "test_interval=4")
FIRST, LAST = 19, 38  # rounds that play the 40 episodes; before them are 6 rounds of training and 6 tests of 2 rounds
quiet = quiet


def ran(capsys, folder, *values):
    run = here(capsys, words(*GAME, folder, *VALUES, *values))
    assert run.code == 0, run.err
    return run


def test_the_best_weights_play_ten_times_as_many_new_episodes_and_change_nothing_else(tmp_path, capsys, monkeypatch):
    plain = ran(capsys, tmp_path / "plain")
    played, play = [], EpisodeRunner._play

    def seen(runner, test_mode, render):
        played.append({k: v.clone() for k, v in runner.mac.agent.state_dict().items()})
        return play(runner, test_mode, render)

    monkeypatch.setattr(EpisodeRunner, "_play", seen)
    run = ran(capsys, tmp_path / "absolute", "absolute_metric=True")
    absolute = run.summary["absolute"]
    best = (run.path / "checkpoints" / "best").resolve()
    assert absolute["episodes"] == 40 and absolute["ep_length_mean"] == 2
    assert len(played) == LAST and all(equal(p, torch.load(best / "agent.th")) for p in played[FIRST - 1 :])
    assert not equal(played[FIRST - 2], played[-1])  # the last ones are not the best
    own = [r for r in records(run.path) if r["key"].startswith("absolute_")]
    assert {(r["key"], r["value"], r["t_env"]) for r in own} >= {("absolute_return_mean", absolute["return_mean"], 24)}
    assert [r for r in records(run.path) if r not in own] == records(plain.path)
    assert run.summary["test"] == plain.summary["test"] and "absolute" not in plain.summary
    assert_same_checkpoints(run.path, plain.path)


@pytest.mark.parametrize("values", [(), ("save_model=False", "env_workers=True")])
@pytest.mark.parametrize("n", [FIRST, LAST])
def test_a_run_that_is_stopped_in_it_ends_as_one_that_never_was(n, values, tmp_path, capsys):
    never = ran(capsys, tmp_path / "never", "absolute_metric=True", *values)
    run = stopped(capsys, words(*GAME, tmp_path / "run", *VALUES, "absolute_metric=True", *values), n)
    assert "absolute" not in run.summary
    end = resumed(capsys, run.path)
    assert end.summary["absolute"] == never.summary["absolute"] and end.summary["absolute"]["episodes"] == 40
    assert records(end.path) == records(never.path)
    assert_same_checkpoints(end.path, never.path)
    assert (end.path / "checkpoints" / "best").is_dir()


def test_a_run_that_is_killed_in_it_and_its_best_weights_removed(tmp_path, capsys):
    never = ran(capsys, tmp_path / "never", "absolute_metric=True")
    path = killed(words(*GAME, tmp_path / "run", *VALUES, "absolute_metric=True"), tmp_path / "run", FIRST + 3)
    (path / "checkpoints" / "best" / "agent.th").write_bytes(b"")
    assert resumed(capsys, path).summary["absolute"] == never.summary["absolute"]
    assert_same_end(path, never.path)
    assert_same_checkpoints(path, never.path)


def test_a_sweep_tells_runs_with_and_without_it_apart():
    values = {"name": "qmix", "seed": 1, "lr": 0.1}
    assert identity(values) == identity(values | {"absolute_metric": False})
    assert identity(values) != identity(values | {"absolute_metric": True})
