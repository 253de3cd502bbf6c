"""StarCraft with the real packages (requirements/sc2.txt) and a stand-in for the game: `pytest -m sc2`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from battles import battle, env_args_of, gone, install, order, patience, running, within
from command import PROGRAM, ROOT, words

from envs.starcraft.installation import SMAC_MAPS, package_problem

pytestmark = pytest.mark.sc2
needs_smac = pytest.mark.skipif(bool(package_problem("smac")), reason=str(package_problem("smac")))

GAME = f"""#!/bin/sh
exec {sys.executable} {ROOT}/tests/stand_in_game.py "$@"
"""
# {map: n_agents, n_actions, obs_shape, state_shape with state_last_action} as many papers have them
SIZES = {
    "3m": (3, 9, 30, 48), "8m": (8, 14, 80, 168), "5m_vs_6m": (5, 12, 55, 98), "27m_vs_30m": (27, 36, 285, 1170),
    "MMM2": (10, 18, 176, 322), "2s3z": (5, 11, 80, 120), "3s5z": (8, 14, 128, 216), "corridor": (6, 30, 156, 282),
    "6h_vs_8z": (6, 14, 78, 140), "3s_vs_5z": (3, 11, 48, 68), "1c3s5z": (9, 15, 162, 270),
}  # fmt: skip
SHAPES = """
import json, sys
from envs.starcraft.smac import SMAC
from envs.starcraft.installation import SMAC_MAPS
env_args = json.loads(sys.argv[1])
info = {name: SMAC(SMAC.Config(**env_args | {"map_name": name})).env_info for name in SMAC_MAPS}
print(json.dumps({name: list(vars(i).values())[:5] for name, i in info.items()}))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Where faults are ordered."""
    for name, value in install(tmp_path / "machine", GAME).items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "machine"
    assert gone(games(tmp_path / "machine"))


@pytest.fixture
def game(machine):
    made = []

    def start(*args, **kwargs):
        made.append(battle(*args, **kwargs))
        return made[-1]

    yield start
    for env in made:
        env.close()


def games(machine):
    """The process numbers of the games that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if "stand_in_game" in text and f"{machine}/SC2/" in text and running(path.parent.name):
            found.append(int(path.parent.name))
    return found


def play(env, rng, episodes=1):
    """All arrays that random play shows; one list an episode."""
    out = []
    for _ in range(episodes):
        seen = env.reset()
        out.append([*seen])
        for _ in range(env.env_info.episode_limit):
            seen = env.step((rng.random(seen.avail.shape) * seen.avail).argmax(axis=-1))
            out[-1] += [*seen[:-1], *(seen.info[k] for k in sorted(seen.info))]
            if (seen.terminated | seen.truncated).all():
                break
    return out


def same(a, b):
    return all(len(x) == len(y) and all(np.array_equal(i, j) for i, j in zip(x, y)) for x, y in zip(a, b))


