"""Each rule on hand-placed positions, then all of them against a slow simulator written apart."""

import numpy as np
import pytest

from envs import make
from utils.args import ConfigError

UP, LEFT, STAY, RIGHT, DOWN = range(5)
ARGS = dict(map_size=5, n_predators=2, n_prey=1, penalty=0.5, sight=2, episode_limit=100, encoding="numbers")
LARGE = dict(map_size=7, n_predators=4, n_prey=2)


def game(n_envs=1, seed=0, **changes):
    env = make("predator_prey", ARGS | changes, n_envs=n_envs, seed=seed)
    env.reset()
    return env


def place(env, *positions):
    """Put predators, then prey, of every environment on these (row, column)."""
    env.cells[:] = [row * env.config.map_size + column for row, column in positions]


def positions(env, e=0):
    return [divmod(int(cell), env.config.map_size) for cell in env.cells[e]]


def play(env, predators, prey):
    """One step in every environment, with chosen moves of the prey."""
    env._prey_actions = lambda: np.tile(prey, (env.n_envs, 1))
    return env.step(np.tile(predators, (env.n_envs, 1)))


# --- moves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action, cell", [(UP, (1, 2)), (LEFT, (2, 1)), (STAY, (2, 2)), (RIGHT, (2, 3)), (DOWN, (3, 2))]
)
def test_the_five_actions(action, cell):
    env = game()
    place(env, (2, 2), (4, 4), (0, 0))
    play(env, [action, STAY], [STAY])
    assert positions(env) == [cell, (4, 4), (0, 0)]
    place(env, (0, 0), (4, 4), (2, 2))
    play(env, [STAY, STAY], [action])
    assert positions(env) == [(0, 0), (4, 4), cell]


@pytest.mark.parametrize("corner, actions", [((0, 0), (UP, LEFT)), ((4, 4), (DOWN, RIGHT))])
def test_off_the_grid_means_stay(corner, actions):
    for action in actions:
        env = game()
        place(env, corner, (2, 2), (4, 0))
        play(env, [action, STAY], [STAY])
        assert positions(env)[0] == corner


def test_the_row_edges_do_not_wrap():
    env = game()
    place(env, (1, 4), (3, 0), (0, 0))
    play(env, [RIGHT, LEFT], [STAY])
    assert positions(env)[:2] == [(1, 4), (3, 0)]


def test_two_that_want_one_cell_the_first_gets_it():
    env = game()
    place(env, (2, 1), (2, 3), (0, 0))
    play(env, [RIGHT, LEFT], [STAY])
    assert positions(env) == [(2, 2), (2, 3), (0, 0)]


def test_prey_move_after_predators():
    env = game()
    place(env, (2, 1), (4, 4), (2, 3))
    play(env, [RIGHT, STAY], [LEFT])
    assert positions(env) == [(2, 2), (4, 4), (2, 3)]


def test_a_blocker_that_has_not_moved_yet_moves_first():
    env = game()
    place(env, (2, 1), (2, 2), (0, 0))
    play(env, [RIGHT, RIGHT], [STAY])
    assert positions(env) == [(2, 2), (2, 3), (0, 0)]


def test_a_prey_in_the_way_moves_first_too():
    env = game()
    place(env, (2, 1), (4, 4), (2, 2))
    play(env, [RIGHT, STAY], [RIGHT])
    assert positions(env) == [(2, 2), (4, 4), (2, 3)]


def test_a_cell_still_taken_means_stay():
    env = game()
    place(env, (2, 1), (2, 2), (0, 0))
    play(env, [RIGHT, STAY], [STAY])
    assert positions(env) == [(2, 1), (2, 2), (0, 0)]
    place(env, (4, 3), (4, 4), (0, 0))  # the blocker wants to leave the grid, so it stays
    play(env, [RIGHT, RIGHT], [STAY])
    assert positions(env) == [(4, 3), (4, 4), (0, 0)]


def test_one_that_has_had_its_turn_does_not_move_again():
    env = game()
    place(env, (2, 2), (2, 1), (0, 0))  # 0 stays; 1 then finds it there
    play(env, [STAY, RIGHT], [STAY])
    assert positions(env) == [(2, 2), (2, 1), (0, 0)]
    place(env, (2, 2), (2, 1), (0, 0))  # 0 leaves; 1 enters the empty cell
    play(env, [RIGHT, RIGHT], [STAY])
    assert positions(env) == [(2, 3), (2, 2), (0, 0)]
    place(env, (2, 1), (2, 2), (0, 0))  # 1 moves before 0, once
    play(env, [RIGHT, DOWN], [STAY])
    assert positions(env) == [(2, 2), (3, 2), (0, 0)]


