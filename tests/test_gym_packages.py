"""gymma with the real packages (requirements/gym.txt): `pytest -m gym`. Their contract: test_vector_contract.py."""

import numpy as np
import pytest
import yaml
from command import CONFIG, here, words

from envs import make
from utils.args import ConfigError

pytestmark = pytest.mark.gym

# {key: (time limit, n_agents, n_actions, obs_shape)}
GAMES = {
    "lbforaging:Foraging-8x8-2p-3f-v3": (50, 2, 6, 15),
    "lbforaging:Foraging-2s-10x10-3p-3f-v3": (50, 3, 6, 18),
    "Foraging-8x8-2p-2f-coop-v3": (50, 2, 6, 12),
    "rware:rware-tiny-2ag-v2": (500, 2, 5, 71),
    "pz-mpe-simple-spread-v3": (25, 3, 5, 18),
    "pz-mpe-simple-speaker-listener-v4": (25, 2, 5, 11),  # with 3 and 5 actions
    "pz-mpe-simple-tag-v3": (25, 4, 5, 16),
    "vmas-balance": (20, 3, 9, 16),
}
STATES = {"pz-mpe-simple-speaker-listener-v4": 14, "pz-mpe-simple-tag-v3": 62}  # of the game's own; else N·O


def gymma(key, time_limit=20, n_envs=1, seed=1, **changes):
    env_args = yaml.safe_load((CONFIG / "envs" / "gymma.yaml").read_text())["env_args"]
    return make("gymma", env_args | {"key": key, "time_limit": time_limit} | changes, n_envs, seed)


def to_the_end(env, rng):
    """The number of steps that random play lasts, and its last Step."""
    seen, t = env.reset(), 0
    while True:
        seen, t = env.step((rng.random(seen.avail.shape) * seen.avail).argmax(axis=-1)), t + 1
        if seen.terminated[0] or seen.truncated[0]:
            return t, seen


@pytest.mark.parametrize("key", GAMES)
def test_the_games_of_epymarl_play_to_their_time_limit(key):
    limit, *sizes = GAMES[key]
    env = gymma(key, limit)
    assert [*vars(env.env_info).values()][:5] == [*sizes, STATES.get(key, sizes[0] * sizes[2]), limit] and not env.common_reward
    length, last = to_the_end(env, np.random.default_rng(0))
    assert length == limit and last.truncated[0] and not last.terminated[0]
    assert np.isfinite(last.obs).all() and last.reward.shape == (1, sizes[0])


def test_unequal_agents_of_a_real_game_are_masked():
    assert gymma("pz-mpe-simple-speaker-listener-v4").reset().avail.sum(axis=-1).tolist() == [[3, 5]]


def test_a_game_that_is_solved_terminates():
    """Level-based foraging with all food eaten."""
    env = gymma("lbforaging:Foraging-8x8-2p-3f-v3", 50)
    env.reset()
    env.games[0].env.unwrapped.field[:] = 0
    step = env.step(np.zeros((1, 2), dtype=int))
    assert step.terminated[0] and not step.truncated[0]


@pytest.mark.parametrize(
    "key, said",
    [
        ("lbforaging:Foraging-8x8-2p-3f-v2", "did you mean 'lbforaging:Foraging-8x8-2p-3f-v3'?"),
        ("pz-mpe-simple-spred-v3", "did you mean 'pz-mpe-simple-spread-v3'?"),
        ("vmas-balanc", "did you mean 'vmas-balance'?"),
        ("CartPole-v1", "has one agent"),
        ("pz-mpe-simple-v3", "has one agent"),
        ("MountainCarContinuous-v0", "has one agent .it acts in Box"),
        ("pz-mpe-simple-spread-v3", "actions that are not discrete"),
    ],
)
def test_what_is_no_game_for_a_team_is_refused(key, said):
    kwargs = {"continuous_actions": True} if "discrete" in said else {}
    with pytest.raises(ConfigError, match=said):
        gymma(key, kwargs=kwargs)


@pytest.mark.parametrize("alg", ["qmix", "qtran_base"])
@pytest.mark.parametrize("key", ["lbforaging:Foraging-8x8-2p-3f-v3", "pz-mpe-simple-tag-v3"])
def test_a_run_trains(alg, key, tmp_path, capsys):
    wrapper = ["env_args.pretrained_wrapper=RandomTag"] if "tag" in key else []
    run = here(capsys, words(alg, "gymma", tmp_path, f"env_args.key={key}", "env_args.time_limit=5", *wrapper))
    assert run.code == 0 and run.summary["status"] == "finished", run.err


def test_smaclite_plays_where_it_is_installed():
    pytest.importorskip("smaclite")
    env_args = yaml.safe_load((CONFIG / "envs" / "smaclite.yaml").read_text())["env_args"]
    env = make("smaclite", env_args | {"time_limit": 30}, seed=1)
    assert tuple(vars(env.env_info).values())[:5] == (5, 11, 80, 120, 30) and env.common_reward
    length, last = to_the_end(env, np.random.default_rng(0))
    assert last.truncated[0] == (length == 30 and not last.terminated[0]) and last.info["battle_won"][0] == 0
    dead = [i for i in range(5) if i not in env.games[0].env.unwrapped.agents]
    assert (last.avail[0, dead].argmax(axis=-1) == 0).all() and last.state.any()
