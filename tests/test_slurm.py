"""Studies on Slurm: what is refused, what is submitted, and a real Slurm whose jobs are preempted and cut off."""

import json
import subprocess

import pytest
import real_slurm
from command import wait_until
from test_sweep import study, swept

absent = real_slurm.missing()
cluster = [pytest.mark.cluster, pytest.mark.skipif(absent is not None, reason=str(absent))]
GAME = {"env_args.episode_limit": 6}


@pytest.fixture(scope="module")
def cluster_variables(tmp_path_factory):
    with real_slurm.slurm(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.fixture
def real(cluster_variables, monkeypatch):
    """A real Slurm, as the programs of this test see it."""
    for name, value in cluster_variables.items():
        monkeypatch.setenv(name, value)
    yield
    asked("scancel", "--user=root", "--signal=KILL", "--full")
    asked("scancel", "--user=root")
    wait_until(lambda: not asked("squeue", "-h"))


def asked(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def job_output(folder):
    """What the jobs of a study have printed."""
    return "".join(path.read_text() for path in folder.glob("results/submissions/*/job_*.txt"))


def figures(folder):
    """{algorithm and seed: records of metrics.jsonl, without seconds and what the machine was at}."""
    found = {}
    for path in folder.glob("*/*/*/seed*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        key = path.relative_to(folder).parts[1], path.parent.name.partition("_")[0]
        assert key not in found, f"{key} is there twice"
        found[key] = [
            (r["key"], r["value"], r["t_env"], r["episode"])
            for r in records
            if not r["key"].startswith(("time_", "system_"))
        ]
    return found


# ---- with a real Slurm


class TestRealSlurm:
    pytestmark = cluster

    def test_an_array_that_is_preempted_and_cut_off_ends_as_one_that_was_not(self, real, tmp_path, capsys):
        path = study(tmp_path, "[vdn, qmix]", "[predator_prey]", "1-3", t_max=2500, test_interval=1000, **GAME)
        options = ["--engine", "slurm", "--set", "memory_per_run=0.5", "warning_seconds=45", "slurm.time=1"]
        run = swept(capsys, path, *options)
        assert run.code == 0 and "submitted: job " in run.out, run.out + run.err
        assert "1 pending" not in run.out
        wait_until(lambda: list(tmp_path.glob("results/predator_prey/*/*/seed*/metrics.jsonl")), seconds=90)
        asked("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
        wait_until(lambda: "interrupted: " in job_output(tmp_path))
        assert "warned of the end" not in job_output(tmp_path)  # that was the preemption
        wait_until(lambda: not asked("squeue", "-h"), seconds=400)
        assert "warned of the end: saved, and back into the queue" in job_output(tmp_path)

        run = swept(capsys, path, *options, "--status")
        assert run.code == 0 and "6 of 6 runs complete" in run.out, run.out
        summaries = [json.loads(p.read_text()) for p in tmp_path.glob("results/predator_prey/*/*/seed*/summary.json")]
        assert sum(len(summary["resumed"]) for summary in summaries) >= 2
        run = swept(capsys, path, "--results", tmp_path / "undisturbed", "--workers", 2)
        assert run.code == 0
        got, expected = figures(tmp_path / "results"), figures(tmp_path / "undisturbed")
        assert got == expected and len(got) == 6
