"""Rounds in worker processes: what is played depends on neither the timing nor the failures of the processes."""

import copy
import logging
import os
import signal
import threading
import time

import pytest
import torch
import toy_env
from helpers import make_runner

from envs.workers.worker_env import WorkerEnv
from runners.episode_runner import EpisodeRunner
from runners.parallel_runner import ParallelRunner
from utils.args import TrainingError


class Log:
    def __init__(self):
        self.stats, self.console_logger, self.episode = {}, logging.getLogger("qtran"), 0

    def log_stat(self, key, value, t):
        if not key.startswith("time_"):
            self.stats.setdefault(key, []).append((t, value))


@pytest.fixture
def make():
    """make(cls, n_envs, staleness, **keys of the Walk): a runner on workers; closed at the end."""
    made = []

    def start(cls=ParallelRunner, n_envs=3, staleness=0, **keys):
        env = WorkerEnv(toy_env.Walk, toy_env.Walk.Config(**{"sleep": 0.0, "dies": 0, "folder": ""} | keys), n_envs, 0)
        made.append(make_runner(cls, env, Log(), staleness))
        return made[-1]

    yield start
    for runner in made:
        runner.close()


def learn(runner):
    """Stands for an update: other weights, which depend on nothing but the number of the round."""
    with torch.no_grad():
        for p in runner.mac.agent.parameters():
            p += 0.05 * torch.sin(runner.rounds + torch.arange(p.numel()).float()).view_as(p)


def rounds(runner, n, test_after=()):
    """What n rounds have played, with what is learned and tested between them."""
    out = []
    for _ in range(n):
        out.append(runner.run())
        learn(runner)
        if runner.rounds in test_after:
            out.append(runner.run(test_mode=True))
    runner.end_training()
    return out


def same(some, others):
    assert len(some) == len(others)
    return all(torch.equal(a[k], b[k]) for a, b in zip(some, others) for k in a.data)


def numbers(runner):
    return runner.t_env, runner.episodes, runner.rounds, runner.logger.stats


@pytest.mark.parametrize("n_envs", [1, 3, 8])
def test_without_staleness_it_plays_as_in_lock_step(n_envs, make):
    step, free = make(EpisodeRunner, n_envs), make(n_envs=n_envs)
    assert same(rounds(step, 4, [2, 3]), rounds(free, 4, [2, 3]))
    assert numbers(step) == numbers(free)
    assert len({int(n) for n in free.run()["filled"].sum(dim=(1, 2))}) > 1 or n_envs == 1


@pytest.mark.parametrize("staleness", [0, 2])
def test_delays_change_nothing(staleness, make):
    """Twelve environments: two blocks, the second one short."""
    quick, slow = make(n_envs=12, staleness=staleness), make(n_envs=12, staleness=staleness, sleep=0.003)
    assert same(rounds(quick, 5, [1, 3]), rounds(slow, 5, [1, 3]))
    assert numbers(quick) == numbers(slow)


def test_a_round_is_played_with_the_weights_of_so_many_rounds_before(make):
    """The same numbers come out of a runner that has no thread and is given the older weights."""
    stale, plain = make(staleness=2), make()
    agents, steps, expected = [], [], []
    newest = plain.mac.agent
    for number in range(5):
        agents.append(copy.deepcopy(newest))
        steps.append(plain.t_env)
        old = max(0, number - 2)
        plain.mac.agent = agents[old]
        now, plain.t_env = plain.t_env, steps[old]
        expected.append(plain.run())
        plain.t_env += now - steps[old]
        plain.mac.agent = newest
        learn(plain)
    assert same(rounds(stale, 5), expected)


