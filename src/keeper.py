"""What a run can go on from: checkpoints of the weights, and resumable states.

Where the disk is full, the run stops or waits for room (`on_disk_full`): the last checkpoint and the last state stay.
Other errors of the disk give a warning, and the next time that it is due it is tried again.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recording.sinks import JsonlSink
from utils import interrupts
from utils.args import ConfigError, TrainingError
from utils.checkpoint import META
from utils.identity import JUDGED_BY
from utils.messages import brief
from utils.resume_state import Saved, StateConfig, StateError, StateFolder, unlike, writer
from utils.rundir import BEST, RunDirectory

if TYPE_CHECKING:
    from parts import Parts
    from training import Schedule


FULL = (errno.ENOSPC, errno.EDQUOT)
PAUSE_SECONDS, PAUSES = 30, 120  # between two tries on a full disk; an hour in all


class DiskFull(TrainingError):
    """There is no room for what a run may not go on without."""


class Keeper:
    """Writes checkpoints and states when they are due.

    parts: `parts.Parts`. schedule: `training.Schedule`. facts: see `resuming.py`.
    metrics: the sink of metrics.jsonl, set by whoever opens it.
    """

    def __init__(
        self, parts: Parts, directory: RunDirectory, states: StateFolder, schedule: Schedule, facts: dict
    ) -> None:
        self.parts, self.directory, self.states, self.schedule = parts, directory, states, schedule
        self.facts = facts
        self.config: StateConfig = parts.resuming
        self.log = parts.logger.console_logger
        self.metrics: JsonlSink | None = None
        self.failure: str | None = None  # of the last try to write a checkpoint
        self.best: dict | None = None  # {"metric", "value", "t_env"} of the best test
        self.best_files: dict[str, bytes] = {}  # of checkpoints/best, for a later test may be undone by a kill
        self.closed = False  # the last state is written
        self.stopping = False  # a full disk is no reason to wait or to stop
        self._written, self._t_env = time.monotonic(), parts.runner.t_env

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> None:
        """Weights at this step."""
        if self._save():
            self.directory.limit_checkpoints(self.parts.training.keep_checkpoints)

    def _save(self, **more: Any) -> bool:
        t_env = self.parts.runner.t_env
        with interrupts.held():
            self.failure = self._written_or_why(
                f"checkpoint {t_env}", lambda: self.directory.save_checkpoint(self.parts.learner, t_env, **more)
            )
        return self.failure is None

    def tested(self) -> None:
        """Keep the weights in checkpoints/best if the test that has ended was the best so far."""
        latest, t_env = self.parts.logger.latest, self.parts.runner.t_env
        metric = next((name for name in JUDGED_BY if name in latest), None)
        if metric is None or not math.isfinite(latest[metric]):
            return
        if self.best is not None and self.best["metric"] == metric and latest[metric] <= self.best["value"]:
            return
        best = {"metric": metric, "value": latest[metric], "t_env": t_env}
        if not (self.parts.training.save_model or self.parts.training.absolute_metric):
            self.best = best
            return

        def write() -> None:
            self.directory.save_checkpoint(self.parts.learner, t_env, BEST, metric=metric, value=latest[metric])
            self.best_files = self.directory.checkpoint_files(BEST)

        if self._written_or_why(f"checkpoints/{BEST}", write) is None:
            self.best = best  # else a later test that is better than the last one written is written

    @contextlib.contextmanager
    def best_weights(self) -> Iterator[int | None]:
        """Inside the block the learner has the weights of checkpoints/best; yields the t_env that they are of, None
        where there are none. TrainingError where they cannot be read."""
        if not self.best_files:
            yield None
            return
        learner, folder = self.parts.learner, self.directory.path / "checkpoints" / BEST
        last = copy.deepcopy(learner.state_dict())
        try:
            try:
                self.directory.put_checkpoint(BEST, self.best_files)  # somebody may have removed or changed it
                learner.load_models(str(folder))
            except (ConfigError, OSError) as error:
                raise TrainingError(f"absolute_metric: the weights that tested best cannot be read: {error}") from error
            yield json.loads(self.best_files[META])["t_env"]
        finally:  # tables, and a checkpoint of an interruption, are of the last ones
            learner.load_state_dict(last)

    # ------------------------------------------------------------------ states

    def round_done(self) -> None:
        """Call after each round and its updates: writes a state if one is due.

        Records that wait for room on the disk are a reason to stop or wait, as a state is.
        """
        if self.metrics is not None and self.metrics.waiting:
            self._written_or_why(f"{self.metrics.waiting} records of metrics.jsonl", self.metrics.flush)
        minutes, steps = self.config.resume_minutes, self.config.resume_interval
        by_time = minutes > 0 and time.monotonic() - self._written >= 60 * minutes
        by_steps = steps is not None and self.parts.runner.t_env - self._t_env >= steps
        if by_time or by_steps:
            self.state()

    def last_state(self) -> None:
        """The state at the end of training, before the closing test."""
        self.state()
        self.closed = True

    def finished(self) -> None:
        """Training is over: the replay goes, unless `keep_replay`."""
        if not self.config.keep_replay:
            try:
                self.states.drop_replay()
            except OSError as error:
                self.log.warning(f"the replay of the last state stays on the disk: {brief(error)}")

    def interrupted(self) -> None:
        """The state and the weights at a signal, or where a game has failed. What `last_state` wrote stays the last."""
        self.stopping = True
        if self.parts.runner.rounds and not self.closed:
            self.state()
        if self.parts.training.save_model and self.schedule.save.last != self.parts.runner.t_env:
            self._save(interrupted=True)  # a resumed run removes it

    def state(self) -> None:
        """Write the state, between two rounds."""
        with interrupts.held():
            self._written, self._t_env = time.monotonic(), self.parts.runner.t_env
            self._written_or_why(f"the state at t_env {self._t_env}", self._write_state)

    def _write_state(self) -> None:
        assert self.parts.buffer is not None  # it is there wherever something is learned
        position = self.metrics.position() if self.metrics is not None else 0
        self.states.write(self._contents(), self.parts.buffer, position, self.facts)

    def _written_or_why(self, what: str, write: Callable[[], None]) -> str | None:
        """Call write(); returns None, or why the disk refused. DiskFull where it has no room and none comes."""
        tries = PAUSES if self.config.on_disk_full == "pause" and not self.stopping else 0
        while True:
            try:
                write()
                return None
            except OSError as error:
                full, why = error.errno in FULL, brief(error)
            if not full or self.stopping:
                self.log.warning(f"{what} not written: {why}; what was written before stays")
                return why
            if tries == 0:
                raise DiskFull(f"the disk is full: {what} not written ({why})")
            if tries == PAUSES:
                minutes = PAUSES * PAUSE_SECONDS // 60
                self.log.warning(
                    f"the disk is full: {what} not written ({why}); waiting for room, {minutes} minutes at most"
                )
            tries -= 1
            if not self._pause():
                return why

    def _pause(self) -> bool:
        """Wait a while; False at once where a signal has come."""
        until = time.monotonic() + PAUSE_SECONDS
        while time.monotonic() < until:
            if interrupts.requested():
                return False
            time.sleep(0.1)
        return True

    def _contents(self) -> dict:
        return {
            "learner": self.parts.learner.state_dict(),
            "runner": self.parts.runner.state_dict(),
            "schedule": self.schedule.state_dict(),
            "updates": self.parts.updates.state_dict(),
            "best": self.best,
            "best_files": {k: torch.frombuffer(bytearray(v), dtype=torch.uint8) for k, v in self.best_files.items()},
            "wall_s": self.directory.wall_seconds,
            "seconds": dict(self.parts.runner.clock.seconds),
            "t_start": self.directory.t_start,
        }

    def load(self, saved: Saved) -> None:
        """Go on from a state. StateError where it does not fit the parts, which are then of no more use."""
        try:
            if odd := unlike(saved.parts, self._contents()):
                raise ValueError(odd)
            self._load(saved.parts)
            for first, episodes in saved.replay or []:
                assert self.parts.buffer is not None
                self.parts.buffer.put_back(first, episodes)
        except (OSError, MemoryError) as error:  # says nothing of what is in it
            raise StateError(
                f"{self.states.folder}: the state cannot be read: {brief(error)}; it stays as it is: resume the run "
                "again when the disk and the memory allow it"
            ) from error
        except Exception as error:  # a state that was changed can fail in any way
            raise StateError(
                f"{self.states.folder}: the state does not fit this version of the program (it was written by "
                f"{writer(saved.facts)}): {brief(error)}; resume the run with that version"
            ) from error

    def put_best(self) -> None:
        """Make checkpoints/best what it was when the state that was loaded was written."""
        self.directory.put_checkpoint(BEST, self.best_files)

    def _load(self, contents: dict) -> None:
        self.parts.learner.load_state_dict(contents["learner"])
        self.parts.runner.load_state_dict(contents["runner"])
        self.parts.logger.episode = self.parts.runner.episodes
        self.schedule.load_state_dict(contents["schedule"])
        if "updates" in contents:  # states of the version before have none
            self.parts.updates.load_state_dict(contents["updates"])
        best, names = contents["best"], contents["best_files"].keys()
        kinds = {"metric": str, "value": float, "t_env": int}
        if best is not None and not all(isinstance(best[name], kind) for name, kind in kinds.items()):
            raise ValueError(f"best is {best}")
        if odd := [name for name in names if Path(name).name != name]:
            raise ValueError(f"best_files has {odd[0]}")
        self.best = best
        self.best_files = {name: bytes(values.numpy()) for name, values in contents["best_files"].items()}
        self.parts.runner.clock.begin(contents.get("seconds", {}))
        self.directory.wall_before, self.directory.t_start = contents["wall_s"], contents["t_start"]
        self._t_env = self.parts.runner.t_env
