"""All figures of the comparison of algorithms as files, drawn one after the other."""

import gc
from collections.abc import Iterator

from matplotlib.figure import Figure

from reporting import figures, page
from reporting.comparison import Comparison
from reporting.labels import Names
from reporting.palette import Styles


def paint(comparison: Comparison, style: Styles, names: Names) -> dict[str, tuple[bytes, bytes]]:
    """{name of its files: (PNG, PDF)}, one figure at a time for the memory that they take. A figure is many small
    objects that stay: looking for garbage among them would take a sixth of the time."""
    out, was = {}, gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        for name, figure in draw(comparison, style, names):
            out[name] = figures.save(figure)
            del figure
            gc.collect()
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
    return out


def draw(comparison: Comparison, style: Styles, names: Names) -> Iterator[tuple[str, Figure]]:
    """Yields (name of its files, Figure)."""
    runs = {(t.name, a): list(values) for t in comparison.tasks for a, values in t.final.items()}
    ends = {t.name: t.steps[t.compared - 1] for t in comparison.tasks}
    over_all = page.over_all(comparison)
    single, smooth = comparison.single, comparison.smooth
    yield "final", figures.final(comparison.final, runs, style, names, over_all)
    yield "learning_curves", figures.learning_curves(comparison.learning_curves, style, names, single, smooth)
    if any(r["threshold"] == r["threshold"] for r in comparison.efficiency):
        yield "efficiency", figures.efficiency(comparison.efficiency, style, names, ends)
    yield "profiles", figures.profiles(comparison.profiles, style, names, over_all)
    if comparison.improvement:
        yield "improvement", figures.improvement(comparison.improvement, style, names)
