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

from actors.store.arrays import array, text_array

# Events drained in one transaction.
DRAINED_AT_ONCE: Final = 200
DRAINED_BYTES: Final = 8 * 1024 * 1024
# What a DID waits for: its whole repository; its key; its identity to be looked at again, since
# something is not signed by the key that is known.
RESYNC: Final = "resync"
NO_KEY: Final = "no_key"
WRONG_KEY: Final = "wrong_key"

# For a key whatever is known will do, or the verdict that there is none; a key that does not fit
# must have been looked at since.
_READY: Final = (
    "(p.draining OR p.reason IN ('no_key', 'wrong_key') AND EXISTS ("
    "SELECT FROM engine_identities e WHERE e.did = p.did AND (e.checked_at > p.created_at"
    " OR p.reason = 'no_key' AND e.signing_key IS NOT NULL)))"
)

_PUT_SQL: Final = (
    "INSERT INTO engine_resync_buffer (did, host, body)"
    " SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[])"
)
_COUNT_SQL: Final = (
    "UPDATE engine_parked p SET bytes = p.bytes + i.bytes"
    " FROM unnest(%b::text[], %b::bigint[]) AS i (did, bytes) WHERE p.did = i.did"
    " RETURNING p.did, p.bytes"
)

_SPOIL_SQL: Final = (
    "UPDATE engine_parked SET overflowed = true WHERE did = ANY(%s::text[]) AND NOT overflowed"
)
_WAITING_SQL: Final = (
    "SELECT id, host, body FROM (SELECT b.*, sum(length(b.body)) OVER (ORDER BY b.id) AS total"  # noqa: S608
    " FROM (SELECT * FROM engine_resync_buffer WHERE did = %s ORDER BY id LIMIT %s) b) b"
    " WHERE total - length(body) < %s"
    f" AND EXISTS (SELECT FROM engine_parked p WHERE p.did = b.did AND {_READY}) ORDER BY id"
)
_FETCH_ANEW_SQL: Final = (
    "UPDATE engine_repos r SET out_of_step = true WHERE r.did = %s AND EXISTS ("  # noqa: S608
    f"SELECT FROM engine_parked p WHERE p.did = r.did AND p.overflowed AND {_READY})"
)


class Parked(NamedTuple):
    """An event that waits: its row, its host, its frame."""

    row: int
    host: str
    frame: bytes


def begin(connection: Connection[Any], did: str) -> None:
    """From the end of this transaction on, live events of the DID wait for its repository."""
    connection.execute(
        "INSERT INTO engine_parked (did, reason) VALUES (%s, %s) ON CONFLICT (did) DO UPDATE"
        " SET reason = excluded.reason, draining = false",
        [did, RESYNC],
    )


def await_keys(connection: Connection[Any], reasons: Mapping[str, str]) -> list[str]:
    """Have live events of DIDs wait for their keys (NO_KEY, WRONG_KEY).

    Returns those that did not wait for anything before.
    """
    rows = connection.execute(
        "INSERT INTO engine_parked (did, reason) SELECT * FROM unnest(%b::text[], %b::text[])"
        " ON CONFLICT (did) DO NOTHING RETURNING did",
        [text_array(list(reasons)), text_array(list(reasons.values()))],
    ).fetchall()
    return [did for (did,) in rows]


def nobody_comes(connection: Connection[Any], reasons: Sequence[str]) -> None:
    """Have the events of DIDs drained that wait for what this run does not do."""
    connection.execute(
        "UPDATE engine_parked SET draining = true WHERE reason = ANY(%b::text[])",
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


def park(
    connection: Connection[Any], events: Sequence[tuple[str, str, bytes]], limit: int
) -> list[str]:
    """Store events (DID, host, frame) of parked DIDs; returns the DIDs that had too many.

    Those lose what waited, more than `limit` bytes of it, and are marked.
    """
    dids, hosts, frames = zip(*events, strict=True)
    connection.execute(_PUT_SQL, [text_array(dids), text_array(hosts), array("bytea", frames)])
    sizes: dict[str, int] = {}
    for did, _host, frame in events:
        sizes[did] = sizes.get(did, 0) + len(frame)
    held = connection.execute(
        _COUNT_SQL, [text_array(list(sizes)), array("bigint", list(sizes.values()))]
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
    """Return the DIDs whose events are to be drained."""
    rows = connection.execute(
        f"SELECT p.did FROM engine_parked p WHERE {_READY} ORDER BY p.created_at"  # noqa: S608
        " LIMIT 10000".encode()
    ).fetchall()
    return [did for (did,) in rows]


def waiting(connection: Connection[Any], did: str, limit: int) -> list[Parked]:
    """Return the oldest events of a DID that is to be drained: none while it is not (any more),
    not more than `limit`, nor many more bytes than a batch has.
    """
    rows = connection.execute(_WAITING_SQL.encode(), [did, limit, DRAINED_BYTES]).fetchall()
    return [Parked(row, host, bytes(body)) for row, host, body in rows]


def done(connection: Connection[Any], did: str, rows: Sequence[int], *, last: bool) -> None:
    """Delete events that were applied; with the last of them the DID is parked no more.

    Where some were given up it is out of step again.
    """
    connection.execute(
        "DELETE FROM engine_resync_buffer WHERE id = ANY(%b::bigint[])",
        [array("bigint", list(rows))],
    )
    if not last:
        return
    # The registry locks repositories, then what is parked: so in this order.
    connection.execute(_FETCH_ANEW_SQL.encode(), [did])
    connection.execute(
        f"DELETE FROM engine_parked p WHERE p.did = %s AND {_READY}".encode(),  # noqa: S608
        [did],
    )
