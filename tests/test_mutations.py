"""Random mutations of all that the commands read: command lines, files of src/config, studies, checkpoints, states, run
directories. Each ends in a valid run, or in status 2 with one message that names what is wrong: never in a traceback, a
signal, or a hang, and no code in it is run.

300 of them, with fixed random numbers: pytest tests/test_mutations.py
10,000, with others:                    MUTATIONS_SEED=1 pytest -m slow -s tests/test_mutations.py
"""

import gc
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from mutations import forked
from mutations.bases import Bases
from mutations.cases import KINDS

CASES = int(os.environ.get("MUTATIONS", 0))  # of all kinds together; 0: as the test says
SEED = int(os.environ.get("MUTATIONS_SEED", 0))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    forked.import_everything()
    yield Bases(tmp_path_factory.mktemp("bases"))
    gc.unfreeze()


def mutate(kind: str, number: int, bases: Bases, folder) -> Counter:
    """Run `number` different cases of a kind; how often each exit status came."""
    strategy, _ = KINDS[kind]
    ends: dict[str, str | None] = {}  # what was wrong with each case
    statuses = Counter()

    @seed(SEED)
    @settings(
        max_examples=number, database=None, deadline=None, phases=[Phase.generate], print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy(bases))
    def case_by_case(case: forked.Case) -> None:
        key = repr((case.command, case.argv, case.told))
        assume(ends.get(key, key) is not None)  # one that went well is not counted twice
        if key not in ends:
            place = folder / str(len(ends))
            end = forked.end_of(case, place)
            wrong = forked.wrong_with(case, end, place)
            ends[key] = None if wrong is None else f"{wrong}\n{case!r}\n{end.out[-2000:]}\n{end.err[-4000:]}"
            statuses["stopped" if end.stopped else end.code] += 1
            forked.remove(place)
        assert ends[key] is None, ends[key]

    case_by_case()
    assert len(ends) >= number
    return statuses


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_mutated_ends_in_a_run_or_in_a_message(kind, bases, tmp_path):
    statuses = mutate(kind, round((CASES or 300) * KINDS[kind][1]), bases, tmp_path)
    assert statuses[0] and statuses[2]  # some are valid, some are not


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutations(kind, bases, tmp_path):
    number = round((CASES or 10_000) * KINDS[kind][1])
    print(f"{kind}: {number} mutations, exit statuses {dict(mutate(kind, number, bases, tmp_path))}")
