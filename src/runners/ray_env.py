"""Environments that play in Ray actors, on any node of a cluster, as the run sees them.

Environment i has a home actor; while that is lost another one carries it. What was ordered of i and has not come stays
here, so it is ordered again, from the same streams, wherever i goes: the same episode.
"""

import logging
import os
import pickle
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from components.episode_buffer import Scheme
from envs.vector import GameError, Seed, VectorEnv
from envs.workers.worker_env import BACKOFF, IN_A_ROW
from runners.ray_actor import Episode, Order, Told
from utils.args import ConfigError
from utils.messages import brief
from utils.ray_cluster import SOURCE, RayCluster
from utils.seeding import stream

LOOK = 0.5  # seconds between two looks at signals and lost actors
ROOM = 600  # seconds that a cluster has for starting an actor, before the run gives up
ENDING = 10  # seconds that actors get to close their games, all together
MOST_BACKOFF = 60  # seconds
TABLES = ("controllers", "modules.agents", "components.action_selectors")  # that agents are found in


class Slot:
    """An actor, or the place of one that is lost. number: its own; home: environments that are its."""

    def __init__(self, number: int, home: list[int]):
        self.number, self.home = number, home
        self.actor: Any = None
        self.asked: Any = None  # reference to the answer that is waited for
        self.ready, self.host, self.failures, self.again_at = False, "", 0, 0.0
        self.since = time.monotonic()  # it is waited for
        self.carries: set[int] = set()  # environments whose processes it has

    def __str__(self) -> str:
        return f"actor {self.number}" + (f" on {self.host}" if self.host else "")


