"""Mends counters and viewer states: both are computed again from the rows they come from.

Called under the fence's lock taken alone, see `repair`. The row of a counter is made where it is
missing and locked before anything is counted: so a server that counts bookmarks by itself, and
knows nothing of the fence, either waits for what is written here or is seen by the count.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import Connection

from actors.records.fields import key_time
from actors.records.record import POST_COUNTS, SUBJECT_COUNTS, USER_COUNTS, AggregateTable
from actors.store.arrays import array, text_array
from actors.store.verify_checks import COUNTED_QUOTES, COUNTED_REPLIES

_POSTS_ONLY: Final = "split_part(t.post_uri, '/', 4) = 'app.bsky.feed.post'"
# How each counter is counted, in the order of the table's columns; `t` is the counter's row.
_COUNTED: Final[dict[str, tuple[str, ...]]] = {
    POST_COUNTS.name: (
        "FROM likes r WHERE r.post_uri = t.post_uri",
        "FROM reposts r WHERE r.post_uri = t.post_uri",
        f"FROM posts r WHERE r.parent_uri = t.post_uri{COUNTED_REPLIES}",
        "FROM bookmarks r WHERE r.post_uri = t.post_uri",
        f"FROM quotes r WHERE r.quoted_uri = t.post_uri{COUNTED_QUOTES}",
    ),
    SUBJECT_COUNTS.name: ("FROM likes r WHERE r.post_uri = t.uri",),
    USER_COUNTS.name: (
        "FROM follows r WHERE r.following_did = t.did",
        "FROM follows r WHERE r.follower_did = t.did",
        "FROM posts r WHERE r.author_did = t.did",
    ),
}
_INDEXED: Final = (
    "(EXISTS (SELECT FROM feed_generators g WHERE g.uri = t.uri)"
    " OR EXISTS (SELECT FROM labeler_services g WHERE g.uri = t.uri))"
)
# A row of zeros is needed where this holds, and none at all where the second does not.
_NEEDED: Final = {
    POST_COUNTS.name: ("EXISTS (SELECT FROM posts p WHERE p.uri = t.post_uri)", _POSTS_ONLY),
    SUBJECT_COUNTS.name: (
        _INDEXED,
        "split_part(t.uri, '/', 4) <> 'app.bsky.feed.post'",
    ),
    USER_COUNTS.name: ("false", "true"),
}
AGGREGATES: Final = {table.name: table for table in (POST_COUNTS, SUBJECT_COUNTS, USER_COUNTS)}


def mend_counts(connection: Connection[Any], table: AggregateTable, keys: Sequence[str]) -> None:
    """Make the counter rows of these keys what the rows they count make of them."""
    if not keys:
        return
    name, key = table.name, table.key
    keys = sorted(set(keys))
    columns = [key, *(("created_at",) if table.has_times else ())]
    values = [text_array(keys)]
    if table.has_times:
        values.append(array("timestamp", [key_time(one) for one in keys]))
    arrays = ", ".join(["%b::text[]", "%b::timestamp[]"][: len(columns)])
    connection.execute(
        f"INSERT INTO {name} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"
        f" AS i ({', '.join(columns)}) ORDER BY i.{key} ON CONFLICT ({key}) DO NOTHING",
        values,
    )
    those = [text_array(keys)]
    connection.execute(
        f"SELECT FROM {name} t WHERE t.{key} = ANY(%b) ORDER BY t.{key} FOR UPDATE", those
    )
    counts = ", ".join(
        f"(SELECT count(*) {rows}) AS {column}"
        for column, rows in zip(table.columns, _COUNTED[name], strict=True)
    )
    sets = ", ".join(f"{column} = n.{column}" for column in table.columns)
    differs = ", ".join(f"t.{column}" for column in table.columns)
    counted = ", ".join(f"n.{column}" for column in table.columns)
    times = ", updated_at = now()" if table.has_times else ""
    connection.execute(
        f"UPDATE {name} t SET {sets}{times}"
        f" FROM (SELECT t.{key} AS counted_key, {counts} FROM {name} t WHERE t.{key} = ANY(%b)) n"
        f" WHERE t.{key} = n.counted_key AND ({differs}) IS DISTINCT FROM ({counted})",
        those,
    )
    zero = " AND ".join(f"t.{column} = 0" for column in table.columns)
    needed, possible = _NEEDED[name]
    connection.execute(
        f"DELETE FROM {name} t WHERE t.{key} = ANY(%b)"
        f" AND (({zero} AND NOT {needed}) OR NOT {possible})",
        those,
    )
    if table is SUBJECT_COUNTS:
        for copied in ("feed_generators", "labeler_services"):
            connection.execute(
                f"UPDATE {copied} g SET like_count = a.like_count"
                " FROM engine_subject_aggregations a WHERE g.uri = a.uri AND a.uri = ANY(%b)"
                " AND g.like_count <> a.like_count",
                those,
            )


def mend_viewers(connection: Connection[Any], pairs: Sequence[tuple[str, str]]) -> None:
    """Make the viewer states of these (post, viewer) what the viewer's records make of them."""
    if not pairs:
        return
    pairs = sorted(set(pairs))
    posts, viewers = zip(*pairs, strict=True)
    keys = [text_array(posts), text_array(viewers)]
    connection.execute(
        "INSERT INTO post_viewer_states AS v"
        " (post_uri, viewer_did, like_uri, repost_uri, bookmarked, created_at)"
        " SELECT i.post_uri, i.viewer_did, l.uri, r.uri, b.uri IS NOT NULL, i.created_at"
        " FROM unnest(%b::text[], %b::text[], %b::timestamp[])"
        " AS i (post_uri, viewer_did, created_at)"
        " LEFT JOIN likes l ON l.user_did = i.viewer_did AND l.post_uri = i.post_uri"
        " LEFT JOIN reposts r ON r.user_did = i.viewer_did AND r.post_uri = i.post_uri"
        " LEFT JOIN bookmarks b ON b.user_did = i.viewer_did AND b.post_uri = i.post_uri"
        " ON CONFLICT (post_uri, viewer_did) DO UPDATE SET like_uri = excluded.like_uri,"
        " repost_uri = excluded.repost_uri, bookmarked = excluded.bookmarked, updated_at = now()",
        [*keys, array("timestamp", [key_time(post) for post in posts])],
    )
    connection.execute(
        "DELETE FROM post_viewer_states v USING unnest(%b::text[], %b::text[])"
        " AS i (post_uri, viewer_did)"
        " WHERE v.post_uri = i.post_uri AND v.viewer_did = i.viewer_did"
        " AND v.like_uri IS NULL AND v.repost_uri IS NULL AND NOT (v.bookmarked OR v.thread_muted"
        " OR v.reply_disabled OR v.embedding_disabled OR v.pinned)",
        keys,
    )
