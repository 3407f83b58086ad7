"""Random histories: the engine comes to the tables of the reference indexer, whatever happens.

Twenty accounts write some thousand operations that create, change, delete and make again; threads
are gated and muted, accounts opt out, go away, are deleted and come back. Each history is delivered
in its order, with the authors interleaved at random, and with replays and crashes on top. What is
left out of the comparison, since the engine may rightly come to either result, is told in
tests/reference_notifications.py; gates that ask for follows or lists look at such as do not change.
"""

import random
from typing import NamedTuple

import pytest

from actors.store.verify import verify
from tests import tables
from tests.histories import History, interleaved
from tests.reference import Reference
from tests.settling import Engine, sure, wrong_waits
from tests.writing import make_index

SEEDS = (1, 2)
LONG_SEEDS = range(1000, 1200)
COMMITS = 530
PHASES = 8


class Delivery(NamedTuple):
    """How a history is delivered; rates are parts of all crash points, and of all batches."""

    shards: int
    mixed: bool
    crashes: float = 0.0
    replays: float = 0.0


DELIVERIES = {
    "in order": Delivery(1, mixed=False),
    "interleaved": Delivery(2, mixed=True),
    "with replays and crashes": Delivery(3, mixed=True, crashes=0.02, replays=0.1),
}


def history_of(seed: int) -> History:
    return History(seed, commits=COMMITS, phases=PHASES, spoilt=0.06, lives=True)


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def check(index: str, seed: int, delivery: Delivery) -> Engine:
    """Deliver the history of a seed; returns the engine that it was delivered to."""
    reference = Reference()
    chance = random.Random(seed)
    with Engine(
        index,
        shards=delivery.shards,
        seed=seed,
        crashes=delivery.crashes,
        replays=delivery.replays,
    ) as engine:
        for phase in history_of(seed).phases:
            for setting in phase.settings:
                setting.put(reference)
            engine.put(phase.settings)
            engine.settle()
            engine.deliver(interleaved(phase.stream, chance) if delivery.mixed else phase.stream)
            engine.settle()
            for sent in phase.stream:
                reference.frame(sent.frame)
            reference.settle()
            reference.sweep()
    where = f"seed {seed}, {delivery}"
    expected, ours = reference.tables(), tables.read_tables(index)
    assert tables.differences(sure(expected, reference), sure(ours, reference)) == [], where
    assert wrong_waits(index, reference) == [], where
    assert verify(index) == [], where
    return engine


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", DELIVERIES)
def test_the_engine_agrees_with_the_reference(index: str, how: str, seed: int) -> None:
    delivery = DELIVERIES[how]
    engine = check(index, seed, delivery)
    assert bool(engine.crashes.at) == bool(delivery.crashes)
    assert bool(engine.replayed) == bool(delivery.replays)


@pytest.mark.soak
@pytest.mark.parametrize("seed", LONG_SEEDS)
@pytest.mark.parametrize("how", DELIVERIES)
def test_the_engine_agrees_with_the_reference_for_any_history(
    index: str, how: str, seed: int
) -> None:
    check(index, seed, DELIVERIES[how])
