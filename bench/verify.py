"""How long `verify` and `verify --repair` take on an index of so many posts. Prints one JSON line.

The rows are made by a few statements, not by the engine, in an embedded server of its own: for each
post two likes, a feed item, a counter; every third a reply, every tenth a quote, every fifth
reposted; half as many follows as posts; a notification for each reply, quote, repost and follow and
for every fourth like. Then: a verify; a repair after every like and reply count has drifted by one
and every hundredth viewer state is gone; a verify after it.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import psycopg

from actors.store.repair import repair
from actors.store.verify import survey
from actors.store.verify_walk import Step
from bench.end_to_end import fresh_database, server

# Executed statement by statement; the numbers of posts and of accounts go into it.
_FILL: Final = """
CREATE FUNCTION pg_temp.did(u bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT 'did:plc:' || left(translate(md5(u::text), '0189', 'wxyz'), 24) $$;
CREATE FUNCTION pg_temp.uri(u bigint, kind text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT 'at://' || pg_temp.did(u) || '/app.bsky.' || kind || '/'
       || lpad(n::text, 13, '0') $$;
CREATE FUNCTION pg_temp.post(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT pg_temp.uri(n * {users} / {posts}, 'feed.post', n) $$;
CREATE FUNCTION pg_temp.made(n bigint) RETURNS timestamp LANGUAGE sql IMMUTABLE AS
    $$ SELECT timestamp '2026-01-01' + n * interval '1 second' $$;
INSERT INTO users (did, handle, created_at)
    SELECT pg_temp.did(u), 'handle.invalid', 'epoch' FROM generate_series(0, {users} - 1) u
    ORDER BY 1;
INSERT INTO engine_repos (did, rev) SELECT did, '3mbd354vwo42b' FROM users ORDER BY 1;
INSERT INTO posts (uri, cid, author_did, text, parent_uri, root_uri, embed, created_at, commit_time)
    SELECT p.uri, 'bafyreigh2akiscaildc', split_part(p.uri, '/', 3), 'a post of some words',
           p.parent, p.parent,
           CASE WHEN p.quoted IS NOT NULL THEN jsonb_build_object('$type', 'app.bsky.embed.record',
               'record', jsonb_build_object('uri', p.quoted, 'cid', 'c')) END, p.made, p.made
    FROM (SELECT pg_temp.post(n) AS uri, pg_temp.made(n) AS made,
                 CASE WHEN n % 3 = 1 THEN pg_temp.post(n / 3 * 3 * 31 % (n + 2) / 3 * 3) END parent,
                 CASE WHEN n % 10 = 9 THEN pg_temp.post(n * 31 / 37) END AS quoted
          FROM generate_series(0, {posts}::bigint - 1) n) p
    ORDER BY p.uri;
INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
    SELECT uri, uri, author_did, 'post', created_at, cid, created_at FROM posts ORDER BY uri;
INSERT INTO quotes (uri, cid, post_uri, quoted_uri, quoted_cid, created_at)
    SELECT uri || '#quote', cid, uri, embed #>> ARRAY['record', 'uri'], 'c', created_at FROM posts
    WHERE embed IS NOT NULL ORDER BY uri;
INSERT INTO likes (uri, user_did, post_uri, subject_cid, created_at)
    SELECT pg_temp.uri(r.u, 'feed.like', r.n), pg_temp.did(r.u), pg_temp.post(r.n / 2), 'c',
           pg_temp.made(r.n)
    FROM (SELECT n, (n / 2 * 31 + 17 * (n % 2)) % {users} AS u
          FROM generate_series(0, 2 * {posts}::bigint - 1) n) r ORDER BY 1;
INSERT INTO reposts (uri, user_did, post_uri, subject_cid, created_at)
    SELECT pg_temp.uri(n % {users}, 'feed.repost', n), pg_temp.did(n % {users}),
           pg_temp.post(n * 5), 'c', pg_temp.made(n)
    FROM generate_series(0, {posts}::bigint / 5 - 1) n ORDER BY 1;
INSERT INTO feed_items (uri, post_uri, originator_did, type, sort_at, cid, created_at)
    SELECT uri, post_uri, user_did, 'repost', created_at, 'c', created_at FROM reposts ORDER BY uri;
INSERT INTO follows (uri, follower_did, following_did, created_at)
    SELECT pg_temp.uri(n % {users}, 'graph.follow', n), pg_temp.did(n % {users}),
           pg_temp.did((n % {users} + 1 + n / {users}) % {users}), pg_temp.made(n)
    FROM generate_series(0, {posts}::bigint / 2 - 1) n ORDER BY 1;
ANALYZE;
INSERT INTO thread_contexts (post_uri, root_author_like_uri)
    SELECT p.uri, l.uri FROM posts p
    LEFT JOIN likes l ON l.user_did = split_part(p.root_uri, '/', 3) AND l.post_uri = p.uri
    WHERE p.parent_uri IS NOT NULL ORDER BY p.uri;
INSERT INTO post_viewer_states (post_uri, viewer_did, like_uri, repost_uri)
    SELECT coalesce(l.post_uri, r.post_uri), coalesce(l.user_did, r.user_did), l.uri, r.uri
    FROM likes l FULL JOIN reposts r ON r.user_did = l.user_did AND r.post_uri = l.post_uri
    ORDER BY 1, 2;
INSERT INTO post_aggregations (post_uri, like_count, repost_count, reply_count, quote_count)
    SELECT p.uri, coalesce(l.c, 0), coalesce(r.c, 0), coalesce(a.c, 0), coalesce(q.c, 0)
    FROM posts p
    LEFT JOIN (SELECT post_uri u, count(*) c FROM likes GROUP BY 1) l ON l.u = p.uri
    LEFT JOIN (SELECT post_uri u, count(*) c FROM reposts GROUP BY 1) r ON r.u = p.uri
    LEFT JOIN (SELECT parent_uri u, count(*) c FROM posts GROUP BY 1) a ON a.u = p.uri
    LEFT JOIN (SELECT quoted_uri u, count(*) c FROM quotes GROUP BY 1) q ON q.u = p.uri
    ORDER BY p.uri;
INSERT INTO engine_user_aggregations (did, followers_count, follows_count, posts_count)
    SELECT u.did, coalesce(i.c, 0), coalesce(o.c, 0), coalesce(p.c, 0) FROM users u
    LEFT JOIN (SELECT following_did d, count(*) c FROM follows GROUP BY 1) i ON i.d = u.did
    LEFT JOIN (SELECT follower_did d, count(*) c FROM follows GROUP BY 1) o ON o.d = u.did
    LEFT JOIN (SELECT author_did d, count(*) c FROM posts GROUP BY 1) p ON p.d = u.did ORDER BY 1;
INSERT INTO notifications (uri, recipient_did, author_did, reason, reason_subject, cid, created_at,
                           engine_record_uri)
    SELECT n.* FROM (
        SELECT p.uri || '#notification/reply', split_part(p.parent_uri, '/', 3) AS recipient,
               p.author_did AS author, 'reply', p.uri, p.cid, p.created_at, p.uri
        FROM posts p WHERE p.parent_uri IS NOT NULL AND split_part(p.parent_uri, '/', 3)
            IS DISTINCT FROM split_part(p.embed #>> ARRAY['record', 'uri'], '/', 3)
        UNION ALL
        SELECT q.post_uri || '#notification/quote', split_part(q.quoted_uri, '/', 3),
               split_part(q.post_uri, '/', 3), 'quote', q.post_uri, q.cid, q.created_at, q.post_uri
        FROM quotes q
        UNION ALL
        SELECT uri || '#notification', split_part(post_uri, '/', 3), user_did, 'like', post_uri,
               NULL, created_at, uri FROM likes WHERE hashtext(uri) % 4 = 0
        UNION ALL
        SELECT uri || '#notification', split_part(post_uri, '/', 3), user_did, 'repost', post_uri,
               NULL, created_at, uri FROM reposts
        UNION ALL
        SELECT uri || '#notification', following_did, follower_did, 'follow', NULL, NULL,
               created_at, uri FROM follows
    ) n WHERE n.recipient <> n.author;
VACUUM ANALYZE
"""
# Every count of likes and replies is one too high, and some viewer states are missing.
DRIFT: Final = (
    "UPDATE post_aggregations SET like_count = like_count + 1, reply_count = reply_count + 1",
    "DELETE FROM post_viewer_states WHERE hashtext(viewer_did || post_uri) % 100 = 0",
)


class _Steps:
    """Notes the longest time between two steps, which is that of a slice."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()

    def __call__(self, _step: Step) -> None:
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now


def fill(conninfo: str, posts: int, users: int) -> int:
    """Make the rows of an index of that many posts in its empty tables; returns how many."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in _FILL.format(posts=posts, users=users).split(";\n"):
            connection.execute(statement.encode())
        row = connection.execute(
            "SELECT sum(n_live_tup)::bigint FROM pg_stat_user_tables WHERE schemaname = 'public'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _verified(conninfo: str) -> dict[str, Any]:
    steps = _Steps()
    found = survey(conninfo, progress=steps)
    return {
        "seconds": round(found.seconds, 1),
        "rows_looked_at": found.rows,
        "rows_per_second": round(found.rows / found.seconds),
        "longest_slice_seconds": round(steps.longest, 2),
        "differences": len(found.differences),
    }


@click.command()
@click.option("--posts", default=1_000_000, show_default=True, help="Posts in the index.")
@click.option("--users", default=20_000, show_default=True, help="Accounts that write them.")
def main(posts: int, users: int) -> None:
    """Print how long verify and repair take, as one JSON line."""
    with tempfile.TemporaryDirectory(prefix="skyshard-bench.") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with server(folder) as root, fresh_database(root, "bench_verify") as conninfo:
            began = time.monotonic()
            rows = fill(conninfo, posts, users)
            filled = time.monotonic() - began
            first = _verified(conninfo)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                for statement in DRIFT:
                    connection.execute(statement.encode())
            mended = repair(conninfo)
            last = _verified(conninfo)
    report = {
        "posts": posts,
        "rows": rows,
        "fill_seconds": round(filled, 1),
        "verify": first,
        "repair": {
            "seconds": round(mended.seconds, 1),
            "mended": mended.mended.total(),
            "left": len(mended.left),
            "walks": mended.walks,
            "longest_hold_seconds": round(mended.held, 3),
        },
        "verify_after": last,
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
