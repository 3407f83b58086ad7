"""Bringing a database to the tables of this program.

Idempotent, and safe beside readers: what is there stays, what is missing is added.
"""

from typing import Any, Final

import psycopg
from psycopg import Connection

from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import SCHEMA_VERSION, TABLES, create_schema_sql

# Two programs that migrate at once would trip over each other.
MIGRATE_LOCK: Final = 0x5359_0003


def migrate(conninfo: str, *, count_indexes: bool = False) -> bool:
    """Bring a database up to date; returns whether anything had to be done.

    Raises DatabaseRefused where the tables belong to a newer program, psycopg.Error.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return bring_up_to_date(connection, count_indexes=count_indexes)


def bring_up_to_date(connection: Connection[Any], *, count_indexes: bool = False) -> bool:
    """Make every table, column and index that is missing; returns whether anything was.

    The connection must be in autocommit mode. Raises DatabaseRefused where the tables belong to a
    newer program.
    """
    with connection.transaction():
        # Building an index on a large table takes as long as it takes.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATE_LOCK])
        before = _version(connection)
        if before is not None and before > SCHEMA_VERSION:
            raise DatabaseRefused(
                Reason.NEWER_SCHEMA,
                f"the tables of this database are of version {before}, and this program knows"
                f" {SCHEMA_VERSION}: run the newer program, or give another database",
            )
        # Names in `IF NOT EXISTS` that exist are notices of no use to anyone.
        connection.execute("SET LOCAL client_min_messages = warning")
        relations = _relations(connection)
        added = _add_columns(connection)
        for statement in create_schema_sql(count_indexes=count_indexes):
            connection.execute(statement)
        if before != SCHEMA_VERSION:
            connection.execute(
                "INSERT INTO engine_schema (id, version) VALUES (1, %s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version",
                [SCHEMA_VERSION],
            )
        added = added or _relations(connection) != relations
    return added or before != SCHEMA_VERSION


def _version(connection: Connection[Any]) -> int | None:
    known = connection.execute("SELECT to_regclass('engine_schema')").fetchone()
    if known is None or known[0] is None:
        return None
    row = connection.execute("SELECT version FROM engine_schema WHERE id = 1").fetchone()
    return None if row is None else int(row[0])


def _relations(connection: Connection[Any]) -> int:
    """Return how many tables and indexes there are."""
    row = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    ).fetchone()
    assert row is not None
    return int(row[0])


def _add_columns(connection: Connection[Any]) -> bool:
    """Add the columns that tables of another program lack; returns whether there were any."""
    rows = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema()"
    ).fetchall()
    present: dict[str, set[str]] = {}
    for table, column in rows:
        present.setdefault(table, set()).add(column)
    added = False
    for table in TABLES.values():
        if table.name not in present:
            continue
        for column in table.columns:
            if column.name not in present[table.name]:
                connection.execute(f"ALTER TABLE {table.name} ADD COLUMN {column.sql()}")
                added = True
    return added
