"""Nonsense sizes: one message at once, with the sum, before anything large is made. Sizes that fit: announced."""

import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command import PROGRAM, here, words
from helpers import make_args, make_learner, modules

import envs
from components.episode_buffer import EpisodeBatch, make_scheme
from envs.vector import EnvInfo
from envs.workers import worker_env
from parts import COPIES, _networks, readers
from utils.args import ConfigError, declared
from utils.config import load
from utils.config_files import names
from utils.memory_needs import Part, of_episodes, refuse_if_too_large

GIB = 2**30
# Whole numbers that take no memory: times, and numbers that only name or count something.
TIMES = {
    "seed", "load_step", "repeat_id", "t_max", "updates_per_run", "learning_starts", "test_interval", "test_nepisode",
    "log_interval", "save_model_interval", "keep_checkpoints", "resume_interval", "epsilon_anneal_time",
    "lr_decay_start", "learner_log_interval", "runner_log_interval", "step_mul", "restart_every",
}  # fmt: skip


@pytest.fixture(autouse=True)
def within_bounds():
    """What should be refused and is not must neither fill the machine nor hang."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (now + 4 * GIB, hard))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_slow(*_):
    raise TimeoutError


@pytest.fixture
def memory(monkeypatch):
    """memory(cpu=bytes, cuda=bytes): so much is free."""

    def free(**bytes_of):
        for module in ("utils.memory", "parts", "components.episode_buffer"):
            monkeypatch.setattr(f"{module}.free_memory", lambda device: bytes_of[device])

    return free


def refused(capsys, folder, argv, *said):
    run = here(capsys, argv)
    assert run.code == 2, run.err
    assert run.err.count("error:") == 1 and "Traceback" not in run.err and "run directory" not in run.out
    assert all(part in run.err for part in said), run.err
    assert not folder.exists()


# ---- bounds


@pytest.mark.parametrize(
    "alg, env, value",
    [
        ("vdn", "matrix_game", "hidden_dim=1000000"),
        ("qmix", "matrix_game", "mixing_embed_dim=100000000000000"),
        ("qmix", "matrix_game", "hypernet_embed=1000000"),
        ("qtran_base", "matrix_game", "mixing_embed_dim=100000000000000"),
        ("qatten", "matrix_game", "n_attention_heads=1000000"),
        ("qatten", "matrix_game", "query_hidden_dim=1000000"),
        ("qatten", "matrix_game", "attention_dim=1000000"),
        ("vdn", "two_step", "head_layers=10000000000"),
        ("vdn", "two_step", "batch_size=2147483647"),
        ("vdn", "two_step", "batch_steps=2147483647"),
        ("vdn", "two_step", "batch_size_run=2147483647"),
        ("vdn", "two_step", "buffer_size=9000000000000000000"),
        ("vdn", "gaussian_squeeze", "env_args.n_agents=10000000000000000000000000"),
        ("vdn", "gaussian_squeeze", "env_args.n_actions=2147483648"),
        ("vdn", "predator_prey", "env_args.map_size=1000000"),
        ("vdn", "predator_prey", "env_args.n_predators=1000000"),
        ("vdn", "predator_prey", "env_args.n_prey=1000000"),
        ("vdn", "predator_prey", "env_args.sight=1000000"),
        ("vdn", "predator_prey", "env_args.episode_limit=1000000000"),
        ("vdn", "gymma", "env_args.time_limit=1000000000"),
        ("vdn", "smaclite", "env_args.time_limit=1000000000"),
        ("vdn", "smax", "env_args.episode_limit=1000000000"),
        ("vdn", "sc2v2", "env_args.num_fov_actions=1000000"),
    ],
)
def test_a_size_out_of_bounds(alg, env, value, tmp_path, capsys):
    name, _, number = value.partition("=")
    argv = words(alg, env, tmp_path / "r", value)
    refused(capsys, tmp_path / "r", argv, f"command line: {name} = {number} must be", "at most")


@pytest.mark.parametrize("env", names("envs"))
@pytest.mark.parametrize("alg", ["qmix", "qatten", "qtran_alt"])
def test_each_size_has_an_upper_bound(alg, env):
    for name, declaration in load(alg, env, {}, readers).schema.items():
        if "int" in str(declaration.type) and name.removeprefix("env_args.") not in TIMES:
            meta = declaration.meta
            assert meta["high"] is not None or meta["choices"], (
                f"{name} has no upper bound: a size? else add it to TIMES"
            )


@pytest.mark.parametrize("env", names("envs"))
def test_present_configurations_are_within_the_bounds(env):
    for alg in names("algs"):
        assert load(alg, env, {}, readers).values


# ---- the game


@pytest.mark.parametrize(
    "env, values, said",
    [
        ("predator_prey", ["env_args.map_size=1000"], ["predator_prey: 2 environments need 3725", "map_size=1000"]),
        ("predator_prey", ["env_args.map_size=1000"], ["env_args.encoding=one_hot", "cpu has 0.10 GiB free; lower"]),
        ("predator_prey", ["env_args.map_size=1000", "env_args.encoding=numbers"], ["2 environments need 0.23 GiB"]),
        ("predator_prey", ["env_args.map_size=40", "env_args.sight=None"], ["need 0.16 GiB", "env_args.sight=None"]),
        ("gaussian_squeeze", ["env_args.n_agents=1024", "batch_size_run=16"], ["need 0.13 GiB"]),
        ("gaussian_squeeze", ["env_args.n_actions=1000000", "env_args.n_agents=99"], ["env_args.n_actions=1000000"]),
        ("two_step", ["batch_size_run=65536", "buffer_size=65536"], ["65536 environments", "batch_size_run=65536"]),
        ("matrix_game", ["batch_size_run=65536", "buffer_size=65536"], ["65536 environments"]),
        ("matrix_game", ["env_workers=True", "batch_size_run=16"], ["matrix_game: 16 processes need 0.28 GiB"]),
    ],
)  # fmt: skip
def test_a_game_that_does_not_fit_is_refused_before_it_is_made(env, values, said, tmp_path, capsys, memory):
    memory(cpu=2**20 if env in ("two_step", "matrix_game") else GIB // 10)
    refused(capsys, tmp_path / "r", words("vdn", env, tmp_path / "r", *values), *said)


def test_a_game_of_terabytes_on_this_machine(tmp_path):
    argv = words("vdn", "predator_prey", tmp_path / "r", "env_args.map_size=1000")
    run = subprocess.run([*PROGRAM, *argv], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and run.stderr.count("error:") == 1 and "need 3725" in run.stderr, run.stderr


GRID = dict(map_size=6, n_predators=3, n_prey=2, penalty=0.5, sight=None, episode_limit=9, encoding="one_hot")
SQUEEZE = dict(n_agents=10, n_actions=11, k=1, s_max=0.2)


@pytest.mark.parametrize(
    "name, n_envs, keys",
    [
        ("predator_prey", 200, GRID),
        ("predator_prey", 1, GRID | {"map_size": 20}),
        ("predator_prey", 1000, GRID | {"sight": 1}),
        ("predator_prey", 20, GRID | {"map_size": 50, "sight": 2}),
        ("predator_prey", 300, GRID | {"encoding": "numbers", "map_size": 10, "n_predators": 9, "n_prey": 30}),
        ("predator_prey", 2, GRID | {"encoding": "numbers", "map_size": 200}),
        ("gaussian_squeeze", 2000, SQUEEZE),
        ("gaussian_squeeze", 20, SQUEEZE | {"n_actions": 40_000}),
        ("gaussian_squeeze", 2, SQUEEZE | {"n_agents": 1024}),
        ("two_step", 20_000, {}),
        ("matrix_game", 20_000, dict(payoff=None, clip=None, penalty=0.0, observe_state="all", key="qtran_21x21")),
    ],
)
def test_what_a_game_is_said_to_need_is_what_it_takes(name, n_envs, keys):
    said = envs.need(name, keys, n_envs).nbytes
    tracemalloc.start()
    try:
        env = envs.make(name, keys, n_envs, seed=1)
        seen = env.reset()
        for _ in range(3):
            seen = env.step(np.zeros((n_envs, env.env_info.n_agents), dtype=int))
        assert len(seen.obs) == n_envs
        took = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.4 < said / took < 1.15


@pytest.mark.parametrize("sight", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("encoding", ["numbers", "one_hot"])
def test_the_sizes_of_predator_prey_are_those_of_its_arrays(encoding, sight):
    env = envs.make("predator_prey", GRID | {"encoding": encoding, "sight": sight}, 2, seed=1)
    seen = env.reset()
    assert seen.obs.shape == (2, 3, env.env_info.obs_shape) and seen.state.shape == (2, env.env_info.state_shape)


def test_too_many_processes_or_objects(tmp_path, capsys, memory):
    memory(cpu=2**60)
    for env, values, said in (
        ("matrix_game", ["env_workers=True"], "batch_size_run = 5000: matrix_game makes so many processes"),
        ("gymma", ["env_args.key=a"], "batch_size_run = 5000: gymma makes so many objects; give at most 1024"),
    ):
        if env == "gymma":
            pytest.importorskip("gymnasium")
        argv = words("vdn", env, tmp_path / "r", *values, "batch_size_run=5000", "buffer_size=5000")
        refused(capsys, tmp_path / "r", argv, said)


def test_more_processes_than_files_may_be_opened(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        argv = words("vdn", "two_step", tmp_path / "r", "env_workers=True", "batch_size_run=16")
        refused(capsys, tmp_path / "r", argv, "batch_size_run: 16 worker processes need", "at most 12 can be started")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_room_for_shared_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worker_env.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    argv = words("vdn", "two_step", tmp_path / "r", "env_workers=True", "batch_size_run=1")
    refused(capsys, tmp_path / "r", argv, "shared memory: 1 environments need", "/dev/shm has 0.00 GiB free")


def test_worker_processes_do_without_torch():
    code = "import sys, envs, envs.workers.worker_process, envs.games.predator_prey; assert 'torch' not in sys.modules"
    source = os.path.dirname(PROGRAM[1])
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True)


def test_payoffs_have_as_many_axes_as_numpy_can_broadcast(tmp_path, capsys):
    def payoff(agents):
        return f"env_args.payoff={'[' * agents}1{']' * agents}"

    refused(
        capsys, tmp_path / "r", words("vdn", "matrix_game", tmp_path / "r", payoff(32)), "nests 32 lists", "at most 31"
    )
    assert here(capsys, words("vdn", "matrix_game", tmp_path, payoff(31))).code == 0


def test_a_scenario_of_too_many_units(tmp_path, capsys):
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("""\
map_name: 10gen_terran
capability_config:
  n_units: 1000000000
  n_enemies: 5
  team_gen: {dist_type: weighted_teams, unit_types: [marine], weights: [1.0], exception_unit_types: [], observe: True}
  start_positions: {dist_type: surrounded_and_reflect, p: 0.5, map_x: 32, map_y: 32}
