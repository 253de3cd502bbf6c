"""YAML that somebody else may have written: read as plain data, within bounds, or refused in one message."""

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from utils.args import ConfigError
from utils.messages import short

MOST_BYTES = 2**20
MOST_VALUES = 100_000  # with what aliases repeat
DEEPEST = 50  # levels of lists and mappings
MOST_BITS = 1000  # of a whole number; beyond 1023 no float holds it
PLAIN = (bool, int, float, str, type(None))


FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(FAST):
    """A SafeLoader that refuses a key that is given twice, of which YAML would drop the first."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(map(str, keys))) < len(keys):
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                    seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: numbers, text, booleans, None, and lists and mappings of these. ConfigError for anything
    else, with the file and, where it is known, the line."""
    return parse_yaml(read_text(path), path)


def read_text(path: str | Path) -> str:
    """The text of a YAML file. ConfigError for what is no file, too large, or not UTF-8."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a file")
        if status.st_size > MOST_BYTES:
            raise ConfigError(f"{path} has {status.st_size} bytes; at most {MOST_BYTES} are read")
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: it is not UTF-8: {error}") from error


def parse_yaml(text: str, path: str | Path) -> Any:
    """As `read_yaml`; path: for messages."""
    try:
        if len(re.findall(r"[\[{?-]", text)) > DEEPEST:
            _refuse_depth(text, path)
        value = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_where(error)}") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{path} is not valid YAML: a value is not what its type says: {short(str(error), 200)}"
        ) from error
    problem = not_plain(value)
    if problem:
        named = value.items() if isinstance(value, dict) else ()
        of = next((f"{key}: " for key, inner in named if isinstance(key, str) and not_plain(inner)), "")
        raise ConfigError(f"{path}: {short(of, 100)}holds {problem}")
    return value


def not_plain(value: Any) -> str | None:
    """What a value holds that is not plain data, or too much of it; None for a number, text, a boolean, None, and for
    lists and mappings of these."""
    left, waiting = MOST_VALUES, [(value, 0)]
    while waiting:
        at, depth = waiting.pop()
        left -= 1
        if left < 0:
            return f"more than {MOST_VALUES} values"
        if depth > DEEPEST:
            return f"more than {DEEPEST} levels of lists and mappings"
        if isinstance(at, dict):
            for key in at:
                if not isinstance(key, PLAIN):
                    return f"a key that is a {type(key).__name__}, no text"
                if isinstance(key, str) and key.startswith("py/"):
                    return f"the key {short(key)!r}, which jsonpickle would decode"
            waiting += [(inner, depth + 1) for pair in at.items() for inner in pair]
        elif isinstance(at, (list, tuple)):
            waiting += [(inner, depth + 1) for inner in at]
        elif isinstance(at, str):
            if "\0" in at or not at.isascii() and not _encodes(at):
                return "text that is not valid Unicode, or has a zero byte"
        elif isinstance(at, int) and at.bit_length() > MOST_BITS:
            return "a whole number of more than 300 digits"
        elif not isinstance(at, PLAIN):
            return f"a value of type {type(at).__name__}"
    return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_depth(text: str, path: str | Path) -> None:
    """ConfigError for what is nested so deep that the C parser would overflow its stack. Its events do not nest."""
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise ConfigError(f"{path}, line {line}: more than {DEEPEST} levels of lists and mappings")


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = short(" ".join(str(problem or error).split()), 200)
    return f"{text}, line {mark.line + 1}, column {mark.column + 1}" if mark is not None else text
