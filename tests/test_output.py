"""What is printed goes to a place that is closed, full, or has no letters for it: the work is done all the same."""

import fcntl
import json
import os
import pty
import subprocess
import sys

import pytest
import yaml
from command import ROOT, SHORT, words
from made_runs import ours

from parts import readers
from sweeping.plan import read_plan
from utils import console

SRC = ROOT / "src"
FULL = ">/dev/full 2>/dev/full"
CLOSED = ">&- 2>&-"
GONE = "| true"  # below: a pipe that nobody reads
PROTECTED = "import sys\nfrom utils import console\nconsole.protect()\n"


def run(script, *argv, to="", **environment):
    """The process of `script` with its output sent where the shell's words `to` say."""
    argv = [sys.executable, *(["-c", script] if "\n" in script else [str(SRC / script)]), *map(str, argv)]
    environment = os.environ | {"PYTHONPATH": str(SRC)} | environment
    if to == GONE:
        read, write = os.pipe()
        os.close(read)
        try:
            return subprocess.run(argv, stdout=write, stderr=write, env=environment, timeout=120)
        finally:
            os.close(write)
    return subprocess.run(["bash", "-c", f'"$@" {to}', "-", *argv], capture_output=True, env=environment, timeout=120)


def printing(code, to="", *argv, **environment):
    """The process of a few lines that print."""
    return run(PROTECTED + code, *argv, to=to, **environment)


# ---- the streams


LONG = "for i in range(10**4): print('a line', i)\nprint('err', file=sys.stderr)"


