"""Mends rows that are made from others: quotes, feed items, threads, gates, judgements.

Called under the fence's lock taken alone, see `repair`.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.records.fields import key_time
from actors.records.record import POST_COUNTS
from actors.store.arrays import array, text_array
from actors.store.judgement import JUDGE_SQL
from actors.store.repair_counts import mend_counts

_QUOTES: Final = """
    INSERT INTO quotes (uri, cid, post_uri, quoted_uri, quoted_cid, created_at)
    SELECT p.uri || '#quote', p.cid, p.uri, e.reference ->> 'uri', e.reference ->> 'cid',
           p.created_at
    FROM posts p
    CROSS JOIN LATERAL (SELECT CASE p.embed ->> '$type'
        WHEN 'app.bsky.embed.record' THEN p.embed -> 'record'
        WHEN 'app.bsky.embed.recordWithMedia' THEN p.embed #> ARRAY['record', 'record']
        END AS reference) e
    WHERE p.uri = ANY(%b) AND split_part(e.reference ->> 'uri', '/', 4) = 'app.bsky.feed.post'
"""
_POST_ITEMS: Final = """
    INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
    SELECT p.uri, p.uri, p.author_did, 'post', least(p.created_at, p.commit_time), p.cid,
           p.created_at
    FROM posts p WHERE p.uri = ANY(%b)
    ON CONFLICT (uri) DO UPDATE SET post_uri = excluded.post_uri, type = excluded.type,
        originator_did = excluded.originator_did, sort_at = excluded.sort_at, cid = excluded.cid,
        created_at = excluded.created_at
"""
# The CID of a repost stands nowhere but in its feed item; where that is lost it stays empty.
_REPOST_ITEMS: Final = """
    INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
    SELECT r.uri, r.post_uri, r.user_did, 'repost', least(r.created_at, r.commit_time), '',
           r.created_at
    FROM reposts r WHERE r.uri = ANY(%b)
    ON CONFLICT (uri) DO UPDATE SET post_uri = excluded.post_uri, type = excluded.type,
        originator_did = excluded.originator_did, sort_at = excluded.sort_at,
        created_at = excluded.created_at
"""
_NO_ITEMS: Final = """
    DELETE FROM feed_items f WHERE f.uri = ANY(%b)
    AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = f.uri)
    AND NOT EXISTS (SELECT FROM reposts r WHERE r.uri = f.uri)
"""
_NO_THREADS: Final = """
    DELETE FROM thread_contexts t WHERE t.post_uri = ANY(%b)
    AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = t.post_uri AND p.parent_uri IS NOT NULL)
"""
_THREADS: Final = """
    INSERT INTO thread_contexts (post_uri, root_author_like_uri, created_at)
    SELECT i.uri, l.uri, i.created_at
    FROM unnest(%b::text[], %b::timestamp[]) AS i (uri, created_at)
    JOIN posts p ON p.uri = i.uri AND p.parent_uri IS NOT NULL
    LEFT JOIN likes l ON l.user_did = split_part(p.root_uri, '/', 3) AND l.post_uri = p.uri
    ON CONFLICT (post_uri) DO UPDATE SET root_author_like_uri = excluded.root_author_like_uri,
        updated_at = now()
"""
_GATES: Final = """
    UPDATE posts p SET
        has_thread_gate = EXISTS (SELECT FROM thread_gates g WHERE g.post_uri = p.uri),
        has_post_gate = EXISTS (SELECT FROM post_gates g WHERE g.post_uri = p.uri)
    WHERE p.uri = ANY(%b)
"""


def mend_quotes(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Make the quotes of these posts (or these quotes) anew, and count them."""
    rows = connection.execute(
        "DELETE FROM quotes q WHERE q.uri = ANY(%b) OR q.post_uri = ANY(%b)"
        " RETURNING q.post_uri, q.quoted_uri",
        [text_array(keys), text_array(keys)],
    ).fetchall()
    posts = sorted({*keys, *(post for post, _ in rows)})
    made = connection.execute(f"{_QUOTES} RETURNING quoted_uri", [text_array(posts)]).fetchall()
    quoted = {quoted for _, quoted in rows} | {quoted for (quoted,) in made}
    mend_counts(connection, POST_COUNTS, sorted(quoted))


def mend_feed_items(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Make the feed items of these posts and reposts what those make of them."""
    for statement in (_NO_ITEMS, _POST_ITEMS, _REPOST_ITEMS):
        connection.execute(statement, [text_array(keys)])


def mend_threads(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Make the thread contexts of these posts what posts and likes make of them."""
    connection.execute(_NO_THREADS, [text_array(keys)])
    times = array("timestamp", [key_time(key) for key in keys])
    connection.execute(_THREADS, [text_array(keys), times])


def mend_gates(connection: Connection[Any], keys: Sequence[str]) -> None:
    """Tell of these posts anew whether they have gates."""
    connection.execute(_GATES, [text_array(keys)])


def mend_flags(connection: Connection[Any], keys: Sequence[str]) -> list[str]:
    """Judge these posts again, and count them; returns posts to look at after that.

    Notifications that rest on the judgements are looked at later in the same walk.
    """
    rows = connection.execute(JUDGE_SQL, [text_array(keys)]).fetchall()
    judged = [row[0] for row in rows]
    counted = {uri for row in rows for uri in row[2:4] if uri is not None}
    mend_counts(connection, POST_COUNTS, sorted(counted))
    replies = connection.execute(
        "SELECT r.uri FROM posts r WHERE r.parent_uri = ANY(%b)", [text_array(judged)]
    ).fetchall()
    return [uri for (uri,) in replies]
