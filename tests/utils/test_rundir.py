"""The run directory: names, whole files, full disks."""

import json
import logging
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from command import ROOT, full_disk

from utils.args import ConfigError
from utils.checkpoint import find_checkpoint
from utils.claim import ClaimLost
from utils.rundir import BEST, RunDirectory, check_same_algorithm, commit, write_atomically
from utils.version import VERSION

VALUES = dict(
    name="vdn", env="two_step", env_args={}, seed=5, learner="q_learner", mixer="vdn", agent="rnn", lease_seconds=120
)  # fmt: skip
CLOCK = SimpleNamespace(seconds={"acting": 1.5})
RUNNER = SimpleNamespace(t_env=120, episodes=7, env=SimpleNamespace(versions={"game": "4.10"}, facts={}), clock=CLOCK)
LOGGER = SimpleNamespace(latest={"loss": 1.0, "test_return_mean": 2.0})


class Learner:
    """Saves `text`, or fails like a full disk."""

    text = "weights"

    def save_models(self, path):
        with open(f"{path}/agent.th", "w") as f:
            f.write(self.text)


class FullDisk(Learner):
    def save_models(self, path):
        super().save_models(path)
        full_disk()


@pytest.fixture
def make(tmp_path):
    """make(**values): a new run directory, which is released at the end."""
    made = []

    def new(**changes):
        made.append(RunDirectory.create(VALUES | {"local_results_path": str(tmp_path / "results")} | changes, 20))
        return made[-1]

    yield new
    for directory in made:
        directory.claim.release()


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(make, tmp_path):
    paths = {make().path for _ in range(5)}
    assert len(paths) == 5 and all((p / "config.yaml").exists() and (p / "claims").is_dir() for p in paths)
    assert len(list(next(iter(paths)).parent.iterdir())) == 5  # and nothing half made
    assert all(p.parent == tmp_path / "results" / "vdn" / "two_step" and p.name.startswith("seed5_20") for p in paths)


def test_discard_removes_what_was_made_and_no_more(make, tmp_path):
    make().discard()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "results").mkdir()
    other = make(name="other")
    make().discard()
    assert list((tmp_path / "results").iterdir()) == [other.path.parents[1]]


