"""From environments to episode batches: what is stored, counted and logged."""

import copy
import logging
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from components.episode_buffer import make_scheme
from envs.vector import EnvInfo, Observation, Step, VectorEnv
from runners.episode_runner import EpisodeRunner, EpisodeStats
from utils.args import TrainingError

LENGTHS = np.array([2, 4, 3])  # of the episodes of Script
E, N, A, T = 3, 2, 4, 4


class Script(VectorEnv):
    """Three environments whose numbers say where and when they come from: obs is 10 e + t, pay is t + 1.

    Environment 0 terminates after 2 steps, 1 is cut off by the limit of 4, 2 terminates after 3.
    """

    env_info = EnvInfo(n_agents=N, n_actions=A, obs_shape=1, state_shape=1, episode_limit=T)
    n_envs = E

    def __init__(self):
        self.t, self.resets, self.actions, self.seeds = np.zeros(E, dtype=int), 0, [], []

    def observe(self):
        value = np.float32(10 * np.arange(E) + self.t)
        avail = np.ones((E, N, A), dtype=bool)
        avail[:, :, 3] = False
        return Observation(np.repeat(value[:, None, None], N, axis=1), value[:, None], avail)

    def reset(self, seed=None, mask=None):
        self.t[:], self.resets = 0, self.resets + 1
        self.seeds.append((seed.entropy, seed.spawn_key))
        return self.observe()

    def step(self, actions):
        self.actions.append(actions)
        live = self.t < LENGTHS
        self.t += live
        over = self.t >= LENGTHS
        cut = np.arange(E) == 1
        pay = np.where(live, self.t, 0).astype(np.float32)
        return Step(*self.observe(), pay, over & ~cut, over & cut, {"won": over * np.arange(E) / 2})

    def state_dict(self):
        return {"resets": self.resets}

    def load_state_dict(self, state):
        self.resets = state["resets"]

    def render(self):
        return f"picture at {self.t[0]}"


class Mac:
    """Takes action t in its t-th step; keeps what it was asked."""

    def __init__(self):
        self.asked, self.t = [], 0
        self.streams = []
        self.action_selector = SimpleNamespace(epsilon=lambda t: 0.5, begin=self.streams.append)

    def init_hidden(self, batch_size):
        self.t = 0

    def select_actions(self, obs, avail, last_actions, t_env, test_mode=False):
        self.asked.append((last_actions, t_env, test_mode))
        self.t += 1
        return np.full((E, N), min(self.t - 1, 2))


Fresh = {
    "t_env": 0, "episodes": 0, "rounds": 0, "log_stats_t": -10, "env": {"resets": 0},
    "stats": {"returns": [], "lengths": [], "ends": {}}, "tolerance": {"tried": 0, "left_out": 0, "in_a_row": 0},
}  # fmt: skip


class Log:
    def __init__(self):
        self.stats, self.console_logger = {}, logging.getLogger("test")

    def log_stat(self, key, value, t):
        if not key.startswith("time_"):
            self.stats.setdefault(key, []).append((t, value))


@pytest.fixture
def runner():
    args = SimpleNamespace(
        runner_log_interval=9, render=False, common_reward=True, reward_scalarisation="sum", on_nonfinite="stop",
        max_staleness=0, seed=3, game_seed=4,
    )  # fmt: skip
    return EpisodeRunner(Script(), Mac(), make_scheme(Script.env_info, True), {"agents": N}, Log(), args)


def test_a_batch_has_t_transitions_and_one_observation_more(runner):
    batch = runner.run()
    assert (batch.batch_size, batch.max_seq_length) == (E, T + 1)
    filled = batch["filled"].squeeze(-1)
    assert filled.sum(dim=1).tolist() == (LENGTHS + 1).tolist()
    expected = torch.tensor([[10.0 * e + t if t <= n else 0 for t in range(T + 1)] for e, n in enumerate(LENGTHS)])
    assert torch.equal(batch["state"].squeeze(-1), expected)  # the true last observation, then nothing
    assert torch.equal(batch["obs"][:, :, 1, 0], expected)
    assert torch.equal(batch["avail_actions"][..., 0, 0], filled) and not batch["avail_actions"][..., 3].any()


