"""The exact optimum of predator-prey, against a game played out."""

import itertools

import numpy as np
import optima
import pytest

from envs import make

ARGS = dict(map_size=3, n_predators=2, n_prey=1, penalty=1.5, sight=None, episode_limit=4, encoding="numbers")


@pytest.fixture(scope="module")
def game():
    return optima.Transitions(map_size=3)


def test_a_position_played_out(game):
    """Predators at both ends of the prey's row: whatever the prey does, the best joint action is known."""
    # Cells of 3x3: prey in the corner 0, predators on 1 and 3 shut it in; staying catches it for sure.
    position = [n for n, at in enumerate(_positions()) if at == (1, 3, 0)][0]
    stay = 5 * 2 + 2
    assert (game.beside[position, stay] == 2).all()
    assert sorted(game.respawned[position]) == sorted(
        n for n, at in enumerate(_positions()) if at[:2] == (1, 3) and at[2] != 0
    )


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_the_best_return_is_what_its_policy_is_paid(game, penalty):
    """The greedy policy of the same tables, played in the game itself, earns it; a random one earns less."""
    policy = _policy(game, penalty, ARGS["episode_limit"])  # [steps left, S]
    number = {at: n for n, at in enumerate(_positions())}
    env = make("predator_prey", ARGS | {"penalty": penalty}, n_envs=20_000, seed=0)
    env.reset()
    paid = np.zeros(env.n_envs)
    for left in range(ARGS["episode_limit"], 0, -1):
        at = [number[tuple(cells)] for cells in env.cells.tolist()]
        paid += env.step(np.stack(np.divmod(policy[left - 1][at], 5), axis=-1)).reward
    error = paid.std() / env.n_envs**0.5
    assert abs(paid.mean() - game.optimal_return(penalty, ARGS["episode_limit"])) < 4 * error


def _positions():
    return list(itertools.permutations(range(9), 3))


def _policy(game, penalty, steps):
    """The best joint action with 1, 2, … `steps` steps left, by loops over the prey's moves."""
    v, policies = np.zeros(len(game.after)), []
    for _ in range(steps):
        q = np.zeros(game.after.shape[:2])
        for move in range(5):
            caught = game.beside[:, :, move] == 2
            q += caught - penalty * (game.beside[:, :, move] == 1)
            q += np.where(caught, v[game.respawned[game.after[:, :, move]]].mean(axis=-1), v[game.after[:, :, move]])
        policies.append(q.argmax(axis=1))
        v = q.max(axis=1) / 5
    return policies
