"""Which sweep is at which run: a claim on a folder for each planned run, in the results folder that all sweeps share.

RESULTS/at_work/<environment>/<algorithm>/seed<k>/{claims/, plan.json, failures.jsonl}

A sweep claims a run before it starts it (`utils/claim.py`, which holds on NFS), so several sweeps, array jobs or pods
can work on one study at once. The folder is there before the run has a directory, so no run is begun twice. What is
complete is read off the run directories alone: delete `at_work` when no sweep runs, and nothing is lost.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

from sweeping.plan import Existing, PlannedRun, differences, folder_name
from utils.args import ConfigError
from utils.claim import Claim, Held, holder, take
from utils.identity import counts, flat, text
from utils.messages import unwritable
from utils.runs import Run, find_runs, read_json

FOLDER = "at_work"
LOOK_AGAIN = 5.0  # seconds until a run that another sweep is at is looked at again


class Elsewhere(Exception):
    """Another process is at the run, which the message names."""

    def __init__(self, who: str, age: float):
        super().__init__(who)
        self.age = age  # seconds since the holder renewed its claim


class Complete(Exception):
    """The run is complete: another sweep has done it."""


class GivenUp(Exception):
    """Another job of the same sweep has failed at the run as often as is allowed. The message: why."""


class Turn:
    """A run that this process may work on, until `release`. Made by `begin`.

    found: its newest unfinished run directory, or None. taken_over: that directory's process is frozen, so that only
    its name makes a resume take it.
    """

    def __init__(self, run: PlannedRun, claim: Claim, folder: Path, found: Run | None, taken_over: bool):
        self.run, self.claim, self.folder, self.found, self.taken_over = run, claim, folder, found, taken_over
        self._looked = time.monotonic()

    def mine(self) -> bool:
        """Whether the run is still this process's. Asks the file system every two seconds, as NFS is slow."""
        if time.monotonic() - self._looked < 2:
            return True
        self._looked = time.monotonic()
        return self.claim.mine()

    def failed(self, sweep: str, reason: str, hopeless: bool) -> None:
        """Take note of a failure of the sweep with this name. hopeless: it would fail the same again."""
        with suppress(OSError), open(self.folder / "failures.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"sweep": sweep, "reason": reason, "hopeless": hopeless}) + "\n")

    def release(self) -> None:
        self.claim.release()


def folder_of(run: PlannedRun, results: Path) -> Path:
    """Where the claims of a run are."""
    return Path(results, FOLDER, folder_name(run.environment), run.algorithm, f"seed{run.seed}")


def begin(run: PlannedRun, results: Path, sweep: str, retries: int) -> Turn:
    """Claim a run for this process.

    sweep: a name that all jobs of one sweep share; they count failures together. Raises Elsewhere, Complete, GivenUp,
    and ConfigError where the results folder cannot be written.
    """
    folder = folder_of(run, results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        claim = take(folder)
    except Held as error:
        who = error.holder
        raise Elsewhere(f"process {who.pid} on {who.host}", who.age_seconds) from error
    try:
        # Look for what is complete only after the claim is taken: another sweep may have been finishing it before.
        existing = Existing([run], find_runs(Path(run.values["local_results_path"], run.values["name"])))
        if run in existing.complete:
            raise Complete
        found, taken_over = existing.resumable.get(run), False
        if found is not None and (held := holder(found.path)) is not None and held.state != "dead":
            # The sweep that started it has lost its claim, or somebody resumed the run by hand.
            if held.state == "alive":
                raise Elsewhere(f"process {held.pid} on {held.host}", held.age_seconds)
            taken_over = True
        failures = [f for f in _failures(folder) if f.get("sweep") == sweep]
        if failures and (failures[-1].get("hopeless") or len(failures) > retries):
            raise GivenUp(str(failures[-1].get("reason")))
        config = {key: value for key, value in flat(run.values).items() if counts(key)}
        _write(folder / "plan.json", config)
        return Turn(run, claim, folder, found, taken_over)
    except BaseException:
        claim.release()
        raise


def refuse_another_plan(runs: list[PlannedRun], results: Path) -> None:
    """ConfigError where another sweep is at one of `runs` with other settings: the study changed while it runs."""
    for run in runs:
        folder = folder_of(run, results)
        theirs = _plan(folder)
        if theirs is None or not (differs := differences(theirs, run.values)):
            continue
        held = holder(folder)
        if held is not None and held.state != "dead":
            raise ConfigError(
                f"{run}: another sweep (process {held.pid} on {held.host}) is at this run with other settings: "
                f"{'; '.join(differs[:3])}; the study changed while it runs: wait until that sweep has ended, stop it, "
                "or give --results DIR"
            )


def _plan(folder: Path) -> dict | None:
    try:
        plan = read_json(folder / "plan.json")
        return plan if isinstance(plan, dict) else None
    except (OSError, ValueError):
        return None


def _failures(folder: Path) -> list[dict]:
    found = []
    with suppress(OSError):
        for line in (folder / "failures.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return [failure for failure in found if isinstance(failure, dict)]


def _write(path: Path, value: dict) -> None:
    try:
        path.write_text(text(value) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(path.parent, error) from error