def test_rewards_actions_and_ends_stand_at_their_step(runner):
    batch = runner.run()
    pay = [[t + 1.0 if t < n else 0 for t in range(T + 1)] for n in LENGTHS]
    assert batch["reward"].squeeze(-1).tolist() == pay
    taken = [[min(t, 2) if t < n else 0 for t in range(T + 1)] for n in LENGTHS]
    assert batch["actions"][:, :, 0, 0].tolist() == taken
    assert batch["terminated"].squeeze(-1).nonzero().tolist() == [[0, 1], [2, 2]]
    assert batch["truncated"].squeeze(-1).nonzero().tolist() == [[1, 3]]


def test_a_round_is_played_with_the_steps_at_its_start_and_counted_at_its_end(runner):
    for start in (0, LENGTHS.sum()):
        runner.mac.asked.clear()
        runner.run()
        assert {t for _, t, _ in runner.mac.asked} == {start} and runner.t_env == start + LENGTHS.sum()
    runner.t_env, runner.episodes = LENGTHS.sum(), E
    runner.run(test_mode=True)
    assert (runner.t_env, runner.episodes) == (LENGTHS.sum(), E)
    assert runner.mac.asked[-1][2] is True


def key_of(stream):
    return stream.entropy, stream.spawn_key


@pytest.mark.parametrize("shares", [True, False])
def test_each_round_has_streams_of_its_own_and_tests_change_none_of_training(shares, runner):
    runner.env.shares_stream = shares
    globals_ = []

    def played(*modes):
        runner.env.seeds.clear(), runner.mac.streams.clear(), globals_.clear()
        for test_mode in modes:
            runner.run(test_mode=test_mode)
            globals_.append((random.random(), np.random.random(), torch.rand(1).item()))
        return [*zip(runner.env.seeds, [[*map(key_of, s)] for s in runner.mac.streams], globals_)]

    straight = played(False, False, False)
    runner.load_state_dict(Fresh)
    tested = played(False, True, True, False, True, False)
    assert [tested[i] for i in (0, 3, 5)] == straight
    assert len({str(round_) for round_ in tested}) == 6
    assert all(len(streams) == (1 if shares else E) for _, streams, _ in tested)
    assert {seed[0] for seed, *_ in tested} == {4} and {s[0] for _, streams, _ in tested for s in streams} == {3}
    runner.load_state_dict(Fresh | {"t_env": 9, "rounds": 1})  # as behind the first round
    assert played(True, True, False) == tested[1:4]


def test_the_controller_is_told_the_last_actions_and_none_at_first(runner):
    runner.run()
    last = [a for a, _, _ in runner.mac.asked]
    assert last[0] is None and [a[0, 0] for a in last[1:]] == [0, 1, 2]


def test_returns_lengths_and_what_the_game_says_at_an_end_are_logged(runner):
    runner.run()
    returns = [n * (n + 1) / 2 for n in LENGTHS]
    stats = runner.logger.stats
    assert stats["return_mean"] == [(9, pytest.approx(np.mean(returns)))]
    assert stats["return_std"] == [(9, pytest.approx(np.std(returns)))]
    assert stats["ep_length_mean"] == [(9, 3.0)] and stats["won_mean"] == [(9, 0.5)] and stats["epsilon"] == [(9, 0.5)]


def test_training_statistics_wait_for_their_interval_and_test_statistics_for_the_call(runner):
    runner.config = replace(runner.config, runner_log_interval=10)
    for _ in range(3):
        runner.run()
    assert [t for t, _ in runner.logger.stats["return_mean"]] == [9, 27]
    runner.run(test_mode=True)
    assert "test_return_mean" not in runner.logger.stats
    runner.log_stats(test_mode=True)
    runner.log_stats(test_mode=True)  # nothing new: nothing logged
    assert len(runner.logger.stats["test_return_mean"]) == 1


@pytest.mark.parametrize("field", ["reward", "obs", "state"])
def test_what_is_not_finite_stops_the_run(field, runner):
    step = runner.env.step

    def poisoned(actions):
        out = step(actions)
        getattr(out, field)[1] = np.nan
        return out

    runner.env.step = poisoned
    with pytest.raises(TrainingError, match=f"t_env 0, step 0 of training: the environment's {field} is not finite"):
        runner.run()


