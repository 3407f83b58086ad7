"""Databases as an Aurora Prism server makes them, and what its own workers leave in them."""

from pathlib import Path

import psycopg

_TABLES = Path(__file__).parent / "prism_tables.sql"


def make_prism(conninfo: str) -> str:
    """Make an AppView's tables in an empty database."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_TABLES.read_bytes())
    return conninfo
