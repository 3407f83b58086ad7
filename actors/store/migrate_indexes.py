"""The indexes that are missing, by what they do and not by their names, and how they are made
beside readers and writers.
"""

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import structlog
from psycopg import Connection, sql

from actors.store.migrate_catalog import Catalog, Shape, wanted_shape
from actors.store.migrate_locks import patiently
from actors.store.schema import TABLES

log = structlog.get_logger()

# On a table up to this size an index is made at once; writers wait for it less than for a build
# that waits for every transaction under way.
SMALL_BYTES: Final = 8 * 1024 * 1024


# Tables in which an author's records are found by a range of keys (see `author_range`).
_BY_AUTHOR: Final = (
    ("list_items", "uri"),
    ("post_gates", "post_uri"),
    ("notifications", "engine_record_uri"),
    ("engine_duplicates", "uri"),
)


class Wanted(NamedTuple):
    """An index of the schema: its name, its shape, and the statement that makes it."""

    name: str
    shape: Shape
    sql: str


def wanted_indexes(*, count_indexes: bool) -> Iterator[Wanted]:
    """Give every index of the schema."""
    for table in TABLES.values():
        texts = (*table.unique, *table.indexes, *(table.count_indexes if count_indexes else ()))
        made = table.index_sql(count_indexes=count_indexes).items()
        for text, (name, statement) in zip(texts, made, strict=True):
            shape = wanted_shape(table.name, text, unique=text in table.unique)
            yield Wanted(name, shape, statement)


def missing_indexes(
    catalog: Catalog, *, count_indexes: bool, besides: frozenset[str]
) -> list[Wanted]:
    """Return the indexes that no existing one stands in for; those `besides` are to go."""
    return [
        wanted
        for wanted in wanted_indexes(count_indexes=count_indexes)
        if not catalog.serves(wanted.shape, wanted.name, besides)
    ]


def make_byte_order(connection: Connection[Any], catalog: Catalog, small_bytes: int) -> bool:
    """Where keys are not in the order of bytes, make the indexes that give all records of an author
    in one table which has no column for the author; returns whether any was missing.
    """
    if catalog.key_collation:
        return False
    missing = []
    for table, column in _BY_AUTHOR:
        name = f"{table}_{column}_bytes_skyshard"
        if not any(index.name == name and index.valid for index in catalog.indexes):
            shape = Shape(table, "btree", unique=False, keys=(column,), options=(0,), condition="")
            statement = f'CREATE INDEX IF NOT EXISTS {name} ON {table} ({column} COLLATE "C")'
            missing.append(Wanted(name, shape, statement))
    make_indexes(connection, catalog, missing, small_bytes)
    return bool(missing)


def make_indexes(
    connection: Connection[Any], catalog: Catalog, missing: list[Wanted], small_bytes: int
) -> None:
    """Make indexes of tables that are there. A half-made one of ours goes first.

    The connection must be in no transaction, and wait for locks as long as it takes.
    """
    halves = {index.name for index in catalog.indexes if not index.valid}
    for number, wanted in enumerate(missing, 1):
        if wanted.name in halves:
            log.info("an index was left half made and is made again", index=wanted.name)
            drop = sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(wanted.name))
            connection.execute(drop)
        table = wanted.shape.table
        size = _size(connection, table)
        if size <= small_bytes:
            patiently(connection, table, wanted.sql)
            continue
        log.info(
            "making an index beside readers and writers; it waits for the transactions under way",
            index=wanted.name,
            number=f"{number} of {len(missing)}",
            table_mb=size // 2**20,
        )
        began = time.monotonic()
        connection.execute(
            wanted.sql.replace(" INDEX IF", " INDEX CONCURRENTLY IF", 1).encode(), prepare=False
        )
        log.info("the index is made", index=wanted.name, seconds=round(time.monotonic() - began))


def _size(connection: Connection[Any], table: str) -> int:
    row = connection.execute(
        sql.SQL("SELECT pg_table_size({}::regclass)").format(table), prepare=False
    ).fetchone()
    assert row is not None
    return int(row[0])
