"""The exact versions of all dependencies, requirements/constraints*.txt, and `make audit`."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from command import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import checks

FOLDER = ROOT / "requirements"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")  # those that README.md names
ALL, STARCRAFT = "constraints.txt", "constraints-sc2.txt"
# {requirements file: (the constraints that cover it, the Pythons that it is for)}
COVERED = {
    "../requirements.txt": ((ALL, STARCRAFT), PYTHONS),
    "dev.txt": ((ALL, STARCRAFT), PYTHONS),
    "gym.txt": ((ALL, STARCRAFT), PYTHONS),
    "smax.txt": ((ALL, STARCRAFT), PYTHONS[1:]),
    "docs.txt": ((ALL, STARCRAFT), PYTHONS),
    "ray.txt": ((ALL,), PYTHONS),
    "sc2.txt": ((STARCRAFT,), PYTHONS),
}


def read(name: str) -> list[Requirement]:
    """The lines of a file of requirements or constraints."""
    lines = [line.partition(" #")[0].strip() for line in (FOLDER / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


def on(python: str) -> dict[str, str]:
    """What markers are asked with: Linux, an Intel processor, this Python."""
    full = python if python.count(".") > 1 else f"{python}.5"
    return {
        "python_version": ".".join(full.split(".")[:2]), "python_full_version": full, "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix", "extra": "",
    }  # fmt: skip


def holds(requirement: Requirement, environment: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment)


@cache
def pinned(name: str, python: str) -> dict[str, Version]:
    """{package: version} that a file of constraints says for a Python."""
    out = {}
    for line in read(name):
        if holds(line, on(python)):
            package = canonicalize_name(line.name)
            assert package not in out, f"{name} has two versions of {package} for Python {python}"
            out[package] = Version(str(line.specifier).removeprefix("=="))
    return out


@pytest.mark.parametrize("name", [ALL, STARCRAFT])
def test_each_line_is_one_exact_version_that_any_build_of_a_package_has(name):
    """torch==2.13.0 is the build with CUDA and the one without; a hash or torch==2.13.0+cpu would be one of them."""
    for line in read(name):
        assert re.fullmatch(r"==[\w.]+", str(line.specifier)) and not line.extras and not line.url, line
    assert "--" not in (FOLDER / name).read_text() and "://" not in (FOLDER / name).read_text()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", COVERED)
def test_each_requirement_agrees_with_the_constraints(name, python):
    constraints, pythons = COVERED[name]
    for line in read(name):
        if python in pythons and holds(line, on(python)) and not line.url:
            for file in constraints:
                version = pinned(file, python)[canonicalize_name(line.name)]
                assert version in line.specifier, f"{file} has {line.name} {version}, {name} wants {line.specifier}"


def test_every_file_of_requirements_is_covered():
    assert {path.name for path in FOLDER.glob("*.txt")} == {name for name in COVERED if "/" not in name} | {
        ALL,
        STARCRAFT,
    }


def test_the_doctor_asks_for_no_package_of_the_constraints():
    """They name what several environments have, none of which has all."""
    assert checks.extras() == [f"requirements/{name}.txt" for name in ("gym", "ray", "sc2", "smax")]


@pytest.mark.parametrize("python", PYTHONS)
def test_with_starcraft_only_protobuf_is_another(python):
    """The images with StarCraft install the core by one file and StarCraft's packages by the other. What Ray brings is
    in the first alone."""
    without, with_it = pinned(ALL, python), pinned(STARCRAFT, python)
    other = {name for name, version in without.items() if with_it.get(name, version) != version}
    assert other == {"protobuf", "googleapis-common-protos"}  # which Ray and pysc2 bring, the core does not


def dependencies(*requirements: Requirement) -> Iterator[metadata.Distribution]:
    """The installed packages that these need, each once, and what those need."""
    waiting, seen = [(r, extra) for r in requirements for extra in ("", *r.extras)], set()
    for requirement, extra in waiting:
        if (canonicalize_name(requirement.name), extra) in seen:
            continue
        seen.add((canonicalize_name(requirement.name), extra))
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:  # the CUDA of a torch for the CPU
            continue
        yield distribution
        for line in map(Requirement, distribution.requires or []):
            if line.marker is None or line.marker.evaluate({"extra": extra}):
                waiting += [(line, also) for also in ("", *line.extras)]


def test_what_is_installed_here_is_what_the_constraints_say():
    """Every package that the core and the tests need, the indirect ones too."""
    needed = [line for name in ("../requirements.txt", "dev.txt") for line in read(name)]
    here = {canonicalize_name(d.name): Version(d.version) for d in dependencies(*(r for r in needed if holds(r, {})))}
    assert {"torch", "pytest", "markupsafe", "iniconfig"} <= here.keys()  # direct ones and indirect ones
    python = ".".join(map(str, sys.version_info[:3]))
    said = pinned(STARCRAFT if any(d.name == "pysc2" for d in metadata.distributions()) else ALL, python)
    others = {
        name: f"{version}, not {said.get(name)}" for name, version in here.items() if said.get(name) != public(version)
    }
    assert not others, "pip install -c requirements/constraints.txt -r requirements/dev.txt installs what is said"


def public(version: Version) -> Version:
    return Version(version.public)


@pytest.mark.parametrize("name", ["Makefile", "docker/Dockerfile"])
def test_make_and_the_images_install_with_the_constraints(name):
    installs = re.findall(r"pip install [^\n;&]*-r [^\n;&]*", (ROOT / name).read_text())
    assert installs and all("-c requirements/constraints" in line for line in installs)


# ---- make audit, with pip-audit itself and a service of our own


class Service(BaseHTTPRequestHandler):
    """Answers as OSV does: one package is known to be vulnerable."""

    status = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((asked["package"]["name"], asked["version"]))
        known = {"id": "GHSA-1", "aliases": ["CVE-2"], "summary": "bad", "affected": [FIXED]}
        body = json.dumps({"vulns": [known]} if asked["version"] == "3.20.3" else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


class Refusing(Service):
    status = 403


FIXED = {
    "package": {"name": "protobuf", "ecosystem": "PyPI"},
    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "4.25.8"}]}],
}


@contextmanager
def serving(handler: type[Service]) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def audit(folder: Path, port: int, module: str | None = None) -> subprocess.CompletedProcess:
    """Runs audit.py on two files of constraints. module: what stands in place of pip_audit."""
    shutil.copy(FOLDER / "audit.py", folder)
    (folder / "constraints.txt").write_text("# a head\nnumpy==2.4.6\nprotobuf==7.36.2 ; python_full_version > '3.10'\n")
    (folder / "constraints-sc2.txt").write_text("numpy==2.4.6\nprotobuf==3.20.3\ntorch==2.13.0\n")
    if module is not None:
        (folder / "pip_audit.py").write_text(module)
    environment = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": f"http://127.0.0.1:{port}"}
    environment |= {"HOME": str(folder), "PYTHONPATH": str(folder), "NO_PROXY": "*"}
    return subprocess.run([sys.executable, folder / "audit.py"], capture_output=True, text=True, env=environment)


def test_audit_names_what_is_known_to_be_vulnerable(tmp_path):
    """Every version that any Python gets is asked for, once."""
    with serving(Service) as service:
        run = audit(tmp_path, service.server_port)
    assert sorted(service.asked) == [
        ("numpy", "2.4.6"), ("protobuf", "3.20.3"), ("protobuf", "7.36.2"), ("torch", "2.13.0")
    ]  # fmt: skip
    assert run.returncode == 0 and run.stdout.splitlines() == [
        "known to be vulnerable: protobuf 3.20.3: CVE-2/GHSA-1, fixed in 4.25.8",
        "audit: 4 versions asked for, 1 known to be vulnerable",
    ]


def cannot_ask(run: subprocess.CompletedProcess) -> str:
    """The one line that it prints."""
    (line,) = run.stdout.splitlines()
    assert run.returncode == 0 and run.stderr == ""
    assert line.startswith("audit: cannot ask which packages are known to be vulnerable: ")
    return line


def test_audit_says_in_one_line_that_the_service_refuses(tmp_path):
    with serving(Refusing) as service:
        run = audit(tmp_path, service.server_port)
    assert "403" in cannot_ask(run) and len(service.asked) == 1


def test_audit_says_in_one_line_that_nobody_can_be_reached(tmp_path):
    with serving(Service) as service:
        port = service.server_port
    assert "ConnectionError" in cannot_ask(audit(tmp_path, port))


@pytest.mark.parametrize(
    "module, said",
    [
        # As behind a mirror that holds packages but not what is known of them: pip-audit calls that a clean result.
        (
            """print('{"dependencies": [{"name": "numpy", "skip_reason": "not found"}], "fixes": []}')""",
            "not found",
        ),
        ("print(1 / 0)", "ZeroDivisionError"),
        ("", "pip-audit said nothing"),
    ],
)
def test_audit_says_in_one_line_that_it_got_no_answer(module, said, tmp_path):
    assert said in cannot_ask(audit(tmp_path, 1, module))
