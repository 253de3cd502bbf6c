"""A run's configuration: values from YAML and the command line, types from the classes that read them.

`default.yaml < envs/X.yaml < algs/Y.yaml < command line`. The legal keys of a run are the union of what
the selected classes declare in their `Config`, so a new algorithm edits no central list. Every problem
is reported in one message, with file, key, value and a suggestion.

An algorithm's YAML may say `extends: OTHER` (its keys on top of those of algs/OTHER.yaml) and
`presets: {NAME: {key: value}}`: the keys that replace its own where the environment's YAML says
`preset: NAME`.
"""

import os
import random
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from utils.args import ConfigError, convert, declared, nearest

FOLDER = Path(__file__).resolve().parent.parent / "config"


@dataclass
class Config:
    """values: nested, complete. sources: {dotted key: who set it}. schema: {dotted key: Declaration}."""

    values: dict
    sources: dict
    schema: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    reader: str  # the class that reads the key
    type: type
    meta: dict


def names(kind):
    """Names of the YAML files in config/`kind` (algs or envs)."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def first_comment(kind, name):
    """What the first line of config/`kind`/`name`.yaml, a comment, says of it."""
    with open(FOLDER / kind / f"{name}.yaml") as f:
        return f.readline().strip().lstrip("# ")


def environment_of(name):
    """The environment that config/envs/`name`.yaml configures."""
    return _read_yaml(FOLDER / "envs" / f"{name}.yaml").get("env", name)


def load(alg, env, overrides, readers):
    """The Config of --config=alg --env-config=env with overrides ({dotted key: value}).

    readers(values): the classes whose `Config` dataclasses the run will read, given its values.
    """
    missing = [f"--{flag}=NAME (one of: {', '.join(names(kind))})" for flag, kind, name in
               (("config", "algs", alg), ("env-config", "envs", env)) if not name]  # fmt: skip
    if missing:
        raise ConfigError("missing " + " and ".join(missing))
    env_layers, alg_layers = _read_named("envs", env), _read_named("algs", alg)
    preset = next((v["preset"] for _, v in reversed(env_layers) if "preset" in v), None)
    layers = [("config/default.yaml", _read_yaml(FOLDER / "default.yaml")), *env_layers]
    for source, values in alg_layers:
        presets = values.pop("presets", {})
        layers.append((source, values))
        if preset in presets:
            layers.append((f"{source} [{preset}]", presets[preset]))
    return _assemble(layers, overrides, readers)


def load_from(path, overrides, readers):
    """The Config of a run's own config.yaml, with overrides."""
    if os.path.isdir(path):
        path = os.path.join(path, "config.yaml")
    return _assemble([(str(path), _read_yaml(path))], overrides, readers)


def parse_overrides(words):
    """{dotted key: value} of the words after `with`, read as Sacred reads them."""
    updates, named = import_sacred().arg_parser.get_config_updates(words)
    if named:
        raise ConfigError(f"command line: {named[0]!r} is not KEY=VALUE; give values after `with` as gamma=0.9")
    return _flatten(updates)


