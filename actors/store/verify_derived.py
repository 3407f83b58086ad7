"""What must hold of rows that are made from others: quotes, feed items, threads, duplicates.

As in `verify_checks`, each rule is a query for what breaks it.
"""

from collections.abc import Iterator
from typing import Final

from actors.store.verify_checks import Check


def _feed_items() -> Iterator[Check]:
    yield Check(
        "feed_items of posts",
        "posts",
        "uri",
        """
        SELECT d.uri, '', coalesce(concat_ws(' ', f.type, f.post_uri, f.originator_did, f.cid,
                                             f.created_at, f.sort_at), 'no row'),
               concat_ws(' ', 'post', d.uri, d.author_did, d.cid, d.created_at,
                         least(d.created_at, d.commit_time))
        FROM posts d LEFT JOIN feed_items f ON f.uri = d.uri
        WHERE {slice}
          AND (f.type, f.post_uri, f.originator_did, f.cid, f.created_at, f.sort_at)
              IS DISTINCT FROM ('post', d.uri, d.author_did, d.cid, d.created_at,
                                least(d.created_at, d.commit_time))
        """,
        "its feed item is {found}, not {expected}",
        mend="feed_items",
    )
    yield Check(
        "feed_items of reposts",
        "reposts",
        "uri",
        """
        SELECT d.uri, '', coalesce(concat_ws(' ', f.type, f.post_uri, f.originator_did,
                                             f.created_at, f.sort_at), 'no row'),
               concat_ws(' ', 'repost', d.post_uri, d.user_did, d.created_at,
                         least(d.created_at, d.commit_time))
        FROM reposts d LEFT JOIN feed_items f ON f.uri = d.uri
        WHERE {slice}
          AND (f.type, f.post_uri, f.originator_did, f.created_at, f.sort_at)
              IS DISTINCT FROM ('repost', d.post_uri, d.user_did, d.created_at,
                                least(d.created_at, d.commit_time))
        """,
        "its feed item is {found}, not {expected}",
        mend="feed_items",
    )
    yield Check(
        "feed_items without a record",
        "feed_items",
        "uri",
        """
        SELECT d.uri, '', d.type, 'no row' FROM feed_items d
        WHERE {slice}
          AND NOT EXISTS (SELECT FROM posts p WHERE p.uri = d.uri)
          AND NOT EXISTS (SELECT FROM reposts r WHERE r.uri = d.uri)
        """,
        "there is a feed item of type {found}, but no such record is indexed",
        mend="feed_items",
    )


def _quotes() -> Iterator[Check]:
    yield Check(
        "quotes of posts",
        "posts",
        "uri",
        """
        SELECT p.uri, '', coalesce(concat_ws(' ', q.quoted_uri, q.cid, q.created_at), 'no row'),
               concat_ws(' ', p.quoted, p.cid, p.created_at)
        FROM (
            SELECT d.uri, d.cid, d.created_at,
                   CASE d.embed ->> '$type'
                       WHEN 'app.bsky.embed.record' THEN d.embed #>> ARRAY['record', 'uri']
                       WHEN 'app.bsky.embed.recordWithMedia'
                           THEN d.embed #>> ARRAY['record', 'record', 'uri']
                   END AS quoted
            FROM posts d WHERE {slice} AND d.embed IS NOT NULL
        ) p
        LEFT JOIN quotes q ON q.uri = p.uri || '#quote'
        WHERE split_part(p.quoted, '/', 4) = 'app.bsky.feed.post'
          AND (q.post_uri, q.quoted_uri, q.cid, q.created_at)
              IS DISTINCT FROM (p.uri, p.quoted, p.cid, p.created_at)
        """,
        "the quote in it is {found}, not {expected}",
        mend="quotes",
    )
    yield Check(
        "quotes without a post",
        "quotes",
        "uri",
        """
        SELECT d.uri, '', d.quoted_uri, 'no row' FROM quotes d
        LEFT JOIN posts p ON p.uri = d.post_uri
        WHERE {slice} AND d.quoted_uri IS DISTINCT FROM
            CASE p.embed ->> '$type'
                WHEN 'app.bsky.embed.record' THEN p.embed #>> ARRAY['record', 'uri']
                WHEN 'app.bsky.embed.recordWithMedia'
                    THEN p.embed #>> ARRAY['record', 'record', 'uri']
            END
        """,
        "there is a quote of {found}, but no indexed post embeds that",
        mend="quotes",
    )


