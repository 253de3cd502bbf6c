"""A run's resumable state on disk: the one place that knows its format.

RUN_DIR/state/
    manifest.<k>.json   what the k-th state consists of, with lengths and checksums; written last, so that it is whole
    parts.<k>.pt        networks, optimiser, counters, schedules: small
    replay.<a>-<b>.npy  episodes a … b - 1 of the run, cut to their lengths: each state appends what came since the last

Every file is written under another name, synced and renamed. The last two states stay, and what they name. A file of
episodes goes when the replay has passed over all of it. Nothing that is read can run code.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from utils.args import ConfigError, key
from utils.checkpoint import unpickled
from utils.disk import sync_folder
from utils.messages import short
from utils.runs import LARGEST_JSON, Damaged, is_step, read_bytes

FORMAT = 1
PIECES = 32  # a file of episodes holds at most this part of the replay
KEPT = 2  # states
OURS = re.compile(r"(manifest\.\d+\.json|parts\.\d+\.pt|replay\.\d+-\d+\.npy)(\.partial)?")


@dataclass(frozen=True)
class StateConfig:
    """When the state is written, and what stays of it."""

    resume_minutes: float = key(
        "time between two resumable states, beside those at a signal and at the end; 0: off", unit="minutes", low=0
    )
    resume_interval: int | None = key("the same in steps; null: off", unit="environment steps", low=1)
    keep_replay: bool = key("a finished run keeps its replay, so that it can be resumed with a larger t_max")
    on_disk_full: str = key(
        "what a run does when there is no room for its records, states or checkpoints: stop; pause: try again each "
        "30 s for an hour",
        choices=("stop", "pause"),
    )
    lease_seconds: float = key(
        "a process on another machine that has not renewed its claim on the run directory for so long counts as dead",
        unit="seconds",
        above=0,
    )
    stop_seconds: float = key(
        "time that a run gets to end its round and save its state before it is killed", unit="seconds", above=0
    )


class StateError(ConfigError):
    """A state that cannot be used."""


@dataclass(frozen=True)
class Saved:
    """A state that was read. replay: (first episode, {field: rows}) of each file, or None where it was not kept.

    metrics: bytes of metrics.jsonl that belong to it. facts: what must agree, and what should. notes: what was wrong
    with newer states.
    """

    parts: dict
    replay: Iterator | None
    metrics: int
    facts: dict
    notes: list


class Replay(Protocol):
    inserted: int  # episodes so far
    buffer_size: int

    def episodes(self, first: int, last: int) -> dict[str, list[torch.Tensor]]: ...


class StateFolder:
    """Reads and writes RUN_DIR/state. look(): raises when the run directory belongs to another process by now."""

    Config = StateConfig

    def __init__(self, folder: Path, look: Callable[[], None] = lambda: None) -> None:
        self.folder, self.look = folder, look
        self.manifests: list[dict[str, Any]] = []  # contents, oldest first: those that stay

    def write(self, parts: dict, buffer: Replay, metrics: int, facts: dict) -> None:
        """Write a state; OSError leaves the last one as it was. buffer: a ReplayBuffer."""
        self.look()
        self.folder.mkdir(exist_ok=True)
        number = self.manifests[-1]["number"] + 1 if self.manifests else 1
        self._remove_but(self.manifests[-1:])  # room for the new one
        replay = self._write_episodes(buffer)
        name = f"parts.{number}.pt"
        manifest: dict[str, Any] = {"format": FORMAT, "number": number, "metrics": metrics, "facts": facts}
        manifest |= {"parts": {"name": name, **self._replace(name, lambda f: torch.save(parts, f))}, "replay": replay}
        self._write_manifest(manifest)
        self.manifests = [*self.manifests, manifest][-KEPT:]
        self._remove_but(self.manifests)

    def drop_replay(self) -> None:
        """Make the last state one without a replay, and remove all files but its own."""
        if self.manifests:
            last = self.manifests[-1]
            self._remove_but([last])  # at no moment more than KEPT stay
            last = {**last, "number": last["number"] + 1, "replay": None}
            self._write_manifest(last)
            self.manifests = [last]
            self._remove_but(self.manifests)

    def _write_manifest(self, manifest: dict) -> None:
        text = json.dumps(manifest, sort_keys=True)
        whole = json.dumps({"checksum": _digest(text), "manifest": manifest}, sort_keys=True)
        self._replace(f"manifest.{manifest['number']}.json", lambda f: f.write(whole.encode()))

    def _write_episodes(self, buffer: Replay) -> list:
        """The replay's files as the manifest names them, oldest first, those written now among them."""
        last, first = buffer.inserted, max(0, buffer.inserted - buffer.buffer_size)
        old = [f for f in (self.manifests[-1]["replay"] or [] if self.manifests else []) if f["last"] > first]
        begin = max([first, *(f["last"] for f in old)])
        step = -(-buffer.buffer_size // PIECES)
        new = []
        for a in range(begin, last, step):
            b = min(a + step, last)
            fields, name = buffer.episodes(a, b), f"replay.{a}-{b}.npy"
            written = self._replace(name, lambda f, fields=fields: _write_fields(f, fields))
            new.append({"first": a, "last": b, "name": name, "fields": [*fields], **written})
        return old + new

    def _replace(self, name: str, write: Callable) -> dict:
        """Write a file whole or not at all; {"bytes", "checksum"} of it."""
        self.look()
        partial, out = self.folder / f"{name}.partial", None
        try:
            with open(partial, "wb") as file:
                out = _Summed(file)
                write(out)
                file.flush()
                os.fsync(file.fileno())
            self.look()
            os.replace(partial, self.folder / name)
            sync_folder(self.folder)
        except RuntimeError as error:  # how torch tells of a full disk
            with contextlib.suppress(OSError):
                os.remove(partial)
            raise (out.error if out is not None else None) or OSError(str(error)) from error
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(partial)
            raise
        return {"bytes": out.bytes, "checksum": out.sum.hexdigest()}

    def _remove_but(self, manifests: list) -> None:
        """Remove what none of `manifests` names. Their own files are named first."""
        stay = {f"manifest.{m['number']}.json" for m in manifests} | {f["name"] for f in _files(manifests)}
        for path in sorted(self.folder.iterdir()):  # manifests first: none that stands names a file that is gone
            if path.name not in stay and OURS.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()

    # ------------------------------------------------------------------ reading

    def read(self) -> Saved | None:
        """The newest state that is whole; None where none was ever written. Damaged where none is whole, StateError for
        one of another format."""
        found = sorted(self.folder.glob("manifest.*.json"), key=_number, reverse=True) if self.folder.is_dir() else []
        notes = []
        for path in found:
            try:
                manifest = _read_manifest(path)
                parts, replay = self._read_parts(manifest["parts"]), manifest["replay"]
                for entry in replay or []:
                    self._check(entry)
            except _Damaged as error:
                notes.append(str(error))
                continue
            self.manifests = [manifest]
            episodes = None if replay is None else self._episodes(replay)
            return Saved(parts, episodes, manifest["metrics"], manifest["facts"], notes)
        if notes:
            raise Damaged(
                f"{self.folder}: no state in it is whole: {'; '.join(notes)}; "
                "restore the folder from a copy, or delete it to begin the run again in its directory"
            )
        return None

    def names(self) -> list[str]:
        """The names of the files of the newest state that is whole, for a copy of it; empty where there is none."""
        if self.read() is None:
            return []
        return [f"manifest.{self.manifests[-1]['number']}.json", *(f["name"] for f in _files(self.manifests))]

    def _check(self, entry: dict) -> Path:
        """The path of a file. _Damaged where it is not as it was written."""
        path, digest = self.folder / entry["name"], hashlib.sha256()
        try:
            if path.stat().st_size != entry["bytes"]:
                raise _Damaged(f"{path.name} has {path.stat().st_size} bytes, not {entry['bytes']}")
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except FileNotFoundError:
            raise _Damaged(f"{path.name} is missing") from None
        except OSError as error:
            raise _Damaged(f"{path.name} cannot be read: {error}") from error
        if digest.hexdigest() != entry["checksum"]:
            raise _Damaged(f"{path.name} has another checksum than when it was written")
        return path

    def _read_parts(self, entry: dict) -> dict:
        path = self._check(entry)
        try:
            parts = unpickled(read_bytes(path))
        except Exception as error:  # damage shows itself as any kind of error
            message = str(error).splitlines() or [type(error).__name__]
            raise _Damaged(f"{path.name} cannot be read: {message[0]}") from error
        if not isinstance(parts, dict):
            raise _Damaged(f"{path.name} holds a {type(parts).__name__}, not a state")
        return parts

    def _episodes(self, replay: list) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """One file after the other, for the replay may fill most of the memory."""
        for entry in replay:
            yield entry["first"], _read_fields(self.folder / entry["name"], entry["fields"])


def _write_fields(file: Any, fields: dict[str, list[torch.Tensor]]) -> None:
    """The pieces of each field, one after the other, as one array in numpy's format: straight from memory."""
    for pieces in fields.values():
        arrays = [piece.numpy() for piece in pieces]
        shape = (sum(len(a) for a in arrays), *arrays[0].shape[1:])
        descr = np.lib.format.dtype_to_descr(arrays[0].dtype)
        np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        for array in arrays:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _read_fields(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    with open(path, "rb") as file:
        return {name: torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False)) for name in names}


