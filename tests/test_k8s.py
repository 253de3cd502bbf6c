"""Kubernetes: the YAML of a study. Validated by kubernetes-validate, and, by name, against KubeRay's own definition."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import ROOT, files
from test_sweep import SWEEP, study, swept

from sweeping.engines.k8s import indexed_job, name_of, ray_job
from sweeping.jobs import Job
from sweeping.plan import PlannedRun

NEEDED = ["k8s.image=registry.example.org/qtran:cuda", "k8s.volume=results"]


def rendered(tmp_path, capsys, *more, path=None):
    path = path or study(tmp_path, seeds="1-3")
    run = swept(capsys, path, "--engine", "k8s", "--render", tmp_path / "out", "--set", *NEEDED, *more)
    assert run.code == 0, run.err
    assert f"kubectl apply -f {tmp_path / 'out'}" in run.err
    (file,) = (tmp_path / "out").iterdir()
    return list(yaml.safe_load_all(file.read_text()))


def test_an_indexed_job(tmp_path, capsys):
    more = ["gpus_per_run=0.5", "k8s.secret=mongo", "k8s.namespace=lab", "k8s.grace_seconds=400", "jobs=2"]
    config_map, job = rendered(tmp_path, capsys, *more, "k8s.node_selector.gpu=a100")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 2, "Indexed")  # 6 runs, two a pod
    assert spec["backoffLimitPerIndex"] == 3 and pod["restartPolicy"] == "Never"
    ignored, ends = spec["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert ends["action"] == "FailJob" and ends["onExitCodes"]["values"] == [2]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert pod["terminationGracePeriodSeconds"] == 400 and pod["nodeSelector"] == {"gpu": "a100"}
    assert {"name": "QTRAN_MONGO_PASSWORD_FILE", "value": "/secrets/mongo/password"} in container["env"]
    assert [v for v in pod["volumes"] if v["name"] == "mongo"][0]["secret"] == {"secretName": "mongo"}
    words = container["command"]
    assert words[:3] == ["python", "/app/src/sweep.py", "/study/study.yaml"]
    assert (
        words[words.index("--results") + 1] == "/results/study" and words[words.index("--submission") + 1] == "/study"
    )
    assert words[-4:] == ["--workers", "2", "--gpus-per-run", "0.5"]
    assert job["metadata"]["namespace"] == config_map["metadata"]["namespace"] == "lab"
    assert config_map["metadata"]["name"] == job["metadata"]["name"]


LEARNER = """
from learners.q_learner import QLearner

HELLO = "my own learner"


class Mine(QLearner):
    def loss(self, batch):
        return super().loss(batch)
