"""What a report has beyond the comparison of algorithms, where its runs have it: searched settings, the absolute
metric."""

from dataclasses import dataclass, field

from reporting import absolute, figures, grid
from reporting.html import picture


@dataclass
class Extras:
    """files: {name: bytes}. sections: [(id, heading, HTML)]. said: [(sentence, line of YAML)] for the console."""

    files: dict = field(default_factory=dict)
    sections: list = field(default_factory=list)
    said: list = field(default_factory=list)


def extras(found: list[grid.Search], comparison, groups, style, reps: int, to_csv, names) -> Extras:
    """groups: {task: {algorithm: [Entry]}}. to_csv(rows): a CSV file as bytes. names: `reporting.labels.Names`."""
    out = Extras()
    if found:
        pngs = {name: _save(out, name, figure) for name, figure in grid.figures(found).items()}
        out.files["grid.csv"] = to_csv(grid.csv_rows(found))
        out.sections.append(("grid", "Settings that were searched", grid.section(found, pngs)))
        out.said += grid.choices(found)
    if rows := absolute.rows(groups, reps):
        png = _save(out, "absolute", figures.final(rows, absolute.single_runs(groups), style, names))
        out.files["absolute.csv"] = to_csv(rows)
        shown = picture("absolute", png, absolute.CAPTION)
        out.sections.append(("absolute", "Absolute metric", absolute.section(rows, comparison.final, shown, names)))
    return out


def _save(out: Extras, name: str, figure) -> bytes:
    png, out.files[f"{name}.pdf"] = figures.save(figure)
    out.files[f"{name}.png"] = png
    return png
