"""The SQL of the writer, made once from the tables and record types. Every statement is set-based:
its parameters are arrays, one per column, whatever the size of the batch.
"""

from functools import cache
from typing import Final

from actors.records.record import AggregateTable, RecordType
from actors.store.schema import TABLES

# What a row's full text search holds, for servers that leave it to the engine.
_SEARCH: Final = {
    "posts": "to_tsvector('simple', i.text)",
    "users": "to_tsvector('simple', concat_ws(' ', i.display_name, i.description))",
}
# Columns that a row takes from elsewhere in the database, in terms of the input row `i`.
_COMPUTED: Final = {
    "posts": {
        "has_thread_gate": "EXISTS (SELECT 1 FROM thread_gates g WHERE g.post_uri = i.uri)",
        "has_post_gate": "EXISTS (SELECT 1 FROM post_gates g WHERE g.post_uri = i.uri)",
        # A new version is judged after it is written.
        "engine_invalid_reply": "false",
        "violates_thread_gate": "false",
        "violates_embedding_rules": "false",
    },
    "users": {"handle": "'handle.invalid'"},
    "feed_generators": {"like_count": "a.like_count"},
    "labeler_services": {"like_count": "a.like_count"},
}
# Whoever made a users row first wrote its handle; it is the resolver's.
_NEVER_UPDATED: Final = {"users": ("handle",)}
_JOINS: Final = {
    "feed_generators": " JOIN engine_subject_aggregations a ON a.uri = i.uri",
    "labeler_services": " JOIN engine_subject_aggregations a ON a.uri = i.uri",
}
DERIVED_COLUMNS: Final = {
    "feed_items": (
        "uri",
        "post_uri",
        "originator_did",
        "type",
        "sort_at",
        "cid",
        "created_at",
    ),
    "quotes": ("uri", "cid", "post_uri", "quoted_uri", "quoted_cid", "created_at"),
}
VIEWER_COLUMNS: Final = ("like_uri", "repost_uri", "bookmarked")

