"""gymma with games of the user (own_games.py): what they may be, and what they tell of themselves is used."""

import sys

import command
import fake_gymnasium
import numpy as np
import pytest
import torch
import yaml
from command import CONFIG, here
from PIL import Image
from test_resume import stopped

from components.episode_buffer import EpisodeBatch, make_scheme
from controllers.basic_controller import BasicMAC
from envs import make
from envs.vector import GameError
from modules.agents import REGISTRY as AGENTS
from utils.args import ConfigError


@pytest.fixture(autouse=True)
def gymnasium(monkeypatch):
    """The stand-in, for this module and for own_games."""
    monkeypatch.setitem(sys.modules, "gymnasium", fake_gymnasium)
    monkeypatch.delitem(sys.modules, "own_games", raising=False)
    yield
    sys.modules.pop("own_games", None)


@pytest.fixture
def conv(monkeypatch):
    """The convolutional agent of examples/."""
    monkeypatch.syspath_prepend(CONFIG.parents[1] / "examples")
    monkeypatch.setitem(AGENTS, "conv", "conv_agent:ConvAgent")
    return "agent=conv"


def own(name, n_envs=2, time_limit=5, kwargs=None, **changes):
    env_args = yaml.safe_load((CONFIG / "envs" / "gymma.yaml").read_text())["env_args"]
    changes = {"key": f"own_games:{name}", "time_limit": time_limit, "kwargs": kwargs or {}} | changes
    return make("gymma", env_args | changes, n_envs, 1)


def words(alg, env, folder, *values):
    """The command line of a short run, of short episodes."""
    limit = [] if any(v.startswith("env_args.time_limit") for v in values) else ["env_args.time_limit=6"]
    return command.words(alg, env, folder, *limit, *values)


def played(env, steps, actions):
    """The last Step."""
    env.reset()
    for _ in range(steps):
        step = env.step(np.tile(actions, (env.n_envs, 1)))
    return step


# ---- what a key may name


