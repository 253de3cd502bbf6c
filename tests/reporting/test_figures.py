"""Figures: the look of each algorithm, labels with units, nothing cut off or hidden."""

import itertools

import pytest
from made_runs import POINTS, ours
from matplotlib.text import Text

import report
from reporting import comparison, grouping, palette
from reporting.results import find_results

SIX = ("qtran_alt", "qtran_base", "qmix", "vdn", "iql", "qatten")


def look(style):
    return str(style["color"]), str(style["linestyle"])


# ---- colours and lines


def test_the_six_always_have_the_same_colours():
    alone = {name: palette.styles([name])[name]["color"] for name in SIX}
    assert len(set(alone.values())) == 6
    together = palette.styles([*SIX, "qmix, lr=0.1", "a", "b"])
    assert {name: together[name]["color"] for name in SIX} == alone
    assert all(together[name]["linestyle"] == "-" for name in SIX)


def test_no_two_algorithms_look_alike():
    names = [*SIX, *(f"{name}_ns" for name in SIX), *"abcdefgh", *(f"qmix, lr={k}" for k in range(3))]
    looks = [look(style) for style in palette.styles(names).values()]
    assert len(set(looks)) == len(looks)


def test_a_variant_has_the_colour_of_its_family():
    styles = palette.styles(["qmix", "qmix_ns", "qmix, lr=0.1", "qmix #2", "own", "own, lr=1"])
    assert len({styles[name]["color"] for name in styles if name.startswith("qmix")}) == 1
    assert styles["own"]["color"] == styles["own, lr=1"]["color"] != styles["qmix"]["color"]


def test_the_order_of_names_does_not_matter():
    assert len({str(palette.styles(names)) for names in itertools.permutations(["qmix", "b", "a", "a_ns"])}) == 1


# ---- figures


def drawn(folder):
    """{name: Figure, laid out} of the runs in a folder."""
    results, _ = find_results([folder], grouping.JUDGED_BY)
    groups = grouping.by_task(grouping.entries(results))
    style = palette.styles({a for algorithms in groups.values() for a in algorithms})
    figures = report.draw(comparison.compare(groups, reps=100), groups, style)
    for figure in figures.values():
        figure.draw_without_rendering()
    return figures


def study(folder, names, tasks, **changes):
    for k, name in enumerate(names):
        for task, metric in tasks:
            for seed in (1, 2):
                points = {10_000 * s: v * (k + 1) + seed for s, v in POINTS.items()}
                ours(folder, points, name=name, env=task, metric=metric, seed=seed, **changes)


RETURN, WON = "test_return_mean", "test_battle_won_mean"
LONG = [f"an_algorithm_with_a_long_name_{k}" for k in range(8)]
FOUR = [(f"task_{k}", RETURN) for k in range(4)]


@pytest.mark.parametrize(
    "names, tasks",
    [(SIX[:2], [("a", RETURN)]), (SIX, FOUR), (LONG, [("a", RETURN), ("b", WON)]), (SIX[:3], [("word " * 12, WON)])],
)
def test_no_text_is_cut_off(names, tasks, tmp_path):
    study(tmp_path, names, tasks)
    for name, figure in drawn(tmp_path).items():
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()  # of all that is painted, in inches
        if name == "learning_curves":  # the legend takes nothing from the panels
            assert all(ax.get_position().height * height > 1.2 for ax in figure.axes)
        assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02, name


def test_names_beside_a_panel_do_not_overlap(tmp_path):
    study(tmp_path, LONG, [("a", RETURN)])
    figure = drawn(tmp_path)["final"]
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == 8 and all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:]))


def test_axes_have_labels_with_units(tmp_path):
    study(tmp_path, SIX[:2], [("a", RETURN), ("b", WON)])
    said = {name: [t.get_text() for t in figure.findobj(Text)] for name, figure in drawn(tmp_path).items()}
    assert "environment steps (thousands)" in said["learning_curves"]
    for name in ("learning_curves", "final"):
        assert {"test return\n(IQM, 95 % interval)", "test win rate\n(IQM, 95 % interval)"} <= set(said[name])
    assert "environment steps (thousands)\nto test return ≥ 5.5" in said["efficiency"]
    assert "share of runs with score > τ" in said["profiles"] and "final test win rate τ" in said["profiles"]


def test_an_algorithm_looks_the_same_in_every_figure(tmp_path):
    study(tmp_path, [*SIX[:2], "own"], [("a", RETURN)])
    figures = drawn(tmp_path)
    legends = [
        {line.get_label(): line.get_color() for line in figures[name].legends[0].get_lines()}
        for name in ("learning_curves", "profiles")
    ]
    points = [line.get_color() for line in figures["final"].axes[0].lines if line.get_marker() not in ("|", "None")]
    assert legends[0] == legends[1] and list(legends[0].values()) == points


def test_one_seed_is_told_in_the_panel(tmp_path):
    study(tmp_path, ["qmix"], [("a", RETURN)])
    ours(tmp_path, name="vdn", env="a")
    for name in ("learning_curves", "profiles"):
        assert "one seed, no interval: vdn" in [t.get_text() for t in drawn(tmp_path)[name].findobj(Text)]
