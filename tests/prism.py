"""Databases as an Aurora Prism server makes them, and what its own workers leave in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from actors.store.embedded import EmbeddedPostgres
from actors.store.limits import read_limits
from tests.tables import Tables

_TABLES = Path(__file__).parent / "prism_tables.sql"

# An account that no frame is of, and what it has in the tables.
OLD = "did:plc:oldaccountoldaccountolda"
OLD_POST = f"at://{OLD}/app.bsky.feed.post/3jzfcijpj2z2a"
OLD_LIST = f"at://{OLD}/app.bsky.graph.list/3jzfcijpj2z2b"

Contents = dict[str, list[Any]]


def make_prism(conninfo: str) -> str:
    """Make an AppView's tables in an empty database."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_TABLES.read_bytes())
    return conninfo


@contextmanager
def another_language(server: EmbeddedPostgres, name: str) -> Iterator[str]:
    """An empty database whose order of strings is that of American English."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu"
            " ICU_LOCALE 'en-US'".encode()
        )
        try:
            yield server.conninfo(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def rows(conninfo: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(query.encode()).fetchall()


def run(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def columns(conninfo: str) -> dict[str, list[tuple[str, str]]]:
    """Names and types of every table's columns."""
    found: dict[str, list[tuple[str, str]]] = {}
    with psycopg.connect(conninfo) as connection:
        for table, column, type_ in connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY 1, ordinal_position"
        ):
            found.setdefault(table, []).append((column, type_))
    return found


def contents(conninfo: str, of: dict[str, list[tuple[str, str]]]) -> Contents:
    """Every row of some tables, with these columns only."""
    found: Contents = {}
    with psycopg.connect(conninfo) as connection:
        for table, its in of.items():
            names = sql.SQL(", ").join(sql.Identifier(column) for column, _ in its)
            query = sql.SQL("SELECT to_jsonb(r)::text FROM (SELECT {} FROM {}) r").format(
                names, sql.Identifier(table)
            )
            found[table] = sorted(row[0] for row in connection.execute(query))
    return found


def files(conninfo: str) -> dict[str, int]:
    """The file of each table, and of each index by its table and definition."""
    with psycopg.connect(conninfo) as connection:
        return dict(
            connection.execute(
                "SELECT c.relname, pg_relation_filenode(c.oid)::bigint FROM pg_class c"
                " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')"
            ).fetchall()
        )


def fitted(conninfo: str, tables: Tables) -> Tables:
    """The tables with their texts as long as the columns of a database."""
    with psycopg.connect(conninfo) as connection:
        lengths = read_limits(connection).lengths
    return {
        table: {
            key: {
                name: value[: lengths.get(table, {}).get(name)] if type(value) is str else value
                for name, value in row.items()
            }
            for key, row in rows.items()
        }
        for table, rows in tables.items()
    }


def write_old(conninfo: str, tables: Tables) -> None:
    """Write rows as an AppView's own workers do: those columns only that it has, cut to fit."""
    there = columns(conninfo)
    tables = fitted(conninfo, tables)
    with psycopg.connect(conninfo) as connection:
        for table, rows in tables.items():
            types = dict(there.get(table, ()))
            for row in rows.values():
                kept = {name: value for name, value in row.items() if name in types}
                if not kept or table.startswith("engine_"):
                    continue
                values = [
                    Jsonb(value) if types[name] == "jsonb" and value is not None else value
                    for name, value in kept.items()
                ]
                query = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, kept)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(kept)),
                )
                connection.execute(query, values)


def live_with_workers(conninfo: str) -> None:
    """Rows and faults of the kind that an AppView's workers leave: drifted counters, aggregates
    that were never made, ghosts of what was deleted, and what only readers have written.
    """
    with psycopg.connect(conninfo) as connection:
        connection.execute(_HABITS.encode())


