"""Run directories read back, whole and damaged, and the records of a metrics.jsonl that is being written."""

import json
import os

import pytest

from utils.runs import find_runs, records

CONFIG = "name: qmix\nenv: two_step\nenv_args: {}\nseed: 1\n"
SUMMARY = {"status": "finished", "t_env": 24}
RECORD = {"key": "loss", "value": 1.0, "t_env": 10, "episode": 5, "time": 100.0}


def make(folder, config=CONFIG, summary=SUMMARY):
    """A run directory."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "metrics.jsonl").write_text("")
    if summary is not None:
        (folder / "summary.json").write_text(summary if isinstance(summary, str) else json.dumps(summary))
    return folder


def test_runs_are_found_at_any_depth_each_once(tmp_path):
    deep, flat = make(tmp_path / "b" / "qmix" / "two_step" / "seed1"), make(tmp_path / "a")
    make(deep / "checkpoints" / "copy")  # what lies in a run is its own
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(CONFIG)  # no run beside it
    (tmp_path / "link").symlink_to(tmp_path / "b")
    runs = find_runs(tmp_path, tmp_path / "b", deep, tmp_path / "link", tmp_path / "nowhere")
    assert [run.path.resolve() for run in runs] == [flat, deep]
    assert [(run.status, run.config["name"], run.summary["t_env"]) for run in runs] == [("finished", "qmix", 24)] * 2


@pytest.mark.parametrize(
    "damage, problem",
    [
        (dict(config=CONFIG[: len(CONFIG) // 2]), "config.yaml is not that of a run"),
        (dict(config=""), "config.yaml is not that of a run"),
        (dict(config="- 1\n"), "config.yaml is not that of a run"),
        (dict(config="name: [qmix\n"), "is not valid YAML"),
        (dict(summary=None), "summary.json is missing"),
        (dict(summary=json.dumps(SUMMARY)[:9]), "summary.json cannot be read"),
        (dict(summary=""), "summary.json cannot be read"),
        (dict(summary=[1]), "summary.json is not that of a run"),
        (dict(summary={"t_env": 3}), "summary.json is not that of a run"),
    ],
)
def test_a_damaged_run_is_told_not_raised(damage, problem, tmp_path):
    make(tmp_path / "damaged", **damage)
    make(tmp_path / "whole")
    broken, whole = find_runs(tmp_path)
    assert broken.status == "broken" and problem in broken.problem and "\n" not in broken.problem
    assert whole.status == "finished" and whole.problem is None


def test_more_than_a_summary_can_have_is_not_read(tmp_path):
    os.truncate(make(tmp_path / "a") / "summary.json", 2**34)
    (run,) = find_runs(tmp_path)
    assert "summary.json cannot be read: it has 17179869184 bytes" in run.problem


def test_bytes_that_are_no_text(tmp_path):
    (make(tmp_path / "a") / "config.yaml").write_bytes(b"\xff\xfe\x00")
    (make(tmp_path / "b") / "summary.json").write_bytes(b"\xff\xfe\x00")
    assert ["cannot be read" in run.problem for run in find_runs(tmp_path)] == [True, True]


def test_records_leave_out_what_is_cut_or_damaged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(RECORD | {"t_env": t}) for t in range(5)]
    lines[2] = lines[2][7:]
    path.write_text("\n".join([*lines, "[1]", "3", '{"t_env": 4}', "", lines[4][:-5]]))
    assert [record["t_env"] for record in records(path)] == [0, 1, 3, 4]
    path.write_bytes(b"\xff\n" + lines[0].encode() + b"\n")
    assert records(path) == [RECORD | {"t_env": 0}]
    assert records(tmp_path / "nowhere") == []


def test_the_last_records_of_a_long_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(RECORD | {"t_env": t}) + "\n" for t in range(1000)]
    path.write_text("".join(lines))
    last = records(path, last_bytes=3 * len(lines[-1]) + 5)  # five bytes of a fourth line
    assert [record["t_env"] for record in last] == [997, 998, 999]
    assert len(records(path, last_bytes=10**9)) == 1000
