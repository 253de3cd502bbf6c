"""Declarations of hyperparameters: types, bounds, aliases, messages."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from utils.args import ConfigError, convert, declared, key, nearest, read


@dataclass(frozen=True)
class Config:
    lr: float = key("step size", above=0)
    gamma: float = key("discount", low=0, high=1)
    layers: int = key("layers", low=1, unit="layers", aliases=("n_layers", "depth"))
    unit: str = key("what counts", choices=("updates", "episodes"))
    cuda: bool = key("GPU")
    clip: float | None = key("least payoff")
    payoff: list | None = key("table")


GOOD = dict(lr=0.1, gamma=0.9, layers=2, unit="updates", cuda=False, clip=None, payoff=None)


def read_with(**changes):
    return read(Config, SimpleNamespace(**GOOD | changes))


@pytest.mark.parametrize(
    "name, given, kept",
    [
        ("lr", 1, 1.0), ("gamma", 0, 0.0), ("gamma", 1, 1.0), ("layers", 3.0, 3), ("clip", -2, -2.0),
        ("clip", None, None), ("payoff", [[1, 2]], [[1, 2]]), ("cuda", True, True), ("unit", "episodes", "episodes"),
    ],
)  # fmt: skip
def test_values_get_the_declared_type(name, given, kept):
    value = getattr(read_with(**{name: given}), name)
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("lr", 0, "must be above 0"),
        ("lr", "abc", "is text, must be a number"),
        ("lr", "5e-4", "is text (5e-4 is read as text; write 0.0005"),
        ("lr", True, "must be a number"),
        ("lr", None, "must be a number"),
        ("lr", float("nan"), "must be finite"),
        ("gamma", 1.5, "must be at least 0 and at most 1"),
        ("layers", 0, "must be at least 1"),
        ("layers", 2.5, "must be a whole number"),
        ("layers", float("inf"), "must be finite"),
        ("unit", "update", "is not one of updates, episodes; did you mean 'updates'?"),
        ("unit", 3, "is not one of updates, episodes"),
        ("lr", "nan", "is text, must be a number"),
        ("cuda", 1, "must be True or False"),
        ("cuda", "yes", "must be True or False"),
        ("clip", "low", "is text, must be a number"),
        ("payoff", 5, "must be a list"),
    ],
)
def test_what_does_not_fit_is_named_with_its_value(name, given, message):
    with pytest.raises(ConfigError) as caught:
        read_with(**{name: given})
    assert f"{name}: {given!r} {message}" in str(caught.value)


def test_every_problem_is_in_one_message():
    with pytest.raises(ConfigError, match="(?s)lr: .*gamma: .*missing key 'layers'.*n_layers, depth"):
        args = SimpleNamespace(**GOOD | dict(lr=-1, gamma=2))
        del args.layers
        read(Config, args)


@pytest.mark.parametrize("name", ["layers", "n_layers", "depth"])
def test_other_names_are_accepted(name):
    args = {k: v for k, v in GOOD.items() if k != "layers"} | {name: 5}
    assert read(Config, SimpleNamespace(**args)).layers == 5


def test_declarations_are_read_without_making_a_config():
    assert declared(Config)["layers"][1]["unit"] == "layers"
    assert convert("episodes", *declared(Config)["unit"]) == "episodes"


@pytest.mark.parametrize(
    "word, found", [("gama", "; did you mean 'gamma'?"), ("LR", "; did you mean 'lr'?"), ("x", ""), (3, "")]
)
def test_nearest(word, found):
    assert nearest(word, ["gamma", "lr"]) == found
