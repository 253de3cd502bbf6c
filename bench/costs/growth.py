"""Whether the memory of a long run grows: starts it, samples it, stops it with SIGTERM, and fits a line.

Resident memory is summed over all processes of a kind: the trainer,
its workers, their games. The first third of the time is left out of the line: caches fill, and the replay takes its
memory as it fills (so give a small buffer_size). The line is drawn by least squares; beside it stands the median of the
last tenth less that of the tenth after the first third.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from costs.sides import Failed

MAIN = Path(__file__).resolve().parents[2] / "src" / "main.py"
KINDS = ("trainer", "workers", "games")  # by how many parents lie between them and the trainer
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(trainer: int) -> tuple[np.ndarray, np.ndarray]:
    """(MiB, processes) of each kind, [3] and [3]."""
    parent = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    size, number = np.zeros(3), np.zeros(3, dtype=int)
    for pid in parent:
        level, ancestor = 0, pid
        while ancestor != trainer and ancestor in parent:
            level, ancestor = level + 1, parent[ancestor]
        if ancestor == trainer:
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
            except OSError:
                continue
            size[min(level, 2)] += pages * PAGE / 2**20
            number[min(level, 2)] += 1
    return size, number


def watch(minutes: float, words: tuple[str, ...]) -> None:
    """Print the table of a run of main.py with `words` over so many minutes, or as many as there are at Ctrl-C."""
    every, times, samples = min(5.0, 60 * minutes / 20), [], []
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, MAIN, *words, *([] if "with" in words else ["with"])]
        run = subprocess.Popen([*command, f"local_results_path={results}"], start_new_session=True)
        started = time.monotonic()
        try:
            while time.monotonic() - started < 60 * minutes:
                time.sleep(every)
                if run.poll() is not None:
                    took = time.monotonic() - started
                    raise Failed(f"the run ended after {took:.0f} s, exit status {run.returncode}")
                times.append((time.monotonic() - started) / 60)
                samples.append(np.stack(resident(run.pid)))
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.wait()
                if len(times) > 3:
                    report(np.array(times), np.array(samples))


def report(minutes: np.ndarray, samples: np.ndarray) -> None:
    """samples [T, 2, 3]: MiB and processes of each kind."""
    late = minutes > minutes[-1] / 3
    minutes, (size, number) = minutes[late], samples[late].swapaxes(0, 1)
    tenth = max(1, len(minutes) // 7)
    print(f"{'':10s}{'processes':>10s}{'MiB':>10s}{'MiB/hour':>10s}{'last - first MiB':>18s}")
    for kind, mib, n in zip((*KINDS, "all"), [*size.T, size.sum(axis=1)], [*number.T, number.sum(axis=1)]):
        slope = 60 * np.polyfit(minutes, mib, 1)[0]
        change = np.median(mib[-tenth:]) - np.median(mib[:tenth])
        print(f"{kind:10s}{np.median(n):10.0f}{np.median(mib):10.0f}{slope:10.1f}{change:18.1f}")
    print(f"{len(minutes)} samples over {minutes[-1] - minutes[0]:.0f} minutes")
