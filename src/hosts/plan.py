"""What `install` changes in a checkout, worked out without touching it.

The plugin's files go in byte for byte, at the paths that they have here. Where the checkout has a file at such a
path, that file stays as `host_<name>` beside it, and the checkout's own imports of it are pointed there: its learners
find what they found before. `qtran_learner` in the registry is the plugin's, or the checkout's own where the
configuration holds `qtran_arch`, which only that one reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from utils.args import ConfigError

if TYPE_CHECKING:
    from hosts.manifest import Installed
    from hosts.recognise import Host


HERE = Path(__file__).resolve().parents[1]
PLUGIN = (
    "learners/qtran_loss.py",
    "learners/qtran_learner.py",
    "learners/value_learner.py",
    "learners/transitions.py",
    "modules/mixers/qtran.py",
    "utils/args.py",
    "utils/checkpoint.py",
    "components/running_stats.py",
    "config/algs/qtran_base.yaml",
    "config/algs/qtran_alt.yaml",
)
GAMES = {"hosts/game.py": "envs/qtran_matrix_game.py", "hosts/game.yaml": "config/envs/qtran_matrix_game.yaml"}
MARKS = (b"Plugin file:", b"alt_td_target:", b"hosts of the QTRAN plugin")  # one of them stands in each of these files

LEARNER = '''

# --- QTRAN plugin ---
from .qtran_learner import QTranLearner as _PluginQTran  # noqa: E402

_host_qtran = REGISTRY.get("qtran_learner")


def _qtran_learner(mac, scheme, logger, args):
    """The plugin's QTRAN; this tree's own where the configuration has `qtran_arch`, which only that one reads."""
    cls = _host_qtran if _host_qtran is not None and hasattr(args, "qtran_arch") else _PluginQTran
    return cls(mac, scheme, logger, args)


REGISTRY["qtran_learner"] = _qtran_learner
'''
GAME = """

# --- QTRAN plugin ---
from functools import partial as _partial  # noqa: E402

from .qtran_matrix_game import QTranMatrixGame as _QTranMatrixGame  # noqa: E402

