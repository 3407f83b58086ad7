"""Backfills as an operator orders them, how far they are, and what was given up."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.incomplete import (
    BACKFILL,
    BACKFILL_LAST,
    DONE,
    FAILED,
    REPO,
    WAITING,
)

# What was fetched for a backfill stays done unless it is asked for again; what waits is left as it
# is. What was given up is tried again: it was asked for by name.
_ORDER_SQL: Final = f"""
    WITH asked AS (SELECT DISTINCT d AS did FROM unnest(%s::text[]) AS d), made AS (
        INSERT INTO engine_incomplete AS e (kind, key, did, cause, rank)
        SELECT '{REPO}', a.did, a.did, '{BACKFILL}', {BACKFILL_LAST} FROM asked a ORDER BY a.did
        ON CONFLICT (kind, key) DO UPDATE SET state = '{WAITING}', attempts = 0, reason = NULL,
            next_try = now(), cause = '{BACKFILL}',
            rank = CASE e.state WHEN '{DONE}' THEN {BACKFILL_LAST} ELSE e.rank END
        WHERE e.state = '{FAILED}' OR (e.state = '{DONE}' AND (%s OR e.reason <> 'applied'))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM asked), (SELECT count(*) FROM made)
"""  # noqa: S608 - it is made of constants
# Accounts that the resolver never heard of.
_IDENTIFY_SQL: Final = (
    "INSERT INTO engine_identities (did, plc, rank)"
    " SELECT DISTINCT d, starts_with(d, 'did:plc:'), 1 FROM unnest(%s::text[]) AS d"
    " ON CONFLICT (did) DO NOTHING"
)
_PROGRESS_SQL: Final = f"""
    SELECT coalesce(e.state, 'gone'), count(*) FROM (SELECT DISTINCT d AS did
    FROM unnest(%s::text[]) AS d) a LEFT JOIN engine_incomplete e
    ON e.kind = '{REPO}' AND e.key = a.did GROUP BY 1
"""  # noqa: S608 - it is made of constants
_QUEUE_SQL: Final = f"""
    SELECT count(*) FILTER (WHERE state = '{WAITING}'), count(*) FILTER (WHERE state = '{FAILED}')
    FROM engine_incomplete WHERE kind = '{REPO}' AND cause = '{BACKFILL}'
    AND state IN ('{WAITING}', '{FAILED}')
"""  # noqa: S608 - it is made of constants
_FETCHES_SQL: Final = (
    b"SELECT EXISTS (SELECT FROM engine_fences f JOIN engine_epoch e ON e.epoch = f.epoch"
    b" WHERE f.actor = 'pds_fetcher')"
)
_FAILED_SQL: Final = f"""
    SELECT kind, key, cause, attempts, reason, next_try FROM engine_incomplete
    WHERE state = '{FAILED}' ORDER BY next_try, kind, key LIMIT %s
"""  # noqa: S608 - it is made of constants
_RETRY_SQL: Final = f"""
    UPDATE engine_incomplete SET state = '{WAITING}', attempts = 0, next_try = now()
    WHERE state = '{FAILED}' AND (%s::text[] IS NULL OR key = ANY(%s) OR did = ANY(%s))
"""  # noqa: S608 - it is made of constants


class Ordered(NamedTuple):
    """How many accounts were asked for, and of how many the repository is fetched now."""

    asked: int
    fresh: int


class Progress(NamedTuple):
    """Of so many accounts: fetched, still waiting, given up."""

    done: int
    waiting: int
    failed: int


class Queue(NamedTuple):
    """Of all backfills: those that wait, and those that were given up."""

    waiting: int
    failed: int


class GivenUp(NamedTuple):
    """Something that could not be fetched, why, and since when."""

    kind: str
    key: str
    cause: str
    attempts: int
    reason: str | None
    since: datetime


def order(connection: Connection[Any], dids: Sequence[str], *, again: bool) -> Ordered:
    """Have the repositories of these accounts fetched; with `again` also those fetched before."""
    with connection.transaction():
        connection.execute(_IDENTIFY_SQL.encode(), [list(dids)])
        row = connection.execute(_ORDER_SQL.encode(), [list(dids), again]).fetchone()
    assert row is not None
    return Ordered(*row)


def progress(connection: Connection[Any], dids: Sequence[str]) -> Progress:
    """How far the backfill of these accounts is."""
    counts = dict(connection.execute(_PROGRESS_SQL.encode(), [list(dids)]).fetchall())
    done = counts.get(DONE, 0) + counts.get("gone", 0)
    return Progress(done, counts.get(WAITING, 0), counts.get(FAILED, 0))


def queue(connection: Connection[Any]) -> Queue:
    """What of all backfills is left."""
    row = connection.execute(_QUEUE_SQL.encode()).fetchone()
    assert row is not None
    return Queue(*row)


def fetcher_runs(connection: Connection[Any]) -> bool:
    """Whether the run that holds this database, or held it last, fetches repositories."""
    row = connection.execute(_FETCHES_SQL).fetchone()
    return row is not None and bool(row[0])


def known(connection: Connection[Any], after: str, limit: int) -> list[str]:
    """The accounts of this index, in slices by DID."""
    rows = connection.execute(
        "SELECT did FROM users WHERE did > %s ORDER BY did LIMIT %s", [after, limit]
    ).fetchall()
    return [did for (did,) in rows]


def followed_by(connection: Connection[Any], did: str) -> list[str]:
    """Whom an account follows, as far as that is indexed."""
    rows = connection.execute(
        "SELECT following_did FROM follows WHERE follower_did = %s ORDER BY 1", [did]
    ).fetchall()
    return [followed for (followed,) in rows]


def given_up(connection: Connection[Any], limit: int) -> list[GivenUp]:
    """What could not be fetched, the oldest first."""
    return [GivenUp(*row) for row in connection.execute(_FAILED_SQL.encode(), [limit]).fetchall()]


def retry(connection: Connection[Any], subjects: Sequence[str] | None) -> int:
    """Have what was given up tried again: all of it, or that of these DIDs and uris.

    Returns how much that is.
    """
    named = None if subjects is None else list(subjects)
    return connection.execute(_RETRY_SQL.encode(), [named, named, named]).rowcount
