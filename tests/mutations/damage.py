"""What happens to files: bytes that change, text that says something else, something else in their place."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mutations import values

# (what it is, what does it to a file, and may return names one of which a message holds)
Damage = tuple[str, Callable[[Path], Any]]


def _flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)


def _cut(path: Path, at: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: at % (len(data) + 1)])


def _insert(path: Path, at: int, new: bytes) -> None:
    data = path.read_bytes()
    at %= len(data) + 1
    path.write_bytes(data[:at] + new + data[at:])


def _leave_out(path: Path, at: int, length: int) -> None:
    data = path.read_bytes()
    at %= len(data) + 1
    path.write_bytes(data[:at] + data[at + length :])


def _replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return act


def _to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _moved(path: Path) -> None:
    other = path.with_name(f"moved-{path.name}")
    path.rename(other)
    path.symlink_to(other.name)


def _sparse(path: Path) -> None:
    os.truncate(path, 2**34)


OTHER_KINDS: list[Damage] = [
    ("is missing", _replaced(lambda path: None)),
    ("is empty", _replaced(lambda path: path.write_bytes(b""))),
    ("is a folder", _replaced(lambda path: path.mkdir())),
    ("is a folder with files", _replaced(lambda path: (path / "x").mkdir(parents=True))),
    ("is a pipe", _replaced(lambda path: os.mkfifo(path))),
    ("is a link to nowhere", _replaced(lambda path: path.symlink_to("nowhere"))),
    ("is a link to itself", _replaced(_to_itself)),
    ("is a link to its folder", _replaced(lambda path: path.symlink_to("."))),
    ("is a link to /dev/zero", _replaced(lambda path: path.symlink_to("/dev/zero"))),
    ("is a link to /dev/null", _replaced(lambda path: path.symlink_to("/dev/null"))),
    ("lies behind a link", _moved),
    ("has 16 GiB of nothing at its end", _sparse),
]  # fmt: skip


def _new(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)

    return act


NEW: list[Damage] = [
    ("is there, a folder", _new(lambda path: path.mkdir())),
    ("is there, a folder with files", _new(lambda path: (path / "x" / "meta.json").mkdir(parents=True))),
    ("is there, empty", _new(lambda path: path.write_bytes(b""))),
    ("is there, with bytes", _new(lambda path: path.write_bytes(b"\x80\0[{'"))),
    ("is there, with JSON", _new(lambda path: path.write_text("[1, {}]"))),
    ("is there, a pipe", _new(lambda path: os.mkfifo(path))),
    ("is there, a link to nowhere", _new(lambda path: path.symlink_to("nowhere"))),
    ("is there, a link to its folder", _new(lambda path: path.symlink_to("."))),
]  # fmt: skip

GARBAGE = [
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r\n", b"\t", b"{", b"[", b"]", b'"', b"'",
    b": ", b"!!python/name:os.system", b"&a", b"*a", b"---\n", b"\0" * 100, b"9" * 5000, b"[" * 5000, b"PK\3\4",
    b"\x80\2.",
]  # fmt: skip


@st.composite
def bytes_change(draw: Any) -> Damage:
    """A change of some bytes, or something else in the place of the file."""
    at = draw(st.integers(0, 2**20))
    kind = draw(st.integers(0, 7))
    if kind <= 2:
        bit = draw(st.integers(0, 7))
        return f"bit {bit} of byte {at} is flipped", lambda path: _flip(path, at, bit)
    if kind == 3:
        return f"is cut at byte {at}", lambda path: _cut(path, at)
    if kind == 4:
        new = draw(st.sampled_from(GARBAGE) | st.binary(min_size=1, max_size=20))
        return f"has {new[:20]!r} at byte {at}", lambda path: _insert(path, at, new)
    if kind == 5:
        length = draw(st.integers(1, 200))
        return f"lacks {length} bytes at {at}", lambda path: _leave_out(path, at, length)
    if kind == 6:
        new = draw(st.sampled_from(GARBAGE) | st.binary(max_size=40))
        return f"holds {new[:20]!r} alone", lambda path: path.write_bytes(new)
    return draw(st.sampled_from(OTHER_KINDS))


# ---------------------------------------------------------------------- YAML


LINE = re.compile(r"^(\s*)((?:- )?)(\"[^\"]*\"|'[^']*'|[^\s#:'\"{\[][^:#]*?):(\s.*)?$")


@st.composite
def yaml_change(draw: Any, canary: str) -> Damage:
    """A change of one of the lines `key: value` of a YAML file."""
    n, kind = draw(st.integers(0, 200)), draw(st.integers(0, 9))
    value = draw(values.yaml_value(canary))
    key = draw(
        st.sampled_from(
            [
                "lr",
                "env",
                "name",
                "extends",
                "presets",
                "env_args",
                "in_hosts",
                "seed",
                "x",
                "1",
                "null",
            ]
        )
    )
    if kind == 9:
        key = draw(values.yaml_value(canary))
    told = {
        0: "is left out",
        1: "is there twice",
        2: f"comes after {key[:50]}: {value[:100]}",
        9: f"is the value of {key[:100]}",
    }
    what = f"key {n} {told.get(kind, f'is {value[:100]}')}"

    def act(path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        places = [i for i, line in enumerate(lines) if LINE.match(line)] or [0]
        at = places[n % len(places)]
        found = LINE.match(lines[at]) if lines else None
        indent, dash, name, _ = found.groups() if found else ("", "", "x", "")
        if kind == 0:
            del lines[at : at + 1]
        elif kind == 1:
            lines.insert(at, lines[at] if lines else "")
        elif kind == 2:
            lines.insert(at, f"{indent}{key}: {value}")
        elif kind == 9:
            lines[at : at + 1] = [f"{indent}{dash}{key}:{(found[4] or '') if found else ''}"]
        else:
            below = at + 1
            if kind >= 6:  # with what is nested in it
                while below < len(lines) and lines[below].startswith(indent + " "):
                    below += 1
            lines[at:below] = [f"{indent}{dash}{name}: {value}"]
        path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
        return [name.strip("'\""), *([key] if kind in (2, 9) else [])]

    return what, act


# ---------------------------------------------------------------------- JSON


@st.composite
def json_change(draw: Any, canary: str, lines: bool = False, sign: Callable[[str], str] | None = None) -> Damage:
    """A change of one value in a JSON file; lines: in one line of it. sign: what the text is to become at last."""
    n, m, kind = draw(st.integers(0, 5000)), draw(st.integers(0, 5000)), draw(st.integers(0, 4))
    value = draw(values.json_value(canary))
    what = f"value {n} of line {m} " + ("is left out" if kind == 0 else f"is {value[:100]}")

    def act(path: Path) -> None:
        whole = path.read_text(encoding="utf-8")
        rows = whole.splitlines() if lines else [whole]
        at = m % len(rows) if rows else 0
        if rows:
            rows[at] = _other_json(rows[at], n, None if kind == 0 else value)
        text = "\n".join(rows) + "\n" * lines
        path.write_bytes((text if sign is None else sign(text)).encode("utf-8", "surrogatepass"))

    return what, act


def _other_json(text: str, n: int, value: str | None) -> str:
    try:
        top = json.loads(text)
    except ValueError:
        return value or ""
    places = []

    def walk(at: Any) -> None:
        for k, inner in at.items() if isinstance(at, dict) else enumerate(at):
            places.append((at, k))
            if isinstance(inner, (dict, list)):
                walk(inner)

    if isinstance(top, (dict, list)):
        walk(top)
    if not places or n % (len(places) + 1) == len(places):
        return value or ""
    at, k = places[n % (len(places) + 1)]
    if value is None:
        del at[k]
    else:
        at[k] = "@PLACE@"
    return json.dumps(top).replace('"@PLACE@"', value or "")
