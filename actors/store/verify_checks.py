"""What must hold between the tables, as data: a name, a query for what breaks it, a sentence.

Each query reads one table, aliased `d`, in slices of one column (`{slice}` is the condition), and
finds its way to other tables by equality alone; so it uses the indexes of any database, whatever
the collation of its keys. It returns the sliced column's value, a detail (another column of the
key, or ''), what was found and what was expected. A snapshot taken between two transactions of the
engine breaks none of this. A record's collection is the fourth part of its uri.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, LiteralString


@dataclass(frozen=True, slots=True)
class Check:
    """One rule.

    Attributes:
        name: names it in reports.
        table, column: what is read in slices, and by which column; it is the key of a difference.
        sql: the query for what breaks the rule.
        message: the sentence that tells what is wrong.
        names: identifiers that go into `sql`.
        parts: pieces of SQL that go into it.
        mend: which of the menders of `repair` puts it right.
        detail: the column that is the difference's detail, where one key may have many.
        settles: work that waits in the outbox may be about to put it right.
    """

    name: str
    table: str
    column: str
    sql: LiteralString
    message: str
    names: dict[str, str] = field(default_factory=dict)
    parts: dict[str, LiteralString] = field(default_factory=dict)
    mend: str = ""
    detail: str = ""
    settles: bool = False


# Replies that their root's gate does not allow, and quotes that the quoted forbids, do not count.
COUNTED_REPLIES: Final = " AND NOT r.violates_thread_gate"
COUNTED_QUOTES: Final = """
    AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = r.post_uri AND p.violates_embedding_rules)
"""
# Aggregates, their key, a count, the rows it counts by which column, and which of them only.
_COUNTS: Final[tuple[tuple[str, str, str, str, str, LiteralString], ...]] = (
    ("post_aggregations", "post_uri", "like_count", "likes", "post_uri", ""),
    ("post_aggregations", "post_uri", "repost_count", "reposts", "post_uri", ""),
    ("post_aggregations", "post_uri", "reply_count", "posts", "parent_uri", COUNTED_REPLIES),
    ("post_aggregations", "post_uri", "bookmark_count", "bookmarks", "post_uri", ""),
    ("post_aggregations", "post_uri", "quote_count", "quotes", "quoted_uri", COUNTED_QUOTES),
    ("engine_subject_aggregations", "uri", "like_count", "likes", "post_uri", ""),
    ("engine_user_aggregations", "did", "followers_count", "follows", "following_did", ""),
    ("engine_user_aggregations", "did", "follows_count", "follows", "follower_did", ""),
    ("engine_user_aggregations", "did", "posts_count", "posts", "author_did", ""),
    ("feed_generators", "uri", "like_count", "likes", "post_uri", ""),
    ("labeler_services", "uri", "like_count", "likes", "post_uri", ""),
)
_COUNT: Final = """
    SELECT d.{key}, '', d.{count}::text, rows.counted::text
    FROM {aggregates} d CROSS JOIN LATERAL (
        SELECT count(*) AS counted FROM {rows} r WHERE r.{subject} = d.{key}{counted}
    ) rows
    WHERE {slice} AND d.{count} <> rows.counted
"""
_NO_POST_ROW: Final = """
    SELECT DISTINCT d.{subject}, '', 'no row', 'a row' FROM {rows} d
    WHERE {slice} AND split_part(d.{subject}, '/', 4) = 'app.bsky.feed.post'{counted}
      AND NOT EXISTS (SELECT FROM post_aggregations a WHERE a.post_uri = d.{subject})
"""
_NO_SUBJECT_ROW: Final = """
    SELECT DISTINCT d.{subject}, '', 'no row', 'a row' FROM {rows} d
    WHERE {slice} AND split_part(d.{subject}, '/', 4) <> 'app.bsky.feed.post'
      AND NOT EXISTS (SELECT FROM engine_subject_aggregations a WHERE a.uri = d.{subject})
"""
_NO_USER_ROW: Final = """
    SELECT DISTINCT d.{subject}, '', 'no row', 'a row' FROM {rows} d
    WHERE {slice}
      AND NOT EXISTS (SELECT FROM engine_user_aggregations a WHERE a.did = d.{subject})
