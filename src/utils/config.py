"""A run's configuration: values from YAML and the command line, types from the classes that read them.

`default.yaml < envs/X.yaml < algs/Y.yaml < command line`. The legal keys of a run are the union of what
the selected classes declare in their `Config`, so a new algorithm edits no central list. Every problem
is reported in one message, with file, key, value and a suggestion.

An algorithm's YAML may say `presets: {NAME: {key: value}}`: the keys that replace its own where the environment's YAML
says `preset: NAME`. What else may stand in the files is in `config_files.py`.
"""

import ast
import difflib
import os
import random
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils import own_modules
from utils.args import ConfigError, convert, declared
from utils.config_files import (
    Layer,
    Values,
    check_choices,
    defaults,
    flatten,
    keys_for_some,
    mapping_in,
    owners,
    read_mapping,
    read_named,
)
from utils.messages import short, shown, told, without_password, without_passwords
from utils.version import VERSION, commit
from utils.yaml_file import not_plain

CHOICES = ("env", "runner", "mac", "agent", "action_selector", "learner", "mixer")  # keys that name classes
DEFAULT = "config/default.yaml"
# Keys that came after version 0.22.0, each with the value that stands for what runs did before there was the key.
ADDED = {
    "kernels": "auto", "modules_path": None, "init_from": "", "init_parts": "agent", "ray_address": None,
    "ray_actors": 2, "render_format": "gif", "env_args.use_game_state": False, "env_args.scale_obs": False,
    "absolute_metric": False,
}  # fmt: skip
BEFORE = "before there was the key"  # where those stand

# Of a configuration: the classes that read it, and [(key, problem)] of the keys that name no class.
Readers = Callable[[Values], tuple[list[Any], list[tuple[str, str]]]]


class BadConfiguration(ConfigError):
    """problems: all that is wrong with a configuration; the message has the first ones."""

    def __init__(self, problems: list[str]):
        self.problems = sorted(problems)
        super().__init__("configuration:\n  " + told(self.problems))


_POLICY = "it is read by EPyMARL's COMA, IA2C, IPPO, MAA2C, MADDPG, MAPPO and PAC, which are not here: leave it out"
_GRAPH = "it is read by EPyMARL's DCG, which is not here: leave it out"
# Keys of EPyMARL that have no meaning here, and what does the same. Keys of another name are `aliases` of ours.
EPYMARL = {
    "agent_output_type": "agents give action values: leave it out",
    "obs_individual_obs": "leave it out; whether the mixer reads the observations says env_args.use_game_state (gymma)",
    "standardise_returns": "standardise_rewards=True scales rewards; returns are not scaled",
    "test_greedy": "evaluation_epsilon=0.0 plays tests greedily",
    "wandb_save_model": "checkpoints stay in the run directory: leave it out",
    "max_episode_steps": "env_args.time_limit; env_args.kwargs.max_episode_steps for the game's own limit",
    "max_cycles": "env_args.time_limit; env_args.kwargs.max_cycles for the game's own limit",
    **dict.fromkeys(
        (
            "add_value_last_step", "critic_baseline_fn", "critic_q_fn", "critic_train_mode", "critic_train_reps",
            "critic_type", "entropy_coef", "entropy_end_ratio", "epochs", "eps_clip", "final_entropy_coef",
            "initial_entropy_coef", "mask_before_softmax", "q_nstep", "reg", "state_value_type",
        ),
        _POLICY,
    ),
    **dict.fromkeys(
        (
            "cg_edges", "cg_payoff_rank", "cg_payoffs_hidden_dim", "cg_utilities_hidden_dim", "duelling",
            "msg_anytime", "msg_iterations", "msg_normalized",
        ),
        _GRAPH,
    ),
}  # fmt: skip


@dataclass
class Config:
    """values: nested, complete. sources: {dotted key: the source of its value}. schema: {dotted key: Declaration}.

    secrets: {key: value} of those that hold a password: as they were given. In `values`, which go to files and records,
    they are without it. replaced: {dotted key: value} that the command line has put another one for.
    """

    values: dict
    sources: dict
    schema: dict = field(default_factory=dict)
    secrets: dict = field(default_factory=dict, repr=False)
    replaced: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    reader: str  # the classes that read the key
    type: type
    meta: Mapping


