"""The state on disk: what is written comes back, whatever happens while it is written, and no more stays than must."""

import hashlib
import itertools
import json
import os
import pickle

import numpy as np
import pytest
import torch
from command import files
from helpers import groups, make_args, random_batch, scheme

from components.episode_buffer import ReplayBuffer
from utils.args import ConfigError
from utils.resume_state import FORMAT, KEPT, StateFolder

ARGS = make_args("qmix")
FACTS = {"keys": {"lr": 0.1}, "shapes": {"obs_shape": 5}, "machine": {"commit": "abc"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting for the disk."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


class Crash(BaseException):
    """The process is killed."""


class Replay(ReplayBuffer):
    """Small, and filled with random episodes of random lengths."""

    def __init__(self, size):
        super().__init__(scheme(ARGS), groups(ARGS), size, 6, seed=0)
        self.chance = np.random.default_rng(size)

    def play(self, n):
        self.insert_episode_batch(random_batch(self.chance, ARGS, B=n, T=5))


def write(states, buffer):
    """Write a state of `buffer`; its parts and metrics say how many episodes had been played."""
    parts = {"weights": torch.full((3,), float(buffer.inserted)), "played": buffer.inserted, "best": None}
    states.write(parts, buffer, 100 * buffer.inserted, FACTS)


def put_back(saved, size):
    """A Replay with what was saved."""
    buffer = Replay(size)
    for first, episodes in saved.replay:
        buffer.put_back(first, episodes)
    return buffer


def same(a, b):
    """Whether two replays are equal, in what they hold and in what comes next."""
    numbers = ("inserted", "buffer_index", "episodes_in_buffer")
    return (
        all(getattr(a, name) == getattr(b, name) for name in numbers)
        and np.array_equal(a.lengths, b.lengths)
        and all(torch.equal(a.data[k], b.data[k]) for k in a.data)
    )


def spans(folder):
    """[(first, last + 1)] of the episodes in the files of `folder`."""
    return sorted(tuple(map(int, f.split(".")[1].split("-"))) for f in files(folder) if f.startswith("replay."))


def named(folder):
    """The files that the manifests in `folder` name, and the manifests."""
    found = {f for f in files(folder) if f.startswith("manifest.")}
    for file in list(found):
        manifest = json.loads((folder / file).read_text())["manifest"]
        found |= {f["name"] for f in [manifest["parts"], *(manifest["replay"] or [])]}
    return sorted(found)


@pytest.mark.parametrize("played", [(1,), (2, 2), (5, 1), (6, 1), (4, 4, 4), (6, 6), (3, 5, 2, 6, 1)])
@pytest.mark.parametrize("size", [6, 40])
def test_what_is_written_comes_back(played, size, tmp_path):
    """A state behind each round of so many episodes. Of 40 episodes, two share a file."""
    states, buffer = StateFolder(tmp_path / "state"), Replay(size)
    for n in played:
        buffer.play(n)
        write(states, buffer)
        saved = StateFolder(tmp_path / "state").read()
        assert saved.parts["played"] == buffer.inserted and saved.parts["best"] is None
        assert torch.equal(saved.parts["weights"], torch.full((3,), float(buffer.inserted)))
        assert (saved.metrics, saved.facts, saved.notes) == (100 * buffer.inserted, FACTS, [])
        assert same(put_back(saved, size), buffer)


def test_where_nothing_was_written(tmp_path):
    assert StateFolder(tmp_path / "state").read() is None
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "parts.1.pt.partial").touch()
    assert StateFolder(tmp_path / "state").read() is None


def test_without_a_replay(tmp_path):
    states, buffer = StateFolder(tmp_path), Replay(6)
    write(states, buffer)
    assert [*StateFolder(tmp_path).read().replay] == []  # there is one, and it is empty
    states.drop_replay()
    assert StateFolder(tmp_path).read().replay is None


def test_the_state_of_a_finished_run_is_small_and_alone(tmp_path, monkeypatch):
    states, buffer = StateFolder(tmp_path), Replay(6)
    for _ in range(3):
        buffer.play(2)
        write(states, buffer)
    replace = os.replace

    def watched(*paths):
        replace(*paths)
        assert len([f for f in files(tmp_path) if f.startswith("manifest.")]) <= KEPT

    monkeypatch.setattr("os.replace", watched)
    states.drop_replay()
    assert files(tmp_path) == ["manifest.4.json", "parts.3.pt"]
    saved = StateFolder(tmp_path).read()
    assert saved.replay is None and saved.parts["played"] == 6


@pytest.mark.parametrize("size, most", [(6, 2), (6, 6), (70, 4), (70, 70)])
def test_two_states_stay_and_at_most_twice_the_replay(size, most, tmp_path, monkeypatch):
    """At any moment, also while a state is written. Files that the replay has passed over are gone."""
    states, buffer, replace = StateFolder(tmp_path), Replay(size), os.replace
    chance, piece = np.random.default_rng(0), -(-size // 32)

    def watched(*paths):
        replace(*paths)
        held = sum(b - a for a, b in spans(tmp_path))
        assert held <= 2 * buffer.episodes_in_buffer

    monkeypatch.setattr("os.replace", watched)
    for number in range(1, 16):
        buffer.play(int(chance.integers(1, most + 1)))
        write(states, buffer)
        manifests = [f for f in files(tmp_path) if f.startswith("manifest.")]
        assert f"manifest.{number}.json" in manifests and len(manifests) <= KEPT
        assert named(tmp_path) == files(tmp_path)
        assert most == size or number == 1 or len(manifests) == KEPT
        oldest = json.loads((tmp_path / f"manifest.{number}.json").read_text())["manifest"]["replay"][0]
        assert oldest["last"] > buffer.inserted - size and oldest["last"] - oldest["first"] <= piece


def test_two_states_stay_that_share_no_episode(tmp_path):
    """Also where the replay has been replaced between them: a damaged state has another one to fall back to."""
    states, buffer = StateFolder(tmp_path), Replay(6)
    for _ in range(3):
        buffer.insert_episode_batch(random_batch(np.random.default_rng(0), ARGS, B=6, T=5))
        write(states, buffer)
    assert sorted(f for f in files(tmp_path) if f.startswith("manifest.")) == ["manifest.2.json", "manifest.3.json"]
    assert sum(b - a for a, b in spans(tmp_path)) == 12


def test_a_state_appends_what_came_since_the_last(tmp_path):
    states, buffer = StateFolder(tmp_path), Replay(6)
    buffer.play(4)
    write(states, buffer)
    before = {f: (tmp_path / f).stat().st_mtime_ns for f in files(tmp_path) if f.startswith("replay")}
    buffer.play(1)
    write(states, buffer)
    assert {f: (tmp_path / f).stat().st_mtime_ns for f in before} == before and spans(tmp_path)[-1] == (4, 5)


def test_the_tenth_state_is_newer_than_the_ninth(tmp_path):
    states, buffer = StateFolder(tmp_path), Replay(6)
    for _ in range(10):
        buffer.play(1)
        write(states, buffer)
    assert sorted(f for f in files(tmp_path) if f.startswith("manifest")) == ["manifest.10.json", "manifest.9.json"]
    assert StateFolder(tmp_path).read().parts["played"] == 10


# ---- crashes


class Story:
    """A folder with two states, and a third that is written: its replay has passed over what the first names."""

    def __init__(self, folder, look=lambda: None):
        self.folder, self.buffer = folder, Replay(6)
        self.states = StateFolder(folder, look)
        self.buffer.play(4)
        write(self.states, self.buffer)
        self.buffer.play(3)
        write(self.states, self.buffer)
        self.before = pickle.loads(pickle.dumps(self.buffer))
        self.buffer.play(5)

    def third(self):
        write(self.states, self.buffer)

    def check(self):
        """A state can be read, the second or the third, and the run goes on from there and cleans up."""
        again = StateFolder(self.folder)
        saved = again.read()
        buffer = put_back(saved, 6)
        assert saved.notes == [] and saved.parts["played"] in (7, 12)
        assert same(buffer, self.before if saved.parts["played"] == 7 else self.buffer)
        buffer.play(2)
        write(again, buffer)
        assert same(put_back(StateFolder(self.folder).read(), 6), buffer)
        assert files(self.folder) == named(self.folder)
        return saved.parts["played"]


def at_call(patch, k, error, after=False, names=("replace", "fsync", "unlink", "remove")):
    """Raise `error` at the k-th of these calls to the system, before or after it was done. Returns what counts them."""
    done = []

    def watched(real):
        def call(*args, **more):
            done.append(1)
            if len(done) == k and not after:
                raise error
            result = real(*args, **more)
            if len(done) == k:
                raise error
            return result

        return call

    for name in names:
        patch.setattr(os, name, watched(getattr(os, name)))
    return done


def all_calls(tmp_path, monkeypatch):
    """How many calls to the system the third state takes."""
    story = Story(tmp_path / "counted")
    with monkeypatch.context() as patch:
        done = at_call(patch, 0, None)
        story.third()
    assert len(done) > 20
    return range(1, len(done) + 1)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_call_leaves_one_of_the_last_two_states(after, tmp_path, monkeypatch):
    found = set()
    for k in all_calls(tmp_path, monkeypatch):
        story = Story(tmp_path / str(k))
        with monkeypatch.context() as patch, pytest.raises(Crash):
            at_call(patch, k, Crash(), after)
            story.third()
        found.add(story.check())
    assert found == {7, 12}


@pytest.mark.parametrize("after", [False, True])
def test_an_error_at_any_call_leaves_the_last_state_and_the_next_one_is_written(after, tmp_path, monkeypatch):
    raised = set()
    for k in all_calls(tmp_path, monkeypatch):
        story = Story(tmp_path / str(k))
        with monkeypatch.context() as patch:
            at_call(patch, k, OSError(28, "No space left on device"), after)
            try:
                story.third()
                raised.add(False)
            except OSError:
                raised.add(True)
        assert not list(story.folder.glob("*.partial"))
        # Either the run goes on and writes the next state, or it is killed here.
        if k % 2:
            story.buffer.play(1)
            write(story.states, story.buffer)
            assert same(put_back(StateFolder(story.folder).read(), 6), story.buffer)
            assert files(story.folder) == named(story.folder)
        else:
            story.check()
    assert raised == {False, True}  # what cannot be removed costs nothing


def test_a_disk_that_is_full_at_any_byte(tmp_path, monkeypatch):
    """Half of the k-th write gets through; then the process is killed."""

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            left.append(1)
            if len(left) == k:
                self.file.write(bytes(data)[: len(data) // 2])
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

    k, left, real = 0, [], open
    monkeypatch.setattr("utils.resume_state.open", lambda *words: Full(real(*words)), raising=False)
    for target in itertools.count(1, 5):
        k = 0
        story = Story(tmp_path / str(target))
        k = target
        left.clear()
        try:
            story.third()
            break
        except OSError as full:
            assert "No space left" in str(full)
        k = 0
        assert story.check() == 7
    assert target > 60


def test_a_process_that_has_lost_the_run_writes_nothing_more(tmp_path):
    """It learns of it at any of the looks; what the other process has written by then is not touched."""
    for last in itertools.count():
        looks, lost = itertools.count(), [False]

        def look():
            if lost[0] and next(looks) == last:  # noqa: B023
                raise Crash

        story = Story(tmp_path / str(last), look)
        lost[0] = True
        before = {f: (story.folder / f).read_bytes() for f in files(story.folder)}
        try:
            story.third()
        except Crash:
            there = {f: (story.folder / f).read_bytes() for f in files(story.folder)}
            assert last or there == before
            assert story.check() == 7
        else:
            break
    assert last > 5


# ---- damage


@pytest.fixture
def two(tmp_path):
    """A folder with the states of 4 and 7 episodes."""
    story = Story(tmp_path / "two")
    return story.folder


def test_one_flipped_bit_anywhere(two):
    """The state before is taken, with a note, or none can be used: never one that is wrong."""
    whole = {f: (two / f).read_bytes() for f in files(two)}
    found = set()
    for file, data in whole.items():
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            flipped = bytearray(data)
            flipped[at] ^= 1 << (at % 8)
            (two / file).write_bytes(flipped)
            try:
                saved = StateFolder(two).read()
                played = saved.parts["played"]
                assert put_back(saved, 6).inserted == played
                assert bool(saved.notes) == (played == 4)
                found.add(played)
            except ConfigError as error:
                assert "no state in it is whole" in str(error) and file in str(error)
                found.add("none")
        (two / file).write_bytes(data)
    assert found == {4, 7, "none"}


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer", "empty", "a folder"])
@pytest.mark.parametrize("file", ["manifest.2.json", "parts.2.pt", "replay.6-7.npy"])
def test_the_state_before_is_taken(file, damage, two):
    path, data = two / file, (two / file).read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"shorter": data[:-1], "longer": data + b" ", "empty": b""}[damage])
    states = StateFolder(two)
    saved = states.read()
    if (file, damage) == ("manifest.2.json", "longer"):  # a space behind the JSON says nothing else
        assert saved.parts["played"] == 7
        return
    assert saved.parts["played"] == 4 and len(saved.notes) == ((file, damage) != ("manifest.2.json", "gone"))
    assert all(file in note for note in saved.notes)
    buffer = put_back(saved, 6)
    buffer.play(1)
    if damage != "a folder":
        write(states, buffer)
        again = StateFolder(two).read()
        assert again.notes == [] and same(put_back(again, 6), buffer) and files(two) == named(two)


def rewrite(folder, number, right=True, **changes):
    """Change a manifest; right: with the checksum of what it is then."""
    path = folder / f"manifest.{number}.json"
    whole = json.loads(path.read_text())
    manifest = whole["manifest"] | changes
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"checksum": digest if right else whole["checksum"], "manifest": manifest}))