class _Damaged(Exception):
    """A file of a state is not as it was written."""


class _Summed:
    """A file to write to that counts and sums up what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum, self.bytes, self.error = file, hashlib.sha256(), 0, None

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sum.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def _read_manifest(path: Path) -> dict:
    try:
        whole = json.loads(read_bytes(path, most=LARGEST_JSON))
        manifest = whole["manifest"]
        sound = whole["checksum"] == _digest(json.dumps(manifest, sort_keys=True))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _Damaged(f"{path.name} is damaged: {error}") from error
    if not sound:
        raise _Damaged(f"{path.name} has another checksum than when it was written")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("facts"), dict):
        raise _Damaged(f"{path.name} is not as this program writes it")
    if manifest.get("format") != FORMAT:
        raise StateError(
            f"{path}: the state has format {short(manifest.get('format'))}, this version reads {FORMAT}; "
            f"resume the run with the version that wrote it ({writer(manifest.get('facts', {}))})"
        )
    if not _is_sound(manifest):
        raise _Damaged(f"{path.name} is not as this program writes it")
    return manifest


def _is_sound(manifest: dict) -> bool:
    """Whether all is in it that a manifest has, of the kinds that it has."""
    try:
        replay = manifest["replay"] or []
        entries = [manifest["parts"], *replay]
        return (
            all(is_step(manifest[name]) for name in ("number", "metrics"))
            and all(OURS.fullmatch(entry["name"]) and is_step(entry["bytes"]) for entry in entries)
            and all(isinstance(entry["checksum"], str) for entry in entries)
            and all(is_step(entry["first"]) and is_step(entry["last"]) for entry in replay)
            and all(isinstance(name, str) for entry in replay for name in entry["fields"])
        )
    except (KeyError, TypeError):
        return False


def unlike(theirs: Any, ours: Any, where: str = "") -> str | None:
    """The first place where a value that was read is of another kind than `ours`, and of which; None: nowhere.

    A tensor has the dtype and the shape of ours. What is None or empty in ours is not looked at, nor what one of them
    lacks: that is for who takes it.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(theirs[key], value, f"{where}.{key}") for key, value in ours.items() if key in theirs]
    elif isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        pairs = [(theirs[i], value, f"{where}[{i}]") for i, value in enumerate(ours[: len(theirs)])]
    else:
        same = ours is None or _kind(theirs) == _kind(ours) or (type(ours), _kind(theirs)) == (float, "a int")
        return None if same else f"{where.lstrip('.')} is {_kind(theirs)}, not {_kind(ours)}"
    return next((found for pair in pairs if (found := unlike(*pair))), None)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and not (value.is_meta or value.is_nested or value.is_quantized)
        return f"a {value.dtype} tensor {tuple(value.shape)}" if plain else "a tensor without plain values"
    if type(value) in (int, float) and not abs(value) < 2**63:
        return "a number that is too large"
    return f"a {type(value).__name__}"


def writer(facts: dict) -> str:
    """`version …, commit …` of the program that wrote a state with these `facts`."""
    machine = facts.get("machine", {})
    known = [f"{name} {machine[key]}" for name, key in (("version", "qtran"), ("commit", "commit")) if machine.get(key)]
    return ", ".join(known) or "its version and commit are not known"


def _files(manifests: list) -> list:
    """The entries of all files that `manifests` name, each once."""
    found = [m["parts"] for m in manifests] + [f for m in manifests for f in m["replay"] or []]
    return list({f["name"]: f for f in found}.values())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _number(path: Path) -> int:
    part = path.name.split(".")[1]
    return int(part) if part.isascii() and part.isdecimal() else -1
