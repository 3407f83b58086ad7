"""The queue of what is missing (`engine_incomplete`): profiles, single records, whole repositories.

A row is one thing to fetch. Being asked for again changes nothing; a failure counts, and puts the
next try off. `rank` says what comes first, `cause` why it is wanted, `reason` what the last try
came to. What was given up stays as `failed` until an operator has it tried again; `done` rows are
kept where the same thing would otherwise be asked for again. What they are filled from is in
`wanted`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store import identities
from actors.store.arrays import array, text_array
from actors.store.fence import Fence
from actors.store.registry import indexed_sql

PROFILE: Final = "profile"
RECORD: Final = "record"
REPO: Final = "repo"

WAITING: Final = "waiting"
FAILED: Final = "failed"
DONE: Final = "done"

OUT_OF_STEP: Final = "out_of_step"
PENDING: Final = "pending"
NEW_USER: Final = "new_user"
SEEN: Final = "seen"
BACKFILL: Final = "backfill"
PERSONAL: Final = "personal"
KEPT_CAUSES: Final = frozenset((SEEN, BACKFILL, PERSONAL))
"""Causes whose rows stay when they are done, so that nothing is fetched for them twice."""

REPOS_FIRST: Final = 0
RECORDS_NEXT: Final = 1
PROFILES_NEXT: Final = 2
BACKFILL_LAST: Final = 3

MAX_ATTEMPTS: Final = 1_000_000

# Nothing is fetched of who is not active, has opted out or is taken down: it would be refused.
WITHHELD_SQL: Final = (
    "(EXISTS (SELECT FROM engine_accounts a WHERE a.did = {did} AND NOT a.active)"
    " OR EXISTS (SELECT FROM user_settings f WHERE f.user_did = {did}"
    " AND f.data_collection_forbidden)"
    " OR EXISTS (SELECT FROM engine_takedowns t WHERE t.subject = {did}))"
)
_NEEDLESS: Final = f"""CASE w.kind
    WHEN '{RECORD}' THEN NOT EXISTS (SELECT FROM engine_pending p WHERE p.awaited = w.key)
        OR coalesce({indexed_sql("w.key")}, false)
    WHEN '{PROFILE}' THEN coalesce(
        (SELECT u.profile_record IS NOT NULL FROM users u WHERE u.did = w.key), false)
    ELSE w.cause = '{OUT_OF_STEP}'
        AND NOT coalesce((SELECT r.out_of_step FROM engine_repos r WHERE r.did = w.key), false)
        AND NOT EXISTS (SELECT FROM engine_parked k
            WHERE k.did = w.key AND k.reason = 'resync' AND NOT k.draining)
    END"""  # noqa: S608 - it is made of constants
_DUE_SQL: Final = f"""
    SELECT w.kind, w.key, w.did, w.cause, w.attempts, i.pds, i.signing_key,
        i.checked_at IS NOT NULL,
        CASE WHEN i.failures > 0
            THEN extract(epoch FROM i.next_check - now()::timestamp)::float8 END,
        {_NEEDLESS},
        {WITHHELD_SQL.format(did="w.did")}
            OR EXISTS (SELECT FROM engine_takedowns t WHERE t.subject = w.key)
    FROM (
        SELECT * FROM engine_incomplete
        WHERE state = '{WAITING}' AND rank = %s AND next_try <= now() AND key <> ALL(%b::text[])
        ORDER BY next_try LIMIT %s
    ) w LEFT JOIN engine_identities i ON i.did = w.did ORDER BY w.next_try
"""  # noqa: S608 - it is made of constants
_WRITE_SQL: Final = (
    "UPDATE engine_incomplete e SET state = i.state, attempts = i.attempts, reason = i.reason,"
    " next_try = now()::timestamp + i.milliseconds * interval '1 millisecond'"
    " FROM unnest(%b::text[], %b::text[], %b::text[], %b::integer[], %b::text[], %b::bigint[])"
    " AS i (kind, key, state, attempts, reason, milliseconds)"
    " WHERE e.kind = i.kind AND e.key = i.key"
)
_DELETE_SQL: Final = (
    "DELETE FROM engine_incomplete e USING unnest(%b::text[], %b::text[]) AS i (kind, key)"
    " WHERE e.kind = i.kind AND e.key = i.key"
)
# Whom the resolver never looked at comes before those who are only spoken of.
_ASK_SQL: Final = (
    "INSERT INTO engine_identities AS e (did, plc, rank)"
    " SELECT i.did, starts_with(i.did, 'did:plc:'), 1 FROM unnest(%b::text[]) AS i (did)"
    ' ORDER BY i.did COLLATE "C" ON CONFLICT (did) DO UPDATE SET rank = 1'
    " WHERE e.rank > 1 AND e.checked_at IS NULL AND e.failures = 0"
)
_STANDING_SQL: Final = f"""
    SELECT w.kind, w.key, r.rev, coalesce(r.out_of_step, false),
        CASE w.kind WHEN '{RECORD}' THEN coalesce({indexed_sql("w.key")}, false)
        WHEN '{PROFILE}' THEN coalesce(
            (SELECT u.profile_record IS NOT NULL FROM users u WHERE u.did = w.key), false)
        ELSE false END
    FROM unnest(%b::text[], %b::text[], %b::text[]) AS w (kind, key, did)
    LEFT JOIN engine_repos r ON r.did = w.did
