"""Whole runs with `runner=ray`, on a Ray that the run starts: `pytest -m "cluster and slow"` of this file."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from command import ROOT, as_in_the_foreground, wait_until, words

from utils.ray_cluster import INSTALL

pytest.importorskip("ray", reason=INSTALL)
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

MAIN = [sys.executable, str(ROOT / "src" / "main.py")]
LONG = ["t_max=8000", "batch_size_run=4", "batch_size=8", "buffer_size=64", "updates_per_run=4", "max_staleness=1"]
LONG += [
    "resume_interval=500",
    "test_interval=2000",
    "test_nepisode=4",
    "epsilon_anneal_time=4000",
    "learning_starts=0",
]
SHORT_KEYS = [word.partition("=")[0] for word in LONG]


def command(folder, *values):
    return [*MAIN, *words("qmix", "predator_prey", folder, *LONG, *values, without=SHORT_KEYS)]


def outcome(folder):
    """(records without times, the agents' weights at the end)."""
    (run,) = folder.glob("*/*/seed*")
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in r.items() if k != "time"} for r in records if not r["key"].startswith("time_")]
    last = max((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    return kept, {name: value.tolist() for name, value in torch.load(last / "agent.th").items()}


def left_behind(folder):
    """Processes of Ray and of environments of the run with results in `folder`."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "raylet" in line or "ray::" in line or str(folder) in line]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_goes_on_to_the_bits_of_worker_processes(tmp_path, signum):
    """Nothing of Ray is left; it goes on with another number of actors."""
    before = left_behind(tmp_path)
    process = subprocess.Popen(
        command(tmp_path / "ray", "runner=ray", "ray_actors=2"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=as_in_the_foreground,
    )  # fmt: skip
    wait_until(lambda: list((tmp_path / "ray").glob("**/state/manifest*")), process, 120)
    if signum == signal.SIGINT:  # as a terminal does, to the whole group
        os.killpg(process.pid, signum)
    else:
        os.kill(process.pid, signum)
    assert process.wait(100) == (-9 if signum == signal.SIGKILL else 128 + signum)
    wait_until(lambda: len(left_behind(tmp_path)) <= len(before), seconds=60)
    (run,) = (tmp_path / "ray").glob("*/*/seed*")
    subprocess.run([*MAIN, "--resume", str(run), "with", "ray_actors=1"], check=True, timeout=300)
    subprocess.run(command(tmp_path / "workers", "env_workers=True"), check=True, timeout=300)
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "workers")
