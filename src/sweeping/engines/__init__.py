"""Where the runs of a study are worked on. Results folder, claims and the command of a job are the same for all.

An engine is a module with

    start(order) -> int      begin (slurm, k8s: and return at once; ray: and wait); returns the exit status
    render(order, to) -> int print or write what `start` would submit, where there is such a thing
    status(order) -> int     what is queued and running
    cancel(order) -> int     end it

of which it has those that make sense. `order` is a `sweeping.submission.Order`. It raises ConfigError for bad input
before anything is queued. What a job runs is `Submission.make(order).command()`.
"""

import importlib
from types import ModuleType

from utils.args import ConfigError

MODULES = {
    "local": "sweeping.engines.local",
    "slurm": "sweeping.engines.slurm",
    "ray": "sweeping.engines.ray_tasks",
    "k8s": "sweeping.engines.k8s",
}
HINTS = {
    "local": "; python src/main.py --status RESULTS shows its runs",
    "k8s": "; give --render DIR, then kubectl apply -f DIR",
}


def find(name: str, action: str) -> ModuleType:
    """The module of an engine that has the action. ConfigError where it has not."""
    module = importlib.import_module(MODULES[name])
    if not hasattr(module, action):
        able = [option for option in ("render", "status", "cancel") if hasattr(module, option)]
        has = ", ".join(f"--{option}" for option in able) or "none of --render, --status, --cancel"
        asked = f"--{action}" if action != "start" else "submitting by itself"
        raise ConfigError(f"--engine {name} has no {asked}; it has: {has}{HINTS.get(name, '')}")
    return module
