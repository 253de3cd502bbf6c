"""Pictures of the built-in games: who is where, and what was taken."""

import numpy as np
import pytest
import yaml
from command import CONFIG
from PIL import Image, ImageColor

from envs import make
from envs.games import pictures

AGENT, OTHER = (ImageColor.getrgb(colour) for colour in (pictures.AGENT, pictures.OTHER))


def of_yaml(name, **changes):
    return make(name, yaml.safe_load((CONFIG / "envs" / f"{name}.yaml").read_text())["env_args"] | changes, seed=1)


def test_predators_and_prey_stand_where_they_are():
    env = of_yaml("predator_prey", map_size=4, n_predators=2, n_prey=1)
    env.reset()
    env.cells[0] = [0, 6, 15]  # (0, 0), (1, 2), (3, 3)
    drawn, cell = env.frame(), pictures.SIDE // 4

    def colour(row, column):  # left of the number in the middle
        return tuple(drawn[int((row + 0.5) * cell), int((column + 0.25) * cell)].tolist())

    assert colour(0, 0) == colour(1, 2) == AGENT and colour(3, 3) == OTHER and colour(2, 2) == (255, 255, 255)


def test_the_joint_action_that_was_taken_is_framed():
    env = of_yaml("matrix_game")
    env.reset()
    env.step(np.array([[2, 1]]))
    drawn, cell = env.frame(), pictures.SIDE // 3

    def edge(row, column):
        return tuple(drawn[row * cell + 2, column * cell + cell // 2].tolist())

    assert edge(2, 1) == OTHER and edge(0, 1) != OTHER


@pytest.mark.parametrize("env_args", [{"payoff": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}, {"key": "qtran_21x21"}])
def test_games_of_any_size_have_a_frame_or_leave_it_to_their_text(env_args):
    env = of_yaml("matrix_game", **{"key": None} | env_args)
    env.reset()
    frame = env.frame()
    assert frame is None if "payoff" in env_args else frame.dtype == np.uint8 and frame.shape[2] == 3


def test_units_of_a_battle_are_drawn_while_they_live():
    places, health = np.array([[8.0, 24.0], [24.0, 24.0], [24.0, 8.0]]), np.array([5.0, 3.0, 0.0])
    drawn = pictures.battle(places, health, 1, (32, 32))

    def at(x, y):
        return tuple(drawn[int(pictures.SIDE * (1 - y / 32)), int(pictures.SIDE * x / 32)].tolist())

    assert at(8, 24) == AGENT and at(24, 24) == OTHER and at(24, 8) == (255, 255, 255)
    assert Image.fromarray(drawn).size == (pictures.SIDE + 1,) * 2
