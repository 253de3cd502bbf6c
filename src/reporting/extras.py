"""What a report has beyond the comparison of algorithms, where its runs have it: searched settings, the absolute
metric."""

from dataclasses import dataclass, field

from matplotlib.figure import Figure

from reporting import absolute, figures, grid, grid_figures
from reporting.comparison import Comparison
from reporting.files import to_csv
from reporting.grouping import Groups
from reporting.html import picture
from reporting.labels import Names
from reporting.palette import Styles


@dataclass
class Extras:
    """files: {name: bytes}. sections: [(id, heading, HTML)]. said: [(sentence, line of YAML)] for the console."""

    files: dict[str, bytes] = field(default_factory=dict)
    sections: list[tuple[str, str, str]] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)


def extras(
    found: list[grid.Search],
    comparison: Comparison,
    groups: Groups,
    style: Styles,
    reps: int,
    names: Names,
) -> Extras:
    """groups: {task: {algorithm: [Entry]}}. names: `reporting.labels.Names`."""
    out = Extras()
    if found:
        pngs = {name: _save(out, name, figure) for name, figure in grid_figures.figures(found).items()}
        out.files["grid.csv"] = to_csv(grid.csv_rows(found))
        out.sections.append(("grid", "Settings that were searched", grid.section(found, pngs)))
        out.said += grid.choices(found)
    if rows := absolute.rows(groups, reps):
        png = _save(out, "absolute", figures.final(rows, absolute.single_runs(groups), style, names))
        out.files["absolute.csv"] = to_csv(rows)
        shown = picture("absolute", png, absolute.CAPTION)
        out.sections.append(("absolute", "Absolute metric", absolute.section(rows, comparison.final, shown, names)))
    return out


def _save(out: Extras, name: str, figure: Figure) -> bytes:
    png, out.files[f"{name}.pdf"] = figures.save(figure)
    out.files[f"{name}.png"] = png
    return png
