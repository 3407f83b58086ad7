"""The engine on the database of an AppView that had workers of its own: migrated, repaired, and
from there like any other.
"""

from collections.abc import Sequence

import pytest

from actors.capture import DEMO, read
from actors.store.migrate import migrate
from actors.store.repair import repair
from actors.store.verify import verify
from tests import tables
from tests.commands import command
from tests.histories import History, Sent
from tests.prism import (
    OLD,
    columns,
    contents,
    files,
    fitted,
    live_with_workers,
    write_old,
)
from tests.settling import Engine, sure
from tests.writing import decoded, reference_of

# What a row was first made for tells when; an AppView that made it before had a clock.
OF_READERS = ("bookmark-1", "of another kind")
CLOCKS = {
    # Of a profile that is older than the engine nobody knows what its first version named.
    "users": ("created_at", "handle", "engine_joined_via"),
    "post_aggregations": ("created_at",),
    "post_viewer_states": ("created_at",),
    "thread_contexts": ("created_at",),
}


def old_database(conninfo: str, past: Sequence[bytes]) -> None:
    """Bring an AppView's database to where its own workers have left it."""
    write_old(conninfo, reference_of(past).tables())
    live_with_workers(conninfo)


def of_frames(some: tables.Tables, expected: tables.Tables) -> tables.Tables:
    """The rows that the frames speak of, without the times that only a clock knows."""
    return {
        name: {
            key: {
                column: value for column, value in row.items() if column not in CLOCKS.get(name, ())
            }
            for key, row in its.items()
            if knows(key) and (key in expected.get(name, {}) or not is_old(key))
        }
        for name, its in some.items()
    }


def is_old(key: tuple[str, ...]) -> bool:
    return any(OLD in part or "did:plc:liker" in part or part in OF_READERS for part in key)


def knows(key: tuple[str, ...]) -> bool:
    """Whether the tables of an AppView tell all that a row follows from."""
    return not key[0].endswith("#notification/starterpack")


@pytest.mark.parametrize("seed", [7, 8])
def test_a_history_goes_on_as_if_the_engine_had_always_been_there(prism: str, seed: int) -> None:
    stream = History(seed, commits=260).stream
    past = [sent.frame for sent in stream[: len(stream) // 2]]
    old_database(prism, past)
    before, old_files = columns(prism), files(prism)
    old = contents(prism, before)
    migrate(prism)
    for table, its in old.items():
        assert not set(its) - set(contents(prism, before)[table]), table
    mended = repair(prism)
    assert mended.left == []
    assert verify(prism) == []
    with Engine(prism, shards=2, seed=seed) as engine:
        # From the beginning, as no cursor of the old workers says what they have seen.
        engine.deliver(stream)
        engine.settle()
        assert "database_refused" not in {drop.reason for drop in engine.outcome.drops}
    assert verify(prism) == []
    reference = reference_of([sent.frame for sent in stream])
    expected = fitted(prism, reference.tables())
    expected, found = sure(expected, reference), sure(tables.read_tables(prism), reference)
    assert tables.differences(of_frames(expected, expected), of_frames(found, expected)) == []
    now = files(prism)
    kept = old_files.keys() & now.keys()
    assert len(kept) == len(old_files) - 1
    assert {name for name in kept if now[name] != old_files[name]} == set()


def test_the_recorded_network_comes_to_the_same_there(prism: str) -> None:
    frames = list(read(DEMO))
    old_database(prism, frames[: len(frames) // 3])
    migrate(prism)
    assert repair(prism).left == []
    with Engine(prism, shards=2, largest=400) as engine:
        engine.deliver(sent_by(frame) for frame in frames)
        engine.settle()
    assert verify(prism) == []
    reference = reference_of(frames)
    expected = sure(fitted(prism, reference.tables()), reference)
    found = sure(tables.read_tables(prism), reference)
    assert tables.differences(of_frames(expected, expected), of_frames(found, expected)) == []


def sent_by(frame: bytes) -> Sent:
    """A recorded frame with the account that it is of."""
    batch = decoded([frame])
    return Sent(next(iter(batch.authors), ""), frame)


def test_the_commands_bring_a_drifted_database_to_where_verify_finds_nothing(prism: str) -> None:
    frames = [sent.frame for sent in History(9, commits=60).stream]
    old_database(prism, frames)
    before = columns(prism)
    old = contents(prism, before)
    url = ("--database-url", prism)
    assert command("verify", *url).code == 78
    assert command("migrate", *url) == (0, "the tables were brought up to date\n", "")
    assert command("migrate", *url) == (0, "the tables are up to date\n", "")
    for table, its in old.items():
        assert not set(its) - set(contents(prism, before)[table]), table
    assert command("verify", *url).code == 1
    assert command("verify", "--repair", *url).code == 0
    ended = command("verify", *url)
    assert (ended.code, ended.out) == (0, "no differences\n")
    # What was there of records is there; what had drifted is what changed.
    records = ("likes", "reposts", "follows", "blocks", "lists", "list_items", "labels")
    assert {table: contents(prism, before)[table] for table in records} == {
        table: old[table] for table in records
    }
