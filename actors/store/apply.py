"""Writes a plan: the statements of a batch in the one order that is safe.

Own rows first (deletes before inserts, gates before posts), then the counters, sorted and table by
table, then what must happen under the counters' locks.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.records.fields import key_time
from actors.records.record import AGGREGATES, SUBJECT_COUNTS, AggregateTable, Row, Value
from actors.store import identities, statements
from actors.store.arrays import Array, array, text_array
from actors.store.aside import pack
from actors.store.plan import Plan, TablePlan, thing_text
from actors.store.schema import TABLES

# Gates come before the posts that look for them.
_FIRST: Final[tuple[str, ...]] = ("users", "thread_gates", "post_gates", "posts")
# These take their like_count from the counter's row, under its lock.
_AFTER_COUNTS: Final[tuple[str, ...]] = ("feed_generators", "labeler_services")
_NEVER: Final = (None, None, None)
_MOMENT: Final = ("text", "bigint", "timestamp")
_ACCOUNT_TYPES: Final = ("text", "boolean", "text", *_MOMENT, *_MOMENT)
_GATES: Final[tuple[str, ...]] = ("thread_gates", "post_gates")


class PlanWriter:
    """Writes plans on one connection; the caller opens transaction and pipeline."""

    def __init__(self, connection: Connection[Any], *, search: bool) -> None:
        self._connection = connection
        self._search = search

    def write_rows(self, plan: Plan) -> None:
        """Send the statements for what belongs to the batch's own authors alone.

        Raises what PostgreSQL answers, at the latest when the pipeline ends.
        """
        tables = plan.tables
        early = [name for name in _FIRST if name in tables]
        for name in early:
            self._write_table(tables[name])
        for name in sorted(tables.keys() - {*early, *_AFTER_COUNTS}):
            self._write_table(tables[name])
        self._write_aside(plan)
        self._write_derived(plan)
        self._write_viewers(plan)
        self._mark_gates(plan)
        self._write_guards(plan)
        self._write_accounts(plan)

    def write_counts(self, plan: Plan) -> None:
        """Send the statements for the counters, which others write too, and for what must happen
        under their locks. The transaction should end soon after. Raises as `write_rows`.
        """
        late = [name for name in _AFTER_COUNTS if name in plan.tables]
        for aggregate in AGGREGATES:
            self._write_counts(plan, aggregate)
            if aggregate.name == "post_aggregations":
                self._write_threads(plan)
            if aggregate.name == "engine_subject_aggregations":
                for name in late:
                    self._write_table(plan.tables[name])
                self._copy_likes(plan)
            self._drop_empty(plan, aggregate)

    def _execute(self, sql: str, parameters: Sequence[Array]) -> None:
        self._connection.execute(sql, parameters)

    def _write_table(self, table: TablePlan) -> None:
        type_ = table.type
        if table.delete:
            self._execute(
                statements.delete_sql(type_.table, type_.key_column), [text_array(table.delete)]
            )
        if table.put:
            self._put(type_.table, type_.key_column, type_.columns, table.put)

    def _put(self, table: str, key: str, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
        values = [row.values for row in rows]
        # Two transactions that meet in `users` lock its rows in one order.
        values.sort(key=_first)
        definition = TABLES[table]
        self._execute(
            statements.put_sql(table, key, columns, search=self._search),
            [
                array(definition.type_of(name), column)
                for name, column in zip(columns, zip(*values, strict=True), strict=True)
            ],
        )

    def _write_aside(self, plan: Plan) -> None:
        gone = [uri for table in plan.tables.values() for uri in table.aside_delete]
        if gone:
            self._execute(statements.DELETE_ASIDE_SQL, [text_array(gone)])
        kept = [
            (uri, table.type.table, thing_text(thing), cid, pack(table.type, row))
            for table in plan.tables.values()
            for uri, thing, cid, row in table.aside_put
        ]
        if kept:
            *texts, bodies = zip(*kept, strict=True)
            self._execute(
                statements.PUT_ASIDE_SQL,
                [*(text_array(column) for column in texts), array("jsonb", bodies)],
            )

    def _write_derived(self, plan: Plan) -> None:
        for table, columns in statements.DERIVED_COLUMNS.items():
            put = plan.derived_put.get(table, [])
            rows = [Row(derived.values) for derived in put]
            gone = plan.derived_delete.get(table, set()) - {str(row.values[0]) for row in rows}
            if gone:
                self._execute(statements.delete_sql(table, "uri"), [text_array(list(gone))])
            if rows:
                self._put(table, "uri", columns, rows)

    def _write_viewers(self, plan: Plan) -> None:
        cleared: list[tuple[Value, ...]] = []
        filled: list[tuple[Value, ...]] = []
        for (post, viewer), state in plan.viewers.items():
            gone = [name in state and state[name] is None for name in statements.VIEWER_COLUMNS]
            if any(gone):
                cleared.append((post, viewer, *gone))
            like, repost, bookmark = (state.get(name) for name in statements.VIEWER_COLUMNS)
            if like is not None or repost is not None or bookmark is not None:
                filled.append((post, viewer, like, repost, bookmark is not None, key_time(post)))
        if cleared:
            posts, viewers, *flags = zip(*cleared, strict=True)
            keys = [text_array(posts), text_array(viewers)]
            self._execute(
                statements.CLEAR_VIEWERS_SQL, [*keys, *(array("boolean", flag) for flag in flags)]
            )
            self._execute(statements.DROP_VIEWERS_SQL, keys)
        if filled:
            posts, viewers, likes, reposts, bookmarks, times = zip(*filled, strict=True)
            self._execute(
                statements.PUT_VIEWERS_SQL,
                [
                    *(text_array(column) for column in (posts, viewers, likes, reposts)),
                    array("boolean", bookmarks),
                    array("timestamp", times),
                ],
            )

    def _mark_gates(self, plan: Plan) -> None:
        posts = [
            key
            for name in _GATES
            if name in plan.tables
            for key in (
                *plan.tables[name].delete,
                *(str(row.values[0]) for row in plan.tables[name].put),
            )
        ]
        if posts:
            self._execute(statements.MARK_GATES_SQL, [text_array(posts)])

    def _write_guards(self, plan: Plan) -> None:
        repos = plan.folded.repos
        if not repos:
            return
        rows = [(did, *repo) for did, repo in sorted(repos.items())]
        dids, revs, states, marks, withheld = zip(*rows, strict=True)
        self._execute(
            statements.PUT_GUARD_SQL,
            [
                text_array(dids),
                text_array(revs),
                array("bytea", states),
                array("boolean", marks),
                array("boolean", withheld),
            ],
        )

    def _write_accounts(self, plan: Plan) -> None:
        folded = plan.folded
        if folded.accounts:
            rows = [
                (did, of.active, of.status, *(of.account or _NEVER), *(of.identity or _NEVER))
                for did, of in sorted(folded.accounts.items())
            ]
            self._execute(
                statements.PUT_ACCOUNTS_SQL,
                [
                    array(type_, column)
                    for type_, column in zip(_ACCOUNT_TYPES, zip(*rows, strict=True), strict=True)
                ],
            )
        if folded.returned:
            self._execute(statements.RETURNED_SQL, [text_array(sorted(folded.returned))])
        if folded.statuses:
            dids, statuses = zip(*sorted(folded.statuses.items()), strict=True)
            self._execute(statements.PUT_STATUSES_SQL, [text_array(dids), text_array(statuses)])
            self._execute(identities.CREATE_SQL, identities.create_parameters(dids))
        if folded.identities:
            self._execute(identities.CHANGED_SQL, [text_array(sorted(folded.identities))])
        if folded.purges:
            self._execute(statements.PUT_PURGES_SQL, [text_array(sorted(folded.purges))])

    def _write_counts(self, plan: Plan, aggregate: AggregateTable) -> None:
        touched = plan.touched(aggregate)
        if not touched:
            return
        rows = plan.counts[aggregate.name]
        columns = zip(*(rows[key] for key in touched), strict=True)
        parameters = [text_array(touched), *(array("integer", column) for column in columns)]
        if aggregate.has_times:
            parameters.append(array("timestamp", [key_time(key) for key in touched]))
        self._execute(statements.count_sql(aggregate), parameters)

    def _drop_empty(self, plan: Plan, aggregate: AggregateTable) -> None:
        emptied = plan.emptied[aggregate.name]
        if emptied:
            self._execute(statements.drop_empty_sql(aggregate), [text_array(sorted(emptied))])

    def _write_threads(self, plan: Plan) -> None:
        posts = plan.tables.get("posts")
        if posts is not None:
            replies = [
                (str(row.values[0]), root.split("/", 3)[2])
                for row in posts.put
                if (root := row.basis[2]) is not None
            ]
            # A row for each reply: those of posts that are none any more go.
            were = {uri for uri, basis in plan.removed.get("posts", {}).items() if basis[2]}
            gone = were - {uri for uri, _ in replies}
            if gone:
                self._execute(statements.DELETE_THREADS_SQL, [text_array(sorted(gone))])
            if replies:
                uris, authors = zip(*replies, strict=True)
                times = [key_time(uri) for uri in uris]
                self._execute(
                    statements.PUT_THREADS_SQL,
                    [text_array(uris), text_array(authors), array("timestamp", times)],
                )
        likes = plan.tables.get("likes")
        if likes is not None:
            unliked = [(uri, basis[1]) for uri, basis in plan.removed["likes"].items()]
            if unliked:
                uris, subjects = zip(*unliked, strict=True)
                self._execute(
                    statements.UNLIKE_THREADS_SQL, [text_array(uris), text_array(subjects)]
                )
            if likes.put:
                rows = [(row.values[0], row.basis[1], row.basis[0]) for row in likes.put]
                self._execute(
                    statements.LIKE_THREADS_SQL,
                    [text_array(column) for column in zip(*rows, strict=True)],
                )

    def _copy_likes(self, plan: Plan) -> None:
        subjects = plan.touched(SUBJECT_COUNTS)
        for table in _AFTER_COUNTS:
            of_table = [uri for uri in subjects if f"/{_COLLECTIONS[table]}/" in uri]
            if of_table:
                self._execute(statements.copy_likes_sql(table), [text_array(of_table)])


_COLLECTIONS: Final = {
    "feed_generators": "app.bsky.feed.generator",
    "labeler_services": "app.bsky.labeler.service",
}


def _first(values: tuple[Value, ...]) -> str:
    return str(values[0])
