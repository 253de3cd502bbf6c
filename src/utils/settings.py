"""Names of runs that differ in the values of some keys: `qtran_alt, lr=0.0005, opt_loss=0.03`.

`sweep.py` gives such names to the settings of a grid, and `report.py` reads them back: a name says which keys were
searched, and the run's own configuration what the values were.
"""

import yaml

from utils.identity import flat


def name_of(base: str, values: dict) -> str:
    """The name of the runs of `base` with these values. values: {dotted key: number, text, bool or None}"""
    return ", ".join([base, *(f"{key}={told(value)}" for key, value in values.items())])


def told(value) -> str:
    """A value as a name and as YAML has it: 0.0005, True, null."""
    return "null" if value is None else str(value)


def read_back(name: str, config: dict) -> tuple[str, dict]:
    """(base, {dotted key: value}) of a run's name; no values where it names none that its configuration has."""
    keys, parts, values = flat(config), name.split(", "), {}
    while len(parts) > 1:
        key, sep, text = parts[-1].partition("=")
        if not sep or key in values or key not in keys or not _same(text, keys[key]):
            break
        values[key] = keys[key]
        parts.pop()
    return ", ".join(parts), dict(reversed(values.items()))


def _same(text: str, value) -> bool:
    try:
        read = number(yaml.safe_load(text))
    except yaml.YAMLError:
        return False
    return text == told(value) or (isinstance(read, bool) == isinstance(value, bool) and read == value)


def number(value):
    """A text such as 5e-4, which YAML reads as text, as the number that it means; anything else as it is."""
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            pass
    return value
