"""The saved position in the firehose: one row of `firehose_cursor` for each host.

Everything at or before the saved cursor is durable, with its effects; the row may lag and never
leads. It is written in a transaction of its own that first proves, by the fence, that this is still
the living generation of the run that owns the database.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple

import psycopg

from actors.store import outbox, parking, tallies
from actors.store.fence import Fence
from actors.store.purge import list_purges

MAX_SERVICE_BYTES: Final = 255
"""Longest key that the column takes on every database that the engine may run on."""

_LOAD: Final = "SELECT cursor, last_event_time FROM firehose_cursor WHERE service = %s"

# Captures are of the past: what was read of them says nothing about relays.
_ELSEWHERE: Final = """
SELECT extract(epoch FROM max(last_event_time))::float8 FROM firehose_cursor
WHERE service <> %s AND NOT starts_with(service, 'capture:')
"""

_SAVED_IN_THIS_RUN: Final = """
SELECT 1 FROM firehose_cursor AS c, engine_epoch AS e
WHERE c.service = %s AND e.epoch = %s AND c.updated_at >= e.started_at
"""

_SAVE: Final = """
INSERT INTO firehose_cursor (service, cursor, last_event_time, updated_at)
VALUES (%(service)s, %(cursor)s, %(time)s, now())
ON CONFLICT (service) DO UPDATE
SET cursor = excluded.cursor, last_event_time = excluded.last_event_time, updated_at = now()
"""

_GO_ON: Final = "UPDATE engine_epoch SET ended = false WHERE epoch = %s AND ended"
_END: Final = "UPDATE engine_epoch SET ended = true WHERE epoch = %s"

# The comparison makes two writers safe as well, should the fence ever let both through.
_FORWARD: Final = """
WHERE firehose_cursor.cursor IS NULL
   OR firehose_cursor.cursor::numeric < excluded.cursor::numeric
"""


class CheckpointError(Exception):
    """The checkpoint could not be read or written now; it may work later. One line, says why."""


class CheckpointUnusable(Exception):
    """What is saved is no cursor. The message names the row and what the operator can do."""


class Saved(NamedTuple):
    """A saved position: the cursor, and the time of its event in Unix seconds where known."""

    cursor: int
    last_event_time: float | None


class Checkpoint:
    """Loads and saves the position of one host, on a connection that it makes anew when it broke.

    Args:
        host: the upstream whose sequence numbers these are.
        connect: opens a connection with short time limits; raises psycopg.Error.
        fence: what proves that this process may still write.
    """

    def __init__(self, host: str, connect: Callable[[], psycopg.Connection], fence: Fence) -> None:
        self._service = service_key(host)
        self._host = host
        self._connect = connect
        self._fence = fence
        self._connection: psycopg.Connection | None = None

    def claim(self) -> None:
        """Make this the generation that may save, and have the run go on. Raises CheckpointError,
        and Fenced where a newer generation or run lives.
        """
        try:
            self._fence.claim(self._open())
            # A generation that was told to stop by itself ended the run, and has a successor.
            self._open().execute(_GO_ON, [self._fence.epoch])
        except psycopg.Error as error:
            raise self._failed("claimed", error) from error

    def load(self) -> Saved | None:
        """Return what is saved, or None where nothing is.

        Raises CheckpointError when the database does not answer, CheckpointUnusable when the row
        holds something that is no cursor.
        """
        try:
            row = self._open().execute(_LOAD, [self._service]).fetchone()
        except psycopg.Error as error:
            raise self._failed("read", error) from error
        if row is None or row[0] is None:
            return None
        text, time = row
        # Longer than the protocol's 2^53 - 1 cannot be right, and int() refuses what is huge.
        if not (text.isascii() and text.isdigit() and len(text) <= 16):
            raise CheckpointUnusable(
                f"the checkpoint of {self._host} in firehose_cursor is {text[:40]!r}, which is no"
                " cursor; give --cursor, --since or --from-start, or delete the row"
            )
        return Saved(int(text), None if time is None else time.replace(tzinfo=UTC).timestamp())

    def elsewhere(self) -> float | None:
        """Return the Unix time up to which another relay has been read; None for none.

        Raises CheckpointError.
        """
        try:
            row = self._open().execute(_ELSEWHERE, [self._service]).fetchone()
        except psycopg.Error as error:
            raise self._failed("read", error) from error
        return None if row is None else row[0]

    def saved_in_this_run(self) -> bool:
        """Return whether what is saved was saved since the run began. Raises CheckpointError."""
        try:
            values = [self._service, self._fence.epoch]
            return self._open().execute(_SAVED_IN_THIS_RUN, values).fetchone() is not None
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def save(self, cursor: int, last_event_time: float | None) -> None:
        """Save a position unless a later one is there. Raises CheckpointError."""
        self._write(_SAVE + _FORWARD, cursor, last_event_time)

    def replace(self, cursor: int, last_event_time: float | None) -> None:
        """Save a position even where a later one is there: the start that the operator asked for,
        or the new numbering of a host whose sequence began again. Raises CheckpointError.
        """
        self._write(_SAVE, cursor, last_event_time)

    def outbox_depth(self) -> int:
        """Return how many pieces of work are left: rows of the outbox, purges under way, and
        accounts whose events wait and soon will no more.

        Raises CheckpointError.
        """
        try:
            connection = self._open()
            purges = len(list_purges(connection))
            return outbox.depth(connection) + purges + parking.left(connection)
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def tallies(self) -> dict[str, int]:
        """Return what all actors did in this run, by name. Raises CheckpointError."""
        try:
            return tallies.read(self._open(), self._fence.epoch)
        except psycopg.Error as error:
            raise self._failed("read", error) from error

    def end_run(self) -> None:
        """Say that the run ends in good order. Raises CheckpointError."""
        try:
            self._open().execute(_END, [self._fence.epoch])
        except psycopg.Error as error:
            raise self._failed("closed", error) from error

    def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write(self, statement: str, cursor: int, last_event_time: float | None) -> None:
        time = None
        if last_event_time is not None:
            time = datetime.fromtimestamp(last_event_time, UTC).replace(tzinfo=None)
        values = {"service": self._service, "cursor": str(cursor), "time": time}
        try:
            connection = self._open()
            with connection.transaction():
                self._fence.check(connection)
                connection.execute(statement.encode(), values)
        except psycopg.Error as error:
            raise self._failed("saved", error) from error

    def _open(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            connection = self._connect()
            connection.autocommit = True
            self._connection = connection
        return self._connection

    def _failed(self, verb: str, error: psycopg.Error) -> CheckpointError:
        self.close()
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        return CheckpointError(f"the checkpoint of {self._host} cannot be {verb}: {reason}")


def service_key(host: str) -> str:
    """Return the value of `service` for a host; one too long for the column is shortened."""
    raw = host.encode("utf-8", "surrogateescape")
    if len(raw) <= MAX_SERVICE_BYTES and host.isprintable():
        return host
    start = "".join(c if c.isascii() and c.isprintable() else "?" for c in host[:40])
    return f"{start}#{sha256(raw).hexdigest()}"
