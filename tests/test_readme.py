"""Every command of the README works: each `python src/main.py` line is run, shortened. Pages are well formed."""

import re
import shlex

import pack_runs
import pytest
import yaml
from command import ROOT, SHORT, SHORT_GAMES, files, here, outcome
from stand_in_host import make, state

import doctor
import plugin
import report
import sweep
from hosts import check

README = (ROOT / "README.md").read_text()
SKIP = "# not run by the tests"
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINES = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if SKIP not in line]
PAGES = [str(path.relative_to(ROOT)) for folder in (".", "docs", "bench") for path in (ROOT / folder).glob("*.md")]
MAIN = [line for line in LINES if "src/main.py" in line]


def shortened(argv):
    """The command of a run with few and small steps, results in the folder `here`; others as they are."""
    if "--explain" in argv or not any(word.startswith(("--config", "--from")) for word in argv):
        return argv
    game = next((game for game in SHORT_GAMES if any(game in word for word in argv)), None)
    given = {word.split("=")[0] for word in argv} - {"t_max"}
    short = SHORT | SHORT_GAMES.get(game, {}) | {"local_results_path": "here"}
    values = [f"{k}={v}" for k, v in short.items() if k not in given]
    return [*argv, *([] if "with" in argv else ["with"]), *values]


def test_there_are_commands():
    assert MAIN


@pytest.mark.parametrize("line", MAIN)
def test_a_command_of_the_readme_runs(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    argv = shlex.split(line.split("src/main.py")[1], comments=True)
    run = here(capsys, shortened(argv))
    assert run.code == 0, run.err
    assert all(name.startswith("here/") for name in files(tmp_path))


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python src/doctor.py")])
def test_the_doctor_finds_nothing_broken(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = outcome(doctor.main, capsys, shlex.split(line)[2:])
    assert run.code == 0, run.out
    assert files(tmp_path) == []


def test_the_plugin_goes_in_and_out(tmp_path, capsys, monkeypatch):
    lines = [line for line in LINES if line.startswith("python src/plugin.py")]
    assert len(lines) == 3
    before = state(make(tmp_path / "epymarl", "EPyMARL"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(check, "first_error", lambda root: None)
    monkeypatch.setattr(check, "needs", lambda root: [])
    for line in lines:
        run = outcome(plugin.main, capsys, shlex.split(line)[2:])
        assert run.code == 0, run.err
    assert state(tmp_path / "epymarl") == before


def test_the_commands_of_a_study_work_one_after_the_other(tmp_path, capfd, monkeypatch):
    """Shortened: one algorithm, one seed, few steps."""
    commands = {"src/sweep.py": sweep, "src/report.py": report, "studies/pack_runs.py": pack_runs}
    lines = [line for line in LINES if any(name in line for name in commands)]
    assert len(lines) == 4
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    for path in (ROOT / "studies").glob("*.yaml"):
        study = yaml.safe_load(path.read_text())
        study["algorithms"], study["seeds"] = list(study["algorithms"])[:1], 1
        study["overrides"] = {"t_max": 40, "save_model": False}
        (tmp_path / "studies" / path.name).write_text(yaml.safe_dump(study))
    for line in lines:
        assert commands[line.split()[1]].main(shlex.split(line)[2:]) == 0, capfd.readouterr()
    said = capfd.readouterr().out
    assert "1 of 1 runs complete" in said and (tmp_path / "results/studies/two_step/report/report.html").is_file(), said


@pytest.mark.parametrize("page", PAGES)
def test_the_rows_of_a_table_stand_together(page):
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"[|: -]+", table.splitlines()[1]) for table in tables), tables


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in LINES for word in re.findall(r"^make (\w+)", line)}
    assert named and named | set(re.findall(r"`make (\w+)`", README)) <= targets
