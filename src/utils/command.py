"""What the commands (main.py, sweep.py, report.py, …) share: how they teach and how they end.

Imports only what `--help` can wait for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from utils import console
from utils.args import ConfigError
from utils.messages import without_passwords

SYSTEMS = ("linux", "darwin")
CORE = (
    "matplotlib",
    "numpy",
    "pkg_resources",
    "pymongo",
    "rich",
    "sacred",
    "torch",
    "yaml",
)  # modules of requirements.txt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(without_passwords(message))  # a mongo_url in the wrong place


def parser(prog: str, description: str, details: str, usage: str | None = None) -> argparse.ArgumentParser:
    """An ArgumentParser that prints `details` below its options, line by line as they stand.

    The first thing that a command asks for: from here on nothing that it prints can end it.
    """
    console.protect()
    return _Parser(
        prog=f"python {prog}",
        usage=usage,
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def status_of(act: Callable[..., int], *args: Any) -> int:
    """The exit status of act(*args): its own; 2 after bad input or on a system that lacks what is needed, told in one
    line; 128 + its number after a signal."""
    try:
        if sys.platform not in SYSTEMS:
            raise ConfigError(f"this program runs on Linux and macOS, not on {sys.platform}; use WSL, or a container")
        return act(*args)
    except ConfigError as error:
        print(f"error: {without_passwords(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in CORE:
            raise
        install = "python -m pip install -r requirements.txt"
        print(f"error: the package {package} is not installed; install what is needed with: {install}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        return getattr(interrupt, "status", 130)
