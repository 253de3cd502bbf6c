import numpy as np
import pytest

from envs import make

START, SEVEN, EIGHT = [1, 0, 0], [0, 1, 0], [0, 0, 1]


@pytest.mark.parametrize("first", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_pair_of_joint_actions(first):
    pays = {0: [[7, 7], [7, 7]], 1: [[0, 1], [1, 8]]}[first[0]]  # agent 1 alone decides
    for a in range(2):
        for b in range(2):
            env = make("two_step", {})
            assert env.reset().state.tolist() == [START]
            step = env.step(np.array([first]))
            assert step.reward[0] == 0 and not step.terminated[0] and not step.truncated[0]
            assert step.state.tolist() == [[SEVEN, EIGHT][first[0]]]
            step = env.step(np.array([[a, b]]))
            assert step.reward[0] == pays[a][b]
            assert step.terminated[0] and not step.truncated[0]
            assert step.state.tolist() == [[SEVEN, EIGHT][first[0]]]


def test_both_agents_observe_the_position():
    env = make("two_step", {}, n_envs=2)
    assert env.reset().obs.tolist() == [[START, START]] * 2
    assert env.step(np.array([[0, 1], [1, 0]])).obs.tolist() == [[SEVEN, SEVEN], [EIGHT, EIGHT]]


def test_nothing_runs_before_the_first_reset():
    env = make("two_step", {})
    step = env.step(np.array([[1, 1]]))
    assert step.state.tolist() == [START] and step.reward[0] == 0


def test_environments_at_different_steps():
    env = make("two_step", {}, n_envs=2)
    env.reset()
    env.step(np.array([[1, 0], [1, 0]]))
    env.reset(mask=[True, False])
    step = env.step(np.array([[1, 1], [1, 1]]))
    assert step.reward.tolist() == [0, 8]
    assert step.terminated.tolist() == [False, True]


def test_64_environments_agree_with_a_slow_loop():
    env, rng = make("two_step", {}, n_envs=64), np.random.default_rng(0)
    env.reset()
    first, second = rng.integers(2, size=(2, 64, 2))
    env.step(first)
    reward = env.step(second).reward
    for e in range(64):
        if first[e, 0] == 0:
            expected = 7
        elif second[e].sum() == 2:
            expected = 8
        else:
            expected = second[e].sum()
        assert reward[e] == expected
