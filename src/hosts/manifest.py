"""Puts the planned changes into a checkout, and takes them out again.

What was there before, and hashes of what was written, stay in `.qtran_plugin/` of the checkout:

    manifest.json  backup/<path of each file that was replaced or edited>

The manifest is written first and `uninstall` takes a file in either state, so an interrupted install can be undone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from utils.args import ConfigError

if TYPE_CHECKING:
    from hosts.plan import Change


STORE = ".qtran_plugin"


@dataclass(frozen=True)
class Installed:
    version: str
    with_games: bool
    before: dict  # {path: hash, or None where the plugin added the file}
    after: dict  # {path: hash}
    folders: list  # that were made, outermost first


def read(root: Path) -> Installed | None:
    """What is Installed in the checkout at `root`, or None."""
    path = root / STORE / "manifest.json"
    if not path.is_file():
        return None
    try:
        return Installed(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged: {error}; the files before the install lie beside it") from error


def changed(root: Path, installed: Installed) -> list[str]:
    """Files that are neither as the plugin left them nor as they were before."""
    return [
        path
        for path, written in installed.after.items()
        if _hash(content(root / path)) not in (written, installed.before[path])
    ]


def complete(root: Path, installed: Installed, but: Collection[str] = ()) -> bool:
    """Whether every file, `but` these paths, is as the plugin left it."""
    return all(_hash(content(root / path)) == written for path, written in installed.after.items() if path not in but)


def originals(root: Path, installed: Installed) -> dict[str, bytes | None]:
    """{path: bytes before the install, or None where the plugin added the file}."""
    out: dict[str, bytes | None] = dict.fromkeys(installed.before)
    for path, before in installed.before.items():
        if before is not None:
            out[path] = content(root / STORE / "backup" / path)
            if _hash(out[path]) != before:
                raise ConfigError(f"{root / STORE / 'backup' / path}: the saved original is missing or damaged")
    return out


def apply(root: Path, changes: Sequence[Change], version: str, with_games: bool) -> None:
    """Write the Changes. On an error, what was there is brought back, and ConfigError says why; and where that failed
    too, what to do."""
    links = [change.path for change in changes if (root / change.path).is_symlink()]
    if links:
        raise ConfigError(f"symbolic links are not written through: {', '.join(links)}")
    before = {change.path: _hash(content(root / change.path)) for change in changes}
    after = {change.path: _hash(change.content) for change in changes}
    installed = Installed(version, with_games, before, after, _missing_folders(root, after))
    try:
        for path in (path for path, old in before.items() if old is not None):
            saved = root / STORE / "backup" / path
            saved.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / path, saved)
        (root / STORE).mkdir(exist_ok=True)
        _write(root / STORE / "manifest.json", (json.dumps(vars(installed), indent=2) + "\n").encode())
        for change in changes:
            (root / change.path).parent.mkdir(parents=True, exist_ok=True)
            _write(root / change.path, change.content)
    except BaseException as error:  # Ctrl-C too
        state = "the checkout is as it was without the plugin"
        try:
            restore(root, installed)
        except OSError as second:  # a full disk has no room for what was there before either
            state = f"the checkout is half changed ({second}); make room, then: python src/plugin.py uninstall {root}"
        if not isinstance(error, OSError):
            raise
        raise ConfigError(f"cannot write into {root}: {error}; {state}") from error


def restore(root: Path, installed: Installed, changed_since: Mapping[str, bytes] | None = None) -> None:
    """Bring back what was there before the install: contents, modes and times; what it added goes.

    changed_since: {path: bytes} of files that get another content than they had before.
    """
    for path, old in installed.before.items():
        target, saved = root / path, root / STORE / "backup" / path
        if old is None:
            target.unlink(missing_ok=True)
            for compiled in target.parent.glob(f"__pycache__/{target.stem}.*.pyc"):
                compiled.unlink()
        elif saved.is_file() and (_hash(content(target)) != old or path in (changed_since or {})):
            partial = target.with_name(f"{target.name}.partial")
            try:
                shutil.copy2(saved, partial)
                if changed_since and path in changed_since:
                    partial.write_bytes(changed_since[path])
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
    for folder in reversed(installed.folders):
        with contextlib.suppress(OSError):  # holds something else by now
            (root / folder / "__pycache__").rmdir()
        with contextlib.suppress(OSError):
            (root / folder).rmdir()
    shutil.rmtree(root / STORE, ignore_errors=True)


def _missing_folders(root: Path, paths: Iterable[str]) -> list[str]:
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(parent for parent in parents if not (root / parent).exists())


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; a file that is there keeps its mode."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        if path.exists():
            shutil.copymode(path, partial)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def content(path: Path) -> bytes | None:
    """Bytes of a file; None where there is none."""
    return path.read_bytes() if path.is_file() else None


def _hash(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()
