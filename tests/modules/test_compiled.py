"""C++ that is compiled where it is used: once, kept, and what happens where it cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modules.agents import compiled
from modules.agents.compiled import NotCompiled, library

SOURCE = 'extern "C" int answer() { return 42; }\n'
SRC = Path(compiled.__file__).parents[2]

COMPILER = os.environ.get("CXX", "").split()[:1] or compiled.COMPILERS
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILER)), reason="no C++ compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A C++ file, with a cache of its own beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "qtran").glob("*"))


def answer(source):
    """The command of a process that compiles or loads it, and prints what it answers."""
    code = "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])"
    code += "; from modules.agents.compiled import library"
    return [sys.executable, "-c", f"{code}; print(library(Path(sys.argv[2])).answer())", str(SRC), str(source)]


def compiler(path, script, monkeypatch):
    """A program in place of the compiler; it is called with the compiler's arguments."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


@needs_compiler
def test_what_was_compiled_is_used_again(source, tmp_path, monkeypatch):
    assert library(source).answer() == 42
    (file,) = kept(tmp_path)
    compiler(tmp_path / "broken", "exit 1", monkeypatch)
    assert library(source).answer() == 42
    source.write_text(SOURCE.replace("42", "43"))  # another program is another file
    with pytest.raises(NotCompiled):
        library(source)
    assert kept(tmp_path) == [file]


@needs_compiler
@pytest.mark.parametrize("change", ["flags", "processor"])
def test_other_flags_or_another_processor_are_another_file(change, source, tmp_path, monkeypatch):
    library(source)
    if change == "flags":
        monkeypatch.setattr(compiled, "FLAGS", (*compiled.FLAGS, "-g"))
    else:
        monkeypatch.setattr(compiled, "_processor", lambda: "Z80")
    library(source)
    assert len(kept(tmp_path)) == 2


@needs_compiler
@pytest.mark.parametrize("damage", [b"", b"not a library", None], ids=str)
def test_a_damaged_file_is_made_again(damage, source, tmp_path):
    library(source)
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.unlink()  # the one that is loaded stays as it is
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    done = subprocess.run(answer(source), capture_output=True, text=True)
    assert done.stdout == "42\n", done.stderr
    assert file.read_bytes() == whole


@needs_compiler
def test_processes_that_compile_at_once(source, tmp_path):
    running = [subprocess.Popen(answer(source), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in running] == ["42\n"] * 4
    assert len(kept(tmp_path)) == 1


@needs_compiler
@pytest.mark.parametrize("cache", range(3), ids=["a file", "a folder in which nothing can be made", "without a home"])
def test_where_nothing_can_be_kept_it_is_made_each_time(cache, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", [str(source), "/proc/self", "~"][cache])
    assert library(source).answer() == 42
    compiler(tmp_path / "broken", "exit 1", monkeypatch)
    with pytest.raises(NotCompiled):
        library(source)
    assert not (tmp_path / "~").exists()


def test_without_a_compiler_it_is_told_how_to_name_one(source, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCompiled, match=r"no C\+\+ compiler .*CXX="):
        library(source)


@pytest.mark.parametrize(
    "script, said",
    [
        ("echo one >&2; echo 'answer.cpp:1: error: no such thing' >&2; echo more >&2; exit 1", "error: no such thing"),
        ("echo 'out of memory' >&2; exit 4", "out of memory"),
        ("exit 3", "exit status 3"),
        ("exit 0", "exit status 0"),  # and no file
        ("kill -9 $$", "exit status -9"),
        ("sleep 60", "did not end in 1 seconds"),
        ('for last; do true; done; echo nonsense > "$last"', "answer"),  # a file that is no library
    ],
)
def test_a_compiler_that_fails_is_told_in_a_line(script, said, source, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "SECONDS", 1)
    compiler(tmp_path / "broken", f"exec 1>/dev/null; {script}", monkeypatch)
    with pytest.raises(NotCompiled) as error:
        library(source)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/nowhere/c++ -m64", '/nowhere/c++ "'])
def test_a_compiler_that_is_not_there(name, source, monkeypatch):
    monkeypatch.setenv("CXX", name)
    with pytest.raises(NotCompiled, match="/nowhere/c"):
        library(source)


def test_no_room_for_temporary_files(source, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(NotCompiled, match="nowhere"):
        library(source)
