"""The first second of each command: signals during imports, missing packages, systems that are not supported."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, as_in_the_foreground, here, words

COMMANDS = ("main.py", "sweep.py", "report.py", "doctor.py", "plugin.py")
ARGUMENTS = {
    "main.py": ["--config=vdn", "--env-config=two_step", "--explain"],
    "sweep.py": [ROOT / "studies" / "two_step.yaml", "--dry-run", "--results", "/nowhere"],
    "report.py": ["/nowhere"],
    "doctor.py": [],
    "plugin.py": ["check", "/nowhere"],
}


# -2: while Python shuts down, where it takes its handlers away; a shell says 130 then too.
ENDS = (0, 1, 2, 130, -signal.SIGINT)


def has_started(process):
    """Whether its first statement is done: it then catches SIGUSR1, as Python by itself does not."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGUSR1 - 1) & 1)


def interrupted(name, seconds, signum=signal.SIGINT):
    """(exit status, stderr) of a command that is sent a signal so many seconds behind its first statement."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "src" / name, *ARGUMENTS[name]],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=as_in_the_foreground,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not has_started(process) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_a_command_imports(name):
    rng = random.Random(name)
    for seconds in (0, rng.random() / 2):
        code, err = interrupted(name, seconds)
        assert "Traceback" not in err, (seconds, err)
        assert code in ENDS, (seconds, code)  # it may have been done already
    assert interrupted(name, 0)[0] == 130


@pytest.mark.slow
@pytest.mark.parametrize("number", range(200))
def test_ctrl_c_at_any_time(number):
    rng = random.Random(number)
    name = COMMANDS[number % len(COMMANDS)]
    code, err = interrupted(name, 2 * rng.random())
    assert "Traceback" not in err and code in ENDS, (code, err)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_another_signal_while_a_command_imports(signum):
    assert interrupted("main.py", 0, signum) == (128 + signum, "")


@pytest.mark.parametrize("name", COMMANDS[:3])
@pytest.mark.parametrize("package", ["numpy", "yaml"])
def test_a_missing_package_is_told_with_the_line_that_installs_it(name, package, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, ROOT / "src" / name, *ARGUMENTS[name]], capture_output=True, text=True, env=env
    )
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert f"the package {package} is not installed" in run.stderr and "pip install -r requirements.txt" in run.stderr


def test_a_system_that_is_not_supported_is_told_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    run = here(capsys, words("vdn", "two_step", tmp_path / "r"))
    assert run.code == 2 and "runs on Linux and macOS, not on win32" in run.err and not (tmp_path / "r").exists()
