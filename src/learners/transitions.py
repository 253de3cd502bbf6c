"""What learners read off a batch of episodes: transitions, values over time, TD(λ) targets.

Axes: B episodes, T transitions (a batch has T+1 observations), N agents, A actions, H hidden, S state. A batch's
B·(T+1) steps are counted one episode after the other. Of those that were played, M transitions, all that learning
reads stands one after the other, without the padding between: [M, ...].
Plugin file: imports torch, the standard library and other plugin files; the batch and the controller
(MAC) may be this project's, EPyMARL's or PyMARL's.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learners.qtran_loss import td_target


class Batch(Protocol):
    """Episodes: `batch["obs"]` [B, T+1, …] reads a field."""

    batch_size: int
    max_seq_length: int

    @property
    def scheme(self) -> Mapping[str, Any]:
        """What is known of each field, by its name."""
        ...

    def __getitem__(self, item: str, /) -> Tensor: ...


class MAC(Protocol):
    """What every controller has. This project's has `unroll(batch, index)` too; others are stepped, see SteppedMAC."""

    agent: Any  # a network; each framework has a class of its own

    def parameters(self) -> Iterable[nn.Parameter]: ...
    def cuda(self) -> None: ...
    def save_models(self, path: Any, /) -> None: ...


class SteppedMAC(MAC, Protocol):
    """A controller that gives values step by step, as EPyMARL's and PyMARL's."""

    hidden_states: Tensor  # [B*N, H] or [B, N, H]

    def init_hidden(self, batch_size: int) -> None: ...
    def forward(self, ep_batch: Any, /, t: int) -> Tensor: ...


class Rollout(NamedTuple):
    q: torch.Tensor  # Q_i(τ_i,·), [R, N, A]
    h: torch.Tensor  # hidden states, [R, N, H]


class Steps(NamedTuple):
    """Which steps of a batch are learned from."""

    now: torch.Tensor  # int64 [M]: the step t of each transition; t+1 is the next one
    online: torch.Tensor  # int64 [R], what the online network is asked for: `now`; for double-Q then each last step
    after: torch.Tensor  # int64 [M]: where t+1 stands in `online`, for double-Q
    goes_on: torch.Tensor  # bool [M, 1]: t+1 begins the next transition of the same episode


class Transitions(NamedTuple):
    """A batch as the formulas need it."""

    state: torch.Tensor  # [M, S]
    avail: torch.Tensor  # bool [R, N, A], of the steps `online`, the first of which are t
    actions: torch.Tensor  # u, int64 [M, N]
    reward: torch.Tensor  # [M, 1], or [M, N] without a common reward
    terminated: torch.Tensor  # bool [M, 1]; nothing is bootstrapped past these
    mask: torch.Tensor  # [M, 1]; 1, but on a GPU 0 where there is padding
    steps: Steps


def unroll(mac: MAC, batch: Batch, index: Tensor | None = None, agent: nn.Module | None = None) -> Rollout:
    """Rollout of `mac` over a batch, at the steps `index`, int64 [R]; without it q [B, T+1, N, A] and h [B, T+1, N, H].
    agent: a network in place of the MAC's own.

    In one call where the MAC has `unroll`; else step by step, taking hidden states of [B*N, H] (shared agents) and
    [B, N, H] (one network for each agent).
    """
    if agent is not None:
        mac = copy.copy(mac)
        mac.agent = agent
    if hasattr(mac, "unroll"):
        return Rollout(*cast(Any, mac).unroll(batch, index))
    stepped = cast(SteppedMAC, mac)
    stepped.init_hidden(batch.batch_size)
    qs, hs = [], []
    for t in range(batch.max_seq_length):
        qs.append(stepped.forward(batch, t=t))  # [B, N, A]
        # [B*N, H] holds the agents of one episode next to each other, so this splits a merged axis.
        hs.append(stepped.hidden_states.reshape(batch.batch_size, qs[-1].shape[1], -1))  # [B, N, H]
    q, h = torch.stack(qs, dim=1), torch.stack(hs, dim=1)
    return Rollout(q, h) if index is None else Rollout(at(q, index), at(h, index))


