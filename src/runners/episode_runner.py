"""Plays whole episodes: a controller acts on E environments until every one of them is done.

Axes: E environments, N agents, A actions, O observation, S state.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from components.episode_buffer import EpisodeBatch, Scheme
from controllers import MAC
from envs.vector import GameError, Observation, Step, VectorEnv
from utils import interrupts
from utils.args import ConfigError, NotFinite, key, read
from utils.clock import Clock
from utils.film import Film
from utils.logging import Logger
from utils.nonfinite import Tolerance, bad_episode
from utils.seeding import ABSOLUTE, EXPLORATION, GAMES, GLOBALS, TEST, TRAINING, seed_globals, stream

LARGE = 1000  # numbers beyond this are not what a network should read
NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


class Played(NamedTuple):
    """A round: one episode in each environment."""

    batch: EpisodeBatch  # [E, episode_limit + 1]
    returns: np.ndarray  # [E, 1 or N]
    lengths: np.ndarray  # [E]
    ends: dict[str, np.ndarray]  # {name: [E]} of what the game says at their ends; None: nothing
    bad: dict[int, NotFinite]  # {environment: why} of episodes that are over because a number is not finite


class EpisodeRunner:
    """Fills EpisodeBatches from a VectorEnv and keeps the statistics of returns and lengths.

    `t_env` counts the environment steps of training, over all environments, in rounds that have ended. A round is
    played with the ε of the `t_env` at its start. It draws from streams of its own (`utils/seeding.py`): the games, the
    exploration and the global generators. The streams of a test depend on its `t_env`, not on the tests before it.
    """

    @dataclass(frozen=True)
    class Config:
        runner_log_interval: int = key("time between two records of training returns", unit="environment steps", low=1)
        render: bool = key(
            "with `evaluate`: print the first environment at each step, and save an animation, render.gif or render.mp4"
        )
        common_reward: bool = key("one reward for the team; False: one for each agent (IQL only)")
        reward_scalarisation: str = key(
            "how one team reward is made where an environment rewards each agent", choices=("sum", "mean")
        )
        max_staleness: int = key(
            "0: each round is played with the newest weights. S: with those of S rounds before, so that playing and "
            "learning go on side by side; needs env_workers=True or runner=ray",
            unit="rounds", low=0, high=64,
        )  # fmt: skip
        on_nonfinite: str = key(
            "what happens where a number is not finite. stop: the run fails. skip: a bad update is not made and a bad "
            "episode is left out, at most 10 in a row, and 1 % in all (10 of the first 1,000)",
            choices=("stop", "skip"),
        )

    def __init__(
        self, env: VectorEnv, mac: MAC, scheme: Scheme, groups: dict[str, int], logger: Logger, args: SimpleNamespace
    ) -> None:
        self.config = read(self.Config, args)
        if self.config.max_staleness and not env.in_processes:
            raise ConfigError(
                f"max_staleness = {self.config.max_staleness}: the environments are in this process, where they play "
                "while nothing is learned; give env_workers=True, or max_staleness=0"
            )
        self.env, self.mac, self.logger = env, mac, logger
        self.scheme, self.groups = scheme, groups
        self.seed, self.game_seed = args.seed, args.game_seed
        self.clock = Clock()
        self.t_env = 0
        self.episodes = 0  # training episodes played
        self.rounds = 0  # of training, begun
        self.tests = 0  # rounds of tests begun since the last round of training
        self.kind_of_test = TEST
        self.tolerance = Tolerance("episode", self.config.on_nonfinite == "skip", logger.console_logger)
        self.stats = {"": EpisodeStats(), "test_": EpisodeStats()}  # by prefix of the metric
        self.cut_told = False  # that the game has a time limit of its own
        self.film = Film()  # of tests with `render`
        self.kinds: dict[str, set[bool]] = {}  # of each figure of the games: whether it was a number
        self.log_stats_t = -self.config.runner_log_interval - 1

    def run(self, test_mode: bool = False, render: bool = False) -> EpisodeBatch:
        """One episode in each environment: an EpisodeBatch [E, episode_limit + 1].

        Episodes that a failure of the game has cut off, or in which a number is not finite, are left out, as if they
        had not been begun; where none is left another round is played.
        TrainingError when a number is not finite, and `on_nonfinite` does not let the episode be left out.
        """
        rounds = self.rounds
        while True:
            try:
                played: Any = self._play(test_mode, render)
            except GameError:
                self.rounds = rounds  # as if it had not been begun
                raise
            batch, bad = played.batch, played.bad
            kept = np.ones(self.env.n_envs, dtype=bool) if self.env.lost is None else ~self.env.lost
            for i in np.flatnonzero(kept).tolist():
                if i in bad:
                    self.tolerance.bad(bad[i], {name: values[i : i + 1] for name, values in batch.data.items()})
                else:
                    self.tolerance.good()
            kept[list(bad)] = False
            if not test_mode:
                self.t_env += int(played.lengths[kept].sum())
            if kept.any():
                break
        self.stats["test_" if test_mode else ""].add(
            played.returns[kept],
            played.lengths[kept],
            {name: self._numbers(name, values[kept]) for name, values in played.ends.items()},
        )
        if self.rounds == 1 and not test_mode:
            self._look_at_sizes(batch)
        if not self.cut_told:
            self._look_at_cuts(batch, played.lengths, kept)
        if not test_mode:
            self.episodes += int(kept.sum())
            self.logger.episode = self.episodes
            if self.t_env - self.log_stats_t >= self.config.runner_log_interval:
                self.log_stats()
                self.log_stats_t = self.t_env
        return batch if kept.all() else batch[np.flatnonzero(kept).tolist()]

    def _play(self, test_mode: bool, render: bool) -> Any:
        """A round: what has the fields of Played."""
        n_envs = self.env.n_envs
        clock = Clock() if test_mode else self.clock
        batch = EpisodeBatch(self.scheme, self.groups, n_envs, self.env.env_info.episode_limit + 1)
        data = batch.arrays()
        self.mac.init_hidden(n_envs)
        first = self.env.reset(seed=self._begin_round(test_mode))
        obs, state, avail = first
        live, everywhere = np.ones(n_envs, dtype=bool), slice(None)
        bad = self._not_finite(first, ("obs", "state"), live, 0, test_mode)
        clock.lap("environment")
        returns, lengths, ends = np.zeros(1), np.zeros(n_envs, dtype=np.int64), {}
        actions, t, rows = None, 0, everywhere  # rows: those that are live
        while live.any():
            interrupts.check()
            data["obs"][rows, t], data["state"][rows, t] = obs[rows], state[rows]
            data["avail_actions"][rows, t], data["filled"][rows, t] = avail[rows], True
            clock.lap("storing")
            shown = obs
            if bad:  # the agents act there till the round ends, and must not read it
                shown = obs.copy()
                shown[list(bad)] = 0
            actions = self.mac.select_actions(shown, avail, actions, self.t_env, test_mode)
            clock.lap("acting")
            step = self.env.step(actions)
            clock.lap("environment")
            reward = self._reward(step.reward)  # [E, 1], or [E, N]
            newly_bad = self._not_finite(step, ("reward", "obs", "state"), live, t, test_mode)
            data["actions"][rows, t, :, 0], data["reward"][rows, t] = actions[rows], reward[rows]
            data["terminated"][rows, t, 0] = step.terminated[rows]
            data["truncated"][rows, t, 0] = step.truncated[rows]
            returns = returns + (reward if rows is everywhere else np.where(live[:, None], reward, 0.0))
            lengths += live
            obs, state, avail = step.obs, step.state, step.avail
            t += 1
            if render:
                self._show_step(t, actions[0].tolist(), reward[0].tolist(), bool(live[0]))
            done = live & (step.terminated | step.truncated)
            bad = newly_bad | bad  # the first reason stays
            if not (done.any() or bad and live[list(bad)].any()):
                continue
            for name, values in step.info.items():
                ends.setdefault(name, np.full(n_envs, None))[done] = np.asarray(values, dtype=object)[done]
            done[list(bad)] = live[list(bad)]
            # The true last observation: what a time limit bootstraps on.
            data["obs"][done, t], data["state"][done, t] = obs[done], state[done]
            data["avail_actions"][done, t], data["filled"][done, t] = avail[done], True
            live = rows = live & ~done
        clock.lap("storing")
        return Played(batch, returns, lengths, ends, bad)

    def _numbers(self, name: str, values: np.ndarray) -> np.ndarray:
        """What the game says at the ends of episodes as float64 [episodes]; NaN where it is not a number. A figure that
        is a number in some episodes and something else in others is told once."""
        figures = np.array([_number(value) for value in values])
        kinds = self.kinds.setdefault(name, set())
        before = len(kinds)
        kinds |= {isinstance(value, NUMBERS) for value in values if value is not None}
        if len(kinds) == 2 > before:
            self.logger.console_logger.warning(
                f"the game's info {name!r} is not a number in every episode; {name}_mean is the mean of those in which "
                "it is"
            )
        return figures

    def _look_at_cuts(self, batch: EpisodeBatch, lengths: np.ndarray, kept: np.ndarray) -> None:
        """Say where the game itself cuts episodes off before the time limit."""
        limit = self.env.env_info.episode_limit
        cut = kept & batch.data["truncated"].numpy().any(axis=(1, 2)) & (lengths < limit)
        if cut.any():
            self.cut_told, steps = True, int(lengths[cut].max())
            message = f"the game itself cut an episode off after {steps} steps, before the time limit of {limit}"
            self.logger.console_logger.info(message)
            self.env.facts = {**self.env.facts, "cuts": message}

    def _show_step(self, t: int, actions: list, reward: list, live: bool = True) -> None:
        """Print the first environment, and film it while it is `live`."""
        text = self.env.render()
        print(f"t {t}, actions {actions}, reward {reward}\n{text}")
        if live:
            self.film.add(self.env.frame(), text)

    def _look_at_sizes(self, batch: EpisodeBatch) -> None:
        """Warn of large observations in the first round: networks learn badly from them."""
        for name in ("obs", "state"):
            values = batch.data[name]
            largest = 0 if values.dtype == torch.uint8 else float(values.abs().max())
            if largest > LARGE:
                what = {"obs": "observations", "state": "the state"}[name]
                self.logger.console_logger.warning(
                    f"{what} hold numbers as large as {largest:.4g}, from which networks learn badly: scale them to "
                    "about -1..1 in the game; in gymma env_args.scale_obs=True does it where they have bounds"
                )
                return

    def _begin_round(self, test_mode: bool) -> np.random.SeedSequence:
        """Seed exploration and the global generators for the next round; returns the stream of its games."""
        games, explore, everywhere = self._streams(self._next_key(test_mode))
        alone = [explore] if self.env.shares_stream else [stream(explore, i) for i in range(self.env.n_envs)]
        self.mac.action_selector.begin(alone)
        seed_globals(everywhere)
        return games

    def _next_key(self, test_mode: bool) -> tuple[int, ...]:
        """What the streams of the next round are derived from."""
        if test_mode:
            key, self.tests = (self.kind_of_test, self.t_env, self.tests), self.tests + 1
        else:
            key, self.rounds, self.tests = (TRAINING, self.rounds), self.rounds + 1, 0
        return key

    def _streams(self, key: tuple[int, ...]) -> tuple[np.random.SeedSequence, ...]:
        """Of a round's games, its exploration, and the global generators."""
        return (
            stream(self.game_seed, GAMES, *key),
            stream(self.seed, EXPLORATION, *key),
            stream(self.seed, GLOBALS, *key),
        )

    def end_training(self) -> None:
        """No round of training follows."""

    def begin_absolute(self) -> None:
        """The tests from here on are those of the absolute metric: other episodes than those of any test before, and
        the same ones however many tests there were at this step."""
        self.kind_of_test, self.tests = ABSOLUTE, 0

    def close(self) -> None:
        self.env.close()

    def log_stats(self, test_mode: bool = False) -> None:
        """Log and forget the mean and spread of the episodes played so far."""
        prefix = "test_" if test_mode else ""
        for name, value in self.stats[prefix].take().items():
            self.logger.log_stat(prefix + name, value, self.t_env)
        if test_mode:
            return
        if self.tolerance.left_out:
            self.logger.log_stat("episodes_left_out", self.tolerance.left_out, self.t_env)
        if self.env.restarts is not None:
            self.logger.log_stat("env_restarts", self.env.restarts, self.t_env)
        self.logger.log_stat("epsilon", self.mac.action_selector.epsilon(self.t_env), self.t_env)
        for part, share in self.clock.shares().items():
            self.logger.log_stat(f"time_{part}", share, self.t_env)

    def state_dict(self) -> dict[str, Any]:
        return {
            "t_env": self.t_env,
            "episodes": self.episodes,
            "rounds": self.rounds,
            "log_stats_t": self.log_stats_t,
            "stats": self.stats[""].state_dict(),
            "tolerance": self.tolerance.state_dict(),
            "env": self.env.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t_env, self.episodes, self.rounds = state["t_env"], state["episodes"], state["rounds"]
        self.log_stats_t = state["log_stats_t"]
        self.stats[""].load_state_dict(state["stats"])
        if "tolerance" in state:  # states of the version before have none
            self.tolerance.load_state_dict(state["tolerance"])
        self.env.load_state_dict(state["env"])

    def _reward(self, rewards: NDArray[np.floating]) -> NDArray[np.floating]:
        """[E, 1], or [E, N] where each agent learns from its own; rewards: [E] or [E, N]."""
        return team_or_agent_rewards(rewards, self.config.common_reward, self.config.reward_scalarisation)

    def _not_finite(
        self, shown: Observation | Step, names: tuple[str, ...], live: np.ndarray, t: int, test_mode: bool
    ) -> dict[int, NotFinite]:
        """{environment: why} of those `live` [E] in which one of the fields `names` of `shown` is not finite."""
        bad: dict[int, NotFinite] = {}
        for name in names:
            values = getattr(shown, name)
            if np.isfinite(values).all() or np.isfinite(values[live]).all():
                continue
            for i in np.flatnonzero(live).tolist():
                odd = values[i][~np.isfinite(values[i])]
                if odd.size and i not in bad:
                    bad[i] = bad_episode(name, odd[0], t, i, self.t_env, test_mode)
        return bad


def team_or_agent_rewards(rewards: np.ndarray, common_reward: bool, scalarisation: str) -> np.ndarray:
    """What the learner learns from: [E, 1], or [E, N], of the rewards that environments give, [E] or [E, N].
    scalarisation: sum or mean, of the agents."""
    if rewards.ndim == 2 and common_reward:
        rewards = getattr(rewards, scalarisation)(axis=1)
    return rewards.reshape(len(rewards), -1)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, NUMBERS) else np.nan


