"""Statistics by hand, by enumeration of every resample, and against rliable."""

import itertools

import numpy as np
import pytest

from reporting import statistics as st


def every_resample(scores):
    return [np.array(picked) for picked in itertools.product(scores, repeat=len(scores))]


# ---- the interquartile mean


def test_iqm_by_hand():
    assert st.iqm(np.array([100.0, 1, 2, 3, -100])) == 2  # one of five is cut at either end
    assert st.iqm(np.array([1.0, 2, 6])) == 3  # a quarter of three is none
    assert st.iqm(np.arange(8.0)) == 3.5
    assert st.iqm(np.array([[1.0], [2]])).tolist() == [1, 2]


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_is_scipys_trimmed_mean(n):
    stats = pytest.importorskip("scipy.stats")
    scores = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(st.iqm(scores), stats.trim_mean(scores, 0.25, axis=-1))


# ---- intervals


@pytest.mark.parametrize(
    "interval", [lambda x: st.interval(st.iqm, x, reps=40_000), lambda x: st.iqm_interval(x, 40_000)]
)
@pytest.mark.parametrize("scores", [[1.0, 2.0, 4.0], [3.0, 1.0, 4.0, 1.5], [0.0, 5.0, 9.0, 2.0, 7.0]])
def test_interval_of_every_possible_resample(interval, scores):
    """The quantiles of all n^n resamples, which are equally likely, give or take a little at the level."""
    values = np.sort([st.iqm(resample) for resample in every_resample(scores)])
    for bound, level in zip(interval(np.array(scores)), (0.025, 0.975)):
        nearby = [np.quantile(values, level + d, method="inverted_cdf") for d in (-0.004, 0.004)]
        assert nearby[0] - 1e-9 <= bound <= nearby[1] + 1e-9


def test_each_point_of_a_curve_has_its_own_interval():
    curve = np.random.default_rng(0).normal(size=(7, 5))
    lower, upper = st.iqm_interval(curve, 500)
    assert lower.shape == upper.shape == (7,)
    for t in range(7):
        assert (lower[t], upper[t]) == pytest.approx(np.ravel(st.iqm_interval(curve[t], 500)))


def test_one_run_has_no_interval():
    assert np.isnan(st.iqm_interval(np.array([[1.0], [2.0]]))).all()
    assert np.isnan(st.interval(st.pooled_iqm, np.array([1.0, 2.0]), np.array([1.0]))).all()


def test_an_interval_is_the_same_again_and_in_chunks(monkeypatch):
    strata = np.arange(5.0), np.arange(3.0) ** 2
    whole = st.interval(st.pooled_iqm, *strata, reps=500)
    assert whole == st.interval(st.pooled_iqm, *strata, reps=500)
    monkeypatch.setattr(st, "CHUNK", 100)
    assert whole == st.interval(st.pooled_iqm, *strata, reps=500)


def test_resamples_stay_within_their_stratum():
    assert st.interval(st.pooled_iqm, np.zeros(4), np.ones(4)) == (0.5, 0.5)


def test_an_interval_may_reach_infinity():
    assert st.interval(st.median, np.array([10.0, 20.0, np.inf])) == (10, np.inf)
    assert st.interval(st.median, np.full(4, np.inf)) == (np.inf, np.inf)


# ---- comparisons


def test_improvement_by_hand():
    x, y = np.array([1.0, 3.0]), np.array([2.0, 3.0])
    assert st.improvement(x, y) == (0 + 0 + 1 + 0.5) / 4
    assert st.improvement(x, x, y, y) == 0.375  # two tasks
    assert st.improvement(np.array([1.0]), np.zeros(2), np.array([0.0]), np.ones(3)) == 0.5  # wins one, loses the other


def test_share_above_by_hand():
    taus = np.array([0.0, 1.0, 2.0])[:, None]
    assert st.share_above(np.array([1.0, 2.0]) > taus, np.array([3.0, 4.0]) > taus).tolist() == [1, 0.75, 0.5]


def test_normalised_scores():
    assert st.normalise(np.array([2.0, 4.0, 7.0, 0.0]), 2, 6).tolist() == [0, 0.5, 1.25, -0.5]


def test_steps_to_a_threshold():
    grid = np.array([0, 10, 20])
    curves = np.array([[0.0, 0.0, 9.0], [5.0, 0.0, 0.0], [1.0, 4.0, 0.0]])
    assert st.steps_to(5.0, grid, curves).tolist() == [10, np.inf, 0]


# ---- curves


def test_runs_with_the_same_points_keep_them():
    steps = np.array([0.0, 10, 20, 25])
    assert st.common_grid([steps, steps]).tolist() == steps.tolist()


def test_the_grid_is_that_of_the_rarest_evaluations_as_far_as_all_runs_go():
    often, rarely = np.arange(0.0, 101, 5), np.arange(0.0, 201, 20)
    assert st.common_grid([often, rarely]).tolist() == [0, 20, 40, 60, 80, 100]