def load(alg: str, env: str, overrides: Values, readers: Readers, said: str = "command line") -> Config:
    """The Config of --config=alg --env-config=env with overrides ({dotted key: value}).

    said: where the overrides stand, for messages.

    readers(values): the classes whose `Config` dataclasses the run will read, given its values, and
    [(key, problem)] of the keys that name no class.
    """
    check_choices(("config", "algs", alg), ("env-config", "envs", env))
    own_modules.search(overrides.get("modules_path"))
    env_layers, alg_layers = read_named("envs", env), read_named("algs", alg)
    preset = next((v["preset"] for _, v in reversed(env_layers) if "preset" in v), None)
    known = {str(name) for source, values in alg_layers for name in mapping_in(values, "presets", source)}
    for source, values in [*alg_layers, (said, overrides)]:
        if "preset" in values:
            preset = values["preset"]
            if preset is not None and not (isinstance(preset, str) and preset in known):
                listed = ", ".join(sorted(known)) or "it has none"
                raise ConfigError(f"{source}: preset = {shown(preset)} is none of {alg}'s: {listed}")
    layers = [(DEFAULT, defaults()), *env_layers]
    for source, values in alg_layers:
        presets = mapping_in(values, "presets", source)
        layers.append((source, {k: v for k, v in values.items() if k != "presets"}))
        if isinstance(preset, str):  # a preset that is not text is reported with the other problems
            layers.append((f"{source} [{preset}]", mapping_in(presets, preset, f"{source}: presets")))
    return _assemble([*layers, (said, overrides)], readers, {source for source, _ in env_layers} | {DEFAULT})


def load_from(path: str | Path, overrides: Values, readers: Readers) -> Config:
    """The Config of a run's own config.yaml, with overrides. Where it does not fit this version, the ConfigError names
    the one that made it."""
    if os.path.isdir(path):
        path = os.path.join(path, "config.yaml")
    own = read_mapping(path)
    if own.keys().isdisjoint(CHOICES):
        raise ConfigError(f"{path} is no configuration of a run; give the run's folder, or its config.yaml")
    if "preset" in overrides and overrides["preset"] != own.get("preset"):
        hint = "the file of a run has the values of its preset already; give the keys themselves, such as opt_loss=1"
        raise ConfigError(f"command line: preset = {shown(overrides['preset'])}: {hint}")
    layers = [(BEFORE, ADDED), (str(path), own)]
    if overrides.get("evaluate") is True and not overrides.get("checkpoint_path"):
        layers.append(("evaluate=True", {"checkpoint_path": os.path.dirname(path) or ".", "init_from": ""}))
    try:
        return _assemble([*layers, ("command line", overrides)], readers, {BEFORE})
    except ConfigError as error:
        raise ConfigError(f"{error}{_another_version(path, own, readers)}") from error


def _another_version(path: str | os.PathLike, own: dict, readers: Callable) -> str:
    """Which version made the config.yaml at `path`, which holds `own`, and what to do; the empty string where it fits
    this one, or its run does not say."""
    try:
        _assemble([(BEFORE, ADDED), (str(path), own)], readers, {BEFORE})
        return ""  # the command line is to blame
    except ConfigError:
        from utils.checkpoint import maker  # brings torch

        by, commit_ = maker(os.path.join(os.path.dirname(path), "summary.json")), commit()
        ours = f"version {VERSION}" + (f", commit {commit_}" if commit_ else "")
        if not by or by.startswith(f"{ours}, "):
            return ""
        return (
            f"\n{path} was written by {by}; this is {ours}: take the version that wrote it, or correct these keys in a "
            "copy of the file"
        )


def parse_overrides(words: Iterable[str]) -> Values:
    """{dotted key: value} of the words after `with`: Python literals, else text; YAML's null is None too.

    As Sacred writes them, but not by its parser, which decodes values with jsonpickle: that can run code.
    """
    values = {}
    for word in words:
        name, sep, value = word.partition("=")
        name = name.strip()
        if not sep or not name or "://" in name:
            given = short(without_passwords(word))
            raise ConfigError(f"command line: {given!r} is not KEY=VALUE; give values after `with` as gamma=0.9")
        if not all(part.strip() for part in name.split(".")):
            given = short(without_passwords(word))
            raise ConfigError(f"command line: {given!r} names no key: a part of it is empty; write env_args.KEY=VALUE")
        _set(values, name, _literal(name, value.strip()))
    return flatten(values)


def _set(values: Values, name: str, value: Any) -> None:
    """Set a dotted name in nested mappings, into which mappings are merged."""
    *path, last = name.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"command line: {name} and {part} are both given; give one of them")
    if isinstance(value, dict) and isinstance(values.get(last), dict):
        values[last] |= value
    elif isinstance(values.get(last), dict) and values[last]:
        inner = f"{name}.{next(iter(values[last]))}"
        raise ConfigError(f"command line: {name} and {inner} are both given; give one of them")
    else:
        values[last] = value


def _literal(name: str, text: str) -> Any:
    """The value of KEY=text."""
    if text == "null":
        return None
    given, name = short(without_passwords(text)), short(name, 100)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text
    except (MemoryError, RecursionError):
        raise ConfigError(f"command line: {name}: {given!r} is nested too deep") from None
    problem = not_plain(value)
    if problem:
        raise ConfigError(
            f"command line: {name}: {given!r} holds {problem}; a value is a number, text, True, False, None, or "
            "a list or mapping of these"
        )
    return value


