"""The individual value network f_q: τ_i ↦ Q_i(τ_i,·), one set of weights for all agents.

Parameter names and shapes are EPyMARL's (`fc1`, `rnn`, `fc2`), so `agent.th` goes either way.
Axes: B batch, T steps, N agents, O observation, A actions, H hidden, R rows, that is steps that are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.agents.agent import Agent
from modules.agents.recurrence import KERNELS, choose, hidden_states
from utils.args import key, read


class RNNAgent(Agent):
    """Linear, ReLU, GRU cell (or Linear and ReLU where `use_rnn` is False), `head_layers` of Linear and ReLU, Linear.

    The hidden state h, which QTRAN's joint network shares, is what the GRU cell gives; the head is f_q's own.

    The first layer reads [observation, one-hot last action, one-hot agent id]; the product with a
    one-hot is a look-up of one column.
    """

    @dataclass(frozen=True)
    class Config:
        hidden_dim: int = key("width of the hidden state", unit="units", low=1, high=65536, aliases=("rnn_hidden_dim",))
        use_rnn: bool = key("GRU over the history; False: feed-forward on the last observation")
        obs_last_action: bool = key("each agent reads its own last action")
        obs_agent_id: bool = key("each agent reads its number")
        kernels: str = key(
            "plain: torch's operations; fast: C++ of our own for learning on a CPU, which the compiler of this machine "
            "makes; auto: fast where it can be had",
            choices=KERNELS,
        )
        head_layers: int = key(
            "layers of hidden_dim between the hidden state and the values; EPyMARL: 0", unit="layers", low=0, high=64
        )

    rnn: Any  # a GRUCell, or a Linear

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()
        self.config = config = read(self.Config, args)
        self.n_actions = args.n_actions
        h = config.hidden_dim
        self.widths = [  # of the parts of the input
            args.obs_shape,
            args.n_actions * config.obs_last_action,
            args.n_agents * config.obs_agent_id,
        ]
        self.fc1 = nn.Linear(sum(self.widths), h)
        self.rnn = nn.GRUCell(h, h) if config.use_rnn else nn.Linear(h, h)
        self.head = nn.Sequential(*(nn.Sequential(nn.Linear(h, h), nn.ReLU()) for _ in range(config.head_layers)))
        self.fc2 = nn.Linear(h, args.n_actions)

    def forward(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step: q [..., N, A] and the new hidden [..., N, H].

        obs [..., N, O]; last_action [..., N], where A stands for "none yet"; agent_ids [N].
        """
        x = self._first(obs, last_action, agent_ids)
        if self.config.use_rnn:
            hidden = self.rnn(x.flatten(end_dim=-2), hidden.flatten(end_dim=-2)).view_as(x)
        else:
            hidden = F.relu(self.rnn(x))
        return self.fc2(self.head(hidden)), hidden

    def acting(self, agent_ids: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`forward` with the weights as they are now, in fewer calls: step(obs, last_action, hidden), which gives the
        same bits. For an episode, in which the weights do not change. agent_ids [N]."""
        w_obs, w_action, w_id = self.fc1.weight.split(self.widths, dim=1)
        columns = F.pad(w_action.t(), (0, 0, 0, 1)) if self.config.obs_last_action else None  # [A+1, H]
        ids = w_id.t()[agent_ids] if self.config.obs_agent_id else None  # [N, H]
        rnn: Any = self.rnn
        bias, head, last = self.fc1.bias, self.head if len(self.head) else None, self.fc2
        gru = [rnn.weight_ih, rnn.weight_hh, rnn.bias_ih, rnn.bias_hh] if self.config.use_rnn else None

        def step(obs: Tensor, last_action: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            x = F.linear(obs, w_obs, bias)
            if columns is not None:
                x += F.embedding(last_action, columns)
            if ids is not None:
                x += ids
            x = x.relu_()
            if gru is not None:
                hidden = torch.gru_cell(x.flatten(0, -2), hidden.flatten(0, -2), *gru).view_as(x)
            else:
                hidden = F.linear(x, rnn.weight, rnn.bias).relu_()
            return F.linear(hidden if head is None else head(hidden), last.weight, last.bias), hidden

        return step

    def unroll(
        self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """T steps from a zero hidden state: q [R, N, A] and hidden [R, N, H] at the steps `index`, int64 [R], which
        counts all B·T one episode after the other; without it q [B, T, N, A] and hidden [B, T, N, H].

        obs [B, T, N, O], last_action [B, T, N]. `index` names no step twice. The steps of an episode after the last
        one that it names have no meaning, and are skipped where that is cheap.
        """
        shape = obs.shape[:2]
        if index is None:
            q, hidden = self.unroll(obs, last_action, agent_ids, torch.arange(shape.numel(), device=obs.device))
            return q.unflatten(0, shape), hidden.unflatten(0, shape)
        if not self.config.use_rnn:  # each step stands for itself
            obs, last_action = (x.flatten(end_dim=1).index_select(0, index) for x in (obs, last_action))
            hidden = F.relu(self.rnn(self._first(obs, last_action, agent_ids)))
        elif self._is_fast() and not obs.requires_grad:  # it has no gradient of what a network made of observations
            hidden = hidden_states(obs, *self._first_in_parts(last_action, agent_ids), index, self.rnn)
        else:
            hidden = self._gru(self._first(obs, last_action, agent_ids), _lengths(index, shape))
            hidden = hidden.flatten(end_dim=1).index_select(0, index)
        return self.fc2(self.head(hidden)), hidden

    def _is_fast(self) -> bool:
        weight = self.fc1.weight
        return (
            weight.device.type == "cpu" and weight.dtype == torch.float32 and choose(self.config.kernels)[0] == "fast"
        )

    def _gru(self, x: Tensor, lengths: list[int] | None) -> Tensor:
        """Hidden states [B, T, N, H] of inputs x [B, T, N, H]: one call for each stage of time, for the episodes that
        go on in it. What they hold after an episode's end means nothing."""
        x = x.transpose(0, 1)  # [T, B, N, H]
        n_steps, n_episodes, n_agents, _ = x.shape
        cell = self.rnn
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        last, parts = x.new_zeros(1, n_episodes * n_agents, x.shape[-1]), []
        for begin, end, going_on in _stages(lengths or [n_steps] * n_episodes, n_steps):
            rows = x[begin:end, :going_on].flatten(start_dim=1, end_dim=2)  # [end - begin, going_on · N, H]
            # The GRU cell's own weights, run by the fused kernel: biases, one layer, no dropout, training mode
            # (cuDNN refuses a backward pass without), one direction, time first.
            rows, last = torch.gru(rows, last[:, : rows.shape[1]], weights, True, 1, 0.0, True, False, False)
            rows = rows.unflatten(1, (going_on, n_agents))
            parts.append(rows if going_on == n_episodes else F.pad(rows, (0, 0, 0, 0, 0, n_episodes - going_on)))
        return torch.cat(parts).transpose(0, 1)

    def _first(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor) -> Tensor:
        w_obs, w_action, w_id = self.fc1.weight.split(self.widths, dim=1)
        x = F.linear(obs, w_obs, self.fc1.bias)
        if self.config.obs_last_action:
            columns = F.pad(w_action.t(), (0, 0, 0, 1))  # row A, "none yet", is zero: [A+1, H]
            x = x + F.embedding(last_action, columns)
        if self.config.obs_agent_id:
            x = x + w_id.t()[agent_ids]  # [N, H]
        return F.relu(x)

    def _first_in_parts(self, last_action: Tensor, agent_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last action, and what the first layer adds up: weights of the observation [H, O], a row for each last
        action [A+1, H], and one for each agent [N, H]."""
        w_obs, w_action, w_id = self.fc1.weight.split(self.widths, dim=1)
        own = self.fc1.bias.expand(len(agent_ids), -1)
        if self.config.obs_agent_id:
            own = own + w_id.t()[agent_ids]
        if not self.config.obs_last_action:
            last_action = torch.zeros_like(last_action)  # "none yet", the only row
        return last_action, w_obs, F.pad(w_action.t(), (0, 0, 0, 1)), own


def _lengths(index: Tensor, shape: torch.Size) -> list[int] | None:
    """Of each episode, the steps up to the last that `index` asks for: on a CPU, where they descend, as the replay
    samples them; else None. `shape`: B, T."""
    if index.is_cuda:  # one call for all is fastest there, and reading lengths would wait for the GPU
        return None
    n_episodes, n_steps = shape
    lengths = index.new_zeros(n_episodes).scatter_reduce(0, index // n_steps, index % n_steps + 1, "amax").tolist()
    return lengths if lengths == sorted(lengths, reverse=True) else None


def _stages(lengths: list[int], n_steps: int, count: int = 4) -> list[tuple[int, int, int]]:
    """[(begin, end, episodes that go on)]: at most `count` stretches of the `n_steps` for episodes of these lengths,
    which descend. A stage ends where an equal share of the episodes has ended."""
    ends = sorted({n_steps, *(max(lengths[len(lengths) * k // count], 1) for k in range(1, count))})
    return [(begin, end, max(1, sum(length > begin for length in lengths))) for begin, end in zip([0, *ends], ends)]
