"""Reading runs back: ours and Sacred's, whole and damaged."""

import json
import os

import numpy as np
import pytest
from made_runs import POINTS, ours, sacred

from reporting.results import find_results, metric_names
from utils.runs import find_runs

METRIC = "test_return_mean"


def one(folder, metric=METRIC):
    """The only run found."""
    (result,), _ = find_results([folder], [metric])
    return result


def append(path, text):
    with open(path / "metrics.jsonl", "a") as f:
        f.write(text)


def line(step, value, key=METRIC):
    return json.dumps({"key": key, "value": value, "t_env": step}) + "\n"


# ---- our run directories


def test_a_run_directory(tmp_path):
    path = ours(tmp_path)
    result = one(tmp_path)
    assert (result.path, result.status, result.problem, result.t_env) == (path, "finished", None, 40)
    assert (result.started, result.wall_time_s, result.commit) == ("20260101T000000_0000", 60, "abc")
    steps, values = result.series[METRIC]
    assert dict(zip(steps, values)) == POINTS and result.damaged_lines == 0


def test_a_metric_is_not_mistaken_for_one_whose_name_it_begins(tmp_path):
    path = ours(tmp_path)
    append(path, line(50, 9.0, key="test_return_mean_of_agent_0"))
    append(path, '{"key": "other", "value": 1, "t_env": 60, "like": "test_return_mean"}\n')
    assert one(tmp_path).series[METRIC][0].tolist() == list(POINTS)


def test_the_last_value_of_a_step_counts_and_steps_ascend(tmp_path):
    append(ours(tmp_path), line(5, 7.0) + line(40, 8.0))
    steps, values = one(tmp_path).series[METRIC]
    assert steps.tolist() == [0, 5, 10, 20, 30, 40] and values[-1] == 8


def test_values_that_are_not_finite_are_missing_and_counted(tmp_path):
    append(ours(tmp_path), line(40, None) + line(50, float("nan")) + line(55, float("inf")) + line(60, "text"))
    result = one(tmp_path)
    assert result.series[METRIC][0].tolist() == [0, 10, 20, 30]
    assert len(result.nonfinite[METRIC]) == 4 and result.last_step(METRIC) == 60


@pytest.mark.parametrize("cut", [1, 10, 30, len(line(50, 1.0)) - 1])
def test_a_last_line_that_is_cut_is_no_damage(cut, tmp_path):
    append(ours(tmp_path), line(50, 1.0)[:cut])
    result = one(tmp_path)
    assert result.damaged_lines == 0 and result.t_env == (50 if cut == len(line(50, 1.0)) - 1 else 40)


def test_damaged_lines_inside_are_counted(tmp_path):
    append(ours(tmp_path), '{"key": "test_return_mean", "val\n\x00\x00\n{"key": "loss"\n[1]\n' + line(50, 5.0))
    result = one(tmp_path)
    assert result.damaged_lines == 4 and result.t_env == 50


@pytest.mark.parametrize("gone", ["config.yaml", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "list", "binary"])
def test_a_half_written_run_directory(gone, damage, tmp_path):
    path = ours(tmp_path) / gone
    data = {"empty": b"", "cut": path.read_bytes()[:25], "list": b"[1]", "binary": b"\xff\x00\x81"}.get(damage)
    path.unlink() if data is None else path.write_bytes(data)
    result = one(tmp_path)
    if gone == "metrics.jsonl":
        assert result.status == "finished" and METRIC not in result.series
    else:
        assert result.status == "broken" and gone in result.problem


def test_a_folder_with_nothing_but_a_configuration_is_a_half_written_run(tmp_path):
    path = ours(tmp_path)
    for name in ("summary.json", "metrics.jsonl"):
        (path / name).unlink()
    assert one(tmp_path).problem == "holds only config.yaml"


@pytest.mark.parametrize(
    "summary", [{"status": None}, {"status": "finished", "t_env": "x", "versions": 3, "wall_time_s": []}]
)
def test_a_strange_summary(summary, tmp_path):
    (ours(tmp_path) / "summary.json").write_text(json.dumps(summary))
    result = one(tmp_path)
    assert result.t_env == 40 and result.versions == {} and result.wall_time_s is None


def test_what_is_no_run_is_not_found(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "runs.csv").write_text("")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("a: 1")
    assert find_results([tmp_path], [METRIC]) == ([], 0)


def test_a_run_is_found_once(tmp_path):
    path = ours(tmp_path)
    sacred(tmp_path, seed=2)
    results, _ = find_results([tmp_path, path, tmp_path / "qmix", tmp_path / "sacred"], [METRIC])
    assert len(results) == 2


HUGE = 10**309  # no float holds it


def test_values_that_are_no_numbers_are_missing_and_counted(tmp_path):
    append(ours(tmp_path), "".join(line(50 + k, v) for k, v in enumerate((HUGE, -HUGE, 1e200, True, [1], {}, "1"))))
    result = one(tmp_path)
    assert dict(zip(*result.series[METRIC])) == POINTS and len(result.nonfinite[METRIC]) == 7


def test_steps_that_are_none_are_damage(tmp_path):
    append(ours(tmp_path), "".join(line(step, 9.0) for step in (-10, HUGE, 10**30, 2**63, 1.5, True, "7", None)))
    append(ours(tmp_path, seed=2), line(2**63 - 1, 9.0))
    (damaged, _), _ = find_results([tmp_path], [METRIC])
    assert dict(zip(*damaged.series[METRIC])) == POINTS and damaged.t_env == 40
    assert damaged.damaged_lines == 7  # the last line is as one that is cut


def test_lines_that_are_nested_too_deep_are_damage(tmp_path):
    append(ours(tmp_path), '{"key": "test_return_mean", "value": ' + "[" * 10**5 + "}\n" + line(50, 5.0))
    assert one(tmp_path).damaged_lines == 1 and one(tmp_path).t_env == 50


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "metrics.jsonl"])
def test_what_is_no_file_is_not_read(name, make, tmp_path):
    path = ours(tmp_path) / name
    path.unlink()
    make(path)
    assert one(tmp_path).status == "broken" and f"{name} cannot be read: " in one(tmp_path).problem
    metric_names(find_results([tmp_path], [METRIC])[0])


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["config.json", "run.json", "metrics.json"])
def test_what_is_no_file_of_sacred_is_not_read(name, make, tmp_path):
    path = sacred(tmp_path) / name
    path.unlink()
    make(path)
    assert one(tmp_path).problem == f"{name} cannot be read: it is not a file"
    metric_names(find_results([tmp_path], [METRIC])[0])


def test_a_run_that_nobody_foresaw_is_broken_and_ends_nothing(tmp_path, monkeypatch):
    ours(tmp_path)
    sacred(tmp_path, seed=2)

    def fails(*_):
        raise ZeroDivisionError("by nought")

    for name in ("_stamp", "_read_provenance"):
        monkeypatch.setattr(f"reporting.results.{name}", fails)
    results, _ = find_results([tmp_path], [METRIC])
    assert {(r.status, r.problem) for r in results} == {("broken", "cannot be read: ZeroDivisionError: by nought")}


# ---- symbolic links


def test_runs_behind_links_are_found(tmp_path):
    path, theirs = ours(tmp_path / "scratch"), sacred(tmp_path / "scratch", seed=2)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "qmix").symlink_to(tmp_path / "scratch" / "qmix")
    (tmp_path / "results" / "their").symlink_to("../scratch/sacred")
    below = [tmp_path / "results" / "qmix" / "two_step" / path.name, tmp_path / "results" / "their/qmix/two_step/1"]
    assert [run.path for run in find_runs(tmp_path / "results")] == below[:1]
    assert [r.path for r in find_results([tmp_path / "results"], [METRIC])[0]] == below
    results, _ = find_results([tmp_path / "results", tmp_path], [METRIC])
    assert [r.path for r in results] == [path, theirs]  # once, by the path that needs no link


