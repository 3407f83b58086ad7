"""`verify --repair` while the engine writes: it disturbs nothing, and what it mends stays exact."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg
import pytest

from actors.store.repair import Mended, repair
from actors.store.verify import survey
from actors.store.verify_walk import BY_NAME
from tests import tables
from tests.histories import History
from tests.writing import Crew, empty, make_index

COMMITS = 600
# What waits for what depends on the order in which two writers come by; follow and list rules hold
# at the moment of the judgement.
ORDERED = ("engine_pending",)


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


@contextmanager
def at_work(index: str, history: History, writers: int) -> Iterator[Thread]:
    """Writers that apply a history as long as the block lasts, or until it is done."""
    crew = Crew(index, random.Random(history.stream[0].did), largest=10)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            crew.apply(history.stream, writers)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
    assert errors == []


def _compared(index: str) -> tables.Tables:
    """The tables without what depends on the moment or the order in which two writers came by."""
    read = {name: rows for name, rows in tables.read_tables(index).items() if name not in ORDERED}
    for row in read["posts"].values():
        del row["violates_thread_gate"]
    counts = read["post_aggregations"]
    for key, row in list(counts.items()):
        del row["reply_count"]
        if key not in read["posts"] and not any(row[name] for name in row if "_count" in name):
            del counts[key]
    return read


def test_a_repair_finds_nothing_to_mend_in_what_the_writers_write(index: str) -> None:
    history = History(7, commits=COMMITS)
    with at_work(index, history, 2):
        pass
    repair(index)
    expected = _compared(index)
    empty(index)
    repairs: list[Mended] = []
    with at_work(index, history, 2) as thread:
        while thread.is_alive():
            repairs.append(repair(index, slice_rows=20))
    assert sum(one.walks for one in repairs) > 2, "several walks went on beside the writers"
    mended = {name for one in repairs for name, count in one.mended.items() if count}
    assert {name for name in mended if not BY_NAME[name].settles} <= {
        # Follows from a judgement that a writer may not make for another.
        "post_aggregations.reply_count",
        "post_aggregations.quote_count",
    }
    repair(index)
    assert tables.differences(expected, _compared(index)) == []


def test_damage_beside_writers_is_mended_exactly(index: str) -> None:
    history = History(8, commits=COMMITS)
    done = Event()
    damaged = 0

    def damage() -> None:
        nonlocal damaged
        chance = random.Random(8)
        with psycopg.connect(index, autocommit=True) as connection:
            while not done.is_set():
                for statement in (
                    (
                        "UPDATE post_aggregations SET like_count = like_count + 1,"
                        " reply_count = reply_count + 2 WHERE random() < 0.2"
                    ),
                    "UPDATE engine_user_aggregations SET posts_count = 7 WHERE random() < 0.2",
                    "DELETE FROM post_viewer_states WHERE random() < 0.1",
                    "DELETE FROM feed_items WHERE type = 'post' AND random() < 0.1",
                    "UPDATE thread_contexts SET root_author_like_uri = 'x' WHERE random() < 0.1",
                ):
                    try:
                        damaged += connection.execute(statement.encode()).rowcount
                    except psycopg.errors.DeadlockDetected:
                        continue
                done.wait(chance.random() / 10)

    with at_work(index, history, 2) as thread:
        vandal = Thread(target=damage)
        vandal.start()
        while thread.is_alive():
            repair(index, slice_rows=50)
        done.set()
        vandal.join()
    assert damaged
    repair(index)
    found = survey(index)
    assert found.differences == []
