"""docs/settings.md holds the values of the studies."""

import re

import pytest
from command import ROOT

from parts import readers
from sweeping.plan import read_plan

HEAD, _, *ROWS = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("|")]
STUDIES = [re.findall(r"`(\w+)`", cell) for cell in HEAD.strip("|").split("|")[1:]]


def cell(value):
    if value is None:
        return "–"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("at", range(len(STUDIES)), ids=[" ".join(names) for names in STUDIES])
def test_the_values_of_a_column(at):
    plans = [read_plan(ROOT / "studies" / f"{name}.yaml", readers) for name in STUDIES[at]]
    runs = [run.values for plan in plans for run in plan.runs if run.alg == "qtran_alt"]
    assert runs and len(ROWS) > 20
    for row in ROWS:
        label, *said = [word.strip() for word in row.strip("|").split("|")]
        key = label.split("`")[1]
        assert said[at] == " / ".join(dict.fromkeys(cell(values[key]) for values in runs)), key


def test_what_differs_between_algorithms():
    """The keys that the text names, and no others."""
    differ = set()
    for name in {name for names in STUDIES for name in names}:
        plan = read_plan(ROOT / "studies" / f"{name}.yaml", readers)
        seen = {}
        for run in plan.runs:
            for key in [row.split("`")[1] for row in ROWS]:
                if key in run.values:
                    seen.setdefault((run.environment, key), {}).setdefault(run.values[key], set()).add(run.alg)
        differ |= {key for (_, key), values in seen.items() if len(values) > 1}
    assert differ == {"mixing_embed_dim", "double_q"}