_TIME = "timestamp '2023-07-01'"
_HABITS = f"""
UPDATE post_aggregations SET like_count = like_count + 3, reply_count = 5 WHERE
    hashtext(post_uri) % 3 = 0;
DELETE FROM post_aggregations WHERE hashtext(post_uri) % 5 = 1;
UPDATE feed_generators SET like_count = like_count + 7;
DELETE FROM post_viewer_states WHERE hashtext(post_uri) % 7 = 2;
UPDATE post_viewer_states SET repost_uri = NULL WHERE repost_uri IS NOT NULL AND
    hashtext(post_uri) % 2 = 0;
DELETE FROM feed_items WHERE hashtext(uri) % 11 = 3;
DELETE FROM quotes WHERE hashtext(uri) % 4 = 1;
INSERT INTO users (did, handle, display_name, created_at) VALUES ('{OLD}', 'old.example',
    'Old', {_TIME});
INSERT INTO posts (uri, cid, author_did, text, created_at) VALUES ('{OLD_POST}',
    'bafyold', '{OLD}', 'older than the engine', {_TIME});
INSERT INTO likes (uri, user_did, post_uri, created_at) SELECT 'at://did:plc:liker' || n
    || '/app.bsky.feed.like/3jzfcijpj2z2a', 'did:plc:liker' || n, '{OLD_POST}', {_TIME} FROM
    generate_series(1, 4) n;
INSERT INTO follows (uri, follower_did, following_did, created_at) SELECT
    'at://did:plc:liker' || n || '/app.bsky.graph.follow/3jzfcijpj2z2a', 'did:plc:liker' || n,
    '{OLD}', {_TIME} FROM generate_series(1, 3) n;
-- A like that was deleted, whose viewer state stayed; and what the AppView itself has set.
INSERT INTO post_viewer_states (post_uri, viewer_did, like_uri) VALUES ('{OLD_POST}',
    'did:plc:ghost', 'at://did:plc:ghost/app.bsky.feed.like/a');
INSERT INTO post_viewer_states (post_uri, viewer_did, thread_muted) VALUES ('{OLD_POST}',
    'did:plc:mutes', true);
INSERT INTO feed_generators (uri, cid, creator_did, did, display_name, like_count,
    created_at) VALUES ('at://{OLD}/app.bsky.feed.generator/a', 'bafyfeed', '{OLD}',
    'did:web:feed.example', 'Feed', 99, {_TIME});
INSERT INTO likes (uri, user_did, post_uri, created_at) VALUES
    ('at://did:plc:liker1/app.bsky.feed.like/3jzfcijpj2z2c', 'did:plc:liker1',
    'at://{OLD}/app.bsky.feed.generator/a', {_TIME});
INSERT INTO thread_gates (post_uri, owner_did, allow_mentions, allow_following,
    allow_list_members, allow_list_uris) VALUES ('{OLD_POST}', '{OLD}', true, false, true,
    '["{OLD_LIST}"]');
INSERT INTO verifications (uri, cid, subject_did, handle, verified_at, created_at) VALUES
    ('at://{OLD}/app.bsky.graph.verification/3jzfcijpj2z2a', 'bafyver', 'did:plc:liker1',
    'liker1.example', {_TIME}, {_TIME});
INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at) VALUES
    ('at://did:plc:liker1/app.bsky.feed.like/3jzfcijpj2z2a#notification', '{OLD}',
    'did:plc:liker1', 'like', {_TIME}), ('of another kind', '{OLD}', '{OLD}', 'like', {_TIME});
INSERT INTO labels (uri, src, subject, val, created_at) VALUES ('at://{OLD}/label/1',
    '{OLD}', '{OLD_POST}', 'spam', {_TIME});
INSERT INTO label_events (label_uri, action) VALUES ('at://{OLD}/label/1', 'created');
INSERT INTO user_settings (user_did, blocked_keywords) VALUES ('{OLD}', '["x"]');
INSERT INTO bookmarks (uri, user_did, post_uri, created_at) VALUES ('bookmark-1',
    'did:plc:liker1', '{OLD_POST}', {_TIME});
"""
