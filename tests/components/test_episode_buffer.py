"""What goes into the replay comes out, cut to size."""

import numpy as np
import pytest
import torch
from helpers import garbage_in_padding, groups, lengths_of, make_args, random_batch, scheme

import components.episode_buffer as episode_buffer
from components.episode_buffer import EpisodeBatch, ReplayBuffer, nbytes
from utils.args import ConfigError

ARGS = make_args("iql")
T = 5


def make_buffer(size, seed=0, steps=T + 1):
    return ReplayBuffer(scheme(ARGS), groups(ARGS), size, steps, seed=seed)


def episodes(n, seed=0):
    return random_batch(np.random.default_rng(seed), ARGS, B=n, T=T)


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in a.data)


def same_episode(sampled, k, batch, b):
    """Episode k of a sample is episode b of `batch`, up to the sample's length."""
    t = sampled.max_seq_length
    return all(torch.equal(sampled[f][k], batch[f][b, :t]) for f in batch.data)


# ---------------------------------------------------------------------- a batch


def test_update_writes_where_it_is_told():
    batch = EpisodeBatch(scheme(ARGS), groups(ARGS), 3, 4)
    state = np.arange(2 * ARGS.state_shape).reshape(2, -1)
    batch.update({"state": state}, bs=slice(0, 2), ts=1)
    batch.update({"reward": [[[2.0], [3.0]]]}, bs=slice(2, 3), ts=slice(0, 2), mark_filled=False)
    assert batch["state"][:2, 1].numpy().tolist() == state.tolist()
    assert batch["state"].count_nonzero() == np.count_nonzero(state)
    assert batch["reward"].squeeze(-1).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [2, 3, 0, 0]]
    assert batch["filled"].squeeze(-1).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(KeyError, match="acttions"):
        batch.update({"acttions": 1})


def test_arrays_are_the_batchs_own_memory():
    batch = episodes(2)
    batch.arrays()["reward"][1, 2] = 17
    assert batch["reward"][1, 2] == 17


def test_parts_of_a_batch():
    batch = episodes(4)
    part = batch[1:3, :4]
    assert (part.batch_size, part.max_seq_length) == (2, 4)
    assert all(torch.equal(part[k], batch[k][1:3, :4]) for k in batch.data)


@pytest.mark.parametrize("number, place", [(0, 0), (2, 2), (-1, 3), (np.int64(-4), 0)])
def test_a_number_keeps_its_axis(number, place):
    batch = episodes(4)
    one, then = batch[number], batch[:, number - (1 if number < 0 else 0)]
    assert (one.batch_size, one.max_seq_length, then.batch_size, then.max_seq_length) == (1, T + 1, 4, 1)
    at = place + (1 if number < 0 else 0)  # T + 1 is 6: the last but one of times is 4
    assert all(torch.equal(one[k], batch[k][place : place + 1]) for k in batch.data)
    assert all(torch.equal(then[k], batch[k][:, at : at + 1]) for k in batch.data)
    with pytest.raises(IndexError):
        batch[4]
    assert torch.equal(batch[:, :2]["obs"], batch["obs"][:, :2])
    assert torch.equal(batch[torch.tensor([2, 0])]["obs"], batch["obs"][[2, 0]])
    assert batch[2:].max_t_filled() == max(lengths_of(batch)[2:]) + 1


def test_actions_and_flags_are_small():
    types = {k: v.dtype for k, v in EpisodeBatch(scheme(ARGS), groups(ARGS), 1, 1).data.items()}
    assert types["actions"] == torch.uint8
    assert {types[k] for k in ("avail_actions", "terminated", "truncated", "filled")} == {torch.bool}
    assert {types[k] for k in ("obs", "state", "reward")} == {torch.float32}


@pytest.mark.parametrize("n_actions", [256, 257, 1000])
def test_the_last_action_survives_its_type(n_actions):
    args = make_args("iql", n_actions=n_actions)
    batch = EpisodeBatch(scheme(args), groups(args), 1, 1)
    batch.update({"actions": np.full((1, args.n_agents, 1), n_actions - 1)}, ts=0)
    assert batch["actions"].long().flatten().tolist() == [n_actions - 1] * args.n_agents
    assert batch["actions"].element_size() == (1 if n_actions <= 256 else 2)


# ---------------------------------------------------------------------- the replay


def test_round_trip():
    buffer, batch = make_buffer(6), episodes(6)
    buffer.insert_episode_batch(batch)
    sample = buffer.sample(6)
    found = [next(b for b in range(6) if same_episode(sample, k, batch, b)) for k in range(6)]
    assert sorted(found) == list(range(6))


def test_wrap_around_keeps_the_newest():
    buffer, batches = make_buffer(5), [episodes(3, seed) for seed in range(3)]
    for k, batch in enumerate(batches):
        buffer.insert_episode_batch(batch)
        assert buffer.episodes_in_buffer == min(3 * (k + 1), 5)
    kept = [(batches[1], 1), (batches[1], 2), *((batches[2], b) for b in range(3))]
    sample = buffer.sample(5)
    assert all(any(same_episode(sample, k, *one) for k in range(5)) for one in kept)


def test_a_shorter_episode_leaves_nothing_of_the_one_it_replaces():
    buffer = make_buffer(1)
    buffer.insert_episode_batch(garbage_in_padding(episodes(1), np.random.default_rng(0)))
    short = random_batch(np.random.default_rng(3), ARGS, B=1, T=2)
    buffer.insert_episode_batch(short)
    assert equal(buffer[:, :3], short)
    assert not any(v[:, 3:].any() for v in buffer.data.values())


def numbered_episodes(n):
    batch = episodes(n)
    for b in range(n):
        batch["state"][b, 0] = b
    return batch


