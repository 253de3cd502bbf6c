"""What algorithms and tasks are called in figures and tables. The CSV files keep the names of the configuration."""

import re
from typing import Any

import yaml

from reporting.formats import plain
from utils.args import ConfigError, nearest
from utils.messages import short

ALGORITHMS = {
    "qtran_alt": "QTRAN-alt", "qtran_base": "QTRAN-base", "qtran": "QTRAN", "qmix": "QMIX", "vdn": "VDN", "iql": "IQL",
    "qatten": "Qatten", "qplex": "QPLEX", "ow_qmix": "OW-QMIX", "cw_qmix": "CW-QMIX", "resq": "ResQ", "coma": "COMA",
    "mappo": "MAPPO", "ippo": "IPPO", "maa2c": "MAA2C", "ia2c": "IA2C", "maddpg": "MADDPG", "pac_dcg": "PAC-DCG",
}  # fmt: skip
GAMES = {  # {env: its name}; of those with maps the map follows
    "predator_prey": "predator-prey", "gaussian_squeeze": "Gaussian squeeze", "two_step": "two-step game",
    "matrix_game": "matrix game", "sc2": "SMAC", "sc2v2": "SMACv2", "smax": "SMAX", "smaclite": "SMAClite",
}  # fmt: skip
MATRIX = {
    "qtran_3x3": "3×3 game", "qtran_21x21": "21×21 game", "two_state": "two-state game", "climbing": "climbing game",
    "penalty": "penalty game",
}  # fmt: skip
SYMBOLS = {"penalty": "P", "k": "K"}  # {key of env_args: its symbol in the papers}


def algorithm(name: str, label: str) -> str:
    """`qtran_alt_ns, lr=0.001`, the label of a run named `name`, as QTRAN-alt (no sharing), lr = 0.001."""
    rest = label.removeprefix(name)
    base = name.removesuffix("_ns")
    shown = ALGORITHMS.get(base.lower())
    shown = name if shown is None else shown + (" (no sharing)" if base != name else "")
    return shown + _settings(rest, {})


def task(env: str, name: str, label: str) -> str:
    """`predator_prey penalty=1.5`, the label of a task `name` in the environment `env`, as predator-prey, P = 1.5.

    The names of games on maps say which game it is: SMAX 3m, SMAC 3m.
    """
    rest = label.removeprefix(f"{env} {name}") if label.startswith(f"{env} {name}") else label.removeprefix(name)
    if env == "matrix_game":
        shown = MATRIX.get(name, GAMES[env])
    elif env in GAMES:
        shown = GAMES[env] if name == env else f"{GAMES[env]} {name}"
    else:
        shown = re.sub(r"^(lbforaging|rware):|^pz-", "", name)
    return shown + _settings(rest, SYMBOLS)


def _settings(text: str, symbols: dict[str, str]) -> str:
    """`, a=1, b=2` or ` a=1 b=2` as `, a = 1, b = 2`; ` #2` as `, variant 2`."""
    if number := re.fullmatch(r" #(\d+)", text):
        return f", variant {number[1]}"
    parts = re.split(r",? (?=[A-Za-z_][\w.]*=)", text)
    out = parts[0]
    for part in parts[1:]:
        key, _, value = part.partition("=")
        out += f", {symbols.get(key, key.replace('_', ' '))} = {value}"
    return out


def mapping_of(path: str, option: str) -> dict[str, Any]:
    """The lines `NAME: VALUE` of a YAML file. ConfigError, which names the option, where it holds something else."""
    try:
        with open(path, encoding="utf-8") as f:
            found = yaml.safe_load(f)
    except OSError as error:
        raise ConfigError(f"{option}={path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{option}={path}: is not YAML: {why}; write a line `NAME: VALUE` for each name") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{option}={path}: holds no names; write a line `NAME: VALUE` for each name")
    return {str(name): value for name, value in found.items()}


class Names:
    """What is shown in place of the names in the rows of a comparison; the entries are given the same."""

    def __init__(self, entries: list, path: str | None = None):
        """entries: the runs that count, `reporting.grouping.Entry`. path: of a file of labels."""
        self._algorithms = _unlike({e.algorithm: e.shown_algorithm for e in entries})
        self._tasks = _unlike({e.task: e.shown_task for e in entries})
        self._envs = {e.task: str(e.keys.get("env")) for e in entries}
        self._games = {e.task: e.task_name if env == "gymma" else env for e in entries if (env := self._envs[e.task])}
        if path is not None:
            self._rename(path)
        for e in entries:
            e.shown_algorithm, e.shown_task = self._algorithms[e.algorithm], self._tasks[e.task]

    def algorithm(self, name: str) -> str:
        return self._algorithms.get(name, name)

    def task(self, name: str) -> str:
        return self._tasks.get(name, name)

    def env(self, task: str) -> str:
        return self._envs.get(task, task)

    def game(self, task: str) -> str:
        """The environment of a task; of gymma, which has many, the game."""
        return self._games.get(task, task)

    def _rename(self, path: str) -> None:
        """Take the labels of a file `NAME: LABEL`. ConfigError where a name is nobody's, or two would be alike."""
        for name, label in mapping_of(path, "--labels").items():
            if not isinstance(label, (str, int, float)) or isinstance(label, bool) or not str(label).strip():
                raise ConfigError(f"--labels={path}: {name}: {short(label, 60)} is no label; write a text")
            places = [(table, raw) for table in (self._algorithms, self._tasks) if (raw := _named(table, name))]
            if not places:
                known = [n for table in (self._algorithms, self._tasks) for raw, shown in table.items()
                         for n in dict.fromkeys((raw, shown))]  # fmt: skip
                raise ConfigError(
                    f"--labels={path}: {name!r} is no algorithm or task of these runs{nearest(name, known)}; known: "
                    f"{', '.join(known)}"
                )
            for table, raw in places:
                table[raw] = plain(" ".join(str(label).split()))
        for table in (self._algorithms, self._tasks):
            for label in table.values():
                same = [raw for raw, shown in table.items() if shown == label]
                if len(same) > 1:
                    raise ConfigError(
                        f"--labels={path}: {' and '.join(same)} would both be called {label!r}; give each its own label"
                    )

    def in_order(self, words: list[str]) -> list[str]:
        """The algorithms, as the rows have them, in the order of `words`; the others after them, by name. ConfigError
        where a word is nobody's name."""
        first = []
        for word in words:
            raw = _named(self._algorithms, word)
            if raw is None:
                known = list(dict.fromkeys(n for pair in self._algorithms.items() for n in pair))
                raise ConfigError(f"--order={word}: no such algorithm{nearest(word, known)}; known: {', '.join(known)}")
            first.append(raw)
        return list(dict.fromkeys([*first, *sorted(self._algorithms)]))


def _named(table: dict[str, str], name: str) -> str | None:
    """The key of `table` that is `name`, or whose value is."""
    return name if name in table else next((raw for raw, shown in table.items() if shown == name), None)


def _unlike(table: dict[str, str]) -> dict[str, str]:
    """The same, with the key in place of a value that several keys have."""
    shown = list(table.values())
    return {raw: label if shown.count(label) == 1 else raw for raw, label in table.items()}
