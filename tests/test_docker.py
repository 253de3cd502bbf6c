"""docker/: what the compose file promises, what run.sh asks of the engine, what the image may not hold."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import ROOT, wait_until

from parts import readers
from sweep import parser
from sweeping.cluster import read_cluster
from utils.config import load, parse_overrides

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
NODES = {name: SERVICES[name] for name in ("ray-head", "ray-worker")}
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
STAGES = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)


# ---- the compose file


def test_every_service_has_a_health_check():
    assert set(SERVICES) == {"trainer", "mongo", "omniboard", "ray-head", "ray-worker"}
    for service in SERVICES.values():
        assert service["healthcheck"]["test"][0] == "CMD-SHELL" and service["healthcheck"]["retries"]


def test_the_password_is_a_secret_and_nothing_else_holds_one():
    assert set(COMPOSE["secrets"]) == {"mongo_password"}
    assert all(service["secrets"] == ["mongo_password"] for service in SERVICES.values())
    assert SERVICES["mongo"]["environment"]["MONGO_INITDB_ROOT_PASSWORD_FILE"] == "/run/secrets/mongo_password"
    assert not re.search(r"mongodb://\w+:[^$@]+@", (DOCKER / "compose.yaml").read_text())
    ignored = (ROOT / ".gitignore").read_text(), (ROOT / ".dockerignore").read_text()
    assert all("docker/secrets" in text for text in ignored)


def test_the_data_outlive_the_containers():
    assert "mongo" in COMPOSE["volumes"] and SERVICES["mongo"]["volumes"] == ["mongo:/data/db"]
    for name in ("trainer", *NODES):
        assert SERVICES[name]["volumes"] == ["../results:/app/results"]


def test_whoever_needs_mongo_waits_for_it():
    for name in ("trainer", "omniboard", "ray-head"):
        assert SERVICES[name]["depends_on"] == {"mongo": {"condition": "service_healthy"}}


def test_only_this_machine_reaches_a_port():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:8265:8265", "127.0.0.1:9000:9000"]


def test_the_trainers_command_is_one_that_main_accepts():
    """Its keys are those of a run, and the server is the service's."""
    words = shlex.split(SERVICES["trainer"]["command"][-1].replace("$$", "$"))
    assert words[:3] == ["exec", "python", "src/main.py"] and words[-1] == "$WITH"
    defaults = {
        k: re.fullmatch(r"\$\{\w+:-(.*)\}", v)[1] for k, v in SERVICES["trainer"]["environment"].items() if "{" in v
    }
    alg, env = (defaults[word.partition("=$")[2]] for word in words[3:5])
    overrides = parse_overrides(words[words.index("with") + 1 : -1])
    values = load(alg, env, overrides, readers).values
    assert values["mongo_url"].startswith("mongodb://qtran@mongo:27017/") and values["mongo_db"] == "qtran"
    assert SERVICES["trainer"]["environment"]["QTRAN_MONGO_PASSWORD_FILE"] == "/run/secrets/mongo_password"


# ---- the profile ray


def test_only_the_profile_starts_the_two_nodes():
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == set(NODES)
    assert all(node["profiles"] == ["ray"] for node in NODES.values())
    assert SERVICES["ray-worker"]["depends_on"] == {"ray-head": {"condition": "service_healthy"}}


def test_the_nodes_are_of_one_image_run_without_rights_and_have_time_to_save():
    for node in NODES.values():
        assert node["build"]["target"] == "ray" and node["build"]["args"]["DEVICE"] == "${DEVICE:-cpu}"
        assert node["image"] == "qtran:ray-${DEVICE:-cpu}"
        assert node["user"] == SERVICES["trainer"]["user"] and not node["user"].startswith(("0", "root"))
        assert node["init"] is True and node["stop_grace_period"] == SERVICES["trainer"]["stop_grace_period"]
    cuda = yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())["services"]
    for name in NODES:
        assert cuda[name]["build"]["args"] == {"DEVICE": "cuda"} and cuda[name]["image"] == "qtran:ray-cuda"
    assert "deploy" in cuda["ray-head"] and "deploy" not in cuda["ray-worker"]  # else Ray counts the same GPUs twice


def ray_start(service):
    """The options of the service's `ray start`, {name: value}."""
    command = service["command"] if isinstance(service["command"], str) else service["command"][-1]
    words = shlex.split(command.split("&&")[0])
    assert words[:2] == ["ray", "start"]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words[2:])


