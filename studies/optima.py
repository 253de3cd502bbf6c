"""The mean return of the best joint policy in two games, to hold learned policies against.

python studies/optima.py              both games; about a quarter of a minute

- Gaussian squeeze: the mean over 100,000 draws of s of the best reward under that s, with its standard error.
- Predator-prey, 5x5, two predators, one prey: the mean return of 100 steps, from the random start, under the best
  joint policy, by dynamic programming over all 13,800 positions. Predators that see everything (sight null) can
  play it, for it is deterministic; with a limited sight they need not be able to.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from envs.games.gaussian_squeeze import GaussianSqueeze
from envs.games.predator_prey import MOVES, PredatorPrey
from utils import command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    description, _, details = (__doc__ or "").partition("\n")
    command.parser("studies/optima.py", description, details.strip()).parse_args(argv)
    return command.status_of(act)


def act() -> int:
    for k in (1, 2):
        best = GaussianSqueeze.best_rewards(GaussianSqueeze.Config(n_agents=10, n_actions=11, k=k, s_max=0.2))
        error = best.std(ddof=1) / len(best) ** 0.5
        print(f"gaussian_squeeze k={k}: best reward {best.mean():.3f} ± {error:.3f} ({len(best):,} draws)", flush=True)
    game = Transitions(map_size=5)
    for penalty in (0.0, 0.5, 1.0, 1.5):
        best, played = game.optimal_return(penalty, steps=100), game.random_return(penalty, steps=100)
        print(
            f"predator_prey 5x5 penalty={penalty}: optimal return {best:.2f}, of random play {played:.2f}", flush=True
        )
    return 0


class Transitions:
    """Predator-prey with two predators and one prey as tables.

    S positions of the three, U = 25 joint actions, 5 moves of the prey. `beside` [S, U, 5]: predators beside
    the prey after the step; `after` [S, U, 5]: the position then; `respawned` [S, cells - 3]: the positions
    that a caught prey may respawn to, all as likely; `shown`: what is observed of each position.
    """

    def __init__(self, map_size: int, encoding: str = "numbers") -> None:
        n_cells, n_moves = map_size**2, len(MOVES)
        positions = np.array(list(itertools.permutations(range(n_cells), 3)))  # [S, 3]
        number = np.full((n_cells,) * 3, -1)
        number[tuple(positions.T)] = np.arange(len(positions))
        config = PredatorPrey.Config(map_size, 2, 1, penalty=0.0, sight=None, episode_limit=100, encoding=encoding)
        self.env = env = PredatorPrey(config, n_envs=len(positions))
        live = np.ones(len(positions), dtype=bool)
        shape = (len(positions), n_moves**2, n_moves)
        self.after, self.beside = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
        for u_1, u_2, move in np.ndindex(n_moves, n_moves, n_moves):
            env.cells = positions.copy()
            env._move(env._target[env.cells, [u_1, u_2, move]], live)
            u = n_moves * u_1 + u_2
            self.after[:, u, move] = number[tuple(env.cells.T)]
            self.beside[:, u, move] = env._hunters()[:, 0]
        env.cells = positions
        self.shown = env._observe()
        empty = [[cell for cell in range(n_cells) if cell not in at] for at in positions]
        self.respawned = number[positions[:, :1], positions[:, 1:2], np.array(empty)]

    def optimal_return(self, penalty: float, steps: int) -> float:
        """Largest mean undiscounted return of `steps` steps from a uniformly drawn position."""
        return self._return(lambda q: q.max(axis=1), penalty, steps)

    def random_return(self, penalty: float, steps: int) -> float:
        """The same of random play."""
        return self._return(lambda q: q.mean(axis=1), penalty, steps)

    def policy_return(self, joint_actions: NDArray[np.int64], penalty: float, steps: int) -> float:
        """The same of a policy: joint_actions [S], the number 5·u_1 + u_2 at each position."""
        return self._return(lambda q: q[np.arange(len(q)), joint_actions], penalty, steps)

    def _return(
        self, choose: Callable[[NDArray[np.float64]], NDArray[np.float64]], penalty: float, steps: int
    ) -> float:
        caught = self.beside == 2
        reward = (caught - penalty * (self.beside == 1)).mean(axis=-1)  # [S, U]
        v = np.zeros(len(self.after))
        for _ in range(steps):
            following = np.where(caught, v[self.respawned].mean(axis=-1)[self.after], v[self.after])
            v = choose(reward + following.mean(axis=-1))
        return v.mean()


if __name__ == "__main__":
    sys.exit(main())
