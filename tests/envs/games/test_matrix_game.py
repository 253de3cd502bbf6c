import numpy as np
import pytest

from envs import make
from envs.games.matrix_game import MatrixGame
from utils.args import ConfigError

ARGS = dict(key=None, payoff=None, clip=None, penalty=-50.0, observe_state="all")


def game(n_envs=1, seed=0, **changes):
    return make("matrix_game", ARGS | changes, n_envs=n_envs, seed=seed)


def paid(env, *actions):
    """The reward of one joint action in a fresh episode of one environment."""
    env.reset()
    step = env.step(np.array([actions]))
    assert step.terminated[0] and not step.truncated[0]
    return step.reward[0]


def test_the_default_is_the_3x3_game_of_the_paper():
    expected = [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]
    for env in (game(), game(key="qtran_3x3")):
        assert [[paid(env, a, b) for b in range(3)] for a in range(3)] == expected
        assert env.payoff.shape == (1, 3, 3) and env.payoff.dtype == np.float64


def test_the_21x21_game():
    table = game(key="qtran_21x21").payoff[0]
    assert table.shape == (21, 21)
    # by hand: the two summits, and max(5 - 1/9, ...) one step beside the wide one
    assert table[5, 15] == 10 and table[15, 5] == 5
    assert table[16, 5] == pytest.approx(5 - 1 / 9)
    assert table[6, 15] == 9 and table[7, 16] == 10 - 4 - 1
    # (0, 0): 5 - 25 - 25/9 beats 10 - 25 - 225
    assert table[0, 0] == pytest.approx(5 - 25 - 25 / 9)
    assert np.unravel_index(table.argmax(), table.shape) == (5, 15)
    assert (table == 10).sum() == 1


def test_clip_raises_what_is_below_it_and_nothing_else():
    plain, clipped = game(key="qtran_21x21").payoff, game(key="qtran_21x21", clip=-10).payoff
    assert plain.min() < -10 and clipped.min() == -10
    assert np.array_equal(clipped[plain > -10], plain[plain > -10])
    assert game(payoff=[[1, -5], [-2, 0]], clip=-2.0).payoff.tolist() == [[[1, -2], [-2, 0]]]


def test_the_climbing_and_the_penalty_game():
    assert game(key="climbing").payoff.tolist() == [[[11, -30, 0], [-30, 7, 6], [0, 0, 5]]]
    assert game(key="penalty", penalty=-7).payoff.tolist() == [[[10, 0, -7], [0, 2, 0], [-7, 0, 10]]]


def test_the_two_state_game_pays_by_the_state_it_shows():
    tables = [[[10, 8, 5], [8, 6, 3], [5, 3, 0]], [[0, 3, 5], [3, 6, 8], [5, 8, 10]]]
    env, rng = game(n_envs=64, key="two_state"), np.random.default_rng(0)
    state = env.reset().state
    assert set(map(tuple, state)) == {(1, 0), (0, 1)}
    actions = rng.integers(3, size=(64, 2))
    step = env.step(actions)
    for e in range(64):  # the slow loop
        assert step.reward[e] == tables[int(state[e, 1])][actions[e, 0]][actions[e, 1]]
    assert np.array_equal(step.state, state)


def test_states_are_drawn_uniformly_anew_in_each_episode():
    env = game(n_envs=10_000, key="two_state")
    first, second = env.reset().state[:, 0], env.reset().state[:, 0]
    assert abs(first.mean() - 0.5) < 0.02  # four standard errors
    assert abs((first == second).mean() - 0.5) < 0.02


@pytest.mark.parametrize("who, seen_by", [("all", [1, 1]), ("first", [1, 0]), ("none", [0, 0])])
def test_who_observes_the_state(who, seen_by):
    everything = game(key="two_state", observe_state=who).observe_all_states()
    assert everything.state.tolist() == [[1, 0], [0, 1]]
    for state, one_hot in enumerate(([1, 0], [0, 1])):
        assert everything.obs[state].tolist() == [[sees * x for x in one_hot] for sees in seen_by]


@pytest.mark.parametrize("who", ["all", "first", "none"])
def test_with_a_single_state_every_agent_observes_the_constant_1(who):
    seen = game(observe_state=who, n_envs=3).reset()
    assert (seen.obs == 1).all() and seen.obs.shape == (3, 2, 1)
    assert (seen.state == 1).all() and seen.state.shape == (3, 1)


