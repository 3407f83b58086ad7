"""Removing everything that one account wrote, slice by slice: after its deletion, a takedown, or a
request to be forgotten. What others wrote about it stays.

`engine_purges` says what is to be removed; a slice is one transaction, so it goes on where a crash
left it. Counters, feed items and notifications follow as they do when a record is deleted.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql

from actors.atproto import uri
from actors.records import RECORDS, UNKNOWN, record_type
from actors.records.record import RecordType
from actors.store import parking
from actors.store.author_range import author_range
from actors.store.batch import Operation, Outcome, Removal

__all__ = [
    "AUTHOR_CONDITIONS",
    "Slice",
    "finish_purge",
    "gone",
    "list_purges",
    "next_slice",
    "note_removed",
]

# Records removed in one transaction.
SLICE_RECORDS: Final = 500


class Slice(NamedTuple):
    """What to remove next; `last` when nothing of the subject is left after it."""

    removal: Removal
    reason: str
    last: bool


class _Owned(NamedTuple):
    """A table and the condition for what an account (`did`) wrote there."""

    type: RecordType
    condition: str


_IN_RANGE: Final = author_range("{0}", "%(did)s")
_OF_AUTHOR: Final = "{0} = %(did)s"
_COLUMNS: Final = {
    "posts": ("author_did", _OF_AUTHOR),
    "likes": ("user_did", _OF_AUTHOR),
    "reposts": ("user_did", _OF_AUTHOR),
    "bookmarks": ("user_did", _OF_AUTHOR),
    "follows": ("follower_did", _OF_AUTHOR),
    "blocks": ("blocker_did", _OF_AUTHOR),
    "list_blocks": ("blocker_did", _OF_AUTHOR),
    "lists": ("creator_did", _OF_AUTHOR),
    "list_items": ("uri", _IN_RANGE),
    "starter_packs": ("creator_did", _OF_AUTHOR),
    "users": ("did", _OF_AUTHOR + " AND profile_record IS NOT NULL"),
    "feed_generators": ("creator_did", _OF_AUTHOR),
    "labeler_services": ("creator_did", _OF_AUTHOR),
    "thread_gates": ("owner_did", _OF_AUTHOR),
    "post_gates": ("post_uri", _IN_RANGE),
    "verifications": ("issuer_did", _OF_AUTHOR),
    "labels": ("src", _OF_AUTHOR),
    "generic_records": ("author_did", _OF_AUTHOR),
}
_KEPT_SQL: Final = f"""
    SELECT table_name, uri FROM engine_duplicates WHERE {author_range("uri", "%(did)s")}
    ORDER BY uri LIMIT %(limit)s
"""  # noqa: S608 - it is made of constants
_TYPES: Final = {type_.table: type_ for type_ in (*RECORDS.values(), UNKNOWN)}
AUTHOR_CONDITIONS: Final = {
    table: condition.format(column) for table, (column, condition) in _COLUMNS.items()
}
OWNED: Final = tuple(
    _Owned(_TYPES[table], condition) for table, condition in AUTHOR_CONDITIONS.items()
)
# What an AppView keeps of a user in its own tables, and goes when the user is to be forgotten.
_PRIVATE: Final = (
    ("mutes", "muter_did"),
    ("list_mutes", "muter_did"),
    ("thread_mutes", "muter_did"),
    ("activity_subscriptions", "subscriber_did"),
    ("notifications", "recipient_did"),
    # Likes and reposts have gone with their records: what is left is what the AppView noted.
    ("post_viewer_states", "viewer_did"),
)


def list_purges(connection: Connection[Any]) -> list[str]:
    """Return the subjects (DIDs, uris) of which something is still to be removed, oldest first."""
    rows = connection.execute(
        "SELECT subject FROM engine_purges ORDER BY created_at, subject LIMIT 10000"
    ).fetchall()
    return [subject for (subject,) in rows]


def next_slice(connection: Connection[Any], subject: str) -> Slice | None:
    """Find what to remove next of a subject; None when it is done already."""
    row = connection.execute(
        "SELECT reason FROM engine_purges WHERE subject = %s FOR UPDATE", [subject]
    ).fetchone()
    if row is None:
        return None
    (reason,) = row
    if not subject.startswith("did:"):
        return Slice(_one_record(subject), reason, last=True)
    names = {"did": subject}
    # Duplicates first, or each would take the place of a record that goes.
    kept = connection.execute(_KEPT_SQL.encode(), {**names, "limit": SLICE_RECORDS}).fetchall()
    if kept:
        removed = [gone(_TYPES[table], key) for table, key in kept]
        return Slice(Removal(subject, removed), reason, last=False)
    for type_, condition in OWNED:
        query = sql.SQL("SELECT {key} FROM {table} WHERE ").format(
            key=sql.Identifier(type_.key_column), table=sql.Identifier(type_.table)
        ) + sql.SQL(condition + " LIMIT %(limit)s")
        keys = connection.execute(query, {**names, "limit": SLICE_RECORDS}).fetchall()
        if keys:
            return Slice(
                Removal(subject, [gone(type_, key) for (key,) in keys]), reason, last=False
            )
    return Slice(Removal(subject, ()), reason, last=True)


def _one_record(subject: str) -> Removal:
    parsed = uri.parse(subject)
    type_ = record_type(parsed.collection)
    key = type_.key(subject, parsed.authority, parsed.rkey)
    return Removal(parsed.authority, [Operation(type_, key, subject, "", None)])


def gone(type_: RecordType, key: str) -> Operation:
    """Return the removal of a row that no commit deleted."""
    return Operation(type_, key, key, "", None)


def note_removed(connection: Connection[Any], subject: str, records: int) -> None:
    """Count what was removed of a subject, for whoever watches."""
    connection.execute(
        "UPDATE engine_purges SET removed = removed + %s WHERE subject = %s", [records, subject]
    )


def finish_purge(connection: Connection[Any], subject: str, reason: str) -> None:
    """Say that nothing of a subject is left; what was kept from it may come back some day."""
    if subject.startswith("did:"):
        if reason == "forget":
            for table, column in _PRIVATE:
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE {} = %s").format(
                        sql.Identifier(table), sql.Identifier(column)
                    ),
                    [subject],
                )
            connection.execute("DELETE FROM engine_incomplete WHERE did = %s", [subject])
            # What came meanwhile has keys of what was deleted, and nothing of it is left.
            parking.give_up(connection, [subject])
        # Where it was a labeler, its labels are gone too: should it come back, they are read again.
        connection.execute("UPDATE engine_labelers SET cursor = NULL WHERE did = %s", [subject])
        if reason != "deleted":
            connection.execute("UPDATE engine_repos SET withheld = true WHERE did = %s", [subject])
    connection.execute("DELETE FROM engine_purges WHERE subject = %s", [subject])


def purge_to_end(one_slice: Callable[[], Outcome | None], wait: Callable[[float], None]) -> Outcome:
    """Remove all that is left of a subject, slice by slice; returns what all of them did."""
    whole = Outcome()
    while (outcome := one_slice()) is not None:
        whole.add(outcome)
        wait(0)
    return whole
