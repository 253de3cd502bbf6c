"""Rounds of environments that play in Ray actors (`ray_env.py`), in the order of the ParallelRunner.

With S = `max_staleness`, round r is played with the weights and the ε of phase max(0, r - S). So what comes out is what
worker processes give (`env_workers=True`), to the bit, whatever the number of actors, lost ones or not: who acts does
it on a CPU, by the same function, for the same number of rows, and each environment draws from streams of its own.
"""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np

from components.episode_buffer import EpisodeBatch, Scheme
from controllers import MAC
from runners.episode_runner import EpisodeRunner, Played
from runners.ray_actor import Episode, Order
from runners.ray_env import RayEnv
from utils import interrupts
from utils.args import NotFinite
from utils.logging import Logger
from utils.ray_cluster import check_installed
from utils.seeding import TRAINING, seed_globals


class Round:
    """What has come of a round. missing: episodes that have not."""

    def __init__(self, batch: EpisodeBatch):
        self.batch, self.data, n_envs = batch, batch.arrays(), batch.batch_size
        self.returns = np.zeros((n_envs, self.data["reward"].shape[-1]))
        self.lengths = np.zeros(n_envs, dtype=np.int64)
        self.ends: dict[str, np.ndarray] = {}
        self.bad: dict[int, NotFinite] = {}
        self.states: list[Any] = [None] * n_envs  # of the games after their episodes
        self.missing = n_envs

    def take_in(self, episode: Episode) -> None:
        i = episode.i
        for name, values in episode.fields.items():
            self.data[name][i, : len(values)] = values
        self.returns[i], self.lengths[i], self.states[i] = episode.returns, episode.length, episode.state
        for name, value in episode.ends.items():
            self.ends.setdefault(name, np.full(len(self.lengths), None))[i] = value
        if episode.bad is not None:
            self.bad[i] = NotFinite(*episode.bad)
        self.missing -= 1


class RayRunner(EpisodeRunner):
    """Plays in a RayEnv."""

    def __init__(
        self, env: RayEnv, mac: MAC, scheme: Scheme, groups: dict[str, int], logger: Logger, args: SimpleNamespace
    ) -> None:
        super().__init__(env, mac, scheme, groups, logger, args)
        self.env: RayEnv = env
        self.staleness = self.config.max_staleness
        self.phases: dict[int, tuple[dict, int, Any]] = {}  # {phase: (weights of the agent, t_env, where they are)}
        self.plays: dict[tuple[int, ...], Round] = {}  # {key of the round: what has come of it}, of those ordered
        self.ordered = 0  # rounds of training
        self.games: list[Any] = [None] * env.n_envs  # states of the games after the last round
        theirs = copy.copy(args)
        theirs.device = "cpu"
        env.prepare(theirs, scheme, groups)
        if args.device != "cpu":
            logger.console_logger.info(
                "the actors act on CPUs; env_workers=True acts on the GPU, so the same bits as there are not promised"
            )
        if env.own_process:
            logger.console_logger.info(
                "its games are programs of their own: an episode that is lost with its actor is counted and played "
                "anew, and is another one then"
            )

    @staticmethod
    def check() -> None:
        check_installed("runner=ray")

    def _play(self, test_mode: bool, render: bool) -> Played:
        if test_mode:
            key = self._next_key(test_mode)
            weights = self._weights()
            self._order(key, key, self.env.put(weights[1]), self.t_env)
        else:
            number = self.rounds
            key = self._next_key(test_mode)
            mine, arrays = self._weights()
            self.phases[number] = (mine, self.t_env, self.env.put(arrays))
            self.phases = {k: phase for k, phase in self.phases.items() if k >= number - self.staleness}
            for r in range(max(self.ordered, number), number + self.staleness + 1):
                phase = max(0, r - self.staleness)
                if phase in self.phases:
                    _, t_env, where = self.phases[phase]
                    self._order((TRAINING, r), (TRAINING, phase), where, t_env)
                    self.ordered = r + 1
        seed_globals(self._streams(key)[2])
        self.clock.lap("other")
        played = self.plays[key]
        while played.missing:
            for episode in self.env.gather():
                self.plays[episode.key].take_in(episode)
            interrupts.check()
        self.clock.lap("testing" if test_mode else "waiting")
        del self.plays[key]
        if not test_mode:
            self.games = played.states
        return Played(played.batch, played.returns, played.lengths, played.ends, played.bad)

    def _order(self, key: tuple[int, ...], phase: tuple[int, ...], where: Any, t_env: int) -> None:
        limit = self.env.env_info.episode_limit
        self.plays[key] = Round(EpisodeBatch(self.scheme, self.groups, self.env.n_envs, limit + 1))
        games, explore, _ = self._streams(key)
        test, everyone = key[0] != TRAINING, tuple(range(self.env.n_envs))
        self.env.order(Order(key, test, phase, where, t_env, games, explore, everyone))

    def _weights(self) -> tuple[dict, dict[str, np.ndarray]]:
        """The agent's as they are now: ({name: tensor}, {name: array})."""
        mine = {name: value.detach().cpu().clone() for name, value in self.mac.agent.state_dict().items()}
        return mine, {name: value.numpy() for name, value in mine.items()}

    def end_training(self) -> None:
        """What has been ordered beyond the last round counts nowhere."""
        self.env.abandon()
        self.plays.clear()
        self.ordered = self.rounds

    def state_dict(self) -> dict:
        """With the weights of the phases that the next rounds are played with; as the ParallelRunner has it."""
        needed = {k: phase for k, phase in self.phases.items() if k >= self.rounds - self.staleness}
        phases = {k: {"agent": weights, "t_env": t} for k, (weights, t, _) in needed.items() if self.staleness}
        env = self.env.state_dict() | {"workers": list(self.games)}
        return super().state_dict() | {"phases": phases, "env": env}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.games = state["env"]["workers"]
        self.ordered = self.rounds
        for k, phase in state.get("phases", {}).items():
            weights = {name: value.cpu() for name, value in phase["agent"].items()}
            arrays = {name: value.numpy() for name, value in weights.items()}
            self.phases[k] = (weights, phase["t_env"], self.env.put(arrays))
