"""Values that nobody means: for keys of a configuration, as Python writes them, as YAML writes them, as JSON does."""

import math
import sys
from typing import Any

from hypothesis import strategies as st

TEXTS = [
    "", " ", "  x ", "null", "None", "True", "true", "nan", "inf", "1e5", "1_000", "0x10", "1,2", "a" * 101, "b" * 300,
    "c" * 5000, "\0", "a\0b", "\ud800", "é", "日本", "😀", "\u202e", "\x1b[31m", "\n", "a\nb", "\r", "\x7f", ".", "..",
    "~", "~nobody-here/x", "../x", "x/../y", "%s", "%(x)s", "{x}", "[bold]", "[/bold]", "$x^{", "$\\bad{$", "\\", "'",
    '"', "=", "with", "--help", "-x", "qmix ", "QMIX", "qmix", "vdn", "rnn_ns", "none", "all", "&", "*", "a.b", "$x",
    "None None", "lambda: 0", "__import__('os')", "1" * 5000, "!!python/name:os.system", "://", "a://b:c@d",
]  # fmt: skip
INTS = [
    0, 1, -1, 2, 3, 5, 7, 8, 16, 31, 32, 33, 255, 256, 1000, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1,
    2**63, -(2**63), 2**64, 10**30, 10**308, 10**309, -(10**400),
]  # fmt: skip
FLOATS = [
    0.0, -0.0, 0.5, 1.0, 1.5, 2.0, 8.0, -1.0, 1e-3, 1e-12, 1e-30, 1e-46, 5e-324, 1e5, 1e16, 1e38, 3.5e38, 1e300,
    sys.float_info.max, -sys.float_info.max, math.inf, -math.inf, math.nan,
]  # fmt: skip
NESTS = [
    [], {}, (), [[]], [1], [1, 2], [[1, 2], [3, 4]], [[1, 2], [3]], [[1, None], ["x", 4]], [None], [{}], {"a": 1},
    {"a": {"b": [1]}}, {"a.b": 1}, {"$x": 1}, {"": 1}, {1: 2}, {None: 1}, {True: 1}, {(1, 2): 3}, {"é": 1},
    [[[1] * 3] * 3] * 3, [[0, 0], [0, 0]], [[1e308, -1e308], [0, 0]], [[1e39, 0], [0, 1]], [[1, 2, 3]], [[1], [2]],
    [["\ud800"]], [True, False], [[math.inf, 0], [0, 0]], [[1e-320, 0], [0, 0]], [[10**400, 0], [0, 0]],
    [[2**63, 0], [0, 0]],
]  # fmt: skip
ODD = [
    10**400,
    2**20000,
    -(2**20000),
    (2**20000,),
    {"a": 2**20000},
    b"bytes",
    b"\xff",
    1j,
    {1, 2},
    frozenset(),
    ...,
    range(3),
]


def deep(levels: int, mapping: bool = False) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value} if mapping else [value]
    return value


def code(canary: str, kind: int) -> dict:
    """What jsonpickle would run."""
    command = f"touch {canary}"
    return [
        {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [command]}]},
        {"py/object/apply:os.system": [command]},
        {"py/object": "os.system", "py/newargs": [command]},
        {"py/repr": f"os/os.system({command!r})"},
        {"py/type": "os.system"},
        {"a": [{"py/function": "os.system"}]},
        {"py/id": 1},
    ][kind % 7]


def ints() -> st.SearchStrategy[int]:
    return st.sampled_from(INTS) | st.integers(-3, 40) | st.integers()


def floats() -> st.SearchStrategy[float]:
    return st.sampled_from(FLOATS) | st.floats()


def texts() -> st.SearchStrategy[str]:
    return st.sampled_from(TEXTS) | st.text(st.characters(), max_size=12) | st.text("abc._-/=: []{}'\"0123", max_size=8)


@st.composite
def anything(draw: Any, canary: str = "x") -> Any:
    """A value of any type, often none that a configuration can hold."""
    return draw(
        st.one_of(
            ints(),
            floats(),
            texts(),
            st.sampled_from([True, False, None]),
            st.sampled_from(NESTS),
            st.sampled_from(ODD),
            st.builds(deep, st.sampled_from([5, 49, 50, 51, 60, 95, 150, 400]), st.booleans()),
            st.builds(code, st.just(canary), st.integers(0, 6)),
            st.recursive(
                st.none() | st.booleans() | ints() | floats() | texts(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts() | ints(), inner, max_size=3),
                max_leaves=6,
            ),
        )
    )


@st.composite
def like(draw: Any, type_: Any, meta: Any) -> Any:
    """A value of the type that a key has, mostly within its bounds, often at their edges."""
    options = getattr(type_, "__args__", (type_,))
    kinds = [kind for kind in options if kind is not type(None)]
    if type(None) in options and draw(st.integers(0, 5)) == 0:
        return None
    if meta["words"] and draw(st.booleans()):
        return draw(st.sampled_from(meta["words"]))
    if meta["choices"]:
        return draw(st.sampled_from(list(meta["choices"])))
    kind, low, high = kinds[0], meta["low"], meta["high"]
    low = meta["above"] if low is None else low
    if kind is bool:
        return draw(st.booleans())
    edges = [e for bound in (low, high) if bound is not None for e in (bound, bound + 1, bound - 1)]
    if kind is int:
        near = st.integers(low if low is not None else -5, min(high or 40, (low or 0) + 40))
        return draw(st.one_of(near, near, near, st.sampled_from([*map(int, edges), *INTS])))
    if kind is float:
        near = st.floats(low if low is not None else -10, high if high is not None else 10)
        edges += [float(math.nextafter(e, math.inf)) for e in edges]
        return draw(st.one_of(near, near, st.sampled_from([*edges, *FLOATS])))
    if kind is list:
        number = st.one_of(st.integers(-20, 20), st.sampled_from(FLOATS), st.sampled_from(INTS))
        shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
        return _filled(draw, shape, number)
    return draw(texts())


