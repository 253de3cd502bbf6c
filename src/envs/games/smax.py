"""SMAX, the SMAC-like battles of jaxmarl (Rutherford et al. 2024), without StarCraft II. Its results are not SMAC's.

All environments are one array: `vmap` of jaxmarl's `step_env`, compiled for one scenario and number of environments.
Axes: E environments, N agents, M enemies, A actions, O observation, S state.
"""

import contextlib
import functools
import importlib.metadata
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.games import pictures
from envs.vector import ArrayEnv, EnvInfo, Observation, Seed
from utils import interrupts
from utils.args import ConfigError, key
from utils.messages import brief

SCENARIOS = (
    "3m", "8m", "25m", "2s3z", "3s5z", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "3s_vs_5z", "3s5z_vs_3s6z", "6h_vs_8z",
    "smacv2_5_units", "smacv2_10_units", "smacv2_20_units",
)  # fmt: skip


class SMAX(ArrayEnv):
    """N units that learn, against M that walk to an agent in sight, else across the map, and shoot.

    Actions: 0 to 3 move, 4 stop (all that the dead can do), then one for each enemy to attack. terminated: a side is
    dead; truncated: the time limit. The reward is `reward_scale` times the share of its health that an enemy lost at
    this step (mean over enemies), and `reward_scale` for a victory. info: battle_won (all enemies dead, and somebody
    alive), dead_allies, dead_enemies.

    obs [E, N, O]: units in sight, allies first, then oneself, as jaxmarl has them. state [E, S]: of each unit health,
    position, cooldown and type, then all teams and types; all are scaled to 0..1.
    """

    @dataclass(frozen=True)
    class Config:
        map_name: str = key("the scenario", choices=SCENARIOS)
        episode_limit: int = key("time limit; jaxmarl: 100", unit="steps", low=1, high=1_000_000)
        reward_scale: float = key("rewards are multiplied by it; with 1 the return is at most 2", above=0)
        attack_mode: str = key(
            "which agent in range an enemy turns on, until it is dead or out of range", choices=("closest", "random")
        )
        see_enemy_actions: bool = key("agents see what the enemies in sight did last")
        walls_cause_death: bool = key("who touches the edge of the map dies; on smacv2_* a few units begin there")

    needs, install = ("jaxmarl",), "pip install -r requirements/smax.txt"
    one_array = True

    def __init__(self, config: Config, n_envs: int = 1, seed: Seed = None) -> None:
        self.config, self.game = config, make_game(config)
        self._programs = _programs(config)
        self.versions = {package: importlib.metadata.version(package) for package in ("jaxmarl", "jax")}
        n, m = self.game.num_allies, self.game.num_enemies
        self._carry: Any = None  # on jax's side: random key and state of each environment
        self.alive = np.ones((n_envs, n + m), dtype=bool)  # agents, then enemies
        info = EnvInfo(n, 5 + m, self.game.obs_size, self.game.state_size, config.episode_limit)
        super().__init__(info, n_envs, seed)

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        seeds = np.zeros(self.n_envs, dtype=np.uint32)
        seeds[mask] = self.rng.integers(2**32, size=mask.sum(), dtype=np.uint32)
        with interrupts.held():  # an exception in the midst of jax ends in an abort
            if self._carry is None:
                self._start(seeds)
            self._carry, seen = self._programs.reset(self._carry, seeds, mask)
            self._take(seen)

    def _step(
        self, actions: NDArray[np.int64], live: NDArray[np.bool_]
    ) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        with interrupts.held():
            self._carry, reward, seen = self._programs.step(self._carry, actions, live)
            self._take(seen)
        allies, enemies = self._sides()
        over: Any = ~(allies.any(axis=1) & enemies.any(axis=1))
        return np.asarray(reward), over

    def _take(self, seen: tuple[Any, ...]) -> None:
        obs, state, avail, self.alive = (np.array(a) for a in seen)  # copies: torch wants arrays of its own
        self.seen = Observation(obs, state, avail)

    def _observe(self) -> Observation:
        return self.seen

    def _sides(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who is alive: agents [E, N], enemies [E, M]."""
        return self.alive[:, : self.env_info.n_agents], self.alive[:, self.env_info.n_agents :]

    def _info(self) -> dict[str, NDArray[Any]]:
        allies, enemies = self._sides()
        return {
            "battle_won": (allies.any(axis=1) & ~enemies.any(axis=1)).astype(float),
            "dead_allies": (~allies).sum(axis=1),
            "dead_enemies": (~enemies).sum(axis=1),
        }

    def _start(self, seeds: NDArray[np.uint32]) -> None:
        """Make room for the states, and compile, by running everything once: 10 to 60 seconds the first time."""
        programs, log, start = self._programs, logging.getLogger("qtran"), time.monotonic()
        self._carry = programs.empty(seeds)
        if self.n_envs not in programs.sizes:
            name = f"SMAX {self.config.map_name}, {self.n_envs} environments"
            log.info(f"{name}: compiling, once a run; 10 to 60 s")
            everywhere = np.ones(self.n_envs, dtype=bool)
            carry, _ = programs.reset(self._carry, seeds, everywhere)
            programs.step(carry, np.full((self.n_envs, self.env_info.n_agents), 4), everywhere)
            programs.sizes.add(self.n_envs)
            log.info(f"{name}: compiled in {time.monotonic() - start:.0f} s")

    def render(self) -> str:
        """Of the first environment: the health of each unit, 0 for the dead, and where it is."""
        state = self._carry[1].state
        health, xy = np.asarray(state.unit_health)[0], np.asarray(state.unit_positions)[0]
        units = [f"{h:.0f} ({x:.1f}, {y:.1f})" for h, (x, y) in zip(health * self.alive[0], xy)]
        n = self.env_info.n_agents
        return f"agents:  {'  '.join(units[:n])}\nenemies: {'  '.join(units[n:])}"

    def frame(self) -> NDArray[np.uint8]:
        state = self._carry[1].state
        health, xy = np.asarray(state.unit_health)[0], np.asarray(state.unit_positions)[0]
        size = self.game.map_width, self.game.map_height
        return pictures.battle(xy, health * self.alive[0], self.env_info.n_agents, size)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Importing jaxmarl prints, and leaves sys.__stdout__ and sys.__stderr__ in the places of sys.stdout and stderr."""
    names = ("stdout", "__stdout__", "stderr")
    kept = {name: getattr(sys, name) for name in names}
    sys.stdout = io.StringIO()
    setattr(sys, "__stdout__", sys.stdout)  # noqa: B010  # it is declared to be final
    try:
        yield
    finally:
        for name in names:
            setattr(sys, name, kept[name])


class Programs(NamedTuple):
    """jax's functions for one Config, compiled at their first call with a number of environments E.

    empty(seeds [E]) → carry: (random keys, states), to begin with. reset(carry, seeds [E], mask [E]) → carry, seen;
    step(carry, actions [E, N], live [E]) → carry, reward [E], seen; what mask or live leaves out stays as it is.
    seen: obs [E, N, O], state [E, S], avail [E, N, A], alive [E, N + M]. sizes: numbers E that are compiled.
    """

    empty: Callable
    reset: Callable
    step: Callable
    sizes: set


@functools.lru_cache(maxsize=4)
def make_game(config: SMAX.Config) -> Any:
    """jaxmarl's environment."""
    try:
        with _silence():
            from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario
    except Exception as error:  # jax that does not go with its jaxlib raises a RuntimeError
        raise ConfigError(f"jaxmarl cannot be imported: {brief(error)}; install it with: {SMAX.install}") from error
    return HeuristicEnemySMAX(
        scenario=map_name_to_scenario(config.map_name),
        attack_mode=config.attack_mode,
        see_enemy_actions=config.see_enemy_actions,
        walls_cause_death=config.walls_cause_death,
        max_steps=config.episode_limit,
    )


@functools.lru_cache(maxsize=4)
def _programs(config: SMAX.Config) -> Programs:
    """The Programs of a Config."""
    import jax
    import jax.numpy as jnp

    game = make_game(config)
    agents, scale = game.agents, jnp.asarray(_state_scale(game))
    units = np.arange(game.num_allies + game.num_enemies)
    of_cooldown = units * len(game.own_features) + game.own_features.index("weapon_cooldown")  # where the state has it

    def look(state: Any) -> tuple[Any, ...]:
        obs, avail, now = game.get_obs(state), game.get_avail_actions(state), state.state
        # Units of smacv2_* may begin a little outside the map.
        world = (game.get_world_state(state) * scale).clip(0, 1)
        # jaxmarl's observations have the cooldown as a share, and its state in seconds, which go on falling below 0.
        cooldown = (now.unit_weapon_cooldowns / game.unit_type_weapon_cooldowns[now.unit_types]).clip(0, 1)
        return (
            jnp.stack([obs[a] for a in agents]),
            world.at[of_cooldown].set(cooldown * now.unit_alive),
            jnp.stack([avail[a] for a in agents]).astype(bool),
            now.unit_alive,
        )

    def begin(seed: Any) -> tuple[Any, Any]:
        random, now = jax.random.split(jax.random.PRNGKey(seed))
        return random, game.reset(now)[1]

    def play(random: Any, state: Any, actions: Any) -> tuple[Any, Any]:
        random, now = jax.random.split(random)
        _, state, reward, _, _ = game.step_env(now, state, dict(zip(agents, actions)))
        return (random, state), reward[agents[0]] * config.reward_scale

    def choose(mask: Any, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)

    @jax.jit
    def reset(carry: Any, seeds: Any, mask: Any) -> tuple[Any, Any]:
        carry = choose(mask, jax.vmap(begin)(seeds), carry)
        return carry, jax.vmap(look)(carry[1])

    @jax.jit
    def step(carry: Any, actions: Any, live: Any) -> tuple[Any, Any, Any]:
        random, state = carry
        new, reward = jax.vmap(play)(random, state, actions)
        carry = choose(live, new, carry)
        return carry, reward, jax.vmap(look)(carry[1])

    def empty(seeds: Any) -> Any:
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(jax.vmap(begin), seeds))

    return Programs(empty, reset, step, set())


def _state_scale(game: Any) -> NDArray[np.float32]:
    """What the state [S] is multiplied by: positions come as 0..32, types as numbers from 0."""
    units = game.num_allies + game.num_enemies
    of_unit = np.ones(len(game.own_features), dtype=np.float32)
    of_unit[1:3] = 1 / game.map_width, 1 / game.map_height
    types = np.full(units, 1 / (len(game.unit_type_names) - 1), dtype=np.float32)
    return np.concatenate([np.tile(of_unit, units), np.ones(units, dtype=np.float32), types])
