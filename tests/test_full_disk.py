"""Runs on a small file system that fills up: one message, the last good state stays, and the run goes on from it."""

import json
import os
import re
import signal
import threading

import pytest
from command import files, here, words
from small_disk import small_disk
from test_resume import EXACT, GAME, AtRound, assert_same_checkpoints, assert_same_end, records, resumed, run_in
from test_resume import never_stopped as never_stopped  # fixtures
from test_resume import quiet as quiet

from utils.checkpoint import has_checksums, read_file
from utils.resume_state import StateFolder


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "small", "2m") as disk:
        yield disk


def check_failed(run):
    """One message, and all that is there can be read."""
    assert run.code == 1 and run.err.count("the disk is full") == 1 and "Traceback" not in run.err, run.err
    assert run.last_line.partition("failed: ")[2].startswith("the disk is full: ")
    check_readable(run.path)
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["reason"].startswith("the disk is full")


def check_readable(path):
    assert StateFolder(path / "state").read() is not None
    for folder in (path / "checkpoints").iterdir():
        assert has_checksums(folder)
        for file in folder.iterdir():
            assert file.name == "checksums.json" or read_file(str(file), 2**20)
    for line in (path / "metrics.jsonl").read_text().splitlines(keepends=True):
        assert line.endswith("\n") and json.loads(line)


def test_a_run_that_fills_its_disk(disk, never_stopped, tmp_path, capsys):
    values = ("save_model_interval=1", "t_max=48")
    disk.resize("1m")
    run = here(capsys, words(*GAME, disk.path, *EXACT, *values))
    check_failed(run)
    assert 8 < run.summary["t_env"] < 48 and disk.free() < 2**18
    disk.resize("16m")
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME, *values))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME, *values))


@pytest.mark.parametrize("pages", [0, 3, 13, 34])
def test_a_disk_that_others_fill(pages, disk, never_stopped, tmp_path, capsys):
    """In the round from t_env 8 to 12, behind the first state, but for a few pages."""
    with AtRound(5, lambda: disk.fill(pages)):
        run = here(capsys, words(*GAME, disk.path, *EXACT))
    check_failed(run)
    again = here(capsys, ["--resume", run.path])
    assert again.code in (1, 2) and "Traceback" not in again.err
    check_readable(run.path)
    disk.make_room()
    resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


def test_no_room_for_records(disk, tmp_path, capsys):
    """No states and no checkpoints: the records are the first that miss the room."""
    values = (*EXACT, "resume_interval=None", "resume_minutes=0", "save_model=False", "t_max=200")
    with AtRound(5, disk.fill):
        run = here(capsys, words(*GAME, disk.path, *values))
    assert run.code == 1 and run.err.count("the disk is full") == 1 and "Traceback" not in run.err, run.err
    assert re.search(r"the disk is full: \d+ records of metrics.jsonl not written .*are lost", run.summary["reason"])
    assert run.summary["t_env"] < 200 and all(map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines()))
    disk.make_room()
    resumed(capsys, run.path)
    assert records(run.path) == records(here(capsys, words(*GAME, tmp_path / "never", *values)).path)


@pytest.mark.parametrize("then", ["room", "SIGTERM"])
def test_a_run_that_waits_for_room(then, disk, never_stopped, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keeper.PAUSE_SECONDS", 0.2)
    act = disk.make_room if then == "room" else lambda: os.kill(os.getpid(), signal.SIGTERM)

    def fill():
        disk.fill()
        threading.Timer(1, act).start()

    with AtRound(5, fill):
        run = here(capsys, words(*GAME, disk.path, *EXACT, "on_disk_full=pause"))
    assert run.err.count("waiting for room") == 1 and "Traceback" not in run.err
    if then == "room":
        assert run.code == 0 and run.summary["status"] == "finished", run.err
    else:
        assert run.code == 143 and run.summary["status"] == "interrupted", run.err
        disk.make_room()
        resumed(capsys, run.path)
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    assert_same_checkpoints(run.path, never_stopped(capsys, *GAME))


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 5, 13, 34])
def test_a_disk_that_is_full_at_the_start(pages, disk, never_stopped, tmp_path, capsys):
    disk.fill(pages)
    run = here(capsys, words(*GAME, disk.path, *EXACT))
    assert run.code in (1, 2) and "Traceback" not in run.err, run.err
    if run.code == 2:
        assert run.err.count("error:") == 1 and "local_results_path" in run.err
        assert files(disk.path) == ["filler"]
    else:
        path = run_in(disk.path)
        disk.make_room()
        resumed(capsys, path)
        assert_same_end(path, never_stopped(capsys, *GAME))
