"""The registry's bounds and its reconciliation, slice by slice, on entries put there by hand."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.store import tallies
from actors.store.fence import Fence, Fenced
from actors.store.registry import Claim, prepare
from actors.store.registry_sweep import (
    Key,
    Released,
    awaited_keys,
    drop_oldest,
    expire,
    overdue,
    release,
    standing,
)
from actors.store.session import Connection
from tests.unit.test_registry import ANN, BOB, post, post_uri, waits
from tests.writing import begin_run, claimed, make_index, session


class Stage:
    """A connection, and the right to write."""

    def __init__(self, connection: Connection, fence: Fence) -> None:
        self.connection = connection
        self.fence = fence

    def entry(self, key: str, age: float, kind: str = "like", awaited: str = "") -> Claim:
        entry = waits(self.connection, BOB, key, awaited or post_uri(ANN, key), kind)
        self.connection.execute(
            "UPDATE engine_pending SET created_at = localtimestamp - %s * interval '1 second'"
            " WHERE uri = %s",
            [age, entry.uri],
        )
        return entry

    def left(self) -> list[str]:
        rows = self.connection.execute("SELECT uri FROM engine_pending ORDER BY uri").fetchall()
        return [uri.rpartition("/")[2] for (uri,) in rows]

    def tallies(self) -> dict[str, int]:
        return tallies.read(self.connection, self.fence.epoch)


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    epoch = begin_run(database)
    with session(database, "pending") as opened:
        prepare(opened)
        yield Stage(opened, claimed(opened, "pending", epoch))


def test_entries_above_an_age_expire_the_oldest_first(stage: Stage) -> None:
    for key, age in (("a", 50), ("b", 90), ("c", 70)):
        stage.entry(key, age, "like" if key == "b" else "reply")
    assert expire(stage.connection, stage.fence, 60, 1) == {"like": 1}
    assert stage.left() == ["a", "c"]
    assert expire(stage.connection, stage.fence, 60, 10) == {"reply": 1}
    assert expire(stage.connection, stage.fence, 60, 10) == {}
    assert stage.left() == ["a"]
    assert stage.tallies() == {"pending.expired.like": 1, "pending.expired.reply": 1}


def test_too_many_rows_go_the_oldest_first(stage: Stage) -> None:
    for age in range(1, 6):
        stage.entry(str(age), age)
    gone, _ = drop_oldest(stage.connection, stage.fence, 2, 0, 100)
    assert gone == {"like": 2}
    assert stage.left() == ["1", "2", "3"]
    gone, _ = drop_oldest(stage.connection, stage.fence, 2, 0, 1)
    assert gone == {"like": 1}
    assert stage.left() == ["1", "2"]
    assert stage.tallies() == {"pending.dropped.like": 3}


def test_too_many_bytes_go_the_oldest_first(stage: Stage) -> None:
    for age in range(1, 6):
        stage.entry(str(age), age)
    size = standing(stage.connection)["like"].size
    assert size == sum(
        len(f"at://{BOB}/app.bsky.feed.like/1{post_uri(ANN, '1')}{BOB}like") for _ in range(5)
    )
    gone, bytes_gone = drop_oldest(stage.connection, stage.fence, 0, size // 5 + 1, 100)
    assert gone == {"like": 2}
    assert bytes_gone == 2 * size // 5
    assert stage.left() == ["1", "2", "3"]
    assert drop_oldest(stage.connection, stage.fence, 0, 0, 100) == ({}, 0)


def test_an_entry_that_a_shard_holds_is_left_for_the_next_time(stage: Stage, database: str) -> None:
    stage.entry("held", 90)
    stage.entry("free", 80)
    with psycopg.connect(database) as shard:
        shard.execute("DELETE FROM engine_pending WHERE uri LIKE '%held'")
        assert expire(stage.connection, stage.fence, 60, 10) == {"like": 1}
        assert drop_oldest(stage.connection, stage.fence, 5, 0, 10) == ({}, 0)
        shard.rollback()
    assert stage.left() == ["held"]


def test_a_registry_that_was_replaced_removes_nothing(stage: Stage, database: str) -> None:
    stage.entry("a", 90)
    with session(database, "pending") as newer:
        claimed(newer, "pending", stage.fence.epoch, 2)
    for attempt in (
        lambda: expire(stage.connection, stage.fence, 60, 10),
        lambda: drop_oldest(stage.connection, stage.fence, 5, 0, 10),
        lambda: release(stage.connection, stage.fence, "", 10),
    ):
        with pytest.raises(Fenced):
            attempt()
    assert stage.left() == ["a"]


def test_what_waits_is_counted_by_kind_with_the_age_of_the_oldest(stage: Stage) -> None:
    assert standing(stage.connection) == {}
    for key, age, kind in (("a", 50, "like"), ("b", 90, "like"), ("c", 70, "reply")):
        stage.entry(key, age, kind)
    counted = standing(stage.connection)
    assert {kind: value.waiting for kind, value in counted.items()} == {"like": 2, "reply": 1}
    assert 90 <= counted["like"].oldest < 150
    assert 70 <= counted["reply"].oldest < 130


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
def test_a_walk_finds_every_entry_whose_subject_is_indexed(stage: Stage, limit: int) -> None:
    there = {stage.entry(key, 5) for key in "bd"} | {
        Claim(f"at://{BOB}/app.bsky.feed.like/d", post_uri(ANN, "d2"), BOB)
    }
    stage.connection.execute(
        "INSERT INTO engine_pending (uri, awaited, author, kind)"
        " SELECT uri, awaited || '2', author, 'like-via' FROM engine_pending WHERE uri LIKE '%d'"
    )
    for key in ("b", "d", "d2"):
        post(stage.connection, ANN, key)
    for key in "ace":
        stage.entry(key, 5)
    found: list[Claim] = []
    at: Key | None = Key()
    slices = 0
    while at is not None:
        found_now, at = overdue(stage.connection, at, limit)
        found += found_now
        slices += 1
    assert len(found) == len(there)
    assert set(found) == there
    assert slices == 6 // limit + 1


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_walk_over_the_awaited_keys_meets_each(stage: Stage, limit: int) -> None:
    for number in range(12):
        stage.entry(str(number), 5, awaited=post_uri(ANN, str(number % 4)))
    met: set[str] = set()
    after = ""
    while True:
        keys = awaited_keys(stage.connection, after, limit)
        met.update(keys)
        if len(keys) < limit:
            break
        after = keys[-1]
    assert met == {post_uri(ANN, str(number)) for number in range(4)}


def withhold(connection: psycopg.Connection[Any], *dids: str) -> None:
    for did in dids:
        connection.execute(
            "INSERT INTO engine_repos (did, rev, withheld) VALUES (%s, 'r', true)", [did]
        )


def test_a_repository_that_is_refused_no_more_is_marked_out_of_step(stage: Stage) -> None:
    connection = stage.connection
    withhold(connection, *(f"did:plc:{name}" for name in "abcdef"))
    connection.execute(
        "INSERT INTO user_settings (user_did, data_collection_forbidden)"
        " VALUES ('did:plc:a', true), ('did:plc:b', false)"
    )
    connection.execute(
        "INSERT INTO engine_takedowns (subject) VALUES ('did:plc:c'),"
        " ('at://did:plc:d/app.bsky.feed.post/x'), ('at://did:plc:ee/app.bsky.feed.post/x')"
    )
    connection.execute("INSERT INTO engine_repos (did, rev) VALUES ('did:plc:g', 'r')")
    amount, at = 0, ""
    while True:
        released = release(connection, stage.fence, at, 4)
        amount += released.amount
        if released.next is None:
            break
        at = released.next
    assert amount == 3
    rows = connection.execute(
        "SELECT did FROM engine_repos WHERE NOT withheld AND out_of_step ORDER BY did"
    ).fetchall()
    assert rows == [("did:plc:b",), ("did:plc:e",), ("did:plc:f",)]
    rows = connection.execute(
        "SELECT did FROM engine_repos WHERE withheld AND NOT out_of_step ORDER BY did"
    ).fetchall()
    assert rows == [("did:plc:a",), ("did:plc:c",), ("did:plc:d",)]
    assert stage.tallies() == {"withheld_released": 3}
    assert release(connection, stage.fence, "", 4) == Released(0, None)
