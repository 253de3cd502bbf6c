"""Names the versions in constraints*.txt, of every Python, that are known to be vulnerable: `make audit`.

What is known, pip-audit asks. Where it cannot ask, one line says so. The exit status is 0 all the same: what became
known since yesterday says nothing of a change made today.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
SECONDS = 300  # for one call; it waits 15 for an answer


class CannotAsk(Exception):
    """Nobody answers what is known to be vulnerable."""


def main() -> None:
    try:
        answers = ask_all(versions(*sorted(HERE.glob("constraints*.txt"))))
    except CannotAsk as error:
        print(f"audit: cannot ask which packages are known to be vulnerable: {error}")
        return
    vulnerable = [answer for answer in answers if answer.get("vulns")]
    skipped = [answer["name"] for answer in answers if "skip_reason" in answer]
    for answer in vulnerable:
        print(f"known to be vulnerable: {answer['name']} {answer['version']}: {', '.join(map(said, answer['vulns']))}")
    unknown = f"; not known there: {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(answers)} versions asked for, {len(vulnerable)} known to be vulnerable{unknown}")


def versions(*files: Path) -> list[tuple[str, str]]:
    """(name, version) of each line of the constraints, whatever its marker."""
    lines = [
        line.partition(" #")[0].strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()
    ]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return sorted({(pin.name, str(pin.specifier).removeprefix("==")) for pin in pins})


def ask_all(pins: list[tuple[str, str]]) -> list[dict]:
    """pip-audit's answers: {"name", "version", "vulns"} or {"name", "skip_reason"}. CannotAsk where it gives none."""
    first = ask(pins[:1])  # alone: where nobody answers, one question is enough
    if "skip_reason" in first[0]:
        raise CannotAsk(first[0]["skip_reason"])
    rounds = []  # pip-audit takes one version of a package at a time
    for pin in pins[1:]:
        free = next((r for r in rounds if pin[0] not in r), None)
        if free is None:
            rounds.append(free := {})
        free[pin[0]] = pin[1]
    return first + [answer for r in rounds for answer in ask(list(r.items()))]


def ask(pins: list[tuple[str, str]]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pins.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in pins), encoding="utf-8")
        options = ["--requirement", str(file), "--no-deps", "--disable-pip", "--format", "json", "--desc", "off"]
        command = [sys.executable, "-m", "pip_audit", *options, "--progress-spinner", "off"]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS)
            return json.loads(done.stdout)["dependencies"]
        except subprocess.TimeoutExpired:
            raise CannotAsk(f"no answer within {SECONDS} s") from None
        except (ValueError, KeyError):
            raise CannotAsk(reason(done.stderr)) from None


def reason(stderr: str) -> str:
    """The line of pip-audit's traceback that says most: that of the request, else the last."""
    lines = stderr.splitlines() or ["pip-audit said nothing"]
    return next((line for line in reversed(lines) if line.startswith("requests.")), lines[-1])[:200]


def said(vulnerability: dict) -> str:
    fixed = f", fixed in {', '.join(vulnerability['fix_versions'])}" if vulnerability["fix_versions"] else ""
    return "/".join([vulnerability["id"], *vulnerability["aliases"]]) + fixed


if __name__ == "__main__":
    main()
