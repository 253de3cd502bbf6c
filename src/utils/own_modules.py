"""Modules of a user: a class of one is named MODULE:CLASS wherever the configuration names a class."""

import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.args import ConfigError, nearest

SRC = Path(__file__).resolve().parents[1]
_warned: set[str] = set()  # folders


def search(folder: object) -> None:
    """Look for modules in `folder` too, behind all other places; None: in the working directory. What is no folder is
    left out: the modules are missed where they are named."""
    try:
        path = os.path.abspath(folder if isinstance(folder, str) and folder else os.getcwd())
    except OSError:  # the working directory is gone
        return
    if path not in sys.path and os.path.isdir(path):
        sys.path.append(path)


def folder_of(names: Iterable[object]) -> str | None:
    """The working directory, where one of the MODULE:CLASS in `names` lies there; else None."""
    try:
        here = Path.cwd()
    except OSError:  # it is gone
        return None
    for name in names:
        module = str(name).partition(":")[0].partition(".")[0]
        there = _file(module) if ":" in str(name) and module.isidentifier() else None
        installed = there is not None and any(there.resolve().is_relative_to(place) for place in (SRC, sys.prefix))
        if there is not None and there.is_relative_to(here) and not installed:
            return str(here)
    return None


def load(kind: str, name: str) -> Any:
    """What MODULE:CLASS names. kind: of class, for messages. ConfigError where it cannot be had."""
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ConfigError(f"{kind} {name!r} is not MODULE:CLASS, such as my_module:MyClass")
    module = load_module(kind, name, module_name)
    if not hasattr(module, attribute):
        known = [known for known, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"{kind} {name!r}: {module.__file__} has no {attribute}{nearest(attribute, known)}")
    return getattr(module, attribute)


def load_module(kind: str, name: str, module_name: str) -> Any:
    """The module of the MODULE:CLASS `name`."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigError(
                f"{kind} {name!r}: no module {error.name!r} in the working directory {os.getcwd()} nor elsewhere; call "
                "the command beside it, or give modules_path=FOLDER, or name its folder in PYTHONPATH"
            ) from error
        raise ConfigError(f"{kind} {name!r}: {_last_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{kind} {name!r}: {_last_line(error)}") from error
    _tell_hidden(kind, name, module)
    return module


def missing_methods(cls: Any, methods: Sequence[str]) -> list[str]:
    """Those of `methods` that a class lacks, and what is abstract in it."""
    found = {name: getattr(cls, name, None) for name in (*methods, *dir(cls))}
    return [
        name
        for name, method in found.items()
        if getattr(method, "__isabstractmethod__", False)
        or getattr(method, "__name__", "") == "_forward_unimplemented"  # of torch.nn.Module
        or (name in methods and not callable(method))
    ]


def _file(module: str) -> Path | None:
    """Where a module's file or folder is. Imports nothing."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return next((Path(place) for place in places if place and os.path.isabs(place)), None)


def _last_line(error: BaseException) -> str:
    """`my_module.py, line 3: NameError: name 'x' is not defined`"""
    message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    at = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {message}"
    return f"{at.filename}, line {at.lineno}: {message}"


def _tell_hidden(kind: str, name: str, module: Any) -> None:
    """A module of ours hides one of the same name beside the user's: an error for `name` itself, else a warning."""
    file = Path(module.__file__ or "").resolve()
    if file.is_relative_to(SRC):
        hidden = [p for p in sys.path if Path(p).resolve() != SRC and Path(p, file.name).is_file()]
        if hidden and file.parent == SRC:
            raise ConfigError(
                f"{kind} {name!r}: this program has a module {module.__name__!r} of its own, which hides "
                f"{Path(hidden[0], file.name)}; rename that"
            )
        return
    folder = str(file.parent)
    if folder not in _warned:
        _warned.add(folder)
        ours = {path.stem for path in SRC.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"}
        for path in sorted(file.parent.iterdir()):
            if path.stem in ours and (path.suffix == ".py" or (path / "__init__.py").is_file()):
                logging.getLogger("qtran").warning(
                    f"{path} cannot be imported as {path.stem!r}: this program has a module of that name; rename it"
                )
