"""Which version of this program runs: its number, which CITATION.cff has too, and the commit of its source tree."""

import logging
import subprocess
from pathlib import Path

# Whoever changes it packs a run of the new version for the tests: tests/old/pack.py.
VERSION = "0.23.0"


def commit() -> str | None:
    """The commit of the source tree, with `+` when it was changed since; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        # A tree that another user owns is asked too: its code runs here anyway.
        command = ["git", "-c", "safe.directory=*", "-C", str(here), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, encoding="utf-8", errors="replace")
        if done.returncode:
            raise OSError(done.stderr.strip())
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError) as error:
        if (here.parents[1] / ".git").exists():
            logging.getLogger("qtran").warning(f"the commit of {here.parents[1]} is not known: {error}")
        return None
