"""Small hosts of our own with the interfaces of EPyMARL, PyMARL2 and PyMARL: `make(folder, layout)` writes one.

They have what the plugin touches and relies on: main.py with `--config`, `--env-config` and `with`, registries, MACs
and their hidden states, EpisodeBatch, an episode runner, saving and loading, VDN, QMIX and a QTRAN that reads
`qtran_arch`. The layouts differ as the originals do: names of keys, where `run` lives, the shape of hidden states, what
an environment's step returns. `hosts/stand_in/any` is PyMARL's, `hosts/stand_in/epymarl` what EPyMARL has instead.
"""

import os
import shutil
import subprocess
from pathlib import Path

LAYOUTS = ("EPyMARL", "PyMARL2", "PyMARL")
FILES = Path(__file__).parent / "hosts" / "stand_in"


def make(folder, layout, git=False):
    """Write the stand-in with `layout` into `folder`, committed where `git`; returns the folder."""
    shutil.copytree(FILES / "any", folder, ignore=shutil.ignore_patterns("__pycache__"))
    if layout == "EPyMARL":
        shutil.copytree(FILES / "epymarl", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        step = "reward, over, info = self.env.step("
        _edit(folder / "src/runners/episode_runner.py", step, "_, reward, over, truncated, info = self.env.step(")
    if layout == "PyMARL2":
        _edit(folder / "src/controllers/basic_controller.py", "hidden_per_agent = False", "hidden_per_agent = True")
        (folder / "src/run").mkdir()
        (folder / "src/run.py").rename(folder / "src/run/run.py")
        (folder / "src/run/__init__.py").write_text("from .run import run\n")
    if git:
        commit(folder)
    return folder


def commit(folder):
    """Commit everything in `folder`, in a repository of its own."""
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*name, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def state(folder):
    """{path: (bytes, mode)} of the files under `folder`, and {path: None} of its folders; git's own aside."""
    out = {}
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__")]
        out |= {os.path.relpath(os.path.join(top, name), folder): None for name in folders}
        for path in (Path(top, name) for name in names):
            out[str(path.relative_to(folder))] = path.read_bytes(), path.stat().st_mode
    return out


def _edit(path, old, new):
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))
