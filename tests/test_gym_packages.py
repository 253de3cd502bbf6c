"""gymma with the real packages (requirements/gym.txt): `pytest -m gym`. Their contract: test_vector_contract.py."""

import re

import numpy as np
import pytest
import yaml
from command import CONFIG, ROOT, here, words
from PIL import Image
from test_resume import stopped

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
    state = STATES.get(key, sizes[0] * sizes[2])
    assert [*vars(env.env_info).values()][:5] == [*sizes, state, limit] and not env.common_reward
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
        ("lbforaging:Foraging-8x8-2p-3f-v2", "a name of the past; today it is 'lbforaging:Foraging-8x8-2p-3f-v3'"),
        ("rware:rware-tiny-2ag-v1", "a name of the past; today it is 'rware:rware-tiny-2ag-v2'"),
        ("pz-mpe-simple-spred-v3", "did you mean 'pz-mpe-simple-spread-v3'?"),
        ("vmas-balanc", "did you mean 'vmas-balance'?"),
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


@pytest.mark.parametrize("key", ["CartPole-v1", "pz-mpe-simple-v3"])
def test_one_agent_trains(key, tmp_path, capsys):
    run = here(capsys, words("iql", "gymma", tmp_path, f"env_args.key={key}", "env_args.time_limit=5"))
    assert run.code == 0, run.err


@pytest.mark.parametrize(
    "key, kwargs, length, why",
    [
        ("lbforaging:Foraging-8x8-2p-3f-v3", {}, 50, "the game's own max_episode_steps"),
        ("lbforaging:Foraging-8x8-2p-3f-v3", {"max_episode_steps": 70}, 60, "env_args.time_limit"),
        ("pz-mpe-simple-spread-v3", {}, 25, "the game's own max_cycles"),
        ("pz-mpe-simple-spread-v3", {"max_cycles": 70}, 60, "env_args.time_limit"),
        ("rware:rware-tiny-2ag-v2", {"max_steps": 30}, 30, "the game's own max_steps"),
        ("MountainCar-v0", {"max_episode_steps": 30}, 30, "the game's own max_episode_steps"),
    ],
)
def test_the_lower_limit_counts_and_arguments_reach_the_game(key, kwargs, length, why):
    env = gymma(key, 60, kwargs=kwargs)
    assert to_the_end(env, np.random.default_rng(0))[0] == length
    assert env.facts["episode_limit"] == f"{length} steps, {why}"


@pytest.mark.parametrize("key", ["CartPole-v1", "pz-mpe-simple-spread-v3"])
def test_the_games_own_pictures_are_filmed(key, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    argv = words("iql", "gymma", tmp_path, f"env_args.key={key}", "env_args.time_limit=4")
    run = here(capsys, argv)
    tested = here(capsys, [*argv, f"checkpoint_path={run.path}", "evaluate=True", "render=True"])
    with Image.open(tested.path / "render.gif") as film:
        assert film.n_frames > 1 and max(film.size) == 480, tested.err


def test_games_of_ones_own_play_in_processes_as_they_do_here(tmp_path, capsys):
    """Own state, masks, figures and pixels; resumed bit for bit."""
    for name, more in (("Signal", ("env_args.kwargs.masks=info",)), ("Images", ()), ("Pair", ())):
        more += ("env_args.time_limit=4", "env_workers=True", "resume_interval=8")
        game = (f"env_args.key=own_games:{name}", *more)
        whole = here(capsys, words("qmix", "gymma", tmp_path / "whole", *game))
        broken = stopped(capsys, words("qmix", "gymma", tmp_path / "broken", *game), 3)
        resumed = here(capsys, ["--resume", broken.path])
        assert whole.code == resumed.code == 0, resumed.err
        assert resumed.figures == whole.figures
        if name == "Signal":
            assert whole.err.count("state: the game's own, state(), 3 numbers") == 1
            assert {value for _, value in whole.series["delivered_mean"]} == {4.0}


def test_the_example_of_the_documentation_trains(tmp_path, capsys, monkeypatch):
    page = (ROOT / "docs" / "gymnasium.md").read_text()
    (tmp_path / "mygame.py").write_text(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    values = ("env_args.key=mygame:Meet", "env_args.time_limit=20", "env_args.scale_obs=True")
    run = here(capsys, words("qmix", "gymma", tmp_path, *values))
    assert run.code == 0 and "met_mean" in run.series and "the game's own, state(), 2 numbers" in run.err, run.err


def test_smaclite_plays_where_it_is_installed():
    pytest.importorskip("smaclite")
    env_args = yaml.safe_load((CONFIG / "envs" / "smaclite.yaml").read_text())["env_args"]
    env = make("smaclite", env_args | {"time_limit": 30}, seed=1)
    assert tuple(vars(env.env_info).values())[:5] == (5, 11, 80, 120, 30) and env.common_reward
    length, last = to_the_end(env, np.random.default_rng(0))
    assert last.truncated[0] == (length == 30 and not last.terminated[0]) and last.info["battle_won"][0] == 0
    dead = [i for i in range(5) if i not in env.games[0].env.unwrapped.agents]
    assert (last.avail[0, dead].argmax(axis=-1) == 0).all() and last.state.any()