class RayEnv(VectorEnv):
    """`n_envs` environments, each in a process, which `n_actors` actors carry. They play whole rounds (`order`,
    `gather`); they cannot be stepped.

    address: of the cluster; None: one is started on this machine. ConfigError where none can be used.
    """

    def __init__(
        self, env_class: type[VectorEnv], config: Any, n_envs: int, seed: Seed, address: str | None, n_actors: int
    ):
        self.in_processes, self.shares_stream = True, False
        self.game, self.n_envs, self.own_process = (env_class, config), n_envs, env_class.own_process
        self.seed = stream(seed)
        self.log = logging.getLogger("qtran")
        self.slots: list[Slot] = []
        self.prepared: Any = None
        self.states: list[Any] = [None] * n_envs  # of the games, after their last episodes
        self.started = [0] * n_envs  # processes of their games
        self.outstanding: list[dict[tuple[int, ...], Order]] = [{} for _ in range(n_envs)]
        self.carrier: list[Slot | None] = [None] * n_envs
        self.losses = [0] * n_envs  # in a row
        n_actors = min(n_actors, n_envs)
        self.cluster = RayCluster("ray_address", address, cpus=n_actors)
        try:
            have = int(self.cluster.resources().get("CPU", 0))
            if have < n_actors:
                raise ConfigError(
                    f"ray_actors = {n_actors}: each takes a CPU of the cluster, and it has {have}; give at most {have}"
                )
            self.slots = [Slot(k, part.tolist()) for k, part in enumerate(np.array_split(np.arange(n_envs), n_actors))]
            for slot in self.slots:
                self._start(slot)
                slot.carries = set(slot.home)
                for i in slot.home:
                    self.carrier[i] = slot
            self._await_all()
            where = f"the cluster at {address}" if address else "this machine"
            hosts = sorted({slot.host for slot in self.slots})
            self.log.info(f"{n_actors} Ray actors on {where} ({', '.join(hosts)}) play {n_envs} environments")
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ rounds

    def prepare(self, args: SimpleNamespace, scheme: Scheme, groups: dict[str, int]) -> None:
        """How the agents are made, in every actor. args: of the run, with the sizes of the game."""
        tables = {module: sys.modules[module].REGISTRY for module in TABLES}
        self.prepared = (args, scheme, groups, tables)
        for slot in self.slots:
            slot.actor.prepare.remote(pickle.dumps(self.prepared))

    def order(self, order: Order) -> None:
        """Have the environments `order.envs` play a round, after those that were ordered before; a test at once."""
        for i in order.envs:
            self.outstanding[i][order.key] = order
        self._send([(i, order) for i in order.envs])

    def gather(self) -> list[Episode]:
        """Episodes that have ended; none after a while in which none did. GameError where it cannot go on."""
        import ray

        self._restart()
        waiting = {slot.asked: slot for slot in self.slots if slot.asked is not None}
        if not waiting:
            time.sleep(LOOK)
            return []
        there, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK)
        if there:  # all that are
            there, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        episodes = []
        for reference in there:
            slot, answer = waiting[reference], self._answer(reference)
            slot.asked = None
            if isinstance(answer, Told) and answer.error is None:
                slot.asked = slot.actor.collect.remote()
                episodes += self._take_in(slot, answer)
            elif isinstance(answer, Told):
                assert answer.error is not None
                raise answer.error
            elif isinstance(answer, Exception):
                self._lose(slot, answer)
            else:
                self._welcome(slot, answer)
        return episodes

    def abandon(self) -> None:
        """What was ordered and has not come is not wanted."""
        for orders in self.outstanding:
            orders.clear()
        for slot in self.slots:
            if slot.ready:
                slot.actor.abandon.remote()

    def put(self, weights: dict[str, np.ndarray]) -> Any:
        """A reference to weights, which actors pull."""
        import ray

        return ray.put(weights)

    # ------------------------------------------------------------------ actors

    def _start(self, slot: Slot) -> None:
        from runners.ray_bootstrap import carrier_class

        # So that modules of a user's own are found. The program itself is sent to other machines (`RayCluster`).
        paths, here = [path or os.getcwd() for path in sys.path], self.cluster.address is None
        if not here:
            paths = [path for path in paths if os.path.realpath(path) != str(SOURCE)]
        arguments = pickle.dumps((self.game, self.n_envs, self.seed, slot.home))
        options = {"num_cpus": 1, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        slot.actor = carrier_class().options(**options).remote(paths, here, os.getcwd(), arguments)
        slot.asked, slot.ready, slot.host = slot.actor.hello.remote(), False, ""
        slot.carries, slot.since = set(), time.monotonic()
        if not self.own_process and not any(self.states):  # nothing is to be told of its games
            slot.carries = set(slot.home)

    def _answer(self, reference: Any) -> Any:
        """What an actor answers, or the error that there is instead."""
        import ray
        from ray.exceptions import RayError

        try:
            return pickle.loads(ray.get(reference))
        except RayError as error:
            return error

    def _await_all(self) -> None:
        """Until all actors are there. ConfigError where one cannot start."""
        import ray

        told = False
        while waiting := {slot.asked: slot for slot in self.slots if not slot.ready}:
            there, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK)
            for reference in there:
                slot, answer = waiting[reference], self._answer(reference)
                if isinstance(answer, ConfigError):
                    raise ConfigError(f"{slot}: {answer}")
                if isinstance(answer, Exception):
                    raise ConfigError(f"{slot} cannot start: {_reason(answer)}")
                self._welcome(slot, answer)
            waited = time.monotonic() - self.slots[0].since
            if waited > 10 and not told and not there:
                told = True
                self.log.info(f"waiting for room for {len(waiting)} of {len(self.slots)} actors on the cluster")
            if waited > ROOM:
                raise ConfigError(
                    f"ray_actors = {len(self.slots)}: the cluster had no room for {len(waiting)} of them in {ROOM} s; "
                    "give fewer, or wait until others have ended"
                )

    def _welcome(self, slot: Slot, answer: tuple) -> None:
        self.env_info, self.common_reward, self.versions, self.facts, self.notes, slot.host = answer
        slot.ready, slot.failures = True, 0
        if self.prepared is not None:
            slot.actor.prepare.remote(pickle.dumps(self.prepared))
        slot.asked = slot.actor.collect.remote()
        moved = [i for i in range(self.n_envs) if self.carrier[i] is None or i in slot.home]
        for other in self.slots:
            gone = [i for i in moved if self.carrier[i] is other and other is not slot and i in other.carries]
            if gone:
                other.carries -= set(gone)
                other.actor.leave.remote(gone)
        self._give(moved, slot)

    def _give(self, envs: list[int], slot: Slot | None) -> None:
        """Have `slot` carry these, and play what is outstanding of them."""
        for i in envs:
            self.carrier[i] = slot
        self._send([(i, order) for i in envs for order in self.outstanding[i].values()])

    def _send(self, wanted: list[tuple[int, Order]]) -> None:
        for slot in self.slots:
            mine = [(i, order) for i, order in wanted if self.carrier[i] is slot and slot.ready]
            if not mine:
                continue
            by_key: dict[tuple[int, ...], list[int]] = {}
            orders = {order.key: order for _, order in mine}
            for i, order in mine:
                by_key.setdefault(order.key, []).append(i)
            new = {i for i, _ in mine} - slot.carries
            slot.carries |= new
            sent = [orders[key]._replace(envs=tuple(envs)) for key, envs in by_key.items()]
            slot.actor.order.remote(sent, {i: (self.states[i], self.started[i]) for i in new})

    def _take_in(self, slot: Slot, told: Told) -> list[Episode]:
        for line in told.warnings:
            self.log.warning(f"{slot}: {line}")
        if told.restarts:
            self.restarts = (self.restarts or 0) + told.restarts
        kept = []
        for episode in told.episodes:
            i = episode.i
            if self.carrier[i] is slot and self.outstanding[i].pop(episode.key, None) is not None:
                self.states[i], self.started[i], self.losses[i] = episode.state, episode.started, 0
                kept.append(episode)
        return kept

    def _lose(self, slot: Slot, error: Exception) -> None:
        """Forget an actor that is lost, or cannot start; others carry its environments."""
        import ray

        was, self_ready = str(slot), slot.ready
        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.actor, slot.asked, slot.ready, slot.host = None, None, False, ""
        slot.failures += 1
        wait = min(MOST_BACKOFF, BACKOFF * (2 ** (slot.failures - 1) - 1))
        slot.again_at = time.monotonic() + wait
        envs = [i for i in range(self.n_envs) if self.carrier[i] is slot]
        others = [other for other in self.slots if other.ready]
        played = [i for i in envs if self.outstanding[i]]
        if self_ready:
            there = "another plays them anew" if others else "its successor plays them anew"
            self.log.warning(f"{was} is lost ({_reason(error)}), with {len(played)} episodes; {there}")
        elif not others and slot.failures >= IN_A_ROW:
            raise GameError(f"no Ray actor is left, and none can start: {_reason(error)}")
        for i in played:
            self.losses[i] += 1
            self.restarts = (self.restarts or 0) + 1
            if self.losses[i] >= IN_A_ROW:
                raise GameError(
                    f"environment {i}: its actor was lost {IN_A_ROW} times without a whole episode between; the last: "
                    f"{_reason(error)}"
                )
        for k, i in enumerate(envs):
            self.started[i] += 1  # its game has drawn what nobody knows
            self._give([i], others[k % len(others)] if others else None)

    def _restart(self) -> None:
        now = time.monotonic()
        for slot in self.slots:
            if slot.actor is None and now >= slot.again_at:
                self._start(slot)
        if not any(slot.ready for slot in self.slots) and now - max(slot.since for slot in self.slots) > ROOM:
            raise GameError(f"no Ray actor is left, and the cluster had no room for another one in {ROOM} s")

    # ------------------------------------------------------------------ as every VectorEnv

    def state_dict(self) -> dict:
        return {"workers": list(self.states), "started": list(self.started)}

    def load_state_dict(self, state: dict) -> None:
        self.states = list(state["workers"])
        self.started = [max(a, int(b)) for a, b in zip(self.started, state["started"])]
        if self.own_process or any(self.states):
            for slot in self.slots:
                slot.carries.clear()  # their games begin anew, from these states

    def close(self) -> None:
        """Ends the games, the actors, and a Ray that was started here."""
        import ray

        try:
            if ray.is_initialized():
                ready = [slot for slot in self.slots if slot.ready]
                closing = [slot.actor.close.remote() for slot in ready]
                if closing:
                    ray.wait(closing, num_returns=len(closing), timeout=ENDING)
                for slot in self.slots:
                    if slot.actor is not None:
                        ray.kill(slot.actor)
        finally:
            self.slots = []
            self.cluster.close()


def _reason(error: Exception) -> str:
    """Why an actor is gone, in a line."""
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    if any("died" in line or "node" in line for line in lines[:1]) and len(lines) > 1:
        return brief(RuntimeError(lines[0])).removeprefix("RuntimeError: ")
    return brief(RuntimeError(lines[-1] if lines else type(error).__name__)).removeprefix("RuntimeError: ")
