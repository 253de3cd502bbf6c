"""What learners read off a batch: which transitions are real, and TD(λ) targets by hand."""

import numpy as np
import torch
from helpers import garbage_in_padding, lengths_of, make_args, random_batch

from learners.transitions import in_place, lambda_target, real_steps, transition_mask


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


def test_lambda_target_by_hand():
    column = lambda *values: torch.tensor(values).reshape(1, -1, 1)  # noqa: E731
    reward, value = column(1.0, 2.0, 3.0), column(10.0, 20.0, 40.0)
    # γ = 1/2, λ = 1/4. A time limit at t = 2: y2 = 3 + 40/2 = 23, y1 = 2 + (15 + 5.75)/2 = 12.375,
    # y0 = 1 + (7.5 + 3.09375)/2 = 6.296875
    y = lambda_target(reward, column(0, 0, 0), value, column(1, 1, 1), gamma=0.5, td_lambda=0.25)
    assert y.flatten().tolist() == [6.296875, 12.375, 23.0]
    # an end at t = 1: y1 = 2, y0 = 1 + (7.5 + 0.5)/2 = 5
    y = lambda_target(reward, column(0, 1, 0), value, column(1, 1, 0), gamma=0.5, td_lambda=0.25)
    assert y.flatten().tolist()[:2] == [5.0, 2.0]
    # a time limit at t = 1: y1 = 2 + 20/2 = 12, y0 = 1 + (7.5 + 3)/2 = 6.25
    y = lambda_target(reward, column(0, 0, 0), value, column(1, 1, 0), gamma=0.5, td_lambda=0.25)
    assert y.flatten().tolist()[:2] == [6.25, 12.0]


def test_real_steps_in_a_row_and_back_at_their_places():
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]]).unsqueeze(-1)
    x = torch.arange(12.0).reshape(2, 3, 2)
    row, ones = real_steps(mask, x, mask)
    assert row.tolist() == [[[0, 1], [2, 3], [4, 5], [6, 7]]] and ones.tolist() == [[[1]] * 4]
    assert in_place(mask, row).tolist() == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [0, 0], [0, 0]]]


def test_without_padding_nothing_is_moved():
    mask, x = torch.ones(2, 3, 1), torch.randn(2, 3, 2)
    (same,) = real_steps(mask, x)
    assert same is x and in_place(mask, x) is x
