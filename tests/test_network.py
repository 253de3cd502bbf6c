"""Runs whose way to MongoDB drops connections, stalls, delays and garbles: training goes on, and nothing is lost."""

import random

import pytest
from bad_network import KINDS, Fault, Network
from command import here, outcome, words
from test_resume import EXACT, GAME, AtRound, assert_same_end, wait_until
from test_resume import never_stopped as never_stopped  # fixtures
from test_resume import quiet as quiet
from test_sync import MONGO, entry, stored, synced
from test_sync import always as always
from test_sync import beats as beats
from test_sync import place as place
from wire_mongo import WireMongo

import sync
from recording.mongo_observer import PatientMongoObserver

FAULTS = {
    "drops all": Fault("drop"),
    "drops in the middle of an answer": Fault("drop", after=700),
    "drops in the middle of a request": Fault("drop", "requests", after=700),
    "answers nothing": Fault("stall", "both"),
    "stalls in the middle of an answer": Fault("stall", after=700),
    "delays": Fault("delay", "both", seconds=0.1),
    "garbles answers": Fault("garble"),
    "garbles requests": Fault("garble", "requests"),
    "garbles the later ones": Fault("garble", "both", after=700),
}


@pytest.fixture(autouse=True)
def patience(place, monkeypatch):
    begin = PatientMongoObserver.__init__
    monkeypatch.setattr(begin, "__defaults__", (0.5, *begin.__defaults__[1:]))
    monkeypatch.setattr(sync, "STEP_SECONDS", 1.0)


@pytest.fixture
def server():
    with WireMongo() as server:
        yield server


@pytest.fixture
def network(server):
    with Network(server.server_address[1]) as network:
        yield network


def cases(*quick):
    """All FAULTS; those that are not `quick` are slow tests."""
    return [pytest.param(f, id=k, marks=() if k in quick else pytest.mark.slow) for k, f in FAULTS.items()]


@pytest.mark.parametrize("fault", cases("drops all", "answers nothing"))
def test_bad_network_from_the_start(fault, server, network, always, never_stopped, beats, tmp_path, capsys):
    network.all(fault)
    check(0, lambda: None, server, network, always, never_stopped, tmp_path, capsys)


@pytest.mark.parametrize(
    "fault", cases("drops in the middle of an answer", "answers nothing", "garbles answers", "garbles requests")
)
def test_network_that_turns_bad(fault, server, network, always, never_stopped, beats, tmp_path, capsys):
    def turn_bad():
        wait_until(lambda: server.client["runs"]["metrics"].count_documents({}))
        network.all(fault)

    check(5, turn_bad, server, network, always, never_stopped, tmp_path, capsys)


def check(n, act, server, network, always, never_stopped, tmp_path, capsys):
    """A run, in whose n-th round act() is called, goes on; sync.py then brings what is missing, once it can."""
    with AtRound(n, act):
        run = here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url={network.url}", MONGO))
    assert run.code == 0 and run.summary["status"] == "finished" and "Traceback" not in run.err, run.err
    assert run.err.count("WARNING") - run.err.count("works again") in (0, 1)  # one for each outage
    assert_same_end(run.path, never_stopped(capsys, *GAME))
    for _ in range(2):
        try_to_sync(capsys, run.path)
    network.all(None)
    synced(capsys, run.path)
    assert (stored(server), entry(server)) == always(capsys)
    assert "nothing was missing" in synced(capsys, run.path).out


def try_to_sync(capsys, path):
    """It may succeed by luck; if not, it says so in one line."""
    done = outcome(sync.main, capsys, [path])
    assert done.code in (0, 1) and "Traceback" not in done.err
    if done.code:
        assert done.err.startswith("error: MongoDB") and "call this again" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("fault", cases("answers nothing", "stalls in the middle of an answer", "garbles answers"))
def test_network_that_works_again(fault, server, network, always, beats, tmp_path, capsys):
    """The run itself delivers what is missing."""

    def heal():
        network.all(None)
        wait_until(lambda: server.client["runs"]["metrics"].count_documents({}))

    network.all(fault)
    with AtRound(8, heal):
        run = here(capsys, words(*GAME, tmp_path, *EXACT, f"mongo_url={network.url}", MONGO))
    assert run.code == 0 and run.err.count("WARNING") == run.err.count("works again"), run.err
    assert (stored(server), entry(server)) == always(capsys)
    assert "nothing was missing" in synced(capsys, run.path).out


def at_random(seed):
    """What happens to the n-th connection."""

    def fault(n):
        rng = random.Random(f"{seed} {n}")
        kind = rng.choice([*KINDS, None])
        way = rng.choice(["requests", "answers", "both"])
        return kind and Fault(kind, way, rng.choice([0, rng.randrange(3000)]), rng.choice([0.01, 0.1]), seed)

    return fault


@pytest.mark.parametrize("seed", [pytest.param(n, marks=() if n < 2 else pytest.mark.slow) for n in range(100)])
def test_network_at_random(seed, server, network, always, never_stopped, beats, tmp_path, capsys):
    network.fault = at_random(seed)
    check(0, lambda: None, server, network, always, never_stopped, tmp_path, capsys)
