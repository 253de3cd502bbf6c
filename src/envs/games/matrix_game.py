"""One-step games given by a table of payoffs, with any number of agents, actions and game states.

Axes: E environments, N agents, A actions, S game states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.games import pictures
from envs.vector import ArrayEnv, EnvInfo, Observation, Seed, note_on_actions, observed
from utils.args import ConfigError, key
from utils.messages import short

MOST_AGENTS = 31  # numpy broadcasts 32 axes, and one is the game state
LARGEST = 1e15  # payoff: its square still is a number of single precision, which networks learn in


def _qtran_21x21() -> list[NDArray[np.float64]]:
    u1, u2 = np.meshgrid(np.arange(21), np.arange(21), indexing="ij")
    wide = 5 - ((15 - u1) / 3) ** 2 - ((5 - u2) / 3) ** 2  # a broad hill of height 5 at (15, 5)
    narrow = 10 - (5 - u1) ** 2 - (15 - u2) ** 2  # a steep one of height 10 at (5, 15)
    return [np.maximum(wide, narrow)]


# {name: function of the penalty k, returns [S, A_1, A_2]}
PAYOFFS = {
    # QTRAN, Son et al. 2019
    "qtran_3x3": lambda k: [[[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]],
    # QTRAN, its larger game
    "qtran_21x21": lambda k: _qtran_21x21(),
    # the two-state game of the authors' released code
    "two_state": lambda k: [[[10, 8, 5], [8, 6, 3], [5, 3, 0]], [[0, 3, 5], [3, 6, 8], [5, 8, 10]]],
    # Claus & Boutilier 1998
    "climbing": lambda k: [[[11, -30, 0], [-30, 7, 6], [0, 0, 5]]],
    "penalty": lambda k: [[[10, 0, k], [0, 2, 0], [k, 0, 10]]],
}


class MatrixGame(ArrayEnv):
    """Each episode is one step: a game state is drawn uniformly, every agent picks one action, the
    reward is `payoff[state, u_1, ..., u_N]`, the game is over.

    state [E, S]: one-hot of the game state. obs [E, N, S]: the same to the agents that observe it,
    zeros to the others; the constant 1 to everybody where there is a single state. Agents with fewer
    actions than the largest have the missing ones unavailable.

    `payoff` [S, A_1, ..., A_N] float64 is the table itself, `n_states` is S.
    """

    @dataclass(frozen=True)
    class Config:
        payoff: list | None = key("nested lists, one level for each agent; excludes `key`", unit="reward")
        clip: float | None = key("payoffs below this are raised to it", unit="reward", low=-LARGEST, high=LARGEST)
        penalty: float = key("k of the game `penalty`", unit="reward", low=-LARGEST, high=0)
        observe_state: str = key("agents that see the state, if several", choices=("all", "first", "none"))
        # Last: from here on in this class body the name hides the function.
        key: str | None = key("name of a known game; null: qtran_3x3, or `payoff`", choices=tuple(PAYOFFS))

    def __init__(self, config: Config, n_envs: int = 1, seed: Seed = None) -> None:
        self.payoff = _table(config)  # [S, A_1, ..., A_N]
        self.n_states, *n_actions = self.payoff.shape
        self.agent_actions = np.array(n_actions)  # [N]
        self.notes = note_on_actions(n_actions)
        self._avail = np.arange(max(n_actions)) < self.agent_actions[:, None]  # [N, A]
        hidden = self.n_states > 1 and config.observe_state != "all"
        sees = np.full(len(n_actions), not hidden)  # [N]
        sees[0] |= config.observe_state == "first"
        self._one_hot = np.eye(self.n_states, dtype=np.float32)  # [S, S]
        self._seen = self._one_hot[:, None] * sees[:, None].astype(np.float32)  # [S, N, S]
        self.game_state = np.zeros(n_envs, dtype=np.int64)  # [E]
        self.taken: tuple[int, ...] | None = None  # the last joint action of the first environment
        super().__init__(_info(self.payoff), n_envs, seed)

    @classmethod
    def nbytes(cls, config: Any, n_envs: int) -> int:
        return observed(_info(_table(config)), n_envs) + 8 * n_envs

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float]:
        """Both exact. Agents that do not see the game state play the same action in all of them."""
        table = _table(config)  # [S, A_1, ..., A_N]
        if config.observe_state == "first":  # agent 1 answers each state, the others are fixed
            best = table.max(axis=1).mean(axis=0).max()
        elif config.observe_state == "none":
            best = table.mean(axis=0).max()
        else:
            best = table.reshape(len(table), -1).max(axis=1).mean()
        return float(table.mean()), float(best)

    def observe_all_states(self) -> Observation:
        """The Observation of each game state, axis 0 is S instead of E: for drawing learned tables."""
        return self._observation(np.arange(self.n_states))

    def _observation(self, states: NDArray[np.int64]) -> Observation:
        avail = np.repeat(self._avail[None], len(states), axis=0)  # [E, N, A]
        return Observation(self._seen[states], self._one_hot[states], avail)

    def _observe(self) -> Observation:
        return self._observation(self.game_state)

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        self.game_state[mask] = self.rng.integers(self.n_states, size=mask.sum())

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        actions = np.where(live[:, None], actions, 0)  # [E, N]; where frozen, anything may stand in them
        missing = actions >= self.agent_actions
        if missing.any():
            e, n = np.argwhere(missing)[0]
            most = self.agent_actions[n] - 1
            raise ValueError(f"environment {e}: agent {n} has the actions 0..{most}, not {actions[e, n]}")
        reward = self.payoff[(self.game_state, *actions.T)]  # [E]
        if live[0]:
            self.taken = tuple(actions[0].tolist())
        return reward, np.ones(self.n_envs, dtype=bool)

    def render(self) -> str:
        return f"game state {self.game_state[0]}, payoff:\n{self.payoff[self.game_state[0]]}"

    def frame(self) -> NDArray[np.uint8] | None:
        """With the joint action that was taken last, for two agents."""
        payoff: Any = self.payoff[self.game_state[0]]
        return pictures.table(payoff, self.taken) if payoff.ndim == 2 else None  # type: ignore[arg-type]


def _info(payoff: NDArray[np.float64]) -> EnvInfo:
    n_states, *n_actions = payoff.shape
    return EnvInfo(len(n_actions), max(n_actions), n_states, n_states, episode_limit=1)


def _table(config: MatrixGame.Config) -> NDArray[np.float64]:
    """The payoff [S, A_1, ..., A_N] float64 that a Config asks for."""
    if config.payoff is not None and config.key is not None:
        raise ConfigError(
            f"env_args: both key ({config.key!r}) and payoff are given; "
            "set `key: null` to play the payoff, or `payoff: null` to play the named game"
        )
    if config.payoff is not None:
        _check_payoff(config.payoff)
        table = [config.payoff]
    else:
        table = PAYOFFS[config.key or "qtran_3x3"](config.penalty)
    table = np.array(table, dtype=np.float64)
    return table if config.clip is None else np.maximum(table, config.clip)


def _check_payoff(payoff: list) -> None:
    """ConfigError unless `payoff` is a full nested list of finite numbers, of two levels at least."""
    shape, inner = [], payoff  # the lengths along the first entries; all others must agree
    while isinstance(inner, list) and inner:
        shape.append(len(inner))
        inner = inner[0]
    levels = max(len(shape), 2)
    if levels > MOST_AGENTS:
        raise ConfigError(f"env_args.payoff: nests {levels} lists, one for each agent; give at most {MOST_AGENTS}")
    problem = _first_problem(payoff, shape, levels, "env_args.payoff")
    if problem:
        raise ConfigError(
            f"{problem}; a payoff nests one list of finite numbers for each agent, two agents at least, "
            "and all lists of a level are equally long and not empty"
        )


def _first_problem(value: Any, shape: Sequence[int], levels: int, place: str) -> str | None:
    """What is wrong with the part `value` of a payoff at `place`, or None."""
    if levels == 0:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
        said = f"is not a finite number of at most {LARGEST:g} either way"
        return None if number else f"{place}: {short(repr(value), 200)} {said}"
    if not isinstance(value, list):
        return f"{place}: {short(repr(value), 200)} stands where a list belongs"
    if not value or shape and len(value) != shape[0]:
        return f"{place}: has {len(value)} entries instead of {shape[0] if shape else 'at least 1'}"
    problems = (_first_problem(v, shape[1:], levels - 1, f"{place}[{i}]") for i, v in enumerate(value))
    return next((p for p in problems if p), None)
