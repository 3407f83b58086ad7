"""What is indexed of one repository within a range of its paths: to be compared with what a file of
the repository holds there.

A path is collection and record key. In most tables the key of a row is the record's uri, which ends
in its path; gates are kept under the post they are for, and a profile under the account.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from psycopg import Connection

from actors.records import RECORDS, UNKNOWN
from actors.records.record import RecordType
from actors.store.arrays import text_array
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


def held(
    connection: Connection[Any], dids: Sequence[str], paths: Range, limit: int
) -> dict[str, list[Operation]]:
    """Return the removal of every record that is indexed, or kept aside, of DIDs in a range: of
    each DID and table at most `limit`.
    """
    (in_order,) = connection.execute(IN_ORDER_SQL).fetchone() or (False,)
    found: dict[str, list[Operation]] = {did: [] for did in dids}
    results = []
    with connection.pipeline():
        for type_, owner, part in _parts(paths):
            ends = zip(*(_ends(f"at://{did}/{owner}", *part) for did in dids), strict=True)
            arrays = [text_array(dids), *(text_array(each) for each in ends), limit]
            results.append((type_, connection.execute(_sql(type_, in_order=in_order), arrays)))
        ends = zip(*(_ends(f"at://{did}/", *paths) for did in dids), strict=True)
        arrays = [text_array(dids), *(text_array(each) for each in ends), limit]
        aside = connection.execute(_ASIDE_SQL, arrays)
        if paths.after < _PROFILE and (paths.until is None or paths.until >= _PROFILE):
            results.append((_BY_TABLE["users"], connection.execute(_PROFILES_SQL, arrays[:1])))
    for type_, rows in results:
        for did, key in rows.fetchall():
            found[did].append(gone(type_, key))
    for did, table, key in aside.fetchall():
        found[did].append(gone(_BY_TABLE[table], key))
    return found


_EACH: Final = "unnest(%b::text[], %b::text[], %b::text[]) AS d (did, low, high)"
_ASIDE_SQL: Final = (
    f"SELECT d.did, e.* FROM {_EACH} CROSS JOIN LATERAL (SELECT table_name, uri"  # noqa: S608
    ' FROM engine_duplicates WHERE uri COLLATE "C" > d.low AND uri COLLATE "C" <= d.high'
    " LIMIT %s) e"
).encode()
_PROFILES_SQL: Final = (
    b"SELECT did, did FROM users WHERE did = ANY(%b::text[]) AND profile_record IS NOT NULL"
)


def _parts(paths: Range) -> Iterator[tuple[RecordType, str, tuple[str, str | None]]]:
    """Tables that may hold records of the range, the path that their keys begin with, and between
    which ends of it.
    """
    for table, type_ in _BY_TABLE.items():
        if table in _NOT_HERE:
            continue
        if table == UNKNOWN.table:
            # Records of any collection.
            yield type_, "", paths
            continue
        collection = _GATES.get(table) or _COLLECTIONS[table][0]
        part = paths.within(f"{collection}/")
        if part is not None:
            owner = _POST if table in _GATES else collection
            yield type_, f"{owner}/", part


def _ends(prefix: str, after: str, until: str | None) -> tuple[str, str]:
    """Keys above the first and not above the second are those of a range under a prefix."""
    return prefix + after, prefix + (_ABOVE_ALL if until is None else until)


@cache
def _sql(type_: RecordType, *, in_order: bool) -> bytes:
    key = type_.key_column
    where = f'{key} COLLATE "C" > d.low AND {key} COLLATE "C" <= d.high'
    if not in_order:
        # The key's own index is in another order: then the author's rows are looked through.
        of_author = AUTHOR_CONDITIONS[type_.table].replace("%(did)s", "d.did")
        where = f"{of_author} AND {where}"
    if type_.table == "labels":
        # What a labeler signed is in no repository.
        where += " AND sig IS NULL"
    return (
        f"SELECT d.did, e.{key} FROM {_EACH} CROSS JOIN LATERAL"  # noqa: S608 - it is made of constants
        f" (SELECT {key} FROM {type_.table} WHERE {where} LIMIT %s) e"
    ).encode()
