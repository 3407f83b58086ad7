"""The counters of a subject counted anew, and what the judgements of a post rest on."""

from typing import Any, Final

from psycopg import Connection

from actors.store.explanation import Counter, Flag, Thread
from actors.store.judgement import EMBEDS, GATED, INVALID
from actors.store.subjects import is_did

_THREAD: Final = f"""
    SELECT r.parent_uri, p.uri IS NOT NULL, coalesce(p.root_uri, p.uri), p.engine_invalid_reply,
        r.root_uri, q.uri IS NOT NULL, g.post_uri IS NOT NULL, g.allow,
        k.quoted_uri, o.uri IS NOT NULL, e.embedding_rules,
        r.engine_invalid_reply, {INVALID}, r.violates_thread_gate, {GATED},
        r.violates_embedding_rules, {EMBEDS}
    FROM posts r LEFT JOIN posts p ON p.uri = r.parent_uri LEFT JOIN posts q ON q.uri = r.root_uri
    LEFT JOIN thread_gates g ON g.post_uri = r.root_uri
    LEFT JOIN quotes k ON k.post_uri = r.uri LEFT JOIN posts o ON o.uri = k.quoted_uri
    LEFT JOIN post_gates e ON e.post_uri = k.quoted_uri
    WHERE r.uri = %s ORDER BY k.quoted_uri LIMIT 1
"""
_FLAGS: Final = ("engine_invalid_reply", "violates_thread_gate", "violates_embedding_rules")

_LIKES: Final = "SELECT count(*) FROM likes WHERE post_uri = %(key)s"
_OF_POSTS: Final = {
    "like_count": _LIKES,
    "repost_count": "SELECT count(*) FROM reposts WHERE post_uri = %(key)s",
    "reply_count": (
        "SELECT count(*) FROM posts WHERE parent_uri = %(key)s AND NOT violates_thread_gate"
    ),
    "bookmark_count": "SELECT count(*) FROM bookmarks WHERE post_uri = %(key)s",
    "quote_count": (
        "SELECT count(*) FROM quotes k JOIN posts p ON p.uri = k.post_uri"
        " WHERE k.quoted_uri = %(key)s AND NOT p.violates_embedding_rules"
    ),
}
_OF_ACCOUNTS: Final = {
    "followers_count": "SELECT count(*) FROM follows WHERE following_did = %(key)s",
    "follows_count": "SELECT count(*) FROM follows WHERE follower_did = %(key)s",
    "posts_count": "SELECT count(*) FROM posts WHERE author_did = %(key)s",
}


def thread_of(connection: Connection[Any], uri: str) -> Thread | None:
    """Return what a post's judgements rest on; None where it is not indexed."""
    row = connection.execute(_THREAD.encode(), [uri]).fetchone()
    if row is None:
        return None
    stored, computed = row[11::2], row[12::2]
    flags = [Flag(*each) for each in zip(_FLAGS, stored, computed, strict=True)]
    of_thread: dict[str, Any] = dict(zip(Thread.__struct_fields__, row[:11], strict=False))
    return Thread(**of_thread, flags=flags)


def counters_of(connection: Connection[Any], subject: str) -> list[Counter]:
    """Return the counters of a record or an account, as stored and as counted now."""
    if is_did(subject):
        return _counters(connection, "engine_user_aggregations", "did", subject, _OF_ACCOUNTS)
    if "/app.bsky.feed.post/" in subject:
        return _counters(connection, "post_aggregations", "post_uri", subject, _OF_POSTS)
    likes = {"like_count": _LIKES}
    counters = _counters(connection, "engine_subject_aggregations", "uri", subject, likes)
    return counters if counters[0].stored is not None or counters[0].counted else []


def _counters(
    connection: Connection[Any], table: str, key: str, subject: str, counts: dict[str, str]
) -> list[Counter]:
    names = ", ".join(counts)
    stored = connection.execute(
        f"SELECT {names} FROM {table} WHERE {key} = %s".encode(), [subject]
    ).fetchone()
    counted = connection.execute(
        f"SELECT {', '.join(f'({query})' for query in counts.values())}".encode(), {"key": subject}
    ).fetchone()
    assert counted is not None
    return [
        Counter(name, None if stored is None else stored[position], counted[position])
        for position, name in enumerate(counts)
    ]
