"""`sweep.py --engine ray` on a real Ray: `pytest -m cluster tests/sweeping/test_ray_engine.py`."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from command import ROOT, SHORT, as_in_the_foreground, wait_until
from test_sweep import study, swept

from sweeping.submission import Submission
from utils.ray_cluster import INSTALL
from utils.runs import find_runs

pytest.importorskip("ray", reason=INSTALL)
pytestmark = pytest.mark.cluster

SWEEP = [sys.executable, ROOT / "src" / "sweep.py"]
LONG = {"t_max": 6000, "batch_size_run": 4, "batch_size": 8, "buffer_size": 64, "learning_starts": 0}
LONG |= {"updates_per_run": 8, "test_interval": 3000, "resume_interval": 500, "epsilon_anneal_time": 3000}


@pytest.fixture
def cluster():
    """Two nodes, the first of which is the head, with a core each."""
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    two.second = two.add_node(num_cpus=1)
    yield two
    two.shutdown()


def outcome(results):
    """{run: (records without times, weights at the end)} of what is finished."""
    found = {}
    for run in find_runs(results):
        assert run.status == "finished", (run.path, run.status)
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        records = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
        last = max((run.path / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name))
        key = (run.config["name"], run.config["seed"])
        assert key not in found, f"{key} is there twice"
        agent = {name: value.tolist() for name, value in torch.load(last / "agent.th").items()}
        found[key] = [r for r in records if not r["key"].startswith("time_")], agent
    return found


def ray_processes():
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    return sum("raylet" in line and "--raylet_socket_name" in line for line in listed.splitlines())


def test_a_short_study_on_a_ray_of_its_own(tmp_path):
    before = ray_processes()
    command = [*SWEEP, study(tmp_path, seeds="1-2"), "--engine", "ray", "--set", "jobs=2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 tasks on a Ray on this machine" in run.stdout and "4 of 4 runs complete" in run.stdout
    assert len(outcome(tmp_path / "results")) == 4 and ray_processes() == before


@pytest.mark.slow
def test_a_node_is_lost_in_the_middle(tmp_path, cluster):
    """Nothing is missing, and every run is what it is without Ray."""
    (tmp_path / "local").mkdir()
    (tmp_path / "ray").mkdir()
    options = {"algorithms": "[vdn, qmix]", "environments": "[predator_prey]", "seeds": "1-2", **SHORT, **LONG}
    options.pop("seed")
    subprocess.run([*SWEEP, study(tmp_path / "local", **options), "--workers", "2"], check=True, timeout=600)
    path = study(tmp_path / "ray", **options)
    command = [*SWEEP, path, "--engine", "ray", "--set", f"ray.address={cluster.address}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    states = tmp_path / "ray" / "results"
    wait_until(lambda: len(list(states.glob("**/state/manifest*"))) >= 2, seconds=120)
    cluster.remove_node(cluster.second, allow_graceful=False)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "4 of 4 runs complete" in out, out
    assert any(run.summary.get("resumed") for run in find_runs(states)), "the node was lost before or after all runs"
    assert outcome(tmp_path / "local" / "results") == outcome(states)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_ends_early_leaves_no_process_and_goes_on(tmp_path, signum):
    before = ray_processes()
    options = {"algorithms": "[vdn, qmix]", "environments": "[predator_prey]", **SHORT, **LONG}
    options.pop("seed")
    command = [*SWEEP, study(tmp_path, **options), "--engine", "ray", "--set", "jobs=2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=as_in_the_foreground
    )
    wait_until(lambda: len(list((tmp_path / "results").glob("**/state/manifest*"))) >= 2, seconds=120)
    os.kill(process.pid, signum)
    process.communicate(timeout=200)
    assert process.returncode == (-9 if signum == signal.SIGKILL else 143)
    wait_until(lambda: ray_processes() == before, seconds=60)
    wait_until(lambda: not running(str(tmp_path)), seconds=60)
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    found = find_runs(tmp_path / "results")
    assert len(found) == 2 and any(run.summary.get("resumed") for run in found)


def running(text):
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if text in line and "main.py" in line]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus-per-run", "1"], "gpus_per_run: a run needs 1 GPUs, and no node of the Ray cluster has more than 0"),
        (["--set", "cores_per_run=99"], "cores_per_run: a run needs 99 CPUs, and no node"),
        (["--set", "ray.address=127.0.0.1:1"], "ray.address = '127.0.0.1:1': nobody answers there"),
        (["--render"], "--engine ray has no --render; it has: none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_queued(tmp_path, capsys, words, said):
    run = swept(capsys, study(tmp_path), "--engine", "ray", *words)
    assert run.code == 2 and said in run.err, run.err
    assert not list((tmp_path / "results").glob("submissions/*"))


def test_the_nodes_do_not_share_the_results(tmp_path, monkeypatch, capsys):
    make = Submission.make.__func__

    def somewhere_else(cls, order):
        made = make(cls, order)
        made.folder = made.folder.with_name("not-here")
        return made

    monkeypatch.setattr("sweeping.engines.ray_tasks.SHARED_SECONDS", 0)
    monkeypatch.setattr(Submission, "make", classmethod(somewhere_else))
    run = swept(capsys, study(tmp_path), "--engine", "ray")
    assert run.code == 2 and "is not there: the nodes do not share it; give --results DIR" in run.err, run.err
