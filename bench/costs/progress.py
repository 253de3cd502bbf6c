"""How far a whole run is and when, whoever's run it is: noted each time that a round goes into the replay."""

import time
from pathlib import Path
from typing import Any, NamedTuple


class Note(NamedTuple):
    wall: float  # seconds
    cpu: float  # seconds, of this process alone
    steps: int  # of the environments, in the rounds until here
    updates: int
    samples: int  # transitions in the minibatches of these updates


class Progress:
    """Notes of one run. `attach` it to the class of its replay, ours or EPyMARL's: an update draws one minibatch."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.steps = self.updates = self.samples = 0
        self.buffer: Any = None

    def attach(self, buffer_class: Any) -> None:
        insert, sample = buffer_class.insert_episode_batch, buffer_class.sample

        def inserted(buffer: Any, batch: Any) -> None:
            if getattr(buffer, "within", False):  # EPyMARL's calls itself at the end of its memory
                insert(buffer, batch)
                return
            self.buffer, buffer.within = buffer, True
            self.steps += _transitions(batch)
            self.notes.append(Note(time.perf_counter(), time.process_time(), self.steps, self.updates, self.samples))
            insert(buffer, batch)
            buffer.within = False

        def sampled(buffer: Any, *arguments: Any) -> Any:
            batch = sample(buffer, *arguments)
            self.updates += 1
            self.samples += _transitions(batch)
            return batch

        buffer_class.insert_episode_batch, buffer_class.sample = inserted, sampled

    def figures(self) -> dict:
        """What happened between the first round with updates behind it (the second one, where there are none) and the
        last: {"seconds": wall, "cpu_seconds", "steps", "updates", "samples", "rounds"}."""
        first = next((i for i, note in enumerate(self.notes) if note.updates), 1)
        if len(self.notes) - first < 2:
            raise RuntimeError(f"{len(self.notes)} rounds, {self.updates} updates: too few to be timed")
        begin, end = self.notes[first], self.notes[-1]
        done = [b - a for a, b in zip(begin, end)]
        names = ("seconds", "cpu_seconds", "steps", "updates", "samples")
        return dict(zip(names, done)) | {"rounds": len(self.notes) - 1 - first}


def _transitions(batch: Any) -> int:
    """An episode has one observation more than it has transitions."""
    return int(batch["filled"].sum()) - batch.batch_size


def memory(what: str) -> int:
    """Bytes of memory that this process holds: "VmRSS" now, "VmHWM" at most until now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {what}")
