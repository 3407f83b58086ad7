"""A writer's session: its connection, and what its errors mean to an actor.

Actors know no psycopg: what they meet is `DatabaseAway`, which passes, and everything else, which
is a fault of ours and ends the process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import errors

from actors.store.arrays import register
from actors.store.database import connect

# What actors hold and hand back without knowing psycopg.
Connection = psycopg.Connection[Any]

# The server answered, and nothing but trying again in a moment is needed.
PASSING: Final = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,
    errors.LockNotAvailable,
)

# The server is well, and refuses what it was sent. psycopg counts the limits (an index entry that
# is too long, a search vector) among the errors of operation, as if waiting could help.
REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
)


# A standby that was a primary a moment ago, and sessions that PostgreSQL ended for their age, are
# no faults of ours either; psycopg counts them among the internal errors.
_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.lookup("25P04"),  # transaction_timeout
)
# From this version on (as PostgreSQL counts) a whole transaction can have a limit.
_TRANSACTION_TIMEOUT_SINCE: Final = 170_000


class DatabaseAway(Exception):
    """PostgreSQL cannot be used now: stopped, restarting, out of disk. One line; it may pass."""


class TooSlow(Exception):
    """PostgreSQL ended a statement for its time: there was too much to do at once. One line."""


class DatabaseUnusable(Exception):
    """PostgreSQL refuses the statement itself: a right, a table or a column is missing, a trigger
    of somebody raises, the numbers for rows are used up. One line; it does not pass by itself, and
    no record is to blame.
    """


class SessionSettings(NamedTuple):
    """How writers connect. Seconds; 0 switches a limit off. Travels to the actors' processes."""

    conninfo: str
    connect_seconds: float = 10.0
    statement_timeout_seconds: float = 120.0
    lock_timeout_seconds: float = 30.0
    outage_seconds: float = 600.0


def open_session(settings: SessionSettings, actor: str) -> Connection:
    """Open a connection in autocommit mode, named after its actor. Raises DatabaseAway.

    Commits are synchronous whatever the server's default: what an actor has acked must survive a
    crash of PostgreSQL, since nobody sends it again.
    """
    with away():
        connection = connect(
            settings.conninfo,
            application_name=f"skyshard {actor}",
            connect_seconds=settings.connect_seconds,
            autocommit=True,
            settings={
                "statement_timeout": f"{settings.statement_timeout_seconds * 1000:.0f}",
                "lock_timeout": f"{settings.lock_timeout_seconds * 1000:.0f}",
                "synchronous_commit": "on",
            },
        )
        limit = 2 * settings.statement_timeout_seconds
        if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE and limit:
            connection.execute(
                "SELECT set_config('transaction_timeout', %s, false)", [f"{limit * 1000:.0f}"]
            )
    register(connection)
    return connection


@contextmanager
def away() -> Iterator[None]:
    """Turn the errors of a server that is away into DatabaseAway; let all others through."""
    try:
        yield
    except (*PASSING, *REFUSALS):
        raise
    except _AWAY as error:
        raise DatabaseAway(one_line(error)) from error


@contextmanager
def writing() -> Iterator[None]:
    """Turn the errors of a write that no record is to blame for into what they mean.

    DatabaseAway, TooSlow, DatabaseUnusable; locks and refusals pass through, and mistakes in our
    use of psycopg.
    """
    try:
        with away():
            try:
                yield
            except errors.QueryCanceled as error:
                raise TooSlow(one_line(error)) from error
            except errors.SequenceGeneratorLimitExceeded as error:
                # The numbers for rows are used up: no row is to blame.
                raise DatabaseUnusable(one_line(error)) from error
    except (*PASSING, *REFUSALS):
        raise
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        raise DatabaseUnusable(one_line(error)) from error


def one_line(error: Exception) -> str:
    """Return what PostgreSQL said, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def wait_for_session(
    settings: SessionSettings,
    actor: str,
    wait: Callable[[float], None],
    now: Callable[[], float],
    prepare: Callable[[Connection], None],
) -> Connection:
    """Open a connection and prepare it, trying for `outage_seconds`; `wait` sleeps in between.

    Raises DatabaseAway when the time is over, and what `prepare` raises for other reasons.
    """
    deadline = now() + settings.outage_seconds
    pause = 0.1
    while True:
        try:
            return _open_prepared(settings, actor, prepare)
        except DatabaseAway as error:
            if now() >= deadline:
                raise DatabaseAway(
                    f"no connection for {settings.outage_seconds:.0f} s: {error}"
                ) from error
        wait(pause)
        pause = min(pause * 1.5, 2.0)


def _open_prepared(
    settings: SessionSettings, actor: str, prepare: Callable[[Connection], None]
) -> Connection:
    connection = open_session(settings, actor)
    try:
        with away():
            prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection
