"""What is missing, as the tables tell it: repositories out of step, subjects that are waited for,
users without a profile. Found in slices, and put into the queue (see `incomplete`).
"""

from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.fence import Fence
from actors.store.incomplete import (
    BACKFILL_LAST,
    DONE,
    NEW_USER,
    OUT_OF_STEP,
    PENDING,
    PROFILE,
    PROFILES_NEXT,
    RECORD,
    RECORDS_NEXT,
    REPO,
    REPOS_FIRST,
    SEEN,
    WAITING,
    WITHHELD_SQL,
)
from actors.store.parking import RESYNC
from actors.store.registry import indexed_sql

# A failed row stays so: that is for the operator. What waits already is only moved up.
_REPOS_SQL: Final = f"""
    WITH slice AS (
        SELECT r.did FROM engine_repos r WHERE r.out_of_step AND r.did > %s
        ORDER BY r.did LIMIT %s
    ), made AS (
        INSERT INTO engine_incomplete AS e (kind, key, did, cause, rank)
        SELECT '{REPO}', s.did, s.did, '{OUT_OF_STEP}', {REPOS_FIRST} FROM slice s
        WHERE NOT {WITHHELD_SQL.format(did="s.did")}
        ON CONFLICT (kind, key) DO UPDATE SET rank = {REPOS_FIRST}, state = '{WAITING}',
            attempts = CASE e.state WHEN '{DONE}' THEN 0 ELSE e.attempts END, next_try = now()
        WHERE e.state = '{DONE}' OR (e.state = '{WAITING}' AND e.rank > {REPOS_FIRST})
        RETURNING 1
    )
    SELECT (SELECT did FROM slice ORDER BY did DESC LIMIT 1), (SELECT count(*) FROM made)
"""  # noqa: S608 - it is made of constants
_LET_GO_SQL: Final = f"""
    UPDATE engine_parked k SET draining = true
    WHERE k.reason = '{RESYNC}' AND NOT k.draining AND (%s OR NOT EXISTS (
        SELECT FROM engine_incomplete e
        WHERE e.kind = '{REPO}' AND e.key = k.did AND e.state = '{WAITING}'))
"""  # noqa: S608 - it is made of constants
_MAKE_RECORDS: Final = f"""
        INSERT INTO engine_incomplete (kind, key, did, cause, rank)
        SELECT '{RECORD}', s.awaited, split_part(s.awaited, '/', 3), '{PENDING}', {RECORDS_NEXT}
        FROM slice s WHERE s.awaited LIKE 'at://did:%%/%%/%%'
            AND NOT coalesce({indexed_sql("s.awaited")}, false)
        ON CONFLICT (kind, key) DO NOTHING RETURNING 1
"""  # noqa: S608 - it is made of constants
# All entries of one batch have one time, so a slice ends with the last of a batch.
_NEW_RECORDS_SQL: Final = f"""
    WITH entries AS (
        SELECT p.awaited, p.created_at FROM engine_pending p
        WHERE p.created_at >
                coalesce(nullif(%s, '')::timestamp, now()::timestamp - %s * interval '1 second')
            AND p.created_at < now()::timestamp - %s * interval '1 second'
        ORDER BY p.created_at FETCH FIRST (%s) ROWS WITH TIES
    ), slice AS (SELECT DISTINCT awaited FROM entries), made AS ({_MAKE_RECORDS})
    SELECT (SELECT max(created_at)::text FROM entries), (SELECT count(*) FROM made)
"""  # noqa: S608 - it is made of constants
_RECORDS_SQL: Final = f"""
    WITH slice AS (
        SELECT p.awaited FROM engine_pending p WHERE p.awaited > %s
            AND p.created_at < now()::timestamp - %s * interval '1 second'
        ORDER BY p.awaited LIMIT %s
    ), made AS ({_MAKE_RECORDS})
    SELECT (SELECT awaited FROM slice ORDER BY awaited DESC LIMIT 1), (SELECT count(*) FROM made)
"""  # noqa: S608 - it is made of constants
_USERS_SQL: Final = f"""
    WITH slice AS (
        SELECT u.did, u.profile_record IS NOT NULL AS complete FROM users u
        WHERE u.did > %s ORDER BY u.did LIMIT %s
    ), made AS (
        INSERT INTO engine_incomplete (kind, key, did, cause, rank)
        SELECT i.kind, s.did, s.did, i.cause, i.rank FROM slice s
        JOIN (VALUES
            ('{PROFILE}', '{NEW_USER}', {PROFILES_NEXT}), ('{REPO}', '{SEEN}', {BACKFILL_LAST})
        ) AS i (kind, cause, rank) ON i.kind = %s
        WHERE NOT (i.kind = '{PROFILE}' AND s.complete)
            AND NOT EXISTS (
                SELECT FROM engine_incomplete e WHERE e.key = s.did AND e.kind = i.kind)
            AND NOT {WITHHELD_SQL.format(did="s.did")}
            AND (%s OR EXISTS (SELECT FROM posts p WHERE p.author_did = s.did)
                OR EXISTS (SELECT FROM feed_generators g WHERE g.creator_did = s.did)
                OR EXISTS (SELECT FROM lists l WHERE l.creator_did = s.did))
        ON CONFLICT (kind, key) DO NOTHING RETURNING 1
    )
    SELECT (SELECT did FROM slice ORDER BY did DESC LIMIT 1), (SELECT count(*) FROM made)
"""  # noqa: S608 - it is made of constants
# What was settled about a record is of use for as long as somebody waits for it.
_SWEEP_SQL: Final = f"""
    WITH slice AS (
        SELECT e.kind, e.key, e.state, e.next_try FROM engine_incomplete e
        WHERE e.kind = '{RECORD}' AND e.key > %s ORDER BY e.key LIMIT %s
    ), gone AS (
        DELETE FROM engine_incomplete e USING slice s
        WHERE e.kind = s.kind AND e.key = s.key AND s.state <> '{WAITING}'
            AND s.next_try < now()::timestamp
                - CASE s.state WHEN '{DONE}' THEN 3600 ELSE %s END * interval '1 second'
            AND NOT EXISTS (SELECT FROM engine_pending p WHERE p.awaited = s.key)
        RETURNING 1
    )
    SELECT (SELECT key FROM slice ORDER BY key DESC LIMIT 1), (SELECT count(*) FROM gone)
"""  # noqa: S608 - it is made of constants


