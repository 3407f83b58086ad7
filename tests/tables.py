"""The tables of the index as Python values, read from PostgreSQL, and how two sets differ.

The same shape as the reference indexer's: table -> key -> column -> value. Left out are serial ids,
columns that hold the time of the indexing, what readers keep there, and what this version never
fills. Of waits there are rules only (`tests.settling`).
"""

import json
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from actors.store.schema import TABLES

Row = dict[str, Any]
Rows = dict[tuple[str, ...], Row]
Tables = dict[str, Rows]

_COMMIT = "commit_time commit_seq commit_rev"

# Table: the columns of its key, and the others that are compared.
COMPARED: dict[str, tuple[str, str]] = {
    "users": (
        "did",
        (
            "handle display_name avatar_url banner_url description profile_record pinned_post"
            " created_at engine_account_status engine_joined_via"
        ),
    ),
    "posts": (
        "uri",
        (
            "cid author_did text langs parent_uri parent_cid root_uri root_cid embed facets"
            " violates_thread_gate violates_embedding_rules has_thread_gate has_post_gate tags"
            f" created_at {_COMMIT} engine_invalid_reply"
        ),
    ),
    "feed_items": ("uri", "post_uri originator_did type sort_at cid created_at"),
    "post_aggregations": (
        "post_uri",
        "like_count repost_count reply_count bookmark_count quote_count created_at",
    ),
    "post_viewer_states": (
        "post_uri viewer_did",
        (
            "like_uri repost_uri bookmarked thread_muted reply_disabled embedding_disabled pinned"
            " created_at"
        ),
    ),
    "thread_contexts": ("post_uri", "root_author_like_uri created_at"),
    "likes": ("uri", f"user_did post_uri subject_cid via created_at {_COMMIT}"),
    "reposts": ("uri", f"user_did post_uri subject_cid via created_at {_COMMIT}"),
    "bookmarks": ("uri", "user_did post_uri created_at"),
    "quotes": ("uri", "cid post_uri quoted_uri quoted_cid created_at"),
    "follows": ("uri", f"follower_did following_did created_at {_COMMIT}"),
    "blocks": ("uri", f"blocker_did blocked_did created_at {_COMMIT}"),
    "list_blocks": ("uri", "blocker_did list_uri created_at"),
    "labels": ("uri", "src subject val neg created_at cid cts exp"),
    "lists": ("uri", "cid creator_did name purpose description avatar_url created_at"),
    "list_items": ("uri", "cid list_uri subject_did created_at"),
    "feed_generators": (
        "uri",
        "cid creator_did did display_name description avatar_url like_count created_at",
    ),
    "starter_packs": ("uri", "cid creator_did name description list_uri feeds created_at"),
    "labeler_services": ("uri", "cid creator_did policies like_count created_at"),
    "verifications": ("uri", "cid subject_did handle verified_at issuer_did created_at"),
    "generic_records": ("uri", "cid author_did record_type record created_at"),
    "thread_gates": (
        "post_uri",
        (
            "owner_did allow_mentions allow_following allow_list_members allow_list_uris allow"
            " hidden_replies created_at"
        ),
    ),
    "post_gates": ("post_uri", "embedding_rules created_at"),
    "notifications": (
        "uri",
        "recipient_did author_did reason reason_subject cid created_at engine_record_uri",
    ),
    "engine_user_aggregations": ("did", "followers_count follows_count posts_count"),
    "engine_subject_aggregations": ("uri", "like_count"),
    "engine_repos": ("did", "rev data out_of_step withheld"),
    "engine_duplicates": ("uri", "thing table_name"),
    # The names of hosts are the source's.
    "engine_accounts": ("did", "active status seq time identity_seq identity_time"),
}


def read_tables(conninfo: str) -> Tables:
    """Every compared table of a database, in one snapshot."""
    tables: Tables = {}
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        for table, (key_text, others) in COMPARED.items():
            key = key_text.split()
            columns = key + others.split()
            query = sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table)
            )
            rows: Rows = {}
            for values in connection.execute(query):
                identity = tuple(values[: len(key)])
                assert identity not in rows, f"{table} holds {identity} twice"
                rows[identity] = dict(zip(columns, values, strict=True))
            tables[table] = rows
    return tables


def write_tables(conninfo: str, tables: Tables) -> None:
    """Insert rows into an empty index, as `read_tables` or the reference indexer gives them."""
    with psycopg.connect(conninfo) as connection:
        for name, rows in tables.items():
            json_columns = {
                column for column in TABLES[name].column_names if _is_json(name, column)
            }
            for row in rows.values():
                # What the comparison leaves out has a default, but for this one.
                filled = {"body": {}, **row} if name == "engine_duplicates" else row
                values = [
                    Jsonb(value) if column in json_columns and value is not None else value
                    for column, value in filled.items()
                ]
                query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(name),
                    sql.SQL(", ").join(map(sql.Identifier, filled)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(filled)),
                )
                connection.execute(query, values)


def without(tables: Tables, *names: str) -> Tables:
    """The other tables."""
    return {name: rows for name, rows in tables.items() if name not in names}


def _is_json(table: str, column: str) -> bool:
    return TABLES[table].type_of(column) == "jsonb"


def differences(a: Tables, b: Tables, limit: int = 20) -> list[str]:
    """Readable lines, one for each row or column that differs; past `limit` only their number.

    A table that one side does not name counts as empty.
    """
    lines = []
    for table in sorted({*a, *b}):
        ours, theirs = a.get(table, {}), b.get(table, {})
        for key in sorted({*ours, *theirs}):
            where = f"{table} {' '.join(key)}"
            if key not in theirs:
                lines.append(f"{where}: only the first has {ours[key]}")
            elif key not in ours:
                lines.append(f"{where}: only the second has {theirs[key]}")
            else:
                lines += _columns(where, ours[key], theirs[key])
    if len(lines) > limit:
        return [*lines[:limit], f"... {len(lines)} differences in all"]
    return lines


def _columns(where: str, ours: Row, theirs: Row) -> list[str]:
    absent = "(no such column)"
    return [
        f"{where}: {column} is {ours.get(column, absent)!r} and {theirs.get(column, absent)!r}"
        for column in sorted({*ours, *theirs})
        if not _same(ours.get(column, absent), theirs.get(column, absent))
    ]


def _same(ours: Any, theirs: Any) -> bool:
    """Equal, and of equal kinds within JSON too, where Python holds true for 1."""
    if ours != theirs or type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict | list):
        return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
    return True
