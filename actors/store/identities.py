"""Identities: what was found out about each account, and when it is looked at again.

A row is made together with that of `users`. `next_check` says when it is due, `rank` before whom:
lower ranks first. `plc` says which directory has its document. Shards make a row due at once where
an event says that the identity changed; the resolver writes what it found, and leaves `next_check`
as it is where a shard has set it meanwhile, so no event is lost. From the event until the document
was read again the key is `stale`: nothing that comes meanwhile is verified by it.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store import parking
from actors.store.arrays import array, text_array
from actors.store.fence import Fence

INVALID: Final = "handle.invalid"

CHANGED: Final = 0
"""Rank of an identity that changed, or whose handle went to another account."""
ACTIVE: Final = 1
"""Rank of an account that was seen at work and never looked at."""
OTHER: Final = 2
"""Rank of all others."""
RANKS: Final = (CHANGED, ACTIVE, OTHER)

# Two accounts that take one handle from each other in turn are looked at no more often than this.
MOVED_SECONDS: Final = 60.0
_MOVED: Final = "its handle went to another account"

# Rows are looked up by key or read in the order of an index, however small the table was when that
# was planned.
_SESSION: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

CREATE_SQL: Final = (
    "INSERT INTO engine_identities (did, plc, rank)"
    " SELECT i.did, starts_with(i.did, 'did:plc:'), i.rank"
    " FROM unnest(%b::text[], %b::integer[]) AS i (did, rank)"
    ' ORDER BY i.did COLLATE "C" ON CONFLICT (did) DO NOTHING'
)
# Of accounts that have no row here nothing is cached: theirs is looked up when they get one. Some
# have theirs before that of `users`.
CHANGED_SQL: Final = (
    "INSERT INTO engine_identities AS e (did, plc, rank, stale)"
    f" SELECT i.did, starts_with(i.did, 'did:plc:'), {CHANGED}, true"
    " FROM unnest(%b::text[]) AS i (did)"
    " WHERE EXISTS (SELECT FROM users u WHERE u.did = i.did)"
    " OR EXISTS (SELECT FROM engine_identities k WHERE k.did = i.did)"
    ' ORDER BY i.did COLLATE "C"'
    f" ON CONFLICT (did) DO UPDATE SET rank = {CHANGED}, next_check = now(), stale = true"
)
_MICROSECONDS: Final = "(extract(epoch FROM e.next_check) * 1000000)::bigint"
# Seconds of silence count from the last verdict.
_DUE_SQL: Final = f"""
    SELECT e.did, e.rank, {_MICROSECONDS}, e.failures, coalesce(u.handle, '{INVALID}'),
        extract(epoch FROM now()::timestamp - coalesce(e.checked_at, e.created_at))::float8,
        num_nonnulls(e.pds, e.signing_key) > 0
    FROM (
        SELECT * FROM engine_identities WHERE plc = %s AND rank = %s AND next_check <= now()
            AND did <> ALL(%b::text[]) ORDER BY next_check LIMIT %s
    ) e LEFT JOIN users u ON u.did = e.did ORDER BY e.next_check
"""
# Everybody who is written or loses a handle, in the order in which shards lock as well.
_LOCK_SQL: Final = """
    SELECT did, handle FROM users WHERE did IN (
        SELECT unnest(%b::text[])
        UNION SELECT u.did FROM users u WHERE u.handle = ANY(%b::text[])
    ) ORDER BY did COLLATE "C" FOR NO KEY UPDATE