def test_links_in_a_circle_end(tmp_path):
    path = ours(tmp_path)
    for k, target in enumerate((tmp_path, path.parent, tmp_path / "link1", "/nowhere", "link5")):
        (tmp_path / f"link{k}").symlink_to(target)
    (path.parent / "up").symlink_to("..")
    (tmp_path / "link5").symlink_to("link4")
    assert [run.path for run in find_runs(tmp_path, tmp_path / "link0", tmp_path / "link4")] == [path]
    names = [r.path.name for r in find_results([tmp_path], [METRIC])[0]]
    assert names == ["link3", "link4", "link5", path.name]


def test_a_link_that_leads_nowhere_and_a_locked_folder_are_told(tmp_path, monkeypatch):
    ours(tmp_path)
    (tmp_path / "qtran").symlink_to("/nowhere")
    (tmp_path / "long").symlink_to("x" * 300)  # no file can be called so
    (tmp_path / ".#lock").symlink_to("me@here:7")  # an editor's
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refuses(folder):
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuses)  # root may read everything
    lost = {r.path.name: r.problem for r in find_results([tmp_path], [METRIC])[0] if r.problem}
    assert lost == {
        "locked": "cannot be looked into: Permission denied",
        "qtran": "is a symbolic link that leads nowhere",
        "long": "is a symbolic link that leads nowhere",
    }


# ---- Sacred's


def test_a_sacred_folder_of_epymarl(tmp_path):
    path = sacred(tmp_path)
    result = one(tmp_path)
    assert (result.path, result.source, result.status, result.t_env) == (path, "Sacred", "finished", 40)
    assert result.versions == {"python": "3.9.1", "torch": "1.9", "numpy": "1.21"} and result.wall_time_s == 3600
    steps, values = result.series[METRIC]
    assert dict(zip(steps, values)) == POINTS


@pytest.mark.parametrize(
    "status, ours_", [("RUNNING", "running"), ("FAILED", "failed"), ("INTERRUPTED", "interrupted")]
)
def test_a_sacred_run_that_did_not_complete(status, ours_, tmp_path):
    sacred(tmp_path, status=status)
    result = one(tmp_path)
    assert result.status == ours_ and result.problem == ("ValueError: no" if status == "FAILED" else None)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_half_written_sacred_folder(name, damage, tmp_path):
    path = sacred(tmp_path) / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-9])
    result = one(tmp_path)
    assert result.status == "broken" and result.problem == f"{name} is {damage}"


@pytest.mark.parametrize(
    "series", [3, {}, {"steps": [1]}, {"steps": [], "values": []}, {"steps": [None, "a"], "values": [1, 2]}]
)
def test_strange_metrics_of_sacred(series, tmp_path):
    (sacred(tmp_path) / "metrics.json").write_text(json.dumps({METRIC: series}))
    assert METRIC not in one(tmp_path).series


def test_infinities_of_sacred_are_missing(tmp_path):
    sacred(tmp_path, points={0: 1.0, 10: float("nan"), 20: {"py/object": "numpy.float64"}})
    result = one(tmp_path)
    assert result.series[METRIC][1].tolist() == [1] and len(result.nonfinite[METRIC]) == 2


def test_the_sacred_copy_of_a_run_directory_is_skipped(tmp_path):
    ours(tmp_path)
    sacred(tmp_path)
    sacred(tmp_path, number=2, seed=2)
    results, copies = find_results([tmp_path], [METRIC])
    assert copies == 1 and [r.source for r in results] == ["run directory", "Sacred"]
    assert results[1].config["seed"] == 2


# ---- names


def test_the_names_of_all_metrics(tmp_path):
    ours(tmp_path, metric="b")
    append(ours(tmp_path, metric="c", seed=2), "damaged\n" + line(1, 1.0, "d"))
    sacred(tmp_path, metric="a", seed=3)
    assert metric_names(find_results([tmp_path], ["x"])[0]) == ["a", "b", "c", "d", "loss"]


def test_series_are_arrays(tmp_path):
    ours(tmp_path)
    assert all(isinstance(part, np.ndarray) and part.dtype == float for part in one(tmp_path).series[METRIC])
