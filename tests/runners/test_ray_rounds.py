"""What the runner of Ray actors makes of their episodes; without Ray."""

import numpy as np
from helpers import make_args, scheme

from components.episode_buffer import EpisodeBatch
from runners.ray_actor import Episode
from runners.ray_runner import Round


def test_what_a_game_says_at_its_ends_is_kept_as_it_is():
    """A figure may be missing in some episodes, or be a text: as with worker processes, the runner deals with it."""
    args = make_args("vdn")
    come = Round(EpisodeBatch(scheme(args), {"agents": args.n_agents}, 3, 4))
    for i, ends in enumerate(({"won": True, "by": "points"}, {"won": False}, {})):
        come.take_in(Episode((0, 0), i, {}, np.zeros(1), 1, ends, None, None, 1))
    assert come.missing == 0
    assert {name: values.tolist() for name, values in come.ends.items()} == {
        "won": [True, False, None],
        "by": ["points", None, None],
    }
