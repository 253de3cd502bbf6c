"""The controller acts on what it will later learn from."""

import numpy as np
import pytest
import torch
from helpers import SilentLogger, groups, make_args, random_batch, same, scheme

import envs
from components.episode_buffer import make_scheme
from controllers import MAC, METHODS, mac_class
from runners import runner_class
from utils.args import ConfigError, TrainingError

every_agent = pytest.mark.parametrize(
    "overrides",
    [{}, {"agent": "rnn_ns"}, {"use_rnn": False}, {"obs_last_action": False}, {"obs_agent_id": False}],
    ids=str,
)


def make_mac(seed=0, **overrides):
    torch.manual_seed(seed)
    args = make_args("iql", **overrides)
    return mac_class(args.mac)(scheme(args), groups(args), args), args


@every_agent
def test_acting_equals_unrolling_the_episode(overrides):
    mac, args = make_mac(**overrides)
    batch = random_batch(np.random.default_rng(0), args, B=9)
    q, h = mac.unroll(batch)
    for _ in range(2):  # a second episode must not remember the first
        mac.init_hidden(9)
        last = None
        for t in range(batch.max_seq_length):
            q_now, real = torch.from_numpy(mac.step(batch["obs"][:, t].numpy(), last)), batch["filled"][:, t, 0]
            torch.testing.assert_close(q_now[real], q[real, t])
            torch.testing.assert_close(mac.hidden_states[real], h[real, t])
            last = batch["actions"][:, t, :, 0].long().numpy()


@every_agent
def test_the_order_of_episodes_does_not_matter(overrides):
    mac, args = make_mac(**overrides)
    batch = random_batch(np.random.default_rng(0), args, B=9)
    order = torch.tensor([4, 0, 8, 2, 1, 7, 3, 6, 5])
    real = batch["filled"][order, :, 0]
    for by_length, shuffled in zip(mac.unroll(batch), mac.unroll(batch[order])):
        torch.testing.assert_close(by_length[order][real], shuffled[real])


@every_agent
def test_greedy_play_of_the_runner_is_greedy_in_the_episodes_it_stored(overrides):
    game = {"map_size": 5, "n_predators": 3, "n_prey": 1, "penalty": 0.5, "sight": 2, "episode_limit": 7}
    game["encoding"] = "numbers"
    env = envs.make("predator_prey", game, n_envs=4, seed=0)
    info = env.env_info
    mac, args = make_mac(
        n_agents=info.n_agents, n_actions=info.n_actions, obs_shape=info.obs_shape, state_shape=info.state_shape,
        **overrides,
    )  # fmt: skip
    runner = runner_class("episode")(env, mac, make_scheme(info, True), groups(args), SilentLogger(), args)
    for _ in range(2):
        batch = runner.run(test_mode=True)
        assert batch["filled"].all()  # the observation after the last step too
        q, _ = mac.unroll(batch)
        greedy = torch.where(batch["avail_actions"], q, -torch.inf).argmax(dim=-1)
        assert torch.equal(greedy[:, :-1], batch["actions"][:, :-1, :, 0].long())


def test_exploring_play_takes_available_actions_only():
    mac, args = make_mac(epsilon_start=0.5, epsilon_finish=0.5)
    batch = random_batch(np.random.default_rng(0), args, B=2)
    mac.init_hidden(2)
    last = None
    for t in range(5):
        avail = batch["avail_actions"][:, t].numpy()
        last = mac.select_actions(batch["obs"][:, t].numpy(), avail, last, t_env=0)
        assert last.shape == (2, args.n_agents) and last.dtype == np.int64
        assert np.take_along_axis(avail, last[..., None], axis=-1).all()


@pytest.mark.parametrize("finish", [1.0, 0.5])
def test_the_values_steer_the_actions_unless_all_are_random_for_good(finish):
    """Where ε stays 1 nothing is computed; where it is only 1 now, the history still counts later."""
    mac, args = make_mac(epsilon_start=1.0, epsilon_finish=finish, epsilon_anneal_time=10)
    batch = random_batch(np.random.default_rng(0), args, B=2)
    mac.init_hidden(2)
    mac.select_actions(batch["obs"][:, 0].numpy(), batch["avail_actions"][:, 0].numpy(), None, t_env=0)
    assert bool(mac.hidden_states.any()) == (finish < 1)
    mac.select_actions(batch["obs"][:, 0].numpy(), batch["avail_actions"][:, 0].numpy(), None, t_env=0, test_mode=True)
    assert mac.hidden_states.any()


def test_diverged_weights_stop_the_run():
    mac, args = make_mac()
    batch = random_batch(np.random.default_rng(0), args, B=2)
    with torch.no_grad():
        mac.agent.fc2.bias[0] = torch.nan
    mac.init_hidden(2)
    with pytest.raises(TrainingError, match="t_env 70"):
        mac.select_actions(batch["obs"][:, 0].numpy(), batch["avail_actions"][:, 0].numpy(), None, t_env=70)


def test_weights_go_to_disk_and_to_another_controller(tmp_path):
    (mac, _), (other, _), (third, _) = (make_mac(seed) for seed in range(3))
    mac.save_models(tmp_path)
    other.load_models(tmp_path)
    third.load_state(mac)
    assert same(list(mac.parameters()), list(other.parameters()))
    assert same(list(mac.parameters()), list(third.parameters()))
    with pytest.raises(ConfigError, match="agent.th"):
        make_mac(hidden_dim=9)[0].load_models(tmp_path)


@pytest.mark.parametrize("name", ["basic_mac", "non_shared_mac"])
@pytest.mark.parametrize("agent", ["rnn", "rnn_ns"])
def test_epymarls_names_of_controllers(name, agent):
    mac, args = make_mac(mac=name, agent=agent)
    assert mac.unroll(random_batch(np.random.default_rng(0), args))[0].shape == (4, 6, 3, 4)


def test_a_controller_of_ones_own_is_asked_for_all_that_is_called():
    assert {name for name, value in vars(MAC).items() if callable(value) and name[0] != "_"} == set(METHODS)
