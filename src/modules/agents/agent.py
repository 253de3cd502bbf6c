"""What an agent network is: the base of the networks here, and of a user's own.

Axes: B episodes, T steps, N agents, O observation, A actions, H hidden, R steps that are asked for.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Agent(nn.Module):
    """f_q: τ_i ↦ Q_i(τ_i,·) of all agents. A subclass sets `self.config`, with `hidden_dim`, and has `forward`."""

    config: Any

    @abstractmethod
    def forward(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One step: q [..., N, A] and the new hidden [..., N, H].

        obs [..., N, O]; last_action int64 [..., N], where A stands for "none yet"; agent_ids int64 [N].
        """

    def init_hidden(self, *lead: int) -> Tensor:
        """Zeros [*lead, H] on the network's device."""
        return next(self.parameters()).new_zeros(*lead, self.config.hidden_dim)

    def acting(self, agent_ids: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`forward` for an episode, in which the weights do not change: step(obs, last_action, hidden). A subclass may
        prepare here what depends on the weights alone."""
        return lambda obs, last_action, hidden: self(obs, last_action, agent_ids, hidden)

    def unroll(
        self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """T steps from a zero hidden state: q [R, N, A] and hidden [R, N, H] at the steps `index`, int64 [R], which
        counts all B·T one episode after the other; without it q [B, T, N, A] and hidden [B, T, N, H].

        obs [B, T, N, O], last_action [B, T, N]. A subclass may do it in fewer calls.
        """
        hidden = self.init_hidden(obs.shape[0], obs.shape[2])
        qs, hiddens = [], []
        for t in range(obs.shape[1]):
            q, hidden = self(obs[:, t], last_action[:, t], agent_ids, hidden)
            qs.append(q)
            hiddens.append(hidden)
        q, hidden = torch.stack(qs, dim=1), torch.stack(hiddens, dim=1)
        if index is None:
            return q, hidden
        return q.flatten(end_dim=1).index_select(0, index), hidden.flatten(end_dim=1).index_select(0, index)