def test_evaluations_that_are_a_few_steps_late_still_count():
    assert st.common_grid([np.array([0.0, 100, 203]), np.array([4.0, 101, 200])]).tolist() == [0, 100, 203]


def test_a_grid_is_thinned_from_its_end():
    grid = st.common_grid([np.arange(1001.0)], most=100)
    assert len(grid) <= 100 and grid[-1] == 1000


def test_runs_without_a_common_point():
    assert st.common_grid([np.array([0.0]), np.array([50.0])]).tolist() == [0]


def test_the_nearest_evaluation_stands_at_a_point():
    values, distance = st.nearest(np.array([0.0, 9, 21]), np.array([1.0, 2, 3]), np.array([0.0, 10, 20, 99]))
    assert values.tolist() == [1, 2, 3, 3] and distance.tolist() == [0, 1, 1, 78]


def test_the_final_window():
    assert st.final_window(np.arange(0, 101, 1), 0.05).sum() == 6  # 95 to 100
    assert st.final_window(np.array([0, 50, 100]), 0.05).tolist() == [False, False, True]


# ---- rliable, whose own Monte Carlo error is what separates us


@pytest.fixture
def rly():
    pytest.importorskip("rliable")
    from rliable import library, metrics

    np.random.seed(0)  # rliable draws from numpy's global generator
    return library, metrics


def test_intervals_agree_with_rliable(rly):
    library, metrics = rly
    scores = np.random.default_rng(1).gamma(2.0, size=(8, 3))  # runs, tasks
    point, interval = library.get_interval_estimates(
        {"a": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000
    )
    ours = st.interval(st.pooled_iqm, *scores.T, reps=4000)
    assert st.pooled_iqm(*scores.T) == pytest.approx(point["a"][0])
    np.testing.assert_allclose(ours, interval["a"].ravel(), atol=0.06)
    assert ours[1] - ours[0] > 0.5  # the tolerance is small against the interval


def test_curves_agree_with_rliable(rly):
    library, metrics = rly
    scores = np.random.default_rng(2).normal(size=(6, 1, 4)) * [1, 2, 3, 4]  # runs, tasks, points
    _, interval = library.get_interval_estimates(
        {"a": scores}, lambda x: np.array([metrics.aggregate_iqm(x[..., t]) for t in range(4)]), reps=4000
    )
    ours = np.array(st.iqm_interval(scores[:, 0].T, 4000))
    np.testing.assert_allclose(ours / [1, 2, 3, 4], interval["a"] / [1, 2, 3, 4], atol=0.12)


def test_profiles_agree_with_rliable(rly):
    library, _ = rly
    scores, taus = np.random.default_rng(3).uniform(size=(7, 2)), np.linspace(0, 1, 11)
    profile, interval = library.create_performance_profile({"a": scores}, taus, reps=2000)
    above = [x > taus[:, None] for x in scores.T]
    np.testing.assert_allclose(st.share_above(*above), profile["a"])
    np.testing.assert_allclose(
        st.interval(st.share_above, *above), interval["a"], atol=1.01 / 14
    )  # one run more or less


def test_improvement_agrees_with_rliable(rly):
    library, metrics = rly
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.5, size=(6, 3)).round(1), rng.normal(size=(9, 3)).round(1)  # rounded: there are ties
    point, interval = library.get_interval_estimates(
        {"xy": [x, y]}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=1000
    )
    assert st.improvement(*x.T, *y.T) == pytest.approx(point["xy"][0])
    np.testing.assert_allclose(st.interval(st.improvement, *x.T, *y.T), interval["xy"].ravel(), atol=0.03)


def test_tasks_weigh_the_same_whatever_their_numbers_of_runs():
    assert st.pooled_iqm(np.array([1.0, 1.0]), np.array([0.0] * 4)) == pytest.approx(0.5)
    # a quarter of the weight is cut at either end: of 0, 0.2 | 0.4, 0.6, 0.8, 1.0, halves 0.25 | 0.125 each
    assert st.pooled_iqm(np.array([0.0, 0.2]), np.array([0.4, 0.6, 0.8, 1.0])) == pytest.approx((0.2 + 0.5) / 2)
    weak, strong = (np.array([0.77] * 3), np.array([0.03] * 3)), (np.array([0.84] * 3), np.array([0.1] * 5))
    assert st.pooled_iqm(*strong) > st.pooled_iqm(*weak)  # better on each task, with more runs of the harder one
    assert st.share_above(strong[0] > 0.5, strong[1] > 0.5) == 0.5
    lower, upper = st.interval(st.pooled_iqm, *strong, reps=200)
    assert lower == upper == pytest.approx(0.47)
    assert st.pooled_mean(np.array([1.0, 1.0]), np.array([0.0] * 4)) == st.pooled_median(np.ones(2), np.zeros(4)) == 0.5
    assert st.pooled_median(np.array([1.0]), np.array([2.0, 3.0, 4.0])) == 1.5  # half of the weight is at 1
