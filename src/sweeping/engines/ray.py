"""Ray: one task a run. Not there yet."""

from sweeping.submission import Order
from utils.args import ConfigError


def start(order: Order) -> int:
    raise ConfigError("--engine ray is not there yet; use local, slurm or k8s")
