"""What a file system is asked for beyond reading and writing."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path as a shell reads it: `~` is the home folder. Of a user who is not known, it stays as it is."""
    return Path(os.path.expanduser(path))


def sync_folder(folder: Path) -> None:
    """Have the names of the files in `folder` on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


NAMES_A_FOLDER = "1 to 100 bytes (a letter beyond ASCII has 2 to 4), no / and no \\"


def names_a_folder(text: str) -> bool:
    """Whether a text can be the name of one folder, as NAMES_A_FOLDER says: a file system counts bytes."""
    return bool(text.strip(". ")) and text.isprintable() and not set(text) & set("/\\") and len(text.encode()) <= 100
