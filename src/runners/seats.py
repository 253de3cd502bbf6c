"""Plays whole episodes in worker processes without waiting: each environment goes on as soon as it has answered.

A play is one round: one episode in each environment, all with the same weights and ε. Environments may be in different
plays at the same time. What an episode is depends on nothing but its play and the number of its environment: it draws
from streams of its own, and the agents act for BLOCK environments at a time, each at its place, as the last bits of a
product depend on the number of its rows. An episode that is lost with its process is played again and is the same.

Axes: E environments, N agents, A actions, O observation, H hidden.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from components.episode_buffer import EpisodeBatch
from controllers import MAC
from envs.vector import GameError
from envs.workers.worker_env import EPISODES, WorkerEnv
from utils.args import NotFinite
from utils.clock import Clock
from utils.nonfinite import bad_episode
from utils.seeding import stream

BLOCK = 8  # environments of one forward pass


class Play:
    """A round while it is played.

    act: the agents that act in it (`BasicMAC.acting`). t_env: the step whose ε it has. test: without exploration.
    games, explore: streams. key: which round it is, where somebody must know.
    """

    def __init__(
        self,
        batch: EpisodeBatch,
        act: Callable,
        t_env: int,
        test: bool,
        games: np.random.SeedSequence,
        explore: np.random.SeedSequence,
        key: tuple[int, ...] = (),
    ):
        n_envs, self.key = batch.batch_size, key
        self.batch, self.data = batch, batch.arrays()
        self.act, self.t_env, self.test, self.games = act, t_env, test, games
        self.rngs = [np.random.default_rng(stream(explore, i)) for i in range(n_envs)]
        self.explore = explore
        self.returns: Any = np.zeros((n_envs, self.data["reward"].shape[-1]))
        self.lengths = np.zeros(n_envs, dtype=np.int64)
        self.ends: dict[str, np.ndarray] = {}
        self.bad: dict[int, NotFinite] = {}  # by environment: what ended its episode
        self.states: list[Any] = [None] * n_envs  # of the games after their episodes
        self.missing = n_envs  # episodes that have not ended

    def again(self, i: int) -> None:
        """Forget what environment i has played."""
        for values in self.data.values():
            values[i] = 0
        self.rngs[i] = np.random.default_rng(stream(self.explore, i))
        self.returns[i], self.lengths[i] = 0, 0


class Seats:
    """Who plays what, in the environments of `env`.

    free: called with an environment whose episode has ended; gives its next Play, or None. reward: from what
    environments pay, [E] or [E, N], to what the learner learns from. render: called after each step of environment 0.
    ended: called with an environment and the Play that it has ended its episode of.

    The arrays have a row for each of the E environments, also where some of them play elsewhere: where a row stands in
    memory can change last bits.
    """

    def __init__(
        self,
        env: WorkerEnv,
        mac: MAC,
        free: Callable[[int], Play | None],
        reward: Callable,
        render: Callable | None = None,
        ended: Callable[[int, Play], None] | None = None,
    ):
        self.env, self.mac, self.free, self.reward, self.render = env, mac, free, reward, render
        self.ended: Callable[[int, Play], None] | None = ended
        e, info = env.n_envs, env.env_info
        self.clock = Clock()
        self.rows = min(e, BLOCK)
        padded = -(-e // self.rows) * self.rows
        self.obs = torch.zeros(
            padded, info.n_agents, info.obs_shape, dtype=torch.uint8 if info.pixels else torch.float32
        )
        self.actions = torch.full((padded, info.n_agents), info.n_actions)  # the last ones; n_actions: none yet
        self.hidden = mac.agent.init_hidden(padded, info.n_agents)
        self.plays: list[Play | None] = [None] * e
        self.t = np.full(e, -1)  # steps in the episode; -1: it has not begun

    @property
    def busy(self) -> bool:
        """Whether an episode is being played."""
        return any(self.plays)

    def begin(self) -> None:
        """Let those that are free begin their next episodes."""
        for i in self.env.mine:
            if self.plays[i] is None and (play := self.free(i)) is not None:
                self._begin(i, play)

    def go_on(self) -> None:
        """Wait for answers, and go on with those environments that have given one."""
        ready: dict[int, tuple[Play, list[int]]] = {}
        self.clock.lap("other")
        answers = self.env.arrived()
        self.clock.lap("environment")
        for i, answer in answers:
            play: Any = self.plays[i]
            if isinstance(answer, GameError):
                self.env.failed(i, answer)
                play.again(i)
                self._begin(i, play)
                continue
            if self.t[i] >= 0 and answer is not None:
                ends, play.states[i] = answer
                for name, value in ends.items():
                    play.ends.setdefault(name, np.full(len(self.plays), None))[i] = value
            ready.setdefault(id(play), (play, []))[1].append(i)
        for play, rows in ready.values():
            going_on = self._store(play, np.array(sorted(rows)))
            self.clock.lap("storing")
            if going_on.size:
                self._act(play, going_on)
                self.clock.lap("acting")
        self.begin()

    def abandon(self) -> None:
        """Forget all that is being played. What environments still owe is waited for."""
        while self.env.working:
            self.env.arrived()
        self.plays = [None] * len(self.plays)

    def _begin(self, i: int, play: Play) -> None:
        self.plays[i], self.t[i] = play, -1
        self.actions[i] = self.env.env_info.n_actions
        with torch.inference_mode():
            self.hidden[i] = 0
        self.env.begin(i, stream(play.games, i, EPISODES, 0))

    def _store(self, play: Play, rows: np.ndarray) -> np.ndarray:
        """Write what the environments `rows` have answered into the batch; those of them that go on."""
        shown, data = self.env.arrays, play.data
        done = np.zeros(len(rows), dtype=bool)
        stepped = self.t[rows] >= 0
        if stepped.any():
            some, t = rows[stepped], self.t[rows[stepped]]
            reward = self.reward(shown["reward"][some])  # [rows, 1 or N]
            data["actions"][some, t] = self.actions.numpy()[some][..., None]
            data["reward"][some, t] = reward
            data["terminated"][some, t, 0] = shown["terminated"][some]
            data["truncated"][some, t, 0] = shown["truncated"][some]
            play.returns[some] += reward
            play.lengths[some] += 1
            done[stepped] = shown["terminated"][some] | shown["truncated"][some]
            self._look(play, some, "reward")
        self.t[rows] += 1
        t = self.t[rows]
        data["obs"][rows, t] = shown["obs"][rows]
        data["state"][rows, t] = shown["state"][rows]
        data["avail_actions"][rows, t] = shown["avail"][rows]
        data["filled"][rows, t] = True
        self._look(play, rows, "obs")
        self._look(play, rows, "state")
        if play.bad:
            done |= np.isin(rows, list(play.bad))
        if self.render is not None and 0 in rows and self.t[0]:
            self.render(play, int(self.t[0]))
        for i in rows[done].tolist():
            self.plays[i] = None
            play.missing -= 1
            if self.ended is not None:
                self.ended(i, play)
        return rows[~done]

    def _look(self, play: Play, rows: np.ndarray, name: str) -> None:
        values = self.env.arrays[name][rows]
        if np.isfinite(values).all():
            return
        for i, own in zip(rows.tolist(), values):
            odd = own[~np.isfinite(own)]
            if odd.size and i not in play.bad:
                t = max(0, int(self.t[i]) - (name != "reward"))
                play.bad[i] = bad_episode(name, odd[0], t, i, play.t_env, play.test)

    def _act(self, play: Play, rows: np.ndarray) -> None:
        selector, shown = self.mac.action_selector, self.env.arrays
        avail, rngs = shown["avail"][rows], [play.rngs[i] for i in rows]
        if selector.explores_only(play.t_env, play.test):
            actions = selector.random(avail, rngs)
        else:
            self.obs.numpy()[rows] = shown["obs"][rows]
            q = np.concatenate([self._values(play, block, rows) for block in np.unique(rows // self.rows)])
            self.mac.refuse_not_finite(q, play.t_env)
            actions = selector.select(q, avail, play.t_env, play.test, rngs)
        self.actions.numpy()[rows] = actions
        for i, own in zip(rows.tolist(), actions):
            self.env.act(i, own)

    def _values(self, play: Play, block: int, rows: np.ndarray) -> np.ndarray:
        """Q_i(τ_i,·) [·, N, A] for those of `rows`, ascending, that are in the block; moves their hidden states on."""
        first = block * self.rows
        places = slice(first, first + self.rows)
        mine = rows[(rows >= first) & (rows < first + self.rows)]
        q, hidden = self.mac.values(play.act, self.obs[places], self.actions[places], self.hidden[places])
        with torch.inference_mode():
            self.hidden[mine] = hidden[mine - first]
        return q[mine - first]