def shapes(machine, **changes):
    """{map: [n_agents, n_actions, obs_shape, state_shape, episode_limit]}, from a process of its own."""
    for name in SMAC_MAPS:
        (machine / f"SC2/Maps/SMAC_Maps/{name}.SC2Map").touch()
    env_args = json.dumps(env_args_of("sc2") | {"state_last_action": True} | changes)
    run = subprocess.run(
        [sys.executable, "-c", SHAPES, env_args], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@needs_smac
def test_all_maps_have_the_same_sizes_in_both_packages_and_in_papers(machine):
    ours, original = shapes(machine), shapes(machine, backend="smac")
    assert len(ours) == 23 and ours == original
    assert {name: tuple(ours[name][:4]) for name in SIZES} == SIZES
    assert all((i[0], i[4]) == (SMAC_MAPS[name].n_agents, SMAC_MAPS[name].limit) for name, i in ours.items())


@needs_smac
@pytest.mark.parametrize("map_name", ["3m", "2s3z"])
def test_smacv2_repaired_plays_as_smac_does(map_name, game):
    played = []
    for backend in ("smacv2", "smac"):
        env = game(map_name=map_name, backend=backend, seed=3)
        played.append(play(env, np.random.default_rng(0), episodes=3))
        assert env.restarts == 0
    assert same(*played) and not same(played[0][:1], played[0][1:2])


@pytest.mark.parametrize("scenario", ["terran_5_vs_5", "protoss_10_vs_11", "zerg_5_vs_5"])
def test_smacv2_draws_by_the_seed(scenario, game):
    def played(seed):
        env = game("sc2v2", map_name=scenario, seed=seed)
        return play(env, np.random.default_rng(0), episodes=2)

    first, second, other = played(1), played(1), played(2)
    assert same(first, second) and not np.array_equal(first[0][1], other[0][1])
    assert not np.array_equal(first[0][1], first[1][1])


MAX_REWARD = {"3m": 3 * 10 + 200 + 3 * 45, "2s3z": 5 * 10 + 200 + 2 * 160 + 3 * 150}
FAULTS = [
    "crash launch 1", "crash create_game 1", "crash join_game 1", "crash observation 1", "crash step 3",
    "crash debug 1", "hang create_game 1", "hang step 5", "hang debug 1", "close step 4", "close observation 5",
    "garble observation 4", "garble debug 1", "blank observation 5", "error action 2", "error create_game 1",
    "error debug 1", "refuse step 4",
]  # fmt: skip


@pytest.mark.parametrize("map_name", MAX_REWARD)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_game_that_fails_is_started_again(fault, map_name, game, machine):
    order(machine, fault)
    env = game(map_name=map_name, timeout=patience(fault))
    for _ in range(4):
        play(env, np.random.default_rng(0))
    assert env.restarts == 1 and not env.lost[0]
    assert env.state_dict()["workers"][0]["max_reward"] == MAX_REWARD[map_name]
    assert len(games(machine)) == 1


def test_a_game_that_refuses_to_create_the_units_of_smacv2(game, machine):
    order(machine, "refuse debug 1")
    env = game("sc2v2")
    play(env, np.random.default_rng(0), episodes=2)
    assert env.restarts == 1 and not env.lost[0]


def test_a_reset_in_the_middle_of_the_first_episode_starts_no_second_game(game, machine):
    env = game()
    for _ in range(3):
        env.reset()
    assert len(games(machine)) == 1 and env.restarts == 0
    assert env.state_dict()["workers"][0]["max_reward"] == MAX_REWARD["3m"]


def test_the_replay_is_there(game, tmp_path):
    env = game(replay_dir=str(tmp_path / "replays"))
    play(env, np.random.default_rng(0))
    assert Path(env.save_replay()).read_bytes() == b"a replay"


# ---- whole runs


def start(folder, *values, **options):
    """main.py on 2s3z, with short training."""
    argv = words("qtran_alt", "sc2", folder, "env_args.map_name=2s3z", *values, without=["t_max"])
    return subprocess.Popen(
        [*PROGRAM, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip


def test_a_run_goes_on_when_games_fail(machine, tmp_path):
    order(machine, "crash step 30", "garble observation 8", "close debug 1")
    process = start(tmp_path, "t_max=400", "test_interval=200")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert err.count("the episode is lost, the game starts again") == 3
    path = next((tmp_path / "qtran_alt" / "2s3z").iterdir())
    values = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [v["value"] for v in values if v["key"] == "env_restarts"][-1] == 3
    assert json.loads((path / "summary.json").read_text())["versions"]["starcraft"] == "4.10.0.75689"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_game_outlives_the_run(end, machine, tmp_path):
    process = start(tmp_path, start_new_session=True)
    saved = "qtran_alt/*/*/checkpoints/*/meta.json"
    try:
        assert within(lambda: any(tmp_path.glob(saved)) or process.poll() is not None, seconds=300)
        started = games(machine)
        assert len(started) == 2
        process.send_signal(end)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[end] and gone(started)