def test_a_class_and_a_factory_of_a_gymnasium_environment_and_of_a_parallel_one():
    assert own("Signal").env_info.n_actions == 3
    env = own("pair", 1)
    step = played(env, 1, [0, 0])
    assert env.env_info.n_agents == 2 and step.obs.ravel().tolist() == [1, 1] and not step.terminated[0]
    step = played(env, 3, [0, 0])  # the second agent has left after the first step
    assert step.terminated[0] and step.obs.ravel().tolist() == [3, 0] and step.reward.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "name, said",
    [
        ("a_dict", "own_games:a_dict gives a dict of 1, not a Gymnasium environment or a PettingZoo ParallelEnv"),
        ("NOT_A_GAME", "own_games:NOT_A_GAME is a int, not a class or a function that returns a Gymnasium environment"),
        ("Turns", "own_games:Turns is played in turns"),
        ("Signl", "env_args.key = 'own_games:Signl' is not known; did you mean 'own_games:Signal'?"),
    ],
)
def test_what_is_no_game_is_told_in_one_line(name, said):
    with pytest.raises(ConfigError) as error:
        own(name)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_fails_on_import_is_named_with_its_own_line(tmp_path, monkeypatch):
    (tmp_path / "broken_game.py").write_text("import math\nmath.no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="broken_game:Game.* failed: AttributeError: .*broken_game.py, line 2"):
        own("", key="broken_game:Game")


@pytest.mark.parametrize("alg", ["iql", "vdn", "qmix", "qtran_alt"])
def test_one_agent_trains(alg, tmp_path, capsys):
    run = here(capsys, words(alg, "gymma", tmp_path, "env_args.key=own_games:Alone"))
    assert run.code == 0 and run.summary["status"] == "finished", run.err


# ---- state


@pytest.mark.parametrize("tells, name", [("state", "state()"), ("get_state", "get_state()"), ("info", "info['state']")])
def test_the_games_own_state_is_taken_wherever_it_is(tells, name):
    env = own("Signal", kwargs={"tells": tells})
    seen = env.reset()
    assert seen.state.shape == (2, 3) and (seen.state[:, 2] == 7).all()
    assert np.array_equal(seen.state[:, :2], seen.obs[:, :, 0])
    assert env.facts["state"] == f"the game's own, {name}, 3 numbers"


def test_a_range_of_scores_that_the_game_declares_is_noted(monkeypatch):
    assert "score_range" not in own("Signal").facts
    monkeypatch.setattr("own_games.Signal.score_range", (0, 4.0), raising=False)
    assert own("Signal").facts["score_range"] == [0, 4.0]


@pytest.mark.parametrize("changes", [{"kwargs": {"tells": ""}}, {"use_game_state": False}])
def test_without_one_or_with_the_key_off_the_observations_stand_in_a_row(changes):
    env = own("Signal", **changes)
    seen = env.reset()
    assert np.array_equal(seen.state, seen.obs.reshape(2, -1))
    assert env.facts["state"] == "the agents' observations in a row, 4 numbers"


@pytest.mark.parametrize(
    "tells, fault, said",
    [
        ("state", "state_size", "a state of 4 numbers at this step, before it was of 3; env_args.use_game_state=False"),
        ("state", "no_state", "no state at this step, before it was of 3"),
        ("info", "no_state", "no state at this step, before it was of 3"),
        ("state", "state_dict", "state() of the game gives a dict of 1, not numbers; env_args.use_game_state=False"),
    ],
)
def test_a_state_that_changes_or_is_missing_ends_the_run_in_one_message(tells, fault, said, tmp_path, capsys):
    kwargs = [f"env_args.kwargs.tells={tells}", f"env_args.kwargs.fault={fault}"]
    run = here(capsys, words("qmix", "gymma", tmp_path, "env_args.key=own_games:Signal", *kwargs))
    assert run.code == 1 and said in run.last_line and "Traceback" not in run.err
    assert run.summary["status"] == "failed"


def test_what_became_the_state_is_said_once_and_recorded(tmp_path, capsys):
    run = here(capsys, words("qmix", "gymma", tmp_path, "env_args.key=own_games:Signal"))
    assert run.code == 0 and run.err.count("state: the game's own, state(), 3 numbers") == 1
    assert run.summary["game"]["state"] == "the game's own, state(), 3 numbers"


# ---- masks


@pytest.mark.parametrize("masks", ["info", "obs"])
def test_masks_say_what_is_available_and_bar_nothing_at_the_end(masks):
    env = own("Signal", kwargs={"masks": masks})
    assert env.env_info.obs_shape == 2
    assert env.reset().avail[0].tolist() == [[False, True, False], [True, False, True]]
    assert played(env, 3, [1, 2]).avail[1].tolist() == [[False, True, False], [True, False, True]]


def test_masks_of_a_parallel_game_are_in_its_infos():
    assert own("Pair", 1).reset().avail.tolist() == [[[True, False], [True, False]]]


@pytest.mark.parametrize(
    "fault, said",
    [
        ("no_action", "the action_mask of agent 1 leaves it no action: all 3 are barred"),
        ("short_mask", "the action_mask of agent 1 has the shape [2], but it has 3 actions"),
        ("no_mask", "the game shows no action_mask at this step, before it did"),
    ],
)
def test_a_mask_that_cannot_be_obeyed_is_one_message(fault, said):
    env = own("Signal", kwargs={"masks": "info", "fault": fault})
    with pytest.raises(GameError) as error:
        played(env, 2, [1, 0])
    assert said in str(error.value)


def test_masks_are_obeyed_in_training(tmp_path, capsys):
    values = ("env_args.key=own_games:Signal", "env_args.kwargs.masks=info", "runner_log_interval=1")
    run = here(capsys, words("vdn", "gymma", tmp_path, *values))
    assert run.code == 0 and run.summary["game"]["action_masks"] == "the game's own", run.err


# ---- figures of the game


def test_single_numbers_of_the_last_info_are_logged(tmp_path, capsys):
    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Signal"))
    assert {value for _, value in run.series["delivered_mean"]} == {4.0}
    assert {value for _, value in run.series["test_won_mean"]} == {1.0}
    assert not any("name" in key or "list" in key for key in run.series), run.err


def test_those_of_each_agent_have_its_name(tmp_path, capsys):
    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Pair"))
    assert {value for _, value in run.series["north_steps_mean"]} == {3.0}
    assert {value for _, value in run.series["south_steps_mean"]} == {1.0}  # the last one that it gave


def test_one_that_is_no_number_at_times_is_told_once_and_averaged_where_it_is(tmp_path, capsys):
    values = ("env_args.key=own_games:Signal", "env_args.kwargs.fault=info", "t_max=60")
    run = here(capsys, words("vdn", "gymma", tmp_path, *values))
    assert run.code == 0 and run.err.count("info 'delivered' is not a number in every episode") == 1
    assert {value for _, value in run.series["delivered_mean"]} == {4.0}


# ---- limits and arguments


def test_a_limit_of_the_game_that_is_lower_is_told_and_recorded(tmp_path, capsys):
    values = ("env_args.key=own_games:Pair", "env_args.kwargs.max_cycles=7", "env_args.time_limit=20")
    run = here(capsys, words("vdn", "gymma", tmp_path, *values))
    said = "the game's own, 7 steps, is lower than env_args.time_limit = 20; env_args.kwargs.max_cycles=20 moves it"
    assert run.code == 0 and run.err.count(said) == 1
    assert run.summary["game"]["episode_limit"] == "7 steps, the game's own max_cycles"


def test_a_game_that_cuts_episodes_off_by_itself_is_told_once_and_recorded(tmp_path, capsys, monkeypatch):
    def step(self, actions, play=fake_gymnasium.Team.step):
        obs, reward, _, _, info = play(self, actions)
        return obs, reward, False, self.t >= 3, info

    monkeypatch.setattr(fake_gymnasium.Team, "step", step)
    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=Team-v1"))
    said = "the game itself cut an episode off after 3 steps, before the time limit of 6"
    assert run.code == 0 and run.err.count(said) == 1 and run.summary["game"]["cuts"] == said


# ---- what agents see


def test_bounded_observations_are_scaled_and_what_has_no_bounds_is_refused():
    bounded = {"kwargs": {"bound": 10.0, "times": 5.0}, "scale_obs": True}
    seen = own("Signal", 8, **bounded).reset().obs
    assert set(np.unique(seen)) == {0.5, 0.75}
    with pytest.raises(ConfigError, match="scale_obs = True, but the game gives no bounds"):
        own("Signal", scale_obs=True)


def test_large_raw_observations_draw_one_warning(tmp_path, capsys):
    values = ("env_args.key=own_games:Signal", "env_args.kwargs.times=5000", "env_args.kwargs.tells=")
    run = here(capsys, words("vdn", "gymma", tmp_path, *values))
    assert run.code == 0 and run.err.count("observations hold numbers as large as 5000") == 1
    run = here(capsys, words("vdn", "gymma", tmp_path, *values[:1]))
    assert "hold numbers as large" not in run.err


def test_pixels_stay_small_in_the_replay_and_are_read_as_shares():
    env = own("Images")
    assert env.env_info.pixels and env.env_info.obs_dims == (8, 8, 1)
    seen = env.reset()
    assert seen.obs.dtype == seen.state.dtype == np.uint8
    batch = EpisodeBatch(make_scheme(env.env_info, True), {"agents": 2}, 2, 4)
    batch.update({"obs": seen.obs, "state": seen.state}, ts=0)
    assert batch.data["obs"].dtype == batch.data["state"].dtype == torch.uint8
    wanted = torch.from_numpy(seen.obs).float() / 255
    assert torch.equal(batch["obs"][:, 0], wanted) and torch.equal(batch["state"][:, 0], wanted.flatten(1))


def test_agents_that_act_read_shares_too(conv, tmp_path, capsys, monkeypatch):
    values, read = BasicMAC.values, []
    monkeypatch.setattr(BasicMAC, "values", lambda self, act, *rest: values(self, watched(act, read), *rest))
    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Images", conv))
    assert run.code == 0 and read, run.err
    assert all(obs.dtype == torch.float32 and 0.1 < obs.max() <= 1 for obs in read)


def watched(act, read):
    def call(obs, *rest):
        read.append(obs.clone())
        return act(obs, *rest)

    return call


@pytest.mark.parametrize("values", [(), ("kernels=plain", "mixer=null", "learner=q_learner")])
def test_convolutions_learn_too(conv, values, tmp_path, capsys):
    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Images", conv, "t_max=6", *values))
    more = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Images", conv, "t_max=60", *values))
    assert run.code == more.code == 0, more.err
    first, last = (torch.load(sorted(r.path.glob("checkpoints/[0-9]*/agent.th"))[-1]) for r in (run, more))
    assert not torch.equal(first["features.0.weight"], last["features.0.weight"])


def test_the_convolutional_agent_goes_through_resume_and_evaluation(conv, tmp_path, capsys):
    def argv(folder):
        game = ("env_args.key=own_games:Images", conv, "resume_interval=6", "t_max=36")
        return words("qmix", "gymma", tmp_path / folder, *game)

    whole, broken = here(capsys, argv("whole")), stopped(capsys, argv("broken"), 6)
    resumed = here(capsys, ["--resume", broken.path])
    assert whole.code == resumed.code == 0, resumed.err
    assert resumed.figures == whole.figures
    folders = [sorted(run.path.glob("checkpoints/36/*.th")) for run in (whole, resumed)]
    assert len(folders[0]) == 3 and [f.read_bytes() for f in folders[0]] == [f.read_bytes() for f in folders[1]]
    load = f"checkpoint_path={whole.path}"
    tested = here(capsys, words("qmix", "gymma", tmp_path, *argv("x")[3:], load, "evaluate=True"))
    assert tested.code == 0 and "test_return_mean" in tested.series, tested.err


# ---- names of the past


@pytest.mark.parametrize(
    "key, today",
    [
        ("mpe:SimpleSpeakerListener-v0", "pz-mpe-simple-speaker-listener-v4"),
        ("pz-mpe-simple-spread-v2", "pz-mpe-simple-spread-v3"),
        ("simple_spread", "pz-mpe-simple-spread-v3"),
        ("simple_tag_v2", "pz-mpe-simple-tag-v3"),
        ("Team-v0", "Team-v1"),
    ],
)
def test_a_name_of_the_past_is_answered_with_todays(key, today):
    with pytest.raises(ConfigError) as error:
        own("", key=key)
    assert str(error.value) == f"env_args.key = {key!r} is a name of the past; today it is {today!r}"


# ---- pictures


def rendered(capsys, tmp_path, *values):
    values = ("env_args.key=own_games:Signal", *values)
    run = here(capsys, words("vdn", "gymma", tmp_path, *values))
    load = (f"checkpoint_path={run.path}", "evaluate=True", "render=True")
    return here(capsys, words("vdn", "gymma", tmp_path, *values, *load))


def test_render_saves_the_games_own_pictures(tmp_path, capsys):
    run = rendered(capsys, tmp_path)
    with Image.open(run.path / "render.gif") as film:
        assert film.size == (30, 20) and film.n_frames == 4
        film.seek(1)
        assert film.convert("RGB").getpixel((5, 5)) == (80, 80, 80)
    assert f"animation: {run.path / 'render.gif'}" in run.err


def stand_in(tmp_path, monkeypatch, script):
    """A program ffmpeg."""
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_mp4_is_written_by_ffmpeg(tmp_path, capsys, monkeypatch):
    stand_in(tmp_path, monkeypatch, 'for file; do :; done; cat >"$file"')
    run = rendered(capsys, tmp_path, "render_format=mp4")
    assert run.code == 0 and (run.path / "render.mp4").stat().st_size == 4 * 30 * 20 * 4, run.err  # frames, RGBA


def test_a_program_that_fails_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    stand_in(tmp_path, monkeypatch, "cat >/dev/null; exit 3")
    run = rendered(capsys, tmp_path, "render_format=mp4")
    assert run.code == 1 and "could not be written: animation (CalledProcessError" in run.last_line, run.err
    assert "Traceback" not in run.err


def test_a_program_that_is_not_there_is_told_before_anything_is_played(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = rendered(capsys, tmp_path, "render_format=mp4")
    assert run.code == 2 and "render_format=mp4 needs the program ffmpeg" in run.last_line
    assert run.last_line.endswith("or give render_format=gif")


def test_a_policy_that_is_loaded_sees_images_as_in_training(conv, tmp_path, capsys, monkeypatch):
    from qtran import load_policy

    run = here(capsys, words("vdn", "gymma", tmp_path, "env_args.key=own_games:Images", conv))
    policy, env, read = load_policy(run.path), own("Images"), []
    values = BasicMAC.values
    monkeypatch.setattr(BasicMAC, "values", lambda self, act, *rest: values(self, watched(act, read), *rest))
    seen = env.reset(seed=1)
    assert policy(seen).shape == (2, env.env_info.n_agents) and seen.obs.dtype == np.uint8
    assert torch.equal(read[0], torch.from_numpy(seen.obs).float() / 255)