def import_sacred() -> Any:
    """The package sacred, without the warning that its 0.8.7 gives: it imports pkg_resources, which the
    pin of setuptools in requirements.txt keeps alive. The import takes half a second, so it is done late."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
        import sacred.arg_parser
    return sacred


def explain(config: Config) -> list[tuple[str, Any, str, str, str]]:
    """Rows (key, value, set by, read by, meaning) of every key, sorted by reader."""
    rows = []
    for name, value in flatten(config.values).items():
        d = config.schema[name]
        meaning = d.meta["doc"] + (f" [{d.meta['unit']}]" if d.meta["unit"] else "") + _allowed(d.meta)
        rows.append((name, value, config.sources[name], d.reader, meaning))
    return sorted(rows, key=lambda row: (row[3], row[0]))


def task_name(values: Mapping[str, Any]) -> str:
    """The map, key or environment that a run is about."""
    env_args = values["env_args"]
    of_env = str(values["env"]).rpartition(":")[2]  # MODULE:CLASS of a user's own
    return str(env_args.get("map_name") or env_args.get("key") or of_env).replace("/", "_")


OWN_MAPS = ("smax", "smaclite")  # games with the map names of StarCraft, whose folders say which game it is


def task_folder(values: dict) -> str:
    """The same as the name of a folder on any file system: `lbforaging:Foraging-8x8-2p-3f-v3` has an underscore. The
    map 3m is `3m` of StarCraft and `smax_3m` of SMAX, so that results of the two never lie in one folder."""
    name = re.sub(r'[:\\*?"<>|\x00-\x1f]', "_", task_name(values))
    if str(values["env"]) in OWN_MAPS and values["env_args"].get("map_name"):
        name = f"{values['env']}_{name}"
    return name if name.strip(". ") else "_"


# ---------------------------------------------------------------------- from layers to values


def _assemble(layers: Sequence[Layer], readers: Readers, for_all: Collection[str] = ()) -> Config:
    """The Config of [(source, values)], later ones first in rank. for_all: the sources whose keys are for all
    algorithms: those that the chosen classes do not read are left out."""
    layers = [(source, flatten(values, source)) for source, values in layers]
    flat, sources = _merge(layers, {})
    last = layers[-1][0]
    own_modules.search(flat.get("modules_path"))
    folder = own_modules.folder_of(flat.get(name) for name in (*CHOICES, "env_args.key"))
    if folder and flat.get("modules_path", "") is None:
        flat["modules_path"] = folder
        layers.insert(-1, ("the working directory", {"modules_path": folder}))
    classes, unknown = readers(flat)
    schema, aliases = _schema(classes)
    flat, sources = _merge(layers, aliases)
    unread = {name for name in flat.keys() - schema.keys() if sources[name] in for_all}
    if not unknown:
        for name in unread:
            # Only what an environment's file sets may be a key that nobody has.
            if sources[name] in (DEFAULT, BEFORE) or name in keys_for_some():
                del flat[name], sources[name]
    secrets = _take_passwords(flat)
    if flat.get("seed", 0) is None:
        flat["seed"], sources["seed"] = random.SystemRandom().randrange(2**31), "chosen now"
    problems = [f"{sources[name]}: {name}: {problem}" for name, problem in unknown]
    problems += [f"{sources[k]}: {k} holds {held}" for k, v in flat.items() if (held := not_plain(v)) is not None]
    if problems and not unknown:  # the checks below are for plain values
        raise BadConfiguration(problems)
    sound = set()  # keys with values of the right type and range
    for name in flat.keys() & schema.keys():
        try:
            flat[name] = convert(flat[name], schema[name].type, schema[name].meta)
            sound.add(name)
        except ValueError as error:
            problems.append(f"{sources[name]}: {name} = {shown(flat[name])} {error}")
    for name in schema.keys() - flat.keys():
        d = schema[name]
        problems.append(f"missing key {name!r}, which {d.reader} reads: {d.meta['doc']}{_chosen(sources, flat, last)}")
    if not unknown:  # else some keys belong to a class that could not be named
        unknown_keys = flat.keys() - schema.keys()
        readers_of = owners() if unknown_keys else {}
        for name in unknown_keys:
            hint = _hint(name, schema, classes, readers_of)
            hint += _chosen(sources, flat, last) if sources[name] != last else ""
            problems.append(f"{sources[name]}: unknown key {shown(name)} (value {shown(flat[name])}){hint}")
    problems += [problem for cls in classes for problem in _cross_checks(cls, flat, sound)]
    if problems:
        raise BadConfiguration(problems)
    flat["local_results_path"] = os.path.expanduser(flat["local_results_path"])
    values = {k: v for k, v in flat.items() if not k.startswith("env_args.")}
    values["env_args"] = {k.removeprefix("env_args."): v for k, v in flat.items() if k.startswith("env_args.")}
    beneath = _merge(layers[:-1], aliases)[0]
    replaced = {k: beneath[k] for k in (aliases.get(k, k) for k in layers[-1][1]) if k in beneath}
    return Config(values, sources, schema, secrets, replaced)


def _take_passwords(flat: dict) -> dict:
    """Take the passwords out of {dotted key: value}; {key: value as it was} of those that had one."""
    url = flat.get("mongo_url")
    if not isinstance(url, str) or without_password(url) == url:
        return {}
    flat["mongo_url"] = without_password(url)
    return {"mongo_url": url}


def _merge(layers: Iterable[Layer], aliases: Mapping[str, str]) -> tuple[Values, dict[str, str]]:
    """({key: value}, {key: source}) where later layers win; aliases are renamed. ConfigError where one layer gives
    a key and its alias different values."""
    flat, sources = {}, {}
    for source, values in layers:
        for given, value in values.items():
            name = aliases.get(given, given)
            if name != given and values.get(name, value) != value:
                message = f"{given} = {shown(value)} and {name} = {shown(values[name])} are one key"
                raise ConfigError(f"{source}: {message}; give one of them")
            flat[name], sources[name] = value, source
    return flat, sources


def _schema(classes: Iterable[Any]) -> tuple[dict[str, Declaration], dict[str, str]]:
    """({dotted key: Declaration}, {alias: dotted key}) of the classes' Config dataclasses."""
    schema, aliases = {}, {}
    for cls in classes:
        prefix = "env_args." if getattr(cls, "reads_env_args", False) else ""
        for name, (type_, meta) in declared(cls.Config).items():
            others = f"{schema[prefix + name].reader}, " if prefix + name in schema else ""
            schema[prefix + name] = Declaration(others + cls.__name__, type_, meta)
            aliases |= {prefix + alias: prefix + name for alias in meta["aliases"]}
    return schema, aliases


