"""Shapes of battles, as the packages of the games give them, and the lengths of episodes that updates learn from."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """agents, actions, obs and state: of the game. steps: transitions of the longest episode. batch: episodes of an
    update. shortest: transitions of the shortest episode."""

    agents: int
    actions: int
    obs: int
    state: int
    steps: int
    batch: int = 32
    shortest: int | None = None

    def lengths(self) -> list[int]:
        """Transitions of each episode, spread evenly from the longest to the shortest: the order of our replay."""
        shortest, last = self.shortest or self.steps, max(self.batch - 1, 1)
        return [round(self.steps - (self.steps - shortest) * i / last) for i in range(self.batch)]

    def as_dict(self) -> dict:
        return asdict(self)


BATTLES = {
    "2s3z": Sizes(5, 11, 80, 120, 120),
    "3s5z": Sizes(8, 14, 128, 216, 150),
    "MMM2": Sizes(10, 18, 176, 322, 180),
    "27m_vs_30m": Sizes(27, 36, 285, 1170, 180, batch=8),
}
SMALL = Sizes(2, 3, 4, 5, steps=6, batch=3)  # for a look at whether all works
UNEVEN = 0.3  # the shortest episode, as a share of the longest


def fields(torch: Any, sizes: Sizes, seed: int = 0) -> dict:
    """A random batch {name: [B, T+1, ...]} of episodes that end at their last step."""
    g = torch.Generator().manual_seed(seed)
    b, t, n, a = sizes.batch, sizes.steps + 1, sizes.agents, sizes.actions
    avail = torch.rand(b, t, n, a, generator=g) < 0.7
    avail[..., 0] = True
    actions = torch.where(avail, torch.rand(b, t, n, a, generator=g), torch.tensor(-1.0)).argmax(-1, keepdim=True)
    batch = {
        "state": torch.randn(b, t, sizes.state, generator=g),
        "obs": torch.randn(b, t, n, sizes.obs, generator=g),
        "actions": actions,
        "avail_actions": avail.int(),
        "reward": torch.randn(b, t, 1, generator=g),
        "terminated": torch.zeros(b, t, 1),
        "filled": torch.zeros(b, t, 1),
    }
    for i, length in enumerate(sizes.lengths()):
        batch["terminated"][i, length - 1], batch["filled"][i, : length + 1] = 1, 1
        for name in ("state", "obs", "actions", "avail_actions", "reward"):  # padding is zero, as the runners leave it
            batch[name][i, length + (name in ("state", "obs", "avail_actions")) :] = 0
    return batch
