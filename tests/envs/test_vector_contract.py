"""What every environment of the registry owes the runner, with the settings of its YAML: those that are arrays. Those
that need other packages have theirs tested in test_battle.py, test_smax.py and test_gymma.py."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from envs import REGISTRY, GameError, env_class, make
from envs.vector import ArrayEnv, EnvInfo, Observation

CONFIG = Path(__file__).parents[2] / "src" / "config" / "envs"
E = 5
# {test case: (name, changes to its YAML)}: every entry of the registry that the core plays, then other sizes and games
CASES = {name: (name, {}) for name in REGISTRY if not env_class(name).install} | {
    "matrix_game, two states": ("matrix_game", {"key": "two_state", "observe_state": "first"}),
    "matrix_game, unequal": ("matrix_game", {"payoff": [[[1, 2], [3, 4], [5, 6]]]}),
    "predator_prey, large": ("predator_prey", {"map_size": 7, "n_predators": 4, "n_prey": 2, "sight": None}),
}
# Those that need more than the core, by their markers.
OPT_IN = {
    "smax": (pytest.mark.smax, ("smax", {"map_name": "2s3z", "episode_limit": 20})),
    "gymma, lbforaging": (pytest.mark.gym, ("gymma", {"key": "lbforaging:Foraging-8x8-2p-3f-v3", "time_limit": 10})),
    "gymma, particles": (pytest.mark.gym, ("gymma", {"key": "pz-mpe-simple-spread-v3", "time_limit": 10})),
}
WITHOUT_CHANCE = {"two_step", "matrix_game", "matrix_game, unequal"}  # the same episodes under every seed

opt_in = [pytest.param(name, marks=mark) for name, (mark, _) in OPT_IN.items()]
every_game = pytest.mark.parametrize("case", [*sorted(CASES), *opt_in])
every_game_of_chance = pytest.mark.parametrize("case", [*sorted(set(CASES) - WITHOUT_CHANCE), *opt_in])


def create(case, seed=0):
    name, changes = CASES[case] if case in CASES else OPT_IN[case][1]
    env_args = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())["env_args"]
    return make(name, env_args | changes, n_envs=E, seed=seed)


def draw(rng, avail):
    """One random available action [E, N] for each agent."""
    return (rng.random(avail.shape) * avail).argmax(axis=-1)


def play(env, rng, steps):
    """All arrays, in a row, that random play with resets at the ends shows."""
    seen = env.reset()
    out = [*seen]
    for _ in range(steps):
        step = env.step(draw(rng, seen.avail))
        out += [*step[:-1], *step.info.values()]
        done = step.terminated | step.truncated
        seen = env.reset(mask=done) if done.any() else step
        out += [seen.obs, seen.state, seen.avail]
    return out


def to_the_end(env, rng):
    """Reset, then random play until every episode has ended: the last Step."""
    step = seen = env.reset()
    for _ in range(env.env_info.episode_limit):
        seen = step = env.step(draw(rng, seen.avail))
    return step


def check_observation(env, seen):
    info = env.env_info
    assert seen.obs.shape == (E, info.n_agents, info.obs_shape) and seen.obs.dtype == np.float32
    assert seen.state.shape == (E, info.state_shape) and seen.state.dtype == np.float32
    assert seen.avail.shape == (E, info.n_agents, info.n_actions) and seen.avail.dtype == bool
    assert seen.avail.any(axis=-1).all()
    assert np.isfinite(seen.obs).all() and np.isfinite(seen.state).all()


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@every_game
def test_shapes_types_and_flags(case):
    env, rng = create(case), np.random.default_rng(0)
    assert env.n_envs == E
    seen = env.reset()
    check_observation(env, seen)
    for _ in range(env.env_info.episode_limit + 2):
        seen = env.step(draw(rng, seen.avail))
        check_observation(env, seen)
        assert seen.reward.shape == ((E,) if env.common_reward else (E, env.env_info.n_agents))
        assert seen.reward.dtype == np.float32 and np.isfinite(seen.reward).all()
        for flag in (seen.terminated, seen.truncated):
            assert flag.shape == (E,) and flag.dtype == bool
        assert not (seen.terminated & seen.truncated).any()
        assert all(np.shape(values) == (E,) for values in seen.info.values())
    assert (seen.terminated | seen.truncated).all()


@every_game
def test_nothing_is_over_after_a_reset_before_the_limit(case):
    env, rng = create(case), np.random.default_rng(0)
    to_the_end(env, rng)
    seen = env.reset()
    first = env.step(draw(rng, seen.avail))
    if env.env_info.episode_limit > 1:
        assert not first.truncated.any()
    else:
        assert first.terminated.all()


@every_game
def test_an_ended_episode_stays_as_it_is_and_pays_nothing(case):
    env, rng = create(case), np.random.default_rng(0)
    last = to_the_end(env, rng)
    for _ in range(3):
        step = env.step(draw(rng, last.avail))
        assert not step.reward.any()
        assert same(step[:3], last[:3])
        assert same(step[4:6], last[4:6])
        assert same(list(step.info.values()), list(last.info.values()))


@every_game
def test_one_ended_episode_does_not_stop_or_change_with_the_others(case):
    env, rng = create(case), np.random.default_rng(0)
    last = to_the_end(env, rng)
    running = np.arange(E) % 2 == 0
    seen = env.reset(mask=running)
    step = env.step(draw(rng, seen.avail))
    assert same([a[~running] for a in step[:3]], [a[~running] for a in last[:3]])
    assert not step.reward[~running].any()
    assert np.array_equal(step.terminated[~running], last.terminated[~running])
    assert np.array_equal(step.truncated[~running], last.truncated[~running])


@every_game
def test_a_masked_reset_leaves_the_others(case):
    env, rng = create(case), np.random.default_rng(0)
    seen = env.reset()
    before = env.step(draw(rng, seen.avail))
    mask = np.arange(E) < 2
    after = env.reset(mask=mask)
    assert same([a[~mask] for a in after], [a[~mask] for a in before[:3]])
    check_observation(env, after)


@every_game
def test_what_a_step_returned_does_not_change_later(case):
    env, rng = create(case), np.random.default_rng(0)
    seen = env.reset()
    kept = [a.copy() for a in seen]
    step = env.step(draw(rng, seen.avail))
    returned = [*step[:-1], *step.info.values()]
    copies = [a.copy() for a in returned]
    env.step(draw(rng, step.avail))
    env.reset()
    assert same(list(seen), kept) and same(returned, copies)


@every_game
def test_same_seed_same_trajectory(case):
    first, second = (play(create(case, seed=7), np.random.default_rng(1), 30) for _ in range(2))
    assert same(first, second)


@every_game
def test_reset_with_a_seed_restarts_the_stream(case):
    env = create(case, seed=3)
    first = env.reset(seed=11)
    env.step(draw(np.random.default_rng(0), first.avail))
    assert same(list(env.reset(seed=11)), list(first))


@every_game_of_chance
def test_another_seed_is_another_trajectory(case):
    first, second = (play(create(case, seed=seed), np.random.default_rng(1), 30) for seed in (7, 8))
    assert not same(first, second)


@every_game_of_chance
def test_environments_of_one_array_differ(case):
    state = create(case).reset().state
    assert len(np.unique(state, axis=0)) > 1


@every_game
def test_what_follows_a_reset_depends_on_its_seed_and_the_state_alone(case):
    env, other = create(case, seed=4), create(case, seed=99)
    play(env, np.random.default_rng(0), 7)
    other.load_state_dict(env.state_dict())
    seed = np.random.SeedSequence(5, spawn_key=(1, 2))
    expected = [*env.reset(seed=seed), *play(env, np.random.default_rng(2), 20)]
    assert same([*other.reset(seed=seed), *play(other, np.random.default_rng(2), 20)], expected)


@every_game
def test_actions_outside_the_game_are_refused(case):
    env = create(case)
    env.reset()
    info = env.env_info
    legal = np.zeros((E, info.n_agents), dtype=np.int64)
    for wrong in (legal - 1, legal + info.n_actions, legal.astype(float), legal[:, :1], legal[:1]):
        with pytest.raises(ValueError, match="actions must"):
            env.step(wrong)


@every_game
def test_actions_of_an_ended_episode_may_be_anything(case):
    env = create(case)
    last = to_the_end(env, np.random.default_rng(0))
    for anything in (-1, 10**6):
        step = env.step(np.full((E, env.env_info.n_agents), anything))
        assert same(step[:3], last[:3]) and not step.reward.any()


@every_game
def test_it_draws_itself(case):
    env = create(case)
    env.reset()
    assert isinstance(env.render(), str) and env.render()


# ---------------------------------------------------------------------- a game of the user's own that breaks it

N, A = 3, 4


class Own(ArrayEnv):
    """A game with observations of 2 numbers and states of 5 whose methods answer what `answers` says."""

    def __init__(self, pixels=False, common_reward=True, **answers):
        self.answers, self.common_reward = answers, common_reward
        super().__init__(EnvInfo(N, A, 2, 5, episode_limit=9, pixels=pixels, state_pixels=pixels), E)

    def answer(self, name, usual):
        return self.answers.get(name, usual)

    def _reset(self, mask):
        pass

    def _observe(self):
        obs, state = np.zeros((E, N, 2), dtype=np.float32), np.zeros((E, 5), dtype=np.float32)
        usual = (obs, state, np.ones((E, N, A), dtype=bool))
        seen = Observation(*map(self.answer, ("obs", "state", "avail"), usual))
        return self.answer("seen", seen)

    def _step(self, actions, live):
        reward = self.answer("reward", np.ones(E))
        return self.answer("played", (reward, self.answer("over", np.zeros(E, dtype=bool))))

    def _info(self):
        return self.answer("info", {"met": np.zeros(E)})


def one_step(env):
    return env.reset(), env.step(np.zeros((E, N), dtype=np.int64))


nobody_can_act = np.ones((E, N, A), dtype=bool)
nobody_can_act[3, 1] = False
WRONG = [
    ({"state": np.zeros((E, 1))}, r"state is float64 of the shape \[5, 1\]; it must be float32 of the shape \[5, 5\]"),
    (
        {"obs": np.zeros((E, N, 3))},
        r"obs is float64 of the shape \[5, 3, 3\]; it must be float32 of the shape \[5, 3, 2\]",
    ),
    ({"obs": [[0.0]]}, "obs is of type list; it must be float32"),
    ({"obs": np.full((E, N, 2), "a")}, "obs is <U1 of"),
    ({"pixels": True}, "obs is float32 of .* it must be uint8"),
    ({"avail": np.ones((E, N, A))}, "avail is float64 .* it must be bool"),
    ({"avail": np.ones((E, A), dtype=bool)}, r"avail is bool of the shape \[5, 4\]; it must be bool of .* \[5, 3, 4\]"),
    ({"avail": nobody_can_act}, "avail leaves agent 1 of environment 3 no action"),
    ({"seen": None}, r"_observe\(\) is of type NoneType; it must be Observation"),
    ({"reward": [1.0] * E}, r"reward is of type list; it must be float32 of the shape \[5\]"),
    ({"reward": 1.0}, "reward is of type float"),
    ({"reward": np.ones((E, N))}, r"reward is .* \[5, 3\]; .* need common_reward = False"),
    ({"reward": np.ones((E, 2)), "common_reward": False}, r"reward is .* \[5, 2\]; it must be float32 .* \[5, 3\]"),
    ({"reward": [1.0] * E, "common_reward": False}, "reward is of type list"),
    ({"over": 0}, r"terminated is of type int; it must be bool of the shape \[5\]"),
    ({"over": np.zeros(E, dtype=int)}, "terminated is int64"),
    ({"over": np.bool_(False)}, "terminated is of type bool"),
    ({"played": np.ones(E)}, r"_step\(...\) is float64"),
    ({"info": {"met": 1.0}}, r"_info\(\)\['met'\] is of type float; it must be an array of the shape \[5\]"),
    ({"info": {"met": np.zeros((E, N))}}, r"_info\(\)\['met'\] is float64 of the shape \[5, 3\]"),
    ({"info": None}, r"_info\(\) is of type NoneType"),
]


@pytest.mark.parametrize("fault, said", WRONG, ids=[said for _, said in WRONG])
def test_what_a_game_gives_wrong_is_told_at_its_first_step(fault, said):
    with pytest.raises(GameError, match=f"^Own: {said}"):
        one_step(Own(**fault))


@pytest.mark.parametrize("type_", [np.float64, np.int64, np.uint8])
def test_numbers_of_another_type_become_float32(type_):
    env = Own(obs=np.full((E, N, 2), 3, type_), state=np.full((E, 5), 4, type_), reward=np.full(E, 2, type_))
    for seen in one_step(env):
        assert seen.obs.dtype == seen.state.dtype == np.float32
        assert (seen.obs == 3).all() and (seen.state == 4).all()


def test_pixels_stay_as_they_are():
    obs, state = np.full((E, N, 2), 200, np.uint8), np.full((E, 5), 100, np.uint8)
    for seen in one_step(Own(pixels=True, obs=obs, state=state)):
        assert seen.obs is obs and seen.state is state


def test_rewards_of_single_agents_are_a_row_each():
    step = one_step(Own(common_reward=False, reward=np.arange(E * N).reshape(E, N)))[1]
    assert step.reward.tolist() == np.arange(E * N).reshape(E, N).tolist()