def test_the_blocker_that_moves_first_wins_the_cell_it_wants():
    # 0 waits for 2, so 2 takes (2, 3) before 1, which wants it as well.
    env = game(**LARGE)
    place(env, (2, 1), (1, 3), (2, 2), (6, 6), (0, 0), (6, 0))
    play(env, [RIGHT, DOWN, RIGHT, STAY], [STAY, STAY])
    assert positions(env)[:3] == [(2, 2), (1, 3), (2, 3)]


def test_a_chain_moves_as_a_whole_or_not_at_all():
    env = game(**LARGE)
    row = [(3, 0), (3, 1), (3, 2), (3, 3)]
    place(env, *row, (3, 4), (0, 0))
    play(env, [RIGHT] * 4, [RIGHT, STAY])
    assert positions(env)[:5] == [(3, 1), (3, 2), (3, 3), (3, 4), (3, 5)]
    place(env, *row, (3, 4), (0, 0))
    play(env, [RIGHT] * 4, [STAY, STAY])
    assert positions(env) == [*row, (3, 4), (0, 0)]


def test_a_circle_stays():
    env = game()
    place(env, (2, 1), (2, 2), (0, 0))  # two that want to swap
    play(env, [RIGHT, LEFT], [STAY])
    assert positions(env) == [(2, 1), (2, 2), (0, 0)]
    env = game(**LARGE)
    square = [(2, 2), (2, 3), (3, 3), (3, 2)]
    place(env, *square, (0, 0), (6, 6))
    play(env, [RIGHT, DOWN, LEFT, UP], [STAY, STAY])
    assert positions(env)[:4] == square
    place(env, (2, 1), (2, 2), (2, 3), (6, 0), (0, 0), (6, 6))  # 0 waits for two that want to swap
    play(env, [RIGHT, RIGHT, LEFT, STAY], [STAY, STAY])
    assert positions(env)[:3] == [(2, 1), (2, 2), (2, 3)]


# --- pay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(
    "predators, reward, captures",
    [
        ([(0, 0), (4, 4)], 0, 0),
        ([(1, 1), (3, 3)], 0, 0),  # diagonal
        ([(2, 0), (0, 2)], 0, 0),  # two cells away
        ([(1, 2), (4, 4)], "-P", 0),
        ([(4, 4), (2, 3)], "-P", 0),
        ([(2, 1), (1, 1)], "-P", 0),  # the diagonal one does not help
        ([(1, 2), (3, 2)], 1, 1),
        ([(2, 1), (3, 2)], 1, 1),
    ],
)
def test_what_a_prey_pays(predators, reward, captures, penalty):
    env = game(penalty=penalty)
    place(env, *predators, (2, 2))
    step = play(env, [STAY, STAY], [STAY])
    assert step.reward[0] == (-penalty if reward == "-P" else reward)
    assert step.info["captures"][0] == captures
    assert positions(env)[:2] == predators
    assert (positions(env)[2] == (2, 2)) == (captures == 0)


def test_prey_beyond_the_edge_of_a_row_are_not_beside():
    env = game()
    place(env, (1, 4), (3, 0), (2, 0))  # (1, 4) and (2, 0) are neighbours as numbers only
    assert play(env, [STAY, STAY], [STAY]).reward[0] == -0.5


def test_captures_count_after_all_moves():
    env = game()
    place(env, (2, 0), (0, 2), (2, 2))
    assert play(env, [RIGHT, DOWN], [STAY]).reward[0] == 1  # both arrive
    place(env, (2, 1), (1, 2), (2, 2))
    assert play(env, [STAY, STAY], [RIGHT]).reward[0] == 0  # the prey leaves both
    place(env, (2, 1), (1, 2), (2, 2))
    assert play(env, [STAY, LEFT], [STAY]).reward[0] == -0.5  # one leaves


def test_the_team_reward_sums_over_prey():
    env = game(**LARGE, penalty=1.5)
    place(env, (1, 2), (3, 2), (6, 5), (0, 6), (2, 2), (6, 6))
    assert play(env, [STAY] * 4, [STAY, STAY]).reward[0] == 1 - 1.5
    place(env, (1, 2), (3, 2), (5, 6), (6, 5), (2, 2), (6, 6))
    assert play(env, [STAY] * 4, [STAY, STAY]).reward[0] == 2
    place(env, (2, 2), (0, 6), (6, 0), (6, 3), (2, 1), (2, 3))  # one predator beside both prey
    assert play(env, [STAY] * 4, [STAY, STAY]).reward[0] == -3
    place(env, (1, 2), (3, 2), (2, 1), (2, 3), (2, 2), (6, 6))  # four around one prey: still one capture
    step = play(env, [STAY] * 4, [STAY, STAY])
    assert step.reward[0] == 1 and step.info["captures"][0] == 1 + 2 + 0 + 1


