"""Running mean and variance of rewards.

Plugin file: imports torch and the standard library only.
"""

import torch


class RunningStats:
    """Mean and population variance of all values seen, in float64 (Chan et al. 1979, in parallel form).

    shape: of one value, (1,) for a team reward, (N,) for one reward per agent.
    """

    def __init__(self, shape=(1,), device="cpu"):
        self.count = 0.0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.var = torch.ones(shape, dtype=torch.float64, device=device)

    def update(self, values, mask):
        """Take in values [B, T, K] where mask [B, T, 1] is 1: padding does not count."""
        real = values[mask.squeeze(-1).bool()].to(self.mean)  # [M, K]
        if len(real) == 0:
            return
        n, mean, var = len(real), real.mean(dim=0), real.var(dim=0, unbiased=False)
        total = self.count + n
        delta = mean - self.mean
        self.var = (self.count * self.var + n * var + delta**2 * self.count * n / total) / total
        self.mean = self.mean + delta * n / total
        self.count = total

    @property
    def std(self):
        """Standard deviation; never 0, so that constant values become 0, not NaN."""
        return self.var.sqrt() + 1e-8

    def standardise(self, values):
        """(values - mean) / std, in the dtype of values."""
        return ((values - self.mean) / self.std).to(values.dtype)

    def to(self, device):
        self.mean, self.var = self.mean.to(device), self.var.to(device)

    def state_dict(self):
        return {"count": self.count, "mean": self.mean, "var": self.var}

    def load_state_dict(self, state):
        self.count, self.mean, self.var = state["count"], state["mean"].to(self.mean), state["var"].to(self.var)
