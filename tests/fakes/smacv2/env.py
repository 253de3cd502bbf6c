"""What `envs/starcraft/{smac,smacv2}.py` use of smacv2, with its manners and faults, and others on demand.

Three against three, with 45 health each: an attack takes 15, agents do not die, three steps of attacks by all win. So
an episode that is won pays 20, if the scale of the rewards is right.

A game takes one file from the folder FAKE_FAULTS, the first by name, which holds `KIND MOMENT COUNT`: the moments are
launch, create, reset, step, observe.
"""

import contextlib
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pysc2 import run_configs

N, HEALTH = 3, 45


class ProtocolError(Exception):
    pass


class CannotResetException(Exception):
    pass


class StarCraft2Env:
    def __init__(self, map_name, seed, capability_config=None, **kwargs):
        known = "step_mul move_amount difficulty game_version reward_death_value reward_win continuing_episode debug"
        assert set(known.split()) <= kwargs.keys(), kwargs
        assert kwargs["game_version"] in (None, "4.10.0"), "pysc2 knows whole versions only"
        if os.environ.get("FAKE_BREAKS"):
            raise SystemExit(7)
        self.map_name, self._seed, self.arguments = map_name, seed, kwargs
        self.n_agents = self.n_enemies = N
        self.episode_limit, self._episode_count, self.t = 8, 0, 0
        self.agents, self.enemies, self._sc2_proc, self.fault = {}, {}, None, None
        self.max_reward = N * kwargs["reward_death_value"] + kwargs["reward_win"]
        self._obs = SimpleNamespace(observation=SimpleNamespace(game_loop=0))
        self._min_unit_type = 1970

    def get_env_info(self):
        return {"n_agents": N, "n_actions": 6 + N, "obs_shape": 3, "state_shape": 2 + N, "episode_limit": 8}

    # ---- moments at which something goes wrong

    def moment(self, name):
        if not self.fault or self.fault[1] != name:
            return None
        self.fault[2] = str(int(self.fault[2]) - 1)
        if self.fault[2] != "0":
            return None
        kind = self.fault[0]
        if kind == "hang":
            time.sleep(1000)
        if kind == "exit":
            os._exit(9)
        if kind == "garble":
            raise ValueError("Error parsing message")
        if kind == "refuse":
            raise CannotResetException("waited for units to spawn and they didn't")
        if kind == "crash":
            self._sc2_proc._proc.kill()
            raise ProtocolError("SC2 probably crashed")
        return kind

    def _launch(self):
        for file in sorted(Path(os.environ["FAKE_FAULTS"]).glob("*")):
            with contextlib.suppress(FileNotFoundError):  # another game was faster
                self.fault = file.rename(file.parent.parent / f"taken-{os.getpid()}").read_text().split()
                break
        self._run_config = run_configs.get()
        self._sc2_proc = self._run_config.start(want_rgb=False)
        self._controller = SimpleNamespace(save_replay=lambda: b"")
        self.moment("launch")
        self.moment("create")
        self.game_rng = random.Random(self._seed)

    def full_restart(self):
        self._sc2_proc.close()
        self._launch()

    # ---- as smacv2

    def reset(self, episode_config=None):
        if self._episode_count == 0:
            self._launch()
        try:
            self.moment("reset")
        except ProtocolError:
            self.full_restart()
        self.t, self.drawn = 0, episode_config or {}
        self.agents = {i: SimpleNamespace(health=HEALTH) for i in range(N)}
        self.enemies = {i: SimpleNamespace(health=HEALTH, health_max=HEALTH, shield_max=0) for i in range(N)}
        if self._episode_count == 0:
            self.max_reward += 2 * N * HEALTH  # twice: units came late
        self.where = self.game_rng.random()
        return self.get_obs(), self.get_state()

    def step(self, actions):
        self._obs.observation.game_loop += 8
        try:
            kind = self.moment("step")
        except ProtocolError:
            self.full_restart()
            kind = "quiet"
        if kind == "quiet":
            return 0, True, {}
        if kind == "blank":  # an answer without contents: all enemies seem to be dead
            self._obs.observation.game_loop = 0
            return 20, True, {"battle_won": True, "dead_allies": 0, "dead_enemies": N}
        reward, avail = 0, self.get_avail_actions()
        for agent, action in enumerate(actions):
            assert avail[agent][action], f"Agent {agent} cannot perform action {action}"
            enemy = self.enemies.get(action - 6)
            if enemy and enemy.health:  # another may have been faster
                enemy.health -= 15
                reward += 15 + (enemy.health == 0) * self.arguments["reward_death_value"]
        self.t += 1
        dead = sum(e.health == 0 for e in self.enemies.values())
        info = {"battle_won": dead == N, "dead_allies": 0, "dead_enemies": dead}
        terminated = dead == N or self.t == self.episode_limit
        if dead == N:
            reward += self.arguments["reward_win"]
        elif terminated and self.arguments["continuing_episode"]:
            info["episode_limit"] = True
        self._episode_count += terminated
        return 20 * reward / self.max_reward, terminated, info

    def get_obs(self):
        last = np.nan if self.moment("observe") == "nan" else 0
        return [np.array([random.random(), np.random.rand(), i + last], dtype=np.float32) for i in range(N)]

    def get_state(self):
        return np.array([self.where, self.drawn.get("start", 0), *(e.health for e in self.enemies.values())])

    def get_avail_actions(self):
        return [[0, 1, 1, 1, 1, 1, *(int(e.health > 0) for e in self.enemies.values())]] * N

    def close(self):
        if self._sc2_proc:
            self._sc2_proc.close()


class Nested:
    """A distribution with another inside, unseeded as smacv2's."""

    def __init__(self, inner=None):
        self.rng, self.inner = np.random.default_rng(), inner

    def generate(self):
        inner = self.inner.generate()["start"] if self.inner else 0
        return {"start": self.rng.random() + inner}


class Teams:
    """By `dist_type`: weighted_teams; all_teams, which gives both sides one team; fixed, which gives none."""

    def __init__(self, config):
        self.kind, self.sizes = config["dist_type"], (config["n_units"], config["n_enemies"])
        self.mode = config["test_mode"] if self.kind == "fixed" else None

    def generate(self):
        allies, enemies = (["marine"] * n for n in self.sizes)
        if self.kind == "fixed":
            return {"team_gen": {"item": allies}}
        return {"team_gen": {"ally_team": allies, "enemy_team": allies if self.kind == "all_teams" else enemies}}


class StarCraftCapabilityEnvWrapper:
    def __init__(self, **kwargs):
        capabilities = kwargs["capability_config"]
        teams = capabilities["team_gen"]
        teams |= {k: capabilities[k] for k in ("n_units", "n_enemies")}  # smacv2 writes too
        self.env_key_to_distribution_map = {"team_gen": Teams(teams), "start_positions": Nested(Nested())}
        self.env = StarCraft2Env(**kwargs)

    def reset(self):
        raise AssertionError("it may return nothing")
