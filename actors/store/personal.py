"""Whom a personal index is of (`engine_personal`): the accounts of the settings, and those whom
they follow by `follows`.

A row says that ingest takes the events of that account: it is written when that is so already, and
goes before it ceases. Only what has a row is ordered from its server, so whatever was left out
before is in the repository that is fetched after; and while one waits to be fetched, or is being
fetched, its account stays.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from actors.store.fence import Fence
from actors.store.incomplete import (
    BACKFILL_LAST,
    DONE,
    FAILED,
    PERSONAL,
    REPO,
    WAITING,
    WITHHELD_SQL,
)
from actors.store.registry import prepare
from actors.store.session import writing

AT_ONCE: Final = 1_000

_FOLLOWED: Final = (
    "EXISTS (SELECT FROM follows f"
    " WHERE f.follower_did = ANY(%(accounts)s::text[]) AND f.following_did = p.did)"
)
# Rows are looked up by their key, one by one: while statistics are young, a join might go through a
# table for each account.
_NEW_SQL: Final = """
    SELECT w.did FROM (
        SELECT unnest(%(accounts)s::text[]) AS did UNION
        SELECT f.following_did FROM follows f WHERE f.follower_did = ANY(%(accounts)s::text[])
    ) w WHERE (SELECT true FROM engine_personal p WHERE p.did = w.did) IS NULL
    ORDER BY w.did <> ALL(%(accounts)s::text[]), w.did LIMIT %(limit)s
"""
_ENTER_SQL: Final = (
    "INSERT INTO engine_personal (did) SELECT unnest(%s::text[]) ON CONFLICT (did) DO NOTHING"
)
# What waits may have been begun before its account was taken in: then it is ordered after that.
_ORDER_SQL: Final = f"""
    WITH asked AS (
        SELECT p.did FROM engine_personal p WHERE p.fresh AND (
            SELECT e.state FROM engine_incomplete e WHERE e.kind = '{REPO}' AND e.key = p.did
        ) IS DISTINCT FROM '{WAITING}'
        ORDER BY p.did LIMIT {AT_ONCE}
    ), made AS (
        INSERT INTO engine_incomplete AS e (kind, key, did, cause, rank)
        SELECT '{REPO}', a.did, a.did, '{PERSONAL}', {BACKFILL_LAST} FROM asked a ORDER BY a.did
        ON CONFLICT (kind, key) DO UPDATE SET state = '{WAITING}', attempts = 0, reason = NULL,
            next_try = now(), cause = '{PERSONAL}', rank = {BACKFILL_LAST}
        WHERE e.state <> '{WAITING}'
        RETURNING e.key
    ), known AS (
        INSERT INTO engine_identities (did, plc, rank)
        SELECT m.key, starts_with(m.key, 'did:plc:'), 1 FROM made m ORDER BY m.key COLLATE "C"
        ON CONFLICT (did) DO NOTHING
    )
    UPDATE engine_personal p SET fresh = false WHERE p.did = ANY(ARRAY(SELECT m.key FROM made m))
"""  # noqa: S608 - it is made of constants
# What could not be had as long as the account was away, or was not allowed to be.
_AGAIN_SQL: Final = f"""
    WITH again AS MATERIALIZED (
        SELECT e.key FROM engine_incomplete e
        WHERE e.kind = '{REPO}' AND e.cause = '{PERSONAL}' AND (
            (e.state = '{FAILED}' AND EXISTS (SELECT FROM engine_accounts a
                WHERE a.did = e.key AND a.active AND a.time > e.next_try))
            OR (e.state = '{DONE}' AND e.reason = 'withheld'
                AND NOT {WITHHELD_SQL.format(did="e.key")}))
    )
    UPDATE engine_personal p SET fresh = true WHERE p.did = ANY(ARRAY(SELECT a.key FROM again a))
"""  # noqa: S608 - it is made of constants
# What is due may be under way; what is to be tried again later is not.
_RESTS: Final = f"e.cause = '{PERSONAL}' AND e.next_try > now()"
_LEAVE_SQL: Final = f"""
    WITH gone AS (
        SELECT p.did FROM engine_personal p
        WHERE p.did <> ALL(%(accounts)s::text[]) AND NOT {_FOLLOWED}
    ), called_off AS (
        DELETE FROM engine_incomplete e USING gone g
        WHERE e.kind = '{REPO}' AND e.key = g.did AND e.state = '{WAITING}' AND {_RESTS}
    )
    DELETE FROM engine_personal p WHERE p.did = ANY(ARRAY(
        SELECT g.did FROM gone g WHERE coalesce((
            SELECT e.state <> '{WAITING}' OR ({_RESTS}) FROM engine_incomplete e
            WHERE e.kind = '{REPO}' AND e.key = g.did), true)))
    RETURNING p.did
"""  # noqa: S608 - it is made of constants


class Changed(NamedTuple):
    """Who is to be taken in, and whether more follows, or no more are allowed."""

    new: list[str]
    more: bool
    full: bool


class Personal:
    """The table, on a connection of its own that is made anew when it broke.

    Every method raises DatabaseAway, TooSlow, DatabaseUnusable, one of PASSING, and Fenced where it
    writes.

    Args:
        accounts: DIDs of the settings.
        most: how many accounts there may be.
        connect: opens a connection; raises psycopg.Error.
        fence: of the actor.
    """

    def __init__(
        self,
        accounts: Sequence[str],
        most: int,
        connect: Callable[[], psycopg.Connection[Any]],
        fence: Fence,
    ) -> None:
        self._accounts = list(accounts)
        self._most = most
        self._connect = connect
        self._fence = fence
        self._connection: psycopg.Connection[Any] | None = None

    def load(self) -> set[str]:
        """Whose events are taken."""
        with writing():
            rows = self._open().execute("SELECT did FROM engine_personal").fetchall()
        return {did for (did,) in rows}

    def new(self, have: int) -> Changed:
        """Who is to be taken in where there are `have`, some at a time."""
        room = max(0, self._most - have)
        limit = min(room, AT_ONCE) + 1
        with writing():
            values = {"accounts": self._accounts, "limit": limit}
            rows = self._open().execute(_NEW_SQL, values).fetchall()
        new = [did for (did,) in rows[: limit - 1]]
        over = len(rows) == limit
        return Changed(new, more=over and room > AT_ONCE, full=over and room <= AT_ONCE)

    def enter(self, dids: Sequence[str]) -> None:
        """Write down that the events of these are taken, and order what is not ordered yet."""
        with writing():
            connection = self._open()
            with connection.transaction():
                self._fence.check(connection)
                if dids:
                    connection.execute(_ENTER_SQL, [list(dids)])
                connection.execute(_ORDER_SQL.encode())

    def order_again(self) -> None:
        """Have ordered again what may be had now and could not be had before."""
        with writing():
            connection = self._open()
            with connection.transaction():
                self._fence.check(connection)
                connection.execute(_AGAIN_SQL.encode())

    def leave(self) -> list[str]:
        """Strike out whom nobody names or follows any more; returns them."""
        with writing():
            connection = self._open()
            with connection.transaction():
                self._fence.check(connection)
                values = {"accounts": self._accounts}
                rows = connection.execute(_LEAVE_SQL.encode(), values).fetchall()
        return [did for (did,) in rows]

    def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            connection = self._connect()
            connection.autocommit = True
            prepare(connection)
            self._connection = connection
        return self._connection
