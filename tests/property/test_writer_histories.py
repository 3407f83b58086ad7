"""Whatever is written, by however many writers, in whatever batches: the tables come out the same.

They are those of the reference indexer, and `verify` finds nothing to say about them.
"""

import random

import pytest

from actors.store.verify import verify
from tests import tables
from tests.histories import History
from tests.writing import Crew, empty, make_index, reference_of

SEEDS = (1, 2, 3, 4)
COMMITS = 800
LONG_SEEDS = range(100, 140)


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def check(index: str, seed: int) -> Crew:
    """Apply the history of a seed with one to four writers; returns what they did."""
    history = History(seed, commits=COMMITS)
    reference = reference_of([sent.frame for sent in history.stream])
    expected = reference.tables()
    crew = Crew(index, random.Random(seed))
    for writers in (1, 2, 3, 4):
        empty(index)
        stream = history.stream if writers == 1 else history.interleaved(crew.chance)
        crew.apply(stream, writers)
        where = f"seed {seed}, {writers} writers"
        assert tables.differences(expected, tables.read_tables(index)) == [], where
        assert verify(index) == [], where
    return crew


@pytest.mark.parametrize("seed", SEEDS)
def test_any_writers_and_batches_give_the_tables_of_the_reference(index: str, seed: int) -> None:
    crew = check(index, seed)
    assert crew.again
    assert crew.outcome.replayed


@pytest.mark.soak
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_any_history_gives_the_tables_of_the_reference(index: str, seed: int) -> None:
    check(index, seed)


def test_the_histories_hold_all_that_the_writer_has_to_get_right() -> None:
    histories = [History(seed, commits=COMMITS) for seed in SEEDS]
    held: set[str] = set()
    dropped: set[str] = set()
    for history in histories:
        reference = reference_of([sent.frame for sent in history.stream])
        dropped |= reference.drops.keys()
        assert any(repo.out_of_step for repo in reference.repos.values())
        for name, rows in reference.tables().items():
            held |= {name} if rows else set()
            if name == "engine_duplicates":
                held |= {f"duplicate {row['table_name']}" for row in rows.values()}
            for column in ("has_thread_gate", "has_post_gate", "root_author_like_uri"):
                if any(row.get(column) for row in rows.values()):
                    held.add(column)
    assert held >= set(tables.COMPARED)
    assert held >= {"has_thread_gate", "has_post_gate", "root_author_like_uri"}
    assert {name for name in held if name.startswith("duplicate ")} >= {
        f"duplicate {name}" for name in ("likes", "reposts", "bookmarks", "follows", "blocks")
    }
    assert dropped >= {"invalid_record", "not_authorized", "type_mismatch", "key_too_long"}
