"""Which labelers there are, who they are as far as the resolver knows, how far each has been read,
and what keeps it from being read.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.arrays import text_array
from actors.store.fence import Fence
from actors.store.labels import WITHHELD_SQL

_STATES_SQL: Final = "SELECT did, endpoint, cursor FROM engine_labelers WHERE did = ANY(%b::text[])"
# Of those who declare themselves, first those that are read already, so that a crowd of new ones
# drives nobody out; then those that most accounts like.
_DECLARED_SQL: Final = (
    "SELECT s.creator_did FROM labeler_services s"
    " LEFT JOIN engine_labelers l ON l.did = s.creator_did AND l.problem IS NULL"
    " AND l.cursor IS NOT NULL"
    " WHERE s.uri = 'at://' || s.creator_did || '/app.bsky.labeler.service/self'"
    " ORDER BY l.did IS NULL, s.like_count DESC, s.creator_did LIMIT %s"
)
# What is due is asked for again: an event may have said that it changed.
_IDENTITIES_SQL: Final = (
    "SELECT did, labeler, label_key, CASE WHEN next_check > now()::timestamp"
    " THEN extract(epoch FROM now()::timestamp - checked_at)::float8 END"
    " FROM engine_identities WHERE did = ANY(%b::text[])"
    " AND labeler IS NOT NULL AND label_key IS NOT NULL"
)
_BEGIN_SQL: Final = (
    "INSERT INTO engine_labelers (did, endpoint, cursor) VALUES (%s, %s, %s)"
    " ON CONFLICT (did) DO UPDATE SET endpoint = excluded.endpoint, cursor = excluded.cursor,"
    " updated_at = now()"
)
_PROBLEM_SQL: Final = (
    "INSERT INTO engine_labelers (did, problem) VALUES (%s, %s)"
    " ON CONFLICT (did) DO UPDATE SET problem = excluded.problem, updated_at = now()"
    " WHERE engine_labelers.problem IS DISTINCT FROM excluded.problem"
)


class LabelerState(NamedTuple):
    """Where a labeler was read last, and how far: None for not at all."""

    endpoint: str | None = None
    cursor: int | None = None


class Identified(NamedTuple):
    """What a labeler's DID document said: the origin of its service, and its key as Multikey.

    `age`: how many seconds ago it was found to be so, None for what is to be looked at again.
    """

    labeler: str
    label_key: str
    age: float | None


def identities(connection: Connection[Any], dids: Sequence[str]) -> dict[str, Identified]:
    """Who these labelers are; only those that are known to be labelers."""
    rows = connection.execute(_IDENTITIES_SQL, [text_array(list(dids))]).fetchall()
    return {did: Identified(*found) for did, *found in rows}


def states(connection: Connection[Any], dids: Sequence[str]) -> dict[str, LabelerState]:
    """What is known of these labelers; those that nothing is known of are left out."""
    rows = connection.execute(_STATES_SQL, [text_array(list(dids))]).fetchall()
    return {did: LabelerState(endpoint, cursor) for did, endpoint, cursor in rows}


def declared(connection: Connection[Any], limit: int) -> list[str]:
    """Accounts that declare that they are labelers, the most worthwhile ones first."""
    return [did for (did,) in connection.execute(_DECLARED_SQL, [limit]).fetchall()]


def withheld(connection: Connection[Any], dids: Sequence[str]) -> set[str]:
    """Those that are taken down, not active, or have opted out."""
    rows = connection.execute(WITHHELD_SQL, [text_array(list(dids))]).fetchall()
    return {did for (did,) in rows}


def begin(
    connection: Connection[Any], fence: Fence, did: str, endpoint: str, cursor: int | None = None
) -> None:
    """A labeler is read anew, at this endpoint, after a cursor (None: from the beginning).

    Raises Fenced.
    """
    with connection.transaction():
        fence.check(connection)
        connection.execute(_BEGIN_SQL, [did, endpoint, cursor])


def note(connection: Connection[Any], fence: Fence, did: str, problem: str | None) -> None:
    """Note what keeps a labeler from being read; None when nothing does any more. Raises Fenced."""
    with connection.transaction():
        fence.check(connection)
        connection.execute(_PROBLEM_SQL, [did, problem])
