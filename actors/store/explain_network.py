"""What waits for the network on behalf of an account: live events, fetches, its identity."""

from typing import Any, Final

from psycopg import Connection

from actors.store.explanation import Fetch, Identity, Network, Parking

# Waiting events are counted up to this.
MOST_EVENTS: Final = 10_000

_PARKING: Final = """
    SELECT p.reason, p.created_at, (SELECT count(*) FROM (
            SELECT FROM engine_resync_buffer b WHERE b.did = p.did LIMIT %(most)s) b),
        p.bytes, p.draining, p.overflowed
    FROM engine_parked p WHERE p.did = %(did)s
"""
# By the key of the table: of an account its profile and its repository, of a record itself.
_FETCHES: Final = """
    SELECT kind, key, cause, state, attempts, next_try, reason FROM engine_incomplete
    WHERE (kind, key) IN (('profile', %(did)s), ('repo', %(did)s), ('record', %(subject)s))
    ORDER BY kind, key
"""
_IDENTITY: Final = """
    SELECT pds, signing_key, claimed, problem, failures, checked_at, next_check
    FROM engine_identities WHERE did = %(did)s
"""
# A row stands for an account that the index is of; without any it is of everybody.
_LEFT_OUT: Final = """
    SELECT EXISTS (SELECT FROM engine_personal)
        AND NOT EXISTS (SELECT FROM engine_personal WHERE did = %(did)s)
"""


def network_of(connection: Connection[Any], did: str, subject: str) -> Network:
    """What waits for the network for a DID, and for the record `subject`, if it is one of the DID.

    Raises psycopg.Error.
    """
    names = {"did": did, "subject": subject, "most": MOST_EVENTS}
    parking = connection.execute(_PARKING, names).fetchone()
    identity = connection.execute(_IDENTITY, names).fetchone()
    left_out = connection.execute(_LEFT_OUT, names).fetchone()
    assert left_out is not None
    return Network(
        parking=None if parking is None else Parking(*parking),
        fetches=[Fetch(*row) for row in connection.execute(_FETCHES, names).fetchall()],
        identity=None if identity is None else Identity(*identity),
        left_out=left_out[0],
    )
