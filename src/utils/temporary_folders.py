"""Folders that are deleted when their process ends, however it ends."""

import subprocess
import tempfile

from utils import interrupts


def temporary_folder(prefix: str, clean: str, within: str | None = None) -> tuple[str, subprocess.Popen]:
    """(a folder, a process that deletes it when its stdin ends: at the latest when this process does, even killed).

    clean: the shell script by which it does, with the folder as $0. within: where the folder is made; None: where the
    system has temporary files.
    """
    folder = tempfile.mkdtemp(prefix=prefix, dir=within)
    with interrupts.blocked():  # no signal is meant for it
        process = subprocess.Popen(
            ["sh", "-c", clean, folder], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", start_new_session=True,
        )  # fmt: skip
    return folder, process
