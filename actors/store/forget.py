"""Forgetting a user: nothing of theirs is stored from now on, and what is stored goes.

The row in `users` stays, with the DID alone, as other tables hang on it; so do the rev guard and
the account's status, without which a deletion or an old commit could be taken for a new one.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.store import identities, parking
from actors.store.author_range import author_range
from actors.store.decisions import decide, order_purges
from actors.store.subjects import INVALID_HANDLE

_FORBID: Final = (
    "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)"
    " ON CONFLICT (user_did) DO UPDATE SET data_collection_forbidden = true,"
    " blocked_keywords = '[]', muted_users = '[]', custom_lists = '[]', feed_preferences = '{}',"
    " last_backfill_at = NULL, last_liked_posts_backfill = NULL, last_follows_backfill = NULL,"
    " last_feeds_backfill = NULL, last_notifications_backfill = NULL, updated_at = now()"
)
_FORGET_HANDLE: Final = "UPDATE users SET handle = %s WHERE did = %s AND handle <> %s"
_FORGET_DROPS: Final = (
    f"DELETE FROM engine_drops WHERE subject = %(did)s OR {author_range('subject', '%(did)s')}"
)
_LETTERS: Final = (
    "SELECT id FROM engine_dead_letters WHERE position(%s::bytea in body) > 0 ORDER BY id"
)


class Forgotten(NamedTuple):
    """What was done at once: whether the user had forbidden it before, and dead letters changed."""

    before: bool
    letters: int


def forget(
    connection: Connection[Any], did: str, without: Callable[[bytes, str], bytes | None]
) -> Forgotten:
    """Forbid the collection of a user's data, and order what is stored of them to be removed.

    `without` returns a dead letter's body without the frames of a DID, None where nothing is left
    of it, and the same body where none is theirs. Raises psycopg.Error.
    """

    def do() -> bool:
        row = connection.execute(
            "SELECT data_collection_forbidden FROM user_settings WHERE user_did = %s", [did]
        ).fetchone()
        connection.execute(_FORBID, [did])
        connection.execute(_FORGET_HANDLE, [INVALID_HANDLE, did, INVALID_HANDLE])
        identities.forget(connection, did)
        connection.execute(_FORGET_DROPS.encode(), {"did": did})
        # Events that wait hold what their author wrote; what comes after them is out of step.
        parking.give_up(connection, [did])
        order_purges(connection, [did], "forget")
        return row is not None and bool(row[0])

    before = decide(connection, do)
    # Outside the decision, for which every writer waits: there may be much to search.
    letters = sum(
        _forget_letter(connection, letter, body, without(body, did))
        for letter, body in _letters_with(connection, did)
    )
    return Forgotten(before, letters)


def _letters_with(connection: Connection[Any], did: str) -> Iterator[tuple[int, bytes]]:
    for (letter,) in connection.execute(_LETTERS, [did.encode()]).fetchall():
        row = connection.execute(
            "SELECT body FROM engine_dead_letters WHERE id = %s", [letter]
        ).fetchone()
        if row is not None:
            yield letter, bytes(row[0])


def _forget_letter(
    connection: Connection[Any], letter: int, body: bytes, left: bytes | None
) -> bool:
    if left == body:
        return False
    if left is None:
        connection.execute("DELETE FROM engine_dead_letters WHERE id = %s", [letter])
    else:
        connection.execute("UPDATE engine_dead_letters SET body = %s WHERE id = %s", [left, letter])
    return True
