"""Every command of README.md and docs/ works, or a comment above it says why it is not run. Pages are well formed.

A line `python src/main.py` is run, shortened. The lines of a study are run one after the other, shortened too. Of a
study on a page of results, which takes hours, the study and the options are read. What cannot be run stands in a block
below `<!-- not run by the tests: REASON -->`.
"""

import re
import shlex
import subprocess
from typing import NamedTuple

import heatmaps
import learned_tables
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
from sweeping.study import read_study
from utils.version import VERSION

SKIP = "not run by the tests: "
PAGES = [str(path.relative_to(ROOT)) for folder in (".", "docs", "bench") for path in (ROOT / folder).glob("*.md")]
PAGES = [page for page in PAGES if page != "CHANGELOG.md"]
RESULTS = ("docs/reproduction.md", "docs/smax.md", "docs/comparators.md")  # their studies take hours
TUTORIAL = "docs/tutorial.md"
OTHERS = {"docs/comparing.md": "test_report_for_papers.py"}  # pages whose commands another test runs


class Line(NamedTuple):
    page: str
    text: str


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(the line above, language, text) of each block of code."""
    out, above, language, text = [], "", None, []
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("```") and language is None:
            language, text = line[3:], []
        elif line.startswith("```"):
            out.append((above, language, "\n".join(text)))
            language = None
        elif language is None:
            above = line
        else:
            text.append(line)
    return out


def commands_of(page: str) -> list[Line]:
    """The commands of a page that are not marked. A block without a language may hold commands too."""
    out = []
    for above, language, block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines() if language in ("bash", "") else ():
            text = line.partition("  #")[0].strip()
            command = language == "bash" or text.startswith(("python ", "mkdir "))  # others show an output
            if text and command and SKIP not in above and SKIP not in line:
                out.append(Line(page, text))
    return out


LINES = [line for page in PAGES if page not in OTHERS for line in commands_of(page)]
OF_README = [line.text for line in LINES if line.page == "README.md"]
MAIN = sorted({line.text for line in LINES if line.text.startswith("python src/main.py")})
DOCTOR = sorted({line.text for line in LINES if line.text.startswith("python src/doctor.py")})
STUDIES = [line for line in LINES if re.match("python (src/(sweep|report)|studies/[a-z_]+).py", line.text)]
OF_RESULTS = sorted({line.text for line in STUDIES if line.page in RESULTS})
PACKED = "mkdir -p results && tar -xJf docs/smax/3m_runs.tar.xz -C results"


def shortened(argv):
    """The command of a run with few and small steps, results in the folder `here`; others as they are."""
    if "--explain" in argv or not any(word.startswith(("--config", "--from")) for word in argv):
        return argv
    game = next((game for game in SHORT_GAMES if any(game in word for word in argv)), None)
    given = {word.split("=")[0] for word in argv} - {"t_max"}
    short = SHORT | SHORT_GAMES.get(game, {}) | {"local_results_path": "here"}
    values = [f"{k}={v}" for k, v in short.items() if k not in given]
    return [*argv, *([] if "with" in argv else ["with"]), *values]


def test_each_command_is_run_or_marked():
    """A command that no test below takes is a new kind, or lacks its mark."""
    assert len(MAIN) > 20 and len(DOCTOR) > 1 and len(OF_RESULTS) > 10
    taken = {*MAIN, *DOCTOR, *(line.text for line in STUDIES if line.page in ("README.md", TUTORIAL, *RESULTS))}
    taken |= {line.text for line in LINES if line.text.startswith(("python src/plugin.py", "make "))}
    taken |= {PACKED}
    assert [line for line in LINES if line.text not in taken] == []


@pytest.mark.parametrize("line", MAIN)
def test_a_run_of_the_pages_works(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    argv = shlex.split(line.split("src/main.py")[1], comments=True)
    run = here(capsys, shortened(argv))
    assert run.code == 0, run.err
    assert all(name.startswith("here/") for name in files(tmp_path))


@pytest.mark.parametrize("line", DOCTOR)
def test_the_doctor_finds_nothing_broken(line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = outcome(doctor.main, capsys, shlex.split(line)[2:])
    assert run.code == 0, run.out
    assert files(tmp_path) == []


@pytest.mark.parametrize("page", ["README.md", "docs/plugin.md"])
def test_the_plugin_goes_in_and_out(page, tmp_path, capsys, monkeypatch):
    lines = [line.text for line in LINES if line.page == page and line.text.startswith("python src/plugin.py")]
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


def run_study(page, folder, capfd):
    """The commands of a page's study one after the other in `folder`, where its file is; what they print."""
    commands = {"src/sweep.py": sweep, "src/report.py": report, "studies/pack_runs.py": pack_runs}
    for line in (line.text for line in STUDIES if line.page == page):
        assert commands[line.split()[1]].main(shlex.split(line)[2:]) == 0, capfd.readouterr()
    return capfd.readouterr().out