"""
_FORBIDDEN_SQL: Final = (
    "SELECT user_did FROM user_settings"
    " WHERE user_did = ANY(%b::text[]) AND data_collection_forbidden"
)
_FORBIDDEN: Final = "the collection of its data is forbidden"
_HANDLES_SQL: Final = (
    "UPDATE users u SET handle = i.handle FROM unnest(%b::text[], %b::text[]) AS i (did, handle)"
    " WHERE u.did = i.did"
)
_LOSE_SQL: Final = (
    "INSERT INTO engine_identities AS e (did, plc, rank)"
    f" SELECT i.did, starts_with(i.did, 'did:plc:'), {CHANGED} FROM unnest(%b::text[]) AS i (did)"
    ' ORDER BY i.did COLLATE "C" ON CONFLICT (did) DO UPDATE SET handle = NULL,'
    f" rank = {CHANGED}, problem = '{_MOVED}', next_check ="
    f" greatest(now()::timestamp, e.checked_at + interval '{MOVED_SECONDS} s')"
)
# What was begun before a shard asked for another look is no answer to that: who waits for a verdict
# that is younger than its question (`parking`) goes by `checked_at`.
_WRITE_SQL: Final = f"""
    WITH i AS (
        SELECT * FROM unnest(%b::text[], %b::bigint[], %b::bigint[], %b::integer[], %b::integer[],
            %b::text[], %b::boolean[], %b::text[], %b::boolean[], %b::text[], %b::text[],
            %b::text[], %b::text[], %b::text[])
        AS i (did, seen, milliseconds, rank, failures, problem, settled, handle, known, claimed,
            pds, labeler, signing_key, label_key)
    ), locked AS (
        SELECT e.did FROM engine_identities e WHERE e.did IN (SELECT i.did FROM i)
        ORDER BY e.did COLLATE "C" FOR NO KEY UPDATE
    )
    UPDATE engine_identities e SET
        next_check = CASE WHEN {_MICROSECONDS} = i.seen
            THEN now()::timestamp + i.milliseconds * interval '1 millisecond'
            ELSE e.next_check END,
        rank = CASE WHEN {_MICROSECONDS} = i.seen THEN i.rank ELSE e.rank END,
        stale = e.stale AND NOT ({_MICROSECONDS} = i.seen AND (i.known OR i.settled)),
        failures = i.failures, problem = i.problem,
        checked_at = CASE WHEN i.settled AND {_MICROSECONDS} = i.seen
            THEN now()::timestamp ELSE e.checked_at END,
        handle = CASE WHEN i.settled THEN i.handle ELSE e.handle END,
        claimed = CASE WHEN i.known THEN i.claimed ELSE e.claimed END,
        pds = CASE WHEN i.known THEN i.pds ELSE e.pds END,
        labeler = CASE WHEN i.known THEN i.labeler ELSE e.labeler END,
        signing_key = CASE WHEN i.known THEN i.signing_key ELSE e.signing_key END,
        label_key = CASE WHEN i.known THEN i.label_key ELSE e.label_key END
    FROM i, locked WHERE e.did = i.did AND locked.did = i.did
"""
_FILL_SQL: Final = f"""
    WITH slice AS (
        SELECT u.did FROM users u WHERE u.did > %s ORDER BY u.did LIMIT %s
    ), made AS (
        INSERT INTO engine_identities (did, plc, rank)
        SELECT s.did, starts_with(s.did, 'did:plc:'), CASE WHEN EXISTS (
            SELECT FROM engine_repos r WHERE r.did = s.did AND r.rev >= %s
        ) THEN {ACTIVE} ELSE {OTHER} END
        FROM slice s WHERE NOT EXISTS (SELECT FROM engine_identities e WHERE e.did = s.did)
        ON CONFLICT (did) DO NOTHING RETURNING 1
    )
    SELECT (SELECT did FROM slice ORDER BY did DESC LIMIT 1), (SELECT count(*) FROM made)
"""
_BACKLOG_SQL: Final = """
    SELECT (SELECT count(*) FROM (
        SELECT FROM engine_identities
        WHERE plc = %s AND rank = %s AND next_check <= now() LIMIT %s) d),
    (SELECT extract(epoch FROM now()::timestamp - next_check)::float8 FROM engine_identities
        WHERE plc = %s AND rank = %s ORDER BY next_check LIMIT 1)
