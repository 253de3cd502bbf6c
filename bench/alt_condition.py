"""Can QTRAN-alt's condition be met? Condition (7) in tables, without networks or sampling.

    python bench/alt_condition.py

For random payoffs P, uniform in [-1, 1], and the optimal joint action ū, minimises over free tables Q_i and a
free number V what alt minimises once Q_jt is exact:

    D(u) = Σ_i Q_i(u_i) - P(u) + V        D(ū)² + 1/N Σ_i mean_u (min_{u_i} D(u_i, u_-i))²

and prints the least value found (Adam, several starts, median and range over payoffs). With two agents it is 0:
condition (7) can be met for any payoff. With three or more it is not: there are N·A^(N-1) lines whose minimum
must be 0, and only N·A free values. Where the condition cannot be met, the losses pull against each other, and
nothing guarantees that the greedy joint action is the best one. Base asks for D ≥ 0 only, which any payoff allows.
"""

import argparse

import numpy as np
import torch
from numpy.typing import NDArray


def least_loss(payoff: NDArray[np.float64], starts: int = 6, steps: int = 1500) -> float:
    """The smallest loss that `starts` descents find for one payoff [A_1, …, A_N]."""
    shape, n = payoff.shape, payoff.ndim
    best = np.unravel_index(int(payoff.argmax()), shape)
    q = [torch.randn(starts, a).requires_grad_() for a in shape]
    v = torch.zeros(starts, requires_grad=True)
    optimiser = torch.optim.Adam([*q, v], lr=0.05)
    loss = torch.zeros(starts)
    for step in range(steps):
        if step == steps * 2 // 3:
            optimiser.param_groups[0]["lr"] = 0.005
        defect = v.view(starts, *[1] * n) - torch.as_tensor(payoff)  # [starts, A_1, …, A_N]
        for i, q_i in enumerate(q):
            defect = defect + q_i.view(starts, *[shape[i] if k == i else 1 for k in range(n)])
        lines = sum(defect.amin(dim=1 + i).square().flatten(1).mean(dim=1) for i in range(n)) / n
        loss = defect[(slice(None), *best)].square() + lines  # [starts]
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    return loss.min().item()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--payoffs", type=int, default=10, help="random payoffs of each shape, seeds 0, 1, …")
    options = p.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print("actions of each agent   least loss: median (smallest to largest)")
    for shape in ((3, 3), (10, 10), (2, 2, 2), (3, 3, 3), (4, 4, 4)):
        losses = []
        for seed in range(options.payoffs):
            torch.manual_seed(seed)
            losses.append(least_loss(np.random.default_rng(seed).uniform(-1, 1, shape)))
        print(f"{shape!s:<22}  {np.median(losses):.5f} ({min(losses):.5f} to {max(losses):.5f})", flush=True)


if __name__ == "__main__":
    main()
