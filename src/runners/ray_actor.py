"""What runs inside a Ray actor: some of the environments of a run, each in a process, and the agents that act in them.

An actor gets orders: play a round in these environments, with these weights. It gives whole episodes. What an episode
is depends on neither the actor nor what else it plays (`seats.py`).
"""

import copy
import importlib
import logging
import os
import socket
import threading
import traceback
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from components.episode_buffer import EpisodeBatch, Scheme
from controllers import mac_class
from envs.workers.worker_env import WorkerEnv
from runners.episode_runner import team_or_agent_rewards
from runners.seats import Play, Seats
from utils.args import ConfigError, NotFinite, TrainingError


class Order(NamedTuple):
    """Play one episode in each of `envs`.

    key: of the round, from which its streams are derived. phase: names the weights; weights: where they are, a
    reference to {name: array}. t_env: whose ε it has. games, explore: streams.
    """

    key: tuple[int, ...]
    test: bool
    phase: tuple[int, ...]
    weights: Any
    t_env: int
    games: np.random.SeedSequence
    explore: np.random.SeedSequence
    envs: tuple[int, ...]


class Episode(NamedTuple):
    """What environment i has played in the round `key`; T steps.

    fields: {field: [T + 1, ...]} of the batch. bad: (message, name) of the NotFinite that ended it. state: of the game
    after it; started: processes that the game has had.
    """

    key: tuple[int, ...]
    i: int
    fields: dict[str, np.ndarray]
    returns: np.ndarray
    length: int
    ends: dict[str, Any]
    bad: tuple[str, str] | None
    state: dict | None
    started: int


class Told(NamedTuple):
    """What an actor has to say since the last time. error: it has ended by it."""

    episodes: list[Episode]
    warnings: list[str]
    restarts: int
    error: BaseException | None