def numbers(sample):
    return sample["state"][:, 0, 0].long().tolist()


def test_a_sample_is_as_long_as_its_longest_episode():
    buffer, batch = make_buffer(20), numbered_episodes(20)
    buffer.insert_episode_batch(batch)
    found = set()
    for _ in range(30):
        sample = buffer.sample(2)
        found.add(sample.max_seq_length)
        lengths = [lengths_of(batch)[b] for b in numbers(sample)]
        assert lengths == sorted(lengths, reverse=True)  # the order that lets the agents' GRU leave padding out
        assert sample.max_seq_length == lengths[0] + 1
    assert len(found) > 2


def test_samples_do_not_repeat_an_episode_and_reach_all():
    buffer, counts = make_buffer(10), np.zeros(7)
    buffer.insert_episode_batch(numbered_episodes(7))
    for _ in range(2000):
        ids = numbers(buffer.sample(3))
        assert len(set(ids)) == 3
        counts[ids] += 1
    assert np.abs(counts / 2000 - 3 / 7).max() < 0.05  # over four standard deviations


@pytest.mark.parametrize("steps", [1, 2, 3, T, T + 4])
def test_stretches_are_parts_of_episodes_and_reach_every_transition_equally(steps):
    batch = episodes(6)
    buffer = make_buffer(8)
    buffer.insert_episode_batch(batch)
    where = {float(batch["state"][b, t, 0]): (b, t) for b in range(6) for t in range(T + 1)}
    lengths = lengths_of(batch)  # transitions of each episode
    seen = {(b, t): 0 for b in range(6) for t in range(lengths[b])}
    for _ in range(600):
        sample = buffer.sample(3, steps)
        assert sample.max_seq_length == steps + 1
        drawn = []
        for k in range(3):
            b, first = where[float(sample["state"][k, 0, 0])]
            drawn.append(b)
            stored = min(steps, lengths[b] - first) + 1
            assert first % steps == 0 and sample["filled"][k].sum() == stored
            part = batch[b, first : first + stored]
            assert all(torch.equal(sample[f][k, :stored], part[f][0]) for f in batch.data)
            for t in range(first, first + stored - 1):
                seen[b, t] += 1
        assert len(set(drawn)) == 3  # different episodes
    for b in range(6):  # within an episode no transition is favoured
        counts = [n for (e, _), n in seen.items() if e == b]
        assert min(counts) > 0.6 * max(counts) > 0


def test_what_is_sampled_is_a_copy():
    buffer = make_buffer(4)
    buffer.insert_episode_batch(episodes(4))
    before = buffer["obs"].clone()
    buffer.sample(4)["obs"].zero_()
    assert torch.equal(buffer["obs"], before)


def test_equal_streams_draw_equal_samples():
    one, two, other = make_buffer(7, seed=1), make_buffer(7, seed=1), make_buffer(7, seed=2)
    for buffer in (one, two, other):
        buffer.insert_episode_batch(numbered_episodes(5))
    draws = [[numbers(buffer.sample(3)) for _ in range(9)] for buffer in (one, two, other)]
    assert draws[0] == draws[1] != draws[2]
    for buffer in (one, other):
        buffer.begin(np.random.SeedSequence(4))
    assert all(equal(one.sample(3), other.sample(3)) for _ in range(9))


@pytest.mark.parametrize("stored", [0, 3, 7, 8, 16])
@pytest.mark.parametrize("piece", [1, 3, 7])
def test_episodes_that_are_taken_out_piece_by_piece_and_put_back_make_the_same_replay(stored, piece):
    buffer, again = make_buffer(7), make_buffer(7)
    for k in range(stored):
        buffer.insert_episode_batch(episodes(3, seed=k)[2:3])  # of any length
    first = max(0, stored - 7)
    for a in range(first, stored, piece):
        b = min(a + piece, stored)
        taken = {name: torch.cat(pieces) for name, pieces in buffer.episodes(a, b).items()}
        assert len(taken["obs"]) == taken["lengths"].sum() == buffer.lengths[np.arange(a, b) % 7].sum()
        again.put_back(a, taken)
    for one in (buffer, again):
        assert (one.inserted, one.episodes_in_buffer) == (stored, min(stored, 7))
        one.insert_episode_batch(episodes(4, seed=99))
    assert equal(buffer, again) and (buffer.lengths == again.lengths).all()
    assert equal(buffer.sample(4), again.sample(4))


def test_too_few_episodes_cannot_be_sampled():
    buffer = make_buffer(8)
    assert not buffer.can_sample(1)
    buffer.insert_episode_batch(episodes(3))
    assert buffer.can_sample(3) and not buffer.can_sample(4)
    with pytest.raises(ValueError, match="3 episodes stored, 4"):
        buffer.sample(4)


def test_nbytes_is_what_is_allocated():
    buffer = make_buffer(7)
    assert nbytes(scheme(ARGS), groups(ARGS), 7, T + 1) == sum(v.nbytes for v in buffer.data.values())


def test_a_buffer_that_does_not_fit_is_refused_with_the_sum(monkeypatch):
    size = nbytes(scheme(ARGS), groups(ARGS), 1000, T + 1)
    monkeypatch.setattr(episode_buffer, "free_memory", lambda device: size / 2)
    with pytest.raises(ConfigError, match=r"buffer_size: 1000 episodes need .* GiB.* about 400 episodes fit"):
        make_buffer(1000)
    assert make_buffer(400).buffer_size == 400
    monkeypatch.setattr(episode_buffer, "free_memory", lambda device: size / 1e5)
    with pytest.raises(ConfigError, match="not one fits: give a lower time limit"):
        make_buffer(1000)
    monkeypatch.setattr(episode_buffer, "free_memory", lambda device: None)  # unknown: try
    assert make_buffer(1000).buffer_size == 1000
