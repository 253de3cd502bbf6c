"""Games of a user, as `env_args.key=own_games:NAME` names them. They play on the package gymnasium or its stand-in."""

import gymnasium
import numpy as np

FAULTS = ("", "state_size", "no_state", "state_dict", "no_action", "short_mask", "no_mask", "info")


class Signal:
    """Two agents with 2 and 3 actions see one bit each for four steps; the team is paid what their actions match.

    tells: where the state is told: state, get_state, info, or nowhere. masks: where masks are: info, obs, or nowhere.
    They leave the first agent the action 1, and the second 0 and 2. fault: what goes wrong at step 2.
    """

    metadata = {}
    render_mode = spec = None

    def __init__(self, tells="state", masks="", fault="", bound=np.inf, times=1.0, length=4, render_mode=None):
        assert fault in FAULTS
        self.masks, self.fault, self.times, self.length = masks, fault, times, length
        self.tells, self.unwrapped, self.draws = tells, self, render_mode == "rgb_array"
        spaces, bits = gymnasium.spaces, [self._seen(bound, actions) for actions in (2, 3)]
        self.action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
        self.observation_space = spaces.Tuple(bits)
        if tells in ("state", "get_state"):
            setattr(self, tells, self._state)

    def _seen(self, bound, actions):
        spaces = gymnasium.spaces
        bit = spaces.Box(low=-bound, high=bound, shape=(2,), dtype=np.float32)
        mask = spaces.Box(low=0, high=1, shape=(actions,), dtype=np.int8)
        return spaces.Dict({"observation": bit, "action_mask": mask}) if self.masks == "obs" else bit

    def _state(self):
        odd = self.t >= 2
        if odd and self.fault == "no_state":
            return None
        if odd and self.fault == "state_dict":
            return {"bits": self.bits}
        return np.append(self.bits, [7.0] * (1 + (odd and self.fault == "state_size")))

    def _mask(self):
        odd = self.t >= 2
        masks = [np.array([0, 1], dtype=np.int8), np.array([1, 0, 1], dtype=np.int8)]
        if odd and self.fault == "no_action":
            masks[1][:] = 0
        if odd and self.fault == "short_mask":
            masks[1] = masks[1][:2]
        return masks

    def _show(self):
        obs = [np.full(2, bit * self.times, dtype=np.float32) for bit in self.bits]
        info = {"delivered": self.t, "name": "signal", "won": bool(self.t == self.length), "list": [1, 2]}
        if self.fault == "info" and self.bits[0]:
            info["delivered"] = "none"
        if self.tells == "info" and not (self.fault == "no_state" and self.t >= 2):
            info["state"] = self._state()
        if self.masks == "info" and not (self.fault == "no_mask" and self.t >= 2):
            info["action_mask"] = self._mask()
        if self.masks == "obs":
            obs = [{"observation": o, "action_mask": mask} for o, mask in zip(obs, self._mask())]
        return tuple(obs), info

    def reset(self, seed=None, options=None):
        self.t, self.rng = 0, np.random.default_rng(seed)
        self.bits = self.rng.integers(2, size=2)
        return self._show()

    def step(self, actions):
        reward = float((np.array(actions) == self.bits).sum())
        self.bits, self.t = self.rng.integers(2, size=2), self.t + 1
        obs, info = self._show()
        return obs, reward, self.t == self.length, False, info

    def render(self):
        return np.full((20, 30, 3), 40 * self.t, dtype=np.uint8) if self.draws else None

    def close(self):
        pass


class Images:
    """Two agents see the same picture, 8x8 of one colour, dark or bright; each should say which for three steps."""

    metadata = {}
    render_mode = spec = None

    def __init__(self):
        spaces = gymnasium.spaces
        self.unwrapped = self
        self.action_space = spaces.Tuple([spaces.Discrete(2)] * 2)
        self.observation_space = spaces.Tuple([spaces.Box(low=0, high=255, shape=(8, 8, 1), dtype=np.uint8)] * 2)

    def _show(self):
        return (np.full((8, 8, 1), 40 + 180 * self.bright, dtype=np.uint8),) * 2

    def reset(self, seed=None, options=None):
        self.t, self.rng = 0, np.random.default_rng(seed)
        self.bright = int(self.rng.integers(2))
        return self._show(), {}

    def step(self, actions):
        reward = float(sum(action == self.bright for action in actions))
        self.bright, self.t = int(self.rng.integers(2)), self.t + 1
        return self._show(), reward, self.t == 3, False, {}

    def close(self):
        pass


class Pair:
    """A ParallelEnv: two agents for three steps, of which the second leaves after the first; own state, own masks."""

    metadata = {}

    def __init__(self, gone=True, max_cycles=9):
        self.possible_agents, self.gone, self.max_cycles = ["north", "south"], gone, max_cycles

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def observation_space(self, agent):
        return gymnasium.spaces.Box(low=0, high=9, shape=(1,), dtype=np.float32)

    def state(self):
        return np.array([self.t, 5.0, 6.0])

    def reset(self, seed=None, options=None):
        self.t, self.agents = 0, list(self.possible_agents)
        return self._show()

    def _show(self):
        infos = {a: {"action_mask": np.array([1, 0]), "steps": self.t} for a in self.agents}
        return {a: np.array([self.t], dtype=np.float32) for a in self.agents}, infos

    def step(self, actions):
        self.t += 1
        obs, infos = self._show()
        ended = {a: self.t == 3 or (a == "south" and self.gone) for a in self.agents}
        answer = obs, dict.fromkeys(self.agents, 1.0), ended, dict.fromkeys(self.agents, False), infos
        self.agents = [a for a in self.agents if not ended[a]]
        return answer

    def close(self):
        pass


class Alone(Signal):
    """One agent, whose spaces are no Tuples."""

    def __init__(self):
        super().__init__(tells="")
        self.action_space, self.observation_space = self.action_space[0], self.observation_space[0]

    def _show(self):
        return super()._show()[0][0], {"action_mask": np.array([1, 1])}

    def step(self, action):
        return super().step([action, 0])


class Turns:
    def agent_iter(self):
        return iter(())


def pair(**kwargs):
    return Pair(**kwargs)


def a_dict():
    return {"observation": 1}


NOT_A_GAME = 3