def test_its_clock_goes_on_from_the_seconds_of_an_earlier_process(make):
    runner = make(staleness=1)
    runner.clock.begin({"acting": 100.0, "environment": 200.0, "storing": 300.0})
    rounds(runner, 2)
    for part, before in (("acting", 100.0), ("environment", 200.0), ("storing", 300.0)):
        assert runner.clock.seconds[part] == pytest.approx(before + runner.playing.seconds[part], abs=1)
        assert runner.clock.seconds[part] >= before
    assert min(runner.clock.shares().values()) >= 0


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_it_goes_on_from_a_state_as_if_it_had_never_stopped(staleness, make):
    whole, first, second = (make(staleness=staleness) for _ in range(3))
    expected = rounds(whole, 6, [2, 4])
    begun = [first.run(), learn(first), first.run(), learn(first)][::2]
    state, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(first.mac.agent.state_dict())
    first.run()  # beyond the state
    second.load_state_dict(state)
    second.mac.agent.load_state_dict(weights)
    test = second.run(test_mode=True)
    assert same(expected, [*begun, test, *rounds(second, 4, [4])])


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_worker_that_dies_is_replaced_and_its_episode_played_again(staleness, make, tmp_path):
    whole = make(staleness=staleness)
    dying = make(staleness=staleness, dies=7, folder=str(tmp_path))
    assert same(rounds(whole, 4, [2]), rounds(dying, 4, [2]))
    assert dying.env.restarts == len(list(tmp_path.iterdir())) > 0
    assert numbers(whole)[:3] == numbers(dying)[:3]


def test_a_worker_that_is_killed_while_it_waits_is_replaced(make):
    whole, killed = make(), make()
    begun = [killed.run()]
    learn(killed)
    os.kill(killed.env.workers[1].process.pid, signal.SIGKILL)
    assert same(rounds(whole, 3), [*begun, *rounds(killed, 2)]) and killed.env.restarts == 1


@pytest.mark.parametrize("staleness", [0, 2])
def test_a_game_that_fails_all_the_time_ends_the_run(staleness, make, monkeypatch):
    monkeypatch.setattr("envs.workers.worker_env.BACKOFF", 0)
    runner = make(staleness=staleness, dies=1, folder="always")
    with pytest.raises(TrainingError, match="5 failures without a whole episode between them"):
        runner.run()
    assert runner.rounds == 0


def test_nobody_waits(make):
    """While environment 0 stands still the others end the rounds that they may begin."""
    runner = make(staleness=2)
    first = runner.run()
    os.kill(runner.env.workers[0].process.pid, signal.SIGSTOP)
    for _ in range(500):
        if runner.next_round[1:] == [3, 3] and not any(runner.seats.plays[1:]):
            break
        time.sleep(0.01)
    else:
        raise AssertionError(f"{runner.next_round} are next")
    os.kill(runner.env.workers[0].process.pid, signal.SIGCONT)
    again = make(staleness=2)
    assert same([first, runner.run()], [again.run(), again.run()])


def test_what_was_begun_beyond_the_end_is_discarded(make):
    runner = make(staleness=2, sleep=0.002)
    runner.run()
    runner.end_training()
    assert not runner.seats.busy and not runner.env.working
    assert runner.run(test_mode=True).batch_size == 3 and runner.episodes == 3
    before = threading.active_count()
    runner.close()
    assert threading.active_count() == before - 1


def test_an_error_in_the_thread_reaches_the_run(make):
    runner = make(staleness=1)
    runner.run()
    with torch.no_grad():
        next(runner.mac.agent.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="the agents' values are not finite"):
        for _ in range(3):
            runner.run()


def test_what_is_not_finite_ends_the_episode_alone(make):
    plain, bad = make(), make(folder="nan")
    bad.tolerance.skip = True
    expected, batch = plain.run(), bad.run()
    assert batch.batch_size == 2 and bad.episodes == 2
    assert same([batch], [expected[[0, 2]]])


def test_it_can_be_watched(make, capsys):
    runner = make()
    batch = runner.run(test_mode=True, render=True)
    lines = capsys.readouterr().out.splitlines()
    steps = int(batch["filled"][0].sum()) - 1
    assert [line.split(",")[0] for line in lines[::2]] == [f"t {t + 1}" for t in range(steps)]
    assert lines[1::2] == [f"at {t + 1}" for t in range(steps)]