def test_a_caught_prey_respawns_uniformly_on_the_empty_cells():
    env = game(n_envs=22_000)
    place(env, (1, 2), (3, 2), (2, 2))
    play(env, [STAY, STAY], [STAY])
    counts = np.bincount(env.cells[:, 2], minlength=25)
    taken = [1 * 5 + 2, 2 * 5 + 2, 3 * 5 + 2]
    assert (counts[taken] == 0).all()
    empty = np.delete(counts, taken)
    assert len(empty) == 22 and abs(empty - 1000).max() < 150  # about five standard deviations


def test_two_prey_caught_together_respawn_on_distinct_cells():
    env = game(n_envs=5000, map_size=3, n_predators=2, n_prey=2)
    place(env, (0, 1), (1, 0), (0, 0), (1, 1))
    step = play(env, [STAY, STAY], [STAY, STAY])
    assert (step.reward == 2).all()
    assert all(len(set(cells)) == 4 for cells in env.cells.tolist())


# --- chance, time, sight -------------------------------------------------------------------------


def test_episodes_start_on_distinct_cells_that_are_uniform():
    env = game(n_envs=25_000)
    assert all(len(set(cells)) == 3 for cells in env.cells.tolist())
    for entity in range(3):
        assert abs(np.bincount(env.cells[:, entity], minlength=25) - 1000).max() < 160


def test_prey_walk_uniformly_over_the_five_actions():
    env = game(n_envs=10_000)
    place(env, (0, 0), (4, 4), (2, 2))
    env.step(np.full((10_000, 2), STAY))
    counts = np.bincount(env.cells[:, 2], minlength=25)[[7, 11, 12, 13, 17]]
    assert counts.sum() == 10_000 and abs(counts - 2000).max() < 200


def test_the_time_limit_truncates_and_never_terminates():
    env = game(n_envs=2, episode_limit=100)
    for t in range(1, 101):
        step = env.step(np.full((2, 2), STAY))
        assert step.truncated.tolist() == [t == 100] * 2 and not step.terminated.any()


def test_nothing_moves_or_is_caught_after_the_limit():
    env = game(episode_limit=1)
    play(env, [STAY, STAY], [STAY])
    before = [(1, 2), (3, 2), (2, 2)]
    place(env, *before)
    for predators, prey in (([STAY, STAY], [STAY]), ([UP, DOWN], [LEFT])):
        step = play(env, predators, prey)
        assert positions(env) == before and step.reward[0] == 0 and step.info["captures"][0] == 0


def test_captures_are_counted_per_episode():
    env = game(n_envs=2)
    steps = []
    for _ in range(2):
        place(env, (1, 2), (3, 2), (2, 2))
        steps.append(play(env, [STAY, STAY], [STAY]))
    assert [step.info["captures"].tolist() for step in steps] == [[1, 1], [2, 2]]
    env.reset(mask=[True, False])
    place(env, (0, 0), (4, 4), (2, 2))
    assert play(env, [STAY, STAY], [STAY]).info["captures"].tolist() == [0, 2]


def test_observation_and_state_by_hand():
    env = game(sight=2)
    place(env, (0, 0), (2, 1), (4, 4))
    seen = env._observe()
    assert seen.state.tolist() == [[0, 0, 0.5, 0.25, 1, 1]]
    # own row and column, who I am, the other predator, the prey
    assert seen.obs[0, 0].tolist() == [0, 0, 1, 0, 0.5, 0.25, 0, 0]  # the prey is 4 away: out of sight
    assert seen.obs[0, 1].tolist() == [0.5, 0.25, 0, 1, -0.5, -0.25, 0, 0]  # (2, 3) away: out of sight
    env = game(sight=None)
    place(env, (0, 0), (2, 1), (4, 4))
    seen = env._observe()
    assert seen.obs[0, 0].tolist() == [0, 0, 1, 0, 0.5, 0.25, 1, 1]
    assert seen.obs[0, 1].tolist() == [0.5, 0.25, 0, 1, -0.5, -0.25, 0.5, 0.75]


def one_hot(index, size):
    return [float(k == index) for k in range(size)]


def test_one_hot_observation_and_state_by_hand():
    env = game(map_size=2, sight=1, encoding="one_hot")
    place(env, (0, 0), (1, 1), (1, 0))
    seen = env._observe()
    assert seen.state.tolist() == [[2 * x for x in one_hot(0, 4) + one_hot(3, 4) + one_hot(2, 4)]]
    # own cell, who I am, the other predator and the prey in a window of 3x3 with the agent in its middle (4)
    height = (24 / 4) ** 0.5  # 24 numbers, 4 of which are not 0
    assert np.allclose(seen.obs[0, 0] / height, one_hot(0, 4) + [1, 0] + one_hot(8, 9) + one_hot(7, 9))
    assert np.allclose(seen.obs[0, 1] / height, one_hot(3, 4) + [0, 1] + one_hot(0, 9) + one_hot(3, 9))
    assert np.isclose(np.square(seen.obs).mean(), 1) and np.isclose(np.square(seen.state).mean(), 1)


