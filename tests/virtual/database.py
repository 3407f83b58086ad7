"""PostgreSQL on virtual time: its `now()` is that of the clock of a test.

A function of that name in the schema of the tables is found before PostgreSQL's own, so nothing
of what is tested knows. Each connection is told the time before whatever it does.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
import pytest
from psycopg import sql

from actors.store import database, session

_NOW = (
    "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT"
    " coalesce(to_timestamp(current_setting('virtual.now', true)::float8), pg_catalog.now()) $$"
)


class TimedConnection(psycopg.Connection[Any]):
    """A connection that tells the server the time, when it is another than before."""

    now: ClassVar[Callable[[], float]]
    _told = 0.0

    def execute(self, *arguments: Any, **more: Any) -> Any:
        self._tell()
        return super().execute(*arguments, **more)

    def transaction(self, *arguments: Any, **more: Any) -> Any:
        self._tell()
        return super().transaction(*arguments, **more)

    def _tell(self) -> None:
        now = round(type(self).now(), 3)
        idle = self.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        # Within a transaction no time passes, and what is set there would be taken back with it.
        if now != self._told and idle and not self.pgconn.pipeline_status:
            self._told = now
            super().execute(f"SET virtual.now = '{now!r}'".encode(), prepare=False)


def on_virtual_time(conninfo: str, patch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    """Have an empty database, and every session that actors open, live at the time of `now`."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_NOW)
        name = sql.Identifier(connection.info.dbname)
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = public, pg_catalog").format(name)
        )

    def timed(*arguments: Any, **more: Any) -> psycopg.Connection[Any]:
        connection = database.connect(*arguments, **more)
        connection.__class__ = TimedConnection
        return connection

    patch.setattr(TimedConnection, "now", staticmethod(now), raising=False)
    patch.setattr(session, "connect", timed)