class Player:
    """The environments `mine` of `n_envs`. game: (env_class, config). seed: of the games' processes.

    Its own thread starts the processes, as they end with the thread that has started them, and plays.
    """

    def __init__(self, game: tuple[Any, Any], n_envs: int, seed: Any, mine: list[int]):
        self.n_envs, self.changed = n_envs, threading.Condition()
        self.env: Any = None
        self.seats: Any = None
        self.error: BaseException | None = None
        self.stop, self.inbox, self.outbox = False, deque(), []
        self.restarts = 0  # that were told
        self.queues: list[deque[Play]] = [deque() for _ in range(n_envs)]  # what each environment plays next
        self.plays: dict[tuple[int, ...], Play] = {}  # {key of the round: Play}
        self.acting: dict[tuple[int, ...], Any] = {}  # {phase: see `BasicMAC.acting`}, the last ones
        self.warnings = _Kept()
        logging.getLogger("qtran").addHandler(self.warnings)
        logging.getLogger("qtran").propagate = False
        self.woken = os.pipe()
        self.thread = threading.Thread(target=self._run, args=(game, seed, mine), daemon=True, name="player")
        self.thread.start()

    # ------------------------------------------------------------------ what the run calls

    def hello(self) -> Any:
        """(env_info, common_reward, versions, facts, notes, host), or the error that the environments have raised."""
        with self.changed:
            self.changed.wait_for(lambda: self.env is not None or self.error is not None)
        if self.error is not None:
            return self.error
        env = self.env
        return env.env_info, env.common_reward, env.versions, env.facts, env.notes, socket.gethostname()

    def prepare(self, args: SimpleNamespace, scheme: Scheme, groups: dict[str, int], tables: dict[str, dict]) -> None:
        """How the agents are made. args: of the run, with the sizes of the game. tables: {module: its REGISTRY}, as the
        run has them, with a user's own."""
        for module, table in tables.items():
            importlib.import_module(module).REGISTRY.update(table)
        args.device = "cpu"
        self._put("prepare", args, scheme, groups)

    def order(self, orders: list[Order], taken: dict[int, tuple]) -> None:
        """taken: {environment that this actor has not carried, or that begins anew: (state of its game, started)}."""
        import ray

        known = {order.phase: order.weights for order in orders}
        weights = {phase: ray.get(ref) for phase, ref in known.items() if phase not in self.acting}
        self._put("order", orders, weights, taken)

    def leave(self, envs: list[int]) -> None:
        """These are carried by another actor now."""
        self._put("leave", envs)

    def abandon(self) -> None:
        """Nothing that was ordered is wanted any more."""
        self._put("abandon")

    def collect(self) -> Told:
        """Waits until there is something to say."""
        with self.changed:
            self.changed.wait_for(lambda: self.outbox or self.warnings.lines or self.error is not None or self.stop)
            episodes, self.outbox = self.outbox, []
            lines, self.warnings.lines = self.warnings.lines, []
            restarts = (self.env.restarts or 0) - self.restarts if self.env is not None else 0
            self.restarts += restarts
            return Told(episodes, lines, restarts, self.error)

    def close(self) -> None:
        """Ends the games and their processes."""
        self.stop = True
        self._put("stop")
        self.thread.join()

    # ------------------------------------------------------------------ the thread

    def _put(self, *message: Any) -> None:
        with self.changed:
            self.inbox.append(message)
            self.changed.notify_all()
        os.write(self.woken[1], b".")

    def _run(self, game: tuple[Any, Any], seed: Any, mine: list[int]) -> None:
        try:
            env = WorkerEnv(*game, self.n_envs, seed, mine)
            env.wake_by(self.woken[0])
            with self.changed:
                self.env = env
                self.changed.notify_all()
            while not self.stop:
                self._listen()
                if self.seats is None:
                    with self.changed:
                        self.changed.wait_for(lambda: self.inbox)
                    continue
                self.seats.begin()
                self.seats.go_on()
                if self.outbox or self.warnings.lines:
                    with self.changed:
                        self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.error = _portable(error)
                self.changed.notify_all()
        finally:
            if self.env is not None:
                self.env.close()
            with self.changed:
                self.changed.notify_all()

    def _listen(self) -> None:
        while self.inbox:
            kind, *message = self.inbox.popleft()
            if kind != "stop":
                getattr(self, f"_do_{kind}")(*message)

    def _do_prepare(self, args: SimpleNamespace, scheme: Scheme, groups: dict[str, int]) -> None:
        torch.set_num_threads(args.num_threads)
        self.args, self.scheme, self.groups = args, scheme, groups
        self.mac = mac_class(args.mac)(scheme, groups, args)
        self.seats = Seats(self.env, self.mac, self._next, self._reward, ended=self._ended)

    def _reward(self, rewards: np.ndarray) -> np.ndarray:
        return team_or_agent_rewards(rewards, self.args.common_reward, self.args.reward_scalarisation)

    def _next(self, i: int) -> Play | None:
        return self.queues[i].popleft() if self.queues[i] else None

    def _do_order(self, orders: list[Order], weights: dict, taken: dict[int, tuple]) -> None:
        for i, (state, started) in taken.items():
            self.env.take(i, state, started)
        for order in orders:
            if order.phase not in self.acting:
                self.acting[order.phase] = self._agent(weights[order.phase])
            play = self.plays.get(order.key)
            if play is None:
                batch = EpisodeBatch(self.scheme, self.groups, self.n_envs, self.env.env_info.episode_limit + 1)
                act = self.acting[order.phase]
                play = Play(batch, act, order.t_env, order.test, order.games, order.explore, order.key)
                play.missing, self.plays[order.key] = 0, play
            play.missing += len(order.envs)
            for i in order.envs:
                play.again(i)
                play.bad.pop(i, None)
                # A test does not wait for the rounds that are ordered in advance.
                self.queues[i].appendleft(play) if order.test else self.queues[i].append(play)
        for phase in list(self.acting)[: -(self.args.max_staleness + 2)]:
            del self.acting[phase]

    def _agent(self, weights: dict[str, np.ndarray]) -> Any:
        agent = copy.deepcopy(self.mac.agent)
        agent.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        return self.mac.acting(agent)

    def _do_leave(self, envs: list[int]) -> None:
        for i in envs:
            for play in [self.seats.plays[i], *self.queues[i]]:
                if play is not None:
                    self._over(play)
            self.queues[i].clear()
            self.seats.plays[i] = None
            self.env.leave(i)

    def _do_abandon(self) -> None:
        self.seats.abandon()
        for queue in self.queues:
            queue.clear()
        self.plays.clear()

    def _ended(self, i: int, play: Play) -> None:
        length = int(play.lengths[i])
        fields = {name: values[i, : length + 1].copy() for name, values in play.data.items()}
        ends = {name: values[i] for name, values in play.ends.items() if values[i] is not None}
        bad = play.bad.get(i)
        why = None if bad is None else (str(bad), bad.name)
        started, returns = int(self.env.started[i]), play.returns[i].copy()
        episode = Episode(play.key, i, fields, returns, length, ends, why, play.states[i], started)
        with self.changed:
            self.outbox.append(episode)
        if play.missing == 0:
            self.plays.pop(play.key, None)

    def _over(self, play: Play) -> None:
        """One episode of it is not wanted."""
        play.missing -= 1
        if play.missing == 0:
            self.plays.pop(play.key, None)


def _portable(error: BaseException) -> BaseException:
    """One that can be sent."""
    if isinstance(error, (ConfigError, TrainingError)) and not isinstance(error, NotFinite):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}\nin an actor:\n{''.join(traceback.format_exception(error))}")


class _Kept(logging.Handler):
    """Keeps warnings for the run's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