def at(x: Tensor, index: Tensor) -> Tensor:
    """The steps `index` [R] of x [B, T+1, ...]: [R, ...]."""
    return x.flatten(end_dim=1).index_select(0, index)


def transition_mask(batch: Batch) -> Tensor:
    """1 where a transition is real, else 0: [B, T, 1].

    A transition is real when the observation after it was stored and nothing before it ended the
    episode. (The observation rule also ends an episode that a time limit cut short.)
    """
    filled = batch["filled"].float()
    going_on = 1 - batch["terminated"][:, :-1].float()
    before = torch.cat([torch.ones_like(going_on[:, :1]), going_on[:, :-1].cumprod(dim=1)], dim=1)
    return filled[:, :-1] * filled[:, 1:] * before


def learned_steps(mask: Tensor, double_q: bool) -> Steps:
    """The Steps of a batch with the transition mask [B, T, 1]. On a GPU they are all: to know which of them are real
    the processor would have to wait for it."""
    b, t = mask.shape[:2]
    index = torch.arange(b * (t + 1), device=mask.device).view(b, t + 1)
    if mask.is_cuda:
        now, ends = index[:, :-1].flatten(), index[:, -1]
        last = torch.arange(t - 1, b * t, t, device=mask.device)
        goes_on = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1).flatten(end_dim=1).bool()
    else:
        real = F.pad(mask.squeeze(-1).bool(), (0, 1)).flatten()  # after the last transition there is no other
        now = real.nonzero().squeeze(-1)
        goes_on = real[now + 1].unsqueeze(-1)
        last = (~goes_on).squeeze(-1).nonzero().squeeze(-1)
        ends = now[last] + 1
    after = torch.arange(1, len(now) + 1, device=mask.device)
    after[last] = len(now) + torch.arange(len(last), device=mask.device)
    return Steps(now, torch.cat([now, ends]) if double_q else now, after, goes_on)


def greedy_actions(q: Tensor, avail: Tensor) -> Tensor:
    """argmax over available actions of q [..., A]: int64 [...]. avail: bool [..., A]."""
    return torch.where(avail, q, torch.full_like(q, -torch.inf)).argmax(dim=-1)


def chosen(q: Tensor, actions: Tensor) -> Tensor:
    """q [..., A] at actions [...]."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def lambda_target(
    reward: Tensor,
    terminated: Tensor,
    next_value: Tensor,
    goes_on: Tensor,
    gamma: float,
    td_lambda: float,
    longest: int,
) -> Tensor:
    """y_t = r_t + γ [(1-λ) V_{t+1} + λ y_{t+1}], and with V_{t+1} alone where t+1 is not a real transition.

    reward, terminated, goes_on: [M, 1] (`Steps`); next_value V_{t+1}: [M, K]. λ = 0 is the one-step target. longest: at
    least the transitions of the longest episode.
    """
    if td_lambda == 0:
        return td_target(reward, terminated, next_value, gamma)
    y = td_target(reward, terminated, torch.where(goes_on, (1 - td_lambda) * next_value, next_value), gamma)
    weight = gamma * td_lambda * (goes_on & ~terminated.bool()).to(y.dtype)  # of the next y, in y
    ahead = 1
    while ahead < longest:  # y and weight reach `ahead` steps, and twice as many after this
        follows = torch.where(weight[:-ahead] > 0, weight[:-ahead] * y[ahead:], torch.zeros_like(y[ahead:]))
        y = torch.cat([y[:-ahead] + follows, y[-ahead:]])
        weight = torch.cat([weight[:-ahead] * weight[ahead:], torch.zeros_like(weight[-ahead:])])
        ahead *= 2
    return y
