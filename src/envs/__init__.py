"""Environments by name. A table of strings: importing this package imports no game."""

from typing import Any

from envs.vector import GameError as GameError
from envs.vector import VectorEnv, checked_range
from utils.args import ConfigError, convert, declared, nearest
from utils.memory_needs import Part, refuse_if_too_large
from utils.registry import lookup

REGISTRY = {
    "matrix_game": "envs.games.matrix_game:MatrixGame",
    "two_step": "envs.games.two_step:TwoStep",
    "gaussian_squeeze": "envs.games.gaussian_squeeze:GaussianSqueeze",
    "predator_prey": "envs.games.predator_prey:PredatorPrey",
    "sc2": "envs.starcraft.smac:SMAC",
    "sc2v2": "envs.starcraft.smacv2:SMACv2",
    "smax": "envs.games.smax:SMAX",
    "gymma": "envs.gymma.gymma:Gymma",
    "smaclite": "envs.gymma.smaclite:SMAClite",
}
MOST_OBJECTS = 1024  # environments that are objects or processes of their own
PROCESS = 18 * 2**20  # bytes that a worker process takes at least


def env_class(name: str) -> type[VectorEnv]:
    return lookup("environment", REGISTRY, name, methods=("reset", "step"))


def make(
    name: str,
    env_args: dict[str, Any] | None = None,
    n_envs: int = 1,
    seed: int | None = None,
    workers: bool = False,
    draw: bool = False,
) -> VectorEnv:
    """A VectorEnv of `n_envs` copies of the game `name`.

    env_args: {key: value} of the keys of the game's `Config`; the others have the values of config/envs. seed: of the
    first; the others follow from it; the game's own key `seed`, where it is given, takes its place. workers: one
    process for each copy. draw: pictures of it will be asked for. ConfigError for bad input.
    """
    if not isinstance(n_envs, int) or n_envs < 1:
        raise ConfigError(f"{name}: n_envs = {n_envs!r} must be a whole number of at least 1")
    env_args = _defaults(name) | (env_args or {})
    cls, config = _checked(name, env_args, n_envs, workers, "env_workers=True")
    config = cls.drawn(config) if draw else config
    seed = game_seed(env_args, seed)  # of resets that are given none
    if not (workers or cls.own_process):
        env: VectorEnv = cls(config, n_envs=n_envs, seed=seed)
    else:
        from envs.workers.worker_env import WorkerEnv

        env = WorkerEnv(cls, config, n_envs, seed)
    if name not in REGISTRY:  # a report does not import a user's own game
        known = checked_range(cls.score_range(config), f"env = {name!r}")
        env.facts = env.facts | ({"score_range": list(known)} if known else {})
    return env


def game_seed(env_args: dict[str, Any], seed: int | None) -> int | None:
    """The game's own key `seed`, where it is given, takes the place of `seed`."""
    own = env_args.get("seed")
    return seed if own is None else own


def score_range(name: str, env_args: dict) -> tuple[float, float] | None:
    """What a built-in game declares of its returns (`VectorEnv.score_range`); keys that it does not have are passed
    over, those that are missing have the values of config/envs. None: nothing is known."""
    if name not in REGISTRY:
        return None
    cls = env_class(name)
    fields = declared(cls.Config)
    values = {k: v for k, v in (_defaults(name) | env_args).items() if k in fields}
    return cls.score_range(read_env_args(cls, values))


def check_workers(name: str, env_args: dict, n_envs: int, what: str, here: bool) -> tuple[type[VectorEnv], Any]:
    """(class, config) of the game, which is to play in worker processes. here: on this machine. what: asks for them.
    ConfigError where that cannot be."""
    return _checked(name, env_args, n_envs, True, what, here)


def _checked(
    name: str, env_args: dict, n_envs: int, workers: bool, what: str, here: bool = True
) -> tuple[type[VectorEnv], Any]:
    cls = env_class(name)
    cls.check_installed()
    config = read_env_args(cls, env_args)
    if workers and cls.one_array:
        instead = "env_workers=False" if what == "env_workers=True" else "runner=episode"
        raise ConfigError(f"{what}: {name} is compiled for all environments together; give {instead}")
    if n_envs > MOST_OBJECTS and (workers or cls.own_process or cls.one_object_each):
        kind = "processes" if workers or cls.own_process else "objects"
        raise ConfigError(f"batch_size_run = {n_envs}: {name} makes so many {kind}; give at most {MOST_OBJECTS}")
    from utils.memory import free_memory  # imports torch, which worker processes do without

    if here:
        refuse_if_too_large([need(name, env_args, n_envs, workers)], "cpu", free_memory("cpu"))
    return cls, config


def _defaults(name: str) -> dict:
    """The env_args of config/envs/`name`.yaml; none where there is no such file, as for a game of the user's own."""
    from utils.config_files import env_args_of, names

    return env_args_of(name) if name in names("envs") else {}


def need(name: str, env_args: dict, n_envs: int = 1, workers: bool = False) -> Part:
    """The memory that `make` of the same arguments takes, as far as that is known before."""
    cls = env_class(name)
    config = read_env_args(cls, env_args)
    keys = {"batch_size_run": n_envs} | {f"env_args.{k}": getattr(config, k) for k in cls.large}
    if workers or cls.own_process:
        return Part(f"{name}: {n_envs} processes", n_envs * (PROCESS + cls.nbytes(config, 1)), keys)
    return Part(f"{name}: {n_envs} environments", cls.nbytes(config, n_envs), keys)


def read_env_args(cls: type[VectorEnv], env_args: dict[str, Any]) -> Any:
    """`cls.Config` from a dict; ConfigError names every unknown, missing or wrong key."""
    fields = declared(cls.Config)
    problems = [f"env_args: unknown key {k!r}{nearest(k, fields)}" for k in env_args if k not in fields]
    problems += [f"env_args: missing key {k!r}: {fields[k][1]['doc']}" for k in fields if k not in env_args]
    values = {}
    for name in fields.keys() & env_args.keys():
        try:
            values[name] = convert(env_args[name], *fields[name])
        except ValueError as error:
            problems.append(f"env_args.{name}: {env_args[name]!r} {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return cls.Config(**values)
