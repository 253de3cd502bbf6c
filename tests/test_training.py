"""The loop: when it learns, tests, saves and stops, with everything around it replaced by counters."""

import os
import signal
from types import SimpleNamespace

import pytest

from training import Every, Schedule, Training, train
from training import test as play_tests
from utils import interrupts
from utils.clock import Clock


class Recorder:
    """Stands for runner, buffer, learner, logger, keeper and progress: keeps what the loop asks of them.

    A signal comes at the call `stop`, such as ("test", 10).
    """

    seed, left_out, training_steps, log_stats_t = 1, 0, 0, -1
    clock = Clock()
    stats = {"test_": SimpleNamespace(rows=list)}

    def __init__(self, steps_a_run=10, n_envs=2, holds=0, stop=None):
        self.t_env, self.episodes, self.rounds, self.calls, self.holds, self.stop = 0, 0, 0, [], holds, stop
        self.steps_a_run, self.env = steps_a_run, SimpleNamespace(n_envs=n_envs)

    def run(self, test_mode=False, render=False):
        if not test_mode:
            self.t_env, self.episodes = self.t_env + self.steps_a_run, self.episodes + self.env.n_envs
            self.rounds += 1
        self.call("test" if test_mode else "play", self.t_env)

    def call(self, *what):
        self.calls.append(what)
        if what[:2] == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def begin(self, stream):
        self.calls.append(("stream", stream.spawn_key))

    def checkpoint(self):
        self.call("save", self.t_env)

    def tested(self):
        self.call("tested", self.t_env)

    def round_done(self):
        self.call("state", self.t_env)

    def last_state(self):
        self.call("last state", self.t_env)

    def insert_episode_batch(self, batch):
        self.holds += self.env.n_envs

    def can_sample(self, n):
        return self.holds >= n

    def sample(self, n, steps=None):
        what = "episodes" if steps is None else f"stretches of {steps} steps"
        return SimpleNamespace(to=lambda device: f"{n} {what} on {device}")

    def outcomes(self):
        return [None]

    def good(self):
        self.calls.append(("good",))

    def log_stats(self, test_mode=False):
        self.call("log test" if test_mode else "log", self.t_env)

    def log_stat(self, key, value, t):
        self.call("stat", t, key)

    def end_training(self):
        pass

    def print_recent_stats(self):
        self.call("print", self.t_env)

    def update(self, *args):
        """Of the learner, or of the progress."""
        if len(args) == 1:
            self.calls.append(("progress", *args))
        else:
            batch, t_env, episode = args
            self.call("learn", t_env, episode, batch)

    def at(self, name):
        return [call[1] for call in self.calls if call[0] == name]


def trained(recorder=None, schedule=None, **changes):
    keys = dict(
        t_max=50, batch_size=4, batch_steps=None, buffer_size=10, batch_size_run=2, updates_per_run=1,
        learning_starts=0, test_interval=20, test_nepisode=2,
        log_interval=20, save_model=True, save_model_interval=30, keep_checkpoints=None, absolute_metric=False,
    )  # fmt: skip
    r = recorder or Recorder()
    config = Training.Config(**keys | changes)
    train(config, schedule or Schedule(config), r, r, r, r, r, r, r, "cpu")
    return r


