"""The command line of sweeps: help, refusals, and real runs that are cut, interrupted and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command import ROOT, SHORT, Outcome, as_in_the_foreground, files, wait_until

import sweep
from utils.claim import holder

VALUES = {k: v for k, v in SHORT.items() if k != "seed"}
SWEEP = ROOT / "src" / "sweep.py"


def study(folder, algorithms="[vdn, qmix]", environments="[two_step]", seeds="1", **changes):
    """A study file of short runs in `folder`."""
    path = folder / "study.yaml"
    path.write_text(
        f"title: A short study\nalgorithms: {algorithms}\nenvironments: {environments}\nseeds: {seeds}\n"
        f"overrides: {json.dumps(VALUES | changes)}\nresults: {json.dumps(str(folder / 'results'))}\n"
    )
    return path


def swept(capsys, *argv):
    """The Outcome of sweep.main(argv) in this process."""
    capsys.readouterr()
    try:
        code = sweep.main([str(word) for word in argv])
    except SystemExit as error:  # argparse
        code = error.code
    return Outcome(code, *capsys.readouterr())


def test_help_teaches_and_needs_no_torch():
    heavy = "{'torch', 'yaml', 'numpy', 'rich'}"
    code = f"import sys, sweep\ntry: sweep.main(['--help'])\nfinally: assert not {heavy} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=SWEEP.parent, capture_output=True, text=True, check=True)
    parts = (
        "algorithms:",
        "env-config:",
        "seeds: 1-5",
        "allow_different",
        "Later layers win",
        "--dry-run",
        "grid: {lr: [0.0005, 0.001], opt_loss: [0.03, 1]}",
        "tuned_on: studies/",
        "exit status",
    )
    assert all(part in run.stdout for part in parts)


def test_the_study_of_the_help_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = sweep.DETAILS.split("a study is a YAML file:\n")[1].split("\nEach run")[0]
    (tmp_path / "predator_prey.yaml").write_text("\n".join(line[2:] for line in shown.splitlines()))
    monkeypatch.setattr("sweeping.estimate.probe", lambda runs, *_: ([(next(iter(runs)), 0.001)], ["vdn: no luck"]))
    run = swept(capsys, "predator_prey.yaml", "--dry-run", "--workers", 3)
    assert run.code == 0, run.err
    assert "0 of 30 runs complete; seeds 1-5; results: results/studies/predator_prey" in run.out
    assert (
        "vdn: no luck" in run.out and "to do: 30 of 30 runs, 3 at a time; time: 1 h 23 min, a rough estimate" in run.out
    )
    assert files(tmp_path) == ["predator_prey.yaml"]


@pytest.mark.parametrize(
    "options, said",
    [
        (["--workers", "0"], "'0' is not a whole number of at least 1"),
        (["--workers", "two"], "'two' is not a whole number"),
        (["--retries", "-1"], "'-1' is not a whole number of at least 0"),
        (["--seeds", "2-3"], "--seeds 2: not in the study, which has: 1"),
        (["--seeds", "a"], "--seeds: 'a' is neither"),
        (["--algorithms", "qmixx"], "--algorithms qmixx: not in the study, which has: vdn; qmix; did you mean 'qmix'?"),
        (["--environments", "two"], "--environments two: not in the study"),
        (["--worker", "2"], "unrecognized arguments"),
    ],
)
def test_wrong_options(options, said, tmp_path, capsys):
    run = swept(capsys, study(tmp_path), *options)
    assert run.code == 2 and said in run.err and run.out == "" and "Traceback" not in run.err
    assert files(tmp_path) == ["study.yaml"]


def test_bad_input_is_one_message_and_leaves_nothing(tmp_path, capsys):
    run = swept(capsys, study(tmp_path, "[vdn, qmx]", lrr=1))
    assert run.code == 2 and run.err.count("error:") == 1 and run.out == ""
    assert all(part in run.err for part in ("study.yaml:", "'qmx' is no file", "'lrr'", "did you mean 'lr'?"))
    assert swept(capsys, tmp_path / "nowhere.yaml").code == 2
    (tmp_path / "file").write_text("")
    run = swept(capsys, study(tmp_path), "--results", tmp_path / "file")
    assert run.code == 2 and "cannot be written" in run.err and "--results DIR" in run.err
    assert files(tmp_path) == ["file", "study.yaml"]


def test_a_study_is_run_gone_on_with_and_left_alone(tmp_path, capsys, monkeypatch):
    probed = []
    monkeypatch.setattr("sweeping.estimate.probe", lambda runs, *_: (probed.extend(map(str, runs)) or [], []))
    path = study(tmp_path, "{vdn: , mine: {config: qmix, lr: 0.001}, never: {config: vdn, batch_size: 8, lr: 1.0}}")
    two = ["--algorithms", "vdn", "mine"]
    run = swept(capsys, path, "--workers", 2, *two)
    assert run.code == 0, run.out + run.err
    assert "2 of 2 runs complete" in run.out and "done: mine on two_step, seed 1, " in run.out
    assert f"report.py {tmp_path / 'results'}" in run.out.splitlines()[-1]
    found = {name: next((tmp_path / f"results/two_step/{name}/two_step").iterdir()) for name in ("vdn", "mine")}

    before = files(tmp_path)
    run = swept(capsys, path, *two)
    assert (
        run.code == 0
        and "2 of 2 runs complete; seeds 1;" in run.out
        and "started" not in run.out
        and files(tmp_path) == before
    )

    for file in (found["vdn"] / "metrics.jsonl", found["vdn"] / "summary.json", found["mine"] / "metrics.jsonl"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    run = swept(capsys, path, "--dry-run", *two)
    assert "to do: 1 of 2 runs" in run.out
    assert f"{found['vdn']}: broken: summary.json cannot be read" in run.out
    assert probed == ["vdn on two_step, seed 1"]  # of mine there is a finished run to go by

    run = swept(capsys, path, *two)
    assert run.code == 0 and "started: vdn" in run.out and "started: mine" not in run.out
    assert len(list(found["vdn"].parent.iterdir())) == 2

    run = swept(capsys, study(tmp_path, "[vdn]", lr=0.25), "--dry-run", "--workers", 2)  # as if a default had changed
    assert "not counted, finished with other settings: 2" in run.out and ": lr is 0.0005, planned 0.25" in run.out
    assert (
        "the study has no algorithm 'mine'" in run.out and "to do: 1 of 1 runs, 2 at a time; time: unknown" in run.out
    )


def test_a_run_that_only_its_game_refuses_fails_once(tmp_path, capsys):
    run = swept(capsys, study(tmp_path, "[vdn]", t_max=1))
    assert run.code == 1 and "to try again; go on with: python" in run.out
    reason = "failed: vdn on two_step, seed 1: t_max = 1 is shorter than one episode (2 steps)"
    assert f"{reason}; its output: {tmp_path / 'results/logs/two_step/vdn/seed1.txt'}" in run.out
    assert "tried again" not in run.out and run.out.count("started") == 1


def test_ctrl_c_and_a_study_that_changed(tmp_path, capsys):
    path = study(tmp_path, "[qmix]", "[predator_prey]", seeds="1-3", t_max=10**7)
    process = subprocess.Popen(
        [sys.executable, SWEEP, path, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=as_in_the_foreground,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in tmp_path.glob("results/*/qmix/*/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    second = swept(capsys, study(tmp_path, "[qmix]", "[predator_prey]", seeds="1-3", t_max=10**7, lr=0.1))
    assert second.code == 2 and "started" not in second.out
    assert f"qmix on predator_prey, seed 1: another sweep (process {process.pid} on " in second.err
    assert "other settings: lr is 0.001, planned 0.1; the study changed while it runs" in second.err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "", err
    assert "0 of 3 runs complete" in out and f"interrupted; go on with: python {os.path.relpath(SWEEP)} {path}" in out
    summaries = list(tmp_path.glob("results/*/qmix/*/*/summary.json"))
    assert [json.loads(p.read_text())["status"] for p in summaries] == ["interrupted"]


def begun(path):
    """A sweep of a study, in a process of its own, one run at a time."""
    return subprocess.Popen(
        [sys.executable, SWEEP, path, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_sweeps_share_a_study(tmp_path):
    sweeps = [begun(study(tmp_path, "[vdn]", seeds="1-3")) for _ in range(2)]
    outs = []
    for process in sweeps:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and err == "", out + err
        assert "3 of 3 runs complete" in out and "started: " in out and "elsewhere: " in out
        outs.append(out)
    assert sum(out.count("started: ") for out in outs) == sum(out.count("\ndone: ") for out in outs) == 3
    assert len(list(tmp_path.glob("results/two_step/*/two_step/seed*"))) == 3


def test_what_a_killed_sweep_was_at_is_gone_on_with_by_another(tmp_path):
    path = study(tmp_path, "[qmix]", "[predator_prey]", seeds="1-2", t_max=200)
    first = begun(path)
    (metrics,) = wait_until(lambda: list(tmp_path.glob("results/*/qmix/*/seed1_*/metrics.jsonl")), first)
    run = holder(metrics.parent).pid
    os.kill(run, signal.SIGSTOP)  # so that it is not done before the second sweep looks
    second = begun(path)
    wait_until(lambda: list(tmp_path.glob("results/*/qmix/*/seed2_*/metrics.jsonl")), second)
    first.kill()
    os.kill(run, signal.SIGCONT)
    out, err = second.communicate(timeout=120)
    first.communicate()
    assert second.returncode == 0 and err == "", out + err
    assert "at work elsewhere: qmix on predator_prey, seed 1, process" in out and "2 of 2 runs complete" in out
    runs = list(tmp_path.glob("results/*/qmix/*/seed*"))
    assert len(runs) == 2 and metrics.parent in runs
    assert len(json.loads((metrics.parent / "summary.json").read_text())["resumed"]) == 1


@pytest.mark.parametrize("option", ["--status", "--cancel", "--render"])
def test_what_is_for_clusters_alone_is_refused_on_this_machine(option, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = swept(capsys, study(tmp_path), option)
    assert run.code == 2 and f"--engine local has no {option}" in run.err and "main.py --status RESULTS" in run.err
