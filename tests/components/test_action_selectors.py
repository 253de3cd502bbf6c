"""ε-greedy over available actions."""

import numpy as np
import pytest
from helpers import make_args

from components.action_selectors import selector_class
from components.epsilon_schedules import LinearThenFlat

AVAIL = np.array([[[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]], dtype=bool)  # [E, N, A]
Q = np.array([[[1.0, 2.0, 9.0, 0.0], [5.0, -5.0, 5.0, 5.0], [-1.0, -2.0, -3.0, -4.0]]], dtype=np.float32)
GREEDY = [[1, 1, 0]]
DRAWS = 20000


def make_selector(epsilon=0.5, **overrides):
    keys = {"epsilon_start": epsilon, "epsilon_finish": epsilon, "epsilon_anneal_time": 0} | overrides
    return selector_class("epsilon_greedy")(make_args("iql", **keys))


def many(values):
    return np.repeat(values, DRAWS, axis=0)


def test_without_exploration_the_best_available_action_is_taken():
    assert make_selector(0.0).select(Q, AVAIL, t_env=0).tolist() == GREEDY
    assert make_selector(1.0, evaluation_epsilon=0.0).select(Q, AVAIL, t_env=0, test_mode=True).tolist() == GREEDY


def test_an_available_action_is_taken_however_bad():
    q = np.where(AVAIL, -1e30, 1e30)
    assert make_selector(0.0).select(q[:, 1:2], AVAIL[:, 1:2], t_env=0).tolist() == [[1]]


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_frequencies(epsilon):
    actions = make_selector(epsilon).select(many(Q), many(AVAIL), t_env=0)
    assert actions.shape == (DRAWS, 3) and actions.dtype == np.int64
    for i, avail in enumerate(AVAIL[0]):
        expected = epsilon * avail / avail.sum() + (1 - epsilon) * (np.arange(4) == GREEDY[0][i])
        found = np.bincount(actions[:, i], minlength=4) / DRAWS
        assert not found[~avail].any()
        np.testing.assert_allclose(found, expected, atol=0.02)  # over five standard deviations


def test_agents_and_environments_explore_apart():
    avail = np.ones((DRAWS, 2, 2), dtype=bool)
    first, second = make_selector(1.0).random(avail).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.03
    greedy = np.zeros((DRAWS, 2, 2)) + [1, 0]
    explored = make_selector(0.5).select(greedy, avail, t_env=0) == 1  # explored, and not the greedy one
    assert abs(np.corrcoef(*explored.T)[0, 1]) < 0.03


def test_evaluation_has_its_own_epsilon():
    selector = make_selector(0.0, evaluation_epsilon=1.0)
    actions = selector.select(many(Q), many(AVAIL), t_env=0, test_mode=True)
    assert len(set(actions[:, 2].tolist())) == 4


def test_equal_streams_explore_alike():
    one, two = make_selector(), make_selector()
    for stream, equal in ((5, True), (6, False)):
        one.begin([np.random.SeedSequence(5)])
        two.begin([np.random.SeedSequence(stream)])
        assert (one.select(many(Q), many(AVAIL), 0) == two.select(many(Q), many(AVAIL), 0)).all() == equal


def test_an_environment_with_a_stream_of_its_own_explores_alike_whoever_is_beside_it():
    together, alone = make_selector(), make_selector()
    streams = [np.random.SeedSequence(k) for k in range(3)]
    together.begin(streams)
    q, avail = np.repeat(Q[None], 3, axis=0), np.repeat(AVAIL[None], 3, axis=0)
    played = [together.select(q, avail, 0) for _ in range(20)]  # [20, E, N]
    for e in range(3):
        alone.begin(streams[e : e + 1])
        assert all((alone.select(q[:1], avail[:1], 0)[0] == actions[e]).all() for actions in played)
    assert len({str([actions[e].tolist() for actions in played]) for e in range(3)}) == 3


def test_the_schedule_falls_in_a_straight_line_and_stays():
    schedule = LinearThenFlat(1.0, 0.05, 50_000)
    points = {0: 1.0, 25_000: 0.525, 50_000: 0.05, 50_001: 0.05, 10**9: 0.05}
    assert {t: schedule.eval(t) for t in points} == pytest.approx(points)
    assert LinearThenFlat(1.0, 0.2, 0).eval(0) == 0.2
    selector = make_selector(epsilon_start=0.8, epsilon_finish=0.4, epsilon_anneal_time=100)
    assert [selector.epsilon(t) for t in (0, 50, 100, 200)] == pytest.approx([0.8, 0.6, 0.4, 0.4])
    assert selector.epsilon(50, test_mode=True) == 0.0