def test_a_manifest_with_another_checksum(two):
    rewrite(two, 2, right=False, metrics=1)
    saved = StateFolder(two).read()
    assert saved.parts["played"] == 4 and "manifest.2.json has another checksum" in saved.notes[0]
    rewrite(two, 1, right=False, metrics=1)
    with pytest.raises(ConfigError, match="no state in it is whole: manifest.2.*; manifest.1.*restore"):
        StateFolder(two).read()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"checksum": 1}', '{"manifest": {}}', "[" * 100_000])
def test_a_manifest_that_is_none(text, two):
    (two / "manifest.2.json").write_text(text)
    assert StateFolder(two).read().parts["played"] == 4


@pytest.mark.parametrize(
    "machine, by",
    [
        ({"commit": "abc", "qtran": "0.1"}, "version 0.1, commit abc"),
        ({"commit": "abc"}, "commit abc"),  # before there were versions
        ({"commit": None, "qtran": "0.1"}, "version 0.1"),  # outside git
        ({}, "its version and commit are not known"),
    ],
)
def test_another_format_is_no_damage(machine, by, two):
    rewrite(two, 2, format=FORMAT + 1, facts=FACTS | {"machine": machine})
    with pytest.raises(ConfigError) as refused:
        StateFolder(two).read()
    said = str(refused.value)
    assert f"format {FORMAT + 1}, this version reads {FORMAT}" in said and f"the version that wrote it ({by})" in said


