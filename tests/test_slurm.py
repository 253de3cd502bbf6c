"""Studies on Slurm: the job script, what is refused, and a real Slurm whose jobs are preempted and cut off."""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import real_slurm
from command import ROOT, wait_until
from test_sweep import study, swept

from sweeping.engines import slurm
from utils.claim import holder

absent = real_slurm.missing()
cluster = [pytest.mark.cluster, pytest.mark.skipif(absent is not None, reason=str(absent))]
GAME = {"env_args.episode_limit": 6}


@pytest.fixture(scope="module")
def cluster_variables(tmp_path_factory):
    with ExitStack() as stack:
        try:
            variables = stack.enter_context(real_slurm.slurm(tmp_path_factory.mktemp("slurm")))
        except AssertionError as error:  # its daemons may ask for more than a container gives
            pytest.skip(f"Slurm is installed and does not start on this machine: {error}")
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


def wait_until_played(folder, runs):
    """Until so many runs have written more records than they have now."""

    def played():
        return {path: path.stat().st_size for path in folder.glob("results/predator_prey/*/*/*/metrics.jsonl")}

    before = played()
    wait_until(lambda: sum(size > before.get(path, 0) + 3000 for path, size in played().items()) >= runs, seconds=120)


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


def test_the_plan_of_a_study_for_a_cluster(tmp_path, capsys):
    """It is not that of this machine, which has no GPU and is not asked for one; and nothing is tried out here."""
    path = study(tmp_path, seeds="1-2")
    said = "to do: 4 of 4 runs, as many at a time as the cluster gives; time: not known until a run has finished"
    for engine in ("ray", "k8s", "slurm"):
        words = [path, "--dry-run", "--engine", engine, "--set", "gpus_per_run=0.25"]
        run = swept(capsys, *words)
        assert run.code == 0, run.err
        assert said in run.out
    assert swept(capsys, path, "--algorithms", "vdn", "--seeds", "1").code == 0
    run = swept(capsys, *words, "jobs=3")
    assert "to do: 3 of 4 runs, 12 at a time; time: " in run.out and "beside waiting in the queue" in run.out


# ---- with a real Slurm


