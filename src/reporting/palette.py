"""How figures look: one colour, line and marker for each algorithm, fit for print and for the colour-blind."""

# Okabe and Ito's colours, without the yellow, which is too pale for lines.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
FIXED = {"qtran_alt": VERMILION, "qtran_base": BLUE, "qmix": GREEN, "vdn": ORANGE, "iql": BLACK, "qatten": PURPLE}
OTHERS = (SKY, BLACK, PURPLE, ORANGE, GREEN, BLUE, VERMILION)  # for names that are not FIXED, in turn
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))  # of labels that share a colour
MARKERS = "osD^vP*Xph"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold",
    "axes.labelsize": 8, "legend.fontsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "lines.linewidth": 1.4,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
    "axes.axisbelow": True, "pdf.fonttype": 42, "figure.dpi": 200, "axes.formatter.useoffset": False,
    "text.parse_math": False,  # names may hold a $
}  # fmt: skip


def styles(labels):
    """{label: its colour, line and marker}, no two alike: the same for all figures.

    `qmix, lr=0.001` and `qmix_ns` have the colour of `qmix` with another line.
    """
    families = sorted({_family(label) for label in labels} - FIXED.keys())
    colours = FIXED | {family: OTHERS[k % len(OTHERS)] for k, family in enumerate(families)}
    out, used = {}, {}
    for k, label in enumerate(sorted(labels, key=lambda label: (label not in FIXED, label))):
        colour = colours[_family(label)]
        line = used[colour] = used.get(colour, -1) + 1
        out[label] = {"color": colour, "linestyle": LINES[line % len(LINES)], "marker": MARKERS[k % len(MARKERS)]}
    return dict(sorted(out.items()))


def _family(label):
    return label.split(",")[0].split(" #")[0].removesuffix("_ns")
