"""Running statistics equal numpy's over all values seen, without the padding."""

import numpy as np
import pytest
import torch

from components.running_stats import RunningStats


def batches(rng, k, n=6):
    """(values [B, T, K], mask [B, T, 1]), with NaN in the padding."""
    for _ in range(n):
        values = rng.normal(loc=[10.0, -3.0][:k], scale=[2.0, 0.1][:k], size=(4, 5, k)).astype(np.float32)
        mask = np.arange(5) < rng.integers(1, 6, size=(4, 1))
        values[~mask] = np.nan
        yield torch.from_numpy(values), torch.from_numpy(mask.astype(np.float32)).unsqueeze(-1)


@pytest.mark.parametrize("k", [1, 2])
def test_mean_and_variance_are_numpys_over_the_real_values(k):
    stats, seen = RunningStats((k,)), []
    for values, mask in batches(np.random.default_rng(0), k):
        stats.update(values, mask)
        seen += list(values[mask.squeeze(-1).bool()].double().numpy())
        np.testing.assert_allclose(stats.mean, np.mean(seen, axis=0), rtol=1e-12)
        np.testing.assert_allclose(stats.var, np.var(seen, axis=0), rtol=1e-10)
        assert stats.count == len(seen)
    standard = stats.standardise(torch.from_numpy(np.array(seen)))
    np.testing.assert_allclose(standard.mean(dim=0), 0, atol=1e-9)
    np.testing.assert_allclose(standard.std(dim=0, unbiased=False), 1, rtol=1e-6)


def test_far_from_zero_nothing_is_lost():
    stats = RunningStats()
    for _ in range(100):
        stats.update(torch.tensor([[[1e6], [1e6 + 1]]]), torch.ones(1, 2, 1))
    assert stats.mean.item() == pytest.approx(1e6 + 0.5, abs=1e-6)
    assert stats.var.item() == pytest.approx(0.25, abs=1e-9)


def test_padding_alone_changes_nothing():
    stats = RunningStats()
    stats.update(torch.full((1, 2, 1), torch.nan), torch.zeros(1, 2, 1))
    assert (stats.count, stats.mean.item(), stats.var.item()) == (0, 0, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e6])
def test_constant_values_become_zero(value):
    stats, values = RunningStats(), torch.full((3, 7, 1), value)
    for _ in range(5):
        stats.update(values, torch.ones(3, 7, 1))
    standard = stats.standardise(values)
    assert standard.dtype == values.dtype
    assert standard.abs().max() < 1e-3


def test_state_dict_goes_on_where_it_was():
    rng = np.random.default_rng(0)
    stats, other = RunningStats(), RunningStats()
    *first, (values, mask) = batches(rng, 1)
    for pair in first:
        stats.update(*pair)
    other.load_state_dict(stats.state_dict())
    for one in (stats, other):
        one.update(values, mask)
    assert torch.equal(other.mean, stats.mean) and torch.equal(other.var, stats.var)
