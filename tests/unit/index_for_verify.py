"""A database with the small network's index in it, sound, to be damaged."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from actors.store.embedded import EmbeddedPostgres
from actors.store.schema import TABLES, create_schema_sql
from tests.small_network import network
from tests.tables import write_tables
from tests.unit.verify_damage import FURNISHED


@contextmanager
def schema_of(server: EmbeddedPostgres, name: str) -> Iterator[str]:
    """A database with the tables of the index, as long as the block lasts."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            conninfo = server.conninfo(name)
            run(conninfo, *create_schema_sql(), must_change=False)
            yield conninfo
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def empty_tables(conninfo: str) -> None:
    """Take every row away."""
    run(conninfo, *(f"DELETE FROM {table}" for table in TABLES), must_change=False)


def fill(conninfo: str) -> None:
    """Put the small network into empty tables."""
    write_tables(conninfo, network().tables())
    run(conninfo, *FURNISHED, must_change=False)


def run(conninfo: str, *statements: str, must_change: bool = True) -> None:
    """Execute statements, which find something to change."""
    with psycopg.connect(conninfo) as connection:
        for statement in statements:
            changed = connection.execute(statement.encode()).rowcount
            assert changed > 0 or not must_change, f"no row to damage: {statement}"
