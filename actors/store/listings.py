"""Lists of accounts whose repositories are wanted, as a relay or another server gives them, page by
page (`engine_listings`).

The cursor is written with the accounts of its page, so a crash repeats one page at most. Pages are
asked for as long as few backfills wait, so the queue does not grow with the network.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store import backfills
from actors.store.fence import Fence
from actors.store.incomplete import BACKFILL_LAST, DONE, FAILED, WAITING

RELAY: Final = "relay"
"""The name of the list that the relay of the run gives, whichever that is."""
AHEAD: Final = 10_000
"""Backfills that wait, beyond which no more accounts are asked for."""

# One that is being read goes on where it is; one that was read or given up begins anew.
_ORDER_SQL: Final = f"""
    INSERT INTO engine_listings AS l (name, again) VALUES (%s, %s)
    ON CONFLICT (name) DO UPDATE SET state = '{WAITING}', attempts = 0, next_try = now(),
        reason = NULL, again = excluded.again,
        cursor = CASE l.state WHEN '{DONE}' THEN NULL ELSE l.cursor END,
        listed = CASE l.state WHEN '{DONE}' THEN 0 ELSE l.listed END
"""  # noqa: S608 - it is made of constants
_DUE_SQL: Final = f"""
    SELECT name, url, cursor, attempts FROM engine_listings
    WHERE state = '{WAITING}' AND next_try <= now() AND (
        SELECT count(*) FROM (SELECT FROM engine_incomplete
        WHERE state = '{WAITING}' AND rank = {BACKFILL_LAST} LIMIT {AHEAD}) e) < {AHEAD}
    ORDER BY next_try LIMIT 1
"""  # noqa: S608 - it is made of constants
_TURN_SQL: Final = f"""
    UPDATE engine_listings SET url = %s, cursor = %s, listed = listed + %s, attempts = 0,
        reason = NULL, state = CASE WHEN %s THEN '{DONE}' ELSE '{WAITING}' END, next_try = now()
    WHERE name = %s RETURNING again
"""  # noqa: S608 - it is made of constants
_FAILED_SQL: Final = """
    UPDATE engine_listings SET state = %s, attempts = %s, reason = %s,
        next_try = now()::timestamp + %s * interval '1 second' WHERE name = %s
"""


class Due(NamedTuple):
    """A list of which a page is to be asked for; the cursor is of that server."""

    name: str
    url: str | None
    cursor: str | None
    attempts: int


class Listing(NamedTuple):
    """How far a list is: accounts so far, its state (waiting, done, failed), the last failure."""

    listed: int
    state: str
    reason: str | None

    @property
    def is_over(self) -> bool:
        """Whether no more of it comes."""
        return self.state != WAITING


def order(connection: Connection[Any], name: str, *, again: bool) -> None:
    """Have the accounts of a list backfilled: that of a server (its URL), or of the relay (RELAY).

    With `again` also those that were fetched before.
    """
    connection.execute(_ORDER_SQL.encode(), [name, again])


def listing(connection: Connection[Any], name: str) -> Listing:
    """How far a list is that was ordered."""
    row = connection.execute(
        "SELECT listed, state, reason FROM engine_listings WHERE name = %s", [name]
    ).fetchone()
    assert row is not None, name
    return Listing(*row)


def due(connection: Connection[Any]) -> Due | None:
    """The list of which a page is to be asked for now, if there is one."""
    row = connection.execute(_DUE_SQL.encode()).fetchone()
    return None if row is None else Due(*row)


def turn(
    connection: Connection[Any],
    fence: Fence,
    name: str,
    url: str,
    dids: Sequence[str],
    cursor: str | None,
) -> None:
    """Take a page: its accounts are wanted, and the next one begins at the cursor. Without a cursor
    it was the last. Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        row = connection.execute(
            _TURN_SQL.encode(), [url, cursor, len(dids), cursor is None, name]
        ).fetchone()
        if row is not None and dids:
            backfills.order(connection, dids, again=row[0])


def fail(
    connection: Connection[Any],
    fence: Fence,
    name: str,
    reason: str,
    attempts: int,
    seconds: float | None,
) -> None:
    """Note that a page did not come. It is asked for again in so many seconds; None: no more.

    Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        state = FAILED if seconds is None else WAITING
        connection.execute(_FAILED_SQL.encode(), [state, attempts, reason, seconds or 0.0, name])