def test_a_file_in_the_place_of_a_folder_is_named(make, tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(ConfigError, match="results.*local_results_path|local_results_path.*results"):
        make()


def test_a_checkpoint_is_whole_or_absent(make):
    directory = make()
    directory.save_checkpoint(Learner(), 10)
    for t_env in (10, 20):
        with pytest.raises(OSError, match="No space"):
            directory.save_checkpoint(FullDisk(), t_env)
    folder = directory.path / "checkpoints"
    assert [f.name for f in folder.iterdir()] == ["10"] and (folder / "10" / "agent.th").read_text() == "weights"


def test_a_checkpoint_says_whose_it_is_and_which_version_wrote_it(make):
    directory = make()
    directory.save_checkpoint(Learner(), 10, interrupted=True)
    meta = json.loads((directory.path / "checkpoints" / "10" / "meta.json").read_text())
    assert meta["t_env"] == 10 and meta["mixer"] == "vdn" and meta["interrupted"]
    assert meta["versions"]["qtran"] == VERSION and meta["commit"] == directory.commit


def test_a_checkpoint_takes_the_place_of_whatever_stands_there(make):
    directory, learner = make(), Learner()
    (directory.path / "checkpoints").mkdir()
    for name in ("8", "8.partial", "8.old"):
        (directory.path / "checkpoints" / name).write_text("a file")
    directory.save_checkpoint(learner, 8)
    assert [path.name for path in (directory.path / "checkpoints").iterdir()] == ["8"]
    assert (directory.path / "checkpoints" / "8" / "meta.json").is_file()


def test_a_second_checkpoint_at_the_same_step_replaces_the_first(make):
    directory, newer = make(), Learner()
    directory.save_checkpoint(Learner(), 10)
    newer.text = "newer"
    directory.save_checkpoint(newer, 10)
    assert (directory.path / "checkpoints" / "10" / "agent.th").read_text() == "newer"
    assert [f.name for f in (directory.path / "checkpoints").iterdir()] == ["10"]


def test_the_summary(make):
    directory = make()
    directory.write_summary("running", RUNNER, LOGGER)
    directory.started -= 10
    directory.write_summary("failed", RUNNER, LOGGER, "why")
    summary = json.loads((directory.path / "summary.json").read_text())
    assert (summary["status"], summary["reason"], summary["t_env"], summary["episodes"]) == ("failed", "why", 120, 7)
    assert summary["test"] == {"test_return_mean": 2.0} and summary["versions"]["game"] == "4.10"
    assert summary["env_steps_per_s"] == pytest.approx(10, rel=0.05)  # without the 20 of the checkpoint


def test_only_the_absolute_metric_is_named_so(make):
    logger = SimpleNamespace(latest={"absolute_error_mean": 1.0, "absolute_return_mean": 2.0, "absolute_t_env": 8.0})
    without, with_it = make(), make(absolute_metric=True)
    for directory in (without, with_it):
        directory.write_summary("running", RUNNER, logger)
    assert "absolute" not in json.loads((without.path / "summary.json").read_text())
    assert json.loads((with_it.path / "summary.json").read_text())["absolute"]["return_mean"] == 2.0


def test_the_summary_takes_the_place_of_the_old_where_the_disk_has_no_room_for_two(make, monkeypatch):
    directory = make()
    directory.write_summary("running", RUNNER, LOGGER)
    monkeypatch.setattr("utils.rundir.write_atomically", full_disk)
    directory.write_summary("failed", RUNNER, LOGGER)
    assert json.loads((directory.path / "summary.json").read_text())["status"] == "failed"


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    write_atomically(tmp_path / "f", "old")
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "f", "new")
    assert [f.name for f in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "old"


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    """The second one writes while the first one has not renamed its file yet."""
    replace = os.replace

    def later(*paths):
        monkeypatch.setattr("os.replace", replace)
        write_atomically(tmp_path / "f", "second")
        replace(*paths)

    monkeypatch.setattr("os.replace", later)
    write_atomically(tmp_path / "f", "first")
    assert [f.name for f in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "first"


def test_whose_weights_a_checkpoint_holds(make):
    directory = make()
    directory.save_checkpoint(Learner(), 10)
    folder = directory.path / "checkpoints" / "10"
    check_same_algorithm(folder, VALUES | {"name": "my_vdn"})  # a name is free
    with pytest.raises(ConfigError, match=r"was written by 'vdn', not by 'iql': mixer=vdn \(here None\)"):
        check_same_algorithm(folder, VALUES | {"name": "iql", "mixer": None})


def test_a_commit_that_git_does_not_tell_is_said(monkeypatch, caplog):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setattr(logging.getLogger("qtran"), "propagate", True)
    assert commit() is None
    assert ("is not known" in caplog.text) == (ROOT / ".git").exists()


@pytest.mark.skipif(not (ROOT / ".git").exists() or os.getuid() != 0, reason="a tree of git, and who may give it away")
def test_the_commit_of_a_tree_that_belongs_to_another_user(tmp_path):
    tree = tmp_path / "tree"
    (tree / "src" / "utils").mkdir(parents=True)
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "m"],
    ):
        subprocess.run(["git", "-C", tree, *command], check=True)
    shutil.copytree(ROOT / "src", tree / "src", dirs_exist_ok=True)
    for folder, _, names in os.walk(tree):
        for name in (".", *names):
            os.chown(os.path.join(folder, name), 12345, 12345)
    code = "from utils.rundir import commit; print(commit())"
    run = subprocess.run([sys.executable, "-c", code], cwd=tree / "src", capture_output=True, text=True)
    assert len(run.stdout.strip()) == 40, run.stderr


def test_only_the_last_checkpoints_stay_and_the_best(make):
    directory = make()
    directory.save_checkpoint(Learner(), 10, BEST, value=1.0)
    for t_env in (10, 200, 30):
        directory.save_checkpoint(Learner(), t_env)
        directory.limit_checkpoints(None)
    directory.limit_checkpoints(2)
    folder = directory.path / "checkpoints"
    assert sorted(f.name for f in folder.iterdir()) == ["200", "30", "best"]
    assert find_checkpoint(directory.path, "best") == (str(folder / "best"), 10)
    assert find_checkpoint(directory.path) == (str(folder / "200"), 200)
    (folder / "best" / "meta.json").unlink()
    with pytest.raises(ConfigError, match="load_step=best: there is no"):
        find_checkpoint(directory.path, "best")


def test_a_directory_that_another_process_has_taken_over_is_left_alone(make, tmp_path):
    directory = make()
    directory.write_summary("running", RUNNER, LOGGER)
    before = (directory.path / "summary.json").read_text()
    (directory.path / "claims" / "000002.json").write_text("{}")
    for act in (
        lambda: directory.write_summary("finished", RUNNER, LOGGER),
        lambda: directory.save_checkpoint(Learner(), 10),
    ):
        with pytest.raises(ClaimLost):
            act()
    assert (directory.path / "summary.json").read_text() == before and not (directory.path / "checkpoints").exists()


def test_no_folder_has_a_name_that_some_systems_refuse(make):
    path = make(env="gymma", env_args={"key": "lbforaging:Foraging-8x8-2p-3f-v3"}).path
    assert path.parent.name == "lbforaging_Foraging-8x8-2p-3f-v3"
