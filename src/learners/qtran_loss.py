"""The losses of QTRAN (Son et al. 2019, arXiv 1905.05408), one pure function for each formula.

    L    = L_td + λ_opt L_opt + λ_nopt L_nopt        (base; alt has L_nopt-min in place of L_nopt)
    D    = Q'_jt(τ,u) - Q_jt(τ,u) + V_jt(τ)          the defect: Theorems 1 and 2 ask that it be 0 at the
                                                     greedy ū and, elsewhere, at least 0 (1) or 0 in its
                                                     minimum over each agent's own action (2)
    Q'_jt(τ,u) = Σ_i Q_i(τ_i,u_i)

Axes: N agents, A actions, after any others, such as M transitions. Values of the joint action are [..., 1]. Alt has
one head for each agent, so its `q_jt` may be [..., N]: the loss is then the mean over heads.
`mask` [..., 1] is 1 on real transitions and 0 on padding; what stands in the padding, NaN included,
reaches neither a loss nor a gradient.

A hat in the paper, Q̂_jt, is a value held fixed. The detach that is the hat stands inside the functions
here (`fixed=True`). Deviation: `fixed=False` lets Q_jt learn from L_opt, L_nopt and L_nopt-min too.
Plugin file: imports torch only.
"""

import torch
from torch import Tensor


def td_target(reward: Tensor, terminated: Tensor, q_jt_next: Tensor, gamma: float) -> Tensor:
    """y = r + γ Q_jt(τ',ū';θ⁻), and y = r at a terminal step.

    reward, terminated: [..., 1]. q_jt_next: [..., 1], or [..., N] for the heads of alt.
    A time limit is not a terminal step.
    """
    return reward + gamma * torch.where(terminated.bool(), torch.zeros_like(q_jt_next), q_jt_next)


def td_loss(q_jt: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """L_td = (Q_jt(τ,u) - y)². No gradient reaches y. A scalar."""
    return mean_square(q_jt - y.detach(), mask)


def opt_loss(q_sum_opt: Tensor, q_jt_opt: Tensor, v_jt: Tensor, mask: Tensor, fixed: bool = True) -> Tensor:
    """L_opt = (Q'_jt(τ,ū) - Q̂_jt(τ,ū) + V_jt(τ))², all at the greedy joint action ū. A scalar.

    Condition (4a): the defect is 0 at ū.
    """
    return mean_square(q_sum_opt - _hat(q_jt_opt, fixed) + v_jt, mask)


def nopt_loss(q_sum: Tensor, q_jt: Tensor, v_jt: Tensor, mask: Tensor, fixed: bool = True) -> Tensor:
    """L_nopt = (min[Q'_jt(τ,u) - Q̂_jt(τ,u) + V_jt(τ), 0])², at the joint action u taken. A scalar.

    Condition (4b): the defect is nowhere below 0; equality costs nothing.
    """
    return mean_square((q_sum - _hat(q_jt, fixed) + v_jt).clamp(max=0), mask)


def nopt_min_loss(
    q_sum_cf: Tensor, q_jt_cf: Tensor, v_jt: Tensor, avail: Tensor, mask: Tensor, fixed: bool = True
) -> Tensor:
    """L_nopt-min = 1/N Σ_i (min_{u_i} D(τ,u_i,u_-i))², both signs penalised. A scalar.

    Condition (7), which implies (4b). q_sum_cf, q_jt_cf: Q'_jt and Q_jt of (·, u_-i), [..., N, A].
    avail: [..., N, A], nonzero where agent i may choose the action; the minimum is over those.
    """
    defect = q_sum_cf - _hat(q_jt_cf, fixed) + v_jt.unsqueeze(-1)  # [..., N, A]
    # Padding goes before the minimum, whose gradient would be NaN where its value is.
    possible = avail.bool() & mask.bool().unsqueeze(-1)
    defect = torch.where(possible, defect, torch.full_like(defect, torch.inf))
    return mean_square(defect.amin(dim=-1), mask)  # the minimum is [..., N]


def counterfactual_sum(q: Tensor, q_taken: Tensor) -> Tensor:
    """Q'_jt(τ,u_i,u_-i) = Q_i(τ_i,u_i) + Σ_{j≠i} Q_j(τ_j,u_j) for every agent i and every u_i: [..., N, A].

    q: Q_i(τ_i,·), [..., N, A]. q_taken: Q_i(τ_i,u_i), [..., N].
    """
    q_taken = q_taken.reshape(q.shape[:-1])
    others = q_taken.sum(dim=-1, keepdim=True) - q_taken  # Σ_{j≠i} [..., N]
    return q + others.unsqueeze(-1)


def mean_square(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of error² [..., K] over the K values and over the real transitions."""
    error = torch.where(mask.bool(), error, torch.zeros_like(error))
    return error.square().mean(dim=-1).sum() / mask.sum().clamp(min=1)


def _hat(q_jt: Tensor, fixed: bool) -> Tensor:
    return q_jt.detach() if fixed else q_jt
