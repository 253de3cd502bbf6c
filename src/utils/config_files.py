"""The YAML files of `config/`, and those of the user: which there are, what they hold, what they extend.

A file may say `extends: OTHER`: its keys then stand on top of those of OTHER. Keys that an algorithm's file repeats
under `in_hosts` are for an EPyMARL checkout alone (docs/plugin.md).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.args import ConfigError, nearest
from utils.messages import shown
from utils.yaml_file import read_text, read_yaml

FOLDER = Path(__file__).resolve().parent.parent / "config"

Values = dict[str, Any]
Layer = tuple[str, Values]  # the source of the values, and {key: value}


def defaults() -> Values:
    """What config/default.yaml holds."""
    return read_mapping(FOLDER / "default.yaml")


def names(kind: str) -> list[str]:
    """Names of the YAML files in config/`kind` (algs or envs)."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def first_comment(kind: str, name: str) -> str:
    """What the first line of config/`kind`/`name`.yaml, a comment, says of it."""
    return read_text(_path(kind, name)).partition("\n")[0].strip().lstrip("# ")


def environment_of(name: str) -> str:
    """The environment that config/envs/`name`.yaml configures."""
    env = read_mapping(_path("envs", name)).get("env", name)
    if not isinstance(env, str):
        raise ConfigError(f"config/envs/{name}.yaml: env = {shown(env)} must be text")
    return env


def env_args_of(name: str) -> dict:
    """The env_args of config/envs/`name`.yaml."""
    return {k: v for _, values in read_named("envs", name) for k, v in (values.get("env_args") or {}).items()}


def read_mapping(path: str | Path) -> Values:
    """What a YAML file holds. ConfigError where that is no mapping."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, not {type(values).__name__}")
    return values


def check_choices(*choices: tuple[str, str, str | None]) -> None:
    """ConfigError unless each (flag, kind, name) names a YAML file of its kind."""
    problems = []
    for flag, kind, name in choices:
        known = names(kind)
        if not name:
            problems.append(f"missing --{flag}=NAME; known: {', '.join(known)}")
        elif is_path(name):
            if not os.path.isfile(name):
                problems.append(f"--{flag}={name}: there is no such file")
        elif name not in known:
            problems.append(f"--{flag}={name}: unknown; known: {', '.join(known)}{nearest(name, known)}")
    if problems:
        raise ConfigError("\n  ".join(problems))


def _path(kind: str, name: str) -> Path:
    return Path(name) if is_path(name) else FOLDER / kind / f"{name}.yaml"


def is_path(name: object) -> bool:
    """Whether --config or --env-config names a file of the user's own."""
    return str(name).endswith((".yaml", ".yml"))


def own_files(kind: str, name: str) -> list[Path]:
    """The user's own YAML files that --config or --env-config=name reads."""
    ours = {f"config/{kind}/{known}.yaml" for known in names(kind)}
    return [Path(source).absolute() for source, _ in read_named(kind, name) if source not in ours]


def read_named(kind: str, name: str | None) -> list[Layer]:
    """[(source, values)] of config/kind/name.yaml, after what it extends."""
    layers, seen = [], {}  # seen: {the file, however it is spelled: its name}
    while name is not None:
        file = os.path.realpath(name) if is_path(name) else name
        if file in seen:
            chain = " extends ".join([*seen.values(), name])
            raise ConfigError(f"config/{kind}: {chain}: these files extend each other in a circle")
        seen[file] = name
        values, source = read_mapping(_path(kind, name)), name if is_path(name) else f"config/{kind}/{name}.yaml"
        if kind == "algs" and is_path(name):
            values = {"name": Path(name).stem} | values
        left_out = {"extends", "in_hosts", *_for_hosts_alone(values, source, is_path(name))}
        layers.insert(0, (source, {k: v for k, v in values.items() if k not in left_out}))
        before, name = name, values.get("extends")
        if is_path(name):
            # Beside the file that names it, else told from the working directory.
            beside = Path(before).parent / str(name) if is_path(before) else Path(str(name))
            name = str(beside) if beside.is_file() else str(name)
            if not os.path.isfile(name):
                raise ConfigError(f"{source}: extends = {shown(name)}: there is no such file")
        elif name is not None and name not in names(kind):
            known = ", ".join(names(kind))
            raise ConfigError(f"{source}: extends = {shown(name)}: unknown; known: {known}{nearest(name, names(kind))}")
    return layers


def _for_hosts_alone(values: dict, source: str, own: bool) -> set[str]:
    """The keys that `values` has from its `in_hosts`. own: it is a file of the user's: what it changes there would go
    unheard, and is refused."""
    block = mapping_in(values, "in_hosts", source)
    if own and block:
        ours = [mapping_in(read_mapping(_path("algs", name)), "in_hosts", name) for name in names("algs")]
        for key, value in block.items():
            if all(there.get(key) != value for there in ours):
                hint = "is for an EPyMARL checkout alone; to set the key here, write it outside of in_hosts"
                raise ConfigError(f"{source}: in_hosts: {key} = {shown(value)} {hint}")
    return {key for key, value in block.items() if values.get(key) == value}


def mapping_in(values: dict, key: str, where: str) -> dict:
    """values[key], which is a mapping; an empty one where it is null or not there. where: for the message."""
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{where}: {key} = {shown(value)} must be a mapping, {{KEY: VALUE}}")
    return value or {}


def owners() -> dict[str, list[str]]:
    """{key: the files of config/algs (but for _ns) and config/envs that set it, or extend one that does}."""
    found: dict[str, list[str]] = {}
    for kind in ("algs", "envs"):
        for file in names(kind):
            if not file.endswith("_ns"):
                for name in _keys_of(kind, file) - {"presets"}:
                    found.setdefault(name, []).append(file)
    return found


def keys_for_some() -> set[str]:
    """The keys that default.yaml or some file of config/algs sets: some class reads them."""
    own = {name for alg in names("algs") for name in _keys_of("algs", alg)}
    return own | flatten(defaults()).keys()


def _keys_of(kind: str, name: str) -> set[str]:
    """The keys of config/kind/name.yaml and of what it extends; none where it cannot be read: it is not in use."""
    try:
        return {key for _, values in read_named(kind, name) for key in flatten(values)}
    except ConfigError:
        return set()


def flatten(values: Mapping[str, Any], where: str = "command line") -> Values:
    """{dotted key: value}; only env_args is nested, so payoffs and other mappings stay whole. where: for a message."""
    flat = {k: v for k, v in values.items() if k != "env_args"}
    env_args = values.get("env_args") or {}
    if not isinstance(env_args, dict):
        message = f"env_args = {shown(env_args)} must be a mapping, such as env_args.key=climbing"
        raise ConfigError(f"{where}: {message}")
    return flat | {f"env_args.{k}": v for k, v in env_args.items()}
