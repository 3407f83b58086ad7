"""Bringing a database to the tables of this program.

Idempotent, and safe beside readers: what is there stays, what is missing is added.
"""

from typing import Any, Final

import psycopg
from psycopg import Connection

from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import SCHEMA_VERSION, TABLES, schema_relations

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

    Where nothing is, no right is needed but to read. The connection must be in autocommit mode.
    Raises DatabaseRefused where the tables belong to a newer program.
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
        statements = _missing(connection, count_indexes=count_indexes)
        for statement in statements:
            connection.execute(statement)
        if before != SCHEMA_VERSION:
            connection.execute(
                "INSERT INTO engine_schema (id, version) VALUES (1, %s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version",
                [SCHEMA_VERSION],
            )
    return bool(statements) or before != SCHEMA_VERSION


def _version(connection: Connection[Any]) -> int | None:
    known = connection.execute("SELECT to_regclass('engine_schema')").fetchone()
    if known is None or known[0] is None:
        return None
    row = connection.execute("SELECT version FROM engine_schema WHERE id = 1").fetchone()
    return None if row is None else int(row[0])


def _missing(connection: Connection[Any], *, count_indexes: bool) -> list[str]:
    """Return the statements that make what is not there; none asks for a right it does not need.

    From the catalogs, since information_schema hides what a role may not use.
    """
    rows = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c"
        " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = current_schema()::regnamespace GROUP BY c.relname"
    ).fetchall()
    present: dict[str, list[str]] = dict(rows)
    columns = [
        f"ALTER TABLE {table.name} ADD COLUMN {column.sql()}"
        for table in TABLES.values()
        if table.name in present
        for column in table.columns
        if column.name not in present[table.name]
    ]
    relations = schema_relations(count_indexes=count_indexes)
    return columns + [sql for name, sql in relations.items() if name not in present]
