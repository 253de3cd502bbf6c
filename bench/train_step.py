"""One QTRAN-base update, ours against EPyMARL's, interleaved: the ratio of CPU times.

    python bench/train_step.py --peer PATH_OF_AN_EPYMARL_CHECKOUT

Both learn from the same kind of batch (random episodes, the shapes of SMAC's 2s3z by default) with PyMARL's settings:
GRU 64, state in Q_jt and V_jt, double-Q, RMSprop, clip 10. All episodes are as long as can be, or, with --shortest 30,
their lengths are spread evenly from 30 to --steps: ours leaves padding out, EPyMARL's computes and masks it.

EPyMARL's QTRAN does not start as shipped (its issue 2: its mixer and learner read keys that its configuration
renamed); here it gets those keys, and its code is not touched. Each side lives in a process of its own with one thread;
they update in turn, so that both see the same machine. Without --peer only ours is timed.

The floor: the products of matrices in our update at the rate of one large product, measured in the same turns. What
lies above it are small products, everything that is not a product, and Python.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

SRC = str(Path(__file__).resolve().parents[1] / "src")


class Silent:
    def log_stat(self, *words):
        pass


def lengths(sizes):
    """Transitions of each episode, the longest first, as our replay samples them."""
    longest, shortest, n = sizes["steps"], sizes["shortest"] or sizes["steps"], sizes["batch"]
    return [round(longest - (longest - shortest) * i / max(n - 1, 1)) for i in range(n)]


def fields(torch, sizes, seed=0):
    """A random batch {name: [B, T+1, …]} of episodes that end at their last step."""
    g = torch.Generator().manual_seed(seed)
    b, t, n, a = sizes["batch"], sizes["steps"] + 1, sizes["agents"], sizes["actions"]
    avail = torch.rand(b, t, n, a, generator=g) < 0.7
    avail[..., 0] = True
    actions = torch.where(avail, torch.rand(b, t, n, a, generator=g), torch.tensor(-1.0)).argmax(-1, keepdim=True)
    terminated = torch.zeros(b, t, 1)
    filled = torch.zeros(b, t, 1)
    for i, length in enumerate(lengths(sizes)):
        terminated[i, length - 1], filled[i, : length + 1] = 1, 1
    return {
        "filled": filled,
        "state": torch.randn(b, t, sizes["state"], generator=g),
        "obs": torch.randn(b, t, n, sizes["obs"], generator=g),
        "actions": actions,
        "avail_actions": avail.int(),
        "reward": torch.randn(b, t, 1, generator=g),
        "terminated": terminated,
    }


def ours(sizes):
    """A function that makes one update."""
    sys.path.insert(0, SRC)
    import torch

    from components.episode_buffer import EpisodeBatch, make_scheme
    from controllers import mac_class
    from envs.vector import EnvInfo
    from learners import learner_class
    from parts import readers
    from utils.config import load

    pymarl = {
        "optimizer": "rmsprop", "double_q": True, "joint_use_state": True, "v_input": "state", "use_rnn": True,
        "obs_last_action": True, "hidden_dim": 64, "head_layers": 0, "mixing_embed_dim": 64,
        "target_update_interval_or_tau": 200, "target_update_unit": "episodes", "grad_norm_clip": 10,
    }  # fmt: skip
    values = load("qtran_base", "two_step", {"seed": 0, **pymarl}, readers).values
    info = EnvInfo(sizes["agents"], sizes["actions"], sizes["obs"], sizes["state"], sizes["steps"])
    args = SimpleNamespace(**values, **vars(info), device="cpu")
    scheme, groups = make_scheme(info, True), {"agents": info.n_agents}
    mac = mac_class(args.mac)(scheme, groups, args)
    learner = learner_class(args.learner)(mac, scheme, Silent(), args)
    batch = EpisodeBatch(scheme, groups, sizes["batch"], sizes["steps"] + 1)
    batch.update(fields(torch, sizes), mark_filled=False)
    return lambda: learner.train(batch, 0, 0)


def epymarl(sizes, path):
    """The same for an EPyMARL checkout."""
    sys.path.insert(0, str(Path(path) / "src"))
    import torch
    from components.transforms import OneHot

    from components.episode_buffer import EpisodeBatch
    from controllers import REGISTRY
    from learners.qtran_learner import QLearner

    args = SimpleNamespace(
        n_agents=sizes["agents"], n_actions=sizes["actions"], state_shape=sizes["state"], obs_agent_id=True,
        obs_last_action=True, obs_individual_obs=False, agent="rnn", agent_output_type="q", use_rnn=True, head_layers=0,
        hidden_dim=64, rnn_hidden_dim=64, action_selector="epsilon_greedy", epsilon_start=1.0, epsilon_finish=0.05,
        epsilon_anneal_time=50000, evaluation_epsilon=0.0, common_reward=True, mixer="qtran_base",
        mixing_embed_dim=64, qtran_arch="qtran_paper", network_size="small", opt_loss=1, nopt_min_loss=0.1, lr=5e-4,
        optim_alpha=0.99, optim_eps=1e-5, grad_norm_clip=10, double_q=True, gamma=0.99, target_update_interval=200,
        learner_log_interval=10**9, device="cpu", use_cuda=False,
    )  # fmt: skip
    group = {"group": "agents"}
    scheme = {
        "state": {"vshape": sizes["state"]},
        "obs": {"vshape": sizes["obs"], **group},
        "actions": {"vshape": (1,), "dtype": torch.long, **group},
        "avail_actions": {"vshape": (sizes["actions"],), "dtype": torch.int, **group},
        "reward": {"vshape": (1,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }
    onehot = {"actions": ("actions_onehot", [OneHot(out_dim=sizes["actions"])])}
    groups = {"agents": sizes["agents"]}
    batch = EpisodeBatch(scheme, groups, sizes["batch"], sizes["steps"] + 1, preprocess=onehot)
    batch.update(fields(torch, sizes), mark_filled=False)
    mac = REGISTRY["basic_mac"](batch.scheme, groups, args)
    learner = QLearner(mac, batch.scheme, Silent(), args)
    return lambda: learner.train(batch, 0, 0)


def gemm(sizes):
    """A function that makes one large product of matrices."""
    import torch

    a, b = torch.randn(2048, 1024), torch.randn(1024, 1024)
    return lambda: torch.mm(a, b)


def serve(pipe, make, *arguments):
    """Send the floating-point operations of the products in one update, then its CPU time for each message."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    update = make(*arguments)
    update()
    with FlopCounterMode(display=False) as counter:
        update()
    pipe.send(counter.get_total_flops())
    while pipe.recv():
        start = time.process_time()
        update()
        pipe.send(time.process_time() - start)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", help="an EPyMARL checkout")
    p.add_argument("--repeats", type=int, default=15)
    p.add_argument("--shortest", type=int, help="length of the shortest episode (default: --steps)")
    for name, size in (("batch", 32), ("steps", 120), ("agents", 5), ("actions", 11), ("obs", 80), ("state", 120)):
        p.add_argument(f"--{name}", type=int, default=size)
    options = p.parse_args()
    sides = {"ours": (ours, vars(options))}
    if options.peer:
        sides["EPyMARL"] = (epymarl, vars(options), options.peer)
    sides["product"] = (gemm, vars(options))
    context, pipes, times = multiprocessing.get_context("spawn"), {}, {name: [] for name in sides}
    for name, work in sides.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, *work), daemon=True).start()
        theirs.close()
    flops = {name: pipe.recv() for name, pipe in pipes.items()}
    for _ in range(options.repeats):
        for name, pipe in pipes.items():
            pipe.send(True)
            times[name].append(pipe.recv())
    for name, values in times.items():
        spread = f"{1e3 * min(values):.0f} to {1e3 * max(values):.0f}, {len(values)} times"
        print(
            f"{name:<8} median {1e3 * statistics.median(values):.0f} ms of CPU time   ({spread})"
            f"   {flops[name] / 1e9:.1f} GFLOP in products"
        )
    if options.peer:
        show("EPyMARL / ours", [b / a for a, b in zip(times["ours"], times["EPyMARL"])])
    floors = [flops["ours"] / flops["product"] * seconds for seconds in times["product"]]
    show("ours / floor", [a / b for a, b in zip(times["ours"], floors)])


def show(name, ratios):
    print(f"{name}: median {statistics.median(ratios):.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
