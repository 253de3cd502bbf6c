"""gymma with a stand-in for gymnasium: what it shows, pays, refuses. Real packages: tests/test_gym_packages.py."""

import sys

import fake_gymnasium
import numpy as np
import pytest
import yaml
from command import CONFIG, here, words

import checks
from envs import make
from envs.vector import GameError
from utils.args import ConfigError

E = 3
STAY = np.zeros((E, 2), dtype=np.int64)


@pytest.fixture(autouse=True)
def gymnasium(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", fake_gymnasium)


def gymma(n_envs=E, seed=1, key="Team-v1", time_limit=5, wrapper=None, **kwargs):
    env_args = yaml.safe_load((CONFIG / "envs" / "gymma.yaml").read_text())["env_args"]
    changes = {"key": key, "time_limit": time_limit, "kwargs": kwargs, "pretrained_wrapper": wrapper}
    return make("gymma", env_args | changes, n_envs, seed)


def test_unequal_agents_are_padded_and_masked():
    env = gymma()
    assert tuple(vars(env.env_info).values())[:5] == (2, 4, 4, 8, 5) and not env.common_reward
    assert any("actions of the agents: 2, 4; all have 4 outputs" in note for note in env.notes)
    seen = env.reset()
    assert seen.avail.tolist() == [[[True, True, False, False], [True] * 4]] * E
    draw = seen.obs[:, 0, 0]
    assert len(set(draw)) == E and not seen.obs[:, 0, 1:].any() and not seen.obs[:, 1].any()
    step = env.step(np.array([[1, 3]] * E))
    assert (step.obs[:, 1] == 1).all() and step.reward.tolist() == [[1, 4]] * E  # the second's actions begin at 1
    assert np.array_equal(step.state, step.obs.reshape(E, -1)) and step.state.dtype == np.float32


@pytest.mark.parametrize("declared", [5, (8, 0), (0, float("nan")), ("low", "high"), (1, 2, 3)])
def test_a_range_of_scores_that_is_none(declared, monkeypatch):
    monkeypatch.setattr(fake_gymnasium.Team, "score_range", declared, raising=False)
    with pytest.raises(ConfigError, match="'Team-v1'.*: its score_range is .*; give two numbers, the mean"):
        gymma()


def test_a_range_of_scores_is_noted(monkeypatch):
    monkeypatch.setattr(fake_gymnasium.Team, "score_range", np.array([0, 8], dtype=np.float32), raising=False)
    assert gymma().facts["score_range"] == [0.0, 8.0] and type(gymma().facts["score_range"][0]) is float


def test_one_reward_for_the_team_stays_one():
    env = gymma(pays="team")
    env.reset()
    assert env.common_reward and env.step(STAY).reward.tolist() == [5, 5, 5]


@pytest.mark.parametrize("kwargs, length", [({}, 5), ({"limit": 3}, 3), ({"limit": 5}, 5), ({"limit": 50}, 5)])
def test_a_time_limit_truncates_that_of_lbforaging_and_rware_too(kwargs, length, monkeypatch):
    monkeypatch.setattr(fake_gymnasium.Team, "__module__", "rware.warehouse")
    env = gymma(**kwargs)
    assert env.env_info.episode_limit == length
    env.reset()
    for t in range(1, length + 1):
        step = env.step(STAY)
        assert not step.terminated.any() and step.truncated.all() == (t == length)
    assert (step.obs[:, 1] == length).all()  # the true last observation
    after = env.step(STAY)
    assert not after.reward.any() and np.array_equal(after.obs, step.obs) and after.truncated.all()


def test_what_other_games_call_a_limit_is_left_to_them():
    env = gymma(limit=3)
    assert env.games[0].env._max_episode_steps == 3 and env.env_info.episode_limit == 5
    env.reset()
    for _ in range(3):
        step = env.step(STAY)
    assert step.terminated.all() and not step.truncated.any()


def test_players_that_are_not_lbforagings_keep_what_they_are(monkeypatch):
    monkeypatch.setattr(fake_gymnasium.Team, "players", [1, 2], raising=False)
    gymma().reset()


@pytest.mark.parametrize("says, over", [(True, True), ([True, False], False), ([1, 1], True), (np.False_, False)])
def test_an_end_is_said_for_the_game_or_for_each_agent(says, over):
    env = gymma(says=says)
    env.reset()
    assert (env.step(STAY).terminated == over).all()


def test_agents_of_which_each_has_ended_or_is_cut_off_are_cut_off():
    env = gymma(says=[True, False], fault="cut")
    env.reset()
    env.step(STAY)
    step = env.step(STAY)
    assert step.truncated.all() and not step.terminated.any()


def test_an_end_terminates_also_at_the_limit_and_a_cut_of_the_games_truncates():
    for kwargs, length, flags in (({"ends": 5}, 5, (True, False)), ({"fault": "cut"}, 2, (False, True))):
        env = gymma(**kwargs)
        env.reset()
        for _ in range(length):
            step = env.step(STAY)
        assert (step.terminated.all(), step.truncated.all()) == flags


def test_same_seed_same_episodes():
    def draws(env, episodes=3):
        return [env.reset().obs[:, 0, 0].tolist() for _ in range(episodes)]

    first, again, other = draws(gymma(seed=4)), draws(gymma(seed=4)), draws(gymma(seed=5))
    assert first == again and not any(a == b for a, b in zip(first, other)) and first[0] != first[1]
    env = gymma(seed=9)
    assert env.reset(seed=4).obs[:, 0, 0].tolist() == first[0]


@pytest.mark.parametrize("wrapper", ["FrozenTag", "RandomTag"])
def test_the_last_agent_is_played_by_nobody_or_by_chance(wrapper, monkeypatch):
    monkeypatch.setattr(fake_gymnasium.Team, "__init__", three_agents(fake_gymnasium.Team.__init__))
    env = gymma(1, wrapper=wrapper, time_limit=50)
    assert env.env_info.n_agents == 2
    env.reset()
    assert env.step(STAY[:1]).reward.shape == (1, 2)
    for _ in range(30):
        env.step(STAY[:1])
    last = {actions[-1] for actions in env.games[0].game.env.played}
    assert last == ({0} if wrapper == "FrozenTag" else {0, 1, 2})


def three_agents(make_two):
    def init(self, **kwargs):
        make_two(self, **kwargs)
        self.action_space.append(fake_gymnasium.Discrete(3))
        self.observation_space.append(fake_gymnasium.Box(1))
        self._show = lambda: (np.zeros(1), np.zeros((2, 2)), np.zeros(1))

    return init


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"key": "Taem-v1"}, "'Taem-v1' is not known; did you mean 'Team-v1'?"),
        ({"key": "zzz"}, "known are Continuous-v1, Single-v1, Team-v1"),
        ({"key": "no_such.module:Team-v1"}, "'no_such.module' is not installed; install the package that has it"),
        ({"key": "Foraging-8x8-2p-3f-v3"}, "'lbforaging' is not installed.*pip install -r requirements/gym.txt"),
        ({"key": "rware:rware-tiny-2ag-v2"}, "'rware' is not installed.*pip install -r requirements/gym.txt"),
        ({"key": "pz-mpe-simple-spread-v3"}, "'mpe2' is not installed.*pip install -r requirements/gym.txt"),
        ({"key": "vmas-balance"}, "'vmas' is not installed.*pip install -r requirements/gym.txt"),
        ({"key": "matrixgames:penalty-0-v0"}, "'matrixgames' is not installed.*pip install git"),
        ({"key": "Continuous-v1"}, "Continuous-v1 has one agent .it acts in .*a finite set of actions"),
        ({"discrete": False}, "actions that are not discrete .*a finite set of actions"),
        ({"fault": "rewards"}, "'Team-v1'.*: the reward of the game is .1.0, 1.0, 1.0., not a list of 2 rewards"),
        ({"pays": None}, "'Team-v1'.*: the reward of the game is None, not a number"),
        ({"pays": [1.0, [2.0]]}, "the reward of the game is .1.0, .2.0.., not a number"),
        ({"pays": {0: 1.0}}, "the reward of the game is {0: 1.0}, not a number"),
        ({"says": {0: False, 1: False}}, "the game says {0: False, 1: False} of its end, not True or False, or a list"),
        ({"says": None, "fault": "obs"}, "not a tuple of 2 observations, one an agent, but 1 in a tuple"),
        ({"fault": "more"}, "not a tuple of 2 observations, one an agent, but 3 in a tuple"),
        ({"fault": "dict"}, "not a tuple of 2 observations, one an agent, but 2 in a dict"),
        ({"fault": "size"}, r"the game shows observations of \[4, 4\] numbers, not of \[1, 4\]"),
        ({"fault": "spaces"}, "actions for 2 agents, observations for 3"),
        ({"fault": "box"}, "spaces of actions and observations that are Tuple and Box, not Tuples with one entry"),
        ({"fault": "reset"}, "'Team-v1'.* failed: KeyError: 'no level' .fake_gymnasium.py, line [0-9]+"),
        ({"fault": "old"}, "step answers not with observation, .*, but with 4 .as the old gym's."),
        ({"agents": 0}, "Team-v1 has no agents"),
        ({"speed": 3}, "with env_args.kwargs = {'speed': 3} failed: TypeError: .*'speed'"),
        ({"agents": 1, "wrapper": "RandomTag"}, "Team-v1 with RandomTag has no agents"),
        ({"wrapper": "PretrainedTag"}, "'PretrainedTag' needs weights that come with EPyMARL only"),
        ({"key": None}, "env_args.key is not given.*lbforaging:Foraging-8x8-2p-3f-v3"),
        ({"time_limit": 0}, "env_args.time_limit: 0 must be at least 1"),
        ({"wrapper": "FrozenTak"}, "is not one of FrozenTag.*did you mean 'FrozenTag'?"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(changes, said, monkeypatch):
    for package in ("lbforaging", "rware", "mpe2", "vmas", "matrixgames"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: "there" if name == "gymnasium" else None)
    with pytest.raises(ConfigError, match=said) as error:
        gymma(**changes)
    assert "\n" not in str(error.value)


def test_rewards_that_change_their_number_on_the_way_stop_the_game():
    env = gymma(fault="later")
    env.reset()
    env.step(STAY)
    with pytest.raises(GameError, match="not a list of 2 rewards, one an agent"):
        env.step(STAY)


def test_games_that_were_made_are_closed_when_another_cannot_be(monkeypatch):
    made = []

    def make(name, **kwargs):
        if len(made) == 2:
            raise OSError("no port is left")
        made.append(fake_gymnasium.Team())
        made[-1].t = 0
        return made[-1]

    monkeypatch.setattr(fake_gymnasium, "make", make)
    with pytest.raises(ConfigError, match="'Team-v1' failed: OSError: no port is left"):
        gymma()
    assert [game.t for game in made] == [None, None]


def test_the_absence_of_gymnasium_is_told_with_the_pip_line(monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(sys.modules, "gymnasium")
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    run = here(capsys, words("qmix", "gymma", tmp_path, "env_args.key=Team-v1"))
    assert run.code == 2 and run.err.count("\n") == 1
    assert "needs the package gymnasium" in run.err and "pip install -r requirements/gym.txt" in run.err
    check = checks.environment("gymma", needed=False)
    assert check.state == "missing" and check.fix == "pip install -r requirements/gym.txt"


def test_the_absence_of_smaclite_is_told_with_lines_that_work_around_its_pin(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    run = here(capsys, words("qmix", "smaclite", tmp_path))
    assert run.code == 2 and run.err.count("\n") == 1
    assert "needs the package smaclite" in run.err and "pip install --no-deps git+https" in run.err


# ---- PettingZoo, of which a stand-in lies in a folder

LEAVING = """
from fake_gymnasium import Box, Discrete

class parallel_env:
    possible_agents = ["a", "b"]
    def action_space(self, agent):
        return Discrete(3, start=1)
    def observation_space(self, agent):
        return Box(1)
    def reset(self, seed=None):
        self.agents = ["a", "b"]
        return {"a": [5.0], "b": [6.0]}, {}
    def step(self, actions):
        paid, here = {agent: float(a) for agent, a in actions.items()}, list(self.agents)
        self.agents = self.agents[1:]  # one of them leaves at each step
        flags = dict.fromkeys(here, False)
        return {agent: [7.0] for agent in here}, paid, flags, flags, {}
    def close(self):
        pass
"""


@pytest.fixture
def pettingzoo(tmp_path, monkeypatch):
    folder = tmp_path / "pettingzoo" / "butterfly"
    folder.mkdir(parents=True)
    (folder / "leaving_v12.py").write_text(LEAVING)
    (folder / "turns_v1.py").write_text("def env(): ...")
    (folder / "physics_v1.py").write_text("import no_such_physics")
    (tmp_path / "mpe2").mkdir()
    for package in (tmp_path / "pettingzoo", folder, tmp_path / "mpe2"):
        (package / "__init__.py").touch()
    monkeypatch.setitem(sys.modules, "gymnasium.spaces", fake_gymnasium.spaces)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pettingzoo", "mpe2")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("pettingzoo")]:
        del sys.modules[name]


def test_agents_that_leave_are_paid_no_more_and_their_actions_begin_where_they_do(pettingzoo):
    env = gymma(1, key="pz-butterfly-leaving-v12")
    assert env.reset().obs.ravel().tolist() == [5, 6] and env.env_info.n_actions == 3
    step = env.step(np.array([[0, 2]]))
    assert step.reward.tolist() == [[1, 3]] and not step.terminated[0]
    step = env.step(np.array([[0, 2]]))
    assert step.reward.tolist() == [[0, 3]] and step.terminated[0] and step.obs.ravel().tolist() == [0, 7]


@pytest.mark.parametrize(
    "game, said",
    [
        ("leaving-v11", "is a name of the past; today it is 'pz-butterfly-leaving-v12'"),
        ("leving-v12", "did you mean 'pz-butterfly-leaving-v12'?"),
        ("turns-v1", "is played in turns .AEC.; only games in which all agents act at once can be played"),
        ("physics-v1", "No module named 'no_such_physics'; install it with: pip install .pettingzoo.butterfly."),
    ],
)
def test_games_of_pettingzoo_that_cannot_be_played_say_why(game, said, pettingzoo):
    with pytest.raises(ConfigError, match=said):
        gymma(key=f"pz-butterfly-{game}")


# ---- whole runs


def team(tmp_path, alg, *values):
    return words(alg, "gymma", tmp_path, "env_args.key=Team-v1", "env_args.time_limit=4", *values)


@pytest.mark.parametrize("how, paid", [("sum", 4 * 1), ("mean", 4 * 0.5)])
def test_the_run_makes_one_reward_of_the_agents(how, paid, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("components.action_selectors.EpsilonGreedy.select", lambda self, q, *_: STAY[: len(q)])
    run = here(capsys, team(tmp_path, "qtran_alt", f"reward_scalarisation={how}"))
    assert run.code == 0, run.err
    assert run.path.parent.name == "Team-v1"
    assert {value for _, value in run.series["test_return_mean"]} == {paid}


def test_each_agent_may_learn_from_its_own(tmp_path, capsys):
    run = here(capsys, team(tmp_path, "iql", "common_reward=False"))
    assert run.code == 0 and "agent_1_return_mean" in run.series, run.err


def test_a_reward_that_is_no_number_ends_the_run_and_is_named(tmp_path, capsys):
    run = here(capsys, team(tmp_path, "vdn", "env_args.kwargs.fault=nan"))
    assert (
        run.code == 1 and "t_env 0, step 1 of training: the environment's reward is not finite (nan)" in run.last_line
    )


@pytest.mark.parametrize(
    "fault, said",
    [("step", "ValueError: the level is gone (fake_gymnasium.py, line"), ("exit", "SystemExit: bye (fake_gym")],
)
def test_a_game_that_fails_ends_the_run_in_one_line_with_the_weights_saved(fault, said, tmp_path, capsys):
    run = here(capsys, team(tmp_path, "vdn", f"env_args.kwargs.fault={fault}", "save_model=True"))
    assert run.code == 1 and said in run.last_line and "env_args.key = 'Team-v1'" in run.last_line
    assert "Traceback" not in run.err and run.summary["status"] == "failed"
    assert list(run.path.glob("checkpoints/*/agent.th"))


def test_a_game_that_cannot_be_closed_costs_a_finished_run_nothing(tmp_path, capsys):
    run = here(capsys, team(tmp_path, "vdn", "env_args.kwargs.fault=close"))
    assert run.code == 0 and run.summary["status"] == "finished"
    assert "closing the game: env_args.key = 'Team-v1'" in run.err and "RuntimeError: stuck" in run.err
