"""The saved position in the firehose, in a real PostgreSQL."""

import time
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from actors.store.checkpoint import (
    MAX_SERVICE_BYTES,
    Checkpoint,
    CheckpointError,
    CheckpointUnusable,
    Saved,
    service_key,
)
from actors.store.database import connect
from actors.store.fence import Fence, Fenced, raise_epoch
from tests.writing import make_index

HOST = "relay.example"


@pytest.fixture
def tables(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(make_index(database), autocommit=True) as connection:
        yield connection


def checkpoint(database: str, tables: psycopg.Connection, host: str = HOST) -> Checkpoint:
    row = tables.execute("SELECT epoch FROM engine_epoch").fetchone()
    epoch = row[0] if row else raise_epoch(tables, "test")
    opened = partial(connect, database, application_name="ingest")
    made = Checkpoint(host, opened, Fence("ingest", epoch, 1))
    made.claim()
    return made


def test_what_is_saved_is_loaded(database: str, tables: psycopg.Connection) -> None:
    first = checkpoint(database, tables)
    assert first.load() is None
    first.save(2**53 - 1, 1_767_225_600.25)
    first.close()
    second = checkpoint(database, tables)
    assert second.load() == Saved(2**53 - 1, 1_767_225_600.25)
    second.close()


def test_a_position_without_a_time_is_a_position(database: str, tables: psycopg.Connection) -> None:
    one = checkpoint(database, tables)
    one.save(7, None)
    assert one.load() == Saved(7, None)
    one.close()


def test_a_save_never_moves_the_cursor_backwards(database: str, tables: psycopg.Connection) -> None:
    one = checkpoint(database, tables)
    one.save(1000, 10.0)
    one.save(999, 20.0)  # as text it would be the larger one
    assert one.load() == Saved(1000, 10.0)
    one.save(1001, 30.0)
    assert one.load() == Saved(1001, 30.0)
    one.close()


def test_an_operator_may_move_it_backwards(database: str, tables: psycopg.Connection) -> None:
    one = checkpoint(database, tables)
    one.save(1000, 10.0)
    one.replace(5, None)
    assert one.load() == Saved(5, None)
    one.close()


def test_each_host_has_its_own(database: str, tables: psycopg.Connection) -> None:
    one, other = checkpoint(database, tables), checkpoint(database, tables, "other.example")
    one.save(1000, 10.0)
    assert other.load() is None
    other.save(3, 1.0)
    assert one.load() == Saved(1000, 10.0)
    one.close()
    other.close()


def test_a_replaced_generation_cannot_save(database: str, tables: psycopg.Connection) -> None:
    ghost = checkpoint(database, tables)
    ghost.save(10, None)
    row = tables.execute("SELECT epoch FROM engine_epoch").fetchone()
    assert row is not None
    Fence("ingest", row[0], 2).claim(tables)
    with pytest.raises(Fenced):
        ghost.save(11, None)
    assert ghost.load() == Saved(10, None)
    ghost.close()


def test_a_replaced_run_cannot_save(database: str, tables: psycopg.Connection) -> None:
    ghost = checkpoint(database, tables)
    raise_epoch(tables, "a newer run")
    with pytest.raises(Fenced):
        ghost.replace(11, None)
    assert ghost.load() is None
    ghost.close()


def test_a_lost_connection_is_one_error_and_then_a_new_connection(
    database: str, tables: psycopg.Connection
) -> None:
    one = checkpoint(database, tables)
    tables.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ingest'"
    )
    deadline = time.monotonic() + 120
    while tables.execute(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'ingest'"
    ).fetchone():
        assert time.monotonic() < deadline
    with pytest.raises(CheckpointError) as caught:
        one.save(12, None)
    assert "\n" not in str(caught.value)
    one.save(12, None)
    assert one.load() == Saved(12, None)
    one.close()


@pytest.mark.parametrize("text", ["", "abc", "-5", "1e5", "9" * 17, "٣"])
def test_a_row_that_holds_no_cursor_is_not_taken_for_one(
    database: str, tables: psycopg.Connection, text: str
) -> None:
    tables.execute("INSERT INTO firehose_cursor (service, cursor) VALUES (%s, %s)", [HOST, text])
    one = checkpoint(database, tables)
    with pytest.raises(CheckpointUnusable, match="--cursor"):
        one.load()
    one.close()


def test_a_row_without_a_cursor_is_no_checkpoint(database: str, tables: psycopg.Connection) -> None:
    tables.execute("INSERT INTO firehose_cursor (service) VALUES (%s)", [HOST])
    one = checkpoint(database, tables)
    assert one.load() is None
    one.save(4, None)
    assert one.load() == Saved(4, None)
    one.close()


def test_the_outbox_is_counted(database: str, tables: psycopg.Connection) -> None:
    one = checkpoint(database, tables)
    assert one.outbox_depth() == 0
    tables.execute("INSERT INTO engine_outbox (receiver, body) VALUES ('user_gate', '')")
    assert one.outbox_depth() == 1
    one.close()


@pytest.mark.parametrize("host", ["capture:/" + "d" * 300, "capture:/a\udcffb", "x\ny"])
def test_a_host_that_no_column_takes_has_a_key_all_the_same(host: str) -> None:
    key = service_key(host)
    assert len(key.encode()) <= MAX_SERVICE_BYTES
    assert key.isprintable()
    assert key == service_key(host) != service_key(host + "x")
