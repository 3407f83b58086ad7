"""Whatever is written, by however many writers at once, in whatever batches: the same tables.

Here the writers of several shards overlap, each in a thread of its own; what follows is carried out
between the phases. They are the tables of the reference indexer, and `verify` finds nothing to say
about them.
"""

import random

import pytest

from actors.store.verify import verify
from tests import tables
from tests.histories import History, interleaved
from tests.reference import Reference
from tests.settling import Engine, sure, wrong_waits
from tests.writing import Crew, empty, make_index

COMMITS = 400
PHASES = 3
LONG_SEEDS = range(100, 140)


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def check(index: str, seed: int, *all_writers: int) -> Crew:
    """Apply the history of a seed with so many writers; returns what they did."""
    history = History(seed, commits=COMMITS, phases=PHASES, lives=True)
    crew = Crew(index, random.Random(seed))
    for writers in all_writers:
        empty(index)
        reference = Reference()
        for phase in history.phases:
            for setting in phase.settings:
                setting.put(reference)
            with Engine(index) as engine:
                engine.put(phase.settings)
                engine.settle()
            crew.apply(interleaved(phase.stream, crew.chance), writers)
            for sent in phase.stream:
                reference.frame(sent.frame)
            reference.settle()
            reference.sweep()
            with Engine(index) as engine:
                engine.settle()
        where = f"seed {seed}, {writers} writers"
        expected, ours = reference.tables(), tables.read_tables(index)
        assert tables.differences(sure(expected, reference), sure(ours, reference)) == [], where
        assert wrong_waits(index, reference) == [], where
        assert verify(index) == [], where
    return crew


@pytest.mark.parametrize(("seed", "writers"), [(1, 2), (2, 4)])
def test_writers_that_overlap_give_the_tables_of_the_reference(
    index: str, seed: int, writers: int
) -> None:
    crew = check(index, seed, writers)
    assert crew.again
    assert crew.outcome.replayed


@pytest.mark.soak
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_any_writers_and_batches_give_the_tables_of_the_reference(index: str, seed: int) -> None:
    check(index, seed, 1, 2, 3, 4)
