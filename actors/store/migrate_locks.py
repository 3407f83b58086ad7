"""Changing a table that others are using: asking for its lock again and again, never long at a
time, since everybody who comes later waits behind whoever asks for a table alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from psycopg import Connection, errors, sql

from actors.store.refusal import DatabaseRefused, Reason

log = structlog.get_logger()

# Two programs that migrate at once would trip over each other.
MIGRATE_LOCK: Final = 0x5359_0003
# Longer than it takes PostgreSQL to send its own vacuum away (deadlock_timeout).
ASK_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.05
_TOLD_AFTER_SECONDS: Final = 5.0
# What would cut a migration short; the last one is known to PostgreSQL 17 and later.
_LIMITS: Final = ("statement_timeout", "lock_timeout", "transaction_timeout")


def patiently(connection: Connection[Any], table: str, statement: str) -> None:
    """Execute a statement that needs a table to itself for a moment, in a transaction of its own.

    Raises DatabaseRefused where others hold the table for all of PATIENCE_SECONDS.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    told = False
    while True:
        try:
            with connection.transaction():
                connection.execute(
                    "SELECT set_config('lock_timeout', %s, true)", [f"{ASK_SECONDS * 1000:.0f}"]
                )
                connection.execute(statement.encode(), prepare=False)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                raise DatabaseRefused(
                    Reason.IN_THE_WAY,
                    f"others have held the table {table} for {PATIENCE_SECONDS:.0f} s, and it must"
                    " be changed: end their transactions (see pg_stat_activity), then try again;"
                    " what is done stays done",
                ) from error
            if not told:
                log.info("others hold a table that must be changed: asking again", table=table)
                told = True
            time.sleep(PAUSE_SECONDS)
        else:
            return


@contextmanager
def alone(connection: Connection[Any]) -> Iterator[None]:
    """Hold the lock of migrations, without limits of time, for the length of the block.

    The lock is asked for without waiting: a statement that waits keeps a snapshot, and whoever
    makes an index beside others waits for every snapshot to go.
    """
    began = time.monotonic()
    told = False
    while not _try_lock(connection):
        if not told and time.monotonic() - began > _TOLD_AFTER_SECONDS:
            log.info("waiting for another program that migrates this database")
            told = True
        time.sleep(_POLL_SECONDS)
    before = _limits(connection)
    try:
        _set(connection, dict.fromkeys(before, "0"))
        yield
    finally:
        if not connection.closed:
            _set(connection, before)
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])


def _try_lock(connection: Connection[Any]) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATE_LOCK]).fetchone()
    return row is not None and bool(row[0])


def _limits(connection: Connection[Any]) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [list(_LIMITS)]
    ).fetchall()
    return dict(rows)


def _set(connection: Connection[Any], limits: dict[str, str]) -> None:
    for name, value in limits.items():
        connection.execute(
            sql.SQL("SELECT set_config({}, {}, false)").format(name, value), prepare=False
        )