def test_the_worker_joins_the_head_and_their_stores_fit_into_shared_memory():
    head, worker = map(ray_start, NODES.values())
    assert all(node["environment"]["RAY_AUTH_MODE"] == "disabled" for node in NODES.values())  # of one mind
    assert "head" in head and worker["address"] == f"ray-head:{head['port']}" and "block" in worker
    for node, options in zip(NODES.values(), (head, worker)):
        assert node["shm_size"] == "1g" and int(options["object-store-memory"]) < 2**30


def test_the_head_ends_as_what_it_runs_does_and_hears_the_signal(tmp_path):
    """The container's command, with a ray that only starts."""
    script(tmp_path / "ray", "true")
    command = [word.replace("$$", "$") for word in NODES["ray-head"]["command"]]
    assert NODES["ray-head"]["environment"]["RUN"] == "${RUN:-sleep infinity}"
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=path | {"RUN": "sleep 0"}).returncode == 0
    assert subprocess.run(command, env=path | {"RUN": "no-such-program"}, stderr=subprocess.DEVNULL).returncode == 127
    run = subprocess.Popen(command, env=path | {"RUN": "sleep 60"})
    wait_until(lambda: Path(f"/proc/{run.pid}/comm").read_text() == "sleep\n")  # in place of bash
    run.terminate()
    assert run.wait() == -signal.SIGTERM


PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("docker.md", "clusters-ray.md"))
RUNS = re.findall(r'^RUN="([^"]+)"', PAGES.replace("\\\n", " "), re.MULTILINE)


def test_what_the_pages_have_the_head_run_is_accepted(monkeypatch):
    monkeypatch.setattr("runners.ray_runner.check_installed", lambda what: None)  # no run begins here
    run, sweep = (shlex.split(text) for text in RUNS)
    assert run[:2] == ["python", "src/main.py"] and sweep[:2] == ["python", "src/sweep.py"]
    alg, env = (word.partition("=")[2] for word in run[2:4])
    values = load(alg, env, parse_overrides(run[run.index("with") + 1 :]), readers).values
    assert (values["runner"], values["ray_address"]) == ("ray", "auto")
    assert values["mongo_url"].startswith("mongodb://qtran@mongo:27017/")
    options = parser().parse_args(sweep[2:])
    cluster = read_cluster(Path(options.study), None, options.set, {"engine": options.engine}, None)
    assert (ROOT / options.study).exists() and (cluster.engine, cluster.ray.address) == ("ray", "auto")


@pytest.mark.parametrize("results, healthy", [([], False), ([0], True), ([2 * 3600], False), ([2 * 3600, 60], True)])
def test_the_trainer_is_healthy_as_long_as_a_run_writes(results, healthy, tmp_path):
    (tmp_path / "results").mkdir()
    for i, age in enumerate(results):
        path = tmp_path / "results" / str(i) / "metrics.jsonl"
        path.parent.mkdir()
        path.touch()
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
    run = subprocess.run(SERVICES["trainer"]["healthcheck"]["test"][1], shell=True, cwd=tmp_path)
    assert (run.returncode == 0) is healthy


def test_targets_that_are_named_exist():
    cuda = yaml.safe_load((DOCKER / "compose.cuda.yaml").read_text())["services"]["trainer"]["build"]["target"]
    named = [re.fullmatch(r"\$\{TARGET:-(.*)\}", text)[1] for text in (cuda, SERVICES["trainer"]["build"]["target"])]
    assert named == ["cuda", "cpu"] and {*named, "sc2", "sc2-cuda", "test"} <= set(STAGES)
    assert all((ROOT / path).exists() for path in re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE))


# ---- run.sh, against a docker that writes down what it is asked


@pytest.fixture
def engine(tmp_path):
    """engine(*argv, gpu, image, **environment): (run, [the words of each call of docker])."""

    def call(*argv, gpu=False, image=True, **environment):
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        script(tools / "docker", f'printf "%s\\n" "$*" >> {log}; [ "$1" != image ] || exit {0 if image else 1}')
        script(tools / "nvidia-smi", "echo 'GPU 0: H'" if gpu else "exit 9")
        run = subprocess.run(
            [DOCKER / "run.sh", *argv], capture_output=True, text=True, cwd=tmp_path, stdin=subprocess.DEVNULL,
            env={"PATH": f"{tools}:{os.environ['PATH']}"} | environment,
        )  # fmt: skip
        return run, log.read_text().splitlines() if log.exists() else []

    return call


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_it_trains_as_this_user_with_results_outside(engine, tmp_path):
    run, calls = engine("--config=vdn", "--env-config=two_step", "with", "seed=1")
    assert run.returncode == 0 and (tmp_path / "results").is_dir()
    assert calls[-1].startswith("run --rm --init") and "--gpus" not in calls[-1]
    assert f"--user {os.getuid()}:{os.getgid()} --volume {tmp_path}/results:/app/results" in calls[-1]
    assert calls[-1].endswith("qtran:cpu python src/main.py --config=vdn --env-config=two_step with seed=1")