def test_observe_all_states_is_what_the_game_shows_in_each_state():
    env = game(n_envs=32, key="two_state", observe_state="first")
    everything, seen = env.observe_all_states(), env.reset()
    assert everything.avail.shape == (2, 2, 3) and env.n_states == 2
    for e in range(32):
        s = int(seen.state[e, 1])
        assert all(np.array_equal(a[s], b[e]) for a, b in zip(everything, seen, strict=True))


def test_unequal_action_counts_are_padded_with_unavailable_actions():
    env = game(payoff=[[1, 2, 3], [4, 5, 6]])
    assert env.payoff.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert (env.env_info.n_agents, env.env_info.n_actions) == (2, 3)
    assert env.notes == ("actions of the agents: 2, 3; all have 3 outputs, and actions they lack are masked",)
    assert game().notes == ()
    assert env.reset().avail.tolist() == [[[True, True, False], [True, True, True]]]
    assert [[paid(env, a, b) for b in range(3)] for a in range(2)] == [[1, 2, 3], [4, 5, 6]]
    env.reset()
    with pytest.raises(ValueError, match=r"environment 0: agent 0 has the actions 0\.\.1, not 2"):
        env.step(np.array([[2, 0]]))


def test_many_agents_agree_with_a_slow_loop():
    rng = np.random.default_rng(3)
    payoff = rng.normal(size=(2, 3, 2, 4)).round(3).tolist()
    env = game(n_envs=64, payoff=payoff)
    assert env.env_info.n_agents == 4 and env.env_info.n_actions == 4
    env.reset()
    actions = np.stack([rng.integers(count, size=64) for count in (2, 3, 2, 4)], axis=1)
    reward = env.step(actions).reward
    for (a, b, c, d), r in zip(actions, reward, strict=True):
        assert r == np.float32(payoff[a][b][c][d])


@pytest.mark.parametrize(
    "payoff, place",
    [
        ([[1, 2], [3]], r"payoff\[1\]: has 1 entries instead of 2"),
        ([[1, 2], [3, "x"]], r"payoff\[1\]\[1\]: 'x' is not a finite number"),
        ([[1, float("nan")], [3, 4]], r"payoff\[0\]\[1\]: nan is not a finite number"),
        ([[1, float("inf")], [3, 4]], r"payoff\[0\]\[1\]: inf is not a finite number"),
        ([[1, 10**400], [3, 4]], r"payoff\[0\]\[1\]: 10{198}… is not a finite number of at most 1e\+15 either way"),
        ([[1, -1.1e15], [3, 4]], r"payoff\[0\]\[1\]: -1100000000000000.0 is not a finite number of at most 1e\+15"),
        ([[1, True], [3, 4]], r"payoff\[0\]\[1\]: True is not a finite number"),
        ([[1, None], [3, 4]], r"payoff\[0\]\[1\]: None is not a finite number"),
        ([[1, [2]], [3, 4]], r"payoff\[0\]\[1\]: \[2\] is not a finite number"),
        ([[[1], [2]], [[3], 4]], r"payoff\[1\]\[1\]: 4 stands where a list belongs"),
        ([1, 2], r"payoff\[0\]: 1 stands where a list belongs"),
        ([[1, 2], 3], r"payoff\[1\]: 3 stands where a list belongs"),
        ([], r"payoff: has 0 entries instead of at least 1"),
        ([["x" * 10_000, 1], [1, 1]], r"payoff\[0\]\[0\]: 'x{198}… is not a finite number"),
        ([[], []], r"payoff\[0\]: has 0 entries instead of at least 1"),
    ],
)
def test_a_bad_payoff_is_one_error_that_names_the_place(payoff, place):
    with pytest.raises(ConfigError, match=place) as error:
        game(payoff=payoff)
    assert "one list of finite numbers for each agent" in str(error.value)
    assert "\n" not in str(error.value)


def test_key_and_payoff_exclude_each_other():
    with pytest.raises(ConfigError, match="both key .'climbing'. and payoff"):
        game(key="climbing", payoff=[[1, 2], [3, 4]])


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'climbing'"):
        game(key="climbin")


def test_the_penalty_is_not_a_reward():
    with pytest.raises(ConfigError, match="penalty: 3.* at most 0"):
        game(key="penalty", penalty=3)


def test_the_config_declares_its_keys():
    assert set(MatrixGame.Config.__dataclass_fields__) == set(ARGS)
