"""StarCraft with a fake smacv2: what an environment shows and pays, and that no failure of a game matters."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from battles import FAKES, battle, env_args_of, games, gone, install, order, patience, running, within
from command import ROOT

from envs.starcraft.sc2_process import reserve_port
from envs.vector import GameError
from utils.args import ConfigError

ATTACK = np.array([[6, 7, 8]])  # each agent its enemy: three times wins


@pytest.fixture
def game(tmp_path, monkeypatch):
    """A machine with the fake smacv2 and game. game(env, **env_args): an environment, closed at the end."""
    for name, value in install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setattr("envs.workers.worker_env.GRACE", 0.2)
    monkeypatch.setattr("envs.workers.worker_env.STARTING", 1)
    made = []

    def start(*args, **kwargs):
        made.append(battle(*args, **kwargs))
        return made[-1]

    yield start
    for env in made:
        env.close()
    assert gone(games(tmp_path))


def play(env, steps=8):
    """(steps until the end, return, last Step) of an episode in which everybody attacks, then walks."""
    env.reset()
    paid = 0.0
    for t in range(1, steps + 1):
        step = env.step(np.repeat(ATTACK, env.n_envs, axis=0) if t <= 3 else np.ones((env.n_envs, 3), dtype=int))
        paid += step.reward[0]
        if step.terminated[0] or step.truncated[0]:
            return t, paid, step
    return None


def test_a_victory_pays_what_the_scale_says_and_tells_what_epymarl_logs(game):
    env = game()
    assert env.versions == {"starcraft": "4.10.0.75689"} and env.env_info.episode_limit == 8
    for _ in range(2):
        length, paid, step = play(env)
        assert length == 3 and paid == pytest.approx(20) and step.terminated[0] and not step.truncated[0]
        assert {k: v[0] for k, v in step.info.items()} == {"battle_won": 1, "dead_allies": 0, "dead_enemies": 3}
    after = env.step(ATTACK)  # beyond the end
    assert after.reward[0] == 0 and after.terminated[0] and np.array_equal(after.state, step.state)
    assert env.restarts == 0 and not env.lost.any()


@pytest.mark.parametrize("continuing", [False, True])
def test_the_time_limit_ends_an_episode_or_cuts_it(continuing, game):
    env = game(continuing_episode=continuing)
    env.reset()
    for _ in range(8):
        step = env.step(np.ones((1, 3), dtype=int))
    assert (step.terminated[0], step.truncated[0]) == (not continuing, continuing)
    assert step.info["battle_won"][0] == 0 and ("episode_limit" in step.info) == continuing


@pytest.mark.parametrize("env", ["sc2", "sc2v2"])
def test_the_seed_repeats_episodes_and_environments_differ(env, game):
    def shown(**changes):
        made = game(env, n_envs=2, **changes)
        return [a for _ in range(2) for seen in [made.reset(), made.step(np.ones((2, 3), dtype=int))] for a in seen[:2]]

    first, second, other = shown(seed=5), shown(seed=5), shown(seed=None)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other))
    assert all(not np.array_equal(*a) for a in first)


@pytest.mark.parametrize("action", [0, 9, -1])
def test_actions_that_are_not_available_are_a_fault_of_the_program(action, game):
    env = game()
    env.reset()
    with pytest.raises(RuntimeError, match=f"agent 1 cannot take action {action} now"):
        env.step(np.array([[1, action, 1]]))
    assert env.restarts == 0


def test_part_of_a_version_is_enough(game):
    env = game(game_version="4")
    assert play(env)[0] == 3 and env.versions == {"starcraft": "4.10.0.75689"}


# ---- games that fail

MOMENTS = [
    "crash launch 1", "crash create 1", "crash reset 1", "crash step 2", "crash reset 2", "hang step 1", "hang reset 2",
    "garble observe 2", "nan observe 2", "quiet step 2", "blank step 2", "exit step 2", "refuse reset 1",
]  # fmt: skip


@pytest.mark.parametrize("fault", MOMENTS)
def test_a_game_that_fails_costs_its_episode_and_nothing_else(fault, game, tmp_path):
    order(tmp_path, fault)
    env, lost = game(timeout=patience(fault)), 0
    for _ in range(4):
        length, paid, step = play(env)
        if env.lost[0]:
            lost += 1
            assert step.truncated[0] and not step.terminated[0] and step.reward[0] == 0 and not step.info
            assert np.isfinite(step.state).all() and step.avail.any(axis=-1).all()
        else:
            assert length == 3 and paid == pytest.approx(20)  # the scale is right
    assert env.restarts == 1 and lost == (1 if "step" in fault or "observe" in fault else 0)
    assert sum(map(running, games(tmp_path))) == 1


def test_twice_in_a_row_and_only_where_it_happens(game, tmp_path, caplog):
    order(tmp_path, "crash step 1", "crash launch 1")
    env = game(n_envs=2)
    for _ in range(3):
        play(env)
    assert env.restarts == 2 and not env.lost.any()
    told = [record.message for record in caplog.records]
    assert len(told) == 2 and all("ProtocolError: SC2 probably crashed" in t for t in told)
    assert "fake game: imaginary memory is full" in told[0]


def test_it_gives_up_after_failures_in_a_row_with_the_games_last_words(game, tmp_path, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.IN_A_ROW", 3)
    order(tmp_path, *["crash launch 1"] * 9)
    env = game()
    with pytest.raises(GameError) as error:
        env.reset()
    assert re.search("3 failures without a whole episode between them; the last: environment 0", str(error.value))
    assert "SC2 probably crashed" in str(error.value) and "imaginary memory is full" in str(error.value)
    assert len(games(tmp_path)) == 3


def test_a_game_that_is_taken_away_is_a_failure_too(game, tmp_path, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.IN_A_ROW", 2)
    order(tmp_path, "crash step 1")
    env = game()
    (tmp_path / "SC2/Maps/SMAC_Maps/3m.SC2Map").unlink()
    play(env)
    with pytest.raises(GameError, match="2 failures .*the map '3m' is not in"):
        env.reset()


def test_whole_episodes_between_failures_do_not_add_up(game, tmp_path, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.IN_A_ROW", 2)
    order(tmp_path, *["crash reset 2"] * 3)
    env = game()
    for _ in range(4):
        assert play(env)[1] == pytest.approx(20)
    assert env.restarts == 3


def test_a_game_is_started_again_every_so_many_episodes(game, tmp_path):
    env = game("sc2v2", restart_every=2)
    states = []
    for _ in range(5):
        states.append(env.reset().state)
        assert play(env)[1] == pytest.approx(20)
    assert len(games(tmp_path)) == 5 and env.restarts == 0  # resets by hand count as episodes
    assert len(np.unique(states, axis=0)) == 5 and sum(map(running, games(tmp_path))) <= 1


def test_the_scale_of_rewards_outlives_the_game(game, tmp_path):
    """SMACv2's is that of the first episode's enemies."""
    order(tmp_path, "crash step 2")
    env = game("sc2v2")
    play(env)
    env.load_state_dict({"workers": [{"max_reward": 730.0}], "started": [7]})
    env.reset()
    assert env.state_dict() == {"workers": [{"max_reward": 730.0}], "started": [8]}
    assert play(env)[1] == pytest.approx(10)


def test_parallel_games_have_ports_of_their_own(game, tmp_path):
    env = game(n_envs=3)
    env.reset()
    words = [Path(f"/proc/{pid}/fd/1").read_text() for pid in games(tmp_path)]
    ports = {re.search(r"-port (\d+)", text)[1] for text in words}
    assert len(ports) == 3 and all(15000 <= int(port) < 25000 for port in ports)


def test_the_replay_is_that_of_a_game_that_was_not_lost(game, tmp_path):
    order(tmp_path, "crash step 2", "crash step 3")
    env = game(n_envs=3, replay_dir="there")
    env.reset()
    for _ in range(3):
        env.step(np.repeat(ATTACK, 3, axis=0))
    assert env.lost.sum() == 2 and env.restarts == 2
    assert env.save_replay() == "there/3m.SC2Replay"


def test_a_port_is_given_once_until_it_is_given_back(monkeypatch):
    monkeypatch.setattr("envs.starcraft.sc2_process.PORTS", range(24996, 24999))
    held, ports = zip(*(reserve_port() for _ in range(3)))
    assert sorted(ports) == [24996, 24997, 24998]
    with pytest.raises(OSError, match="no port is free from 24996 to 24998"):
        reserve_port()
    held[1].close()
    with socket.create_server(("127.0.0.1", ports[1])), pytest.raises(OSError):
        reserve_port()  # another program has it
    again, port = reserve_port()
    assert port == ports[1]
    for reserved in (again, *held):
        reserved.close()


def test_nothing_is_left_in_the_temporary_folder(game, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "games"))
    order(tmp_path, "crash step 1")
    env = game()
    env.reset()
    env.step(ATTACK)
    env.close()
    assert not list((tmp_path / "games").glob("worker*"))


WRAPPED = """#!/bin/sh
sleep 1000 &
echo $! > "$FAKE_GAMES/$!"
"""


def wrap(folder):
    """Have the game start a process of its own, which does not die with it."""
    binary = folder / "SC2/Versions/Base75689/SC2_x64"
    binary.write_text(WRAPPED + binary.read_text())


def test_what_a_game_has_started_ends_with_it(game, tmp_path):
    wrap(tmp_path)
    order(tmp_path, "crash step 1")
    env = game(n_envs=2)
    env.reset()
    first = games(tmp_path)
    env.step(np.repeat(ATTACK, 2, axis=0))
    assert env.restarts == 1 and within(lambda: sum(map(running, first)) == len(first) - 2)
    env.close()
    assert len(first) == 4 and gone(first)


PROGRAM = """
import time
from envs import make
if __name__ == "__main__":
    make("sc2", {}, 2).reset()
    print("playing", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_game_outlives_the_program(end, game, tmp_path):
    wrap(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM.format(env_args_of("sc2")))
    path = os.pathsep.join(str(p) for p in (FAKES, ROOT / "src"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    try:
        assert program.stdout.readline() == "playing\n", program.stderr.read()
        started = games(tmp_path)
        assert len(started) == 4 and all(map(running, started)) and any(temporary.iterdir())
        program.send_signal(end)
        program.communicate(timeout=60)
    finally:
        program.kill()
    assert gone(started) and within(lambda: not any(temporary.iterdir()))


# ---- bad input


def test_a_worker_that_cannot_start(game, monkeypatch):
    monkeypatch.setenv("FAKE_BREAKS", "1")
    with pytest.raises(ConfigError, match=r"a worker process cannot start: .* died \(exit code 7\)"):
        game()


@pytest.mark.parametrize(
    "env, changes, said",
    [
        (
            "sc2",
            {"map_name": "8m"},
            "the map '8m' is not in .*SMAC_Maps; there is: 2s3z, 32x32_flat, 3m; docker/",
        ),
        ("sc2", {"map_name": "3mm"}, "'3mm' is not one of 3m, 8m, .*did you mean '3m'"),
        ("sc2", {"map_name": "mmm2"}, "'mmm2' is not one of 3m, 8m, .*did you mean 'MMM2'"),
        ("sc2", {"game_version": "4.6"}, "'4.6' is not installed in .*; there is: 4.10.0 .build 75689"),
        ("sc2", {"backend": "smac"}, "the package 'smac' is not installed; install it with: pip install git"),
        ("sc2v2", {"map_name": "terran_5_vs_55"}, "is no scenario and no file; .*did you mean 'terran_5_vs_5'"),
    ],
)
def test_bad_input_is_told_in_one_message(env, changes, said, game):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        game(env, **changes)


@pytest.mark.parametrize(
    "team, said",
    [
        ("{dist_type: fixed}", "KeyError: 'test_mode'"),
        ("{dist_type: fixed, test_mode: False}", "draws 0 agents and 0 enemies where n_units, n_enemies are 3, 5"),
        ("{dist_type: all_teams}", "draws 3 agents and 3 enemies where n_units, n_enemies are 3, 5"),
    ],
)
def test_a_scenario_that_asks_for_more_units_than_it_draws(team, said, game, tmp_path):
    capabilities = f"{{n_units: 3, n_enemies: 5, team_gen: {team}, start_positions: {{dist_type: reflect_position}}}}"
    (tmp_path / "own.yaml").write_text(f"{{map_name: 10gen_terran, capability_config: {capabilities}}}")
    with pytest.raises(ConfigError, match=f"own.yaml: smacv2 cannot play this capability_config: .*{said}"):
        game("sc2v2", map_name=str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("backend, other", [("smacv2", "smac"), ("smac", "smacv2")])
def test_one_package_never_imports_the_other(backend, other, game, tmp_path, monkeypatch):
    """Both register their maps with pysc2, which does not allow that twice."""
    for package in {other, "smac"}:
        (tmp_path / package / "env").mkdir(parents=True)
    (tmp_path / "smac" / "env" / "__init__.py").write_text((FAKES / "smacv2" / "env.py").read_text())
    (tmp_path / other / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert play(game(backend=backend))[1] == pytest.approx(20)


def test_a_package_that_protobuf_keeps_from_being_imported(game, tmp_path, monkeypatch):
    broken = tmp_path / "broken" / "smacv2"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "env.py").write_text("raise TypeError('Descriptors cannot be created directly.')")
    (tmp_path / "broken" / "protobuf-6.1.0.dist-info").mkdir()
    (tmp_path / "broken" / "protobuf-6.1.0.dist-info" / "METADATA").write_text("Name: protobuf\nVersion: 6.1.0\n")
    monkeypatch.syspath_prepend(broken.parent)
    with pytest.raises(ConfigError, match="protobuf 6.1.0 breaks pysc2; .*: pip install protobuf==3.20.3"):
        game()
