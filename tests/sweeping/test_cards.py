"""GPUs shared out over runs: which run sees which, how many at a time, what is refused. The cards are pretended."""

import pytest

from sweeping import cards
from sweeping.cards import Cards, shared_out
from utils.args import ConfigError


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(cards, "visible", lambda: ["GPU-a", "GPU-b"])


def test_runs_are_spread_and_cards_come_back():
    shared = Cards(["0", "1"], 0.5)
    shown = [shared.take(run)["CUDA_VISIBLE_DEVICES"] for run in "abcd"]
    assert shown == ["0", "1", "0", "1"] and shared.room == 4
    shared.give_back("b")
    shared.give_back("never taken")
    assert shared.take("e") == {"CUDA_VISIBLE_DEVICES": "1"}
    whole = Cards(["0", "1", "2"], 2)
    assert whole.take("a") == {"CUDA_VISIBLE_DEVICES": "0,1"} and whole.room == 1
    assert Cards().take("a") == {}


def test_runs_that_are_given_no_card_see_none(two_cards):
    at_a_time, shared, said = shared_out(None, 0, 5, wanted=True)
    assert (at_a_time, shared.take("run"), said) == (5, {"CUDA_VISIBLE_DEVICES": ""}, "")


@pytest.mark.parametrize(
    "workers, share, by_cores, expected",
    [
        (None, 0.25, 16, (8, 0.25)),  # four on each of two
        (None, 0.25, 3, (3, 0.25)),  # the cores allow no more
        (None, None, 16, (8, 0.25)),  # by default
        (None, None, 4, (4, 0.5)),
        (2, None, 16, (2, 1)),
        (6, None, 16, (6, 1 / 3)),
        (None, 2, 16, (1, 2)),
    ],
)
def test_how_many_run_at_a_time(workers, share, by_cores, expected, two_cards):
    at_a_time, shared, said = shared_out(workers, share, by_cores, wanted=True)
    assert (at_a_time, shared.share) == expected and "2 GPUs, " in said and f"{at_a_time} runs at a time" in said
    assert at_a_time <= shared.room


def test_what_learns_on_the_cpu_gets_no_card(two_cards):
    at_a_time, shared, said = shared_out(None, None, 7, wanted=False)
    assert (at_a_time, shared.take("run"), said) == (7, {}, "")


@pytest.mark.parametrize(
    "workers, share, wanted, said",
    [
        (None, 0.3, True, "--gpus-per-run 0.3: must be a fraction 1/n of a GPU"),
        (None, -1, True, "must be a fraction"),
        (None, 1.5, True, "or a whole number"),
        (None, 0.001, True, "at most 64"),
        (None, 3, True, "--gpus-per-run 3: this machine has 2; give 2 or less"),
        (9, 0.25, True, "--workers 9, --gpus-per-run 0.25: the GPUs here (2) can take 8 runs at a time; give "),
        (None, 0.5, False, "every run of the study has use_cuda=False"),
    ],
)
def test_what_is_refused(workers, share, wanted, said, two_cards):
    with pytest.raises(ConfigError) as error:
        shared_out(workers, share, 4, wanted)
    assert said in str(error.value)


def test_without_a_gpu_a_share_of_one_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--gpus-per-run 0.25: .*; leave it out to learn on the CPU"):
        shared_out(None, 0.25, 4, wanted=True)
    assert shared_out(None, None, 4, wanted=True)[0] == 4


def test_names_are_those_of_the_scheduler(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cards.visible() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-3,7")
    assert cards.visible() == ["MIG-3", "7"]
