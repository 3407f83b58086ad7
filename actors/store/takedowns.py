"""Takedowns: accounts and records that the operator refuses. Each batch looks them up itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store.decisions import decide, order_purges
from actors.store.parking import spoil
from actors.store.subjects import did_of, is_did

_ADD: Final = (
    "INSERT INTO engine_takedowns (subject) SELECT unnest(%s::text[])"
    " ON CONFLICT (subject) DO NOTHING RETURNING subject"
)
_REMOVE: Final = "DELETE FROM engine_takedowns WHERE subject = ANY(%s) RETURNING subject"
# An account that was deleted by its owner goes on being removed.
_STILL_DELETED: Final = (
    "UPDATE engine_purges p SET reason = 'deleted' FROM engine_accounts a"
    " WHERE p.subject = ANY(%s) AND p.reason = 'takedown' AND a.did = p.subject"
    " AND NOT a.active AND a.status = 'deleted'"
)
_CANCEL: Final = (
    "DELETE FROM engine_purges WHERE subject = ANY(%s) AND reason = 'takedown'"
    " RETURNING subject, removed"
)
# Only the whole repository still has what was removed or never stored.
_OUT_OF_STEP: Final = "UPDATE engine_repos SET out_of_step = true WHERE did = ANY(%s)"
_LIST: Final = (
    "SELECT t.subject, t.created_at, u.handle, p.removed FROM engine_takedowns t"
    " LEFT JOIN engine_purges p ON p.subject = t.subject"
    " LEFT JOIN users u ON u.did ="
    " CASE WHEN t.subject LIKE 'did:%%' THEN t.subject ELSE split_part(t.subject, '/', 3) END"
    " ORDER BY t.created_at, t.subject"
)


class Takedown(NamedTuple):
    """One takedown. `removed`: how many records are gone while a purge goes on; None after it."""

    subject: str
    since: datetime
    handle: str | None
    removed: int | None


def add(connection: Connection[Any], subjects: Sequence[str]) -> set[str]:
    """Refuse these DIDs and uris from now on, and order what is stored of them to be removed.

    Returns those that were not refused before. All of them or, where it raises psycopg.Error, none.
    """

    def do() -> set[str]:
        rows = connection.execute(_ADD, [list(subjects)]).fetchall()
        order_purges(connection, subjects, "takedown")
        return {subject for (subject,) in rows}

    return decide(connection, do)


def remove(connection: Connection[Any], subjects: Sequence[str]) -> set[str]:
    """Refuse these no more, and stop their removal where it is still under way.

    Returns those that were refused. What is gone comes back when the repository is fetched, for
    which it is marked: accounts by the engine, as what it withheld is noted; here where only a
    record was refused, or a removal had begun.
    """

    def do() -> set[str]:
        rows = connection.execute(_REMOVE, [list(subjects)]).fetchall()
        found = {subject for (subject,) in rows}
        connection.execute(_STILL_DELETED, [list(found)])
        begun = connection.execute(_CANCEL, [list(found)]).fetchall()
        missing = {did_of(subject) for subject in found if not is_did(subject)}
        missing |= {did_of(subject) for subject, removed in begun if removed}
        connection.execute(_OUT_OF_STEP, [list(missing)])
        # What a fetch under way has brought may have been removed since.
        spoil(connection, sorted({did_of(subject) for subject in found}))
        return found

    return decide(connection, do)


def every(connection: Connection[Any]) -> list[Takedown]:
    """Return all takedowns, the oldest first."""
    return [Takedown(*row) for row in connection.execute(_LIST).fetchall()]