"""


def unpacked(tmp_path, config_map, job):
    """The folder of the pod as tmp_path/pod, and the words of its command behind Python and sweep.py."""
    pod = job["spec"]["template"]["spec"]
    for item in pod["volumes"][1]["configMap"]["items"]:
        file = tmp_path / "pod" / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config_map["data"][item["key"]])
    here = {
        "/study/study.yaml": tmp_path / "pod/study.yaml",
        "/study": tmp_path / "pod",
        "/results/study": tmp_path / "volume",
    }
    return [str(here.get(word, word)) for word in pod["containers"][0]["command"][2:]]


@pytest.mark.parametrize("named", [True, False], ids=["the study names the module", "found by its class"])
def test_what_the_pods_run_works_on_the_study(named, tmp_path, capsys, monkeypatch):
    """The command of a pod, its folders put back to those of this machine, where the module is not."""
    module = f"my_learner_{named}".lower()
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / f"{module}.py").write_text(LEARNER)
    path = study(tmp_path, f"{{mine: {{config: vdn, learner: '{module}:Mine'}}}}")
    if named:
        path.write_text(path.read_text() + f"modules: [games/{module}.py]\n")
    else:
        monkeypatch.chdir(tmp_path / "games")
    config_map, job = rendered(tmp_path, capsys, path=path)
    words = unpacked(tmp_path, config_map, job)
    assert files(tmp_path / "pod") == [f"modules/{module}.py", "study.yaml", "submission.json"]
    (tmp_path / "games").rename(tmp_path / "not on the node")
    monkeypatch.chdir(tmp_path)
    run = subprocess.run([sys.executable, SWEEP, *words], capture_output=True, text=True)
    assert run.returncode == 0 and "1 of 1 runs complete" in run.stdout, run.stdout + run.stderr
    (config,) = (tmp_path / "volume").glob("two_step/mine/two_step/*/config.yaml")
    assert yaml.safe_load(config.read_text())["modules_path"] == str(tmp_path / "pod" / "modules")


def test_configurations_of_the_users_own_go_along(tmp_path, capsys, monkeypatch):
    """An algorithm that extends another file, and a game; the pod works on the copies alone."""
    (tmp_path / "mine" / "more").mkdir(parents=True)
    (tmp_path / "mine" / "fast.yaml").write_text("extends: more/base.yaml\nlr: 0.01\n")
    (tmp_path / "mine" / "more" / "base.yaml").write_text("extends: vdn\ngamma: 0.5\n")
    (tmp_path / "mine" / "short.yaml").write_text("env: two_step\nbatch_size_run: 2\n")
    path = study(tmp_path, "[vdn, mine/fast.yaml]")
    path.write_text(path.read_text().replace("environments: [two_step]", "environments: [mine/short.yaml]"))
    words = unpacked(tmp_path, *rendered(tmp_path, capsys, path=path))
    assert files(tmp_path / "pod") == [
        *(f"configurations/{name}.yaml" for name in ("base", "fast", "short")), "study.yaml", "submission.json",
    ]  # fmt: skip
    (tmp_path / "mine" / "fast.yaml").write_text("extends: more/base.yaml\nlr: 0.02\n")  # changed since
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.yaml").write_text("extends: vdn\ngamma: 0.1\n")
    monkeypatch.chdir(tmp_path)
    run = subprocess.run([sys.executable, SWEEP, *words], capture_output=True, text=True)
    assert run.returncode == 0 and "2 of 2 runs complete" in run.stdout, run.stdout + run.stderr
    (config,) = (tmp_path / "volume").glob("short/fast/two_step/*/config.yaml")
    kept = yaml.safe_load(config.read_text())
    assert (kept["name"], kept["lr"], kept["gamma"], kept["batch_size_run"]) == ("fast", 0.01, 0.5, 2)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--render"], "--render DIR"),
        (["--render", "out"], "missing key k8s.image, k8s.volume"),
        ([], "submitting by itself; it has: --render; give --render DIR, then kubectl apply -f DIR"),
        (["--status"], "--engine k8s has no --status"),
        (["--render", "out", "--set", "k8s.replicas=2"], "unknown key 'k8s.replicas'"),
    ],
)
def test_bad_input(options, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = swept(capsys, study(tmp_path), "--engine", "k8s", *options)
    assert run.code == 2 and said in run.err and run.err.count("error:") == 1, run.err
    assert not (tmp_path / "out").exists()


def test_the_example_of_the_documentation(tmp_path, capsys):
    example = ROOT / "docs" / "clusters" / "k8s.yaml"
    run = swept(capsys, study(tmp_path, use_cuda=True), "--cluster", example, "--render", tmp_path / "out")
    assert run.code == 0, run.err
    _, job = yaml.safe_load_all((tmp_path / "out" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": 8, "memory": "16384Mi"}, "limits": {"memory": "16384Mi", "nvidia.com/gpu": 1},
    }  # fmt: skip


def test_kubernetes_takes_the_job(tmp_path, capsys):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate==1.37.0").validate
    for part in rendered(tmp_path, capsys, "gpus_per_run=1", "k8s.secret=mongo", "k8s.node_selector.gpu=a100"):
        validate(part, "1.31", strict=True)
        with pytest.raises(Exception, match="nonsense"):
            validate(part | {"nonsense": 1}, "1.31", strict=True)


@pytest.fixture
def submission(tmp_path, capsys, monkeypatch):
    """What was submitted by `rendered`."""
    made = []
    monkeypatch.setattr("sweeping.engines.k8s.indexed_job", lambda s: made.append(s) or indexed_job(s))
    rendered(tmp_path, capsys, "gpus_per_run=1", "k8s.ray_version=2.50.0", "k8s.secret=mongo")
    return made[0]


def test_a_ray_job(submission):
    job = ray_job(submission)
    cluster = job["spec"]["rayClusterSpec"]
    assert job["spec"]["entrypoint"].startswith("python /app/src/sweep.py /study/study.yaml --submission /study ")
    assert cluster["rayVersion"] == "2.50.0" and cluster["workerGroupSpecs"][0]["replicas"] == 2
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert head["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in worker["resources"].get("limits", {})
    assert job["metadata"]["name"] == name_of(submission)


SAYS_ITS_WORDS = "import sys\nprint(sys.argv[1:])\nsys.exit(2)\n"  # in place of main.py


@pytest.fixture
def told(tmp_path, monkeypatch):
    """told(): what main.py was given by the only run of a sweep."""
    (tmp_path / "main.py").write_text(SAYS_ITS_WORDS)
    monkeypatch.setattr("sweeping.jobs.MAIN", tmp_path / "main.py")
    return lambda: next((tmp_path / "volume" / "logs").rglob("*.txt")).read_text()


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_runs_of_a_ray_job_play_in_its_own_cluster(address, tmp_path, capsys, monkeypatch, told):
    monkeypatch.setattr("runners.ray_runner.check_installed", lambda what: None)  # no run begins here
    path = study(tmp_path, "[vdn]", runner="ray", ray_address=address)
    _, job = rendered(tmp_path, capsys, path=path)
    assert job["kind"] == "RayJob"
    words = shlex.split(job["spec"]["entrypoint"])[3:]  # behind the study
    (sent,) = (tmp_path / "results" / "submissions").iterdir()
    here = {"/study": str(sent), "/results/study": str(tmp_path / "volume")}
    run = swept(capsys, sent / "study.yaml", *(here.get(word, word) for word in words))
    assert run.code == 1, run.err  # our main.py has failed
    assert "'ray_address=auto'" in told() and told().count("ray_address") == 1


def test_a_ray_run_that_another_place_began_plays_where_it_is_resumed(tmp_path, told):
    values = {"num_threads": 1, "t_max": 1}
    run = PlannedRun(
        "vdn", "two_step", 1, "vdn", "two_step", {"ray_address": "auto", "mongo_url": "mongodb://x"}, values
    )
    Job(run, tmp_path / "volume" / "logs" / "vdn.txt", tmp_path).process.wait()
    assert "'with', \"mongo_url='mongodb://x'\", 'ray_address=auto'" in told()


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="KUBERAY_CRD=PATH/ray.io_rayjobs.yaml, a file of KubeRay")
def test_kuberay_takes_the_ray_job(submission):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install kubernetes-validate==1.37.0")
    definition = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    jsonschema.Draft7Validator(schema).validate(ray_job(submission))
    job = ray_job(submission)
    job["spec"]["entrypoints"] = "misspelt"
    with pytest.raises(jsonschema.ValidationError, match="entrypoints"):
        jsonschema.Draft7Validator(schema).validate(job)


def closed(schema):
    """A schema that refuses properties it does not name, and knows what Kubernetes adds to JSON Schema."""
    if not isinstance(schema, dict):
        return schema
    out = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        out["properties"] = {name: closed(inner) for name, inner in schema["properties"].items()}
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        if "apiVersion" in schema["properties"] and "metadata" in schema["properties"]:
            out["properties"]["metadata"] = {"type": "object"}
    if "items" in schema:
        out["items"] = closed(schema["items"])
    if "additionalProperties" in schema:
        out["additionalProperties"] = closed(schema["additionalProperties"])
    return out