""")
    argv = words("vdn", "sc2v2", tmp_path / "r", f"env_args.map_name={scenario}")
    refused(capsys, tmp_path / "r", argv, "n_units, n_enemies: [1000000000, 5] are not numbers of units, 1 to 1024")


# ---- networks, batches and the replay


@pytest.mark.parametrize(
    "alg, env, values, said",
    [
        ("vdn", "two_step", ["hidden_dim=65536"], ["networks: ", "parameters need 80.0", "hidden_dim=65536"]),
        ("vdn", "two_step", ["head_layers=64", "hidden_dim=8192"], ["with targets and optimiser", "head_layers=64"]),
        ("qmix", "two_step", ["mixing_embed_dim=65536", "hypernet_embed=65536"], ["hypernet_embed=65536"]),
        ("qatten", "two_step", ["n_attention_heads=256", "query_hidden_dim=65536"], ["n_attention_heads=256"]),
        ("qtran_alt", "gaussian_squeeze", ["env_args.n_actions=40000"], ["networks: ", "n_actions=40000"]),
        ("vdn_ns", "gaussian_squeeze", ["env_args.n_agents=200", "hidden_dim=2048"], ["networks: ", "n_agents=200"]),
        ("vdn", "two_step", ["batch_steps=1000000", "batch_size=1000"], ["update: 1000 episodes need", "batch_steps="]),
        ("vdn", "two_step", ["batch_size=1000000", "hidden_dim=512"], ["update: 1000000", "episodes fit: batch_size="]),
        ("vdn", "gaussian_squeeze", ["batch_size_run=65536", "env_args.n_actions=2000"], ["round: 65536", "_run="]),
        ("vdn", "predator_prey", ["env_args.episode_limit=1000000", "t_max=2000000"], ["buffer_size=5"]),
        ("vdn", "two_step", ["buffer_size=1000000000000"], ["replay: 1000000000000 episodes need", "episodes fit"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_sum(alg, env, values, said, tmp_path, capsys, memory):
    memory(cpu=8 * GIB)
    room = [] if any("buffer" in value for value in values) or env == "predator_prey" else ["buffer_size=1000000"]
    argv = words(alg, env, tmp_path / "r", *room, *values)
    refused(capsys, tmp_path / "r", argv, *said, "but cpu has 8.00 GiB free; ")


def test_all_is_summed_up(tmp_path, capsys, memory):
    memory(cpu=GIB)
    values = ["hidden_dim=2000", "batch_size=200000", "batch_size_run=60000", "buffer_size=2000000", "head_layers=1"]
    refused(capsys, tmp_path / "r", words("vdn", "two_step", tmp_path / "r", *values), "networks", "round", "in all")


def test_devices_are_looked_at_apart(tmp_path, capsys, memory, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    argv = words("qmix", "two_step", tmp_path / "r", "use_cuda=True", "hidden_dim=128", "buffer_size=2000000")
    memory(cpu=100 * GIB, cuda=2**18)
    refused(capsys, tmp_path / "r", argv, "networks: ", "cuda has 0.00 GiB free")
    memory(cpu=GIB // 8, cuda=100 * GIB)
    refused(capsys, tmp_path / "r", argv, "replay: 2000000 episodes need", "cpu has 0.12 GiB free")
    memory(cpu=GIB, cuda=GIB // 8)
    refused(capsys, tmp_path / "r", [*argv, "buffer_cpu_only=False"], "replay: ", "cuda has 0.12 GiB free")


def test_an_evaluation_needs_no_replay(tmp_path, capsys):
    assert here(capsys, words("vdn", "two_step", tmp_path / "a")).code == 0
    path = next((tmp_path / "a/vdn/two_step").iterdir())
    more = ["evaluate=True", f"checkpoint_path={path}", "buffer_size=1000000000000"]
    run = here(capsys, words("vdn", "two_step", tmp_path / "b", *more))
    assert run.code == 0 and "networks: " in run.err and "minibatch" not in run.err, run.err


def test_what_fits_is_announced(tmp_path, capsys):
    run = here(capsys, words("qmix", "predator_prey", tmp_path))
    lines = [line.partition("] ")[2] for line in run.err.splitlines()]
    told = (
        "predator_prey: 2 environments, 0.000 GiB on cpu; round: 2 episodes, 0.000 GiB on cpu; minibatch: 4 episodes, "
    )
    (networks,) = [line for line in lines if line.startswith("networks: ")]
    assert networks.endswith(" parameters, 0.000 GiB with targets and optimiser on cpu")
    assert any(line.startswith(told) for line in lines) and "replay: 16 episodes, 0.000 GiB on cpu" in lines


@pytest.mark.parametrize("alg", names("algs"))
def test_parameters_are_counted_without_making_them(alg):
    args = make_args(alg)
    before = torch.get_rng_state()
    part, width = _networks(args)
    assert torch.equal(before, torch.get_rng_state()) and width > 0
    real = sum(p.numel() for module in modules(make_learner(alg)) for p in module.parameters())
    assert part.what == f"networks: {real:,} parameters" and part.nbytes == 4 * COPIES * real


def test_the_copies_of_a_network():
    learner = make_learner("qmix")
    learner.params[0].sum().backward()
    for p in learner.params:
        p.grad = torch.zeros_like(p)
    learner.optimiser.step()
    moments = [m for state in learner.optimiser.state.values() for m in state.values() if m.dim()]
    held = [*learner.params, *learner.target_params, *(p.grad for p in learner.params), *moments]
    assert sum(t.numel() for t in held) == COPIES * sum(p.numel() for p in learner.params)


# ---- actions


@pytest.mark.parametrize(
    "n_actions, dtype",
    [(2, "uint8"), (256, "uint8"), (257, "int16"), (2**15, "int16"), (2**15 + 1, "int32"), (40_000, "int32")],
)
def test_the_last_action_is_stored_right(n_actions, dtype):
    scheme = make_scheme(EnvInfo(1, n_actions, 1, 1, 1), True)
    batch = EpisodeBatch({"actions": scheme["actions"]}, {"agents": 1}, 1, 1)
    batch.update({"actions": np.array([[[[n_actions - 1]]]])})
    assert batch["actions"].dtype == getattr(torch, dtype) and batch["actions"].item() == n_actions - 1


def test_a_run_with_forty_thousand_actions(tmp_path, capsys):
    values = ["env_args.n_actions=40000", "env_args.n_agents=2", "epsilon_start=1", "epsilon_finish=1", "t_max=8"]
    run = here(capsys, words("vdn", "gaussian_squeeze", tmp_path, *values, without=["t_max"]))
    assert run.code == 0, run.err


# ---- the message


def test_the_sum_and_what_to_lower():
    networks = Part("networks: 5 parameters", 3 * GIB, {"hidden_dim": 9}, " with targets")
    replay = of_episodes("replay", 6 * GIB, {"buffer_size": 100})
    crumbs = of_episodes("round", 1, {"batch_size_run": 1})

    def said(parts, free):
        with pytest.raises(ConfigError) as error:
            refuse_if_too_large(parts, "cpu", free)
        return str(error.value)

    refuse_if_too_large([networks, replay], "cpu", 9 * GIB)
    refuse_if_too_large([networks, replay], "cpu", None)  # unknown: try
    assert said([crumbs, networks, replay], 6 * GIB) == (
        "replay: 100 episodes need 6.00 GiB, networks: 5 parameters need 3.00 GiB with targets, 9.00 GiB in all, "
        "but cpu has 6.00 GiB free; about 39 episodes fit: buffer_size=39"
    )
    assert said([networks, replay], GIB).endswith("; lower what makes it so large: buffer_size=100, hidden_dim=9")
    assert said([networks], GIB).endswith("but cpu has 1.00 GiB free; lower what makes it so large: hidden_dim=9")
    assert said([replay], GIB // 100).endswith("; not one fits: give a lower time limit")


def test_sizes_are_declared_alike_wherever_they_are_read():
    found = {}
    for alg in names("algs"):
        classes, _ = readers(load(alg, "two_step", {}, readers).values)
        for cls in classes:
            for name, (_, meta) in declared(cls.Config).items():
                assert found.setdefault(name, (meta["low"], meta["high"])) == (meta["low"], meta["high"]), (cls, name)
