"""Mends what accounts and records leave: users, their status, purges, duplicates that take over.

Called under the fence's lock taken alone, see `repair`.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.records import RECORDS
from actors.records.record import RecordType, Row, Value
from actors.store import statements
from actors.store.arrays import array, text_array
from actors.store.aside import from_database, pack, unpack
from actors.store.repair_counts import AGGREGATES, mend_counts, mend_viewers
from actors.store.repair_derived import mend_feed_items, mend_threads
from actors.store.schema import TABLES
from actors.store.users import CREATE_SQL

_WITH_THINGS: Final = {type_.table: type_ for type_ in RECORDS.values() if type_.thing}
_STATUSES: Final = """
    INSERT INTO users AS u (did, handle, created_at, engine_account_status)
    SELECT i.did, 'handle.invalid', timestamp 'epoch',
           CASE WHEN NOT a.active THEN coalesce(nullif(a.status, ''), 'inactive') END
    FROM unnest(%b::text[]) AS i (did) LEFT JOIN engine_accounts a ON a.did = i.did ORDER BY i.did
    ON CONFLICT (did) DO UPDATE SET engine_account_status = excluded.engine_account_status
"""
# The engine removes the records, as after an event of the account or an order of the operator.
_PURGES: Final = """
    INSERT INTO engine_purges (subject, reason)
    SELECT i.subject, CASE WHEN EXISTS (SELECT FROM engine_takedowns t WHERE t.subject = i.subject)
                      THEN 'takedown' ELSE 'deleted' END
    FROM unnest(%b::text[]) AS i (subject) ON CONFLICT (subject) DO NOTHING
"""
_OF_THINGS: Final = """
    SELECT d.uri, d.table_name, d.thing, d.cid, d.body FROM engine_duplicates d
    JOIN (SELECT DISTINCT o.table_name, o.thing FROM engine_duplicates o WHERE o.uri = ANY(%b)) t
        ON d.table_name = t.table_name AND d.thing = t.thing
"""
_PUT_ASIDE: Final = """
    INSERT INTO engine_duplicates (uri, table_name, thing, cid, body)
    VALUES (%s, %s, %s, %s, %s::jsonb)
    ON CONFLICT (uri) DO UPDATE SET table_name = excluded.table_name, thing = excluded.thing,
        cid = excluded.cid, body = excluded.body
"""
_FEED_CID: Final = """
    INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
    SELECT r.uri, r.post_uri, r.user_did, 'repost', least(r.created_at, r.commit_time), %s,
           r.created_at
    FROM reposts r WHERE r.uri = %s ON CONFLICT (uri) DO UPDATE SET cid = excluded.cid
"""


def mend_users(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Make the missing rows of these accounts."""
    connection.execute(CREATE_SQL, [text_array(sorted(set(keys)))])


