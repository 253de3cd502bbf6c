"""Who may import whom, and that importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hosts import plan

SRC = Path(__file__).parents[1] / "src"
FILES = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))
# Each layer imports from the layers below it and from itself; rooms of one layer not from each other.
LAYERS = [
    ["main", "qtran", "sweep", "report", "doctor", "plugin", "sync"],
    ["run"],
    ["open_run"],
    ["resuming", "keeper", "status", "checks"],
    ["parts"],
    ["training", "tables", "sweeping", "reporting", "hosts"],
    ["runners", "learners", "recording"],
    ["controllers"],
    ["envs", "components", "modules"],
    ["utils"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
PLUGIN = {name for name in plan.PLUGIN if name.endswith(".py")}


def imported(path):
    """Dotted names of the modules that `path` imports, anywhere in it; `from a import b` is a.b where it is one."""
    out = set()
    for node in ast.walk(ast.parse((SRC / path).read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself"
            out |= {
                f"{node.module}.{a.name}" if is_module(f"{node.module}.{a.name}") else node.module for a in node.names
            }
    return out


def is_module(name):
    path = SRC / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(dotted):
    return dotted.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path):
    ours = room(path.with_suffix("").as_posix().replace("/", "."))
    assert ours in LEVEL, f"{ours} has no layer: add it to LAYERS"
    for name in map(room, imported(path)):
        if name in LEVEL and name != ours:
            assert LEVEL[name] > LEVEL[ours], f"{path} imports {name}, which is not below {ours}"


@pytest.mark.parametrize("path", sorted(PLUGIN))
def test_plugin_files_need_only_torch_and_each_other(path):
    plugin = {name.removesuffix(".py").replace("/", ".") for name in PLUGIN}
    for name in imported(path):
        allowed = name in plugin or room(name) == "torch" or room(name) in sys.stdlib_module_names
        assert allowed, f"{path} imports {name}"


def test_importing_anything_has_no_effect(tmp_path):
    """No output, no file, no thread, no random number drawn."""
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    code = f"""
import importlib, logging, os, signal, sys, threading
import numpy, torch
sys.path.insert(0, {str(SRC)!r})
def state():
    handlers = [len(logging.getLogger(n).handlers) for n in ("", "qtran")]
    streams = str(numpy.random.get_state()), torch.get_rng_state().tolist()
    return handlers, streams, signal.getsignal(signal.SIGTERM), threading.active_count(), dict(os.environ)
before = state()
for name in {names}:
    importlib.import_module(name)
    assert state() == before, name
"""
    known = "ignore:pkg_resources is deprecated:UserWarning"  # of sacred 0.8.7
    run = subprocess.run([sys.executable, "-B", "-W", known, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (run.stdout, run.stderr) == ("", "") and list(tmp_path.iterdir()) == []
