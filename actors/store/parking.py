"""Live events that wait for the network: of a repository that is being fetched whole, of an account
whose key is not known. They wait here, durably, in order.

While a DID is parked, its commits are stored as they came and acked, so that one slow host holds up
nobody; when what they wait for has come they are drained, oldest first, and the DID is parked no
more. What a DID may have waiting is bounded: past the bound its events are given up, and it stays
out of step, so that it is fetched anew.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.atproto import tid
from actors.store.arrays import array, text_array

# Events drained in one transaction.
DRAINED_AT_ONCE: Final = 200
DRAINED_BYTES: Final = 8 * 1024 * 1024
# What a DID waits for: its whole repository; its key; its identity to be looked at again, since
# something is not signed by the key that is known.
RESYNC: Final = "resync"
NO_KEY: Final = "no_key"
WRONG_KEY: Final = "wrong_key"
KEYS: Final = (NO_KEY, WRONG_KEY)

# What is applied again after a crash may wait already.
_PUT_SQL: Final = """
    WITH put AS (
        INSERT INTO engine_resync_buffer (did, host, seq, body, withheld)
        SELECT i.did, i.host, i.seq, i.body, i.withheld
        FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bytea[], %b::boolean[])
            WITH ORDINALITY AS i (did, host, seq, body, withheld, place)
        WHERE NOT EXISTS (SELECT FROM engine_resync_buffer b WHERE b.did = i.did
            AND b.seq = i.seq AND b.host = i.host AND b.body = i.body)
        ORDER BY i.place RETURNING did, length(body) AS size
    ), summed AS (SELECT did, sum(size) AS size FROM put GROUP BY did)
    UPDATE engine_parked p SET bytes = p.bytes + s.size FROM summed s WHERE p.did = s.did
    RETURNING p.did, p.bytes
"""
_DELETE_SQL: Final = """
    WITH gone AS (
        DELETE FROM engine_resync_buffer WHERE id = ANY(%b::bigint[])
        RETURNING length(body) AS size
    )
    UPDATE engine_parked SET bytes = greatest(0, bytes - (SELECT sum(size) FROM gone))
    WHERE did = %s
"""
_SPOIL_SQL: Final = (
    "UPDATE engine_parked SET overflowed = true WHERE did = ANY(%s::text[]) AND NOT overflowed"
)
_WAITING_SQL: Final = (
    "SELECT id, host, body, withheld FROM ("
    "SELECT b.*, sum(length(b.body)) OVER (ORDER BY b.id) AS total"
    " FROM (SELECT * FROM engine_resync_buffer WHERE did = %s ORDER BY id LIMIT %s) b) b"
    " WHERE total - length(body) < %s"
    " AND EXISTS (SELECT FROM engine_parked p WHERE p.did = b.did AND p.draining) ORDER BY id"
)
# A repository of which no state is known has one from before all commits.
_FETCH_ANEW_SQL: Final = (
    "INSERT INTO engine_repos AS r (did, rev, out_of_step)"
    " SELECT p.did, %s, true FROM engine_parked p"
    " WHERE p.did = %s AND p.overflowed AND p.draining"
    " ON CONFLICT (did) DO UPDATE SET out_of_step = true"
)
_LOOKED_SQL: Final = """
    UPDATE engine_parked p SET draining = p.draining OR p.reason = ANY(%b::text[]),
        looked = coalesce(
            (SELECT max(b.id) FROM engine_resync_buffer b WHERE b.did = p.did), p.looked)
    FROM engine_identities e WHERE p.did = ANY(%b::text[]) AND e.did = p.did AND NOT e.stale
"""
_CASE_SQL: Final = (
    "SELECT e.signing_key, coalesce(e.stale, false), p.looked, r.rev"
    " FROM engine_parked p LEFT JOIN engine_identities e ON e.did = p.did"
    " LEFT JOIN engine_repos r ON r.did = p.did WHERE p.did = %s"
)
_LEFT_SQL: Final = (
    "SELECT count(*) FROM engine_parked p WHERE p.draining OR p.reason = ANY(%s)"
    " AND NOT EXISTS (SELECT FROM engine_identities e WHERE e.did = p.did AND NOT e.plc"
    " AND e.failures > 0)"
)


class Arriving(NamedTuple):
    """An event of a parked DID; `withheld`: without its records, which may not be stored."""

    did: str
    host: str
    seq: int
    frame: bytes
    withheld: bool = False


class Parked(NamedTuple):
    """An event that waits: its row, its host, its frame; `withheld` as it arrived."""

    row: int
    host: str
    frame: bytes
    withheld: bool = False


class Case(NamedTuple):
    """By what the waiting events of a DID are judged.

    `key` is the one that was read last (Multikey), `stale` whether it may have changed since;
    after the events up to the row `looked` came, the identity was looked at. `rev` is that of the
    repository's last applied commit.
    """

    key: str | None
    stale: bool
    looked: int
    rev: str | None


class Standing(NamedTuple):
    """How many DIDs wait for something, and the bytes of their events."""

    accounts: int
    size: int


def begin(connection: Connection[Any], did: str) -> None:
    """From the end of this transaction on, live events of the DID wait for its repository."""
    connection.execute(
        "INSERT INTO engine_parked (did, reason) VALUES (%s, %s) ON CONFLICT (did) DO UPDATE"
        " SET reason = excluded.reason, draining = false",
        [did, RESYNC],
    )


def parked_of(connection: Connection[Any], dids: Sequence[str]) -> set[str]:
    """Return those of the DIDs that are parked."""
    rows = connection.execute(
        "SELECT did FROM engine_parked WHERE did = ANY(%b::text[])", [text_array(list(dids))]
    ).fetchall()
    return {did for (did,) in rows}


def await_keys(connection: Connection[Any], reasons: Mapping[str, str]) -> None:
    """Have live events of DIDs that are not parked wait for their keys (NO_KEY, WRONG_KEY)."""
    connection.execute(
        "INSERT INTO engine_parked (did, reason) SELECT * FROM unnest(%b::text[], %b::text[])",
        [text_array(list(reasons)), text_array(list(reasons.values()))],
    )


def await_key_again(connection: Connection[Any], did: str, reason: str) -> None:
    """Drain no more of a DID until its identity was looked at again."""
    connection.execute(
        "UPDATE engine_parked SET reason = %s, draining = false WHERE did = %s AND draining",
        [reason, did],
    )


def looked_at(connection: Connection[Any], dids: Sequence[str]) -> None:
    """The identities of these DIDs were looked at: those who waited for that are drained, unless
    they changed meanwhile.
    """
    connection.execute(_LOOKED_SQL, [text_array(KEYS), text_array(list(dids))])


def nobody_comes(connection: Connection[Any], reasons: Sequence[str]) -> None:
    """Have the events of DIDs drained that wait for what this run does not do."""
    connection.execute(
        "UPDATE engine_parked SET draining = true WHERE reason = ANY(%b::text[]) AND NOT draining",
        [text_array(list(reasons))],
    )


def drain(connection: Connection[Any], did: str) -> None:
    """The DID's events need wait no longer: they are drained from now on."""
    connection.execute("UPDATE engine_parked SET draining = true WHERE did = %s", [did])


