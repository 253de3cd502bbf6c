"""SMAX: what it refuses without jaxmarl, and with it (`pytest -m smax`) what its battles show and pay.

What every environment owes the runner is tested in test_vector_contract.py.
"""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from command import CONFIG, PROGRAM, ROOT, here, words

import checks
from envs import env_class, make
from envs.games.smax import SCENARIOS, make_game

# {scenario: n_agents, n_actions, obs_shape, state_shape}
SIZES = {
    "3m": (3, 8, 75, 72), "2s3z": (5, 10, 127, 120), "smacv2_5_units": (5, 10, 127, 120), "5m_vs_6m": (5, 11, 140, 132),
    "3s_vs_5z": (3, 10, 101, 96), "8m": (8, 13, 205, 192), "3s5z": (8, 13, 205, 192), "27m_vs_30m": (27, 35, 738, 684),
}  # fmt: skip
STOP = 4


def test_the_absence_of_jaxmarl_is_told_with_the_pip_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    run = here(capsys, words("qmix", "smax", tmp_path))
    assert run.code == 2 and run.err.count("\n") == 1
    assert "needs the package jaxmarl" in run.err and "pip install -r requirements/smax.txt" in run.err
    check = checks.environment("smax", needed=True)
    assert check.state == "broken" and check.fix == "pip install -r requirements/smax.txt"


def test_an_unknown_scenario_is_refused_with_the_nearest(tmp_path, capsys):
    for name, said in (("2s3x", "did you mean '2s3z'?"), ("3M", "is not one of 3m, 8m")):
        run = here(capsys, words("qmix", "smax", tmp_path, f"env_args.map_name={name}"))
        assert run.code == 2 and "env_args.map_name" in run.err and said in run.err
    run = here(capsys, words("qmix", "smax", tmp_path, "env_args.map_name=3"))
    assert run.code == 2 and "env_args.map_name = 3 is not one of 3m, 8m" in run.err
    run = here(capsys, words("qmix", "smax", tmp_path, "env_args.episode_limit=0"))
    assert run.code == 2 and "env_args.episode_limit = 0 must be at least 1" in run.err


def test_a_process_for_each_environment_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: "there")
    run = here(capsys, words("qmix", "smax", tmp_path, "env_workers=True"))
    assert run.code == 2 and "env_workers=True: smax is compiled for all environments together" in run.last_line