def _filled(draw: Any, shape: list[int], number: st.SearchStrategy) -> Any:
    return [_filled(draw, shape[1:], number) for _ in range(shape[0])] if shape else draw(number)


def written(value: Any) -> str:
    """As `with` has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if value != value else "1e999" if value > 0 else "-1e999"
    return number_free(repr)(value)


def number_free(act: Any) -> Any:
    """act, with integers of any number of digits."""

    def acted(value: Any) -> Any:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            return act(value)
        finally:
            sys.set_int_max_str_digits(before)

    return acted


# ---------------------------------------------------------------------- YAML and JSON, as text

YAML_VALUES = [
    "", "null", "~", "True", "yes", "no", "1e5", "1e-3", ".nan", ".inf", "-.inf", "0o17", "0x1F", "1_000", "1:30:00",
    "-1", "0", "3.5", "''", '"\\ud800"', '"\\0"', '"\\x1b[2J"', "2026-13-45", "2026-02-30", "2026-01-01",
    "2026-01-01T25:61:00Z", "2026-01-01 00:00:00 +99:99", "0001-01-01T00:00:00+23:59", "!!timestamp x", "!!int x",
    "!!int ''", "!!float y", "!!bool maybe", "!!null x", "!!binary '*'", "!!binary aGFsbG8=", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!seq {}", "!!map []", "!!str 1", "!!python/none", "!!python/tuple [1, 2]",
    "!!python/name:os.system", "!!python/object:os.system {}", "!!python/object/apply:os.system ['touch CANARY']",
    "!!python/object/new:os.system ['touch CANARY']", "!!python/module:os", "!unknown 1", "!!unknown [1]", "&a [*a]",
    "&a {b: *a}", "*missing", "&a 1", "[&b 1, *b]", "{<<: {a: 1}}", "{<<: 3}", "{<<: [{a: 1}, 2]}", "{? [1] : 2}",
    "{? {a: b} : c}", "{[1, 2]: 3}", "{1: 2, '1': 3}", "{a: 1, a: 2}", "{a: 1, b", "[1, 2", "'open", '"open', "@x",
    "`x", "%x", "|", ">-", "|9", "- 1", "? x", ": x", "a: b: c", "{}", "[]", "[[]]", "[1, [2, {a: b}]]",
    "{a: {b: {c: 1}}}", "[" * 60 + "]" * 60, "[" * 300, "{a: " * 60 + "1" + "}" * 60, "-" + " -" * 60 + " 1",
    "9" * 400, "9" * 5000, "1e400", "-1e400", "0." + "0" * 400 + "1", "é", "'\u2028'", "\t1", "x\ty", "---", "...",
    "--- 1\n--- 2", "%YAML 9.9", "# only", "=", "<<", "!!value =", "!<tag:yaml.org,2002:int> 1.5", "0b2", "08",
    "190:20:30.15", "+.inf", "[.nan]", "{.nan: 1}", "1.", ".5", "._", "_", "+_1", "0x_", "0b_", "1__0", "-0x",
    "00:00:60",
]  # fmt: skip
JSON_VALUES = [
    "null", "true", "0", "-1", "1", "1.5", "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000,
    "1e308", str(2**63), str(-(2**63)), str(2**64), '""', '"x"', '"\\ud800"', '"\\u0000"', '"\\u001b[2J"',
    '"' + "a" * 5000 + '"', "[]", "{}", "[1]", '{"a": 1}', '{"a": 1, "a": 2}', '{"": null}', "[" * 60 + "]" * 60,
    "[" * 100_000, "[" * 2000 + "]" * 2000, '{"a":' * 60 + "1" + "}" * 60,
    '{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch CANARY"]}]}', "[null]", "[[1, 2], [3]]",
    '"finished"', '"running"', '"../../x"', '"/"', '"."', '"2026-01-01T00:00:00"', '"0001-01-01T00:00:00+23:59"',
    '"é"', "tru", "'x'", "0x10", "01", "+1", ".5", "",
]  # fmt: skip


def yaml_value(canary: str) -> st.SearchStrategy[str]:
    return st.sampled_from(YAML_VALUES).map(lambda text: text.replace("CANARY", canary)) | st.builds(
        as_yaml, anything(canary)
    )


def json_value(canary: str) -> st.SearchStrategy[str]:
    return st.sampled_from(JSON_VALUES).map(lambda text: text.replace("CANARY", canary))


def as_yaml(value: Any) -> str:
    """A value in YAML's flow style, on one line; of what YAML cannot hold, its repr."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(k)}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "null" if value is None else number_free(repr)(value)