def test_the_study_of_the_readme_works(tmp_path, capfd, monkeypatch):
    """Shortened: one seed, few steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    study = yaml.safe_load((ROOT / "studies" / "two_step.yaml").read_text())
    study |= {"seeds": 1, "overrides": {"t_max": 40, "save_model": False}}
    (tmp_path / "studies" / "two_step.yaml").write_text(yaml.safe_dump(study))
    said = run_study("README.md", tmp_path, capfd)
    assert "2 of 2 runs complete" in said and (tmp_path / "results/studies/two_step/report/report.html").is_file(), said


def test_the_study_of_the_tutorial_works(tmp_path, capfd, monkeypatch):
    """Its file as it is on the page, but for one algorithm, one seed and few steps."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / TUTORIAL).read_text(), re.MULTILINE | re.DOTALL)
    study = yaml.safe_load(text)
    study |= {"seeds": 1, "algorithms": study["algorithms"][:1]}
    study["overrides"] |= {"t_max": 40}
    (tmp_path / "my_study.yaml").write_text(yaml.safe_dump(study))
    monkeypatch.chdir(tmp_path)
    said = run_study(TUTORIAL, tmp_path, capfd)
    assert "1 of 1 runs complete" in said and (tmp_path / "results/studies/my_study/report/report.html").is_file(), said


@pytest.mark.parametrize("line", OF_RESULTS)
def test_the_study_of_a_result_can_be_read(line):
    """Its file is there, and has the algorithms, environments and seeds that the options name."""
    command, *words = shlex.split(line)[1:]
    if command == "src/sweep.py":
        options = sweep.parser().parse_args(words)
        study = read_study(ROOT / options.study)
        assert {*(options.algorithms or [])} <= {*study.algorithms}
        assert {*(options.environments or [])} <= {*study.environments}
    else:
        named = {"src/report.py": report, "studies/heatmaps.py": heatmaps, "studies/learned_tables.py": learned_tables}
        named[command].parser().parse_args(words)


def test_packed_runs_give_a_report(tmp_path, capsys, monkeypatch):
    """As docs/smax.md says; the file of the runs is where it says."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    subprocess.run(PACKED, shell=True, check=True)
    told = outcome(report.main, capsys, ["results/smax_3m", "--reps=100"])
    assert told.code == 0 and "0.84" in told.out, told.out + told.err


@pytest.mark.parametrize("page", PAGES)
def test_python_on_a_page_can_be_read(page):
    for _, language, text in blocks(page):
        if language == "python":
            compile(text, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_the_rows_of_a_table_stand_together(page):
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"[|: -]+", table.splitlines()[1]) for table in tables), tables


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_of_the_site_has_a_place(page):
    """It stands in the site's table of contents, and the front page links to it."""
    front, name = (ROOT / "docs" / "index.md").read_text(), page.removeprefix("docs/")
    inner = {"reproduction.md", "smax.md", "comparators.md", "gymma.md", "index.md"}  # pages that results.md links to
    assert name == "index.md" or re.search(rf"^(.* <)?{name.removesuffix('.md')}>?$", front, re.MULTILINE)
    assert name in inner or f"]({name})" in front


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1200


def test_functions_that_the_page_of_the_mathematics_names_exist():
    import learners.qtran_learner
    import learners.qtran_loss
    import learners.transitions
    import modules.mixers.qtran

    page = (ROOT / "docs" / "mathematics.md").read_text()
    places = (learners.qtran_loss, learners.transitions, modules.mixers.qtran, learners.qtran_learner)
    for line in re.findall(r"^.*Functions?: (.*)$|^Computed in (.*)$", page, re.MULTILINE):
        for name in re.findall(r"`([\w.]+)`", "".join(line).split(" With ")[0]):
            first, *rest = name.split(".")
            found = [getattr(place, first) for place in places if hasattr(place, first)]
            assert found or first == "q_sum", name
            assert all(hasattr(found[0], attribute) for attribute in rest), name


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == VERSION and citation["license"] == "Apache-2.0"
    assert f"\n## {VERSION} ({citation['date-released']})\n" in (ROOT / "CHANGELOG.md").read_text()


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for line in LINES for word in re.findall(r"^make (\w+)", line.text)}
    written = {word for page in PAGES for word in re.findall(r"`make (\w+)`", (ROOT / page).read_text())}
    assert named and named | written <= targets
