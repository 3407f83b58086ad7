"""An operator's decision about accounts and records: one transaction, and the purges it orders.

No writer's transaction is under way while a decision is made: it waits for those that are, and
those that come wait for it. So each batch either knows the decision, or is durable before it and
purged with the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from psycopg import Connection, errors

from actors.store.database import connect
from actors.store.fence import FENCE_LOCK, OWNER_LOCK

# A writer's transaction may take as long as its own limits allow; what is longer is a fault.
WAIT_SECONDS: Final = 120
ATTEMPTS: Final = 5
T = TypeVar("T")
# What a purge takes along: a stronger reason replaces a weaker one that is under way.
_QUEUE: Final = (
    "INSERT INTO engine_purges AS p (subject, reason) SELECT s, %s FROM unnest(%s::text[]) AS s"
    " ON CONFLICT (subject) DO UPDATE SET reason ="
    " CASE WHEN p.reason = 'forget' THEN p.reason ELSE excluded.reason END"
)
_ENGINE_RUNS: Final = (
    "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
    " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = 0"
    " AND l.objid = %s::bigint::oid AND l.objsubid = 1 AND l.granted)"
)


class Purge(NamedTuple):
    """What is to be removed of a subject, why, and how many records are gone so far."""

    subject: str
    reason: str
    removed: int


@contextmanager
def looking(conninfo: str) -> Iterator[Connection[Any]]:
    """A connection in autocommit mode for an operator's command. Raises psycopg.Error."""
    with connect(conninfo, application_name="skyshard command", autocommit=True) as connection:
        yield connection


def decide(connection: Connection[Any], do: Callable[[], T]) -> T:
    """Do this in the transaction of a decision; returns what it returns.

    Deadlocks are tried again. Raises psycopg.Error, also where a writer is in the way for longer
    than two minutes.
    """
    for _attempt in range(ATTEMPTS - 1):
        try:
            return _once(connection, do)
        except errors.DeadlockDetected:
            continue
    return _once(connection, do)


def _once(connection: Connection[Any], do: Callable[[], T]) -> T:
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
        connection.execute(f"SELECT pg_advisory_xact_lock({FENCE_LOCK})")
        return do()


def order_purges(connection: Connection[Any], subjects: Sequence[str], reason: str) -> None:
    """Have everything removed that is stored of these subjects (DIDs, uris)."""
    connection.execute(_QUEUE, [reason, list(subjects)])


def purges_of(connection: Connection[Any], subjects: Sequence[str]) -> list[Purge]:
    """Return what is still to be removed of these subjects."""
    rows = connection.execute(
        "SELECT subject, reason, removed FROM engine_purges WHERE subject = ANY(%s)"
        " ORDER BY subject",
        [list(subjects)],
    ).fetchall()
    return [Purge(*row) for row in rows]


def engine_runs(connection: Connection[Any]) -> bool:
    """Whether a run holds this database now."""
    row = connection.execute(_ENGINE_RUNS, [OWNER_LOCK]).fetchone()
    return row is not None and bool(row[0])