# All that a batch must know of its DIDs, in one look at each.
GUARD_SQL: Final = (
    "SELECT i.did, r.rev, r.data, r.out_of_step, r.withheld,"
    " a.active, a.status, a.host, a.seq, (extract(epoch FROM a.time) * 1000000)::bigint,"
    " a.identity_host, a.identity_seq,"
    " (extract(epoch FROM a.identity_time) * 1000000)::bigint,"
    " (SELECT s.data_collection_forbidden FROM user_settings s WHERE s.user_did = i.did LIMIT 1),"
    " (SELECT true FROM engine_takedowns t WHERE t.subject = i.did LIMIT 1),"
    " (SELECT true FROM engine_purges p WHERE p.subject = i.did LIMIT 1),"
    " (SELECT true FROM activity_subscriptions s WHERE s.subject_did = i.did LIMIT 1),"
    " (SELECT true FROM engine_parked k WHERE k.did = i.did LIMIT 1)"
    " FROM unnest(%b::text[]) AS i (did) LEFT JOIN engine_repos r ON r.did = i.did"
    " LEFT JOIN engine_accounts a ON a.did = i.did"
)
TAKEN_DOWN_SQL: Final = "SELECT t.subject FROM engine_takedowns t WHERE t.subject = ANY(%b::text[])"
# In a personal index nobody need know the state of those whom nothing speaks of. What the user gate
# has still to do may speak of anybody.
STRANGERS_SQL: Final = (
    "SELECT i.did FROM unnest(%b::text[]) AS i (did)"
    " WHERE NOT EXISTS (SELECT FROM users u WHERE u.did = i.did)"
    " AND NOT EXISTS (SELECT FROM engine_personal p WHERE p.did = i.did)"
    " AND NOT EXISTS (SELECT FROM engine_outbox o WHERE o.receiver = 'user_gate')"
)
PUT_GUARD_SQL: Final = (
    "INSERT INTO engine_repos (did, rev, data, out_of_step, withheld)"
    " SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::boolean[], %b::boolean[])"
    " ON CONFLICT (did) DO UPDATE SET rev = excluded.rev, data = excluded.data,"
    " out_of_step = excluded.out_of_step, withheld = excluded.withheld"
)
PUT_ACCOUNTS_SQL: Final = (
    "INSERT INTO engine_accounts (did, active, status, host, seq, time, identity_host,"
    " identity_seq, identity_time) SELECT * FROM unnest(%b::text[], %b::boolean[], %b::text[],"
    " %b::text[], %b::bigint[], %b::timestamp[], %b::text[], %b::bigint[], %b::timestamp[])"
    " ON CONFLICT (did) DO UPDATE SET active = excluded.active, status = excluded.status,"
    " host = excluded.host, seq = excluded.seq, time = excluded.time,"
    " identity_host = excluded.identity_host, identity_seq = excluded.identity_seq,"
    " identity_time = excluded.identity_time"
)
# The row may be there already or be made by the user gate at this moment: so it is put, not only
# updated, and the later of the two finds what the other wrote.
PUT_STATUSES_SQL: Final = (
    "INSERT INTO users AS u (did, handle, created_at, engine_account_status)"
    " SELECT i.did, 'handle.invalid', timestamp 'epoch', i.status"
    " FROM unnest(%b::text[], %b::text[]) AS i (did, status)"
    " ON CONFLICT (did) DO UPDATE SET engine_account_status = excluded.engine_account_status"
)
# What could not be had of an account while it was away can be had now.
RETURNED_SQL: Final = (
    "UPDATE engine_incomplete SET state = 'waiting', attempts = 0, next_try = now()"
    " WHERE kind IN ('repo', 'profile') AND key = ANY(%b::text[])"
    " AND (state IN ('failed', 'waiting') OR state = 'done' AND reason = 'withheld')"
)
PUT_PURGES_SQL: Final = (
    "INSERT INTO engine_purges (subject, reason) SELECT i.did, 'deleted'"
    " FROM unnest(%b::text[]) AS i (did) ON CONFLICT (subject) DO NOTHING"
)
CANCEL_SQL: Final = "DELETE FROM engine_pending WHERE uri = ANY(%b::text[]) RETURNING kind"
CLAIM_SQL: Final = (
    "DELETE FROM engine_pending e USING unnest(%b::text[], %b::text[]) AS i (uri, awaited)"
    " WHERE e.uri = i.uri AND e.awaited = i.awaited RETURNING e.uri, e.kind"
)
ASIDE_SQL: Final = (
    "SELECT d.uri, d.table_name, d.thing, d.cid, d.body FROM engine_duplicates d"
    " WHERE d.uri = ANY(%b::text[])"
    " UNION ALL SELECT d.uri, d.table_name, d.thing, d.cid, d.body FROM engine_duplicates d"
    " JOIN unnest(%b::text[], %b::text[]) AS i (table_name, thing)"
    " ON d.table_name = i.table_name AND d.thing = i.thing"
)
DELETE_ASIDE_SQL: Final = "DELETE FROM engine_duplicates WHERE uri = ANY(%b::text[])"
PUT_ASIDE_SQL: Final = (
    "INSERT INTO engine_duplicates (uri, table_name, thing, cid, body)"
    " SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::jsonb[])"
    " ON CONFLICT (uri) DO UPDATE SET table_name = excluded.table_name,"
    " thing = excluded.thing, cid = excluded.cid, body = excluded.body"
)
CLEAR_VIEWERS_SQL: Final = (
    "UPDATE post_viewer_states v SET"
    " like_uri = CASE WHEN i.clear_like THEN NULL ELSE v.like_uri END,"
    " repost_uri = CASE WHEN i.clear_repost THEN NULL ELSE v.repost_uri END,"
    " bookmarked = v.bookmarked AND NOT i.clear_bookmark, updated_at = now()"
    " FROM unnest(%b::text[], %b::text[], %b::boolean[], %b::boolean[], %b::boolean[])"
    " AS i (post_uri, viewer_did, clear_like, clear_repost, clear_bookmark)"
    " WHERE v.post_uri = i.post_uri AND v.viewer_did = i.viewer_did"
)
PUT_VIEWERS_SQL: Final = (
    "INSERT INTO post_viewer_states AS v"
    " (post_uri, viewer_did, like_uri, repost_uri, bookmarked, created_at)"
    " SELECT * FROM unnest("
    "%b::text[], %b::text[], %b::text[], %b::text[], %b::boolean[], %b::timestamp[])"
    " ON CONFLICT (post_uri, viewer_did) DO UPDATE SET"
    " like_uri = coalesce(excluded.like_uri, v.like_uri),"
    " repost_uri = coalesce(excluded.repost_uri, v.repost_uri),"
    " bookmarked = v.bookmarked OR excluded.bookmarked, updated_at = now()"
)
DROP_VIEWERS_SQL: Final = (
    "DELETE FROM post_viewer_states v USING unnest(%b::text[], %b::text[])"
    " AS i (post_uri, viewer_did)"
    " WHERE v.post_uri = i.post_uri AND v.viewer_did = i.viewer_did"
    " AND v.like_uri IS NULL AND v.repost_uri IS NULL AND NOT (v.bookmarked OR v.thread_muted"
    " OR v.reply_disabled OR v.embedding_disabled OR v.pinned)"
)
MARK_GATES_SQL: Final = (
    "UPDATE posts p SET"
    " has_thread_gate = EXISTS (SELECT 1 FROM thread_gates g WHERE g.post_uri = p.uri),"
    " has_post_gate = EXISTS (SELECT 1 FROM post_gates g WHERE g.post_uri = p.uri)"
    " WHERE p.uri = ANY(%b::text[])"
)
# The next three run under the lock of the post's aggregate row, which every like and every change
# of that post takes: of a like and a reply that meet, the later one sees the earlier.
PUT_THREADS_SQL: Final = (
    "INSERT INTO thread_contexts (post_uri, root_author_like_uri, created_at)"
    " SELECT i.post_uri, l.uri, i.created_at"
    " FROM unnest(%b::text[], %b::text[], %b::timestamp[])"
    " AS i (post_uri, root_author, created_at)"
    " LEFT JOIN likes l ON l.user_did = i.root_author AND l.post_uri = i.post_uri"
    " ON CONFLICT (post_uri) DO UPDATE SET"
    " root_author_like_uri = excluded.root_author_like_uri, updated_at = now()"
)
LIKE_THREADS_SQL: Final = (
    "UPDATE thread_contexts t SET root_author_like_uri = i.like_uri, updated_at = now()"
    " FROM unnest(%b::text[], %b::text[], %b::text[]) AS i (like_uri, post_uri, user_did)"
    " JOIN posts p ON p.uri = i.post_uri"
    " AND starts_with(p.root_uri, 'at://' || i.user_did || '/')"
    " WHERE t.post_uri = i.post_uri"
)
UNLIKE_THREADS_SQL: Final = (
    "UPDATE thread_contexts t SET root_author_like_uri = NULL, updated_at = now()"
    " FROM unnest(%b::text[], %b::text[]) AS i (like_uri, post_uri)"
    " WHERE t.post_uri = i.post_uri AND t.root_author_like_uri = i.like_uri"
)
DELETE_THREADS_SQL: Final = "DELETE FROM thread_contexts WHERE post_uri = ANY(%b::text[])"
_EMPTY_UNLESS: Final = {
    "post_aggregations": ("SELECT 1 FROM posts p WHERE p.uri = t.post_uri",),
    "engine_subject_aggregations": (
        "SELECT 1 FROM feed_generators g WHERE g.uri = t.uri",
        "SELECT 1 FROM labeler_services g WHERE g.uri = t.uri",
    ),
    "engine_user_aggregations": (),
}


@cache
def old_rows_sql(type_: RecordType) -> str:
    """Key and basis of the rows under the batch's keys."""
    columns = ", ".join((type_.key_column, *type_.basis_sql))
    return f"SELECT {columns} FROM {type_.table} WHERE {type_.key_column} = ANY(%b::text[])"


@cache
def holders_sql(type_: RecordType) -> str:
    """Key and basis of the rows that hold the batch's things (an array for each of its columns)."""
    names = [f"thing_{position}" for position in range(len(type_.thing))]
    columns = ", ".join((type_.key_column, *type_.basis_sql))
    match = " AND ".join(
        f"t.{column} = i.{name}" for column, name in zip(type_.thing, names, strict=True)
    )
    arrays = ", ".join("%b::text[]" for _ in names)
    return (
        f"SELECT {columns} FROM {type_.table} t"
        f" JOIN unnest({arrays}) AS i ({', '.join(names)}) ON {match}"
    )


@cache
def whole_rows_sql(type_: RecordType) -> str:
    """Every column of rows that a lower key displaces, and the CID of their record if kept."""
    columns = ", ".join(
        f"(extract(epoch FROM t.{name}) * 1000000)::bigint AS {name}"
        if TABLES[type_.table].type_of(name) == "timestamp"
        else f"t.{name}"
        for name in type_.columns
    )
    return (
        f"SELECT f.cid, {columns} FROM {type_.table} t"
        f" LEFT JOIN feed_items f ON f.uri = t.{type_.key_column}"
        f" WHERE t.{type_.key_column} = ANY(%b::text[])"
    )


