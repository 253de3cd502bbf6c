"""Modified predator-prey (QTRAN, Son et al. 2019; rules of motion as in the authors' released code).

Axes: E environments, N agents (the predators), M prey, K = N + M entities, predators first.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import pictures
from envs.vector import ArrayEnv, EnvInfo, Observation, observed
from utils.args import ConfigError, key

MOVES = np.array([(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)])  # up, left, stay, right, down: (row, column)
STAY = 2
# Returns of 100 steps on 5x5 with two predators and one prey, from studies/optima.py: {P: of the best joint policy};
# what random play catches, and meets alone.
BEST = {
    0.0: 33.638, 0.25: 30.709, 0.5: 28.894, 0.75: 27.215, 1.0: 25.735, 1.25: 24.508, 1.5: 23.771, 2.0: 22.684,
    2.5: 22.130, 3.0: 21.666, 4.0: 20.741, 5.0: 19.823, 7.5: 17.751, 10.0: 15.907,
}  # fmt: skip
CAUGHT_AT_RANDOM, ALONE_AT_RANDOM = 1.0774, 24.9560


class PredatorPrey(ArrayEnv):
    """Predators on a grid hunt prey that walk at random; it takes two to catch one.

    Start: all entities on distinct random empty cells. A step:

    1. All move, one after the other, predators then prey; prey draw one of the five actions uniformly.
       An entity blocked by one that has not moved yet lets that one move first; if the cell is still
       taken then, it stays. A move off the grid means stay too. Entities that wait for one another
       in a circle (A wants B's cell, B wants A's) all stay.
    2. For each prey, count the predators above, below, left and right of it: two or more pay +1 and
       the prey respawns on a random empty cell (not its own), exactly one pays -penalty, none 0.
       The reward is the sum over prey.

    The episode is truncated, never terminated, after `episode_limit` steps.

    obs [E, N, O]: the own cell; one-hot of the own index; then for each other entity, predators first, the
    shift from the own cell to its cell, all zero for an entity out of sight. state [E, S]: the cell of each
    entity. `encoding` says how:

    - numbers: a cell is its row and column, 0..1; a shift is their differences, -1..1 (never both 0 for an
      entity in sight, as no two share a cell). O = 2 + N + 2·(K-1), S = 2·K.
    - one_hot: a cell is a one-hot over the grid, a shift a one-hot over the window in sight, of side
      w = 2·min(sight, map_size - 1) + 1. O = map_size² + N + w²·(K-1), S = map_size²·K. Where a one-hot has its
      one stands √(O / (K+1)) in obs and √(S / K) in state, so that with everything in sight their mean square is
      1: the scale that the usual initial weights are made for (with ones, learning starts several times slower).

    info `captures` [E]: prey caught in this episode.
    """

    @dataclass(frozen=True)
    class Config:
        map_size: int = key("length of a side of the grid", unit="cells", low=2, high=1024)
        n_predators: int = key("predators, the agents", unit="agents", low=1, high=1024)
        n_prey: int = key("prey", unit="prey", low=1, high=1024)
        penalty: float = key("P: a prey with a single predator beside it pays -P", unit="reward", low=0, high=1e15)
        sight: int | None = key(
            "others are seen up to this far along each axis (2: a 5x5 window); null: always",
            unit="cells",
            low=1,
            high=1024,
        )
        episode_limit: int = key("time limit", unit="steps", low=1, high=1_000_000)
        encoding: str = key(
            "how cells and shifts are shown: numbers (row, column) or one_hot over the grid and the window in sight",
            choices=("numbers", "one_hot"),
        )

    @classmethod
    def score_range(cls, config: Any) -> tuple[float, float] | None:
        """Of the game on 5x5 with two predators, one prey and 100 steps; of no other the best return is known. Between
        the penalties of BEST it is interpolated, which is a little too high: it is convex in P."""
        size = (config.map_size, config.n_predators, config.n_prey, config.episode_limit)
        if size != (5, 2, 1, 100) or config.penalty > max(BEST):
            return None
        best = np.interp(config.penalty, list(BEST), list(BEST.values()))
        return CAUGHT_AT_RANDOM - config.penalty * ALONE_AT_RANDOM, float(best)

    large = ("map_size", "encoding", "sight", "n_predators", "n_prey")

    def __init__(self, config, n_envs=1, seed=None):
        self.config = config
        self.n_entities = config.n_predators + config.n_prey
        if self.n_entities >= config.map_size**2:
            raise ConfigError(
                f"env_args: n_predators = {config.n_predators} and n_prey = {config.n_prey} leave no empty cell on "
                f"{config.map_size}x{config.map_size}; use a larger map_size, or fewer of them"
            )
        # A cell is one number, row · map_size + column.
        self.cells = np.zeros((n_envs, self.n_entities), dtype=np.int64)  # [E, K]
        self.captures = np.zeros(n_envs, dtype=np.int64)  # [E]
        self._make_tables()
        n = config.n_predators
        self._self = np.arange(n)[:, None]  # [N, 1]
        self._others = np.array([[k for k in range(self.n_entities) if k != i] for i in range(n)])  # [N, K-1]
        info, one_hot = _info(config), config.encoding == "one_hot"
        self._obs_height = np.float32((info.obs_shape / (self.n_entities + 1)) ** 0.5 if one_hot else 1)
        self._state_height = np.float32((info.state_shape / self.n_entities) ** 0.5 if one_hot else 1)
        super().__init__(info, n_envs, seed)

    @classmethod
    def nbytes(cls, config: Any, n_envs: int) -> int:
        n, m = config.n_predators, config.n_prey
        cells, shifts = config.map_size**2, (2 * config.map_size - 1) ** 2
        cell, shift = _widths(config)
        tables = cells * (48 + 4 * cell) + shifts * (32 + 4 * shift)
        looks = n * (n + m - 1) * (16 + 4 * shift)  # what `_observe` makes on its way
        return tables + n_envs * max(looks, 16 * cells) + observed(_info(config), n_envs)

    def _make_tables(self):
        """What depends on the cell of one entity or on the cells of two, computed once for all steps."""
        size = self.config.map_size
        xy = np.stack(np.divmod(np.arange(size**2), size), axis=-1)  # [cell, 2]: row, column
        row, column = np.moveaxis(xy[:, None] + MOVES, -1, 0)  # [cell, 5]
        inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
        self._target = np.where(inside, row * size + column, np.arange(size**2)[:, None])  # [cell, 5]
        # _code[there] - _code[here] + _no_shift numbers the shifts (rows, columns) from here to there.
        side = 2 * size - 1
        self._code = xy @ (side, 1)  # [cell]
        self._no_shift = (side**2) // 2
        shift = np.stack(np.divmod(np.arange(side**2), side), axis=-1) - (size - 1)  # [shift, 2]
        self._beside = np.abs(shift).sum(axis=-1) == 1  # [shift]
        seen = np.abs(shift).max(axis=-1) <= (self.config.sight or size)
        # What is shown of a cell, [cell, C], and of a shift, [shift, D].
        if self.config.encoding == "numbers":
            self._cell = (xy / (size - 1)).astype(np.float32)
            self._shift = np.where(seen[:, None], shift / (size - 1), 0).astype(np.float32)
        else:
            self._cell = np.eye(size**2, dtype=np.float32)
            self._shift = np.zeros((side**2, seen.sum()), dtype=np.float32)
            self._shift[np.flatnonzero(seen), np.arange(seen.sum())] = 1

    def _reset(self, mask):
        order = self.rng.random((mask.sum(), self.config.map_size**2)).argsort(axis=1)
        self.cells[mask] = order[:, : self.n_entities]
        self.captures[mask] = 0

    def _step(self, actions, live):
        actions = np.where(live[:, None], actions, STAY)  # where frozen, anything may stand in them
        everybody = np.concatenate([actions, self._prey_actions()], axis=1)  # [E, K]
        self._move(self._target[self.cells, everybody], live)
        hunters = self._hunters()  # [E, M]
        caught = (hunters >= 2) & live[:, None]
        reward = caught.sum(axis=1) - self.config.penalty * (hunters == 1).sum(axis=1)
        for prey in range(self.config.n_prey):  # one by one: two prey never share a new cell
            envs = np.flatnonzero(caught[:, prey])
            if envs.size:
                self.cells[envs, self.config.n_predators + prey] = self._random_empty(envs)
        self.captures += caught.sum(axis=1)
        return reward, np.zeros(self.n_envs, dtype=bool)

    def _prey_actions(self):
        return self.rng.integers(len(MOVES), size=(self.n_envs, self.config.n_prey))  # [E, M]

    def _move(self, target, live):
        """Move each entity to `target` [E, K] by the rules, where live [E].

        Nobody can enter a cell before its owner leaves it, so who waits for another moves exactly if
        that one does: a chain of entities, each on the cell that the one before it wants, moves as a
        whole if its last one finds an empty cell, and stays as a whole if that one finds an entity that
        has had its turn, or is in the chain itself (a circle), or is itself (it stays).
        """
        moved = np.repeat(~live[:, None], self.n_entities, axis=1)  # [E, K]: has had its turn
        for first in range(self.n_entities):
            chain = np.zeros_like(moved)  # [E, K]
            free = np.zeros(self.n_envs, dtype=bool)  # [E]: the chain ends before an empty cell
            envs = np.flatnonzero(~moved[:, first])  # where the chain still grows, and its last entity
            last = np.full(envs.size, first)
            while envs.size:
                chain[envs, last] = moved[envs, last] = True
                on_target = self.cells[envs] == target[envs, last][:, None]  # [envs, K]
                blocked = on_target.any(axis=1)
                free[envs[~blocked]] = True
                blocker = on_target.argmax(axis=1)
                grows = blocked & ~moved[envs, blocker]
                envs, last = envs[grows], blocker[grows]
            self.cells = np.where(chain & free[:, None], target, self.cells)

    def _hunters(self):
        """How many predators [E, M] stand beside each prey."""
        n, code = self.config.n_predators, self._code[self.cells]  # [E, K]
        shift = code[:, n:, None] - code[:, None, :n] + self._no_shift  # [E, M, N]
        return self._beside[shift].sum(axis=-1)

    def _random_empty(self, envs):
        """A uniformly drawn cell [len(envs)] that nobody stands on, in each of the environments."""
        cell = self.rng.integers(self.config.map_size**2 - self.n_entities, size=envs.size)
        for taken in np.sort(self.cells[envs], axis=1).T:  # the n-th empty cell: count past the taken ones
            cell += cell >= taken
        return cell

    def _observe(self):
        n, code = self.config.n_predators, self._code[self.cells]  # [E, K]
        cells = self._cell.take(self.cells, axis=0)  # [E, K, C]
        shift = code[:, self._others] - code[:, self._self] + self._no_shift  # [E, N, K-1]
        obs = np.empty((self.n_envs, n, self.env_info.obs_shape), dtype=np.float32)
        c = cells.shape[-1]
        obs[:, :, :c] = cells[:, :n]
        obs[:, :, c : c + n] = np.eye(n)
        obs[:, :, c + n :] = self._shift.take(shift, axis=0).reshape(self.n_envs, n, -1)
        obs *= self._obs_height
        avail = np.ones((self.n_envs, n, len(MOVES)), dtype=bool)
        return Observation(obs, cells.reshape(self.n_envs, -1) * self._state_height, avail)

    def _info(self):
        return {"captures": self.captures.copy()}

    def render(self):
        """The first grid: predators by their index, `x` for prey, `.` for an empty cell."""
        grid = np.full(self.config.map_size**2, ".", dtype="<U8")
        n = self.config.n_predators
        grid[self.cells[0, :n]] = np.arange(n).astype(str)
        grid[self.cells[0, n:]] = "x"
        return "\n".join(" ".join(row) for row in grid.reshape(self.config.map_size, -1))

    def frame(self):
        n, places = self.config.n_predators, np.stack(np.divmod(self.cells[0], self.config.map_size), axis=-1).tolist()
        return pictures.grid(self.config.map_size, places[:n], places[n:])


def _widths(config) -> tuple[int, int]:
    """How many numbers show a cell, and how many a shift."""
    if config.encoding == "numbers":
        return 2, 2
    window = 2 * min(config.sight or config.map_size, config.map_size - 1) + 1
    return config.map_size**2, window**2


def _info(config) -> EnvInfo:
    n, k = config.n_predators, config.n_predators + config.n_prey
    cell, shift = _widths(config)
    return EnvInfo(n, len(MOVES), cell + n + shift * (k - 1), cell * k, config.episode_limit)
