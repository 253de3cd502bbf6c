"""One battle of StarCraft II as a VectorEnv: what SMAC and SMACv2 share. It lives in a worker process.

The package's own environment (the core) is used once: after any failure it is not asked again, as it may count
the rewards of its enemies twice, wait for units that are gone, or pay for enemies that nobody killed. The failure
becomes a GameError, upon which the whole worker is replaced.
Axes: E = 1 environment, N agents, A actions, O observation, S state.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from envs.starcraft.installation import REQUIREMENTS, check_map, game_version, import_problem, package_problem, sc2_path
from envs.starcraft.sc2_process import game_processes
from envs.vector import EnvInfo, GameError, Observation, Seed, Step, VectorEnv
from utils.args import ConfigError, key
from utils.registry import MissingPackage
from utils.seeding import seed_globals, stream

OURS = ("map_name", "timeout", "restart_every", "seed")  # keys that are not the packages', or are given otherwise


class Battle(VectorEnv):
    """A game fills in `map_file`, `_make_core(seed)` and `_begin(stream)`.

    terminated: the battle is won, lost, or the time is up (SMAC's rule); with `continuing_episode` the time limit
    truncates. info: battle_won, dead_allies, dead_enemies, and with `continuing_episode` episode_limit.
    An episode draws what it draws from the seed that `reset` is given.
    """

    @dataclass(frozen=True)
    class Config:
        map_name: str = key("the map")
        difficulty: str = key(
            "strength of the game's own AI", choices=("1", "2", "3", "4", "5", "6", "7", "8", "9", "A")
        )
        game_version: str | None = key("version of the game, such as '4.10'; null: the newest there is")
        seed: int | None = key("of the games and their draws; null: from the run's seed", low=0, high=2**32 - 1)
        step_mul: int = key("length of a step", unit="steps of the game, 22.4 a second", low=1)
        move_amount: float = key("how far an agent moves", unit="cells", above=0)
        continuing_episode: bool = key("the time limit cuts an episode off; False: it ends it, as SMAC has it")
        obs_all_health: bool = key("agents see the health of all units in sight")
        obs_own_health: bool = key("agents see their own health")
        obs_last_action: bool = key("agents see the last actions of the agents in sight")
        obs_pathing_grid: bool = key("agents see which cells around them can be walked on")
        obs_terrain_height: bool = key("agents see the height of the ground around them")
        obs_timestep_number: bool = key("agents see the step of the episode")
        obs_instead_of_state: bool = key("the state is what all agents see, in a row")
        state_last_action: bool = key("the state holds the agents' last actions")
        state_timestep_number: bool = key("the state holds the step of the episode")
        reward_sparse: bool = key("pay 1 for a victory and -1 for a defeat, nothing else")
        reward_only_positive: bool = key("pay for what happens to enemies only")
        reward_death_value: float = key("for a killed enemy", unit="reward before scaling")
        reward_win: float = key("for a victory", unit="reward before scaling")
        reward_defeat: float = key("for a defeat", unit="reward before scaling", high=0)
        reward_negative_scale: float = key("weight of what happens to agents, with reward_only_positive=False")
        reward_scale: bool = key("scale rewards, so that the return of an episode is at most reward_scale_rate")
        reward_scale_rate: float = key("see reward_scale", unit="reward", above=0)
        replay_dir: str = key("where replays go; empty: $SC2PATH/Replays")
        replay_prefix: str = key("how their names begin; empty: with the map's name")
        heuristic_ai: bool = key("a rule plays instead of the agents")
        heuristic_rest: bool = key("that rule takes available actions only")
        debug: bool = key("the package logs what it does")
        timeout: float = key("a game that is silent for so long is started again", unit="seconds", low=1)
        restart_every: int | None = key(
            "start the game again after so many, as its memory grows", unit="episodes", low=1
        )

    own_process = True
    install = REQUIREMENTS
    map_file: str  # name of the map's file

    def __init__(self, config: Any, n_envs: int = 1, seed: Seed = None) -> None:
        if n_envs != 1:
            raise ConfigError(f"{type(self).__name__} plays one battle a process, not {n_envs}")
        path = sc2_path()
        check_map(path, self.map_file)
        version = game_version(path, config.game_version)
        if config.game_version is not None:  # of "4", pysc2 would know nothing
            config = replace(config, game_version=version.rpartition(".")[0])
        self.config, self.versions = config, {"starcraft": version}
        self.max_reward = None  # of the core: what rewards are scaled by
        self.core = self._make_core(int(stream(seed).generate_state(1)[0] >> 1))
        self.core.full_restart = reraise
        self.processes = game_processes(config.timeout)
        info = self.core.get_env_info()  # without a game
        shape = (int(info[k]) for k in ("n_agents", "n_actions", "obs_shape", "state_shape"))
        self.env_info = EnvInfo(*shape, episode_limit=self.core.episode_limit)
        self.reward, self.over, self.cut, self.info = 0.0, True, False, {}  # nothing runs before the first reset
        self.clock = 0  # of the game, when it was last seen

    def _make_core(self, seed: int) -> Any:
        """The package's environment; its process is started by the first reset."""
        raise NotImplementedError

    def _begin(self, stream: np.random.SeedSequence) -> Sequence[NDArray[Any]]:
        """Reset the core; returns the observations of the agents. stream: a SeedSequence for all draws."""
        raise NotImplementedError

    def reset(self, seed: Seed = None, mask: NDArray[np.bool_] | None = None) -> Observation:
        if mask is not None and not mask[0]:
            return self.seen
        source = stream(seed)
        seed_globals(source)  # the order in which agents look around
        self.reward, self.over, self.cut, self.info = 0.0, False, False, {}
        self._safely("reset", lambda: self._observe(self._begin(source)))
        self._scale()
        return self.seen

    def step(self, actions: NDArray[np.int64]) -> Step:
        if not self.over:
            chosen = np.asarray(actions)[0].tolist()
            self._check(chosen)
            reward, over, info = self._safely("step", self.core.step, chosen)
            if over and "battle_won" not in info:  # how the packages say that the game has crashed
                raise GameError("the game failed at a step")
            self._safely("step", self._refuse_nonsense, reward)
            self.reward, self.over = float(reward), bool(over)
            self.cut = self.over and bool(info.get("episode_limit", False))
            self.info = {k: float(info[k]) for k in ("battle_won", "dead_allies", "dead_enemies")}
            if self.config.continuing_episode:
                self.info["episode_limit"] = float(self.cut)
            self._safely("observe", lambda: self._observe(self.core.get_obs()))
        else:
            self.reward = 0.0
        flags = np.array([self.over and not self.cut]), np.array([self.cut])
        info = {name: np.array([value]) for name, value in self.info.items()}
        return Step(*self.seen, np.array([self.reward], dtype=np.float32), *flags, info)

    def save_replay(self) -> str:
        """Save the replay of the game that is running; returns the file."""
        return self._safely("save the replay", self._save_replay)

    def state_dict(self) -> dict[str, Any]:
        return {"max_reward": self.max_reward}

    def load_state_dict(self, state: dict) -> None:
        self.max_reward = state["max_reward"]

    def close(self) -> None:
        self.core.close()

    def _scale(self) -> None:
        """Set `max_reward`, which the packages add up while units appear, too often when that takes long: what it
        pays to kill the enemies of the first episode, and to win. A core that follows keeps it."""
        core, config = self.core, self.config
        if self.max_reward is None:
            health = sum(unit.health_max + unit.shield_max for unit in core.enemies.values())
            self.max_reward = core.n_enemies * config.reward_death_value + config.reward_win + health
        core.max_reward = self.max_reward
        core._episode_count = max(1, core._episode_count)  # at 0 the next reset would start a second game

    def _observe(self, obs: Sequence[NDArray[Any]]) -> None:
        """Look once: what the agents see may depend on how often they are asked."""
        whole = np.concatenate(obs) if self.config.obs_instead_of_state else self.core.get_state()
        avail = np.array(self.core.get_avail_actions(), dtype=bool)
        agents, state = np.array(obs, dtype=np.float32), np.array(whole, dtype=np.float32)
        self._refuse_nonsense(agents, state)
        self.seen = Observation(agents[None], state[None], avail[None])

    def _refuse_nonsense(self, *shown: Any) -> None:
        """ValueError for what no game shows: numbers that are not finite, and a clock that goes back, as in an answer
        without contents; the packages would pay for enemies that are not in it."""
        clock = self.core._obs.observation.game_loop
        if clock < self.clock:
            raise ValueError(f"the game's clock went from {self.clock} to {clock}")
        if not all(np.isfinite(values).all() for values in shown):
            raise ValueError("the game shows a number that is not finite")
        self.clock = clock

    def _check(self, actions: list[int]) -> None:
        """ValueError for an action that its agent does not have now; the packages would crash."""
        for agent, action in enumerate(actions):
            if not 0 <= action < self.env_info.n_actions or not self.seen.avail[0, agent, action]:
                raise ValueError(f"agent {agent} cannot take action {action} now")

    def _safely(self, what: str, act: Callable[..., Any], *args: Any) -> Any:
        """act(*args), with whatever goes wrong as a GameError."""
        try:
            return act(*args)
        except Exception as error:
            raise GameError(f"{what}: {type(error).__name__}: {error}{self._units()}") from error

    def _units(self) -> str:
        """How many units there are, where they are not as many as the map should have."""
        core = self.core
        there, wanted = (len(core.agents), len(core.enemies)), (core.n_agents, core.n_enemies)
        return f" (the map shows {there} agents and enemies, not {wanted})" if there != wanted and any(there) else ""

    def _save_replay(self) -> str:
        core = self.core
        data = core._controller.save_replay()
        return core._run_config.save_replay(data, self.config.replay_dir, self.config.replay_prefix or core.map_name)


def core_arguments(config: Any, *but: str) -> dict[str, Any]:
    """The package's keyword arguments: all keys of `config` that it knows. but: further keys to leave out."""
    arguments = {k: v for k, v in asdict(config).items() if k not in (*OURS, *but)}
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in arguments.items()}


def import_env(package: str) -> ModuleType:
    """The module `package`.env, smacv2's or smac's. ConfigError with the pip line that installs it."""
    problem = package_problem(package)
    if problem:
        raise MissingPackage(problem)
    try:
        return importlib.import_module(f"{package}.env")
    except Exception as error:
        raise ConfigError(import_problem(package, error)) from error


def reraise() -> NoReturn:
    """In the place of the packages' `full_restart`, which hides what went wrong."""
    raise