"""


class Due(NamedTuple):
    """An identity to be looked at.

    `seen` is its `next_check` (microseconds since 1970), `held` the handle that its account is
    shown with, `failures` those in a row, `silence` the seconds since the last verdict. `known`: a
    document of it was seen.
    """

    did: str
    rank: int
    seen: int
    failures: int
    held: str
    silence: float
    known: bool = False


class Found(NamedTuple):
    """What was found out about an identity.

    `settled`: `handle` is the verified one, None for none; else that stays as it is. `known`: the
    next five come from its document; else they stay. `seconds` until it is looked at again.
    """

    due: Due
    seconds: float
    problem: str | None
    settled: bool
    handle: str | None = None
    known: bool = False
    claimed: str | None = None
    pds: str | None = None
    labeler: str | None = None
    signing_key: str | None = None
    label_key: str | None = None
    good: bool = False


class Written(NamedTuple):
    """How many accounts are shown with another handle now, and who lost theirs to another one."""

    changed: int
    lost: tuple[str, ...]


def prepare(connection: Connection[Any]) -> None:
    """Make a connection plan as the resolver needs it."""
    for name, value in _SESSION.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])


def create_parameters(dids: Sequence[str], active: Collection[str] = ()) -> list[Any]:
    """The parameters of CREATE_SQL; those in `active` are looked at before others."""
    active = frozenset(active)
    ranks = [ACTIVE if did in active else OTHER for did in dids]
    return [text_array(dids), array("integer", ranks)]


def recheck(connection: Connection[Any], dids: Sequence[str]) -> None:
    """Have identities looked at before all others; within the caller's transaction."""
    if dids:
        connection.execute(CHANGED_SQL, [text_array(sorted(set(dids)))])


def due(
    connection: Connection[Any], plc: bool, rank: int, limit: int, but: Sequence[str] = ()
) -> list[Due]:
    """The identities of a rank that have been due for longest, without those in `but`."""
    rows = connection.execute(_DUE_SQL, [plc, rank, text_array(list(but)), limit]).fetchall()
    return [Due(*row) for row in rows]


def backlog(connection: Connection[Any], plc: bool, rank: int, most: int) -> tuple[int, float]:
    """How many of a rank are due, counted up to `most`, and since how many seconds the first is."""
    row = connection.execute(_BACKLOG_SQL, [plc, rank, most, plc, rank]).fetchone()
    assert row is not None
    return int(row[0]), max(0.0, row[1] or 0.0)


def write(connection: Connection[Any], fence: Fence, found: Sequence[Found]) -> Written:
    """Write what was found, in one transaction; of two that have one handle the later one has it.

    Of users who forbid the collection of their data only the servers and keys are kept, and no
    handle that they were not shown with before. Raises Fenced.
    """
    found = _one_holder(found)
    settled = {each.due.did: each.handle or INVALID for each in found if each.settled}
    holders = {each.handle: each.due.did for each in found if each.settled and each.handle}
    with connection.transaction():
        fence.check(connection)
        dids = text_array(sorted(each.due.did for each in found))
        forbidden = {did for (did,) in connection.execute(_FORBIDDEN_SQL, [dids])}
        changes, lost = {}, []
        if settled:
            rows = connection.execute(
                _LOCK_SQL, [text_array(sorted(settled)), text_array(sorted(holders))]
            ).fetchall()
            for did, handle in rows:
                wanted = settled.get(did, handle)
                if holders.get(wanted, did) != did:
                    wanted = INVALID
                    lost.append(did)
                if did in forbidden and wanted != handle:
                    wanted = INVALID
                if wanted != handle:
                    changes[did] = wanted
        if changes:
            connection.execute(
                _HANDLES_SQL, [text_array(list(changes)), text_array(list(changes.values()))]
            )
        _write_rows(connection, [_withheld(each, forbidden) for each in found])
        parking.looked_at(
            connection, sorted(each.due.did for each in found if each.known or each.settled)
        )
        if lost:
            connection.execute(_LOSE_SQL, [text_array(lost)])
    return Written(len(changes), tuple(lost))


