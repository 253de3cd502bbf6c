"""Environments in processes: the same contract as arrays, and no way to lose one silently."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_env
import yaml
from command import CONFIG, ROOT

import envs
from envs import REGISTRY, make
from envs.workers.worker_env import EPISODES
from utils.args import ConfigError, TrainingError
from utils.seeding import stream

E = 2
GOOD = {"fault": "none", "at": 0, "pays_each": False}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(REGISTRY, "toy", "toy_env:Toy")


@pytest.fixture
def workers():
    """make(name, env_args), with workers; closed at the end."""
    made = []

    def start(name, env_args, seed=3, n_envs=E):
        made.append(make(name, env_args, n_envs, seed, workers=True))
        return made[-1]

    yield start
    for env in made:
        env.close()


def env_args_of(name):
    return GOOD if name == "toy" else yaml.safe_load((CONFIG / "envs" / f"{name}.yaml").read_text())["env_args"]


def play(env, rng, steps=8):
    """Everything that random play shows, with resets of what has ended."""
    seen = env.reset()
    out = [*seen]
    for _ in range(steps):
        step = env.step((rng.random(seen.avail.shape) * seen.avail).argmax(axis=-1))
        out += [*step[:-1]]
        done = step.terminated | step.truncated
        seen = env.reset(mask=done) if done.any() else step
        out += [seen.obs, seen.state, seen.avail]
    return out


def same(a, b):
    return len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("name", [*(name for name in REGISTRY if not envs.env_class(name).install), "toy"])
def test_each_worker_plays_as_one_array_environment_with_its_stream_of_the_seed(name, workers):
    env = workers(name, env_args_of(name))
    alone = [make(name, env_args_of(name), 1) for _ in range(E)]
    assert env.env_info == alone[0].env_info and env.common_reward == alone[0].common_reward
    rng = np.random.default_rng(0)
    seen, singles = env.reset(), [one.reset(stream(3, i, EPISODES, 0)) for i, one in enumerate(alone)]
    for _ in range(env.env_info.episode_limit + 2):  # beyond the end too, where nothing may change
        for field in ("obs", "state", "avail"):
            assert same([getattr(seen, field)], [np.concatenate([getattr(s, field) for s in singles])])
        actions = (rng.random(seen.avail.shape) * seen.avail).argmax(axis=-1)
        seen, singles = env.step(actions), [one.step(a[None]) for one, a in zip(alone, actions)]
        for field in ("reward", "terminated", "truncated"):
            assert same([getattr(seen, field)], [np.concatenate([getattr(s, field) for s in singles])])
        done = seen.terminated | seen.truncated
        for key, values in singles[0].info.items():
            assert not done[0] or seen.info[key][0] == values[0]
    assert seen.terminated.any() or seen.truncated.any()


def test_masks_seeds_and_state_are_as_with_arrays(workers):
    env = workers("predator_prey", env_args_of("predator_prey") | {"episode_limit": 3})
    before = env.reset()
    after = env.reset(mask=np.array([True, False]))
    assert np.array_equal(before.state[1], after.state[1]) and not np.array_equal(before.state[0], after.state[0])
    assert same(list(env.reset(seed=9)), list(env.reset(seed=9)))
    first, second = ([*env.reset(seed=9), *play(env, np.random.default_rng(1))] for _ in range(2))
    assert same(first, second)
    assert env.render()


def test_each_agents_reward_comes_through(workers):
    env = workers("toy", GOOD | {"pays_each": True})
    env.reset()
    assert not env.common_reward
    assert env.step(np.array([[0, 1], [2, 1]])).reward.tolist() == [[0, 1], [2, 1]]


def test_actions_that_arrays_refuse_are_refused(workers):
    env = workers("toy", GOOD)
    env.reset()
    legal = np.zeros((E, 2), dtype=np.int64)
    for wrong in (legal.astype(float), legal[:, :1], legal[:1]):
        with pytest.raises(ValueError, match="actions must be integers of shape"):
            env.step(wrong)


# ---- what goes wrong


def gone(pids, seconds=5):
    for _ in range(10 * seconds):
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "fault, kind, said",
    [
        ("raise", RuntimeError, r"environment \d failed: RuntimeError: the game's engine has stopped"),
        ("exit", TrainingError, r"the worker process of environment \d died \(exit code 3\)"),
    ],
)
def test_a_fault_is_told_with_its_reason_and_leaves_nothing_behind(fault, kind, said, workers):
    env = workers("toy", GOOD | {"fault": fault, "at": 2})
    memory = f"/dev/shm/{env.memory.name}"
    assert os.path.exists(memory)
    pids = [worker.process.pid for worker in env.workers]
    env.reset()
    env.step(np.zeros((E, 2), dtype=np.int64))
    with pytest.raises(kind, match=said):
        env.step(np.zeros((E, 2), dtype=np.int64))
    env.close()
    env.close()  # does nothing
    assert gone(pids) and not os.path.exists(memory)


def test_a_game_that_refuses_to_be_made_says_so(workers):
    with pytest.raises(ConfigError, match="this game cannot be made"):
        workers("toy", GOOD | {"fault": "refuse"})


def test_a_worker_that_hangs_is_killed(workers, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.PATIENCE", 0.2)
    env = workers("toy", GOOD)
    pids = [worker.process.pid for worker in env.workers]
    for pid in pids:
        os.kill(pid, 19)  # SIGSTOP
    env.close()
    assert gone(pids)


def test_a_program_that_forgets_to_close_ends_all_the_same():
    path = os.pathsep.join([str(ROOT / "src"), os.path.dirname(toy_env.__file__)])
    code = "from envs.workers.worker_env import WorkerEnv\nfrom toy_env import Toy\n"
    code += f"WorkerEnv(Toy, Toy.Config(**{GOOD}), 1).reset()"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0 and run.stderr == "" and run.stdout == ""


SCRIPT = """
import sys
sys.path.insert(0, {src!r})
from qtran import make
{guard}
    env = make("two_step", n_envs=2, workers=True)
    print(env.reset(seed=1).obs.shape)
    env.close()
"""


@pytest.mark.parametrize("guard, guarded", [("if True:", False), ('if __name__ == "__main__":', True)])
def test_a_script_without_a_guard_is_told_of_it(guard, guarded, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(src=str(ROOT / "src"), guard=guard))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    if guarded:
        assert run.stdout == "(2, 2, 3)\n" and run.returncode == 0
    else:
        last = run.stderr.splitlines()[-1]
        assert f"imports {script} again" in last and 'below if __name__ == "__main__":' in last
