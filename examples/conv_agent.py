"""An agent network for games that show images: two layers of convolutions in front of the recurrent agent."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from modules.agents.rnn_agent import RNNAgent
from utils.args import ConfigError


class ConvAgent(RNNAgent):
    """Observations [..., N, O] are images of args.obs_dims = (height, width, channels), made flat: numbers of 0..1."""

    def __init__(self, args: SimpleNamespace) -> None:
        if len(args.obs_dims) != 3 or min(args.obs_dims[:2]) < 7:
            raise ConfigError(
                f"{args.agent}: observations have the shape {list(args.obs_dims)}; it is for games that show images, "
                "[height, width, channels] of at least 7x7"
            )
        height, width, channels = args.obs_dims
        layers = nn.Conv2d(channels, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()
        features = nn.Sequential(*layers, nn.Flatten())
        size = features(torch.zeros(1, channels, height, width)).shape[1]
        super().__init__(SimpleNamespace(**{**vars(args), "obs_shape": size}))  # its first layer reads the features
        self.features, self.dims = features, args.obs_dims

    def see(self, obs: Tensor) -> Tensor:
        """Features [..., N, F] of obs [..., N, O]."""
        images = obs.reshape(-1, *self.dims).movedim(-1, 1)  # [·, channels, height, width], as torch wants it
        return self.features(images).reshape(*obs.shape[:-1], -1)

    def forward(self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.see(obs), last_action, agent_ids, hidden)

    def acting(self, agent_ids: Tensor) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        act = super().acting(agent_ids)
        return lambda obs, last_action, hidden: act(self.see(obs), last_action, hidden)

    def unroll(
        self, obs: Tensor, last_action: Tensor, agent_ids: Tensor, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return super().unroll(self.see(obs), last_action, agent_ids, index)
