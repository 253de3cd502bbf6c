"""Where the time of a run goes: each second is counted once."""

import time

import pytest

from utils.clock import Clock, in_words


def some(shares):
    return {part: share for part, share in shares.items() if share}


def test_each_second_is_counted_once(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()
    for part, seconds in (("acting", 1), ("environment", 2), ("acting", 3), ("learning", 4)):
        now[0] += seconds
        clock.lap(part)
    assert {k: s for k, s in clock.seconds.items() if s} == {"acting": 4, "environment": 2, "learning": 4}
    assert some(clock.shares()) == pytest.approx({"acting": 0.4, "environment": 0.2, "learning": 0.4})
    now[0] += 5
    clock.lap("testing")
    assert some(clock.shares()) == pytest.approx({"testing": 1})  # since the last time


def test_a_resumed_run_goes_on_counting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()
    clock.begin({"learning": 100.0})
    now[0] += 2
    clock.lap("learning")
    assert clock.seconds["learning"] == 102 and some(clock.shares()) == {"learning": 1}


def test_in_words_the_largest_comes_first_and_what_is_nothing_is_left_out():
    assert in_words({"acting": 20.0, "learning": 79.9, "testing": 0.1, "other": 0.0}) == "learning 80 %, acting 20 %"
    assert in_words({"acting": 0.0}) == ""
