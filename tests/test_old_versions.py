"""Runs that older versions have left, tests/old/*.tar.xz: what loads, and whom the message of a refusal names.

tests/old/pack.py adds the present version. A new key stands in ADDED of src/utils/config.py, with the value that stands
for what runs did before. Where a key goes, or another change makes a test of the configuration fail: raise VERSION in
src/utils/version.py, pack a run of the new version, and name the old one in REFUSED.
"""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from command import PROGRAM, ROOT, here
from old import pack

from parts import readers
from utils.args import ConfigError
from utils.config import load_from
from utils.version import VERSION, commit

OLD = ROOT / "tests" / "old"
PACKED = sorted(path.name.removesuffix(".tar.xz") for path in OLD.glob("*.tar.xz"))
REFUSED = ["9d8b2cc"]  # their configuration has other keys; 9d8b2cc, a commit before there were versions: lr_decay
SMALL = [*pack.SIZES, "use_cuda=False"]


@pytest.fixture
def unpack(tmp_path, monkeypatch):
    """unpack(name): the run directory of a packed version; `results` of new runs are beside it."""
    monkeypatch.chdir(tmp_path)

    def new(name: str) -> Path:
        with tarfile.open(OLD / f"{name}.tar.xz") as tar:
            tar.extractall(tmp_path, filter="data")
        (config,) = tmp_path.glob("results/*/*/*/config.yaml")
        return config.parent

    return new


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def made_by(run: Path) -> str:
    """How a message names who made the run."""
    told = summary(run)
    version = told["versions"].get("qtran")
    return "written by " + (f"version {version}, " if version else "") + f"commit {told['commit']}, "


def test_this_version_is_packed():
    assert VERSION in PACKED and VERSION not in REFUSED and set(REFUSED) <= set(PACKED)


@pytest.mark.parametrize("name", PACKED)
def test_the_weights_of_an_old_version_play_as_they_did(name, unpack, capsys):
    run = unpack(name)
    words = ["--config=qtran_alt", "--env-config=two_step", "with", *SMALL, "test_nepisode=2"]
    played = here(capsys, [*words, f"checkpoint_path={run}", "evaluate=True"])
    assert played.code == 0, played.err
    assert played.summary["test"] == summary(run)["test"]


@pytest.mark.parametrize("name", [name for name in PACKED if name not in REFUSED])
def test_the_configuration_of_an_old_version_is_repeated_and_its_state_resumed(name, unpack, capsys):
    run = unpack(name)
    steps = summary(run)["t_env"]
    longer = here(capsys, ["--resume", run, "with", f"t_max={2 * steps}"])
    assert longer.code == 0, f"{longer.err}\nthe head of this file says what to do"
    assert longer.summary["t_env"] == 2 * steps and f"resumed from t_env {steps}" in longer.err
    again = here(capsys, ["--from", run / "config.yaml"])
    assert again.code == 0, again.err
    assert again.summary["t_env"] == 2 * steps and again.path != run


@pytest.mark.parametrize("how", ["--from", "--resume"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_that_this_version_does_not_read_names_who_made_it(name, how, unpack, capsys):
    run = unpack(name)
    before = sorted(run.rglob("*"))
    refused = here(capsys, [how, run])
    assert refused.code == 2 and f"{run / 'config.yaml'} was {made_by(run)}" in refused.err
    assert f"this is version {VERSION}" in refused.err and "take the version that wrote it" in refused.err
    assert sorted(run.rglob("*")) == before


def test_a_key_that_is_gone_is_named_with_who_made_the_file(unpack, capsys):
    refused = here(capsys, ["--from", unpack("9d8b2cc")])
    assert "unknown key 'lr_decay' (value False); did you mean 'lr_decay_start'?" in refused.err


@pytest.mark.parametrize("name", PACKED)
def test_weights_that_do_not_fit_name_who_made_them(name, unpack, capsys):
    run = unpack(name)
    words = ["--config=qtran_alt", "--env-config=two_step", "with", *SMALL, "hidden_dim=9"]
    refused = here(capsys, [*words, f"checkpoint_path={run}", "evaluate=True"])
    assert refused.code == 2 and "does not fit" in refused.err and f"({made_by(run)}" in refused.err


def test_what_the_command_line_gets_wrong_is_not_said_of_the_file(unpack, capsys):
    run = unpack(VERSION)
    told = summary(run)
    told["versions"]["qtran"] = "0.1"
    (run / "summary.json").write_text(json.dumps(told))
    refused = here(capsys, ["--from", run, "with", "lr=-1"])
    assert refused.code == 2 and "lr = -1 must be above 0" in refused.err and "written by" not in refused.err


@pytest.mark.parametrize("file", [None, "{", '{"versions": 7, "commit": 1}', '{"commit": "abc"}'])
def test_a_file_whose_run_does_not_say_who_made_it(file, unpack):
    """It was moved, or its summary is damaged: the problem is told all the same, and this version is not blamed."""
    run = unpack("9d8b2cc")
    (run / "summary.json").unlink()
    if file is not None:
        (run / "summary.json").write_text(file)
    with pytest.raises(ConfigError, match="unknown key 'lr_decay'") as refused:
        load_from(run, {}, readers)
    assert "written by" not in str(refused.value)


def test_a_file_that_this_version_made_and_somebody_changed(unpack):
    run = unpack(VERSION)
    told = summary(run)
    told["versions"]["qtran"], told["commit"] = VERSION, commit()
    (run / "summary.json").write_text(json.dumps(told))
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(values | {"lrr": 1}))
    with pytest.raises(ConfigError, match="unknown key 'lrr'") as refused:
        load_from(run, {}, readers)
    assert "written by" not in str(refused.value)


def test_latest_says_which_unfinished_run_it_cannot_go_on_with(unpack, capsys):
    """A job script that runs again after an update begins anew."""
    run = unpack(VERSION)
    told, values = summary(run), yaml.safe_load((run / "config.yaml").read_text())
    (run / "summary.json").write_text(json.dumps(told | {"status": "interrupted"}))
    del values["learning_starts"]  # as if it had been added since
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    words = [f"{key}={values[key]}" for key in ("seed", "batch_size_run", "batch_size", "buffer_size", "test_interval")]
    words += [f"{key}={values[key]}" for key in ("test_nepisode", "t_max")]
    new = here(capsys, ["--resume=latest", "--config=qtran_alt", "--env-config=two_step", "with", *SMALL, *words])
    assert new.code == 0 and new.path != run
    line = next(line for line in new.out.splitlines() if "not resumed" in line)
    assert line.startswith(f"{run.relative_to(Path.cwd())}: ") and f"commit {told['commit']}" in line


def test_main_tells_its_version():
    run = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == f"qtran {VERSION}, commit {commit() or 'not known'}\n"


def test_a_run_of_this_version_is_packed_as_it_was(tmp_path, capsys, monkeypatch):
    """What pack.py runs and keeps still gives the same files."""
    monkeypatch.chdir(tmp_path)
    assert here(capsys, [*pack.GAME, "with", *pack.SIZES, *pack.SHORT]).code == 0
    assert "new.tar.xz: " in pack.pack(tmp_path, tmp_path / "new.tar.xz")
    assert (tmp_path / "new.tar.xz").stat().st_size < 50_000  # bytes
    with tarfile.open(tmp_path / "new.tar.xz") as new, tarfile.open(OLD / f"{VERSION}.tar.xz") as old:
        assert {kind(name) for name in new.getnames()} == {kind(name) for name in old.getnames()}


def kind(name: str) -> str:
    """The path in a run directory."""
    return name.split("/", 4)[-1]