class EpisodeStats:
    """Returns, lengths and end-of-episode figures of a number of episodes, to be logged as means."""

    def __init__(self) -> None:
        self.returns, self.lengths, self.ends = [], [], {}

    def add(self, returns: NDArray[np.floating], lengths: NDArray[np.int64], ends: dict[str, NDArray[Any]]) -> None:
        """returns [E, 1] or [E, N], lengths [E], ends {name: [E]}."""
        self.returns.append(returns)
        self.lengths.append(lengths)
        for name, values in ends.items():
            self.ends.setdefault(name, []).append(values)

    def rows(self) -> list[dict[str, float]]:
        """Each episode: its return (one for each agent, where they are rewarded one by one), length and end figures."""
        if not self.returns:
            return []
        returns, lengths = np.concatenate(self.returns), np.concatenate(self.lengths)
        ends = {name: np.concatenate(values) for name, values in self.ends.items()}
        names = ["return"] if returns.shape[1] == 1 else [f"agent_{i}_return" for i in range(returns.shape[1])]
        return [
            {
                "episode": k,
                **{name: float(value) for name, value in zip(names, returns[k])},
                "length": int(lengths[k]),
                **{
                    f"info_{name}" if name in ("episode", *names, "length") else name: float(values[k])
                    for name, values in ends.items()
                    if len(values) == len(lengths)
                },
            }
            for k in range(len(lengths))
        ]

    def take(self) -> dict[str, float]:
        """{metric: value}, EPyMARL's names; starts afresh."""
        if not self.returns:
            return {}
        returns = np.concatenate(self.returns)  # [episodes, 1 or N]
        figures = {}
        if returns.shape[1] > 1:
            for i, of_agent in enumerate(returns.T):
                figures |= {f"agent_{i}_return_mean": of_agent.mean(), f"agent_{i}_return_std": of_agent.std()}
            total = returns.sum(axis=1)
            figures |= {"total_return_mean": total.mean(), "total_return_std": total.std()}
        else:
            figures |= {"return_mean": returns.mean(), "return_std": returns.std()}
        figures["ep_length_mean"] = np.concatenate(self.lengths).mean()
        for name, values in self.ends.items():
            numbers = np.concatenate(values)
            numbers = numbers[~np.isnan(numbers)]
            if numbers.size:  # in some episode the game gave a number
                taken = f"{name}_mean" in figures or name.startswith(("test_", "absolute_"))  # by figures of tests
                figures[f"info_{name}_mean" if taken else f"{name}_mean"] = numbers.mean()
        self.__init__()
        return {name: float(value) for name, value in figures.items()}

    def state_dict(self) -> dict[str, Any]:
        """Lists of tensors, which can be read back without running code."""
        return {
            "returns": [torch.from_numpy(values) for values in self.returns],
            "lengths": [torch.from_numpy(values) for values in self.lengths],
            "ends": {name: [torch.from_numpy(v) for v in values] for name, values in self.ends.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.returns, self.lengths = ([v.numpy() for v in state[name]] for name in ("returns", "lengths"))
        self.ends = {name: [v.numpy() for v in values] for name, values in state["ends"].items()}
        for values in (self.returns, self.lengths, *self.ends.values()):
            if values and not np.isreal(np.concatenate(values)).all():
                raise ValueError("values of episodes are no numbers")
