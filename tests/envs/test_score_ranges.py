"""What games declare of their returns: random play and the best play, against games played out."""

import itertools

import numpy as np
import pytest

from envs import make, score_range
from envs.games.gaussian_squeeze import GaussianSqueeze, optimum

TWO = [[[10, 8, 5], [8, 6, 3], [5, 3, 0]], [[0, 3, 5], [3, 6, 8], [5, 8, 10]]]  # payoff of `two_state`


def test_a_payoff_of_ones_own():
    assert score_range("matrix_game", {"payoff": [[5, 0], [0, 9]]}) == (3.5, 9)
    assert score_range("matrix_game", {}) == (pytest.approx(-40 / 9), 8)
    assert score_range("matrix_game", {"clip": -3.0}) == (pytest.approx(-4 / 9), 8)


@pytest.mark.parametrize("sees, agents", [("all", (1, 1)), ("first", (1, 0)), ("none", (0, 0))])
def test_the_best_play_of_agents_that_do_not_see_the_state(sees, agents):
    """All joint policies: an action in each state for who sees it, the same in both for who does not."""
    own = [[p for p in itertools.product(range(3), repeat=2) if sees or p[0] == p[1]] for sees in agents]
    best = max(np.mean([TWO[s][a[s]][b[s]] for s in (0, 1)]) for a, b in itertools.product(*own))
    assert score_range("matrix_game", {"key": "two_state", "observe_state": sees}) == (pytest.approx(16 / 3), best)


def random_play(name, env_args, n_envs):
    """Mean return of uniform play."""
    env = make(name, env_args, n_envs=n_envs, seed=1)
    env.reset()
    rng, paid = np.random.default_rng(2), np.zeros(n_envs)
    for _ in range(env.env_info.episode_limit):
        paid += env.step(rng.integers(env.env_info.n_actions, size=(n_envs, env.env_info.n_agents))).reward
    return paid.mean(), paid.std() / n_envs**0.5


@pytest.mark.parametrize(
    "name, env_args",
    [
        ("two_step", {}),
        ("predator_prey", {"penalty": 1.5}),
        ("gaussian_squeeze", {"k": 2}),
        ("gaussian_squeeze", {"n_agents": 3, "s_max": 1.0}),
    ],
)
def test_random_play(name, env_args):
    mean, error = random_play(name, env_args, n_envs=2000)
    assert abs(score_range(name, env_args)[0] - mean) < 5 * error


def test_the_best_of_predator_prey_is_that_of_the_study():
    assert score_range("predator_prey", {"penalty": 1.5})[1] == 23.771  # studies/optima.py
    assert 22.130 < score_range("predator_prey", {"penalty": 2.3})[1] < 22.684
    for other in ({"map_size": 7}, {"n_prey": 2}, {"episode_limit": 50}, {"penalty": 11.0}):
        assert score_range("predator_prey", other) is None


def test_the_best_of_gaussian_squeeze():
    rng = np.random.default_rng(5)
    few = {"n_agents": 3, "n_actions": 4, "s_max": 2.0}
    exact = [optimum(rng.uniform(0, 2, size=3), 4, 1) for _ in range(1000)]
    assert abs(score_range("gaussian_squeeze", few)[1] - np.mean(exact)) < 5 * np.std(exact) / 1000**0.5 * 2**0.5


@pytest.mark.parametrize("k", [1, 2])
def test_the_best_of_each_draw_of_many_agents(k):
    """Against the exact one, for the same draws. Some of them do not come as far as the peak at 8."""
    config = GaussianSqueeze.Config(n_agents=10, n_actions=11, k=k, s_max=0.2)
    best = GaussianSqueeze.best_rewards(config)
    assert score_range("gaussian_squeeze", {"k": k})[1] == pytest.approx(best.mean())
    draws = GaussianSqueeze._draws(config, np.random.default_rng(0))
    chosen = [*range(15), *np.argsort(draws.sum(axis=1))[:5]]
    assert best[chosen] == pytest.approx([optimum(draws[d], 11, k) for d in chosen], abs=1e-3)


def test_what_is_not_known_and_what_is_a_share():
    assert score_range("own:Game", {}) is None and score_range("smax", {"map_name": "3m"}) is None
    assert score_range("gymma", {"key": "rware:rware-tiny-2ag-v2"}) is None
    foraging = {"key": "lbforaging:Foraging-8x8-2p-3f-v3"}
    assert score_range("gymma", foraging) == (0, 1)
    assert score_range("gymma", foraging | {"kwargs": {"normalize_reward": False}}) is None


def test_a_game_of_ones_own_notes_what_it_declares(monkeypatch):
    """A run writes `facts` into summary.json, where a report finds it without the game's module."""
    keys = {"fault": "none", "at": 0, "pays_each": False}
    assert "score_range" not in make("toy_env:Toy", keys).facts
    monkeypatch.setattr("toy_env.Toy.score_range", classmethod(lambda cls, config: (config.at, 2.5)))
    assert make("toy_env:Toy", keys | {"at": 1}).facts["score_range"] == [1, 2.5]
