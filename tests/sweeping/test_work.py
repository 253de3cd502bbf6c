"""A sweep's child processes: what is done, restarted, given up, stopped; with a stand-in for main.py."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from command import ROOT, wait_until

from parts import readers
from sweeping import jobs
from sweeping.jobs import Job, stop
from sweeping.plan import read_plan
from sweeping.work import Work, interruptions, writable
from utils.args import ConfigError

PRETENDED_MAIN = ROOT / "tests" / "pretended_main.py"


@pytest.fixture
def runs_of(tmp_path, monkeypatch):
    """runs_of(name, ..., seeds="1"): planned runs that end as their names say."""
    monkeypatch.setattr(jobs, "MAIN", PRETENDED_MAIN)
    monkeypatch.setenv("PRETENDED", str(tmp_path))

    def plan(*names, seeds="1"):
        lines = [f"  {name}: {{config: qmix, lr: {i + 1}.0, num_threads: 3}}" for i, name in enumerate(names)]
        study = ["algorithms:", *lines, "environments: [two_step]", "overrides: {t_max: 1000}", f"seeds: {seeds}"]
        (tmp_path / "study.yaml").write_text("\n".join(study))
        runs = read_plan(tmp_path / "study.yaml", readers, tmp_path / "results").runs
        for run in runs[: len(names)]:
            (tmp_path / f"{run.algorithm}.yaml").write_text(yaml.safe_dump(run.values))
        return runs

    return plan


def worked(runs, folder, workers=2, retries=1):
    """(the Work, what it told) after all of it is over; never more runs at a time than workers."""
    work, told = Work(runs, workers, retries, folder / "results", []), []
    try:
        while work.left:
            work.step(told.append)
            assert len(work.jobs) <= workers
            time.sleep(0.01)
    finally:
        work.stop(lambda: True)
    return work, told


def starts(folder):
    return [line.rsplit(" ", 2)[0] for line in (folder / "starts").read_text().splitlines()]


def test_runs_are_done_in_order_with_their_threads(runs_of, tmp_path):
    runs = runs_of("good", "fine", seeds="1-2")
    work, told = worked(runs, tmp_path, workers=1)
    assert work.done == runs and not work.failed
    assert told[:2] == ["started: good on two_step, seed 1", told[1]] and told[1].startswith("done: good on two_step, ")
    assert (tmp_path / "starts").read_text() == "good 1 3\nfine 1 3\ngood 2 3\nfine 2 3\n"
    assert "run directory:" in work.log(runs[0]).read_text()


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize(
    "name, reason",
    [
        ("fails", "failed: the loss is nan"),
        ("killed", "ended by signal 9 (Killed)"),
        ("unfinished", "exit status 0, but no finished run directory"),
    ],
)
def test_a_failure_is_tried_again_and_then_given_up(name, reason, retries, runs_of, tmp_path):
    runs = runs_of(name, "good")
    work, told = worked(runs, tmp_path, retries=retries)
    assert work.done == [runs[1]] and work.failed == {runs[0]: reason}
    assert starts(tmp_path).count(name) == 1 + retries
    assert sum("will be tried again" in text for text in told) == retries


def test_what_fails_once_is_resumed_and_done_in_the_end(runs_of, tmp_path):
    work, told = worked(runs_of("fails once"), tmp_path)
    assert len(work.done) == 1 and not work.failed and any("tried again" in text for text in told)
    (directory,) = (tmp_path / "results").glob("two_step/fails once/task/*")
    assert (tmp_path / "resumed").read_text() == str(directory)


def test_a_run_that_failed_in_an_earlier_sweep_is_resumed(runs_of, tmp_path):
    (run,) = runs_of("fails once")
    worked([run], tmp_path, retries=0)
    (directory,) = (tmp_path / "results").glob("two_step/fails once/task/*")
    again = Work([run], 1, 0, tmp_path / "results", [])
    wait_until(lambda: again.step(lambda text: None) or not again.left)
    assert again.done == [run] and (tmp_path / "resumed").read_text() == str(directory)


def test_bad_input_is_not_tried_again(runs_of, tmp_path):
    work, _ = worked(runs_of("bad input"), tmp_path, retries=5)
    assert list(work.failed.values()) == ["configuration: t_max = 1 is too short and so on"]
    assert starts(tmp_path) == ["bad input"]


def test_a_run_that_was_not_the_planned_one_is_a_failure(runs_of, tmp_path):
    runs = runs_of("good")
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(runs[0].values | {"lr": 9.0}))
    work, _ = worked(runs, tmp_path, retries=5)
    assert work.failed == {runs[0]: "ran with other settings: lr is 9.0, planned 1.0"}


def test_no_room_for_the_log(runs_of, tmp_path):
    runs = runs_of("good")
    (tmp_path / "results").write_text("a file")
    work, _ = worked(runs, tmp_path)
    assert "cannot be written: [Errno 20] Not a directory" in work.failed[runs[0]]


def started(run, folder):
    """A Job that has come to its metrics."""
    job = Job(run, folder / "log.txt")
    deadline = time.monotonic() + 30
    while job.pace()[1] is None:
        assert job.poll() is None and time.monotonic() < deadline, job.log.read_text()
        time.sleep(0.01)
    return job


def test_pace_is_read_from_metrics_that_are_cut(runs_of, tmp_path):
    job = started(runs_of("long")[0], tmp_path)
    t_env, rate, left = job.pace()
    job.signal(signal.SIGKILL)
    assert (t_env, round(rate)) == (200, 100)  # 100 steps a second up to a moment that is 2 s ahead
    assert 8 < left < 10.5


def test_the_pace_of_a_resumed_run_is_that_of_this_attempt(runs_of, tmp_path):
    job = started(runs_of("long")[0], tmp_path)
    lines = (job.directory / "metrics.jsonl").read_text()
    old = '{"key": "epsilon", "value": 1.0, "t_env": 10, "episode": 0, "time": 5.0}\n'
    (job.directory / "metrics.jsonl").write_text(old + lines)
    job.first = None
    assert (job.pace()[0], round(job.pace()[1])) == (200, 100)
    (job.directory / "metrics.jsonl").write_text(old)
    assert job.pace() == (10, None, None)
    job.signal(signal.SIGKILL)


def test_stop_lets_runs_save(runs_of, tmp_path):
    job = started(runs_of("long")[0], tmp_path)
    stop([job])
    assert job.process.returncode == 143 and '"interrupted"' in (job.directory / "summary.json").read_text()


def test_stop_ends_what_does_not_listen(runs_of, tmp_path):
    job = started(runs_of("deaf")[0], tmp_path)
    job.run.values["stop_seconds"] = 0.2
    stop([job])
    assert job.process.returncode == -signal.SIGKILL


def test_a_second_ctrl_c_has_no_patience(runs_of, tmp_path):
    job = started(runs_of("deaf")[0], tmp_path)
    asked = []
    stop([job], lambda: asked.append(1) or len(asked) > 3)
    assert job.process.returncode == -signal.SIGKILL and len(asked) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_runs_do_not_outlive_a_sweep_that_is_killed(runs_of, tmp_path):
    runs_of("long")
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "src")!r})
from pathlib import Path
from sweeping import jobs
jobs.MAIN = Path({str(PRETENDED_MAIN)!r})
import sweep
sweep.main([{str(tmp_path / "study.yaml")!r}, "--results", {str(tmp_path / "results")!r}])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found = wait_until(lambda: list(tmp_path.glob("results/*/long/task/*/metrics.jsonl")), process)
    process.kill()
    wait_until(lambda: '"interrupted"' in (found[0].parent / "summary.json").read_text())


def test_the_state_for_the_board(runs_of, tmp_path):
    runs = runs_of("long", "good", seeds="1-2")
    work = Work(runs, 1, 1, tmp_path / "results", [("good", "two_step", 0.02)])
    try:
        work.step(lambda text: None)
        wait_until(lambda: work.jobs[0].pace()[1])
        state = work.state(done_before=5)
    finally:
        work.stop(lambda: True)
    assert {k: state[k] for k in ("done", "running", "waiting", "elsewhere", "failed")} == {
        "done": 5, "running": 1, "waiting": 3, "elsewhere": 0, "failed": 0,
    }  # fmt: skip
    assert state["jobs"][0][:2] == (runs[0], 200)
    assert 50 < state["left"] < 70  # 2 · 20 s of good, some 10 s of long now and 10 of the next


def test_signals_are_gathered_and_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with interruptions() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert sorted(received) == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_results_folder_that_cannot_be_written(tmp_path):
    writable(tmp_path / "deep" / "results")
    assert (tmp_path / "deep" / "results").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        writable(tmp_path / "file")