def import_sacred():
    """The package sacred, without the warning that its 0.8.7 gives: it imports pkg_resources, which the
    pin of setuptools in requirements.txt keeps alive. The import takes half a second, so it is done late."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
        import sacred.arg_parser
    return sacred


def explain(config):
    """Rows (key, value, set by, read by, meaning) of every key, sorted by reader."""
    rows = []
    for name, value in _flatten(config.values).items():
        d = config.schema[name]
        meaning = d.meta["doc"] + (f" [{d.meta['unit']}]" if d.meta["unit"] else "") + _allowed(d.meta)
        rows.append((name, value, config.sources[name], d.reader, meaning))
    return sorted(rows, key=lambda row: (row[3], row[0]))


def task_name(values):
    """The map, key or environment that a run is about: a folder name."""
    env_args = values["env_args"]
    return str(env_args.get("map_name") or env_args.get("key") or values["env"]).replace("/", "_")


# ---------------------------------------------------------------------- from layers to values


def _assemble(layers, overrides, readers):
    layers = [*((source, _flatten(values)) for source, values in layers), ("command line", overrides)]
    flat, sources = _merge(layers, {})
    classes = readers(flat)
    schema, aliases = _schema(classes)
    flat, sources = _merge(layers, aliases)
    if flat.get("seed", 0) is None:
        flat["seed"], sources["seed"] = random.SystemRandom().randrange(2**31), "chosen now"
    problems = []
    for name in flat.keys() - schema.keys():
        problems.append(f"{sources[name]}: unknown key {name!r} (value {flat[name]!r}){_hint(name, schema)}")
    for name in schema.keys() - flat.keys():
        problems.append(f"missing key {name!r}, which {schema[name].reader} reads: {schema[name].meta['doc']}")
    for name in flat.keys() & schema.keys():
        try:
            flat[name] = convert(flat[name], schema[name].type, schema[name].meta)
        except ValueError as error:
            problems.append(f"{sources[name]}: {name} = {flat[name]!r} {error}")
    if not problems:
        problems += [p for cls in classes for p in _cross_checks(cls, flat, sources)]
    if problems:
        raise ConfigError("configuration:\n  " + "\n  ".join(sorted(problems)))
    values = {k: v for k, v in flat.items() if not k.startswith("env_args.")}
    values["env_args"] = {k.removeprefix("env_args."): v for k, v in flat.items() if k.startswith("env_args.")}
    return Config(values, sources, schema)


def _merge(layers, aliases):
    """({key: value}, {key: source}) where later layers win; aliases are renamed."""
    flat, sources = {}, {}
    for source, values in layers:
        for name, value in values.items():
            name = aliases.get(name, name)
            flat[name], sources[name] = value, source
    return flat, sources


def _schema(classes):
    """({dotted key: Declaration}, {alias: dotted key}) of the classes' Config dataclasses."""
    schema, aliases = {}, {}
    for cls in classes:
        prefix = "env_args." if getattr(cls, "reads_env_args", False) else ""
        for name, (type_, meta) in declared(cls.Config).items():
            schema.setdefault(prefix + name, Declaration(cls.__name__, type_, meta))
            aliases |= {prefix + alias: prefix + name for alias in meta["aliases"]}
    return schema, aliases


def _cross_checks(cls, flat, sources):
    """What a class says about its keys together, by a method `problems()` of its Config."""
    if not hasattr(cls.Config, "problems"):
        return []
    prefix = "env_args." if getattr(cls, "reads_env_args", False) else ""
    config = cls.Config(**{name: flat[prefix + name] for name in declared(cls.Config)})
    return list(config.problems())


def _flatten(values):
    """{dotted key: value}; only env_args is nested, so payoffs and other mappings stay whole."""
    flat = {k: v for k, v in values.items() if k != "env_args"}
    env_args = values.get("env_args") or {}
    if not isinstance(env_args, dict):
        raise ConfigError(f"env_args: {env_args!r} must be a mapping, such as env_args.key=climbing")
    return flat | {f"env_args.{k}": v for k, v in env_args.items()}


def _hint(name, schema):
    close = nearest(name, schema)
    if close:
        return close
    owners = [alg for alg in names("algs") if name in _flatten(_read_yaml(FOLDER / "algs" / f"{alg}.yaml"))]
    return f"; it belongs to {', '.join(owners)}" if owners else ""


def _allowed(meta):
    if meta["choices"]:
        return f" ({' | '.join(map(str, meta['choices']))})"
    bounds = [f"{sign} {meta[k]}" for k, sign in (("low", "≥"), ("above", ">"), ("high", "≤")) if meta[k] is not None]
    return f" ({', '.join(bounds)})" if bounds else ""


def _read_named(kind, name):
    """[(source, values)] of config/kind/name.yaml, after what it extends."""
    known = names(kind)
    flag = {"algs": "--config", "envs": "--env-config"}[kind]
    if name not in known:
        raise ConfigError(f"{flag}={name}: unknown; known: {', '.join(known)}{nearest(name, known)}")
    values = _read_yaml(FOLDER / kind / f"{name}.yaml")
    base = values.pop("extends", None)
    return (_read_named(kind, base) if base else []) + [(f"config/{kind}/{name}.yaml", values)]


def _read_yaml(path):
    try:
        with open(path) as f:
            values = yaml.safe_load(f)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, not {type(values).__name__}")
    return values
