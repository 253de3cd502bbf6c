"""bench/scaling.py: the model against cases that can be computed by hand, its tables and figure, bad input."""

import importlib.util
from dataclasses import replace

import pytest
from command import ROOT, outcome

spec = importlib.util.spec_from_file_location("bench_scaling", ROOT / "bench" / "scaling.py")
scaling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scaling)

# 4 games, each step 10 ms, episodes of 10 steps: a round is played in 0.1 s. All else costs nothing.
FREE = scaling.Setting(
    games=4, step_ms=8, overhead_ms=2, shortest=10, longest=10, max_staleness=0, network_gbit=1e9, episode_ms=0,
    mb_ms=0, update_ms=0, episodes_per_update=4,
)  # fmt: skip
SECONDS = {  # of a round
    "the games alone": (FREE, 0.1),
    "an update a round: played, then learned": (replace(FREE, update_ms=50), 0.15),
    "the same, one within the other": (replace(FREE, update_ms=50, max_staleness=1), 0.1),
    "learning longer than playing": (replace(FREE, update_ms=300, max_staleness=1), 0.3),
    "two updates a round": (replace(FREE, update_ms=50, episodes_per_update=2), 0.2),
    # 4 episodes of 10 steps of 1 kB over 1 Mbit/s: 0.32 s, after playing or meanwhile.
    "the network": (replace(FREE, step_kb=1, network_gbit=0.001), 0.42),
    "the network all the time": (replace(FREE, step_kb=1, network_gbit=0.001, max_staleness=2), 0.32),
    # 4 times 20 ms, and 30 ms for each of its 0.01 MB.
    "storing": (replace(FREE, episode_ms=20, step_kb=1, mb_ms=3000), 0.1 + 4 * (0.02 + 0.03)),
    "an actor that is always acting": (replace(FREE, games_per_actor=8, act_ms=2.5), 0.2),
}


@pytest.mark.parametrize("name", SECONDS)
def test_the_model_agrees_with_what_is_computed_by_hand(name):
    setting, seconds = SECONDS[name]
    steps, updates = scaling.throughput(setting)
    assert steps == pytest.approx(40 / seconds, rel=1e-3)
    assert updates == pytest.approx(4 / setting.episodes_per_update / seconds, rel=1e-3)


def test_without_staleness_a_round_is_as_long_as_its_longest_episode():
    """Of two episodes of 1 or 3 steps the longest has 2.5 on average (of 1, 2, 3: 22/9), both together 4."""
    two = replace(FREE, games=2, shortest=1, longest=3)
    assert scaling.throughput(two, rounds=8000)[0] == pytest.approx(4 / (22 / 9 * 0.01), rel=0.03)
    assert scaling.throughput(replace(two, max_staleness=50), rounds=8000)[0] == pytest.approx(2 / 0.01, rel=0.03)


def test_ceilings():
    setting = replace(FREE, step_kb=1, network_gbit=0.001, episode_ms=20, update_ms=20)
    assert scaling.ceilings(setting) == pytest.approx(
        {"games": 400, "network": 125, "storing": 500, "learner": 40 / (4 * 0.02 + 0.02)}
    )
    assert scaling.limit(setting, 120) == "network" and "network next" in scaling.limit(setting, 60)


def test_tables_and_figure(tmp_path, capsys):
    run = outcome(scaling.main, capsys, ["--games", "16", "--figure", tmp_path / "it.png"])
    assert run.code == 0 and (tmp_path / "it.png").read_bytes()[:4] == b"\x89PNG"
    rates = [line.split(" | ")[2].replace(",", "") for line in run.out.splitlines() if line.startswith("| 16 | ")]
    assert len(rates) == 3 and float(rates[0]) < float(rates[1])


def test_the_page_shows_what_the_command_prints(capsys):
    page = (ROOT / "docs" / "scaling.md").read_text()
    run = outcome(scaling.main, capsys, [])
    tables = [block for block in run.out.strip().split("\n\n") if block.startswith("|")]
    assert len(tables) == 4 and all(table in page for table in tables), run.out


@pytest.mark.parametrize(
    "words, said",
    [
        ("--games 0", "--games: '0' is not a whole number above 0"),
        ("--games 1.5", "'1.5' is not a whole number above 0"),
        ("--network-gbit nan", "--network-gbit: 'nan' is not a number above 0"),
        ("--update-ms -1", "--update-ms: '-1' is not a number of at least 0"),
        ("--max-staleness x", "'x' is not a whole number of at least 0"),
        ("--shortest 30 --longest 20", "--shortest 30: longer than --longest 20"),
        ("--figure it.txt", "--figure: 'it.txt' does not end in .png, .svg or .pdf"),
        ("measured", "invalid choice: 'measured'"),
    ],
)
def test_bad_input(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        scaling.main(words.split())
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and said in err and out == ""
