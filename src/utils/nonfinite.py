"""What happens where a number is not finite: the run stops, or the update or the episode is left out.

Axes: B episodes, T+1 observations.
"""

import io
import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from utils.args import NotFinite, TrainingError
from utils.messages import brief

IN_A_ROW = 10  # the most that may be left out one after the other, and of the first 1,000
SHARE = 0.01  # of all, the most that may be left out
SAVED = 10  # batches kept for study, the first ones


class Tolerance:
    """Counts the updates, or the episodes, that are not finite; stops the run at the first one or at too many.

    what: "update" or "episode". skip: leave it out. folder: where what was not finite is saved, once it is known.
    """

    def __init__(self, what: str, skip: bool, log: logging.Logger):
        self.what, self.skip, self.log = what, skip, log
        self.folder: Path | None = None
        self.tried, self.left_out, self.in_a_row = 0, 0, 0

    def good(self, count: int = 1) -> None:
        """`count` of them were finite."""
        if count:
            self.tried, self.in_a_row = self.tried + count, 0

    def bad(self, error: NotFinite, batch: Mapping[str, torch.Tensor]) -> None:
        """One was not. TrainingError, unless it may be left out. batch: is saved for study, {field: [B, T+1, ...]}."""
        self.tried, self.left_out, self.in_a_row = self.tried + 1, self.left_out + 1, self.in_a_row + 1
        data = {name: values.cpu() for name, values in batch.items()}
        message = f"{error}; {statistics(data)}; {self._save(data, error.name)}"
        if not self.skip:
            raise TrainingError(f"{message}. on_nonfinite=skip leaves out single ones")
        most = max(IN_A_ROW, int(SHARE * self.tried))
        if self.in_a_row > IN_A_ROW or self.left_out > most:
            raise TrainingError(
                f"{message}. on_nonfinite=skip: {self.left_out} of {self.tried} {self.what}s were left out, the last "
                f"{self.in_a_row} in a row; at most {IN_A_ROW} in a row and {most} in all may be"
            )
        self.log.warning(f"{message}. This {self.what} is left out ({self.left_out} of {self.tried} so far)")

    def _save(self, data: Mapping[str, torch.Tensor], name: str) -> str:
        """Where `data` is saved, or why not."""
        if self.folder is None or self.left_out > SAVED:
            return "the batch is not saved"
        path = self.folder / f"{self.left_out:02d}_{name}.pt"
        contents = io.BytesIO()
        torch.save(dict(data), contents)
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(contents.getbuffer())
        except OSError as error:
            return f"the batch is not saved: {brief(error)}"
        return f"the batch is saved in {path}"

    def state_dict(self) -> dict[str, int]:
        return {"tried": self.tried, "left_out": self.left_out, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.tried, self.left_out, self.in_a_row = state["tried"], state["left_out"], state["in_a_row"]


def bad_episode(name: str, value: float, t: int, i: int, t_env: int, test: bool) -> NotFinite:
    """What is wrong with the episode of environment i, whose `name` has this value at its step t."""
    where, file = ("a test episode", "test") if test else ("training", "episode")
    message = f"t_env {t_env}, step {t} of {where}: the environment's {name} is not finite ({value})"
    return NotFinite(message, f"{file}_{t_env}_{i}")


def statistics(data: Mapping[str, torch.Tensor]) -> str:
    """The range of each field of floating point numbers where `filled`, and how many are not finite."""
    filled = data["filled"].bool().squeeze(-1)  # [B, T+1]
    return "; ".join(f"{name}: {_range(values[filled])}" for name, values in data.items() if values.is_floating_point())


def _range(values: torch.Tensor) -> str:
    finite = values[torch.isfinite(values)]
    bad = values.numel() - finite.numel()
    numbers = f"{finite.min():g} to {finite.max():g}, mean {finite.mean():g}" if finite.numel() else "none is finite"
    return f"{numbers}, {bad:,} of {values.numel():,} not finite" if bad else numbers
