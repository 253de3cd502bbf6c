"""Figures: the look of each algorithm, labels with units, nothing cut off or hidden."""

import itertools

import pytest
from made_runs import POINTS, ours
from matplotlib.text import Text

from reporting import comparison, grouping, labels, palette, pictures
from reporting.results import find_results

SIX = ("qtran_alt", "qtran_base", "qmix", "vdn", "iql", "qatten")


# ---- colours and lines


def test_the_six_always_have_the_same_colours():
    alone = {name: palette.styles([name])[name]["color"] for name in SIX}
    assert len(set(alone.values())) == 6
    together = palette.styles([*SIX, "qmix, lr=0.1", "a", "b"])
    assert {name: together[name]["color"] for name in SIX} == alone
    assert all(together[name]["linestyle"] == "-" for name in SIX)


@pytest.mark.parametrize("n", [3, 30, 200])
def test_no_two_labels_have_one_colour(n):
    names = [*SIX, *(f"{name}_ns" for name in SIX), *(f"qmix, lr={k}" for k in range(n))]
    colours = [style["color"] for style in palette.styles(names).values()]
    assert len(set(colours)) == len(colours) == 12 + n


def test_colours_are_dark_enough_for_lines_on_white():
    colours = [style["color"] for style in palette.styles([f"a{k}" for k in range(40)]).values()]
    light = [sum(w * int(c[k : k + 2], 16) for w, k in ((0.3, 1), (0.6, 3), (0.1, 5))) / 255 for c in colours]
    assert max(light) < 0.75


def test_the_order_of_names_gives_that_of_the_legend_and_no_other_look():
    for names in itertools.permutations(["qmix", "b", "a", "a_ns"]):
        styles = palette.styles(names)
        assert list(styles) == list(names)
        assert sorted(map(str, styles.items())) == sorted(map(str, palette.styles(sorted(names)).items()))


# ---- figures


def drawn(folder):
    """{name: Figure, laid out} of the runs in a folder."""
    results, _ = find_results([folder], grouping.JUDGED_BY)
    groups = grouping.by_task(grouping.entries(results))
    names = labels.Names([e for algorithms in groups.values() for group in algorithms.values() for e in group])
    style = palette.styles(names.in_order([]))
    figures = dict(pictures.draw(comparison.compare(groups, reps=100), style, names))
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
        assert "one seed, no interval: VDN" in [t.get_text() for t in drawn(tmp_path)[name].findobj(Text)]