"""  # noqa: S608 - it is made of constants

# The state stands in the statement, so that the index of its rows is used.
_COUNT_SQL: Final = (
    "SELECT kind, count(*) FROM (SELECT kind FROM engine_incomplete WHERE state = '{state}'"
    " LIMIT %s) e GROUP BY kind"
)


class Due(NamedTuple):
    """Something to fetch now.

    `pds` and `signing_key` are None where they are not known; `looked` tells whether the resolver
    has settled on that, `again` in how many seconds it tries again after no answer. `needless`:
    nobody wants it any more; `withheld`: it may not be stored.
    """

    kind: str
    key: str
    did: str
    cause: str
    attempts: int
    pds: str | None
    signing_key: str | None
    looked: bool
    again: float | None
    needless: bool
    withheld: bool

    @property
    def row(self) -> tuple[str, str]:
        """Its key in the table."""
        return self.kind, self.key


class Ended(NamedTuple):
    """What a try came to: the state (None: the row goes), attempts, seconds until the next try."""

    kind: str
    key: str
    state: str | None
    attempts: int = 0
    reason: str | None = None
    seconds: float = 0.0


class Standing(NamedTuple):
    """What the index has of something that was fetched; `rev` is the guard of its repository."""

    rev: str | None
    out_of_step: bool
    indexed: bool


def due(connection: Connection[Any], rank: int, limit: int, but: Sequence[str] = ()) -> list[Due]:
    """What of a rank has been due for longest, without the keys in `but`."""
    rows = connection.execute(_DUE_SQL.encode(), [rank, text_array(list(but)), limit]).fetchall()
    return [Due(*row) for row in rows]


def write(
    connection: Connection[Any],
    fence: Fence,
    ended: Iterable[Ended],
    ask: Sequence[str] = (),
    refresh: Sequence[str] = (),
) -> None:
    """Write what tries came to, in one transaction.

    The identities in `ask` are looked at soon if they never were, those in `refresh` again at once.
    Raises Fenced.
    """
    rows = {(each.kind, each.key): each for each in ended}
    changed = [each for _, each in sorted(rows.items()) if each.state is not None]
    gone = [each for _, each in sorted(rows.items()) if each.state is None]
    with connection.transaction():
        fence.check(connection)
        if changed:
            connection.execute(
                _WRITE_SQL.encode(),
                [
                    text_array([each.kind for each in changed]),
                    text_array([each.key for each in changed]),
                    text_array([each.state for each in changed]),
                    array("integer", [min(each.attempts, MAX_ATTEMPTS) for each in changed]),
                    text_array([each.reason for each in changed]),
                    array("bigint", [round(each.seconds * 1000) for each in changed]),
                ],
            )
        if gone:
            connection.execute(
                _DELETE_SQL.encode(),
                [text_array([each.kind for each in gone]), text_array([each.key for each in gone])],
            )
        if ask:
            connection.execute(_ASK_SQL.encode(), [text_array(sorted(set(ask)))])
        identities.recheck(connection, refresh)


def standing(
    connection: Connection[Any], asked: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str], Standing]:
    """What the index has of these (kind, key, DID)."""
    kinds, keys, dids = zip(*asked, strict=True)
    rows = connection.execute(
        _STANDING_SQL.encode(), [text_array(kinds), text_array(keys), text_array(dids)]
    ).fetchall()
    return {(kind, key): Standing(*rest) for kind, key, *rest in rows}


def rev_of(connection: Connection[Any], did: str) -> str | None:
    """The guard of a repository; None where none is known."""
    row = connection.execute("SELECT rev FROM engine_repos WHERE did = %s", [did]).fetchone()
    return None if row is None else row[0]


def backlog(connection: Connection[Any], most: int) -> dict[tuple[str, str], int]:
    """How many things are waiting and failed, by kind and state, counted up to `most` each."""
    counts: dict[tuple[str, str], int] = {}
    for state in (WAITING, FAILED):
        rows = connection.execute(_COUNT_SQL.format(state=state).encode(), [most]).fetchall()
        counts |= {(kind, state): count for kind, count in rows}
    return counts