class Slice(NamedTuple):
    """The last key of a slice, None where there was nothing left, and how many rows changed."""

    last: str | None
    changed: int


def repos(connection: Connection[Any], fence: Fence, after: str, limit: int) -> Slice:
    """Have repositories that are out of step fetched, from one slice of them. Raises Fenced."""
    return _slice(connection, fence, _REPOS_SQL, [after, limit])


def let_go(connection: Connection[Any], fence: Fence, *, everybody: bool) -> None:
    """Have live events wait no longer for repositories that nobody fetches any more; with
    `everybody`, for any: whoever had them wait is not there, and the next one may not come for
    hours. Their repositories stay out of step. Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        connection.execute(_LET_GO_SQL.encode(), [everybody])


def new_records(
    connection: Connection[Any], fence: Fence, after: str, since: float, until: float, limit: int
) -> Slice:
    """Have what has been waited for fetched, for less than `since` and more than `until` seconds,
    from one slice of it in the order of time. Raises Fenced.
    """
    return _slice(connection, fence, _NEW_RECORDS_SQL, [after, since, until, limit])


def records(
    connection: Connection[Any], fence: Fence, after: str, until: float, limit: int
) -> Slice:
    """The same from one slice of all that is waited for."""
    return _slice(connection, fence, _RECORDS_SQL, [after, until, limit])


def users(
    connection: Connection[Any],
    fence: Fence,
    after: str,
    limit: int,
    *,
    whole: bool,
    spoken_of: bool = True,
) -> Slice:
    """Have the profiles of users fetched who have none, or of all of them the whole repository,
    from one slice of them. Each is asked for once. Raises Fenced.

    Without those who are only `spoken_of` it is users of whom there is something to be shown.
    """
    kind = REPO if whole else PROFILE
    return _slice(connection, fence, _USERS_SQL, [after, limit, kind, spoken_of])


def sweep(
    connection: Connection[Any], fence: Fence, after: str, limit: int, failed_seconds: float
) -> Slice:
    """Forget, from one slice, what nobody waits for any more. Raises Fenced."""
    return _slice(connection, fence, _SWEEP_SQL, [after, limit, failed_seconds])


def _slice(connection: Connection[Any], fence: Fence, sql: str, parameters: list[Any]) -> Slice:
    with connection.transaction():
        fence.check(connection)
        row = connection.execute(sql.encode(), parameters).fetchone()
    assert row is not None
    return Slice(row[0], int(row[1]))