def _cross_checks(cls: Any, flat: Values, sound: Collection[str]) -> list[str]:
    """What a class says about its keys together, where each is `sound`: by its Config's `problems()`, or
    by the ConfigError that making one raises."""
    prefix = "env_args." if getattr(cls, "reads_env_args", False) else ""
    names_ = declared(cls.Config)
    if any(prefix + name not in sound for name in names_):
        return []
    try:
        config = cls.Config(**{name: flat[prefix + name] for name in names_})
    except ConfigError as error:
        return [str(error)]
    return list(config.problems()) if hasattr(config, "problems") else []


def _chosen(sources: dict, flat: dict, last: str) -> str:
    """Which choices of classes the `last` layer makes, where it makes any: others read other keys."""
    chosen = [f"{key} = {shown(flat[key])}" for key in CHOICES if sources.get(key) == last]
    return f"; {last}: {', '.join(chosen)}, which decides what is read" if chosen else ""


def _hint(
    name: str, schema: Mapping[str, Declaration], classes: Iterable[Any], readers_of: Mapping[str, list[str]]
) -> str:
    """What an unknown key may mean. readers_of: what `owners` gives."""
    expected = {
        ("env_args." if getattr(cls, "reads_env_args", False) else "") + k: v
        for cls in classes
        for k, v in getattr(cls, "not_keys", {}).items()
    }
    if name in expected:
        return f"; {expected[name]}"
    bare = str(name).removeprefix("env_args.")
    if bare != name and bare in schema:
        return f"; did you mean {bare!r}?"
    if bare in EPYMARL and name not in schema:
        return f"; EPyMARL's: {EPYMARL[bare]}"
    if f"env_args.{name}" in schema:
        return f"; did you mean 'env_args.{name}'?"
    if name in readers_of:
        return f"; it belongs to {', '.join(readers_of[name])}"
    if f"env_args.{name}" in readers_of:
        return f"; env_args.{name} belongs to {', '.join(readers_of[f'env_args.{name}'])}"
    if str(name).lower() == "env_args":
        return "; did you mean 'env_args'?"
    nested = str(name).startswith("env_args.")  # compared without the prefix, which makes all look alike
    others = {k.removeprefix("env_args."): k for k in schema if k.startswith("env_args.") == nested}
    close = difflib.get_close_matches(str(name).removeprefix("env_args."), others, n=1)
    return f"; did you mean {others[close[0]]!r}?" if close else ""


def _allowed(meta: Mapping[str, Any]) -> str:
    if meta["choices"]:
        return f" ({' | '.join(map(str, meta['choices']))})"
    words = list(meta["words"])
    bounds = [f"{sign} {meta[k]}" for k, sign in (("low", "≥"), ("above", ">"), ("high", "≤")) if meta[k] is not None]
    return f" ({', '.join(bounds + words)})" if bounds or words else ""
