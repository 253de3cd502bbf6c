"""Registries are tables of strings, imported on first use.

`{"qmix": "modules.mixers.qmix:QMixer"}` costs nothing until somebody asks for `qmix`, so a package
that is missing breaks only what needs it.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from utils import own_modules
from utils.args import ConfigError, nearest


class MissingPackage(ConfigError):
    """An optional package is not installed; the message holds the pip line that installs it."""


def lookup(kind: str, table: Mapping[str, str], name: str, methods: Sequence[str] = ()) -> Any:
    """The object that `table[name]` ("module:attribute") names, or `name` itself, of a user's own module.

    kind: what the table holds, for the message ("mixer"). methods: what a user's own class must have.
    Raises ConfigError for an unknown name, with the nearest one.
    """
    if ":" in str(name) and name not in table:
        found = own_modules.load(kind, name)
        missing = own_modules.missing_methods(found, methods)
        if missing:
            raise ConfigError(f"{kind} {name!r} lacks the method {', '.join(missing)}")
        return found
    if name not in table:
        raise ConfigError(
            f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}, and MODULE:CLASS of your own"
            f"{nearest(name, table)}"
        )
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