def test_a_first_observation_that_is_not_finite_stops_the_run(runner):
    runner.env.observe = lambda observe=runner.env.observe: observe()._replace(state=np.full((E, 1), np.inf))
    with pytest.raises(TrainingError, match="step 0 of a test episode: the environment's state is not finite"):
        runner.run(test_mode=True)


@pytest.mark.parametrize("field", ["reward", "obs", "state"])
def test_an_episode_that_is_not_finite_is_left_out(field, runner, caplog, tmp_path):
    step, asked = runner.env.step, runner.mac.select_actions

    def poisoned(actions):
        out = step(actions)
        if runner.rounds == 1 and runner.env.t[1] == 1:
            getattr(out, field)[1] = np.inf
        return out

    def finite(obs, *args, **more):
        assert np.isfinite(obs).all()
        return asked(obs, *args, **more)

    runner.env.step, runner.mac.select_actions = poisoned, finite
    runner.tolerance.skip, runner.tolerance.folder = True, tmp_path / "nonfinite"
    batch = runner.run()
    others = LENGTHS[[0, 2]]
    assert (batch["filled"].sum(dim=(1, 2)) - 1).tolist() == others.tolist()
    assert (runner.episodes, runner.t_env) == (2, others.sum()) and torch.isfinite(batch["obs"]).all()
    assert runner.logger.stats["ep_length_mean"] == [(others.sum(), others.mean())]
    assert f"step 0 of training: the environment's {field} is not finite (inf)" in caplog.text
    assert "left out (1 of 3 so far)" in caplog.text or "left out (1 of 2 so far)" in caplog.text
    saved = torch.load(tmp_path / "nonfinite/01_episode_0_1.pt", weights_only=True)
    assert not torch.isfinite(saved[field]).all() and saved["obs"].shape[0] == 1
    assert runner.run().batch_size == E and runner.tolerance.state_dict() == {"tried": 6, "left_out": 1, "in_a_row": 0}


@pytest.mark.parametrize("first", [0, 1])
def test_an_environment_that_goes_on_showing_what_is_not_finite_is_left_out_alone(first, runner, caplog):
    """From its observation `first` on. The agents read nothing of it."""
    observe, select = runner.env.observe, runner.mac.select_actions

    def poisoned():
        seen = observe()
        if runner.env.t[0] >= first:
            seen.obs[0] = np.nan
        return seen

    def finite(obs, *args, **more):
        assert np.isfinite(obs).all()
        return select(obs, *args, **more)

    runner.env.observe, runner.mac.select_actions, runner.tolerance.skip = poisoned, finite, True
    batch = runner.run()
    assert (batch["filled"].sum(dim=(1, 2)) - 1).tolist() == LENGTHS[1:].tolist()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("t_env 0, step 0 of training: the environment's obs is not finite (nan)")


def test_where_no_episode_is_finite_the_run_ends(runner):
    runner.env.step = lambda actions, step=runner.env.step: step(actions)._replace(reward=np.full(E, np.nan))
    runner.tolerance.skip = True
    with pytest.raises(TrainingError, match="11 of 11 episodes were left out, the last 11 in a row; at most 10"):
        runner.run()


def test_what_an_ended_environment_shows_does_not_matter(runner):
    step = runner.env.step

    def poisoned(actions):
        ended = runner.env.t >= LENGTHS
        out = step(actions)
        for field in (out.obs, out.state, out.reward):
            field[ended] = np.nan
        return out

    clean = runner.run()
    runner.env.step = poisoned
    batch = runner.run()
    assert all(torch.equal(batch[k], clean[k]) for k in batch.data)
    (_, first), (_, second) = runner.logger.stats["return_mean"]
    assert first == second


class Failing(Script):
    """Its games fail: in the first round those of 0 and 1, in the second all, then none."""

    restarts = 0

    def reset(self, seed=None, mask=None):
        self.lost = np.array([[True, True, False], [True, True, True], [False, False, False]][min(self.resets, 2)])
        self.restarts += int(self.lost.sum())
        return super().reset(seed)


