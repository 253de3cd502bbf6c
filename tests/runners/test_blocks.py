"""What lets any actor play any environment: a row of a block depends on its place, never on what the others hold."""

import numpy as np
import pytest
import torch
from helpers import groups, make_args, scheme

from controllers import mac_class
from runners.seats import BLOCK


@pytest.mark.parametrize("agent", ["rnn", "rnn_ns"])
@pytest.mark.parametrize(("hidden", "sizes"), [(64, (3, 4, 5)), (128, (5, 11, 80)), (64, (10, 17, 285))])
def test_the_other_rows_of_a_block_change_no_bit(agent, hidden, sizes):
    n_agents, n_actions, obs_shape = sizes
    args = make_args(
        "qmix", agent=agent, hidden_dim=hidden, n_agents=n_agents, n_actions=n_actions, obs_shape=obs_shape
    )
    torch.manual_seed(0)
    mac = mac_class(args.mac)(scheme(args), groups(args), args)
    rng, act = np.random.default_rng(1), mac.acting(mac.agent)
    obs = torch.from_numpy(rng.normal(size=(BLOCK, n_agents, obs_shape)).astype(np.float32)).clone()
    last = torch.from_numpy(rng.integers(n_actions + 1, size=(BLOCK, n_agents)))
    hidden_states = torch.from_numpy(rng.normal(size=(BLOCK, n_agents, hidden)).astype(np.float32)).clone()
    q, after = mac.values(act, obs, last, hidden_states)
    for row in range(BLOCK):
        for other in (0.0, 1e6, -3.5):
            alone, no_action, forgotten = (x.clone() for x in (obs, last, hidden_states))
            mask = torch.arange(BLOCK) != row
            alone[mask], forgotten[mask], no_action[mask] = other, min(other, 1.0), n_actions
            q_alone, after_alone = mac.values(act, alone, no_action, forgotten)
            assert (q_alone[row] == q[row]).all() and torch.equal(after_alone[row], after[row])