class TestRealSlurm:
    pytestmark = cluster

    @pytest.mark.parametrize("steps, cuts", [(12000, 1), pytest.param(40000, 4, marks=pytest.mark.slow)])
    def test_an_array_that_is_preempted_and_cut_off_ends_as_one_that_was_not(self, steps, cuts, real, tmp_path, capsys):
        path = study(tmp_path, "[vdn, qmix]", "[predator_prey]", "1-3", t_max=steps, test_interval=1000, **GAME)
        options = ["--engine", "slurm", "--set", "memory_per_run=0.5", "warning_seconds=55", "slurm.time=30"]
        run = swept(capsys, path, *options)
        assert run.code == 0 and "submitted: job " in run.out, run.out + run.err
        job = run.out.partition("submitted: job ")[2].partition(",")[0]
        for number in range(cuts):
            wait_until_played(tmp_path, 1 if number else 2)  # later on, one may be all that is left
            before = job_output(tmp_path).count("interrupted: waiting")
            asked("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
            wait_until(lambda before=before: job_output(tmp_path).count("interrupted: waiting") > before, seconds=120)
            wait_until_played(tmp_path, 1 if number else 2)  # later on, one may be all that is left
            at_work = ["squeue", "-h", "-r", f"--job={job}", "--states=RUNNING", "-o", "%i"]
            running = wait_until(lambda at_work=at_work: asked(*at_work), seconds=120).split()[0]
            assert job_output(tmp_path).count("warned of the end") == number  # till here it was the preemption
            asked("scontrol", "update", f"JobId={running}", "TimeLimit=1")  # minute: the warning is due at once
            wait_until(lambda number=number: job_output(tmp_path).count("warned of the end") > number, seconds=120)
            wait_until(lambda running=running: "RUNNING" not in asked("squeue", "-h", f"--job={running}", "-o", "%T"))
            asked("scontrol", "update", f"JobId={running}", "TimeLimit=30")
        wait_until(lambda: not asked("squeue", "-h"), seconds=600)

        run = swept(capsys, path, *options, "--status")
        assert run.code == 0 and "6 of 6 runs complete" in run.out, run.out
        summaries = [json.loads(p.read_text()) for p in tmp_path.glob("results/predator_prey/*/*/seed*/summary.json")]
        assert sum(len(summary["resumed"]) for summary in summaries) >= cuts
        run = swept(capsys, path, "--results", tmp_path / "undisturbed", "--workers", 2)
        assert run.code == 0
        got, expected = figures(tmp_path / "results"), figures(tmp_path / "undisturbed")
        assert got == expected and len(got) == 6

    @pytest.mark.parametrize(
        "options, said",
        [
            (
                ["slurm.partition=hihg"],
                "slurm.partition: 'hihg' does not exist; there are: low, high; did you mean 'high'?",
            ),
            (["gpus_per_run=1", "gpu_type=h100"], "GPU type 'h100' is unknown; the partition has: a100"),
            (["gpus_per_run=3"], "3 GPUs a job are asked for, and no node has more than 2"),
            (["slurm.gres=gpu:a100:5"], "5 GPUs a job are asked for, and no node has more than 2"),
            (["cores_per_run=3"], "a job needs 3 cores (1 runs), and the largest node has 2"),
            (["memory_per_run=100"], "a job needs 102400 MiB (1 runs), and the largest node has 8000"),
            (["slurm.nodelist=moon"], "sbatch refused: "),
            (["slurm.qqq=1"], "sbatch refused: "),
        ],
    )
    def test_what_the_cluster_does_not_have_is_refused(self, options, said, real, tmp_path, capsys):
        run = swept(capsys, study(tmp_path), "--engine", "slurm", "--set", "memory_per_run=0.5", *options)
        assert run.code == 2 and said in run.err and run.err.count("error:") == 1, run.err
        assert not asked("squeue", "-h") and not list(tmp_path.glob("results/submissions/*"))

    def test_no_cluster(self, real, cluster_variables, tmp_path, capsys, monkeypatch):
        text = Path(cluster_variables["SLURM_CONF"]).read_text()
        own = [f"SlurmctldPort={real_slurm.free_port()}", "MessageTimeout=2"]
        kept = [line for line in text.splitlines() if not line.startswith("SlurmctldPort")]
        (tmp_path / "slurm.conf").write_text("\n".join(kept + own))
        with monkeypatch.context() as patch:
            patch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
            rendered = swept(capsys, study(tmp_path), "--engine", "slurm", "--render")
            run = swept(capsys, study(tmp_path), "--engine", "slurm")
        assert rendered.code == 0 and "not checked against a cluster" in rendered.err and "#SBATCH" in rendered.out
        assert (
            run.code == 2 and "is there a cluster? `sinfo` must work here" in run.err and run.err.count("error:") == 1
        )

    def test_a_study_that_changed_while_it_waits_is_refused_until_it_is_cancelled(self, real, tmp_path, capsys):
        options = ["--engine", "slurm", "--set", "memory_per_run=0.5", "slurm.begin=now+1hour"]
        path = study(tmp_path)
        assert swept(capsys, path, *options).code == 0
        assert swept(capsys, path, *options).code == 0  # the same settings: both work on it
        run = swept(capsys, study(tmp_path, lr=0.1), *options)
        assert (
            run.code == 2 and "the study changed while it runs: jobs named study-" in run.err and "--cancel" in run.err
        )
        run = swept(capsys, path, *options, "--status")
        assert run.code == 0 and "jobs: 4 pending" in run.out
        run = swept(capsys, path, *options, "--cancel")
        assert run.code == 0 and "cancelled: 4 jobs" in run.out
        wait_until(lambda: not asked("squeue", "-h"))
        assert swept(capsys, study(tmp_path, lr=0.1), *options).code == 0

    def test_what_is_cancelled_is_saved(self, real, tmp_path, capsys):
        path = study(tmp_path, "[vdn]", "[predator_prey]", t_max=10**7)
        options = ["--engine", "slurm", "--set", "memory_per_run=0.5"]
        assert swept(capsys, path, *options).code == 0
        (metrics,) = wait_until(lambda: list(tmp_path.glob("results/predator_prey/*/*/seed*/metrics.jsonl")))
        wait_until(lambda: metrics.stat().st_size > 5000)
        run = swept(capsys, path, *options, "--cancel")
        assert run.code == 0 and "cancelled: 1 jobs" in run.out
        wait_until(lambda: not asked("squeue", "-h"))
        assert json.loads((metrics.parent / "summary.json").read_text())["status"] == "interrupted"
        assert holder(metrics.parent) is None and "back into the queue" not in job_output(tmp_path)

    def test_a_results_folder_that_the_nodes_do_not_share(self, real, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(slurm, "SHARED_SECONDS", 1)
        path, options = study(tmp_path), ["--engine", "slurm", "--set", "memory_per_run=0.5"]
        run = swept(capsys, path, *options, "--render")
        assert run.code == 0 and run.out.startswith("#!/bin/bash")
        (script,) = tmp_path.glob("results/submissions/*/job.sh")
        shutil.copy(script, tmp_path / "job.sh")
        (tmp_path / "results").rename(tmp_path / "elsewhere")
        asked("sbatch", str(tmp_path / "job.sh"))
        wait_until(lambda: not asked("squeue", "-h"))
        (tmp_path / "elsewhere").rename(tmp_path / "results")
        run = swept(capsys, path, *options, "--status")
        assert f"error: the results folder {tmp_path / 'results'} is not there: the nodes do not share it" in run.out

    def test_gpus_that_this_python_cannot_use_stop_the_study(self, real, tmp_path, capsys, monkeypatch):
        path = study(tmp_path, use_cuda=True)
        options = ["--engine", "slurm", "--set", "memory_per_run=0.5", "gpus_per_run=0.5"]
        run = swept(capsys, path, *options)
        assert run.code == 0 and "0-0 of 2 runs" in run.out  # two runs share a GPU, so it is one job
        wait_until(lambda: not asked("squeue", "-h"))
        run = swept(capsys, path, *options, "--status")
        assert run.out.count("GPUs were asked for (gpus_per_run), but ") == 1 and "0 of 2 runs complete" in run.out
        assert "started" not in job_output(tmp_path)

    def test_the_line_without_a_study(self, real, tmp_path):
        script = ROOT / "docs" / "clusters" / "one_run.sh"
        words = [
            "--config=vdn",
            "--env-config=two_step",
            "with",
            "t_max=24",
            f"local_results_path={tmp_path}",
            "use_cuda=False",
        ]
        asked(
            "sbatch",
            "--array=1-2",
            f"--output={tmp_path}/%a.txt",
            f"--chdir={ROOT}",
            f"--export=ALL,PYTHON={sys.executable}",
            str(script),
            *words,
        )
        wait_until(lambda: not asked("squeue", "-h"))
        summaries = [json.loads(p.read_text()) for p in tmp_path.glob("vdn/two_step/*/summary.json")]
        assert sorted(s["seed"] for s in summaries if s["status"] == "finished") == [1, 2]


# ---- without


def test_without_slurm_the_script_is_printed_and_nothing_is_submitted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    more = [
        "--engine",
        "slurm",
        "--sbatch=--partition=gpu --exclusive --account='my lab'",
        "--set",
        "gpus_per_run=0.25",
    ]
    path = study(tmp_path, seeds="1-4", use_cuda=True)
    for action in ([], ["--status"], ["--cancel"]):
        run = swept(capsys, path, *more, *action)
        assert run.code == 2 and "is not installed here" in run.err and "apt-get install slurm-wlm" in run.err
    run = swept(capsys, path, *more, "gpu_type=a100", "hours=2", "jobs=1", "memory_per_run=3", "--render")
    lines = run.out.splitlines()
    assert run.code == 0 and lines[0] == "#!/bin/bash", run.err
    flags = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"partition=gpu", "exclusive", "account='my lab'", "gres=gpu:a100:1", "time=120", "array=0-0"} <= flags
    assert {"mem=12288M", "cpus-per-task=4", "requeue", "signal=B:USR2@120"} <= flags  # four runs share the GPU
    assert "--workers 4 --gpus-per-run 0.25" in run.out
    assert f"sbatch {next(tmp_path.glob('results/submissions/*/job.sh'))}" in run.err
    assert subprocess.run(["/bin/bash", "-n"], input=run.out, text=True).returncode == 0


def test_memory_and_time_are_derived(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = [(SimpleNamespace(algorithm=a, base=a, environment="two_step"), s) for a, s in (("vdn", 3), ("qmix", 600))]
    monkeypatch.setattr("sweep.paces", lambda existing: done)
    run = swept(capsys, study(tmp_path, buffer_size=10**7), "--engine", "slurm", "--render", "--set", "jobs=1")
    mem, time = (
        int(line.rpartition("=")[2].strip("M"))
        for line in run.out.splitlines()
        if "--mem=" in line or "--time=" in line
    )
    assert 2000 < mem < 20000 and "from its replay" in run.err  # MiB; the replay has 10 million episodes of two steps
    assert time == (1.25 * 2 * 24 * 600 + 120 + 600) / 60  # two runs, one after another, as slow as the slowest


@pytest.mark.parametrize(
    "by, words", [("srun", ["srun", "--container-image=IMG.sqsh"]), ("apptainer", ["apptainer", "exec"])]
)
def test_the_command_in_a_container(by, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    more = ["container.image=IMG.sqsh", f"container.by={by}", "container.mounts=/maps:/maps", "memory_per_run=1"]
    run = swept(capsys, study(tmp_path), "--engine", "slurm", "--render", "--set", *more)
    line = next(line for line in run.out.splitlines() if line.endswith(" &"))
    assert line.startswith(" ".join(words)) and " python /app/src/sweep.py " in line
    assert str(tmp_path / "results") in line and "/maps:/maps" in line


@pytest.mark.parametrize(
    "options, said",
    [
        (["--sbatch=-p gpu"], "--sbatch: '-p' is no flag; write --name=value"),
        (["--sbatch='"], '--sbatch: "\'" cannot be read'),
        (["--sbatch=--array=1-9"], "slurm.array: is set by the sweep; give jobs"),
        (["--render", "DIR"], "--render prints the script; drop 'DIR'"),
        (["--set", "slurm.gres=[1]"], "slurm.gres: [1] must be text, a number"),
        (["--set", "warning_seconds=1"], "warning_seconds: 1 must be at least 10"),
    ],
)
def test_bad_input(options, said, tmp_path, capsys):
    run = swept(capsys, study(tmp_path), "--engine", "slurm", *options)
    assert run.code == 2 and said in run.err and run.err.count("error:") == 1, run.err
    assert not (tmp_path / "results" / "submissions").exists()


def test_the_example_of_the_documentation(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    example = ROOT / "docs" / "clusters" / "slurm.yaml"
    run = swept(capsys, study(tmp_path, seeds="1-8", use_cuda=True), "--cluster", example, "--render")
    assert run.code == 0, run.err
    flags = [line.removeprefix("#SBATCH --") for line in run.out.splitlines() if line.startswith("#SBATCH")]
    assert {"array=0-3", "gres=gpu:a100:1", "partition=gpu", "mem=24576M", "time=720", "signal=B:USR2@300"} <= set(
        flags
    )


def test_gres():
    assert slurm.gpus("gpu:a100:4(S:0-1),gpu:2,lic:3") == [("a100", 4), ("", 2)]
    assert slurm.gpus("gpu:tesla") == [("tesla", 1)] and slurm.gpus("(null)") == []