def test_lost_episodes_are_neither_learned_from_nor_counted(runner):
    whole = runner.run()
    runner.t_env = runner.episodes = 0
    runner.logger.stats.clear()
    runner.env = Failing()
    batch = runner.run()
    assert batch.batch_size == 1 and all(torch.equal(batch[k], whole[k][2:]) for k in batch.data)
    assert (runner.t_env, runner.episodes) == (LENGTHS[2], 1)
    batch = runner.run()  # a round that is lost as a whole, and another
    assert all(torch.equal(batch[k], whole[k]) for k in batch.data) and runner.env.resets == 3
    assert (runner.t_env, runner.episodes) == (LENGTHS[2] + LENGTHS.sum(), 1 + E)
    runner.log_stats()
    returns = [6, *(n * (n + 1) / 2 for n in LENGTHS)]
    assert runner.logger.stats["return_mean"] == [(12, pytest.approx(np.mean(returns)))]
    assert runner.logger.stats["won_mean"] == [(12, pytest.approx((1 + 0 + 0.5 + 1) / 4))]
    assert runner.logger.stats["env_restarts"] == [(12, 5)]


def test_where_games_cannot_fail_nothing_is_said_of_it(runner):
    runner.run()
    assert "env_restarts" not in runner.logger.stats


def test_render_prints_each_step(runner, capsys):
    runner.run(test_mode=True, render=True)
    assert capsys.readouterr().out.count("picture at") == T


def test_its_state_comes_back(runner):
    runner.config = replace(runner.config, runner_log_interval=10)
    for _ in range(2):
        runner.run()
    state = copy.deepcopy(runner.state_dict())
    runner.logger.stats.clear()
    runner.log_stats()
    expected = dict(runner.logger.stats)
    runner.logger.stats.clear()
    runner.run()
    runner.load_state_dict(state)
    assert (runner.t_env, runner.episodes, runner.rounds, runner.env.resets) == (18, 6, 2, 2)
    runner.logger.stats.clear()
    runner.log_stats()
    assert runner.logger.stats == expected and "return_mean" in expected


def test_agents_paid_one_by_one_have_statistics_of_their_own():
    stats = EpisodeStats()
    stats.add(np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([1, 3]), {})
    taken = stats.take()
    assert (taken["agent_0_return_mean"], taken["agent_1_return_mean"], taken["total_return_mean"]) == (2, 4, 6)
    assert taken["total_return_std"] == 3 and taken["ep_length_mean"] == 2 and "return_mean" not in taken
    assert stats.take() == {}


def test_figures_of_a_game_that_have_the_names_of_ours_are_told_apart():
    stats, names = EpisodeStats(), ("return", "length", "episode", "points", "test_return", "absolute_return")
    stats.add(np.array([[1.0], [2.0]]), np.array([3, 4]), {name: np.array([50.0, 60.0]) for name in names})
    first, _ = stats.rows()
    assert (first["return"], first["length"], first["episode"], first["points"]) == (1.0, 3, 0, 50.0)
    assert first["info_return"] == first["info_length"] == first["info_episode"] == 50.0
    taken = stats.take()
    assert taken["return_mean"] == 1.5 and taken["points_mean"] == 55.0
    for name in ("info_return_mean", "info_test_return_mean", "info_absolute_return_mean"):
        assert taken[name] == 55.0
    assert not any(name.startswith(("test_", "absolute_")) for name in taken)


class Talking(Script):
    """What it says at the end is a number, or a word, or nothing."""

    def step(self, actions):
        said = np.array([7, "lost", True], dtype=object)
        return super().step(actions)._replace(info={"points": said, "word": ["a", "b", "c"], "late": [1.0, None, 2.0]})


def test_numbers_that_a_game_says_at_the_end_are_averaged_and_one_that_changes_its_type_is_told_once(runner, caplog):
    runner.env = Talking()
    with caplog.at_level(logging.WARNING, logger="test"):
        for _ in range(2):
            runner.run(test_mode=True)
    runner.log_stats(test_mode=True)
    stats = runner.logger.stats
    assert stats["test_points_mean"] == [(0, 4.0)] and stats["test_late_mean"] == [(0, 1.5)]
    assert "test_word_mean" not in stats
    assert [r.message for r in caplog.records] == [
        "the game's info 'points' is not a number in every episode; points_mean is the mean of those in which it is"
    ]