REGISTRY["qtran_matrix_game"] = _partial(_QTranMatrixGame, step_values={step_values})
"""


@dataclass(frozen=True)
class Change:
    path: str  # relative to the checkout
    action: str  # adds, replaces, edits
    content: bytes  # of the file afterwards
    note: str = ""


class Tree:
    """The files of a checkout as they are without the plugin.

    originals: {path: bytes, or None where the plugin added the file} of what the plugin has changed.
    """

    def __init__(self, root: Path, originals: Mapping[str, bytes | None]) -> None:
        self.root, self.originals = root, originals

    def read(self, path: str) -> bytes | None:
        """Bytes of a file; None where there is none."""
        if path in self.originals:
            return self.originals[path]
        return (self.root / path).read_bytes() if (self.root / path).is_file() else None

    def modules(self) -> dict[str, bytes]:
        """{path: bytes} of its Python files."""
        found = (p.relative_to(self.root).as_posix() for p in sorted((self.root / "src").rglob("*.py")))
        return {path: content for path in found if (content := self.read(path)) is not None}


def version() -> str:
    """Twelve hexadecimal digits that change with anything that `install` writes."""
    digest = hashlib.sha256()
    for name in (*PLUGIN, *GAMES):
        digest.update((HERE / name).read_bytes())
    digest.update((LEARNER + GAME).encode())
    return digest.hexdigest()[:12]


def changes(host: Host, with_games: bool, originals: Mapping[str, bytes | None]) -> list[Change]:
    """The Changes that put the plugin into `host`. originals: as for Tree. ConfigError where it cannot be done."""
    tree = Tree(host.root, originals)
    names = {name: name for name in PLUGIN} | (GAMES if with_games else {})
    ours = {f"src/{target}": (HERE / source).read_bytes() for source, target in names.items()}
    taken = {path: content for path in ours if (content := tree.read(path)) is not None}
    _refuse_copies(taken, ours)
    kept = {path: _kept(path) for path in taken}
    _refuse_taken_names(tree, kept.values())

    after = _repointed(tree.modules(), [path for path in kept if path.endswith(".py")])
    registries = _registries(host, with_games)
    for path, lines in registries.items():
        content = after.get(path) or tree.read(path) or b""
        end = b"" if content.endswith(b"\n") else _newline(content)
        after[path] = content + end + lines.replace(b"\n", _newline(content))

    out = []
    for path, content in ours.items():
        if path in kept:
            out.append(Change(kept[path], "adds", after.pop(path, taken[path]), f"this tree's own {Path(path).name}"))
        out.append(Change(path, "replaces" if path in kept else "adds", content))
    registered = {path: "registers the plugin" for path in registries}
    out += [Change(path, "edits", after[path], registered.get(path, "imports")) for path in sorted(after)]
    return out


def taken_out(host: Host, path: str, content: bytes | None, installed: Installed) -> bytes | None:
    """`content` of a file that the plugin edited and somebody else changed since, without the plugin's edits.

    content: None where it was deleted. installed: as manifest.Installed. None where that cannot be told: the file is
    gone or the plugin's own, or its lines are not all there as they were written.
    """
    if content is None or installed.before[path] is None or any(path == f"src/{name}" for name in PLUGIN):
        return None
    lines = _registries(host, installed.with_games).get(path)
    if lines is not None:
        lines = lines.replace(b"\n", _newline(content))
        if content.count(lines) != 1:
            return None
        content = content.replace(lines, b"")
    moved = [name for name in PLUGIN if _kept(f"src/{name}") in installed.before]
    for name in (PurePosixPath(name).stem for name in moved):
        content = re.sub(rf"(?m)^(\s*from\s+[\w.]*\.)host_({name}\s+import\b)".encode(), rb"\1\2", content)
    return content


def _registries(host: Host, with_games: bool) -> dict[str, bytes]:
    """{path: lines} of the files that register the plugin, which end with these."""
    games = {"src/envs/__init__.py": GAME.format(step_values=host.step_values).encode()} if with_games else {}
    return {"src/learners/__init__.py": LEARNER.encode()} | games


def _newline(content: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in content else b"\n"


def _kept(path: str) -> str:
    return str(PurePosixPath(path).with_name(f"host_{PurePosixPath(path).name}"))


def _refuse_copies(taken: Mapping[str, bytes], ours: Mapping[str, bytes]) -> None:
    copies = [path for path, content in taken.items() if any(mark in content for mark in MARKS)]
    if copies:
        same = all(taken[path] == ours[path] for path in copies)
        raise ConfigError(
            f"a copy of the plugin is here already, {'of this' if same else 'of another'} version, that this command "
            "did not install and so cannot replace or take out. Bring back the tree's own files (git checkout, git "
            "clean) and install again:\n  " + "\n  ".join(copies)
        )


def _refuse_taken_names(tree: Tree, paths: Iterable[str]) -> None:
    taken = [path for path in paths if tree.read(path) is not None]
    if taken:
        raise ConfigError(f"the names that this tree's own files would be kept under are taken: {', '.join(taken)}")


def _repointed(modules: Mapping[str, bytes], moved: Sequence[str]) -> dict[str, bytes]:
    """{path: content} of the `modules` whose imports of `moved` ones must now be of their `host_` names."""
    out = {}
    for path, before in modules.items():
        content = before
        for target in moved:
            package, name = target.removeprefix("src/").removesuffix(".py").replace("/", ".").rsplit(".", 1)
            near = PurePosixPath(path).parent == PurePosixPath(target).parent
            dotted = package.replace(".", r"\.")
            prefix = rf"(?:{dotted}\.|\.)" if near else rf"{dotted}\."
            content = re.sub(rf"(?m)^(\s*from\s+{prefix})({name}\s+import\b)".encode(), rb"\1host_\2", content)
            other = rf"(?m)^\s*(?:import\s+{dotted}\.{name}\b|from\s+(?:{dotted}|\.)\s+import\b.*\b{name}\b).*$"
            if found := re.search(other.encode(), content):
                raise ConfigError(
                    f"{path} has `{found.group().decode().strip()}`, which cannot be pointed at host_{name}; "
                    f"write it as `from {package}.{name} import …`"
                )
        if content != before:
            out[path] = content
    return out
