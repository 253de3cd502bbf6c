"""What learners read off a batch of episodes: transitions, values over time, TD(λ) targets.

Axes: B episodes, T transitions (a batch has T+1 observations), N agents, A actions, H hidden, S state.
Plugin file: imports torch, the standard library and other plugin files; the batch and the controller
(MAC) may be this project's, EPyMARL's or PyMARL's.
"""

from typing import NamedTuple

import torch

from learners.qtran_loss import td_target


class Rollout(NamedTuple):
    q: torch.Tensor  # Q_i(τ_i,·), [B, T+1, N, A]
    h: torch.Tensor  # hidden states, [B, T+1, N, H]


class Transitions(NamedTuple):
    """A batch as the formulas need it."""

    state: torch.Tensor  # [B, T+1, S]
    avail: torch.Tensor  # bool [B, T+1, N, A]; where none is available (padding), all are
    actions: torch.Tensor  # u, int64 [B, T, N]
    reward: torch.Tensor  # [B, T, 1], or [B, T, N] without a common reward
    terminated: torch.Tensor  # [B, T, 1]; nothing is bootstrapped past these
    mask: torch.Tensor  # [B, T, 1]; 1 on real transitions, 0 on padding


def unroll(mac, batch):
    """Rollout of `mac` over a batch. In one call where the MAC has `unroll`; else step by step, taking
    hidden states of [B*N, H] (shared agents) and [B, N, H] (one network for each agent)."""
    if hasattr(mac, "unroll"):
        return Rollout(*mac.unroll(batch))
    mac.init_hidden(batch.batch_size)
    q, h = [], []
    for t in range(batch.max_seq_length):
        q.append(mac.forward(batch, t=t))  # [B, N, A]
        # [B*N, H] holds the agents of one episode next to each other, so this splits a merged axis.
        h.append(mac.hidden_states.reshape(batch.batch_size, q[-1].shape[1], -1))  # [B, N, H]
    return Rollout(torch.stack(q, dim=1), torch.stack(h, dim=1))


def transition_mask(batch):
    """1 where a transition is real, else 0: [B, T, 1].

    A transition is real when the observation after it was stored and nothing before it ended the
    episode. (The observation rule also ends an episode that a time limit cut short.)
    """
    filled = batch["filled"].float()
    going_on = 1 - batch["terminated"][:, :-1].float()
    before = torch.cat([torch.ones_like(going_on[:, :1]), going_on[:, :-1].cumprod(dim=1)], dim=1)
    return filled[:, :-1] * filled[:, 1:] * before


def real_steps(mask, *tensors):
    """The real steps of each tensor [B, T, ...] in a row, [1, M, ...]: what reads no history need not see padding.

    mask: [B, T, 1]. Where all steps are real the tensors come back as they are.
    """
    real = mask.flatten().nonzero().squeeze(-1)  # [M]
    if len(real) == mask.numel():
        return tensors
    return tuple(x.flatten(end_dim=1)[real].unsqueeze(0) for x in tensors)


def in_place(mask, values):
    """The opposite for one tensor: real steps [1, M, K] (or all, [B, T, K]) at their places in [B, T, K], else 0."""
    if values.shape[:2] == mask.shape[:2]:
        return values
    placed = values.new_zeros(*mask.shape[:2], values.shape[-1])
    placed[mask.bool().squeeze(-1)] = values[0]
    return placed


def greedy_actions(q, avail):
    """argmax over available actions of q [..., A]: int64 [...]. avail: bool [..., A]."""
    return torch.where(avail, q, torch.full_like(q, -torch.inf)).argmax(dim=-1)


def chosen(q, actions):
    """q [..., A] at actions [...]."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def lambda_target(reward, terminated, next_value, mask, gamma, td_lambda):
    """y_t = r_t + γ [(1-λ) V_{t+1} + λ y_{t+1}], and with V_{t+1} alone where t+1 is not a real transition.

    reward, terminated, mask: [B, T, 1]; next_value V_{t+1}: [B, T, K]. λ = 0 is the one-step target.
    """
    if td_lambda == 0:
        return td_target(reward, terminated, next_value, gamma)
    last = td_target(reward[:, -1], terminated[:, -1], next_value[:, -1], gamma)
    ys = [last]
    for t in reversed(range(reward.shape[1] - 1)):
        mixed = (1 - td_lambda) * next_value[:, t] + td_lambda * last
        following = torch.where(mask[:, t + 1].bool(), mixed, next_value[:, t])
        last = td_target(reward[:, t], terminated[:, t], following, gamma)
        ys.append(last)
    return torch.stack(ys[::-1], dim=1)
