"""src/doctor.py: what it says of a machine that works, and of real faults; its exit status."""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from command import ROOT, files, outcome
from small_disk import small_disk
from wire_mongo import WireMongo, free_port

import checks
import doctor
import main
from envs import REGISTRY, env_class
from envs.games.two_step import TwoStep
from envs.starcraft.installation import SMAC_MAPS, SMACV2_MAP
from envs.vector import ArrayEnv, EnvInfo, Observation

SOURCE = ROOT / "src"
EMBEDDED = [name for name in REGISTRY if not env_class(name).install]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder of its own, no StarCraft II, no password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SC2PATH", "QTRAN_MONGO_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def told(capsys):
    """told(*argv): (Outcome, {what: its line})."""

    def run(*argv):
        ended = outcome(doctor.main, capsys, argv)
        lines = [line for line in ended.out.splitlines() if line.startswith("│")]
        return ended, {line.split("│")[1].strip(): line for line in lines}

    return run


def state(line):
    return line.split("│")[2].strip()


# ---- the command


def test_help_needs_no_package():
    run = subprocess.run([sys.executable, "-S", SOURCE / "doctor.py", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert all(word in run.stdout for word in ("--start", "--env-config", "with", "exit status", "missing"))


def test_a_machine_that_works(told, folder):
    run, rows = told()
    assert run.code == 0 and run.out.endswith("everything that is needed works\n")
    games = [f"environment {name}" for name in EMBEDDED]
    wanted = ["Python", "requirements.txt", "device", "sacred", *games, "free ports", "MongoDB", "disk", "memory"]
    assert [state(rows[name]) for name in wanted] == ["ok"] * len(wanted)
    assert state(rows["StarCraft II"]) == "missing" and "docker/install_sc2.sh" in rows["StarCraft II"]
    assert files(folder) == []


def test_it_looks_at_the_run_that_is_asked_for(told):
    run, rows = told("--env-config=predator_prey", "with", "buffer_size=777", "batch_size_run=3")
    assert run.code == 0
    assert "replay: 777 episodes" in rows["memory"] and "batch_size_run=3" in rows["free ports"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_start_plays_one_episode(name, told):
    run, rows = told("--start", name, "with", "seed=1")
    row = rows[f"one episode of {name}"]
    assert run.code == 0 and all(word in row for word in ("agents", "actions", "return", "steps")), row


def test_an_episode_is_random_available_actions_to_the_end():
    """Of the two-step game: two steps, and one of the four returns that it has."""
    values = {"env": "two_step", "env_args": {}, "seed": 3}
    check = checks.episode(values)
    assert check.state == "ok" and "2 of at most 2 steps to a terminal state" in check.detail
    assert any(f"return {pays}.000" in check.detail for pays in (0, 1, 7, 8))


class Picky(ArrayEnv):
    """One action of each agent is available, another at each step; any other is an error. Ends at its limit."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config, n_envs=1, seed=None):
        super().__init__(EnvInfo(n_agents=3, n_actions=7, obs_shape=1, state_shape=1, episode_limit=30), n_envs, seed)

    def _reset(self, mask):
        self.wanted = self.rng.integers(7, size=(self.n_envs, 3))

    def _observe(self):
        avail = self.wanted[..., None] == np.arange(7)
        return Observation(np.zeros((self.n_envs, 3, 1)), np.zeros((self.n_envs, 1)), avail)

    def _step(self, actions, live):
        assert (actions == self.wanted).all(), "not available"
        self._reset(live)
        return np.ones(self.n_envs), np.zeros(self.n_envs, dtype=bool)


def test_only_available_actions_are_played(monkeypatch):
    monkeypatch.setitem(REGISTRY, "two_step", f"{__name__}:Picky")
    check = checks.episode({"env": "two_step", "env_args": {}, "seed": 1})
    assert check.state == "ok" and "30 of at most 30 steps to the time limit" in check.detail
    assert "return 30.000" in check.detail


def test_a_game_that_fails_is_told_in_one_line(told, monkeypatch):
    run = doctor.values_of("vdn", "two_step", ["seed=1"])
    monkeypatch.setitem(REGISTRY, "two_step", "toy_env:Toy")
    for fault, said in (
        ("raise", "RuntimeError: the game's engine has stopped"),
        ("refuse", "this game cannot be made"),
    ):
        check = checks.episode({"env": "two_step", "env_args": dict(fault=fault, at=0, pays_each=False), "seed": 1})
        assert check.state == "broken" and said in check.detail
        memory = checks.memory(run | {"env_args": dict(fault=fault, at=0, pays_each=False)})
        assert memory.state == ("broken" if fault == "refuse" else "ok")


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--start", "two_stop"], "--start=two_stop: unknown"),
        (["--env-config=two_step", "--start", "matrix_game"], "give one of the two"),
        (["--config=qtran"], "--config=qtran: unknown"),
        (["with", "buffer_sise=3"], "'buffer_size'"),
        (["--stort"], "unrecognized arguments"),
        (["with", "mongo_url=mongodb://127.0.0.1:1"], "mongo_db is not set"),
    ],
)
def test_bad_input(argv, said, told):
    run, _ = told(*argv)
    assert run.code == 2 and said in run.err and "Traceback" not in run.err


# ---- packages


def test_without_the_core_it_still_tells_what_to_install():
    """-S: Python without site-packages."""
    run = subprocess.run([sys.executable, "-S", SOURCE / "doctor.py"], capture_output=True, text=True)
    assert run.returncode == 1 and "pip install -r requirements.txt" in run.stdout and run.stderr == ""


@pytest.mark.parametrize(
    "module, error, said",
    [
        ("torch", "OSError('libcudart.so.12: cannot open')", "import torch: libcudart.so.12"),
        (
            "pkg_resources",
            "ModuleNotFoundError('No module named pkg_resources')",
            "import sacred: No module named pkg_res",
        ),
    ],
)
def test_a_core_package_that_is_there_and_cannot_be_imported(module, error, said, folder):
    (folder / f"{module}.py").write_text(f"raise {error}")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    run = subprocess.run([sys.executable, SOURCE / "doctor.py"], env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and said in run.stdout and "pip install --force-reinstall" in run.stdout
    assert "nothing else was checked" in run.stdout and "Traceback" not in run.stderr


def test_a_requirements_file_tells_each_absent_package_and_each_other_version(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    (tmp_path / "extra.txt").write_text(
        "# two\n-r other.txt\nnumpy>=1  # why\nno-such-package==1\nnor_this @ git+https://host/x.git@abc\n"
        "absent; python_version < '3'\n"
    )
    check = checks.packages("extra.txt", needed=False)
    assert check[1:] == ("missing", "not installed: no-such-package, nor_this", "pip install -r extra.txt")
    assert checks.packages("extra.txt").state == "broken"
    (tmp_path / "extra.txt").write_text("numpy==0.1")
    check = checks.packages("extra.txt")
    assert check.state == "ok" and "(tested with ==0.1)" in check.detail


@pytest.mark.parametrize("content, said", [(None, "No such file"), (b"numpy = 1", "Expected"), (b"\xff", "decode")])
def test_a_requirements_file_that_is_not_there_or_none(content, said, monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    if content:
        (tmp_path / "requirements.txt").write_bytes(content)
    check = checks.packages("requirements.txt")
    assert check.state == "broken" and f"{tmp_path}/requirements.txt: " in check.detail and said in check.detail
    assert "\n" not in check.detail and "take requirements.txt from the repository" in check.fix


def test_a_game_whose_package_is_missing(told, monkeypatch):
    monkeypatch.setattr(TwoStep, "needs", ("no_such_package",))
    monkeypatch.setattr(TwoStep, "install", "pip install -r requirements/dev.txt")
    run, rows = told()
    row = rows["environment two_step"]
    assert (
        run.code == 0
        and state(row) == "missing"
        and row.split("│")[4].strip() == ("pip install -r requirements/dev.txt")
    )
    run, rows = told("--env-config=two_step", "with", "env_args.any=1", f"mongo_url=mongodb://127.0.0.1:{free_port()}/",
                     "mongo_db=a")  # fmt: skip
    assert run.code == 1 and state(rows["environment two_step"]) == state(rows["MongoDB"]) == "broken"
    assert "broken: environment two_step, MongoDB" in run.out and "two_step does not work here" in run.out


def test_a_package_that_is_there_and_cannot_be_imported(told, monkeypatch, tmp_path):
    (tmp_path / "torn_game.py").write_text("raise TypeError('Descriptors cannot be created directly')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(REGISTRY, "two_step", "torn_game:Env")
    run, rows = told("--env-config=two_step")
    assert run.code == 1 and "TypeError: Descriptors cannot be created" in rows["environment two_step"]


# ---- StarCraft II


def test_everything_that_starcraft_lacks_is_told_at_once(told, monkeypatch):
    """Without the package, with a protobuf that pysc2 cannot bear, and without the game."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "7.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    run, rows = told("--start", "sc2", "with", "env_args.map_name=8m", "local_results_path=/proc/nowhere")
    assert run.code == 1 and "sc2 does not work here" in run.out and "Traceback" not in run.err
    for name, fix in {
        "environment sc2": "pip install -r requirements/sc2.txt",
        "protobuf": "pip install protobuf==3.20.3",
        "StarCraft II": "docker/install_sc2.sh --accept-licence",
        "disk": "local_results_path=FOLDER",
    }.items():
        assert state(rows[name]) == "broken" and fix in rows[name]
    run, rows = told()
    assert run.code == 0 and state(rows["environment sc2"]) == state(rows["protobuf"]) == "missing"


def game(folder, build="Base75689", maps=()):
    (folder / "Versions" / build).mkdir(parents=True)
    (folder / "Versions" / build / "SC2_x64").touch()
    (folder / "Maps/SMAC_Maps").mkdir(parents=True)
    for name in maps:
        (folder / f"Maps/SMAC_Maps/{name}.SC2Map").touch()
    return folder


def test_starcraft_with_its_version_and_maps(tmp_path, monkeypatch):
    path = game(tmp_path / "sc2", maps=[*SMAC_MAPS, SMACV2_MAP])
    monkeypatch.setenv("SC2PATH", str(path))
    found = checks.starcraft(needed=True)
    assert [check.state for check in found] == ["ok"] * 3
    assert found[0].detail == str(path) and found[1].detail == "4.10.0.75689" and "23 of SMAC" in found[2].detail


@pytest.mark.parametrize("needed, word", [(True, "broken"), (False, "missing")])
def test_starcraft_that_lacks_something(needed, word, tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", "/no/where")
    [check] = checks.starcraft(needed)
    assert check.state == word and "SC2PATH=/no/where is not a folder" in check.detail and "install_sc2.sh" in check.fix
    monkeypatch.setenv("SC2PATH", str(game(tmp_path / "old", "Base5", maps=["3m"])))
    _, version, maps = checks.starcraft(needed)
    assert (version.state, maps.state) == (word, "missing") and "too old" in version.detail
    assert "8m, 25m" in maps.detail and "3m," not in maps.detail.split("missing:")[1].split(" 8m")[0]
    assert maps.fix == f"SC2PATH={tmp_path}/old docker/install_sc2.sh --accept-licence"
    monkeypatch.setenv("SC2PATH", str(game(tmp_path / "bare")))
    assert checks.starcraft(needed)[2].state == word


# ---- the machine


def test_ports_that_cannot_be_opened():
    assert checks.ports(8).state == "ok"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, hard))
    try:
        check = checks.ports(1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert check.state == "broken" and "of 1000" in check.detail and "Too many open files" in check.detail


def test_mongo_alive_and_dead(told):
    server = WireMongo()
    try:
        run, rows = told("with", f"mongo_url={server.url}", "mongo_db=runs")
        assert run.code == 0 and "database runs" in rows["MongoDB"]
    finally:
        server.kill()
    run, rows = told("with", f"mongo_url={server.url}", "mongo_db=runs")
    assert run.code == 1 and state(rows["MongoDB"]) == "broken"
    assert f"start the server of {server.url}, or run without it: mongo_url=null" in run.out
    check = checks.mongo("http://u:secret@x", "a")
    assert check.state == "broken" and "secret" not in str(check)


def test_the_results_folder(told, folder):
    assert checks.disk("deep/er").state == "ok" and files(folder) == []
    (folder / "file").touch()
    for path in ("file", "/proc/nowhere"):
        run, rows = told("with", f"local_results_path={path}")
        assert run.code == 1 and state(rows["disk"]) == "broken" and "local_results_path=FOLDER" in rows["disk"]


def test_a_disk_that_is_almost_full_and_full(tmp_path):
    with small_disk(tmp_path / "small", "1m") as disk:
        check = checks.disk(disk.path)
        assert check.state == "broken" and "0.0 GiB free" in check.detail and "delete files" in check.fix
        disk.fill()
        check = checks.disk(disk.path)
        assert check.state == "broken" and "No space left" in check.detail


def test_a_replay_that_does_not_fit(told):
    run, rows = told("--env-config=predator_prey", "with", "buffer_size=1000000000")
    assert run.code == 1 and "1000000000 episodes need" in rows["memory"] and "buffer_size=" in rows["memory"]


@pytest.mark.parametrize("values", [["hidden_dim=4096"], ["batch_size=100000", "buffer_size=100000"]])
def test_memory_is_what_the_run_refuses_by(values, told, capsys, monkeypatch):
    """Networks and batches too, not the replay alone."""
    monkeypatch.setattr("parts.free_memory", lambda device: 2**30)
    words = ["--config=qmix", "--env-config=predator_prey", "with", "seed=1", "use_cuda=False", *values]
    run, rows = told(*words)
    started = outcome(main.main, capsys, words)
    assert (run.code, started.code) == (1, 2), started.err
    assert state(rows["memory"]) == "broken" and "in all, but cpu has 1.00 GiB free" in rows["memory"]
    *parts, _ = started.err.removeprefix("error: ").split(" in all")[0].split(", ")
    assert parts and [part for part in parts if part not in rows["memory"]] == []


# ---- tables


@pytest.mark.parametrize("flag", [["--env-config=matrix_game"], ["--start", "matrix_game"]])
def test_a_check_of_one_environment_shows_that_one(flag, told):
    _, rows = told(*flag)
    assert [name for name in rows if name.startswith("environment")] == ["environment matrix_game"]
    assert "StarCraft II" not in rows and "requirements/gym.txt" not in rows


def test_of_one_that_needs_packages_these_are_shown(told):
    _, rows = told("--env-config=gymma")
    assert "requirements/gym.txt" in rows and "requirements/sc2.txt" not in rows


def test_in_a_narrow_terminal_the_fix_stays_in_one_piece(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    fix = "pip install --no-deps git+https://example.org/a/very/long/address/that/no/column/holds.git"
    doctor.show([checks.Check("a game", "missing", "it is not installed", fix)])
    lines = capsys.readouterr().out.splitlines()
    assert f"a game, fix: {fix}" in lines
    assert all(len(line) <= 60 or fix in line for line in lines if "\x1b" not in line)


def test_a_game_of_the_users_own_is_found_in_the_working_directory(told, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(ROOT)])
    monkeypatch.delitem(sys.modules, "examples", raising=False)
    run, rows = told("--config=vdn", "--env-config=examples/meeting.yaml")
    assert state(rows["environment examples.meeting:Meeting"]) == "ok" and run.code == 0
