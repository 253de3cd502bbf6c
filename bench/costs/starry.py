"""The side of MARL-Algorithms, whose QTRAN-alt many have used (github.com/starry-sky6688/MARL-Algorithms)."""

import sys
from types import SimpleNamespace

from costs.sides import Made
from costs.sizes import Sizes, fields


def update(path: str, sizes: dict, device: str, threads: int) -> Made:
    """Work: one update of its QTRAN-alt on one batch of random episodes, which it gets as numpy arrays, as its own
    replay gives them. It needs no repair."""
    sys.path.insert(0, path)
    import numpy as np
    import torch
    from policy.qtran_alt import QtranAlt

    torch.set_num_threads(threads)
    size = Sizes(**sizes)
    args = SimpleNamespace(
        n_agents=size.agents, n_actions=size.actions, obs_shape=size.obs, state_shape=size.state, last_action=True,
        reuse_network=True, rnn_hidden_dim=64, qtran_hidden_dim=64, optimizer="RMS", lr=5e-4, gamma=0.99,
        lambda_opt=1.0, lambda_nopt=0.1, grad_norm_clip=10, target_update_cycle=200, cuda=device == "cuda",
        model_dir="none", alg="qtran_alt", map="none", load_model=False,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = QtranAlt(args)
    f = {k: v.numpy() for k, v in fields(torch, size).items()}
    one_hot = np.eye(size.actions, dtype=np.float32)[f["actions"][..., 0]] * f["filled"][..., None]
    now, then = slice(None, -1), slice(1, None)
    padded = 1 - f["filled"][:, then]
    arrays = {
        "o": f["obs"][:, now], "o_next": f["obs"][:, then], "s": f["state"][:, now], "s_next": f["state"][:, then],
        "u": f["actions"][:, now], "u_onehot": one_hot[:, now], "r": f["reward"][:, now],
        "avail_u": f["avail_actions"][:, now], "avail_u_next": f["avail_actions"][:, then],
        "terminated": np.maximum(f["terminated"][:, now], padded), "padded": padded,
    }  # fmt: skip

    def work() -> dict:
        policy.learn(dict(arrays), size.steps, 1)  # it puts tensors in the place of the arrays
        return {"updates": 1}

    work()
    return work, {"repairs": []}
