"""The training loop: the paper's Algorithm 1, with tests, checkpoints and logging around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from utils import interrupts
from utils.args import key
from utils.nonfinite import Tolerance
from utils.seeding import REPLAY, stream

if TYPE_CHECKING:
    from components.episode_buffer import EpisodeBatch, ReplayBuffer
    from learners import Learner
    from runners.episode_runner import EpisodeRunner
    from utils.logging import Logger


class Keeps(Protocol):
    """Keeps what a run can go on from (`keeper.py`)."""

    def round_done(self) -> None: ...
    def checkpoint(self) -> object: ...
    def tested(self) -> None: ...
    def last_state(self) -> None: ...
    def best_weights(self) -> AbstractContextManager[int | None]: ...


class Progress(Protocol):
    def update(self, t_env: int) -> None: ...


ABSOLUTE_TIMES = 10  # as many episodes as a test has: Gorsane et al. 2022, section 4


class Training:
    """What the loop reads."""

    @dataclass(frozen=True)
    class Config:
        t_max: int = key("length of training", unit="environment steps", low=1)
        batch_size: int = key("minibatch", unit="episodes", low=1, high=1_000_000)
        batch_steps: int | None = key(
            "learn from a stretch of this many steps of each episode in the minibatch, for agents without a memory; "
            "null: whole episodes",
            unit="environment steps",
            low=1,
            high=1_000_000,
        )
        buffer_size: int = key("replay", unit="episodes", low=1, high=2**40)
        batch_size_run: int = key("environments that play at the same time", low=1, high=65536)
        updates_per_run: int = key("gradient updates after each round of `batch_size_run` episodes", low=1)
        learning_starts: int = key("time before the first update", unit="environment steps", low=0)
        test_interval: int = key("time between two tests", unit="environment steps", low=1)
        test_nepisode: int = key("episodes of a test; rounded up to whole rounds", unit="episodes", low=1)
        absolute_metric: bool = key(
            "after training the weights that tested best play ten times `test_nepisode` new episodes: `absolute` in "
            "summary.json (Gorsane et al. 2022); keeps checkpoints/best, also where save_model=False"
        )
        log_interval: int = key("time between two summaries on the console", unit="environment steps", low=1)
        save_model: bool = key("write checkpoints, and keep the one that tested best in checkpoints/best")
        save_model_interval: int = key("time between two checkpoints", unit="environment steps", low=1)
        keep_checkpoints: int | None = key("how many of the last ones stay; null: all", unit="checkpoints", low=1)

        def problems(self) -> Iterator[str]:
            """What is wrong with these keys taken together."""
            for name in ("batch_size", "batch_size_run"):
                if getattr(self, name) > self.buffer_size:
                    yield f"{name} = {getattr(self, name)} is larger than buffer_size = {self.buffer_size} (episodes)"


def note_on_updates(values: dict, replaced: dict) -> str | None:
    """What to know where another number of environments changes the number of updates. replaced: see `Config`."""
    before, now, updates = replaced.get("batch_size_run"), values["batch_size_run"], values["updates_per_run"]
    if not isinstance(before, int) or before == now or "updates_per_run" in replaced:
        return None
    keep = max(1, round(updates * now / before))
    return (
        f"batch_size_run = {now} in place of {before}, with updates_per_run = {updates} as before: there are "
        f"{before / now:.3g} times as many updates in the same number of steps"
        + (f"; updates_per_run={keep} keeps their number" if keep != updates else "")
    )


class Every:
    """Something that is due each time `interval` steps have passed, and the first time."""

    def __init__(self, interval: int):
        self.interval, self.last = interval, None

    def due(self, t: int) -> bool:
        return self.last is None or t - self.last >= self.interval

    def done(self, t: int) -> None:
        self.last = t


class Schedule:
    """When tests, checkpoints and summaries on the console are due."""

    def __init__(self, config: Training.Config) -> None:
        self.test, self.save = Every(config.test_interval), Every(config.save_model_interval)
        self.log = Every(config.log_interval)

    def state_dict(self) -> dict:
        return {"test": self.test.last, "save": self.save.last, "log": self.log.last}

    def load_state_dict(self, state: dict) -> None:
        self.test.last, self.save.last, self.log.last = state["test"], state["save"], state["log"]


def train(
    config: Training.Config,
    schedule: Schedule,
    runner: EpisodeRunner,
    buffer: ReplayBuffer,
    learner: Learner,
    updates: Tolerance,
    logger: Logger,
    keeper: Keeps,
    progress: Progress,
    device: str,
) -> None:
    """Train until t_max, from wherever the parts are: at the start, or where a state was taken.

    config: Training.Config. updates: decides what happens to updates that are not finite. keeper: writes
    checkpoints and states (`keeper.py`). progress: shows progress (`recording/progress.py`).
    """
    clock = runner.clock
    clock.lap("other")
    while True:
        if runner.rounds:  # after a round, also when the run was resumed there
            _do_what_is_due(config, schedule, runner, logger, keeper, progress)
        if runner.t_env >= config.t_max:
            break
        with interrupts.held():  # a signal waits for the end of the round
            buffer.insert_episode_batch(runner.run())
            clock.lap("storing")
            buffer.begin(stream(runner.seed, REPLAY, runner.rounds))
            if runner.t_env >= config.learning_starts and buffer.can_sample(config.batch_size):
                _learn(config, runner, buffer, learner, updates, device)
            keeper.round_done()
            clock.lap("saving")
    runner.end_training()
    keeper.last_state()  # before what only the end brings: with a larger t_max the run goes on from here
    if schedule.test.last != runner.t_env:
        _test(config, schedule, runner, keeper, progress)
    runner.log_stats()
    logger.log_stat("updates", learner.training_steps, runner.t_env)
    if config.save_model and schedule.save.last != runner.t_env:
        keeper.checkpoint()
    if config.absolute_metric:
        _play_best(config, runner, logger, keeper, progress)
    logger.print_recent_stats()


def _learn(
    config: Training.Config,
    runner: EpisodeRunner,
    buffer: ReplayBuffer,
    learner: Learner,
    updates: Tolerance,
    device: str,
) -> None:
    left_out = updates.left_out
    for _ in range(config.updates_per_run):
        batch = buffer.sample(config.batch_size, config.batch_steps).to(device)
        runner.clock.lap("sampling")
        learner.update(batch, runner.t_env, runner.episodes)
        runner.clock.lap("learning")
    for i, error in enumerate(learner.outcomes()):
        if error is None:
            updates.good()
        else:
            updates.bad(error, _sampled(config, runner, buffer, i).data)
    runner.clock.lap("learning")  # a GPU has done what it was asked
    if learner.log_stats_t == runner.t_env:  # the losses were logged
        learner.logger.log_stat("updates", learner.training_steps, runner.t_env)
    if updates.left_out > left_out:
        learner.logger.log_stat("updates_left_out", updates.left_out, runner.t_env)


def _sampled(config: Training.Config, runner: EpisodeRunner, buffer: ReplayBuffer, i: int) -> EpisodeBatch:
    """The minibatch of update i of this round, drawn anew."""
    buffer.begin(stream(runner.seed, REPLAY, runner.rounds))
    for _ in range(i):
        buffer.sample(config.batch_size, config.batch_steps)
    return buffer.sample(config.batch_size, config.batch_steps)


def _do_what_is_due(
    config: Training.Config,
    schedule: Schedule,
    runner: EpisodeRunner,
    logger: Logger,
    keeper: Keeps,
    progress: Progress,
) -> None:
    """A signal breaks it off; what was not done is still due when the run is resumed."""
    t = runner.t_env
    if schedule.test.due(t):
        _test(config, schedule, runner, keeper, progress)
    if config.save_model and schedule.save.due(t):
        with interrupts.held():
            keeper.checkpoint()
            schedule.save.done(t)
    if schedule.log.due(t):
        logger.print_recent_stats()
        schedule.log.done(t)
    progress.update(t)
    runner.clock.lap("saving")


def _test(
    config: Training.Config, schedule: Schedule, runner: EpisodeRunner, keeper: Keeps, progress: Progress
) -> None:
    runner.clock.lap("saving")
    for _ in _test_rounds(config, runner):
        runner.run(test_mode=True)
        progress.update(runner.t_env)
    runner.clock.lap("testing")
    with interrupts.held():  # its records stand in the log exactly if it is done
        runner.log_stats(test_mode=True)
        schedule.test.done(runner.t_env)
        keeper.tested()


def _play_best(
    config: Training.Config, runner: EpisodeRunner, logger: Logger, keeper: Keeps, progress: Progress
) -> None:
    """The absolute metric. A run that is resumed plays all of it again, and the same episodes."""
    runner.clock.lap("saving")
    with keeper.best_weights() as t_best:
        if t_best is None:
            logger.console_logger.warning(
                "absolute_metric: not measured, as there is no checkpoints/best: no test had a finite result, or the "
                "weights of the best test were not saved"
            )
            return
        runner.begin_absolute()
        for _ in _test_rounds(config, runner, ABSOLUTE_TIMES):
            runner.run(test_mode=True)
            progress.update(runner.t_env)
    runner.clock.lap("testing")
    episodes = len(runner.stats["test_"].rows())
    figures = runner.stats["test_"].take() | {"t_env": t_best, "episodes": episodes}
    with interrupts.held():
        for name, value in figures.items():
            logger.log_stat(f"absolute_{name}", value, runner.t_env)


def test(config: Training.Config, runner: EpisodeRunner, render: bool = False) -> list[dict[str, float]]:
    """At least `test_nepisode` episodes without exploration; logs their means as `test_*`. Returns each of them."""
    for _ in _test_rounds(config, runner):
        runner.run(test_mode=True, render=render)
    episodes = runner.stats["test_"].rows()
    runner.log_stats(test_mode=True)
    return episodes


def _test_rounds(config: Training.Config, runner: EpisodeRunner, times: int = 1) -> range:
    return range(-(-times * config.test_nepisode // runner.env.n_envs))