@cache
def delete_sql(table: str, key: str) -> str:
    """Delete rows by key."""
    return f"DELETE FROM {table} WHERE {key} = ANY(%b::text[])"


@cache
def put_sql(table: str, key: str, columns: tuple[str, ...], *, search: bool) -> str:
    """Insert rows, or replace those that are there."""
    definition = TABLES[table]
    computed = dict(_COMPUTED.get(table, {}))
    if search and table in _SEARCH:
        computed["search_vector"] = _SEARCH[table]
    arrays = ", ".join(f"%b::{definition.type_of(name)}[]" for name in columns)
    target = (*columns, *computed)
    source = ", ".join([*(f"i.{name}" for name in columns), *computed.values()])
    fixed = (key, *_NEVER_UPDATED.get(table, ()))
    updates = [f"{name} = excluded.{name}" for name in target if name not in fixed]
    if "indexed_at" in definition.column_names:
        updates.append("indexed_at = now()")
    elif "updated_at" in definition.column_names:
        updates.append("updated_at = now()")
    return (
        f"INSERT INTO {table} ({', '.join(target)}) SELECT {source}"
        f" FROM unnest({arrays}) AS i ({', '.join(columns)}){_JOINS.get(table, '')}"
        f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(updates)}"
    )


@cache
def count_sql(table: AggregateTable) -> str:
    """Add deltas to counter rows, made where they are missing, in the order of their keys."""
    columns = (table.key, *table.columns, *(("created_at",) if table.has_times else ()))
    arrays = ["%b::text[]", *("%b::integer[]" for _ in table.columns)]
    updates = [f"{name} = t.{name} + excluded.{name}" for name in table.columns]
    if table.has_times:
        arrays.append("%b::timestamp[]")
        updates.append("updated_at = now()")
    return (
        f"INSERT INTO {table.name} AS t ({', '.join(columns)})"
        f" SELECT {', '.join(columns)} FROM unnest({', '.join(arrays)})"
        f' AS i ({", ".join(columns)}) ORDER BY {table.key} COLLATE "C"'
        f" ON CONFLICT ({table.key}) DO UPDATE SET {', '.join(updates)}"
    )


@cache
def drop_empty_sql(table: AggregateTable) -> str:
    """Delete counter rows that count nothing and belong to nothing that is indexed."""
    zero = " AND ".join(f"t.{name} = 0" for name in table.columns)
    unless = "".join(f" AND NOT EXISTS ({query})" for query in _EMPTY_UNLESS[table.name])
    return f"DELETE FROM {table.name} t WHERE t.{table.key} = ANY(%b::text[]) AND {zero}{unless}"


@cache
def wait_sql(table: str) -> str:
    """Make entries for records whose subject is not in its table; those made come back."""
    return (
        "INSERT INTO engine_pending (uri, awaited, author, kind)"
        " SELECT i.uri, i.awaited, i.author, i.kind"
        " FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[])"
        " AS i (uri, awaited, author, kind)"
        f" WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.uri = i.awaited)"
        " ON CONFLICT (uri, awaited) DO NOTHING RETURNING uri, awaited, kind"
    )


@cache
def copy_likes_sql(table: str) -> str:
    """Copy like counts into the rows of generators or labelers."""
    return (
        f"UPDATE {table} g SET like_count = a.like_count FROM engine_subject_aggregations a"
        " WHERE g.uri = a.uri AND a.uri = ANY(%b::text[]) AND g.like_count <> a.like_count"
    )
