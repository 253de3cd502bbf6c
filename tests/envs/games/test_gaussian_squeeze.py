import itertools
import math

import numpy as np
import pytest

from envs import make
from envs.games.gaussian_squeeze import optimum, squeeze, turning_points
from envs.vector import EnvInfo
from utils.args import ConfigError

ARGS = dict(n_agents=10, n_actions=11, k=1, s_max=0.2)


def game(n_envs=1, seed=0, **changes):
    return make("gaussian_squeeze", ARGS | changes, n_envs=n_envs, seed=seed)


def summits(k):
    """[(x, reward)] of the local maxima on 0..20, the range of x."""
    x = np.arange(0, 20, 1e-3)
    y = squeeze(x, k)
    inner = np.flatnonzero((y[1:-1] > y[:-2]) & (y[1:-1] > y[2:])) + 1
    return [(x[i], y[i]) for i in inner]


def test_the_maxima_of_one_domain():
    [(x, reward)] = summits(1)
    assert x == pytest.approx(8.06, abs=5e-3) and reward == pytest.approx(8.031, abs=5e-4)


def test_the_maxima_of_two_domains():
    (x_local, local), (_, best) = summits(2)
    assert x_local == pytest.approx(5.10, abs=5e-3) and local == pytest.approx(5.049, abs=5e-4)
    assert best == pytest.approx(8.009, abs=5e-4)


def test_hand_computed_rewards():
    one, two = game(k=1), game(k=2)
    s, actions = np.full(10, 0.1), np.full(10, 8)  # x = 8
    assert one.reward_of(s, actions) == pytest.approx(8)
    assert two.reward_of(s, actions) == pytest.approx(8 + 8 * math.exp(-9))
    actions = np.full(10, 5)  # x = 5
    assert one.reward_of(s, actions) == pytest.approx(5 * math.exp(-9))
    assert two.reward_of(s, actions) == pytest.approx(5 * math.exp(-36) + 5)
    assert one.reward_of(s, np.zeros(10)) == 0


@pytest.mark.parametrize("domains", [[(8, 1)], [(8, 0.5), (5, 1)]])
def test_64_environments_agree_with_a_slow_loop(domains):
    env, rng = game(n_envs=64, k=len(domains)), np.random.default_rng(0)
    env.reset()
    s, actions = env.s, rng.integers(11, size=(64, 10))
    step = env.step(actions)
    for e in range(64):
        x = sum(float(s[e, i]) * int(actions[e, i]) for i in range(10))
        expected = sum(x * math.exp(-((x - mean) ** 2) / width**2) for mean, width in domains)
        assert step.reward[e] == pytest.approx(expected, rel=1e-5)
    assert step.terminated.all() and not step.truncated.any()


def test_every_agent_sees_all_of_s_on_a_scale_of_0_to_1():
    env = game(n_envs=3)
    seen = env.reset()
    assert np.allclose(seen.state * 0.2, env.s)
    for agent in range(10):
        assert np.array_equal(seen.obs[:, agent], seen.state)


def test_s_is_uniform_up_to_s_max():
    env = game(n_envs=10_000, s_max=0.2)
    env.reset()
    assert 0 <= env.s.min() < 1e-3 and 0.2 - 1e-3 < env.s.max() <= 0.2
    assert np.allclose(np.quantile(env.s, [0.25, 0.5, 0.75]), [0.05, 0.1, 0.15], atol=2e-3)
    assert abs(np.corrcoef(env.s[:, 0], env.s[:, 1])[0, 1]) < 0.04  # agents draw independently


def test_the_sizes_follow_the_config():
    env = game(n_agents=3, n_actions=4, s_max=1.0)
    assert env.env_info == EnvInfo(n_agents=3, n_actions=4, obs_shape=3, state_shape=3, episode_limit=1)
    env.s[:] = [[1.0, 2.0, 0.5]]
    env.terminated[:] = False
    assert env.step(np.array([[3, 2, 2]])).reward[0] == pytest.approx(8)  # x = 3 + 4 + 1


@pytest.mark.parametrize("wrong", [dict(k=3), dict(n_agents=1), dict(n_actions=1), dict(s_max=0.0)])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        game(**wrong)


# --- the exact optimum -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("n_agents", [2, 3, 4])
@pytest.mark.parametrize("s_max", [0.05, 0.4, 2.0])  # every x is small; both peaks are in reach; x jumps over them
def test_optimum_is_the_best_of_all_joint_actions(s_max, n_agents, k):
    rng = np.random.default_rng(n_agents)
    joint_actions = np.array(list(itertools.product(range(11), repeat=n_agents)))
    for _ in range(10):
        s = rng.uniform(0, s_max, n_agents)
        assert optimum(s, 11, k) == pytest.approx(squeeze(joint_actions @ s, k).max(), abs=1e-12)


def test_turning_points_are_the_peaks_and_the_valley_between():
    assert turning_points(1) == pytest.approx([8.062], abs=1e-3)
    assert turning_points(2) == pytest.approx([5.098, 6.930, 8.0155], abs=1e-3)
