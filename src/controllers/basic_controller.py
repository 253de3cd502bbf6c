"""The multi-agent controller (MAC): from observations to the agents' values and actions.

Axes: E environments, B episodes, T transitions, N agents, O observation, A actions, H hidden.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from components.action_selectors import selector_class
from components.episode_buffer import EpisodeBatch, Scheme, scaled
from modules.agents import agent_class
from modules.agents.agent import Agent
from utils.args import TrainingError, key, read
from utils.checkpoint import load_weights, save_weights

Act = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]  # of an agent: (obs, last_action, hidden) -> (q, hidden)


class BasicMAC:
    """Builds the agents, keeps their hidden state while acting, unrolls them while learning."""

    @dataclass(frozen=True)
    class Config:
        agent: str = key("agent network: rnn (shared weights) or rnn_ns (one network for each agent)")
        action_selector: str = key("how actions are chosen")

    def __init__(self, scheme: Scheme, groups: dict[str, int], args: SimpleNamespace) -> None:
        config = read(self.Config, args)
        self.n_agents, self.n_actions = args.n_agents, args.n_actions
        self.agent = agent_class(config.agent)(args)
        self.agent_ids = torch.arange(self.n_agents)
        self.action_selector = selector_class(config.action_selector)(args)
        self.hidden_states: Tensor | None = None  # [E, N, H], between two steps of acting
        self.act: Act | None = None  # the agent with the weights that it had at the start of the episode

    def init_hidden(self, batch_size: int) -> None:
        """Forget the past: to be called at the start of an episode."""
        self.hidden_states = self.agent.init_hidden(batch_size, self.n_agents)
        self.act = self.acting(self.agent)

    def select_actions(
        self,
        obs: NDArray[Any],
        avail: NDArray[np.bool_],
        last_actions: NDArray[np.int64] | None,
        t_env: int,
        test_mode: bool = False,
    ) -> NDArray[np.int64]:
        """Actions [E, N] (numpy int64) for obs [E, N, O], avail [E, N, A] bool, last_actions [E, N].

        last_actions is None at the first step. Call once each step: the hidden state moves on.
        """
        if self.action_selector.explores_only(t_env, test_mode):
            return self.action_selector.random(avail)
        q = self.step(obs, last_actions)
        self.refuse_not_finite(q, t_env)
        return self.action_selector.select(q, avail, t_env, test_mode)

    def step(self, obs: NDArray[Any], last_actions: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Q_i(τ_i,·) [E, N, A] (numpy) of the next step; moves the hidden state on."""
        if last_actions is None:
            last_actions = np.full(obs.shape[:2], self.n_actions)
        # A copy of torch's own begins at a multiple of 64 bytes. From an odd multiple of 4 last bits differ (measured).
        assert self.act is not None and self.hidden_states is not None, "init_hidden comes first"
        q, self.hidden_states = self.values(
            self.act, torch.from_numpy(obs).clone(), torch.from_numpy(last_actions), self.hidden_states
        )
        return q

    @torch.inference_mode()
    def acting(self, agent: Agent) -> Act:
        """What `values` takes: `agent` with its weights as they are now."""
        return agent.acting(self.agent_ids)

    @torch.inference_mode()
    def values(self, act: Act, obs: Tensor, last_actions: Tensor, hidden: Tensor) -> tuple[NDArray[np.float32], Tensor]:
        """Q_i(τ_i,·) [E, N, A] (numpy) and the next hidden states [E, N, H]. act: see `acting`; last_actions [E, N]."""
        device = self.agent_ids.device
        obs = obs.to(device)
        q, hidden = act(scaled(obs) if obs.dtype == torch.uint8 else obs, last_actions.to(device), hidden)
        return q.cpu().numpy(), hidden

    def refuse_not_finite(self, q: NDArray[np.float32], t_env: int) -> None:
        """TrainingError where values are not finite. t_env: when."""
        if not np.isfinite(q).all():
            raise TrainingError(f"t_env {t_env}: the agents' values are not finite; the weights have diverged")

    def unroll(self, batch: EpisodeBatch, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """q [R, N, A] and hidden [R, N, H] of a batch of episodes, in one call, at the steps `index`, int64 [R], which
        counts all B·(T+1) one episode after the other; without it q [B, T+1, N, A] and hidden [B, T+1, N, H]."""
        actions = batch["actions"].squeeze(-1).long()
        none_yet = torch.full_like(actions[:, :1], self.n_actions)
        last_actions = torch.cat([none_yet, actions[:, :-1]], dim=1)
        return self.agent.unroll(batch["obs"], last_actions, self.agent_ids, index)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.agent.parameters()

    def load_state(self, other_mac: "BasicMAC") -> None:
        self.agent.load_state_dict(other_mac.agent.state_dict())

    def cuda(self) -> None:
        self.agent.cuda()
        self.agent_ids = self.agent_ids.cuda()

    def save_models(self, path: str | PathLike) -> None:
        save_weights(self.agent.state_dict(), f"{path}/agent.th")

    def load_models(self, path: str | PathLike) -> None:
        load_weights(self.agent, f"{path}/agent.th")
