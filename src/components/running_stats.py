"""Running mean and variance of rewards.

Plugin file: imports torch and the standard library only.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningStats:
    """Mean and population variance of all values seen, in float64 (Chan et al. 1979, in parallel form).

    shape: of one value, (1,) for a team reward, (N,) for one reward per agent.
    """

    def __init__(self, shape: tuple[int, ...] = (1,), device: str | torch.device = "cpu") -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.var = torch.ones(shape, dtype=torch.float64, device=device)

    def update(self, values: Tensor, mask: Tensor) -> None:
        """Take in values [B, T, K] where mask [B, T, 1] is 1: padding does not count. A GPU is not waited for."""
        real = mask.bool()
        n = real.sum()
        some = n.clamp(min=1)
        values = torch.where(real, values, 0.0).to(self.mean)
        mean = values.sum(dim=(0, 1)) / some
        var = torch.where(real, values - mean, 0.0).square().sum(dim=(0, 1)) / some
        total = (self.count + n).clamp(min=1)
        delta = mean - self.mean
        self.var = torch.where(
            n > 0, (self.count * self.var + n * var + delta**2 * self.count * n / total) / total, self.var
        )
        self.mean = self.mean + delta * n / total
        self.count = self.count + n

    def keep_where(self, finite: torch.Tensor, before: "RunningStats") -> None:
        """Go back to `before`, an earlier copy, unless `finite`, a bool [] on the same device."""
        for name in ("count", "mean", "var"):
            setattr(self, name, torch.where(finite, getattr(self, name), getattr(before, name)))

    @property
    def std(self) -> Tensor:
        """Standard deviation; never 0, so that constant values become 0, not NaN."""
        return self.var.sqrt() + 1e-8

    def standardise(self, values: Tensor) -> Tensor:
        """(values - mean) / std, in the dtype of values."""
        return ((values - self.mean) / self.std).to(values.dtype)

    def to(self, device: str | torch.device) -> None:
        self.count, self.mean, self.var = (values.to(device) for values in (self.count, self.mean, self.var))

    def state_dict(self) -> dict[str, Any]:
        return {"count": float(self.count), "mean": self.mean, "var": self.var}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = torch.as_tensor(state["count"]).to(self.count)
        self.mean, self.var = state["mean"].to(self.mean), state["var"].to(self.var)