def test_a_jax_that_does_not_go_with_its_jaxlib_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "jaxmarl").mkdir()
    (tmp_path / "jaxmarl/__init__.py").write_text("raise RuntimeError('jaxlib is newer than jax')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "jaxmarl"]:
        monkeypatch.delitem(sys.modules, name)
    make_game.cache_clear()
    run = here(capsys, words("qmix", "smax", tmp_path))
    assert run.code == 2 and run.err.count("\n") == 1
    assert "jaxlib is newer than jax; install it with: pip install -r requirements/smax.txt" in run.err


def test_its_algorithms_are_those_for_battles():
    assert yaml.safe_load((CONFIG / "envs/smax.yaml").read_text())["preset"] == "battle"


def smax(n_envs=1, seed=1, **changes):
    env_args = yaml.safe_load((CONFIG / "envs" / "smax.yaml").read_text())["env_args"]
    return make("smax", env_args | changes, n_envs, seed)


def charge(env, seen):
    """Shoot the first enemy in range, else walk east, where the enemies are."""
    shoots = seen.avail[..., 5:]
    actions = np.where(shoots.any(axis=-1), 5 + shoots.argmax(axis=-1), 1)
    return np.where(seen.avail[..., 0], actions, STOP)


def fight(env, episodes=1):
    """[(return, last Step)] of environment 0, one an episode, of agents that charge."""
    out = []
    for _ in range(episodes):
        seen, paid = env.reset(), 0.0
        while True:
            seen = env.step(charge(env, seen))
            paid += seen.reward[0]
            if (seen.terminated | seen.truncated).all():
                break
        out.append((paid, seen))
    return out


@pytest.mark.smax
def test_every_scenario_has_its_sizes():
    from jaxmarl.environments.smax import smax_env

    assert set(SCENARIOS) == set(smax_env.MAP_NAME_TO_SCENARIO)
    for name, sizes in SIZES.items():
        info = smax(map_name=name).env_info
        assert tuple(vars(info).values())[:5] == (*sizes, 100)


@pytest.mark.smax
def test_importing_says_nothing_on_stdout():
    code = (
        "import sys\nstreams = sys.stdout, sys.stderr = sys.stdout, open(0, closefd=False)\n"
        "from envs.games.smax import *\n"
        "make_game(SMAX.Config('3m', 9, 1.0, 'closest', True, True))\nassert streams == (sys.stdout, sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "", run.stderr


@pytest.mark.smax
def test_a_battle_pays_its_share_and_tells_how_it_ended():
    fights = [f for seed in range(4) for f in fight(smax(map_name="3m", seed=seed), episodes=4)]
    won = [bool(step.info["battle_won"][0]) for _, step in fights]
    assert any(won) and not all(won)
    for (paid, step), victory in zip(fights, won):
        dead, killed = step.info["dead_allies"][0], step.info["dead_enemies"][0]
        assert step.terminated[0] and not step.truncated[0]
        assert victory == (killed == 3 and dead < 3)
        assert paid == pytest.approx(20, abs=1e-3) if victory else paid < 10 + 1e-3
        alive = step.state[0, :30:10] > 0  # health of the agents
        assert 3 - alive.sum() == dead


@pytest.mark.smax
def test_the_reward_scale_multiplies():
    (ten, _), (one, _) = fight(smax(seed=2))[0], fight(smax(seed=2, reward_scale=1))[0]
    assert ten == pytest.approx(10 * one, rel=1e-4) and one > 0


@pytest.mark.smax
def test_the_time_limit_truncates_with_the_true_last_observation():
    short, long = smax(episode_limit=3, seed=5), smax(seed=5)
    seen = [short.reset(), long.reset()]
    for t in range(1, 4):
        seen = [env.step(np.full((1, 3), STOP)) for env in (short, long)]
        assert seen[0].truncated[0] == (t == 3) and not seen[0].terminated[0] and not seen[1].truncated[0]
    assert np.array_equal(seen[0].obs, seen[1].obs) and np.array_equal(seen[0].state, seen[1].state)
    assert seen[0].info["battle_won"][0] == 0


@pytest.mark.smax
def test_the_dead_may_only_stop_and_the_state_lies_in_0_to_1():
    env, rng = smax(n_envs=8, map_name="2s3z"), np.random.default_rng(0)
    seen, dead, loading = env.reset(), 0, 0
    for _ in range(40):
        seen = env.step((rng.random(seen.avail.shape) * seen.avail).argmax(axis=-1))
        gone = ~env.alive[:, :5]
        dead += gone.sum()
        assert (seen.avail[gone].sum(axis=-1) == 1).all() and seen.avail[gone][:, STOP].all()
        assert seen.state.min() >= 0 and seen.state.max() <= 1
        own_cooldown = seen.obs[..., 3 - 10 :][..., 0]  # the observation ends with what the unit sees of itself
        assert np.allclose(seen.state[:, 3:50:10], own_cooldown * ~gone)
        loading += (own_cooldown > 0).sum()
    assert dead and loading and seen.state[:, 1:100:10].max() > 0.2


@pytest.mark.smax
def test_a_run_trains_and_says_that_it_compiles(tmp_path, capsys):
    run = here(capsys, words("qtran_alt", "smax", tmp_path, "env_args.episode_limit=8"))
    assert run.code == 0, run.err
    assert run.err.count("compiling, once a run") == 1 and "compiled in" in run.err
    assert "test_battle_won_mean" in run.series and run.path.parent.name == "3m"
    assert json.loads((run.path / "summary.json").read_text())["versions"].keys() >= {"jaxmarl", "jax"}
    assert importlib.util.find_spec("jaxmarl") and env_class("smax").check_installed() is None


@pytest.mark.smax
def test_units_that_begin_outside_the_map_are_shown_at_its_edge():
    env = smax(n_envs=64, map_name="smacv2_5_units")
    for _ in range(4):
        state = env.reset().state
        assert state.min() >= 0 and state.max() <= 1
    xy = np.array(env._carry[1].state.unit_positions)
    assert np.allclose(state[:, 1:100:10], (xy[..., 0] / env.game.map_width).clip(0, 1), atol=1e-6)


@pytest.mark.smax
@pytest.mark.parametrize("line", ["compiling", "compiled in"])
def test_a_sigterm_while_jax_works_ends_the_run_in_order(line, tmp_path):
    """Raised in the midst of jax it brought down about half of such runs, at their end (exit status 134 or 139)."""
    command = [*PROGRAM, *words("vdn", "smax", tmp_path, "t_max=100000")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said = next(said for said in process.stderr if line in said)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 143, said + rest
    assert rest.splitlines()[-1].endswith("interrupted: SIGTERM") and "Traceback" not in rest
