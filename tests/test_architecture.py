"""Who may import whom, and that importing does nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hosts import plan

SRC = Path(__file__).parents[1] / "src"
FILES = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))
PAGE = (SRC.parent / "docs" / "architecture.md").read_text()
PROJECT = (SRC.parent / "pyproject.toml").read_text()  # Python 3.10 has no TOML parser
# What they are is in the tables of the page; each node of its first drawing is a layer, and each arrow points down.
NODES = dict(re.findall(r'^ +(\w+)\["(.+)"\]$', PAGE, re.MULTILINE))
(ARROWS,) = re.findall(r"^ +(\w+(?: --> \w+)+)$", PAGE, re.MULTILINE)
# Each layer imports from the layers below it and from itself; rooms of one layer not from each other.
LAYERS = [NODES[node].split(" · ") for node in ARROWS.split(" --> ")]
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


def test_the_page_lists_every_room_and_no_other():
    """Tables of docs/architecture.md: the modules at the top of src, and the folders of modules."""
    listed = re.findall(r"^\| `([\w/.]+)` \|", PAGE, re.MULTILINE)
    split = {path.parent.parent for path in FILES if len(path.parts) == 3}  # their folders are listed one by one
    folders = {path.parent for path in FILES} - {Path(".")} - split | {Path("sweeping"), Path("config")}
    modules = {path.name for path in FILES if len(path.parts) == 1}
    there = modules | {f"{folder}/" for folder in folders}
    assert there - set(listed) == set(), "docs/architecture.md does not list them: say there what they are"
    assert sorted(listed) == sorted(there), "docs/architecture.md lists what is not there, or lists it twice"


def test_the_drawing_has_every_room_once():
    drawn = [room for layer in LAYERS for room in layer]
    there = {path.parts[0].removesuffix(".py") for path in FILES}
    assert there - set(drawn) == set(), "they have no layer in the drawing of docs/architecture.md"
    assert sorted(drawn) == sorted(there) and len(NODES) == len(LAYERS)


def test_every_file_that_the_page_names_is_there():
    named = {name for name in re.findall(r"`([\w/]+/\w+\.py)`", PAGE) if not name.startswith("tests/")}
    assert named and [name for name in named if not (SRC / name).is_file()] == []


def test_the_plugin_files_are_marked():
    marked = set(re.findall(r"`([\w/]+\.py)` \[P\]", PAGE))
    assert marked == {name.split("/")[-1] for name in PLUGIN}


def test_the_import_contracts_are_the_arrows_of_the_drawing():
    (rooms,), (layers,) = (re.findall(rf"^{name} = (\[.+?\])$", PROJECT, re.M) for name in ("root_packages", "layers"))
    rooms, layers = ast.literal_eval(rooms), ast.literal_eval(layers)
    assert set(rooms) == {path.parts[0] for path in FILES if len(path.parts) > 1}
    packages = [[room for room in layer if room in rooms] for layer in LAYERS]
    assert [sorted(layer.split(" | ")) for layer in layers] == [sorted(layer) for layer in packages if layer]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path):
    ours = room(path.with_suffix("").as_posix().replace("/", "."))
    assert ours in LEVEL, f"{ours} has no layer: add it to the drawing in docs/architecture.md"
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
