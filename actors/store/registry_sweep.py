"""What keeps the registry in bounds and honest: its entries' age, number and bytes, and those whose
subject is indexed although nobody said so.

Everything goes in slices, each a statement or transaction of its own, so that no entry that a shard
wants is held for long. Entries that a shard holds at that moment are left for the next time.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.author_range import author_range
from actors.store.fence import Fence
from actors.store.registry import Claim, indexed_sql
from actors.store.tallies import ADD_SQL, add_parameters

# The bytes of an entry are those of its strings; its row and index entries take about three times
# as much on disk.
_SIZE: Final = (
    "(octet_length(uri) + octet_length(awaited) + octet_length(author) + octet_length(kind))"
)

# Rows are deleted by their place, under the lock that found them: a plan made while the table was
# small may join the two lists by reading the whole table.
_EXPIRE_SQL: Final = """
WITH gone AS (
    DELETE FROM engine_pending WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM engine_pending
        WHERE created_at < localtimestamp - %s::float8 * interval '1 second'
        ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
    )) RETURNING kind
)
SELECT kind, count(*) FROM gone GROUP BY kind
"""
_DROP_SQL: Final = f"""
WITH oldest AS (
    SELECT ctid AS place, uri, awaited, created_at, {_SIZE} AS size FROM engine_pending
    ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED
), summed AS (
    SELECT place, size, row_number() OVER in_order AS rows, sum(size) OVER in_order AS bytes
    FROM oldest WINDOW in_order AS (ORDER BY created_at, uri, awaited)
), gone AS (
    DELETE FROM engine_pending WHERE ctid = ANY(ARRAY(
        SELECT s.place FROM summed s WHERE s.rows <= %s OR s.bytes - s.size < %s
    )) RETURNING kind, {_SIZE} AS size
)
SELECT kind, count(*), sum(size)::bigint FROM gone GROUP BY kind
"""  # noqa: S608 - it is made of constants
_STANDING_SQL: Final = f"""
SELECT kind, count(*), sum({_SIZE})::bigint,
    extract(epoch FROM localtimestamp - min(created_at))::float8
FROM engine_pending GROUP BY kind
"""  # noqa: S608 - it is made of constants
_SLICE_END_SQL: Final = """
SELECT uri, awaited FROM engine_pending WHERE (uri, awaited) > (%s, %s)
ORDER BY uri, awaited OFFSET %s LIMIT 1
"""
_OVERDUE_SQL: Final = f"""
SELECT e.uri, e.awaited, e.author FROM engine_pending e
WHERE (e.uri, e.awaited) > (%s, %s) AND (e.uri, e.awaited) <= (%s, %s)
    AND {indexed_sql("e.awaited")}
"""  # noqa: S608 - it is made of constants
_AWAITED_SQL: Final = (
    "SELECT awaited FROM engine_pending WHERE awaited > %s ORDER BY awaited LIMIT %s"
)
# A record that is refused by itself keeps its repository withheld as well.
_RELEASE_SQL: Final = f"""
WITH slice AS (
    SELECT did FROM engine_repos WHERE withheld AND did > %(after)s
    ORDER BY withheld, did LIMIT %(limit)s
), free AS (
    SELECT r.ctid AS place FROM engine_repos r
    WHERE r.withheld AND r.did > %(after)s AND r.did <= (SELECT max(did) FROM slice)
    AND (SELECT true FROM user_settings u WHERE u.user_did = r.did
        AND u.data_collection_forbidden LIMIT 1) IS NULL
    AND (SELECT true FROM engine_takedowns t WHERE t.subject = r.did LIMIT 1) IS NULL
    AND (SELECT true FROM engine_takedowns t WHERE {author_range("t.subject", "r.did")}
        LIMIT 1) IS NULL
    FOR UPDATE OF r SKIP LOCKED
), released AS (
    UPDATE engine_repos SET withheld = false, out_of_step = true
    WHERE ctid = ANY(ARRAY(SELECT place FROM free)) RETURNING did
), spoiled AS (
    -- A fetch under way was denied what is wanted now: its end must not count.
    UPDATE engine_parked SET overflowed = true
    WHERE did = ANY(ARRAY(SELECT did FROM released)) AND NOT overflowed
)
SELECT (SELECT max(did) FROM slice), (SELECT count(*) FROM slice), (SELECT count(*) FROM released)
"""  # noqa: S608 - it is made of constants

EXPIRED: Final = "expired"
DROPPED: Final = "dropped"


class Key(NamedTuple):
    """The key of an entry: where a walk through the registry stands."""

    uri: str = ""
    awaited: str = ""


class Standing(NamedTuple):
    """Entries of a kind: how many, the bytes of their strings, the age of the oldest in seconds."""

    waiting: int
    size: int
    oldest: float


class Overdue(NamedTuple):
    """A slice of the registry: entries whose subject is indexed, and where the next slice begins
    (None after the last).
    """

    claims: list[Claim]
    next: Key | None


class Released(NamedTuple):
    """How many repositories are withheld no more, and after which DID to go on (None: done)."""

    amount: int
    next: str | None


def expire(
    connection: Connection[Any], fence: Fence, ttl_seconds: float, limit: int
) -> dict[str, int]:
    """Remove the oldest entries of more than this age, at most `limit`; how many of each kind.

    Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        gone = dict(connection.execute(_EXPIRE_SQL, [ttl_seconds, limit]).fetchall())
        _count(connection, fence, EXPIRED, gone)
    return gone


