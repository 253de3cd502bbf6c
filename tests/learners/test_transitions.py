"""What learners read off a batch: which transitions are real, and TD(λ) targets by hand."""

import numpy as np
import pytest
import torch
from helpers import garbage_in_padding, lengths_of, make_args, random_batch

from learners.transitions import at, lambda_target, learned_steps, transition_mask


def test_the_mask_covers_the_transitions_that_were_played():
    batch = random_batch(np.random.default_rng(0), make_args("iql"), B=8, T=6)
    mask = transition_mask(batch)
    assert mask.shape == (8, 6, 1)
    assert [row.flatten().tolist() for row in mask] == [[1.0] * k + [0.0] * (6 - k) for k in lengths_of(batch)]
    assert torch.equal(mask, transition_mask(garbage_in_padding(batch, np.random.default_rng(1))))


def test_the_mask_of_a_batch_that_was_cut_in_the_middle_of_episodes():
    batch = random_batch(np.random.default_rng(0), make_args("iql"), B=2, T=6)[:, :4]
    assert transition_mask(batch).flatten().tolist() == [1.0] * 6


def test_an_end_stops_the_mask_even_where_observations_go_on():
    batch = random_batch(np.random.default_rng(0), make_args("iql"), B=2, T=4)
    batch["terminated"][0, 1] = True
    assert transition_mask(batch).flatten().tolist() == [1, 1, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "mask, now, ends, after, goes_on",
    [
        ([[1, 1, 1], [1, 1, 1]], [0, 1, 2, 4, 5, 6], [3, 7], [1, 2, 6, 4, 5, 7], [1, 1, 0, 1, 1, 0]),
        ([[1, 1, 1], [1, 0, 0]], [0, 1, 2, 4], [3, 5], [1, 2, 4, 5], [1, 1, 0, 0]),
        ([[0, 0, 0], [1, 1, 0]], [4, 5], [6], [1, 2], [1, 0]),
        ([[0, 0, 0], [0, 0, 0]], [], [], [], []),
    ],
)
def test_steps_that_are_learned_from(mask, now, ends, after, goes_on):
    """Two episodes of up to three transitions: steps 0 to 3 and 4 to 7."""
    mask = torch.tensor(mask, dtype=torch.float32).unsqueeze(-1)
    steps = learned_steps(mask, double_q=True)
    assert steps.now.tolist() == now and steps.online.tolist() == now + ends
    assert steps.after.tolist() == after and steps.goes_on.flatten().tolist() == goes_on
    assert torch.equal(steps.online[steps.after], steps.now + 1)
    assert learned_steps(mask, double_q=False).online.tolist() == now


def test_steps_are_read_off_by_their_place_among_all():
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert at(x, torch.tensor([4, 0])).tolist() == [[8, 9], [0, 1]]


def target(reward, terminated, value, goes_on, **lambdas):
    column = lambda values: torch.tensor(values).reshape(-1, 1)  # noqa: E731
    return lambda_target(column(reward), column(terminated), column(value), column(goes_on).bool(), **lambdas)


def test_lambda_target_by_hand():
    half = dict(gamma=0.5, td_lambda=0.25, longest=3)
    reward, value = [1.0, 2.0, 3.0], [10.0, 20.0, 40.0]
    # A time limit at t = 2: y2 = 3 + 40/2 = 23, y1 = 2 + (15 + 5.75)/2 = 12.375, y0 = 1 + (7.5 + 3.09375)/2 = 6.296875
    assert target(reward, [0, 0, 0], value, [1, 1, 0], **half).flatten().tolist() == [6.296875, 12.375, 23.0]
    # an end at t = 1: y1 = 2, y0 = 1 + (7.5 + 0.5)/2 = 5
    assert target(reward[:2], [0, 1], value[:2], [1, 0], **half).flatten().tolist() == [5.0, 2.0]
    assert target(reward[:2], [1, 0], value[:2], [1, 0], **half).flatten().tolist() == [1.0, 12.0]  # an end at t = 0
    # a time limit at t = 1, and another episode behind it: y1 = 2 + 20/2 = 12, y0 = 1 + (7.5 + 3)/2 = 6.25
    y = target([*reward[:2], 7.0], [0, 0, 1], [*value[:2], 0.0], [1, 0, 0], **half)
    assert y.flatten().tolist() == [6.25, 12.0, 7.0]
    assert target(reward, [0, 0, 1], value, [1, 1, 0], gamma=0.5, td_lambda=0, longest=3).flatten().tolist() == [
        6,
        12,
        3,
    ]


def test_lambda_target_reaches_through_long_episodes():
    """Rewards of 1 and no values: y_t is what a loop from the end sums up. Lengths 1 to 40, one behind the other."""
    lengths = range(1, 41)
    ones = [[1.0] * n for n in lengths]
    goes_on = [[1] * (n - 1) + [0] for n in lengths]
    y = target(sum(ones, []), [0] * 820, [0.0] * 820, sum(goes_on, []), gamma=0.99, td_lambda=0.9, longest=40)
    expected = []
    for n in lengths:
        tail = []
        for _ in range(n):
            tail.insert(0, 1 + 0.99 * 0.9 * tail[0] if tail else 1.0)
        expected += tail
    torch.testing.assert_close(y.flatten(), torch.tensor(expected))


def test_nothing_that_is_no_number_comes_from_behind_an_end():
    y = target([1.0, torch.nan], [0, 0], [2.0, torch.nan], [0, 0], gamma=0.5, td_lambda=0.5, longest=2)
    assert y[0].item() == 2
