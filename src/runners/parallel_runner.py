"""Rounds of worker processes that do not wait for one another, and learning beside playing.

With S = `max_staleness`, round r is played with the weights and the ε of phase max(0, r - S). Phase k is what has been
learned once rounds 0 … k - 1 are in the replay; phase 0 are the initial weights. An environment begins its episode of
round r when its own episode of round r - 1 has ended and phase r - S is done. So nothing depends on who is quick, and
short episodes are not favoured. With S = 0 this is the order of the EpisodeRunner, to the bit.

Above 0 a thread plays while the learner learns. A test begins when the episodes that have begun have ended.
"""

import copy
import os
import threading
from types import SimpleNamespace
from typing import Any

import torch

from components.episode_buffer import EpisodeBatch, Scheme
from controllers import MAC
from envs.workers.worker_env import WorkerEnv
from runners.episode_runner import EpisodeRunner
from runners.seats import Play, Seats
from utils import interrupts
from utils.clock import Clock
from utils.logging import Logger
from utils.seeding import TRAINING, seed_globals


class ParallelRunner(EpisodeRunner):
    """Plays in a WorkerEnv."""

    def __init__(
        self, env: WorkerEnv, mac: MAC, scheme: Scheme, groups: dict[str, int], logger: Logger, args: SimpleNamespace
    ) -> None:
        super().__init__(env, mac, scheme, groups, logger, args)
        self.env: WorkerEnv = env
        self.staleness = self.config.max_staleness
        # Where a thread plays, its time is counted beside that of learning.
        self.playing = Clock() if self.staleness else self.clock
        self.counted = dict(self.playing.seconds)  # of its seconds, those that are in `self.clock`
        self.seats = Seats(env, mac, self._next, self._reward)
        self.phases: dict[int, tuple[Any, int]] = {}  # {phase: (agent, t_env)}
        self.plays: dict[int, Play] = {}  # {round: Play}, of those that have begun
        self.next_round = [0] * env.n_envs
        self.test: Play | None = None  # the test that is under way
        self.testing: set[int] = set()  # environments that have not begun their episode of it
        self.games: list[Any] = [None] * env.n_envs  # states of the games after the last round
        self.thread: threading.Thread | None = None
        self.changed = threading.Condition()  # of what follows, and of plays
        self.error: BaseException | None = None  # that ended the thread
        self.pause, self.discard, self.resting, self.stop = False, False, False, False
        self.woken: Any = None  # (read, write) end of a pipe that wakes the thread

    # ------------------------------------------------------------------ rounds

    def _play(self, test_mode: bool, render: bool) -> Play:
        self.seats.render = self._show if render else None
        self.seats.clock = Clock() if test_mode else self.playing
        if test_mode:
            self._rest()
            round_key = self._next_key(test_mode)
            seed_globals(self._streams(round_key)[2])
            self.test = self._new_play(round_key, self.mac.agent, self.t_env)
            self.testing = set(range(self.env.n_envs))
            return self._here(self.test)
        number = self.rounds
        seed_globals(self._streams(self._next_key(test_mode))[2])
        if not self.staleness:
            self.phases = {number: (self.mac.agent, self.t_env)}
            self.next_round = [number] * self.env.n_envs
            play = self._here(self._play_of(number))
        else:
            self.phases[number] = (copy.deepcopy(self.mac.agent), self.t_env)
            self.phases = {k: phase for k, phase in self.phases.items() if k >= number - self.staleness}
            play = self._there(number)
        self.games = play.states
        return self.plays.pop(number)

    def _here(self, play: Play) -> Play:
        """Play it in this thread."""
        self.seats.begin()
        while play.missing:
            self.seats.go_on()
            interrupts.check()
        self.test = None
        return play

    def _there(self, number: int) -> Play:
        """Wait until the thread has played round `number`."""
        if self.thread is None:
            self.woken = os.pipe()
            self.env.wake_by(self.woken[0])
            self.thread = threading.Thread(target=self._collect, daemon=True, name="rounds")
            self.thread.start()
        self._tell(pause=False)
        with self.changed:
            while self.error is None and (number not in self.plays or self.plays[number].missing):
                self.changed.wait()
        if self.error is not None:
            raise self.error
        self.clock.lap("waiting")
        for part in ("acting", "environment", "storing"):
            seconds = self.playing.seconds[part]
            self.clock.seconds[part] += seconds - self.counted[part]
            self.counted[part] = seconds
        return self.plays[number]

    def _next(self, i: int) -> Play | None:
        """What environment i plays next; None: nothing yet."""
        if self.test is not None:
            if i not in self.testing:
                return None
            self.testing.remove(i)
            return self.test
        number = self.next_round[i]
        if self.pause or max(0, number - self.staleness) not in self.phases:
            return None
        self.next_round[i] += 1
        return self._play_of(number)

    def _play_of(self, number: int) -> Play:
        if number not in self.plays:
            agent, t_env = self.phases[max(0, number - self.staleness)]
            self.plays[number] = self._new_play((TRAINING, number), agent, t_env)
        return self.plays[number]

    def _new_play(self, round_key: tuple[int, ...], agent: Any, t_env: int) -> Play:
        limit = self.env.env_info.episode_limit
        batch = EpisodeBatch(self.scheme, self.groups, self.env.n_envs, limit + 1)
        games, explore, _ = self._streams(round_key)
        return Play(batch, self.mac.acting(agent), t_env, round_key[0] != TRAINING, games, explore)

    def _show(self, play: Play, t: int) -> None:
        taken, reward = play.data["actions"][0, t - 1].flatten().tolist(), play.data["reward"][0, t - 1].tolist()
        self._show_step(t, taken, reward)

    # ------------------------------------------------------------------ the thread

    def _collect(self) -> None:
        torch.set_num_threads(torch.get_num_threads())  # a new thread has a number of its own
        try:
            while not self.stop:
                if self.pause and (self.discard or not self.seats.busy):
                    if self.discard:
                        self.seats.abandon()
                    with self.changed:
                        self.resting = True
                        self.changed.notify_all()
                        self.changed.wait_for(lambda: not self.pause or self.stop)
                        self.resting = False
                    continue
                self.seats.begin()
                self.seats.go_on()
                with self.changed:
                    self.changed.notify_all()
        except BaseException as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _tell(self, **flags: bool) -> None:
        """Set flags that the thread reads."""
        with self.changed:
            for name, value in flags.items():
                setattr(self, name, value)
            self.changed.notify_all()
        if self.thread is not None:
            os.write(self.woken[1], b".")

    def _rest(self, discard: bool = False) -> None:
        """Have the thread rest: after the episodes that have begun end, or, where they are not wanted, at once."""
        if self.thread is None:
            return
        self._tell(pause=True, discard=discard)
        with self.changed:
            self.changed.wait_for(lambda: self.resting or self.error is not None)
        if self.error is not None:
            raise self.error

    def end_training(self) -> None:
        """What has begun beyond the last round counts nowhere."""
        self._rest(discard=True)

    def close(self) -> None:
        if self.thread is not None:
            self._tell(stop=True)
            self.thread.join()
            for fd in self.woken:
                os.close(fd)
            self.thread = None
        super().close()

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict:
        """With the weights of the phases that the next rounds are played with."""
        needed = {k: phase for k, phase in self.phases.items() if k >= self.rounds - self.staleness}
        phases = {k: {"agent": agent.state_dict(), "t_env": t} for k, (agent, t) in needed.items() if self.staleness}
        env = self.env.state_dict() | {"workers": list(self.games)}
        return super().state_dict() | {"phases": phases, "env": env}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.games = state["env"]["workers"]
        self.next_round = [self.rounds] * self.env.n_envs
        for k, phase in state.get("phases", {}).items():
            agent = copy.deepcopy(self.mac.agent)
            agent.load_state_dict(phase["agent"])
            self.phases[k] = (agent, phase["t_env"])