def drop_oldest(
    connection: Connection[Any], fence: Fence, rows: int, size: int, limit: int
) -> tuple[dict[str, int], int]:
    """Remove the oldest entries until there are this many rows and bytes less, at most `limit`.

    Returns how many of each kind went, and their bytes. Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        found = connection.execute(_DROP_SQL.encode(), [limit, rows, size]).fetchall()
        gone = {kind: amount for kind, amount, _ in found}
        _count(connection, fence, DROPPED, gone)
    return gone, sum(bytes_ for _, _, bytes_ in found)


def standing(connection: Connection[Any]) -> dict[str, Standing]:
    """Count what waits, by kind; reads the whole table."""
    with connection.transaction():
        # The one statement for which reading a table from its beginning to its end is best.
        connection.execute("SELECT set_config('enable_seqscan', 'on', true)")
        rows = connection.execute(_STANDING_SQL.encode(), prepare=False).fetchall()
    return {kind: Standing(*values) for kind, *values in rows}


def overdue(connection: Connection[Any], after: Key, limit: int) -> Overdue:
    """Look at the next `limit` entries for those whose subject is indexed."""
    end = connection.execute(_SLICE_END_SQL, [*after, limit - 1]).fetchone()
    # Above every key, as no string of ours has a byte of that value.
    last = Key(*end) if end is not None else Key("\U0010ffff", "")
    rows = connection.execute(_OVERDUE_SQL.encode(), [*after, *last]).fetchall()
    return Overdue([Claim(*row) for row in rows], None if end is None else last)


def awaited_keys(connection: Connection[Any], after: str, limit: int) -> list[str]:
    """Return the awaited keys above this one, in order; fewer than `limit` at the end.

    The same may come several times, and is complete where the last of the list is given as `after`.
    """
    return [key for (key,) in connection.execute(_AWAITED_SQL, [after, limit]).fetchall()]


def release(connection: Connection[Any], fence: Fence, after: str, limit: int) -> Released:
    """Mark repositories that are refused no more as out of step, so that they are fetched again.

    Looks at `limit` of those that are withheld. Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        row = connection.execute(_RELEASE_SQL, {"after": after, "limit": limit}).fetchone()
        assert row is not None
        last, seen, released = row
        _count(connection, fence, "", {}, {"withheld_released": released})
    return Released(released, last if seen == limit else None)


def _count(
    connection: Connection[Any],
    fence: Fence,
    action: str,
    kinds: Mapping[str, int],
    others: Mapping[str, int] | None = None,
) -> None:
    amounts = {f"pending.{action}.{kind}": amount for kind, amount in kinds.items()}
    amounts |= others or {}
    if any(amounts.values()):
        connection.execute(ADD_SQL, add_parameters(fence.epoch, fence.actor, amounts))
