"""Tables on stdout, row by row as they are measured."""

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

from costs.sides import Failed, Interrupted, in_turn


def machine(device: str, threads: int) -> str:
    """Processor or card, cores, threads, torch, and how busy the machine is: for the head of all tables."""
    if device == "cuda":
        import torch

        chip = torch.cuda.get_device_name()
    else:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        chip = models[0].partition(":")[2].strip() if models else "unknown processor"
    cores, busy = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    torch_version = importlib.metadata.version("torch")  # importing it would take a second
    return (
        f"{chip}; {cores} of {os.cpu_count()} cores, {threads} thread{'s' * (threads > 1)}; torch {torch_version}, "
        f"float32; load {busy:.1f} before the start"
    )


class Table:
    """A Markdown table. Its head is printed with the first row, so that an interruption leaves a whole table."""

    def __init__(self, title: str, columns: list[str]):
        self.title, self.columns, self.rows = title, columns, 0

    def add(self, *cells: str) -> None:
        if not self.rows:
            print(f"\n**{self.title}**\n\n| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}")
        self.rows += 1
        print(f"| {' | '.join(cells)} |", flush=True)


class Notes:
    """Lines that are said once: what was repaired, what failed."""

    def __init__(self) -> None:
        self.said, self.failed = [], False

    def say(self, line: str) -> None:
        if line not in self.said:
            self.said.append(line)

    def repairs(self, about: dict) -> None:
        """about: {side: what it says of itself}."""
        for name, said in about.items():
            for repair in said.get("repairs", ()):
                self.say(f"{name}, repaired: {repair}")
            for setting in said.get("settings", ()):
                self.say(f"{name}: {setting}")

    def show(self) -> None:
        if self.said:
            print("\n" + "\n".join(f"- {line}" for line in self.said), flush=True)


def measure(row: Callable[[dict], None], jobs: dict, repeats: int, notes: Notes) -> None:
    """Let the sides of `jobs` work in turn, then call row(turns). A side that fails costs its row a note.

    At Ctrl-C the row is made of the turns that there are, and Interrupted goes on.
    """
    try:
        turns = in_turn(jobs, repeats, notes.repairs)
    except Failed as error:
        notes.failed = True
        notes.say(f"failed: {error}")
        return
    except Interrupted as stop:
        if all(stop.turns[name] for name in jobs):
            row(stop.turns)
        raise
    row(turns)