"""
_COUNTED: Final[dict[tuple[str, str], LiteralString]] = {
    ("posts", "parent_uri"): " AND NOT d.violates_thread_gate",
    ("quotes", "quoted_uri"): """
      AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = d.post_uri AND p.violates_embedding_rules)
    """,
}
_AGGREGATES_NEEDED: Final[tuple[tuple[str, str, LiteralString], ...]] = (
    ("posts", "uri", _NO_POST_ROW),
    ("posts", "parent_uri", _NO_POST_ROW),
    ("likes", "post_uri", _NO_POST_ROW),
    ("reposts", "post_uri", _NO_POST_ROW),
    ("bookmarks", "post_uri", _NO_POST_ROW),
    ("quotes", "quoted_uri", _NO_POST_ROW),
    ("likes", "post_uri", _NO_SUBJECT_ROW),
    ("feed_generators", "uri", _NO_SUBJECT_ROW),
    ("labeler_services", "uri", _NO_SUBJECT_ROW),
    ("follows", "following_did", _NO_USER_ROW),
    ("follows", "follower_did", _NO_USER_ROW),
    ("posts", "author_did", _NO_USER_ROW),
)
_KIND_OF_ROW: Final = {
    _NO_POST_ROW: "post_aggregations",
    _NO_SUBJECT_ROW: "engine_subject_aggregations",
    _NO_USER_ROW: "engine_user_aggregations",
}


_MENDERS: Final = {
    "post_aggregations": "post_aggregations",
    "engine_user_aggregations": "engine_user_aggregations",
}


def _counts() -> Iterator[Check]:
    for aggregates, key, count, rows, subject, counted in _COUNTS:
        what = "replies" if count == "reply_count" else rows
        yield Check(
            f"{aggregates}.{count}",
            aggregates,
            key,
            _COUNT,
            f"{count} in {aggregates} is {{found}}, but {{expected}} {what} count for it",
            {"aggregates": aggregates, "key": key, "count": count, "rows": rows}
            | {"subject": subject},
            {"counted": counted},
            mend=_MENDERS.get(aggregates, "engine_subject_aggregations"),
        )
    for rows, subject, statement in _AGGREGATES_NEEDED:
        aggregates = _KIND_OF_ROW[statement]
        yield Check(
            f"{aggregates} for {rows}.{subject}",
            rows,
            subject,
            statement,
            f"{aggregates} has no row for it, though {rows} names it as {subject}",
            {"rows": rows, "subject": subject},
            {"counted": _COUNTED.get((rows, subject), "")},
            mend=aggregates,
        )
    yield Check(
        "post_aggregations without a reason",
        "post_aggregations",
        "post_uri",
        """
        SELECT d.post_uri, '', 'a row of zeros', 'no row' FROM post_aggregations d
        WHERE {slice} AND d.like_count = 0 AND d.repost_count = 0 AND d.reply_count = 0
          AND d.bookmark_count = 0 AND d.quote_count = 0
          AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = d.post_uri)
        """,
        "post_aggregations has {found} for it, though it is not indexed",
        mend="post_aggregations",
    )
    yield Check(
        "engine_subject_aggregations without a reason",
        "engine_subject_aggregations",
        "uri",
        """
        SELECT d.uri, '', 'a row of zeros', 'no row' FROM engine_subject_aggregations d
        WHERE {slice} AND d.like_count = 0
          AND NOT EXISTS (SELECT FROM feed_generators g WHERE g.uri = d.uri)
          AND NOT EXISTS (SELECT FROM labeler_services l WHERE l.uri = d.uri)
        """,
        "engine_subject_aggregations has {found} for it, though it is not indexed",
        mend="engine_subject_aggregations",
    )
    yield Check(
        "engine_user_aggregations without a reason",
        "engine_user_aggregations",
        "did",
        """
        SELECT d.did, '', 'a row of zeros', 'no row' FROM engine_user_aggregations d
        WHERE {slice} AND d.followers_count = 0 AND d.follows_count = 0 AND d.posts_count = 0
        """,
        "engine_user_aggregations has {found} for it",
        mend="engine_user_aggregations",
    )
    yield Check(
        "post_aggregations of what is no post",
        "post_aggregations",
        "post_uri",
        """
        SELECT d.post_uri, '', split_part(d.post_uri, '/', 4), 'app.bsky.feed.post'
        FROM post_aggregations d
        WHERE {slice} AND split_part(d.post_uri, '/', 4) <> 'app.bsky.feed.post'
        """,
        "post_aggregations has a row for it, though it is a {found}",
        mend="post_aggregations",
    )
    yield Check(
        "engine_subject_aggregations of a post",
        "engine_subject_aggregations",
        "uri",
        """
        SELECT d.uri, '', 'app.bsky.feed.post', 'another collection'
        FROM engine_subject_aggregations d
        WHERE {slice} AND split_part(d.uri, '/', 4) = 'app.bsky.feed.post'
        """,
        "engine_subject_aggregations has a row for it, though posts are counted elsewhere",
        mend="engine_subject_aggregations",
    )


_VIEWER_URI: Final = """
    SELECT d.post_uri, d.viewer_did, coalesce(d.{column}, 'null'), coalesce(r.uri, 'null')
    FROM post_viewer_states d
    LEFT JOIN {rows} r ON r.user_did = d.viewer_did AND r.post_uri = d.post_uri
    WHERE {slice} AND d.{column} IS DISTINCT FROM r.uri
