"""What a file system is asked for beyond reading and writing."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Have the names of the files in `folder` on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
