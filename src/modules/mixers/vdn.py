"""VDN (Sunehag et al. 2018, arXiv 1706.05296)."""

from types import SimpleNamespace

from torch import Tensor, nn


class VDNMixer(nn.Module):
    """Q_tot = Σ_i Q_i."""

    reads = ()  # of a batch, besides the agents' values

    def __init__(self, args: SimpleNamespace) -> None:
        super().__init__()

    def forward(self, agent_qs: Tensor, state: Tensor | None = None, obs: Tensor | None = None) -> Tensor:
        """Q_tot [..., 1] of agent_qs [..., N]. State and observations are not used."""
        return agent_qs.sum(dim=-1, keepdim=True)
