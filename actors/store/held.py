"""What is indexed of one repository within a range of its paths: to be compared with what a file of
the repository holds there.

A path is collection and record key. In most tables the key of a row is the record's uri, which ends
in its path; gates are kept under the post they are for, and a profile under the account.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.records import RECORDS, UNKNOWN
from actors.records.record import RecordType
from actors.store.batch import Operation
from actors.store.purge import AUTHOR_CONDITIONS, gone

_GATES: Final = {
    "thread_gates": "app.bsky.feed.threadgate",
    "post_gates": "app.bsky.feed.postgate",
}
# Profiles are looked for apart. Bookmarks that an AppView keeps itself look like those of a
# repository: what a repository lacks is no reason to take them away.
_NOT_HERE: Final = frozenset(("users", "bookmarks"))
# No path has a character above '~'.
_ABOVE_ALL: Final = "\x7f"
_POST: Final = "app.bsky.feed.post"
_PROFILE: Final = "app.bsky.actor.profile/self"
_BY_TABLE: Final = {type_.table: type_ for type_ in (*RECORDS.values(), UNKNOWN)}
_COLLECTIONS: Final = {
    table: [collection for collection, type_ in RECORDS.items() if type_.table == table]
    for table in _BY_TABLE
}
IN_ORDER_SQL: Final = (
    "SELECT c.collname IN ('C', 'POSIX', 'ucs_basic') FROM pg_attribute a"
    " JOIN pg_collation c ON c.oid = a.attcollation"
    " WHERE a.attrelid = 'likes'::regclass AND a.attname = 'uri'"
)


class Range(NamedTuple):
    """Paths above `after` and, unless `until` is None, not above it."""

    after: str
    until: str | None

    def within(self, prefix: str) -> tuple[str, str | None] | None:
        """The part of it that begins with `prefix`, as what follows that; None if there is none.

        A first part of '' stands for everything from the beginning on.
        """
        if self.until is not None and self.until < prefix:
            return None
        if self.after >= prefix and not self.after.startswith(prefix):
            return None
        after = self.after[len(prefix) :] if self.after.startswith(prefix) else ""
        until = self.until
        if until is None or not until.startswith(prefix):
            return after, None
        return after, until[len(prefix) :]


def held(connection: Connection[Any], did: str, paths: Range, limit: int) -> list[Operation]:
    """Return the removal of every record that is indexed, or kept aside, of a DID in a range: of
    each table's at most `limit`.
    """
    (in_order,) = connection.execute(IN_ORDER_SQL).fetchone() or (False,)
    found = []
    for type_, low, high in _bounds(did, paths):
        rows = connection.execute(
            _sql(type_, in_order=in_order), {"did": did, "low": low, "high": high, "limit": limit}
        )
        found += [gone(type_, key) for (key,) in rows]
    low, high = _ends(f"at://{did}/", paths.after, paths.until)
    aside = connection.execute(_ASIDE_SQL, {"low": low, "high": high, "limit": limit})
    found += [gone(_BY_TABLE[table], key) for table, key in aside]
    if paths.after < _PROFILE and (paths.until is None or paths.until >= _PROFILE):
        profile = connection.execute(
            "SELECT did FROM users WHERE did = %s AND profile_record IS NOT NULL", [did]
        )
        found += [gone(_BY_TABLE["users"], key) for (key,) in profile]
    return found


_ASIDE_SQL: Final = (
    "SELECT table_name, uri FROM engine_duplicates"
    ' WHERE uri COLLATE "C" > %(low)s AND uri COLLATE "C" <= %(high)s LIMIT %(limit)s'
)


def _bounds(did: str, paths: Range) -> Iterator[tuple[RecordType, str, str]]:
    """Tables that may hold records of the range, and between which keys."""
    for table, type_ in _BY_TABLE.items():
        if table in _NOT_HERE:
            continue
        if table == UNKNOWN.table:
            # Records of any collection.
            yield type_, *_ends(f"at://{did}/", paths.after, paths.until)
            continue
        collection = _GATES.get(table) or _COLLECTIONS[table][0]
        part = paths.within(f"{collection}/")
        if part is not None:
            owner = _POST if table in _GATES else collection
            yield type_, *_ends(f"at://{did}/{owner}/", *part)


def _ends(prefix: str, after: str, until: str | None) -> tuple[str, str]:
    """Keys above the first and not above the second are those of a range under a prefix."""
    return prefix + after, prefix + (_ABOVE_ALL if until is None else until)


def _sql(type_: RecordType, *, in_order: bool) -> str:
    key = type_.key_column
    where = f'{key} COLLATE "C" > %(low)s AND {key} COLLATE "C" <= %(high)s'
    if not in_order:
        # The key's own index is in another order: then the author's rows are looked through.
        where = f"{AUTHOR_CONDITIONS[type_.table]} AND {where}"
    if type_.table == "labels":
        # What a labeler signed is in no repository.
        where += " AND sig IS NULL"
    return f"SELECT {key} FROM {type_.table} WHERE {where} LIMIT %(limit)s"  # noqa: S608 - it is made of constants
