"""Registries are tables of strings, imported on first use.

`{"qmix": "modules.mixers.qmix:QMixer"}` costs nothing until somebody asks for `qmix`, so a package
that is missing breaks only what needs it.
"""

import importlib

from utils.args import ConfigError, nearest


class MissingPackage(ConfigError):
    """An optional package is not installed; the message holds the pip line that installs it."""


def lookup(kind, table, name, extras=None):
    """The object that `table[name]` ("module:attribute") names.

    kind: what the table holds, for the message ("mixer"). extras: {top-level package: requirements
    file} for packages that are optional.
    Raises ConfigError for an unknown name, with the nearest one; MissingPackage with the pip line.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}{nearest(name, table)}")
    module, attribute = table[name].split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if extras and package in extras:
            raise MissingPackage(
                f"{kind} {name!r} needs the package {package!r}, which is not installed; "
                f"install it with: pip install -r {extras[package]}"
            ) from error
        raise
