"""GPUs shared out over the runs of this machine, by CUDA_VISIBLE_DEVICES."""

import os
from collections.abc import Hashable

from utils.args import ConfigError

MOST_RUNS_A_CARD = 4  # by default: small networks leave most of a card idle, but each process has CUDA's own memory


class Cards:
    """cards: names as CUDA_VISIBLE_DEVICES has them. share: of a card a run, such as 0.25; or a number of cards; 0:
    runs see none."""

    def __init__(self, cards: list[str] | None = None, share: float = 1.0):
        self.cards, self.share = cards or [], share
        self._taken: dict[Hashable, list[str]] = {}

    def take(self, run: Hashable) -> dict[str, str]:
        """Variables that show a run the cards that the fewest others have; none where there are no cards."""
        if self.share == 0:
            return {"CUDA_VISIBLE_DEVICES": ""}
        if not self.cards:
            return {}
        used = [card for taken in self._taken.values() for card in taken]
        self._taken[run] = sorted(self.cards, key=used.count)[: max(1, round(self.share))]
        return {"CUDA_VISIBLE_DEVICES": ",".join(self._taken[run])}

    def give_back(self, run: Hashable) -> None:
        self._taken.pop(run, None)

    @property
    def room(self) -> int:
        """How many runs they take at a time."""
        if self.share < 1:
            return len(self.cards) * round(1 / self.share)
        return len(self.cards) // round(self.share)


def visible() -> list[str]:
    """The GPUs that torch may use here, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return names.split(",")[:count] if names else [str(n) for n in range(count)]


def check_share(share: float, where: str) -> None:
    """ConfigError for what is no share of a GPU: one over a whole number, or a whole number. where: who gave it."""
    whole = share if share >= 1 else 1 / share if share > 0 else 0
    if not 1 <= whole <= 64 or abs(whole - round(whole)) > 0.02:
        raise ConfigError(
            f"{where} {share:g}: must be a fraction 1/n of a GPU, such as 0.5, 0.25 or 0.125 (n runs share one), or a "
            "whole number of GPUs, at most 64"
        )


def shared_out(workers: int | None, share: float | None, by_cores: int, wanted: bool) -> tuple[int, Cards, str]:
    """(runs at a time, the Cards, a line that says how they are shared or an empty one).

    workers, share: as given, or None. by_cores: runs at a time that the cores allow. wanted: whether some run would
    learn on a GPU. ConfigError for what is not there.
    """
    if share == 0:
        return workers or by_cores, Cards(share=0.0), ""
    cards = visible() if wanted or share is not None else []
    if share is not None:
        check_share(share, "--gpus-per-run")
        if not cards:
            raise ConfigError(f"--gpus-per-run {share:g}: {no_gpu()}; leave it out to learn on the CPU")
        if not wanted:
            raise ConfigError(
                f"--gpus-per-run {share:g}: every run of the study has use_cuda=False, so none uses a GPU"
            )
        if share >= 1 and round(share) > len(cards):
            raise ConfigError(f"--gpus-per-run {share:g}: this machine has {len(cards)}; give {len(cards)} or less")
    if not cards:
        return workers or by_cores, Cards(), ""
    if share is None:
        at_a_time = workers or max(1, min(by_cores, MOST_RUNS_A_CARD * len(cards)))
        share = 1 / max(1, -(-at_a_time // len(cards)))
    shared = Cards(cards, share)
    if workers is not None and workers > shared.room:
        raise ConfigError(
            f"--workers {workers}, --gpus-per-run {share:g}: the GPUs here ({len(cards)}) can take {shared.room} runs "
            f"at a time; give --workers {shared.room} or a smaller --gpus-per-run"
        )
    at_a_time = workers or max(1, min(by_cores, shared.room))
    each = f"{round(1 / share)} runs on each" if share < 1 else f"{round(share)} a run"
    plural = "s" if len(cards) > 1 else ""
    return at_a_time, shared, f"{len(cards)} GPU{plural}, {each} (--gpus-per-run {share:g}): {at_a_time} runs at a time"


def no_gpu() -> str:
    """Why torch sees no GPU, as far as it says."""
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA (pip install torch from its index for CUDA, or the CUDA image)"
    return "torch sees no GPU here"