def _threads_and_gates() -> Iterator[Check]:
    yield Check(
        "thread_contexts of replies",
        "posts",
        "uri",
        """
        SELECT d.uri, '', 'no row', 'a row' FROM posts d
        WHERE {slice} AND d.parent_uri IS NOT NULL
          AND NOT EXISTS (SELECT FROM thread_contexts t WHERE t.post_uri = d.uri)
        """,
        "it is a reply, but thread_contexts has no row for it",
        mend="thread_contexts",
    )
    yield Check(
        "thread_contexts without a reply",
        "thread_contexts",
        "post_uri",
        """
        SELECT d.post_uri, '', 'a row', 'no row' FROM thread_contexts d
        WHERE {slice} AND NOT EXISTS (
            SELECT FROM posts p WHERE p.uri = d.post_uri AND p.parent_uri IS NOT NULL
        )
        """,
        "thread_contexts has a row for it, but no such reply is indexed",
        mend="thread_contexts",
    )
    yield Check(
        "thread_contexts.root_author_like_uri",
        "thread_contexts",
        "post_uri",
        """
        SELECT d.post_uri, '', coalesce(d.root_author_like_uri, 'null'), coalesce(l.uri, 'null')
        FROM thread_contexts d
        JOIN posts p ON p.uri = d.post_uri
        LEFT JOIN likes l ON l.user_did = split_part(p.root_uri, '/', 3)
                         AND l.post_uri = d.post_uri
        WHERE {slice} AND d.root_author_like_uri IS DISTINCT FROM l.uri
        """,
        "the like of its thread's author is {found}, but likes has {expected}",
        mend="thread_contexts",
    )
    for flag, gates in (("has_thread_gate", "thread_gates"), ("has_post_gate", "post_gates")):
        yield Check(
            f"posts.{flag}",
            "posts",
            "uri",
            """
            SELECT d.uri, '', d.{flag}::text, (g.post_uri IS NOT NULL)::text
            FROM posts d LEFT JOIN {gates} g ON g.post_uri = d.uri
            WHERE {slice} AND d.{flag} <> (g.post_uri IS NOT NULL)
            """,
            f"{flag} is {{found}}, but by {gates} it is {{expected}}",
            {"flag": flag, "gates": gates},
            mend="gates",
        )


# Tables where two records may be about one thing, and the columns that are that thing.
THINGS: Final = (
    ("likes", "user_did", "post_uri"),
    ("reposts", "user_did", "post_uri"),
    ("bookmarks", "user_did", "post_uri"),
    ("follows", "follower_did", "following_did"),
    ("blocks", "blocker_did", "blocked_did"),
    ("list_blocks", "blocker_did", "list_uri"),
    ("list_items", "list_uri", "subject_did"),
    ("verifications", "issuer_did", "subject_did"),
)


def _duplicates() -> Iterator[Check]:
    for table, first, second in THINGS:
        names = {"indexed": table, "first": first, "second": second}
        yield Check(
            f"engine_duplicates of {table}",
            "engine_duplicates",
            "uri",
            # The records of one thing are one author's in one collection, so the order of their
            # uris is that of their record keys.
            """
            SELECT d.uri, d.thing, coalesce(i.uri, 'no row'), 'a row with a lower record key'
            FROM engine_duplicates d
            LEFT JOIN {indexed} i ON i.{first} = split_part(d.thing, ' ', 1)
                                 AND i.{second} = split_part(d.thing, ' ', 2)
            WHERE {slice} AND d.table_name = {table_name}
              AND (i.uri IS NULL OR i.uri COLLATE "C" >= d.uri COLLATE "C")
            """,
            f"it is kept as a duplicate in {table} of {{detail}}, where the indexed row is"
            " {found}, not {expected}",
            names | {"table_name": table},
            mend="duplicates",
        )
        yield Check(
            f"engine_duplicates indexed in {table}",
            "engine_duplicates",
            "uri",
            """
            SELECT d.uri, d.thing, 'a row', 'no row' FROM engine_duplicates d
            WHERE {slice} AND EXISTS (SELECT FROM {indexed} i WHERE i.uri = d.uri)
            """,
            f"it is kept as a duplicate of {{detail}}, but {table} has it as well",
            names,
            mend="duplicates",
        )
    yield Check(
        "engine_duplicates of an unknown table",
        "engine_duplicates",
        "uri",
        """
        SELECT d.uri, d.thing, d.table_name, 'a table with duplicates' FROM engine_duplicates d
        WHERE {slice} AND d.table_name <> ALL (ARRAY['likes', 'reposts', 'bookmarks', 'follows',
            'blocks', 'list_blocks', 'list_items', 'verifications'])
        """,
        "it is kept as a duplicate in {found}, which has none",
        mend="duplicates",
    )


CHECKS_OF_DERIVED: Final[tuple[Check, ...]] = (
    *_duplicates(),
    *_quotes(),
    *_feed_items(),
    *_threads_and_gates(),
)
