"""Schedules of ε, the share of random actions."""


class LinearThenFlat:
    """From `start` to `finish` in a straight line over `anneal_time` environment steps, then flat."""

    def __init__(self, start: float, finish: float, anneal_time: int) -> None:
        self.start, self.finish, self.anneal_time = start, finish, anneal_time

    def eval(self, t_env: int) -> float:
        if t_env >= self.anneal_time:
            return self.finish
        return self.start + (self.finish - self.start) * t_env / self.anneal_time
