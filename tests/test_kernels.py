"""The key `kernels` in whole runs: what is chosen, said, recorded, and kept when a run is resumed."""

import pytest
from command import here, words

from modules.agents import recurrence

needs_compiler = pytest.mark.skipif(recurrence.choose("auto")[0] != "fast", reason=recurrence.choose("auto")[1])


@pytest.fixture
def compilers(tmp_path, monkeypatch):
    """compilers(False): from now on there is none, and nothing that was compiled before; compilers(True): as it was."""

    def present(there: bool) -> None:
        recurrence._library.cache_clear()
        if there:
            monkeypatch.undo()
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
            monkeypatch.setattr("modules.agents.compiled.COMPILERS", ())
            monkeypatch.delenv("CXX", raising=False)

    yield present
    present(True)


def recurrent(folder, *values):
    """The command line of a short run of agents with a memory."""
    return words("vdn", "two_step", folder, "use_rnn=True", *values)


def said(run):
    return [line.partition("kernels: ")[2] for line in run.err.splitlines() if "kernels: " in line]


@needs_compiler
def test_what_auto_chose_is_said_and_recorded(tmp_path, capsys):
    run = here(capsys, recurrent(tmp_path))
    assert said(run) == ["fast (compiled on this machine)"] and run.summary["kernels"] == "fast"
    run = here(capsys, recurrent(tmp_path, "kernels=plain"))
    assert said(run) == ["plain (kernels=plain)"] and run.summary["kernels"] == "plain"


def test_without_a_compiler_the_plain_path_is_taken_with_one_line(compilers, tmp_path, capsys):
    compilers(False)
    run = here(capsys, recurrent(tmp_path))
    (line,) = said(run)
    assert run.code == 0 and line.startswith("plain (no C++ compiler") and run.summary["kernels"] == "plain"
    plain = here(capsys, recurrent(tmp_path, "kernels=plain"))
    assert plain.figures == run.figures


def test_what_is_asked_for_and_cannot_be_had_is_refused(compilers, tmp_path, capsys):
    compilers(False)
    run = here(capsys, recurrent(tmp_path / "new", "kernels=fast"))
    assert run.code == 2 and "kernels=fast: no C++ compiler" in run.last_line and not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["kernels=fast", "kernels=quick"])
def test_agents_without_a_memory_have_no_choice(key, tmp_path, capsys):
    run = here(capsys, words("vdn", "matrix_game", tmp_path / "new", key))
    assert run.code == 2 and "kernels" in run.err and not (tmp_path / "new").exists()
    run = here(capsys, words("vdn", "matrix_game", tmp_path))
    assert run.code == 0 and said(run) == [] and run.summary["kernels"] == "plain"


@needs_compiler
def test_a_resumed_run_keeps_to_what_it_was_begun_with(compilers, tmp_path, capsys):
    compilers(False)
    run = here(capsys, recurrent(tmp_path, "keep_replay=True"))
    compilers(True)
    longer = here(capsys, ["--resume", run.path, "with", "t_max=32"])
    assert longer.code == 0 and said(longer) == ["plain (as before)"] and "not promised" not in longer.err
    longer = here(capsys, ["--resume", run.path, "with", "t_max=40", "kernels=fast"])
    assert longer.code == 0 and "kernels was plain, is fast" in longer.err and longer.summary["kernels"] == "fast"


@needs_compiler
def test_a_resumed_run_that_has_lost_its_compiler_is_warned_or_refused(compilers, tmp_path, capsys):
    run = here(capsys, recurrent(tmp_path, "keep_replay=True"))
    compilers(False)
    refused = here(capsys, ["--strict", "--resume", run.path, "with", "t_max=32"])
    assert refused.code == 2 and "kernels was fast, is plain" in refused.err
    longer = here(capsys, ["--resume", run.path, "with", "t_max=32"])
    assert longer.code == 0 and "kernels was fast, is plain" in longer.err
    assert "kernels was fast, is plain" in longer.summary["resumed"][0]["differs"]