"""
_NO_VIEWER_STATE: Final = """
    SELECT d.post_uri, d.user_did, 'no row', d.uri FROM {rows} d
    WHERE {slice} AND split_part(d.post_uri, '/', 4) = 'app.bsky.feed.post'
      AND NOT EXISTS (
          SELECT FROM post_viewer_states v
          WHERE v.viewer_did = d.user_did AND v.post_uri = d.post_uri
      )
"""


def _viewer_states() -> Iterator[Check]:
    for column, rows in (("like_uri", "likes"), ("repost_uri", "reposts")):
        yield Check(
            f"post_viewer_states.{column}",
            "post_viewer_states",
            "post_uri",
            _VIEWER_URI,
            f"{column} of the viewer {{detail}} is {{found}}, but {rows} has {{expected}}",
            {"column": column, "rows": rows},
            mend="post_viewer_states",
            detail="viewer_did",
        )
    yield Check(
        "post_viewer_states.bookmarked",
        "post_viewer_states",
        "post_uri",
        """
        SELECT d.post_uri, d.viewer_did, d.bookmarked::text, (b.uri IS NOT NULL)::text
        FROM post_viewer_states d
        LEFT JOIN bookmarks b ON b.user_did = d.viewer_did AND b.post_uri = d.post_uri
        WHERE {slice} AND d.bookmarked <> (b.uri IS NOT NULL)
        """,
        "bookmarked of the viewer {detail} is {found}, but by bookmarks it is {expected}",
        mend="post_viewer_states",
        detail="viewer_did",
    )
    yield Check(
        "post_viewer_states with nothing in it",
        "post_viewer_states",
        "post_uri",
        """
        SELECT d.post_uri, d.viewer_did, 'an empty row', 'no row' FROM post_viewer_states d
        WHERE {slice} AND d.like_uri IS NULL AND d.repost_uri IS NULL
          AND NOT (d.bookmarked OR d.thread_muted OR d.reply_disabled OR d.embedding_disabled
                   OR d.pinned)
        """,
        "post_viewer_states has {found} of the viewer {detail}",
        mend="post_viewer_states",
        detail="viewer_did",
    )
    for rows in ("likes", "reposts", "bookmarks"):
        yield Check(
            f"post_viewer_states for {rows}",
            rows,
            "post_uri",
            _NO_VIEWER_STATE,
            "post_viewer_states has no row of the viewer {detail}, though there is {expected}",
            {"rows": rows},
            mend="post_viewer_states",
            detail="user_did",
        )


CHECKS_OF_COUNTS: Final[tuple[Check, ...]] = (*_counts(), *_viewer_states())