def test_no_file_of_a_state_can_run_code(two, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    def put(name, data):
        (two / name).write_bytes(data)
        return {"name": name, "bytes": len(data), "checksum": hashlib.sha256(data).hexdigest()}

    rewrite(two, 2, parts=put("parts.2.pt", pickle.dumps(Trap(), 2)))
    torch.save({"weights": Trap()}, two / "parts.1.pt")
    rewrite(two, 1, parts=put("parts.1.pt", (two / "parts.1.pt").read_bytes()))
    with pytest.raises(ConfigError, match="(?s)parts.2.pt cannot be read.*parts.1.pt cannot be read"):
        StateFolder(two).read()
    assert not (tmp_path / "trapped").exists()


def test_replay_files_cannot_run_code(two, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    np.save(two / "trap.npy", np.array([Trap()], dtype=object))
    data = (two / "trap.npy").read_bytes()
    (two / "replay.6-7.npy").write_bytes(data)
    replay = json.loads((two / "manifest.2.json").read_text())["manifest"]["replay"]
    replay[-1] |= {"bytes": len(data), "checksum": hashlib.sha256(data).hexdigest()}
    rewrite(two, 2, replay=replay)
    with pytest.raises(ValueError):
        put_back(StateFolder(two).read(), 6)
    assert not (tmp_path / "trapped").exists()


def test_foreign_files_are_left_alone(two):
    foreign = [
        "notes.txt",
        "manifest",
        "parts",
        "replays.zip",
        "replay.mp4",
        "parts.txt",
        "manifest.json",
        "a/replay.1",
    ]
    (two / "a").mkdir()
    for name in foreign:
        (two / name).write_text("mine")
    states, buffer = StateFolder(two), Replay(6)
    states.read()
    for _ in range(3):
        buffer.play(6)
        write(states, buffer)
    assert set(foreign) <= set(files(two))
