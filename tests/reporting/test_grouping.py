"""Which runs count, and what they are called."""

import json

import pytest
from made_runs import ours, sacred

from reporting import grouping
from reporting.results import find_results


def entries(folder, metric=None):
    results, _ = find_results([folder], [metric] if metric else grouping.JUDGED_BY)
    return grouping.entries(results, metric)


def counted(folder, metric=None):
    """{task: {algorithm: seeds}} of the runs that count."""
    tasks = grouping.by_task(entries(folder, metric))
    return {t: {a: [e.seed for e in group] for a, group in algs.items()} for t, algs in tasks.items()}


def reasons(folder, metric=None):
    return [e.left_out for e in entries(folder, metric) if e.left_out]


def test_seeds_and_what_does_not_matter_are_no_variants(tmp_path):
    ours(tmp_path, seed=2, use_cuda=True, label="again", wandb_mode="online", local_results_path="x")
    ours(tmp_path, seed=1)
    sacred(tmp_path, seed=3, env_args={"seed": 3})
    assert counted(tmp_path) == {"two_step": {"qmix": [1, 2, 3]}}


def test_variants_are_never_averaged(tmp_path):
    ours(tmp_path, seed=1)
    ours(tmp_path, seed=2, lr=0.001)
    ours(tmp_path, name="vdn", lr=0.01)
    assert counted(tmp_path) == {"two_step": {"qmix, lr=0.0005": [1], "qmix, lr=0.001": [2], "vdn": [1]}}


def test_a_key_that_only_one_run_has_makes_a_variant(tmp_path):
    ours(tmp_path)
    ours(tmp_path, extra=[1, 2])
    assert counted(tmp_path) == {"two_step": {"qmix, extra=[1, 2]": [1], "qmix, extra=not set": [1]}}


def test_versions_of_a_game_are_tasks_of_their_own(tmp_path):
    for seed, version in ((1, "4.6.2.69232"), (2, "4.10.0.75689"), (3, "4.10.0.75689")):
        path = ours(tmp_path, seed=seed, env="sc2", env_args={"map_name": "3m", "game_version": None})
        summary = json.loads((path / "summary.json").read_text())
        (path / "summary.json").write_text(json.dumps(summary | {"versions": {"starcraft": version}}))
    assert counted(tmp_path) == {
        "3m game_version=4.10.0.75689": {"qmix": [2, 3]}, "3m game_version=4.6.2.69232": {"qmix": [1]}
    }  # fmt: skip
    sacred(tmp_path / "theirs", env="sc2", env_args={"map_name": "3m", "game_version": None})  # which, it does not say
    assert counted(tmp_path / "theirs") == {"3m": {"qmix": [1]}}


def test_a_variant_has_one_name_on_all_tasks(tmp_path):
    ours(tmp_path, lr=0.1)
    ours(tmp_path, lr=0.2)
    ours(tmp_path, lr=0.1, env="other", t_max=7)  # another task may have another t_max
    assert set(counted(tmp_path)["other"]) == {"qmix, lr=0.1"}


def test_variants_that_differ_in_many_keys_or_in_long_values_are_numbered(tmp_path):
    many = dict(lr=1, gamma=2, hidden_dim=3, td_lambda=4)
    ours(tmp_path)
    ours(tmp_path, **many)
    ours(tmp_path, name="vdn", schedule=[1] * 50)
    ours(tmp_path, name="vdn", schedule=[1] * 51)
    assert set(counted(tmp_path)["two_step"]) == {"qmix #1", "qmix #2", "vdn #1", "vdn #2"}


def test_tasks_are_told_apart_by_env_args_and_sorted_as_numbers(tmp_path):
    for penalty in (10.0, 2.5, -2):
        ours(tmp_path, env_args={"penalty": penalty, "size": 5})
    ours(tmp_path, env="a_game", env_args={"map_name": "2s3z", "seed": 1})
    assert list(counted(tmp_path)) == ["2s3z", *(f"two_step penalty={p}" for p in (-2, 2.5, 10.0))]


def test_env_args_that_one_framework_lacks_are_no_task_but_unfair(tmp_path):
    ours(tmp_path, env_args={"key": "game", "sight": 2})
    sacred(tmp_path, name="vdn", env_args={"key": "game"})
    tasks = grouping.by_task(entries(tmp_path))
    assert list(tasks) == ["game"]
    assert grouping.unfair(tasks["game"]) == ["env_args.sight differs: 2 (QMIX); not set (VDN)"]


@pytest.mark.parametrize("key, value", [("t_max", 50), ("test_nepisode", 3), ("evaluation_epsilon", 0.1)])
def test_what_makes_a_comparison_unfair(key, value, tmp_path):
    ours(tmp_path)
    ours(tmp_path, name="vdn", lr=0.9)
    assert grouping.unfair(grouping.by_task(entries(tmp_path))["two_step"]) == []
    ours(tmp_path, name="iql", **{key: value})
    (said,) = grouping.unfair(grouping.by_task(entries(tmp_path))["two_step"])
    assert said.startswith(f"{key} differs:") and f"{value} (IQL)" in said and "(QMIX and VDN)" in said


