"""`python src/main.py --status PATH`: state and steps of the runs in or below a folder."""

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from utils.args import ConfigError
from utils.claim import Holder, holder
from utils.disk import expanded
from utils.runs import Run, find_runs, records

SILENT_SECONDS = 600  # a process that lives and has ended no round, of training or of a test, for so long
TAIL = 8192  # bytes of metrics.jsonl that surely hold a record


class Status(NamedTuple):
    """state: running, silent, killed, interrupted, finished, failed or broken, as in a report. idle: seconds
    since the run last wrote a file. state_bytes: size of its resumable state."""

    run: Run
    state: str
    t_env: int
    t_max: int | None
    idle: float
    holder: Holder | None
    state_bytes: int


def status_of(run: Run) -> Status:
    held = holder(run.path)
    tail = records(run.path / "metrics.jsonl", TAIL)
    known = [run.summary.get("t_env"), tail[-1]["t_env"] if tail else None]
    t_env = max((t for t in known if isinstance(t, int)), default=0)
    idle = _idle(run.path)
    if held is not None and held.state == "dead":
        held = None
    if held is not None:
        state = "silent" if held.state == "frozen" or idle > SILENT_SECONDS else "running"
    elif run.problem:
        state = "broken"
    else:
        state = "killed" if run.status == "running" else str(run.status)  # a process that was killed wrote no end
    return Status(run, state, t_env, run.config.get("t_max"), idle, held, _size(run.path / "state"))


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, which may be replaced while they are counted."""
    total = 0
    for file in folder.glob("*"):
        with suppress(OSError):
            total += file.stat().st_size
    return total


def _idle(path: Path) -> float:
    """Seconds since one of the files changed that a run writes as it goes on."""
    files = [path / name for name in ("summary.json", "metrics.jsonl", "log.txt", "config.yaml")]
    stamps = []
    for file in files:
        with suppress(OSError):
            stamps.append(file.stat().st_mtime)
    return max(0.0, time.time() - max(stamps)) if stamps else 0.0


def show_status(path: str) -> int:
    """Print a table; returns the exit status. ConfigError where there is no such folder."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from utils.messages import duration

    folder = expanded(path)
    if not folder.is_dir():
        raise ConfigError(
            f"--status {path}: this folder does not exist; give a folder that holds runs, such as results"
        )
    console = Console(highlight=False, emoji=False)
    found = [status_of(run) for run in find_runs(folder)]
    if not found:
        console.print(f"no runs in or below {folder}", markup=False, soft_wrap=True)
        return 0
    table = Table("run", "state", "steps", "last change", "process", "state on disk")
    for s in found:
        steps = f"{s.t_env:,} of {s.t_max:,}" if isinstance(s.t_max, int) else f"{s.t_env:,}"
        who = f"{s.holder.pid} on {s.holder.host}" if s.holder else ""
        size = f"{s.state_bytes / 2**20:.1f} MiB" if s.state_bytes else ""
        ago = f"{duration(s.idle)} ago"
        table.add_row(*(Text(cell) for cell in (str(s.run.path), s.state, steps, ago, who, size)))
    if not console.is_terminal:
        console = Console(width=200, highlight=False, emoji=False)
    console.print(table)
    counts = {state: sum(s.state == state for s in found) for state in dict.fromkeys(s.state for s in found)}
    total = sum(s.state_bytes for s in found)
    said = ", ".join(f"{n} {state}" for state, n in counts.items())
    console.print(f"{len(found)} runs: {said}; states: {total / 2**20:.1f} MiB", markup=False, soft_wrap=True)
    for s in found:
        reason = s.run.problem or s.run.summary.get("reason")
        if s.state in ("failed", "broken") and reason:
            console.print(f"{s.run.path}: {reason}", markup=False, soft_wrap=True)
    return 0