def fill(
    connection: Connection[Any], fence: Fence, after: str, limit: int, active_since: str
) -> tuple[str | None, int]:
    """Make the rows of users who have none, from one slice of the table.

    `after` is the last DID of the slice before, `active_since` a rev: who wrote since then is
    looked at earlier. Returns the last DID of this one, None where there was nothing left, and how
    many rows were made. Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        row = connection.execute(_FILL_SQL, [after, limit, active_since]).fetchone()
    assert row is not None
    return row[0], int(row[1])


def forget(connection: Connection[Any], did: str) -> None:
    """Keep no handle of an account; within the caller's transaction."""
    connection.execute(
        "UPDATE engine_identities SET handle = NULL, claimed = NULL, problem = %s WHERE did = %s",
        [_FORBIDDEN, did],
    )


def signing_keys(connection: Connection[Any], dids: Sequence[str]) -> dict[str, str]:
    """The keys that sign the repositories of these accounts, as Multikey; only those known, and not
    stale.
    """
    return _column(connection, "signing_key", dids, "AND NOT stale")


def label_keys(connection: Connection[Any], dids: Sequence[str]) -> dict[str, str]:
    """The keys that sign the labels of these accounts, as Multikey; only those known."""
    return _column(connection, "label_key", dids)


def pds_of(connection: Connection[Any], dids: Sequence[str]) -> dict[str, str]:
    """The servers of these accounts, such as `https://host`; only those known."""
    return _column(connection, "pds", dids)


def ask_again(connection: Connection[Any], reasons: Sequence[str]) -> None:
    """Have the identities of parked accounts looked at who wait for that, where it is not due."""
    rows = connection.execute(
        "SELECT p.did FROM engine_parked p LEFT JOIN engine_identities e ON e.did = p.did"
        " WHERE p.reason = ANY(%b::text[]) AND NOT p.draining AND NOT coalesce(e.stale, false)",
        [text_array(list(reasons))],
    ).fetchall()
    recheck(connection, [did for (did,) in rows])


def _column(
    connection: Connection[Any], name: str, dids: Sequence[str], condition: str = ""
) -> dict[str, str]:
    rows = connection.execute(
        f"SELECT did, {name} FROM engine_identities"
        f" WHERE did = ANY(%b::text[]) AND {name} IS NOT NULL {condition}".encode(),
        [text_array(list(dids))],
    ).fetchall()
    return dict(rows)


def _one_holder(found: Sequence[Found]) -> list[Found]:
    """Of several that were found to have one handle, leave it to the last one."""
    last = {each.handle: each.due.did for each in found if each.settled and each.handle}
    return [
        each._replace(handle=None, good=False, seconds=MOVED_SECONDS, problem=_MOVED)
        if each.handle and last.get(each.handle, each.due.did) != each.due.did
        else each
        for each in found
    ]


def _withheld(found: Found, forbidden: Collection[str]) -> Found:
    """What may be stored of what was found."""
    if found.due.did not in forbidden:
        return found
    return found._replace(handle=None, claimed=None, problem=_FORBIDDEN)


def _write_rows(connection: Connection[Any], found: Sequence[Found]) -> None:
    rows = [
        (
            each.due.did,
            each.due.seen,
            round(each.seconds * 1000),
            # What was not told is asked again in the same rank.
            OTHER if each.settled else each.due.rank,
            0 if each.good else min(each.due.failures + 1, 1_000_000),
            each.problem,
            each.settled,
            each.handle,
            each.known,
            *(each.claimed, each.pds, each.labeler, each.signing_key, each.label_key),
        )
        for each in sorted(found, key=lambda each: each.due.did)
    ]
    if rows:
        columns = zip(*rows, strict=True)
        connection.execute(
            _WRITE_SQL,
            [array(type_, column) for type_, column in zip(_TYPES, columns, strict=True)],
        )


_TYPES: Final = (
    *("text", "bigint", "bigint", "integer", "integer", "text", "boolean", "text", "boolean"),
    *("text",) * 5,
)