def test_the_gpu_is_used_where_there_is_one(engine):
    assert "--gpus all" in engine("x", gpu=True)[1][-1] and "qtran:cuda python" in engine("x", gpu=True)[1][-1]
    assert "--gpus" not in engine("x", gpu=True, GPU="no")[1][-1]


def test_the_image_is_built_once_from_its_target(engine):
    assert not any(call.startswith("build") for call in engine("x")[1])
    build = next(
        call for call in engine("x", image=False, IMAGE="mine:sc2", SC2_ACCEPT_LICENCE="yes")[1] if "build" in call
    )
    assert "--target sc2 --tag mine:sc2" in build and "SC2_ACCEPT_LICENCE=yes" in build


def test_other_commands_and_the_game(engine, tmp_path):
    (tmp_path / "game").mkdir()
    _, calls = engine("doctor", "--start", "sc2", SC2PATH="game")
    assert f"--volume {tmp_path}/game:/opt/StarCraftII --env SC2PATH=/opt/StarCraftII" in calls[-1]
    assert calls[-1].endswith("python src/doctor.py --start sc2")


def test_without_an_engine_it_says_what_to_do(engine):
    run, _ = engine("x", ENGINE="no-such-engine")
    assert run.returncode == 127 and "no-such-engine is not installed" in run.stderr and "ENGINE=podman" in run.stderr


def test_help_needs_no_engine(engine):
    run, calls = engine("--help", ENGINE="no-such-engine")
    assert run.returncode == 0 and "usage:" in run.stdout and calls == []


# ---- the Dockerfile


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_requirements_come_before_the_source_and_no_target_runs_as_root(device):
    assert DOCKERFILE.index("COPY requirements.txt") < DOCKERFILE.index("COPY src")
    stage, user, copied = None, {}, {}
    for line in DOCKERFILE.replace("${DEVICE}", device).splitlines():
        if found := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            base, stage = found.groups()
            user[stage] = user.get(base)
        elif line.startswith("USER"):
            user[stage] = line.split()[1]
        elif line.startswith("COPY src") or line == "COPY . .":
            copied[stage] = True
    assert {user[stage] for stage in ("cpu", "cuda", "sc2", "sc2-cuda", "ray", "test")} == {"1000:1000"}
    assert set(copied) == {"cpu", "cuda", "test"}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_doctor_and_a_training_find_all_their_files_in_the_image(target, tmp_path):
    """The files that the target copies, in a folder of their own."""
    stage = re.search(rf"^FROM base AS {target}$(.*?)^FROM", DOCKERFILE, re.MULTILINE | re.DOTALL)[1]
    for source in re.findall(r"^COPY (?!--from)(\S+)", stage, re.MULTILINE):
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    for words in (["src/doctor.py", "--start", "two_step"], ["src/main.py", "--list"], ["src/sweep.py", "--help"]):
        run = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_tests_find_their_programs_in_the_image():
    stage = DOCKERFILE.split("FROM cpu AS test")[1]
    assert {"git", "curl", "unzip"} <= set(stage.split("apt-get install", 1)[1].split("&&")[0].split())


def test_ray_stands_on_the_device_that_is_asked_for():
    """On the CPU where none is; its packages on those of the same device."""
    before, _, _ = DOCKERFILE.partition("\nFROM ")
    assert "\nARG DEVICE=cpu" in before  # an ARG that FROM can read
    assert {"cpu", "cuda", "packages-cpu", "packages-cuda"} <= set(STAGES)
    packages, ray = (re.split(r"^FROM ", part, flags=re.MULTILINE)[0] for part in re.split(
        r"^FROM (?:packages-)?\$\{DEVICE\} AS .*$", DOCKERFILE, flags=re.MULTILINE
    )[1:])  # fmt: skip
    assert "pip install --no-cache-dir -c requirements/constraints.txt -r requirements/ray.txt" in packages
    assert "COPY --from=packages-ray /opt/venv /opt/venv" in ray and "ENV RAY_USAGE_STATS_ENABLED=0" in ray
    asked = {shlex.split(node["healthcheck"]["test"][1])[0] for node in NODES.values()}
    assert asked == {"wget"} and "wget" in ray.split("apt-get install", 1)[1].split("&&")[0].split()


def test_python_of_the_base_image_is_one_that_the_project_runs_on():
    version = re.search(r"^ARG BASE_IMAGE=python:3\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert version and 10 <= int(version[1]) <= 13
