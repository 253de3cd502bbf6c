"""How figures look: a colour, line and marker of its own for each algorithm, fit for print and for the colour-blind."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

# Okabe and Ito's colours, without the yellow, which is too pale for lines.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
FIXED = {
    "qtran_alt": VERMILION, "qtran_base": BLUE, "qmix": GREEN, "vdn": ORANGE, "iql": BLACK, "qatten": PURPLE,
    "qplex": SKY, "ow_qmix": "#8B4513", "cw_qmix": "#808080", "resq": "#6A3D9A",
}  # fmt: skip
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))  # of labels that are not FIXED, in turn
MARKERS = "osD^vP*Xph"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.labelsize": 8, "legend.fontsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "lines.linewidth": 1.4,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
    "axes.axisbelow": True, "pdf.fonttype": 42, "figure.dpi": 200, "axes.formatter.useoffset": False,
    "text.parse_math": False,  # names may hold a $
}  # fmt: skip

Styles = dict[str, dict[str, Any]]  # {label: its colour, line and marker}


def styles(labels: Collection[str]) -> Styles:
    """{label: its colour, line and marker}, in the order of the labels, no two of one colour: the same for all figures.

    The algorithms of this program have the same colour in every report, others one as far from all that are taken as
    can be.
    """
    names = sorted(labels)
    labels = names if isinstance(labels, (set, frozenset)) else labels
    colours = {name: FIXED[name] for name in names if name in FIXED}
    others = [name for name in names if name not in FIXED]
    colours |= dict(zip(others, _further(list(colours.values()), len(others))))
    out = {}
    for k, name in enumerate(sorted(names, key=lambda name: (name not in FIXED, name))):
        line = LINES[0] if name in FIXED else LINES[others.index(name) % len(LINES)]
        out[name] = {"color": colours[name], "linestyle": line, "marker": MARKERS[k % len(MARKERS)]}
    return {name: out[name] for name in labels}


def _further(taken: list[str], n: int) -> list[str]:
    """n colours, the named ones above first, then each the one that is furthest from those taken."""
    out = [c for c in FIXED.values() if c not in taken][:n]
    steps = 16
    while steps**3 // 4 < n + len(taken) and steps < 256:
        steps += 16
    pool = np.array(list(itertools.product(np.linspace(0, 1, steps), repeat=3)))  # [P, 3]
    pool = pool[pool @ (0.3, 0.6, 0.1) < 0.58]  # dark enough for lines on white
    if len(out) == n:
        return out
    seen = np.array([[1.0, 1.0, 1.0]] + [_rgb(c) for c in taken + out])
    places = _perceived(pool)
    distance = np.min([np.linalg.norm(places - p, axis=1) for p in _perceived(seen)], axis=0)
    while len(out) < n:
        k = int(distance.argmax())
        out.append("#" + "".join(f"{round(255 * x):02X}" for x in pool[k]))
        distance = np.minimum(distance, np.linalg.norm(places - places[k], axis=1))
    return out


def _rgb(colour: str) -> list[float]:
    return [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]


def _perceived(rgb: np.ndarray) -> np.ndarray:
    """[P, 3] sRGB of 0..1 in Oklab (Ottosson 2020), where distances are about as far as they look."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return np.cbrt(linear @ cones.T) @ lab.T
