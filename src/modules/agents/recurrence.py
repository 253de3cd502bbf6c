"""The hidden states of recurrent agents over whole episodes, on a CPU: recurrence.cpp as an operation of torch.

Axes: B episodes, T steps, N agents, O observation, A actions, H hidden, R results.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modules.agents.compiled import NotCompiled, library
from utils.args import ConfigError

KERNELS = ("auto", "plain", "fast")
AT_ONCE = 96  # agents that go through time together: what they need fits into the cache of a core
MULTIPLE = 32  # of the hidden width: COLS of recurrence.cpp divides it


def choose(kernels: str) -> tuple[str, str]:
    """("fast" or "plain", why) for a value of the key `kernels`. ConfigError where "fast" cannot be had."""
    if kernels == "plain":
        return "plain", "kernels=plain"
    found, why_not = _library()
    if found is not None:
        return "fast", "compiled on this machine"
    if kernels == "fast":
        raise ConfigError(f"kernels=fast: {why_not}; kernels=plain needs no compiler")
    return "plain", why_not


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none: asked once in a process."""
    try:
        return library(Path(__file__).with_suffix(".cpp")), ""
    except NotCompiled as error:
        return None, str(error)


class _Episodes(ctypes.Structure):
    """Episodes of recurrence.cpp."""

    _numbers = (
        "count", "steps", "agents", "obs", "actions", "hidden",
        "obs_episode", "obs_step", "action_episode", "action_step",
    )  # fmt: skip
    _arrays = ("order", "going_on", "place", "observations", "last_actions")
    _fields_ = [
        *((name, ctypes.c_int64) for name in _numbers),
        *((name, ctypes.c_void_p) for name in _arrays),
        *((name, ctypes.c_int64) for name in ("at_once", "threads")),
    ]


def hidden_states(
    obs: Tensor, last_action: Tensor, w_obs: Tensor, columns: Tensor, own: Tensor, index: Tensor, cell: nn.GRUCell
) -> Tensor:
    """Hidden states [R, N, H] of a first layer and a GRU cell, from zero ones, at the steps `index` [R] of all B·T.

    obs [B, T, N, O], last_action [B, T, N] in 0 … A; w_obs [H, O], columns [A+1, H] and own [N, H]: what the first
    layer makes of an observation, of the last action and of who the agent is. float32, on a CPU.
    """
    hidden = w_obs.shape[0]
    gates = [x.unflatten(0, (3, hidden)) for x in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
    more = -hidden % MULTIPLE
    if more:  # what is added is 0, stays 0, and is cut off again
        w_obs, columns, own = F.pad(w_obs, (0, 0, 0, more)), F.pad(columns, (0, more)), F.pad(own, (0, more))
        gates = [F.pad(x, (0, more) * (x.dim() - 1)) for x in gates]
    w_ih, w_hh, b_ih, b_hh = gates  # [3, H, H] and [3, H]
    biases = torch.cat([b_ih[:2] + b_hh[:2], b_ih[2:], b_hh[2:]])  # [4, H], as the file has them
    h = _HiddenStates.apply(obs, last_action, index, w_obs, columns, own, w_ih, w_hh, biases)
    return h[..., :hidden] if more else h


class _HiddenStates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        obs: Tensor,
        last_action: Tensor,
        index: Tensor,
        w_obs: Tensor,
        columns: Tensor,
        own: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        biases: Tensor,
    ) -> Tensor:
        (n_steps, n_agents, n_obs), hidden, n_columns = obs.shape[1:], w_obs.shape[0], len(columns)
        lowest, highest = last_action.aminmax()
        if not 0 <= lowest <= highest < n_columns:
            raise IndexError(f"last actions {int(lowest)} … {int(highest)}, of 0 … {n_columns - 1}")
        obs = obs if obs.stride()[2:] == (n_obs, 1) else obs.contiguous()
        last_action = last_action if last_action.stride(2) == 1 else last_action.contiguous()
        order, going_on, place = _plan(index, len(obs), n_steps)
        threads = torch.get_num_threads()
        at_once = min(AT_ONCE // n_agents, -(-len(obs) // threads))
        numbers = (
            len(obs), len(going_on), n_agents, n_obs, n_columns - 1, hidden,
            *obs.stride()[:2], *last_action.stride()[:2],
        )  # fmt: skip
        arrays = order, going_on, place, obs, last_action
        ctx.episodes = _Episodes(*numbers, *map(_pointer, arrays), max(at_once, 1), threads)
        weights = w_obs.t(), columns, own, w_ih.flatten(0, 1).t(), w_hh.flatten(0, 1).t(), biases
        weights = [x.contiguous() for x in weights]
        out = obs.new_empty(len(index), n_agents, hidden)
        kept = None, None, None
        if any(ctx.needs_input_grad):
            rows = int(going_on.sum()) * n_agents
            kept = tuple(obs.new_empty(rows, width * hidden) for width in (1, 1, 4))
        ctx.library, why_not = _library()
        assert ctx.library is not None, why_not
        ctx.library.forward(ctypes.byref(ctx.episodes), *map(_pointer, (*weights, out, *kept)))
        ctx.save_for_backward(*arrays, w_ih, w_hh, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *_, w_ih, w_hh, x, h, gates = ctx.saved_tensors
        e = ctx.episodes
        rows = [e.obs, e.actions + 1, e.agents, 3 * e.hidden, 3 * e.hidden, 4]
        gradients = d_out.new_zeros(e.threads, sum(rows), e.hidden)
        arguments = w_ih.contiguous(), w_hh.contiguous(), d_out.contiguous(), x, h, gates, gradients
        ctx.library.backward(ctypes.byref(e), *map(_pointer, arguments))
        d_w_obs, d_columns, d_own, d_w_ih, d_w_hh, d_biases = gradients.sum(dim=0).split(rows)
        d_gates = d_w_ih.view_as(w_ih), d_w_hh.view_as(w_hh), d_biases
        return None, None, None, d_w_obs.t(), d_columns, d_own, *d_gates


def _plan(index: Tensor, n_episodes: int, n_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Episodes from the longest to the shortest [B], as far as `index` asks for their steps; how many of them have a
    step t [T or less]; which result a step is, or -1 [B, T or less]."""
    episode, step = index // n_steps, index % n_steps
    lengths = index.new_zeros(n_episodes).scatter_reduce(0, episode, step + 1, "amax")
    lengths, order = lengths.sort(descending=True, stable=True)
    longest = int(lengths[0])
    going_on = (lengths > torch.arange(longest).unsqueeze(-1)).sum(dim=1)
    place = index.new_full((n_episodes, longest), -1)
    place[episode, step] = torch.arange(len(index))
    return order, going_on, place


def _pointer(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())