@pytest.mark.parametrize("encoding", ["numbers", "one_hot"])
@pytest.mark.parametrize("sight", [1, 2, 9, None])
def test_observations_agree_with_a_slow_loop(sight, encoding):
    env = game(n_envs=64, sight=sight, encoding=encoding, **LARGE)
    obs = env._observe().obs
    reach = min(sight or 6, 6)
    side = 2 * reach + 1
    for e in range(64):
        at = positions(env, e)
        for i in range(4):
            numbers = encoding == "numbers"
            expected = [at[i][0] / 6, at[i][1] / 6] if numbers else one_hot(at[i][0] * 7 + at[i][1], 49)
            expected += one_hot(i, 4)
            for j in range(6):
                if j == i:
                    continue
                shift = at[j][0] - at[i][0], at[j][1] - at[i][1]
                seen = max(map(abs, shift)) <= reach
                if numbers:
                    expected += [shift[0] / 6, shift[1] / 6] if seen else [0, 0]
                else:
                    place_in_window = (shift[0] + reach) * side + shift[1] + reach
                    expected += one_hot(place_in_window if seen else None, side**2)
            height = 1 if numbers else (len(expected) / 7) ** 0.5
            assert np.allclose(obs[e, i], height * np.array(expected))


def test_a_grid_without_an_empty_cell_is_refused():
    with pytest.raises(ConfigError, match="n_predators = 3 and n_prey = 1 leave no empty cell on 2x2"):
        game(map_size=2, n_predators=3, n_prey=1)
    game(map_size=2, n_predators=2, n_prey=1)


def test_the_picture():
    env = game()
    place(env, (0, 0), (2, 1), (4, 4))
    assert env.render().splitlines() == ["0 . . . .", ". . . . .", ". 1 . . .", ". . . . .", ". . . . x"]


# --- all rules at once ---------------------------------------------------------------------------


class Slow:
    """One grid, moved entity by entity, by recursion; the prey's moves and new cells are given to it."""

    step_of = {UP: (-1, 0), LEFT: (0, -1), STAY: (0, 0), RIGHT: (0, 1), DOWN: (1, 0)}

    def __init__(self, size, n_predators, penalty, at):
        self.size, self.n_predators, self.penalty, self.at = size, n_predators, penalty, list(at)

    def move(self, who, actions):
        if who in self.waiting or who in self.moved:
            return
        goal = tuple(x + d for x, d in zip(self.at[who], self.step_of[actions[who]], strict=True))
        if goal in self.at:
            self.waiting.add(who)
            self.move(self.at.index(goal), actions)
            self.waiting.remove(who)
        if goal not in self.at and 0 <= goal[0] < self.size and 0 <= goal[1] < self.size:
            self.at[who] = goal
        self.moved.add(who)

    def step(self, actions, cells_after):
        """The reward; a caught prey goes to its place in `cells_after`, which must be empty."""
        self.moved, self.waiting = set(), set()
        for who in range(len(self.at)):
            self.move(who, actions)
        reward, caught = 0, []
        for prey in range(self.n_predators, len(self.at)):
            row, column = self.at[prey]
            around = {(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)}
            count = len(around & set(self.at[: self.n_predators]))
            if count >= 2:
                reward += 1
                caught.append(prey)
            elif count == 1:
                reward -= self.penalty
        for prey in caught:
            assert cells_after[prey] not in self.at
            self.at[prey] = cells_after[prey]
        return reward, len(caught)


@pytest.mark.parametrize("size, n_predators, n_prey", [(5, 2, 1), (7, 4, 2), (3, 4, 2), (3, 3, 4), (2, 2, 1)])
def test_64_environments_agree_with_the_slow_simulator(size, n_predators, n_prey):
    env = game(n_envs=64, map_size=size, n_predators=n_predators, n_prey=n_prey, penalty=0.25, seed=5)
    draw, drawn = env._prey_actions, []
    env._prey_actions = lambda: drawn.append(draw()) or drawn[-1]
    rng = np.random.default_rng(0)
    slow = [Slow(size, n_predators, 0.25, positions(env, e)) for e in range(64)]
    caught_in_all = np.zeros(64, dtype=int)
    for _ in range(60):
        actions = rng.integers(5, size=(64, n_predators))
        step = env.step(actions)
        for e in range(64):
            everybody = [*actions[e].tolist(), *drawn[-1][e].tolist()]
            reward, caught = slow[e].step(everybody, positions(env, e))
            assert slow[e].at == positions(env, e)
            assert step.reward[e] == reward
            caught_in_all[e] += caught
    assert step.info["captures"].tolist() == caught_in_all.tolist()
    assert caught_in_all.sum() > 30  # the comparison has seen captures
