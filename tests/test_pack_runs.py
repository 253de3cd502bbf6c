"""A packed study gives the report that the study itself gives; an unfinished run that was packed goes on elsewhere."""

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile

import pack_runs
import pytest
from command import ROOT, words
from made_runs import ours
from test_resume import (
    EXACT,
    GAME,
    assert_same_checkpoints,
    assert_same_end,
    killed,
    resumed,
    stopped,
)
from test_resume import never_stopped as never_stopped  # fixtures
from test_resume import quiet as quiet

import report
from utils.claim import take

DOCS = ROOT / "docs" / "smax"


@pytest.fixture
def study(tmp_path):
    for seed in (1, 2):
        for name, gain in (("qmix", 1.0), ("qtran_alt", 2.0)):
            points = {step: gain * step + seed for step in (0, 10, 20, 30, 40)}
            ours(tmp_path / "study" / "task", points, name=name, seed=seed)
    ours(tmp_path / "study" / "task", name="vdn", status="failed")
    return tmp_path / "study"


def test_the_same_report_comes_out(study, tmp_path, capsys):
    file = tmp_path / "packed" / "runs.tar.xz"
    assert pack_runs.main([str(study), str(file)]) == 0
    assert "4 runs" in capsys.readouterr().out
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    for folder, out in ((study, "a"), (tmp_path / "unpacked" / "study", "b")):
        assert report.main([str(folder), "--out", str(tmp_path / out), "--reps", "100"]) == 0
    for name in ("final.csv", "learning_curves.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_tests_are_kept_and_the_same_runs_give_the_same_file(study, tmp_path):
    files = [tmp_path / name for name in ("one.tar.xz", "two.tar.xz")]
    for file in files:
        assert pack_runs.main([str(study), str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    with tarfile.open(files[0]) as tar:
        names = [m.name for m in tar if m.name.endswith("metrics.jsonl")]
        lines = [line for name in names for line in tar.extractfile(name)]
    assert len(names) == 4 and all(name.startswith("study/task/") for name in names)
    assert {json.loads(line)["key"] for line in lines} == {"test_return_mean"}


def test_bad_input_is_told(study, tmp_path, capsys):
    assert pack_runs.main([str(tmp_path / "nowhere"), str(tmp_path / "x.tar.xz")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert pack_runs.main([str(tmp_path / "empty"), str(tmp_path / "x.tar.xz")]) == 2
    assert "no finished run" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert pack_runs.main([str(study), str(tmp_path / "file" / "x.tar.xz")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert pack_runs.main([str(study), str(tmp_path / "x.tar.gz")]) == 2
    assert "x.tar.gz: does not end in .tar.xz" in capsys.readouterr().err
    assert not (tmp_path / "x.tar.gz").exists()


def test_an_archive_outlives_one_that_the_disk_refuses(study, tmp_path):
    file = tmp_path / "out" / "a.tar.xz"
    assert pack_runs.main([str(study), str(file)]) == 0
    before = file.read_bytes()
    command = [sys.executable, str(ROOT / "studies" / "pack_runs.py"), str(study), str(file)]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 2 and f"{file}: cannot be written: File too large" in done.stderr, done
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def figures(file):
    """[(algorithm, its numbers)] of a final.csv."""
    with open(file) as lines:
        rows = list(csv.DictReader(lines))
    names = ("n", "iqm", "lower", "upper", "min", "max")
    return [(row["algorithm"], [float(row[name] or "nan") for name in names]) for row in rows]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: (file.unlink(), os.mkfifo(file))])
def test_a_run_that_cannot_be_read_is_named(damage, tmp_path, capsys):
    path = ours(tmp_path / "results")
    damage(path / "metrics.jsonl")
    assert pack_runs.main([str(tmp_path / "results"), str(tmp_path / "a.tar.xz")]) == 2
    assert f"{path / 'metrics.jsonl'} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "study, table, options",
    [
        ("3m", "3m", []),
        ("5m_vs_6m", "5m_vs_6m", []),
        ("2s3z_others", "2s3z", []),
        ("tuning", "tuning", ["--final", "0.5"]),
    ],
)
def test_the_figures_in_docs_are_those_of_the_runs_beside_them(study, table, options, tmp_path):
    with tarfile.open(DOCS / f"{study}_runs.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    assert report.main([str(tmp_path), "--out", str(tmp_path / "report"), *options]) == 0
    found, expected = figures(tmp_path / "report" / "final.csv"), figures(DOCS / f"{table}_final.csv")
    if study == "2s3z_others":  # the runs of the others were not kept
        expected = [row for row in expected if row[0] in ("qatten", "vdn", "iql")]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(a == pytest.approx(b, nan_ok=True) for (_, a), (_, b) in zip(found, expected))


# ---- unfinished runs


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_unfinished_run_that_was_packed_ends_elsewhere_as_one_that_never_stopped(
    end, never_stopped, tmp_path, capsys
):
    argv, results = words(*GAME, tmp_path / "results", *EXACT), tmp_path / "results"
    path = stopped(capsys, argv, 12).path if end == "stopped" else killed(argv, results, 12)
    assert pack_runs.main(["--unfinished", str(results), str(tmp_path / "a.tar.xz")]) == 0
    with tarfile.open(tmp_path / "a.tar.xz") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "elsewhere", filter="data")
    assert sum("/state/manifest." in name for name in names) == 1 and not any("/claims/" in name for name in names)
    there = tmp_path / "elsewhere" / "results" / path.relative_to(results)
    shutil.rmtree(results)
    resumed(capsys, there)
    assert_same_end(there, never_stopped(capsys, *GAME))
    assert_same_checkpoints(there, never_stopped(capsys, *GAME))


def test_what_cannot_be_packed_as_unfinished_is_told(tmp_path, capsys):
    path = stopped(capsys, words(*GAME, tmp_path / "results", *EXACT), 12).path
    argv = ["--unfinished", str(tmp_path / "results"), str(tmp_path / "a.tar.xz")]
    claim = take(path)
    assert pack_runs.main(argv) == 2
    assert f"{path}: process {os.getpid()} " in capsys.readouterr().err
    claim.release()
    assert pack_runs.main([*argv, "--most", "0.001"]) == 2
    assert "more than 0.001 MB" in capsys.readouterr().err and not (tmp_path / "a.tar.xz").exists()
    for parts in (path / "state").glob("parts.*.pt"):
        parts.write_bytes(b"")
    assert pack_runs.main(argv) == 2
    assert "no state in it is whole" in capsys.readouterr().err
    shutil.rmtree(path / "state")
    assert pack_runs.main(argv) == 2
    assert "no unfinished run with a state below it" in capsys.readouterr().err