def test_unequal_numbers_of_seeds_are_told(tmp_path):
    for seed in (1, 2):
        ours(tmp_path, seed=seed)
    ours(tmp_path, name="vdn")
    assert grouping.unfair(grouping.by_task(entries(tmp_path))["two_step"]) == [
        "the number of seeds differs: 2 (QMIX); 1 (VDN)"
    ]


def test_the_keys_that_differ(tmp_path):
    ours(tmp_path, seed=1, mixer="qmix")
    ours(tmp_path, seed=2, name="vdn", mixer="vdn", label="x")
    groups = list(grouping.by_task(entries(tmp_path))["two_step"].values())
    assert grouping.differing(groups) == {"mixer": ["qmix", "vdn"]}


# ---- runs that do not count


def test_the_newest_finished_run_of_a_seed_counts(tmp_path):
    ours(tmp_path / "z", stamp="20260101T000000Z", points={0: 1.0})
    newest = ours(tmp_path / "a", stamp="20260301T000000Z", points={0: 2.0})
    ours(tmp_path, stamp="20260401T000000Z", status="failed")
    sacred(tmp_path, local_results_path="elsewhere")  # it started at the beginning of the year
    (e,) = grouping.counting(entries(tmp_path))
    assert e.result.path == newest
    assert sorted(reasons(tmp_path)) == ["failed: the reason", *[f"superseded by {newest}"] * 2]


def test_a_newer_run_that_says_nothing_takes_no_place(tmp_path):
    good = ours(tmp_path)
    for points in ({}, {0: None}, {0: "text"}):
        ours(tmp_path, points, stamp="20270101T000000Z")
    (e,) = grouping.counting(entries(tmp_path))
    assert e.result.path == good


def test_seeds_of_any_kind(tmp_path):
    seeds = [3, -1, 10**30, 2**63, "one", 1.5, None, True, 2]
    for seed in seeds:
        ours(tmp_path, seed=seed, stamp=f"20260101T0000{len(str(seed)):02}Z")
    found = grouping.counting(entries(tmp_path))
    assert sorted(map(str, (e.seed for e in found))) == sorted(map(str, seeds))
    *words, numbers = grouping.seeds(found).split(", -1, ")
    assert sorted(words[0].split(", ")) == ["1.5", "None", "True", "one"]
    assert numbers == "2-3, 9223372036854775808, 1000000000000000000000000000000"


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(status="running"), "running, or killed"),
        (dict(status="failed"), "failed: the reason"),
        (dict(status="interrupted"), "interrupted"),
        (dict(evaluate=True), "evaluate=True: no training"),
        (dict(checkpoint_path="a/b"), "goes on from a checkpoint (a/b): its curve has no beginning"),
        (dict(metric="other"), "has no metric test_return_mean"),
        (dict(points={0: None, 10: None}), "no value of test_return_mean is finite"),
        (dict(points={0: 1.0, 50: 1.0, 100: None}), "its last values of test_return_mean are not finite"),
    ],
)
def test_a_run_that_does_not_count(changes, reason, tmp_path):
    ours(tmp_path, seed=7)
    ours(tmp_path, **changes)
    assert counted(tmp_path) == {"two_step": {"qmix": [7]}} and reasons(tmp_path) == [reason]


def test_a_run_that_does_not_count_renames_nobody(tmp_path):
    ours(tmp_path, seed=7)
    ours(tmp_path, lr=0.1, status="failed")
    ours(tmp_path, env_args={"x": 1}, status="running")
    ours(tmp_path, lr=0.2, metric="other")
    ours(tmp_path, lr=0.3, points={0: 1.0, 50: 1.0, 100: None})
    ours(tmp_path, env_args={"x": 2}, points={0: None})
    assert counted(tmp_path) == {"two_step": {"qmix": [7]}}


# ---- the metric


def test_the_win_rate_is_the_metric_where_all_runs_of_a_task_have_it(tmp_path):
    ours(tmp_path, env="battle", metric="test_battle_won_mean")
    ours(tmp_path)
    assert {e.task: e.metric for e in entries(tmp_path)} == {
        "battle": "test_battle_won_mean", "two_step": "test_return_mean",
    }  # fmt: skip


def test_the_metric_that_most_runs_have(tmp_path):
    ours(tmp_path, seed=1)
    ours(tmp_path, seed=2)
    ours(tmp_path, seed=3, metric="test_battle_won_mean")
    assert counted(tmp_path) == {"two_step": {"qmix": [1, 2]}}
    assert reasons(tmp_path) == ["has no metric test_return_mean"]


def test_seeds_in_words(tmp_path):
    for seed in (1, 2, 3, 7, 9, 10):
        ours(tmp_path, seed=seed)
    assert grouping.seeds(grouping.counting(entries(tmp_path))) == "1-3, 7, 9-10"