def test_it_plays_until_t_max_and_learns_once_there_are_enough_episodes():
    r = trained()
    assert r.at("play") == [10, 20, 30, 40, 50]
    assert [c[1:] for c in r.calls if c[0] == "learn"] == [
        (t, 2 * t // 10, "4 episodes on cpu") for t in (20, 30, 40, 50)
    ]


def test_it_learns_from_stretches_where_it_is_told_to():
    learned = [c[3] for c in trained(batch_steps=7).calls if c[0] == "learn"]
    assert set(learned) == {"4 stretches of 7 steps on cpu"}


def test_it_learns_from_what_it_just_played_before_it_tests_and_saves():
    names = [
        call[0]
        for call in trained(t_max=10, batch_size=2).calls
        if call[0] not in ("stream", "good", "progress", "stat")
    ]
    assert names == [
        "play", "learn", "state", "test", "log test", "tested", "save", "print", "last state", "log", "print",
    ]  # fmt: skip


def test_updates_per_run():
    assert trained(updates_per_run=3).at("learn") == [t for t in (20, 30, 40, 50) for _ in range(3)]


def test_what_was_left_out_is_logged_where_it_has_changed():
    class Bad(Recorder):
        """The updates at t_env 30 are not finite."""

        @property
        def logger(self):
            return self

        def outcomes(self):
            return [ValueError() if self.t_env == 30 else None]

        def sample(self, n, steps=None):
            return SimpleNamespace(to=lambda device: "a batch", data={})

        def bad(self, error, batch):
            self.left_out += 1

    calls = trained(Bad()).calls
    assert [call for call in calls if call[0] == "stat" and call[2] == "updates_left_out"] == [
        ("stat", 30, "updates_left_out")
    ]


def test_it_plays_for_a_while_before_it_learns():
    assert trained(learning_starts=35).at("learn") == [40, 50]


def test_intervals_are_kept_and_the_end_is_tested_and_saved():
    r = trained()
    assert r.at("log test") == [10, 30, 50] and r.at("save") == [10, 40, 50]
    assert trained(t_max=60).at("log test") == [10, 30, 50, 60]
    assert trained(test_interval=1000, save_model_interval=1000).at("save") == [10, 50]
    assert trained(save_model=False).at("save") == []


def test_the_statistics_left_over_are_logged_before_the_last_summary():
    calls = trained().calls
    assert calls[-1] == ("print", 50) and ("log", 50) in calls[calls.index(("progress", 50)) :]


def test_a_finished_training_goes_no_further():
    r = Recorder()
    r.t_env = 50
    assert trained(r).at("play") == []


@pytest.mark.parametrize("episodes, n_envs, runs", [(1, 2, 1), (2, 2, 1), (3, 2, 2), (100, 32, 4)])
def test_a_test_plays_at_least_the_episodes_asked_for(episodes, n_envs, runs):
    r = Recorder(n_envs=n_envs)
    play_tests(SimpleNamespace(test_nepisode=episodes), r)
    assert len(r.at("test")) == runs and r.calls[-1][0] == "log test"


def test_every():
    every, due = Every(10), []
    for t in (3, 8, 13, 14, 22, 23):
        if every.due(t):
            every.done(t)
            due.append(t)
    assert due == [3, 13, 23]


def test_samples_of_each_round_have_a_stream_of_their_own():
    keys = [call[1] for call in trained().calls if call[0] == "stream"]
    assert len(keys) == len(set(keys)) == 5


@pytest.fixture
def signals():
    interrupts.catch()
    yield
    interrupts.release()


@pytest.mark.parametrize("call", ["play", "learn", "state", "test", "log test", "tested", "save", "print"])
def test_a_run_that_is_stopped_at_any_call_and_resumed_does_what_one_that_never_stopped_does(call, signals):
    keys = dict.fromkeys(Training.Config.__dataclass_fields__, 20) | {"t_max": 50, "test_interval": 20}
    schedule = Schedule(SimpleNamespace(**keys | {"save_model_interval": 30}))
    stopped = Recorder(stop=(call, 10 if call in ("test", "log test", "tested", "save", "print") else 20))
    with pytest.raises(interrupts.Interrupted):
        trained(stopped, schedule)
    if call in ("play", "learn", "state"):  # the round was ended
        assert stopped.calls[-1] == ("state", 20)
    resumed = Recorder(holds=stopped.holds)
    resumed.t_env, resumed.episodes, resumed.rounds = stopped.t_env, stopped.episodes, stopped.rounds
    again = Schedule(SimpleNamespace(**keys | {"save_model_interval": 30}))
    again.load_state_dict(schedule.state_dict())
    trained(resumed, again)
    done = [c for c in stopped.calls + resumed.calls if c[0] != "progress"]
    whole = [c for c in trained().calls if c[0] != "progress"]
    if call in ("test", "print"):  # broken off, and done again
        done.remove((call, 10))
    assert done == whole


@pytest.mark.parametrize("key", ["batch_size", "batch_size_run"])
def test_batches_have_to_fit_into_the_replay(key):
    numbers = dict.fromkeys(Training.Config.__dataclass_fields__, 1) | {"buffer_size": 5, key: 6}
    assert list(Training.Config(**numbers).problems()) == [f"{key} = 6 is larger than buffer_size = 5 (episodes)"]
    assert list(Training.Config(**numbers | {key: 5}).problems()) == []


def test_the_signal_of_a_run_that_has_ended_stops_nothing_else():
    interrupts.catch()
    with pytest.raises(interrupts.Interrupted):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            interrupts.check()
        finally:
            interrupts.release()
    interrupts.check()
