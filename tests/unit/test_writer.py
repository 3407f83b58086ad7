"""The writer against the reference indexer, on the bundled capture, in one process."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from actors.capture import DEMO, read
from actors.decoder import Batch
from actors.store.batch import Outcome
from actors.store.fence import Fence, raise_epoch
from actors.store.schema import create_schema_sql
from actors.store.writer import Writer
from tests import tables
from tests.reference import Reference


@pytest.fixture
def writer(index: str) -> Iterator[Writer]:
    with psycopg.connect(index, autocommit=True) as connection:
        yield make_writer(connection)


def make_writer(connection: psycopg.Connection[Any], actor: str = "shard-0") -> Writer:
    fence = Fence(actor, raise_epoch(connection, "test"), 1)
    fence.claim(connection)
    return Writer(connection, fence)


@pytest.fixture
def index(database: str) -> str:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in create_schema_sql():
            connection.execute(statement)
    return database


def apply(writer: Writer, frames: Sequence[bytes], size: int) -> Outcome:
    total = Outcome()
    for start in range(0, len(frames), size):
        batch = Batch()
        for frame in frames[start : start + size]:
            batch.add(frame)
        total.add(writer.apply(batch.changes))
    return total


def without_users(all_tables: dict[str, Any]) -> dict[str, Any]:
    return {name: rows for name, rows in all_tables.items() if name != "users"}


@pytest.mark.parametrize("size", [1, 97, 5000])
def test_any_batch_size_gives_the_tables_of_the_reference(
    index: str, writer: Writer, size: int
) -> None:
    frames = list(read(DEMO))
    reference = Reference()
    for frame in frames:
        reference.frame(frame)
    apply(writer, frames, size)
    expected = without_users(reference.tables())
    assert tables.differences(expected, without_users(tables.read_tables(index))) == []
