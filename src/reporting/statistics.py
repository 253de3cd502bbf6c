"""Statistics of independent runs, as Agarwal et al. 2021 (arXiv 2108.13264) and their rliable define them, vectorised.

The last axis of an array is that of the runs of one algorithm on one task. A list of such arrays, one for each
task, is a list of strata: runs are resampled within each of them.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

CHUNK = 4_000_000  # numbers that resamples may hold at a time: 32 MB


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean over the last axis: a quarter of the runs, rounded down, is cut at either end.

    As scipy.stats.trim_mean(scores, 0.25, axis=-1), in less than half its time.
    """
    n = scores.shape[-1]
    return np.sort(scores, axis=-1)[..., n // 4 : n - n // 4].mean(axis=-1)


def pooled_iqm(*strata: np.ndarray) -> np.ndarray:
    """The interquartile mean of all runs of all tasks together, each task with the same weight.

    Where tasks have different numbers of runs, a run of a task with n runs weighs 1/n, and a quarter of the weight is
    cut at either end. Else whoever has more seeds on a hard task would seem to play worse.
    """
    if len({s.shape[-1] for s in strata}) == 1:
        return iqm(np.concatenate(strata, axis=-1))
    scores, weight, end = _weighted(strata)
    kept = np.clip(end, 0.25, 0.75) - np.clip(end - weight, 0.25, 0.75)
    return (scores * kept).sum(axis=-1) / 0.5


def pooled_median(*strata: np.ndarray) -> float:
    """The median of all runs [n_k] of all tasks together, each task with the same weight."""
    scores, _, end = _weighted(strata)
    beside = np.searchsorted(end, [0.5 - 1e-9, 0.5 + 1e-9])  # two runs where half of the weight ends between them
    return float(scores[beside].mean())


def pooled_mean(*strata: np.ndarray) -> float:
    """The mean of the means of the runs [n_k] of each task."""
    return float(np.mean([s.mean() for s in strata]))


def _weighted(strata: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores of all runs of all tasks, ascending, their weights, the weight up to each run, itself included)."""
    scores = np.concatenate(strata, axis=-1)
    weight = np.concatenate([np.full(n, 1 / (n * len(strata))) for n in (s.shape[-1] for s in strata)])
    order = np.argsort(scores, axis=-1)
    return np.take_along_axis(scores, order, axis=-1), weight[order], np.cumsum(weight[order], axis=-1)


def share_above(*strata: np.ndarray) -> np.ndarray:
    """The share of runs that are True, averaged over tasks; of `scores > τ`, a point of a performance profile."""
    return np.mean([s.mean(axis=-1) for s in strata], axis=0)


def improvement(*strata: np.ndarray) -> np.ndarray:
    """P(X > Y), ties counting half, averaged over tasks. strata: X on each task, then Y on each task."""
    half = len(strata) // 2
    tasks = [_one_improvement(x, y) for x, y in zip(strata[:half], strata[half:])]
    return np.mean(tasks, axis=0)


def _one_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x [..., n], y [..., m]. One run of x at a time, so that no array is larger than those given."""
    won = sum(((run > y) + 0.5 * (run == y)).mean(axis=-1) for run in np.moveaxis(x[..., None], -2, 0))
    return won / x.shape[-1]


def median(steps: np.ndarray) -> np.ndarray:
    """The median over the last axis, whose values may be infinite."""
    return np.median(steps, axis=-1)


def interval(
    statistic: Callable[..., np.ndarray], *strata: np.ndarray, reps: int = 2000, size: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) of the percentile bootstrap interval of statistic(*strata), stratified.

    strata: [..., n_k], of the same leading shape, which is that of the result. statistic: takes them with
    [..., R, n_k] and returns [..., R]. NaN where a stratum has one run only: nothing can be said about its spread.
    The same input gives the same interval, whatever else is computed.
    """
    shape = strata[0].shape[:-1]
    if min(s.shape[-1] for s in strata) < 2:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    if len(strata) == 1:
        (runs,) = strata
        draw, numbers = _distinct(runs.shape[-1], reps, seed)
        parts = [statistic(runs[..., part]) for part in np.array_split(draw, -(-len(draw) * runs.size // CHUNK))]
        return _percentiles(np.concatenate(parts, axis=-1), size, numbers)
    rng = np.random.default_rng(seed)
    draws = [rng.integers(s.shape[-1], size=(reps, s.shape[-1])) for s in strata]
    chunk = max(1, CHUNK // sum(s.size for s in strata))
    parts = []
    for start in range(0, reps, chunk):
        parts.append(statistic(*(s[..., d[start : start + chunk]] for s, d in zip(strata, draws))))
    return _percentiles(np.concatenate(parts, axis=-1), size)


def iqm_interval(
    scores: np.ndarray, reps: int = 2000, size: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """interval(iqm, scores) for [..., n], many times faster where there are many points.

    Resampling runs is resampling their ranks, and the IQM of a resample is a weighted sum of the sorted scores: one
    matrix of weights serves all points.
    """
    n = scores.shape[-1]
    if n < 2:
        return np.full(scores.shape[:-1], np.nan), np.full(scores.shape[:-1], np.nan)
    ranks, numbers = _distinct(n, reps, seed)
    ranks = ranks[:, n // 4 : n - n // 4]
    weights = np.zeros((len(ranks), n))
    np.add.at(weights, (np.arange(len(ranks))[:, None], ranks), 1 / ranks.shape[1])
    values = np.einsum("...n,rn->...r", np.sort(scores, axis=-1), weights)  # `@` would wake BLAS threads for little
    return _percentiles(values, size, numbers)


@cache
def _distinct(n: int, reps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(resamples of n runs [D, n] in order, each once; how often each is among `reps` [D]). Of few runs there are few:
    126 of five."""
    draws = np.random.default_rng(seed).integers(n, size=(reps, n))
    return np.unique(np.sort(draws, axis=-1), axis=0, return_counts=True)


def _percentiles(values: np.ndarray, size: float, numbers: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) of the middle `size` of resampled statistics: order statistics, for values may be infinite.

    numbers: how often each counts; None: once.
    """
    reps = values.shape[-1] if numbers is None else int(numbers.sum())
    low = round((1 - size) / 2 * (reps - 1))  # the one nearest to numpy's percentile
    if numbers is not None and len(numbers) < reps:
        order = np.argsort(values, axis=-1)
        values, counted = np.take_along_axis(values, order, axis=-1), np.cumsum(numbers[order], axis=-1)
        places = ((counted > k).argmax(axis=-1)[..., None] for k in (low, reps - 1 - low))
        lower, upper = (np.take_along_axis(values, place, axis=-1)[..., 0] for place in places)
        return lower, upper
    values = np.partition(values, [low, reps - 1 - low], axis=-1)
    return values[..., low], values[..., reps - 1 - low]


def normalise(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scores on the scale on which `low` is 0 and `high` is 1. They may lie beyond."""
    return (scores - low) / (high - low)


# ---- curves


def common_grid(all_steps: list[np.ndarray], most: int = 500) -> np.ndarray:
    """Evaluation points [T] at which the runs with evaluations at `all_steps` (arrays, ascending) can be compared.

    They are those of the run that evaluates most rarely, as far as every run has an evaluation no more than half
    an interval away, thinned to `most` or fewer.
    """
    gaps = [np.median(np.diff(steps)) if len(steps) > 1 else 0.0 for steps in all_steps]
    gap = max(gaps)
    steps = all_steps[gaps.index(gap)]
    start, end = max(s[0] for s in all_steps), min(s[-1] for s in all_steps)
    grid = steps[(steps >= start - gap / 2) & (steps <= end + gap / 2)]
    if not len(grid):
        grid = np.array([end])
    stride = -(-len(grid) // most)
    return grid[::-1][::stride][::-1]  # the last point stays


def longest_grid(all_steps: list[np.ndarray], most: int = 500) -> np.ndarray:
    """`common_grid`, and beyond the end of the runs that stop there the points of those that go on.

    A run goes on where it has an evaluation more than half an interval after the last point.
    """
    gap = widest_gap(all_steps)
    grid = common_grid(all_steps, most=len(max(all_steps, key=len)) + 1)
    while left := [steps for steps in all_steps if steps[-1] > grid[-1] + gap / 2]:
        later = [steps[steps > grid[-1] + gap / 2] for steps in left]
        grid = np.concatenate([grid, common_grid(later, most=len(max(later, key=len)) + 1)])
    stride = -(-len(grid) // most)
    return grid[::-1][::stride][::-1]


def widest_gap(all_steps: list[np.ndarray]) -> float:
    """The interval between evaluations of the run that evaluates most rarely."""
    return max(float(np.median(np.diff(steps))) if len(steps) > 1 else 0.0 for steps in all_steps)


def running_mean(curves: np.ndarray, points: int) -> np.ndarray:
    """The mean of each point [T, n] and those around it, `points` in all, as far as there are values (not NaN). At the
    ends there are fewer."""
    held = np.isfinite(curves)
    sums, numbers = (
        np.concatenate([np.zeros((1, curves.shape[1])), np.cumsum(x, axis=0)])
        for x in (np.where(held, curves, 0.0), held.astype(float))
    )
    t = np.arange(len(curves))
    low, high = (t - (points - 1) // 2).clip(0), (t + points // 2 + 1).clip(max=len(curves))
    with np.errstate(invalid="ignore"):
        return np.where(held, (sums[high] - sums[low]) / (numbers[high] - numbers[low]), np.nan)


def nearest(steps: np.ndarray, values: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values [T] of the evaluations nearest to the points of `grid`, their distances [T])."""
    right = np.searchsorted(steps, grid).clip(0, len(steps) - 1)
    left = (right - 1).clip(0)
    index = np.where(np.abs(steps[left] - grid) <= np.abs(steps[right] - grid), left, right)
    return values[index], np.abs(steps[index] - grid)


def final_window(grid: np.ndarray, share: float) -> np.ndarray:
    """Mask [T] of the points in the last `share` of the steps; the last point at least."""
    return grid >= grid[-1] * (1 - share)


def steps_to(threshold: float, grid: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Steps [n] to the first point of `grid` [T] where a run of `curves` [T, n] is at `threshold` or above; or inf."""
    above = curves >= threshold
    return np.where(above.any(axis=0), grid[above.argmax(axis=0)], np.inf)