def spoil(connection: Connection[Any], dids: Sequence[str]) -> None:
    """Have parked DIDs fetched anew once they are parked no more: what was fetched is not all
    there.
    """
    connection.execute(_SPOIL_SQL, [list(dids)])


def park(connection: Connection[Any], events: Sequence[Arriving], limit: int) -> list[str]:
    """Store events of parked DIDs, those that are not stored yet; returns the DIDs that had too
    many.

    Those lose what waited, more than `limit` bytes of it, and are marked.
    """
    dids, hosts, numbers, frames, withheld = zip(*events, strict=True)
    held = connection.execute(
        _PUT_SQL,
        [
            text_array(dids),
            text_array(hosts),
            array("bigint", numbers),
            array("bytea", frames),
            array("boolean", withheld),
        ],
    ).fetchall()
    over: list[str] = [did for did, size in held if size > limit]
    if over:
        give_up(connection, over)
    return over


def give_up(connection: Connection[Any], dids: Sequence[str]) -> None:
    """Delete what waits of these DIDs; they are fetched anew once they are parked no more."""
    connection.execute("DELETE FROM engine_resync_buffer WHERE did = ANY(%s::text[])", [list(dids)])
    connection.execute(
        "UPDATE engine_parked SET bytes = 0, overflowed = true WHERE did = ANY(%s::text[])",
        [list(dids)],
    )


def list_draining(connection: Connection[Any]) -> list[str]:
    """Return the DIDs whose events are to be drained, those first that have waited for longest."""
    rows = connection.execute(
        "SELECT did FROM engine_parked WHERE draining ORDER BY created_at LIMIT 10000"
    ).fetchall()
    return [did for (did,) in rows]


def waiting(connection: Connection[Any], did: str, limit: int) -> list[Parked]:
    """Return the oldest events of a DID that is to be drained: none while it is not (any more),
    not more than `limit`, nor many more bytes than a batch has.
    """
    rows = connection.execute(_WAITING_SQL, [did, limit, DRAINED_BYTES]).fetchall()
    return [Parked(row, host, bytes(body), bool(withheld)) for row, host, body, withheld in rows]


def case_of(connection: Connection[Any], did: str) -> Case:
    """By what the waiting events of a DID are judged. It must be parked."""
    row = connection.execute(_CASE_SQL, [did]).fetchone()
    assert row is not None, f"{did} is not parked"
    return Case(*row)


def done(connection: Connection[Any], did: str, rows: Sequence[int], *, last: bool) -> None:
    """Delete events that were applied; with the last of them the DID is parked no more.

    Where some were given up it is out of step again.
    """
    if rows:
        connection.execute(_DELETE_SQL, [array("bigint", list(rows)), did])
    if not last:
        return
    # The registry locks repositories, then what is parked: so in this order.
    connection.execute(_FETCH_ANEW_SQL, [tid.from_microseconds(0, 0), did])
    connection.execute("DELETE FROM engine_parked WHERE did = %s AND draining", [did])


def left(connection: Connection[Any]) -> int:
    """Return how many DIDs wait for no fetch: those that are drained, and those whose key is looked
    up. A site of its own that gave no answer is not waited for, the directory is.
    """
    row = connection.execute(_LEFT_SQL, [list(KEYS)]).fetchone()
    return 0 if row is None else int(row[0])


def standing(connection: Connection[Any]) -> dict[str, Standing]:
    """Count who is parked, by what they wait for; reads the whole table."""
    with connection.transaction():
        # Reading it from its beginning to its end is best here, whatever else a connection does.
        connection.execute("SELECT set_config('enable_seqscan', 'on', true)")
        rows = connection.execute(
            "SELECT reason, count(*), sum(bytes)::bigint FROM engine_parked GROUP BY reason"
        ).fetchall()
    return {reason: Standing(accounts, size) for reason, accounts, size in rows}
