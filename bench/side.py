"""The process of one side of a comparison (`costs/sides.py`). Not for the command line.

It reads a job from stdin, makes what is to be measured, and works once for each further line. Answers go to what was
stdout; what is measured prints to nowhere.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # and it must not live on without it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.append(sys.path.pop(0))  # this folder holds names, as `run`, that the measured programs have too

    def answer(message: dict) -> None:
        print(json.dumps(message), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, job["cores"])
    try:
        module, function = job["make"].split(":")
        from costs.sides import BadInput

        try:
            make = getattr(importlib.import_module(f"costs.{module}"), function)
            work, about = make(device=job["device"], threads=job["threads"], **job["arguments"])
        except BadInput as error:
            answer({"missing": str(error)})
            return
        settle = synchroniser(job["device"])
        answer(about)
        while sys.stdin.readline():
            settle()
            cpu, wall = time.process_time(), time.perf_counter()
            figures = work() or {}
            settle()
            answer({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, **figures})
    except Exception as error:
        traceback.print_exc()
        # Bad input by a class of ours, which a peer's side does not have.
        refused = any(cls.__name__ == "ConfigError" for cls in type(error).__mro__)
        answer({"missing": str(error)} if refused else {"error": f"{type(error).__name__}: {error}"})


def synchroniser(device: str) -> Callable[[], None]:
    """A function that waits until the device has done all that it was given."""
    if device == "cpu":
        return lambda: None
    import torch

    return torch.cuda.synchronize


if __name__ == "__main__":
    main()
