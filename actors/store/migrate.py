"""Bringing a database to the tables of this program: an empty one, an older one of ours, or that
of an AppView that had workers of its own.

Idempotent, resumable, and safe beside readers: what is there stays, what is missing is added, no
table is rewritten, and no table is locked for longer than a moment.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import Connection, sql

from actors.store import migrate_fill
from actors.store.migrate_catalog import Catalog, Constraint, read_catalog
from actors.store.migrate_indexes import (
    SMALL_BYTES,
    Wanted,
    make_byte_order,
    make_indexes,
    missing_indexes,
    wanted_indexes,
)
from actors.store.migrate_locks import MIGRATE_LOCK, alone, patiently
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import SCHEMA_VERSION, TABLES
from actors.store.table import Column, Table

__all__ = ["MIGRATE_LOCK", "bring_up_to_date", "migrate"]

# Foreign keys by which a row is lost or refused for the sake of another: table and target.
_LOSSY_KEYS: Final = frozenset((("label_events", "labels"), ("user_settings", "users")))
# A subject has one verification by each issuer, not one at all.
_LOSSY_UNIQUE: Final = ("verifications", ("subject_did",))


def migrate(conninfo: str, *, count_indexes: bool = False, small_bytes: int = SMALL_BYTES) -> bool:
    """Bring a database up to date; returns whether anything had to be done.

    Rows that an AppView's own workers wrote since the last time are filled as well. `small_bytes`
    is the size of a table up to which an index is made at once, with its writers waiting. Raises
    DatabaseRefused where the tables belong to a newer program or others hold one for too long,
    psycopg.Error.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return bring_up_to_date(
            connection, count_indexes=count_indexes, fill=True, small_bytes=small_bytes
        )


def bring_up_to_date(
    connection: Connection[Any],
    *,
    count_indexes: bool = False,
    fill: bool = False,
    small_bytes: int = SMALL_BYTES,
) -> bool:
    """Make every table, column and index that is missing, and fill what old rows lack; returns
    whether there was anything to do.

    Where nothing is, no right is needed but to read. Tables of this version are looked through for
    rows to fill only with `fill`. The connection must be in autocommit mode. Raises as `migrate`.
    """
    with alone(connection):
        before = _version(connection)
        if before is not None and before > SCHEMA_VERSION:
            raise DatabaseRefused(
                Reason.NEWER_SCHEMA,
                f"the tables of this database are of version {before}, and this program knows"
                f" {SCHEMA_VERSION}: run the newer program, or give another database",
            )
        catalog = read_catalog(connection)
        changed = _make_tables(connection, catalog, count_indexes=count_indexes)
        changed |= _change_tables(connection, catalog)
        if fill or before != SCHEMA_VERSION:
            changed |= migrate_fill.set_aside_verifications(connection) > 0
            changed |= migrate_fill.fill(connection, migrate_fill.COLUMNS) > 0
        if before != SCHEMA_VERSION:
            migrate_fill.fill(connection, migrate_fill.PROFILES)
        # With the new columns and tables.
        catalog = read_catalog(connection)
        lossy = _lossy_uniques(catalog)
        changed |= make_byte_order(connection, catalog, small_bytes)
        missing = missing_indexes(catalog, count_indexes=count_indexes, besides=lossy)
        make_indexes(connection, catalog, missing, small_bytes)
        _drop_uniques(connection, catalog, lossy)
        if before != SCHEMA_VERSION:
            migrate_fill.fill(connection, migrate_fill.AGGREGATES)
            connection.execute(
                "INSERT INTO engine_schema (id, version) VALUES (1, %s)"
                " ON CONFLICT (id) DO UPDATE SET version = excluded.version",
                [SCHEMA_VERSION],
            )
    return changed or bool(missing) or bool(lossy) or before != SCHEMA_VERSION


def _version(connection: Connection[Any]) -> int | None:
    known = connection.execute("SELECT to_regclass('engine_schema')").fetchone()
    if known is None or known[0] is None:
        return None
    row = connection.execute("SELECT version FROM engine_schema WHERE id = 1").fetchone()
    return None if row is None else int(row[0])


def _make_tables(connection: Connection[Any], catalog: Catalog, *, count_indexes: bool) -> bool:
    """Make the tables that are missing, with their indexes; nobody can be in the way of those."""
    new = [table for table in TABLES.values() if table.name not in catalog.columns]
    indexes: dict[str, list[Wanted]] = {}
    for wanted in wanted_indexes(count_indexes=count_indexes):
        indexes.setdefault(wanted.shape.table, []).append(wanted)
    with connection.transaction():
        for table in new:
            connection.execute(_alike(table, catalog).create_sql().encode(), prepare=False)
            for wanted in indexes.get(table.name, ()):
                connection.execute(wanted.sql.encode(), prepare=False)
    return bool(new)


def _change_tables(connection: Connection[Any], catalog: Catalog) -> bool:
    """Add the columns that are missing, and drop the foreign keys that lose data."""
    changed = False
    for table in TABLES.values():
        if table.name not in catalog.columns:
            continue
        there = catalog.columns[table.name]
        changes = [
            f"ADD COLUMN {column.sql()}"
            for column in _alike(table, catalog).columns
            if column.name not in there
        ]
        changes += [
            f"DROP CONSTRAINT {_quoted(constraint.name)}"
            for constraint in catalog.constraints
            if constraint.kind == "f"
            and constraint.table == table.name
            and (constraint.table, constraint.target) in _LOSSY_KEYS
        ]
        if changes:
            patiently(connection, table.name, f"ALTER TABLE {table.name} {', '.join(changes)}")
            changed = True
    return changed


def _alike(table: Table, catalog: Catalog) -> Table:
    """The table as it fits in: keys of one database all have one collation."""
    if catalog.key_collation:
        return table
    columns: Iterable[Column] = (replace(column, key_text=False) for column in table.columns)
    return replace(table, columns=tuple(columns))


def _lossy_uniques(catalog: Catalog) -> frozenset[str]:
    """Names of the unique indexes that keep records out which have a right to be in."""
    table, columns = _LOSSY_UNIQUE
    return frozenset(
        index.name
        for index in catalog.indexes
        if index.shape.table == table and index.shape.unique and index.shape.keys == columns
    )


def _drop_uniques(connection: Connection[Any], catalog: Catalog, names: frozenset[str]) -> None:
    constraints: dict[str, Constraint] = {
        constraint.index: constraint for constraint in catalog.constraints if constraint.index
    }
    for name in sorted(names):
        constraint = constraints.get(name)
        table = _LOSSY_UNIQUE[0]
        if constraint is None:
            patiently(connection, table, f"DROP INDEX {_quoted(name)}")
        else:
            patiently(
                connection, table, f"ALTER TABLE {table} DROP CONSTRAINT {_quoted(constraint.name)}"
            )


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
