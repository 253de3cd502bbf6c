"""The training loop: the paper's Algorithm 1, with tests, checkpoints and logging around it."""

from dataclasses import dataclass

from utils.args import key
from utils.seeding import REPLAY, stream


class Training:
    """What the loop reads."""

    @dataclass(frozen=True)
    class Config:
        t_max: int = key("length of training", unit="environment steps", low=1)
        batch_size: int = key("minibatch", unit="episodes", low=1)
        batch_steps: int | None = key(
            "learn from a stretch of this many steps of each episode in the minibatch, for agents without a memory; "
            "null: whole episodes",
            unit="environment steps",
            low=1,
        )
        buffer_size: int = key("replay", unit="episodes", low=1)
        batch_size_run: int = key("environments that play at the same time", low=1)
        updates_per_run: int = key("gradient updates after each round of `batch_size_run` episodes", low=1)
        learning_starts: int = key("time before the first update", unit="environment steps", low=0)
        test_interval: int = key("time between two tests", unit="environment steps", low=1)
        test_nepisode: int = key("episodes of a test; rounded up to whole rounds", unit="episodes", low=1)
        log_interval: int = key("time between two summaries on the console", unit="environment steps", low=1)
        save_model: bool = key("write checkpoints")
        save_model_interval: int = key("time between two checkpoints", unit="environment steps", low=1)

        def problems(self):
            """What is wrong with these keys taken together."""
            for name in ("batch_size", "batch_size_run"):
                if getattr(self, name) > self.buffer_size:
                    yield f"{name} = {getattr(self, name)} is larger than buffer_size = {self.buffer_size} (episodes)"


class Every:
    """True each time `interval` steps have passed, and the first time it is asked."""

    def __init__(self, interval):
        self.interval, self.last = interval, None

    def __call__(self, t):
        due = self.last is None or t - self.last >= self.interval
        if due:
            self.last = t
        return due


def train(config, runner, buffer, learner, logger, save, progress, device):
    """Train until t_max. config: Training.Config; save(t_env): write a checkpoint; progress: see its file."""
    test_due, log_due = Every(config.test_interval), Every(config.log_interval)
    save_due = Every(config.save_model_interval)
    while runner.t_env < config.t_max:
        buffer.insert_episode_batch(runner.run())
        buffer.begin(stream(runner.seed, REPLAY, runner.rounds))
        if runner.t_env >= config.learning_starts and buffer.can_sample(config.batch_size):
            for _ in range(config.updates_per_run):
                learner.train(
                    buffer.sample(config.batch_size, config.batch_steps).to(device), runner.t_env, runner.episodes
                )
        if test_due(runner.t_env):
            test(config, runner)
        if config.save_model and save_due(runner.t_env):
            save(runner.t_env)
        if log_due(runner.t_env):
            logger.print_recent_stats()
        progress.update(runner.t_env)
    if test_due.last != runner.t_env:
        test(config, runner)
    runner.log_stats()
    if config.save_model and save_due.last != runner.t_env:
        save(runner.t_env)
    logger.print_recent_stats()


def test(config, runner, render=False):
    """At least `test_nepisode` episodes without exploration; logs their means as `test_*`."""
    for _ in range(-(-config.test_nepisode // runner.env.n_envs)):
        runner.run(test_mode=True, render=render)
    runner.log_stats(test_mode=True)
