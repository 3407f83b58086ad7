"""The sweeps of the registry as a process, between shards of the test, on a real database."""

from collections.abc import Iterator

import pytest

from actors.messages import RegistryWork
from actors.store import tallies
from actors.store.arrays import text_array
from actors.store.session import Connection
from actors.upkeep import Bounds
from tests.unit.test_pending import (
    EPOCH,
    FakeShard,
    Script,
    again,
    claimed,
    count,
    home,
    leave,
    settled,
    stage,
    start_shards,
)
from tests.unit.test_registry import ANN, BOB, post, post_uri, waits
from tests.writing import make_index, session


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    make_index(database)
    with session(database, "test") as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        yield opened


def test_a_subject_that_came_unnoticed_is_found_by_the_sweep(
    database: str, connection: Connection
) -> None:
    here = post(connection, ANN, "here")
    entry = waits(connection, BOB, "1", here)
    waits(connection, BOB, "2", post_uri(ANN, "missing"))
    with stage(database) as harness:
        start_shards(harness, Script(database))
        harness.until(lambda: count(connection, "engine_pending") == 1)
        assert claimed(harness) == [(home(BOB), entry.uri, here)]
        harness.until(lambda: harness.metrics("pending").value("pending_reconciled_total") == 1)


def test_what_waits_for_whom_is_told(database: str, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO engine_outbox (receiver, body)"
        " SELECT 'notifier', '' FROM generate_series(1, 3)"
    )
    connection.execute(
        "INSERT INTO engine_parked (did, reason, bytes) VALUES"
        " ('did:plc:a', 'no_key', 5), ('did:plc:b', 'no_key', 7), ('did:plc:c', 'resync', 11)"
    )
    with stage(database) as harness:
        harness.until(
            lambda: harness.metrics("pending").value("parked_accounts", reason="no_key") == 2
        )
        seen = harness.metrics_now("pending")
    assert seen.value("outbox_waiting", receiver="notifier") == 3
    assert seen.value("outbox_waiting", receiver="user_gate") == 0
    assert seen.value("parked_bytes", reason="no_key") == 12
    assert seen.value("parked_bytes", reason="resync") == 11
    assert seen.value("parked_accounts", reason="wrong_key") == 0


def test_the_sweep_expires_drops_and_counts(database: str, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO engine_pending (uri, awaited, author, kind, created_at)"
        " SELECT 'u' || n, 'at://a/b/' || n, 'did:plc:a', CASE WHEN n % 2 = 0 THEN 'like' ELSE"
        " 'reply' END, localtimestamp - n * interval '1 hour' FROM generate_series(1, 40) n"
    )
    with stage(database, bounds=Bounds(24.5 * 3600, 10, 1 << 30)) as harness:
        harness.until(lambda: count(connection, "engine_pending") == 10)
        harness.until(lambda: harness.metrics("pending").value("pending_waiting", kind="like") > 0)
        seen = harness.metrics_now("pending")
    names = {"pending.expired.like": 8, "pending.expired.reply": 8}
    names |= {"pending.dropped.like": 7, "pending.dropped.reply": 7}
    assert tallies.read(connection, EPOCH) == names
    for kind in ("like", "reply"):
        assert seen.value("pending_total", action="expired", kind=kind) == 8
        assert seen.value("pending_waiting", kind=kind) == 12
        assert seen.value("pending_oldest_seconds", kind=kind) > 23 * 3600
    assert seen.value("pending_waiting", kind="quote") == 0
    rows = connection.execute("SELECT uri FROM engine_pending").fetchall()
    assert {uri for (uri,) in rows} == {f"u{n}" for n in range(1, 11)}


def test_the_sweep_marks_repositories_that_are_refused_no_more(
    database: str, connection: Connection
) -> None:
    connection.execute("INSERT INTO engine_repos (did, rev, withheld) VALUES ('did:a', 'r', true)")
    with stage(database) as harness:
        harness.until(
            lambda: (
                connection.execute("SELECT withheld, out_of_step FROM engine_repos").fetchone()
                == (False, True)
            )
        )


def test_entries_of_before_a_start_are_found_once_the_filter_is_filled(
    database: str, connection: Connection
) -> None:
    key = post_uri(ANN, "later")
    waits(connection, BOB, "1", key)
    with stage(database) as harness:
        start_shards(harness, Script(database))
        harness.until(lambda: harness.metrics("pending").value("pending_filter_bytes") > 0)
        leave(connection, RegistryWork(arrived=(post_uri(ANN, "other"),)))
        leave(connection, RegistryWork(arrived=(key,)))
        again(harness, "shard-0", Script(database, sweeps=True))
        settled(harness, connection)
    assert count(connection, "engine_pending") == 0


def test_many_new_entries_are_brought_within_bounds_before_the_minute_is_over(
    database: str, connection: Connection
) -> None:
    with stage(database, bounds=Bounds(86_400.0, 100, 1 << 30)) as harness:
        harness.until(lambda: harness.metrics("pending").value("pending_filter_bytes") > 0)
        keys = tuple(post_uri(ANN, str(number)) for number in range(1_500))
        with connection.transaction():
            connection.execute(
                "INSERT INTO engine_pending (uri, awaited, author, kind)"
                " SELECT 'at://did:plc:bob/app.bsky.feed.like/' || n, key, 'did:plc:bob', 'like'"
                " FROM unnest(%b::text[]) WITH ORDINALITY AS i (key, n)",
                [text_array(keys)],
            )
            leave(connection, RegistryWork(waiting=keys))
        harness.start("shard-0", FakeShard, Script(database, sweeps=True))
        harness.until(lambda: count(connection, "engine_pending") == 100, seconds=50.0)
    assert tallies.read(connection, EPOCH) == {"pending.dropped.like": 1_400}