def mend_accounts(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Give these accounts the status of their last event."""
    connection.execute(_STATUSES, [text_array(sorted(set(keys)))])


def mend_purges(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Have the engine remove what is stored of these accounts and records."""
    connection.execute(_PURGES, [text_array(sorted(set(keys)))])


def mend_duplicates(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Have the record with the lowest key of each thing indexed, the others kept aside."""
    connection.execute(
        "DELETE FROM engine_duplicates d WHERE d.uri = ANY(%b) AND d.table_name <> ALL(%b)",
        [text_array(keys), text_array(list(_WITH_THINGS))],
    )
    things: dict[tuple[str, str], dict[str, tuple[str, Any]]] = {}
    for uri, table, thing, cid, body in connection.execute(_OF_THINGS, [text_array(keys)]):
        things.setdefault((table, thing), {})[uri] = (cid or "", body)
    for (table, thing), aside in sorted(things.items()):
        _Thing(connection, _WITH_THINGS[table], thing, aside).settle()


class _Thing:
    """One thing of which there are several records of one author."""

    def __init__(
        self,
        connection: Connection[Any],
        type_: RecordType,
        thing: str,
        aside: dict[str, tuple[str, Any]],
    ) -> None:
        self._connection = connection
        self._type = type_
        self._thing = thing
        self._aside = aside
        self._changed: list[Row] = []

    def settle(self) -> None:
        """Put the record with the lowest key into its table, and count what that changes."""
        holder = self._holder()
        for uri in sorted(self._aside):
            if holder is not None and holder <= uri:
                break
            row = self._row(uri)
            if row is not None:
                if holder is not None:
                    self._demote(holder)
                self._index(uri, row)
                holder = uri
        if holder is not None and holder in self._aside:
            self._forget(holder)
        self._recount()

    def _holder(self) -> str | None:
        first, second = self._type.thing[:2]
        row = self._connection.execute(
            f"SELECT uri FROM {self._type.table} WHERE {first} = %s AND {second} = %s",
            self._thing.split(" ", 1),
        ).fetchone()
        return None if row is None else row[0]

    def _row(self, uri: str) -> Row | None:
        """The row that is kept aside, None where it is none: then the repository has it still."""
        cid, body = self._aside[uri]
        values = unpack(self._type, body) if isinstance(body, dict) else ()
        required = {column.name for column in TABLES[self._type.table].columns if column.required}
        missing = not values or any(
            value is None and name in required
            for name, value in zip(self._type.columns, values, strict=True)
        )
        if missing or values[0] != uri or not self._is_of_thing(values):
            self._forget(uri)
            self._connection.execute(
                "UPDATE engine_repos SET out_of_step = true WHERE did = split_part(%s, '/', 3)",
                [uri],
            )
            return None
        return self._rebuild(values, cid)

    def _is_of_thing(self, values: tuple[Value, ...]) -> bool:
        named = dict(zip(self._type.columns, values, strict=True))
        return " ".join(str(named[part]) for part in self._type.thing) == self._thing

    def _rebuild(self, values: tuple[Value, ...], cid: str) -> Row:
        assert self._type.rebuild is not None, "a type with things can rebuild its rows"
        return self._type.rebuild(values, cid)

    def _demote(self, uri: str) -> None:
        """Keep an indexed row aside."""
        type_ = self._type
        ((cid, *columns),) = self._connection.execute(
            statements.whole_rows_sql(type_), [text_array([uri])]
        ).fetchall()
        row = self._rebuild(from_database(type_, columns), cid or "")
        self._connection.execute(f"DELETE FROM {type_.table} WHERE uri = %s", [uri])
        body = pack(type_, row).decode()
        self._connection.execute(_PUT_ASIDE, [uri, type_.table, self._thing, cid or "", body])
        self._changed.append(row)

    def _index(self, uri: str, row: Row) -> None:
        type_ = self._type
        definition = TABLES[type_.table]
        self._forget(uri)
        self._connection.execute(
            statements.put_sql(type_.table, "uri", type_.columns, search=False),
            [
                array(definition.type_of(name), [value])
                for name, value in zip(type_.columns, row.values, strict=True)
            ],
        )
        cid, _body = self._aside[uri]
        if type_.table == "reposts" and cid:
            self._connection.execute(_FEED_CID, [cid, uri])
        self._changed.append(row)

    def _forget(self, uri: str) -> None:
        self._connection.execute("DELETE FROM engine_duplicates WHERE uri = %s", [uri])

    def _recount(self) -> None:
        """Compute again what the rows that came and went are counted in."""
        posts: set[str] = set()
        for row in self._changed:
            uri = str(row.values[0])
            effects = self._type.effects(uri, row.basis)
            for counter, key in effects.counts:
                mend_counts(self._connection, AGGREGATES[counter.table.name], [key])
            if effects.viewer is not None:
                viewer = effects.viewer
                mend_viewers(self._connection, [(viewer.post_uri, viewer.viewer_did)])
                posts.add(viewer.post_uri)
            if any(table == "feed_items" for table, _ in effects.derived):
                mend_feed_items(self._connection, [uri])
        if posts:
            mend_threads(self._connection, sorted(posts))
