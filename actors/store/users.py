"""Rows of `users`: made by the user gate for every DID that wrote something or was spoken of."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from psycopg import Connection

from actors.store import identities, outbox
from actors.store.arrays import text_array
from actors.store.fence import Fence
from actors.store.tallies import ADD_SQL, add_parameters

# The date is a profile's to tell; until then it is the same whoever mentioned the DID first. What
# an account event said before there was a row holds for the row; one that is under way at this
# moment puts the row itself, and the later of the two finds that of the other.
CREATE_SQL: Final = (
    "INSERT INTO users (did, handle, created_at, engine_account_status)"
    " SELECT i.did, 'handle.invalid', timestamp 'epoch',"
    " (SELECT coalesce(nullif(a.status, ''), 'inactive') FROM engine_accounts a"
    " WHERE a.did = i.did AND NOT a.active LIMIT 1)"
    " FROM unnest(%b::text[]) AS i (did)"
    ' ORDER BY i.did COLLATE "C" ON CONFLICT (did) DO NOTHING'
)


def create_users(
    connection: Connection[Any],
    fence: Fence,
    dids: Sequence[str],
    rows: Sequence[int] = (),
    active: Collection[str] = (),
) -> int:
    """Make the missing rows of these DIDs; returns how many there were.

    `rows` is the outbox work that this finishes, in the same transaction. The identities of those
    in `active` are looked at before those of others. Raises Fenced.
    """
    wanted = sorted(set(dids))
    with connection.transaction():
        fence.check(connection)
        made = connection.execute(CREATE_SQL, [text_array(wanted)]).rowcount
        if wanted:
            connection.execute(identities.CREATE_SQL, identities.create_parameters(wanted, active))
        if made:
            connection.execute(
                ADD_SQL, add_parameters(fence.epoch, fence.actor, {"users_created": made})
            )
        if rows:
            outbox.finish(connection, list(rows))
    return made
