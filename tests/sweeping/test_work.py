"""A sweep's child processes: what is done, restarted, given up, stopped; with a stand-in for main.py."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from command import ROOT, wait_until

from parts import readers
from sweeping import jobs
from sweeping.cards import Cards
from sweeping.jobs import Job, stop
from sweeping.plan import read_plan
from sweeping.turns import folder_of, refuse_another_plan
from sweeping.work import Work, interruptions, writable
from utils.args import ConfigError
from utils.claim import take

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
    work = Work(runs, 1, 1, tmp_path / "results", [(runs[1], 0.02)])
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


# ---- several sweeps at once


def stepped(work, until):
    """What a Work tells until something is true."""
    told = []
    wait_until(lambda: work.step(told.append) or until())
    return told


def test_what_another_sweep_is_at_is_left_to_it(runs_of, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeping.work.LOOK_AGAIN", 0.05)
    runs = runs_of("long", "good")
    first, second = (Work(runs, workers, 1, tmp_path / "results", []) for workers in (1, 2))
    try:
        stepped(first, lambda: first.jobs)
        told = stepped(second, lambda: second.done)
        assert second.done == [runs[1]] and f"at work elsewhere: {runs[0]}, process {os.getpid()} on " in "".join(told)
        assert second.state(0)["elsewhere"] == 1
        first.stop(lambda: False)  # it saves, and lets go
        stepped(second, lambda: len(starts(tmp_path)) == 3)
    finally:
        second.stop(lambda: True)
    assert starts(tmp_path) == ["long", "good", "long"]


def test_a_job_does_not_wait_for_a_process_that_was_seen_to_live(runs_of, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeping.work.LOOK_AGAIN", 0.05)
    runs = runs_of("long")
    claim = take(folder_made(runs[0], tmp_path / "results"), 0.6)
    job = Work(runs, 1, 1, tmp_path / "results", [], wait=False)
    monkeypatch.setattr("sweeping.work.RENEWED", 0.05)
    stepped(job, lambda: not job.left)
    assert list(job.elsewhere) == runs and job.elsewhere[runs[0]] == f"process {os.getpid()} on {socket.gethostname()}"
    claim.release()


def folder_made(run, results):
    folder = folder_of(run, results)
    folder.mkdir(parents=True)
    return folder


def test_who_has_lost_a_run_stops_it(runs_of, tmp_path, monkeypatch):
    """As if this process had been frozen for longer than its lease."""
    (run,) = runs_of("long")
    work = Work([run], 1, 1, tmp_path / "results", [])
    try:
        stepped(work, lambda: work.jobs and work.jobs[0].pace()[1])
        (directory,) = (tmp_path / "results").glob("two_step/long/task/*")
        monkeypatch.setattr("sweeping.turns.Claim.mine", lambda claim: False)
        told = stepped(work, lambda: not work.jobs)
        assert (
            f"stopped, as another sweep has taken it over: {run}" in told and not work.failed and work.waiting == [run]
        )
        assert '"interrupted"' in (directory / "summary.json").read_text()
    finally:
        work.stop(lambda: True)


def test_jobs_of_one_sweep_count_failures_together(runs_of, tmp_path):
    runs = runs_of("fails", "bad input")
    for sweep, count in (("a", 3), ("a", 3), ("b", 5)):
        work = Work(runs, 1, 1, tmp_path / "results", [], sweep=sweep)
        stepped(work, lambda work=work: not work.left)
        assert work.failed == {
            runs[0]: "failed: the loss is nan", runs[1]: "configuration: t_max = 1 is too short and so on",
        }  # fmt: skip
        assert len(starts(tmp_path)) == count + (sweep == "b")


def test_what_another_sweep_has_done_is_done(runs_of, tmp_path):
    runs = runs_of("good")
    first, second = (Work(runs, 1, 1, tmp_path / "results", []) for _ in range(2))
    stepped(first, lambda: not first.left)
    told = stepped(second, lambda: not second.left)
    assert second.done_elsewhere == runs and told == [f"done elsewhere: {runs[0]}"] and starts(tmp_path) == ["good"]


def test_a_run_that_somebody_resumed_by_hand_is_left_alone(runs_of, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeping.work.LOOK_AGAIN", 0.05)
    (run,) = runs_of("fails")
    work = Work([run], 1, 0, tmp_path / "results", [])
    stepped(work, lambda: not work.left)
    (directory,) = (tmp_path / "results").glob("two_step/fails/task/*")
    claim = take(directory)
    again = Work([run], 1, 0, tmp_path / "results", [])
    told = stepped(again, lambda: again.state(0)["elsewhere"])
    assert "at work elsewhere" in told[0] and starts(tmp_path) == ["fails"]
    claim.release()
    stepped(again, lambda: not again.left)
    assert starts(tmp_path) == ["fails", "fails"] and (tmp_path / "resumed").read_text() == str(directory)


def test_another_plan_is_refused_while_somebody_works_by_it(runs_of, tmp_path):
    (run,) = runs_of("long")
    work = Work([run], 1, 1, tmp_path / "results", [])
    changed = replace(run, values=run.values | {"lr": 7.0})
    try:
        stepped(work, lambda: work.jobs)
        refuse_another_plan([run], tmp_path / "results")
        with pytest.raises(ConfigError, match="lr is 1.0, planned 7.0; the study changed while it runs"):
            refuse_another_plan([changed], tmp_path / "results")
    finally:
        work.stop(lambda: True)
    refuse_another_plan([changed], tmp_path / "results")


def test_runs_see_their_card_and_the_modules(runs_of, tmp_path):
    runs = runs_of("good", "fine", "well")
    cards = Cards(["GPU-a", "GPU-b"], 1)
    work = Work(runs, 2, 1, tmp_path / "results", [], cards=cards, environment={"PYTHONPATH": "/my/games"})
    stepped(work, lambda: not work.left)
    shown = [json.loads(line) for line in (tmp_path / "environments").read_text().splitlines()]
    assert {e["CUDA_VISIBLE_DEVICES"] for e in shown[:2]} == {"GPU-a", "GPU-b"} and len(shown) == 3
    assert {e["PYTHONPATH"] for e in shown} == {"/my/games"}


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


def test_the_time_left_of_a_run_that_was_resumed(runs_of, tmp_path):
    """Its speed counts, not the time of this attempt: 60,000 of 1 million steps are left, and one run waits."""
    going, waiting = (replace(run, values=run.values | {"t_max": 1_000_000}) for run in runs_of("good", "fine"))
    work = Work([waiting], 1, 0, tmp_path / "results", [])
    work.jobs.append(SimpleNamespace(run=going, elapsed=40.0, pace=lambda: (940_000, 1000.0, 60.0)))
    assert work.state(0)["left"] == pytest.approx(60 + 1000)


def test_a_task_of_ray_waits_for_another_sweep_as_long_as_it_takes(runs_of, tmp_path, monkeypatch):
    """It ends with 0 and the run is not complete: somebody else works on it. Only losses are counted."""
    from sweeping.engines.ray_tasks import LOSSES, _Tasks

    ray, said = ModuleType("ray"), iter([(0, "node", "")] * 3 * LOSSES + [(143, "node", "cut off")] * (LOSSES + 1))
    ray.get = lambda reference: next(said)
    ray.exceptions = ModuleType("ray.exceptions")
    ray.exceptions.RayError = OSError
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    (run,) = runs_of("good")
    order = SimpleNamespace(runs=[run], left=[run], say=lambda text: None)
    tasks = _Tasks(order, SimpleNamespace(folder=tmp_path), [])
    for n in range(4 * LOSSES + 1):
        assert not tasks.failed, n
        tasks.tries[run] += 1
        tasks.going["reference"] = run, 0.0
        tasks._end("reference")
    assert tasks.failed == {run: "cut off"}
