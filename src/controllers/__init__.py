"""Controllers by name; EPyMARL's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from utils.registry import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from components.action_selectors import Selector
    from components.episode_buffer import EpisodeBatch
    from controllers.basic_controller import Act, BasicMAC

    def _held_by_pyright(mac: BasicMAC) -> MAC:
        return mac


REGISTRY = {
    "basic_mac": "controllers.basic_controller:BasicMAC",
    # Whether agents share weights is decided by the agent (`agent: rnn_ns`), not by the controller.
    "non_shared_mac": "controllers.basic_controller:BasicMAC",
}
METHODS = (
    "init_hidden", "select_actions", "step", "acting", "values", "refuse_not_finite", "unroll", "parameters", "cuda",
    "save_models", "load_models",
)  # fmt: skip


class MAC(Protocol):
    """What runners and learners ask of a controller.

    Axes: E environments, N agents, O observation, A actions, H hidden, R steps that are asked for.
    """

    agent: Any  # the network
    agent_ids: Tensor  # int64 [N], on the network's device
    action_selector: Selector
    hidden_states: Tensor | None  # [E, N, H], between two steps of acting

    def init_hidden(self, batch_size: int) -> None:
        """Forget the past: to be called at the start of an episode."""
        ...

    def select_actions(
        self,
        obs: NDArray[Any],
        avail: NDArray[np.bool_],
        last_actions: NDArray[np.int64] | None,
        t_env: int,
        test_mode: bool = False,
    ) -> NDArray[np.int64]:
        """Actions [E, N] for obs [E, N, O], avail [E, N, A] and the actions before [E, N]."""
        ...

    def step(self, obs: NDArray[Any], last_actions: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Q_i(τ_i,·) [E, N, A] of the next step; moves the hidden state on."""
        ...

    def acting(self, agent: Any) -> Act:
        """What `values` takes: `agent` with its weights as they are now."""
        ...

    def values(self, act: Act, obs: Tensor, last_actions: Tensor, hidden: Tensor) -> tuple[NDArray[np.float32], Tensor]:
        """Q_i(τ_i,·) [E, N, A] and the next hidden states [E, N, H]."""
        ...

    def refuse_not_finite(self, q: NDArray[np.float32], t_env: int) -> None:
        """TrainingError where values are not finite."""
        ...

    def unroll(self, batch: EpisodeBatch, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """q [R, N, A] and hidden [R, N, H] of a batch of episodes at the steps `index` [R]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def cuda(self) -> None: ...
    def save_models(self, path: str | PathLike) -> None: ...
    def load_models(self, path: str | PathLike) -> None: ...


def mac_class(name: str) -> Callable[..., MAC]:
    return lookup("controller (mac)", REGISTRY, name, methods=METHODS)