@pytest.mark.parametrize("to", [FULL, CLOSED, GONE, ">&-", "2>&-", ">/dev/full", "<&- >&- 2>&-", "0<&-"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_printing_raises_nothing_and_neither_does_the_end(to, unbuffered):
    done = printing(f"{LONG}\nsys.exit(7)", to, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 7
    assert b"Traceback" not in (done.stderr or b"") and b"Exception ignored" not in (done.stderr or b"")


def test_a_full_output_is_told_once_where_the_other_one_works():
    done = printing("for i in range(9): print(i, flush=True)", ">/dev/full")
    assert done.returncode == 0
    assert done.stderr == b"warning: stdout: No space left on device; what is printed there is lost\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_can_be_printed_is_printed(unbuffered):
    code = "print('x' * 10**6, flush=True)\nsys.stdout.buffer.write(b'y')\nprint('e', file=sys.stderr)\nsys.exit(3)"
    done = printing(code, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"x" * 10**6 + b"\ny", b"e\n")


@pytest.mark.parametrize(
    "encoding, said",
    [("ascii", rb"\xfc \u4e2d \udc80"), ("latin-1", b"\xfc \\u4e2d \\udc80"), ("utf-8", "ü 中 \\udc80".encode())],
)
def test_what_the_encoding_lacks_is_written_with_backslashes(encoding, said):
    done = printing("print('\\xfc \\u4e2d \\udc80')", PYTHONIOENCODING=encoding)
    assert done.stdout == said + b"\n" and done.returncode == 0


def test_a_file_that_is_opened_later_does_not_take_what_is_printed(tmp_path):
    code = (
        "import os\nf = open(sys.argv[1], 'w')\nfor fd in (1, 2): os.write(fd, b'x')\nprint('printed')\nf.write('own')"
    )
    done = printing(code, CLOSED, tmp_path / "f")
    assert done.returncode == 0 and (tmp_path / "f").read_text() == "own"


def test_a_pipe_that_does_not_block_gets_everything():
    """As a terminal or a pipe is after a program that shares it has made it so."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
    process = subprocess.Popen(
        [sys.executable, "-c", PROTECTED + "print('x' * 10**6)"],
        stdout=write,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    os.close(write)
    with open(read, "rb") as pipe:
        assert len(pipe.read()) == 10**6 + 1 and process.wait() == 0


def test_a_terminal_is_still_one():
    leader, follower = pty.openpty()
    code = f"{PROTECTED}print(sys.stdout.isatty(), sys.stdout.fileno(), end='!\\n')"
    subprocess.run([sys.executable, "-c", code], stdout=follower, env=os.environ | {"PYTHONPATH": str(SRC)}, check=True)
    assert os.read(leader, 100) == b"True 1!\r\n"


def test_streams_that_a_test_or_a_notebook_has_set_are_left_alone(capsys):
    before = sys.stdout, sys.stderr
    console.protect()
    assert (sys.stdout, sys.stderr) == before


def test_protecting_twice_is_protecting_once():
    done = printing("a = sys.stdout\nconsole.protect()\nprint(a is sys.stdout is sys.__stdout__)")
    assert done.stdout == b"True\n"


# ---- training


NAME = "größe $a^{b$c"  # as mathematics, it has no end
GAME = ("vdn", "matrix_game")


def trained(folder):
    """The run directory in `folder`, whole: as after a run whose output was read."""
    (path,) = (folder / NAME / "matrix_game").iterdir()
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["reason"], summary["t_env"]) == ("finished", None, SHORT["t_max"])
    assert (path / "tables.png").read_bytes().startswith(b"\x89PNG") and json.loads((path / "tables.json").read_text())
    assert all(json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    assert "Traceback" not in (path / "log.txt").read_text()
    return path


@pytest.mark.parametrize("to", [">/dev/full 2>&-", ">&- 2>/dev/full", GONE])
def test_training_goes_on_whatever_its_output_does(to, tmp_path):
    assert run("main.py", *words(*GAME, tmp_path, f"name={NAME}"), to=to).returncode == 0
    trained(tmp_path)


def test_training_goes_on_in_ascii_and_when_its_reader_leaves(tmp_path):
    argv = [sys.executable, str(SRC / "main.py"), *map(str, words(*GAME, tmp_path, f"name={NAME}"))]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout and process.stderr
    said = process.stdout.readline().decode("ascii")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0 and b"Traceback" not in err and b"Exception ignored" not in err
    assert said == f"run directory: {ascii(str(trained(tmp_path)))[1:-1]}\n"


@pytest.mark.parametrize("to", [FULL, CLOSED, GONE])
def test_the_exit_status_of_bad_input_stays(to, tmp_path):
    assert run("main.py", "--config=no-such", "--env-config=two_step", to=to).returncode == 2
    assert run("main.py", "--no-such-option", to=to).returncode == 2


# ---- the other commands


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs to report on."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        ours(folder, name=NAME, seed=seed)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with nothing left to do."""
    path = tmp_path_factory.mktemp("study") / "größe.yaml"
    path.write_text(f"title: größe\nalgorithms: [vdn]\nenvironments: [two_step]\nseeds: 1\nresults: {path.parent}/r\n")
    (planned,) = read_plan(str(path), readers, None).runs
    folder = path.parent / "r" / "vdn" / "two_step" / "seed1_20260101T000000Z"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(planned.values))
    (folder / "summary.json").write_text('{"status": "finished", "wall_time_s": 60.0}')
    return path


ASCII = "in ascii"


@pytest.mark.parametrize(
    "command, to, status",
    [
        *((["main.py", "--list"], to, 0) for to in (GONE, FULL, CLOSED, ASCII)),
        *((["report.py", "RUNS", "--reps", "100", "--out", "OUT"], to, 0) for to in (GONE, FULL, CLOSED, ASCII)),
        *((["sweep.py", "STUDY"], to, 0) for to in (GONE, FULL, ASCII)),
        *((["main.py", "--status", "RUNS"], to, 0) for to in (GONE, ASCII)),
        (["main.py", "--config=vdn", "--env-config=two_step", "--explain"], GONE, 0),
        (["main.py", "--help"], GONE, 0),
        (["doctor.py"], GONE, 0),
        (["plugin.py", "check", "RUNS"], GONE, 2),
    ],
)
def test_every_command_ends_as_it_would(command, to, status, runs, study, tmp_path):
    places = {"RUNS": runs, "STUDY": study, "OUT": tmp_path / "größe"}
    script, *argv = [places.get(word, word) for word in command]
    done = run(script, *argv, PYTHONIOENCODING="ascii") if to == ASCII else run(script, *argv, to=to)
    assert done.returncode == status
    assert b"Traceback" not in (done.stderr or b"") and b"Exception ignored" not in (done.stderr or b"")
    if script == "report.py":
        assert (tmp_path / "größe" / "report.html").exists()
