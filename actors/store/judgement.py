"""The judgements of a post, as SQL: is it a valid reply, do the gates of others let it stand.

Each is a function of the rows that are there now, so it can be made again at any time: the shard of
the post's author writes what comes out, and the registry looks where the stored flags differ. What
is missing speaks for the post. The rules:

* a reply is invalid when its root is not its parent's root (or the parent itself, where that is no
  reply), or its parent is invalid, as far as both parent and root are indexed;
* it violates the thread gate of its root when the gate's `allow` is there and lets nobody like its
  author in; the gate's owner always may. No `allow` is everybody, an empty one nobody;
  Follows and members that come later judge nothing again, except where a repository comes whole:
  they may be older than the reply;
* a quote violates the embedding rules of what it quotes when a post gate there disables embedding,
  but for quotes of one's own posts.

Look-ups stand in scalar subqueries with a limit, or in lateral ones with an offset: these are never
turned into hashes of whole tables, nor round, so that a table is read whole to find what is asked
for in it, however small it was when the plan was made. Those of follows and lists only run where a
gate has such a rule.
"""

from typing import Final

_GATE: Final = "app.bsky.feed.threadgate#"

# What a parent passes on must come from a wrong root somewhere above: replies in a ring, which only
# a hostile account can make, would else keep one another invalid for ever, or in turns. The walk
# ends at the first one, and is only made below a parent that is invalid.
INVALID: Final = """coalesce((
    SELECT r.root_uri <> coalesce(p.root_uri, p.uri) OR CASE WHEN p.engine_invalid_reply THEN
        coalesce((
            WITH RECURSIVE above (uri, parent_uri, root_uri) AS (
                SELECT p.uri, p.parent_uri, p.root_uri
                UNION
                SELECT t.uri, t.parent_uri, t.root_uri FROM above a CROSS JOIN LATERAL (
                    SELECT s.uri, s.parent_uri, s.root_uri FROM posts s WHERE s.uri = a.parent_uri
                    AND (SELECT true FROM posts q WHERE q.uri = a.root_uri LIMIT 1) OFFSET 0) t
            )
            SELECT true FROM above a CROSS JOIN LATERAL (
                SELECT s.uri, s.root_uri FROM posts s WHERE s.uri = a.parent_uri OFFSET 0) t
            WHERE a.root_uri <> coalesce(t.root_uri, t.uri)
                AND (SELECT true FROM posts q WHERE q.uri = a.root_uri LIMIT 1) LIMIT 1
        ), false) ELSE false END
    FROM posts p WHERE p.uri = r.parent_uri
    AND (SELECT true FROM posts q WHERE q.uri = r.root_uri LIMIT 1) LIMIT 1), false)"""
"""Whether the post `r` should be an invalid reply; like the next two, of a row called `r`."""

GATED: Final = f"""(r.parent_uri IS NOT NULL AND coalesce((
    SELECT CASE
        WHEN g.allow IS NULL OR g.owner_did = r.author_did THEN false
        WHEN g.allow @> '[{{"$type": "{_GATE}mentionRule"}}]' AND coalesce((
            SELECT q.facets @> jsonb_build_array(jsonb_build_object('features',
                jsonb_build_array(jsonb_build_object(
                    '$type', 'app.bsky.richtext.facet#mention', 'did', r.author_did))))
            FROM posts q WHERE q.uri = r.root_uri LIMIT 1), false) THEN false
        WHEN g.allow @> '[{{"$type": "{_GATE}followingRule"}}]' AND (
            SELECT true FROM follows f WHERE f.follower_did = g.owner_did
            AND f.following_did = r.author_did LIMIT 1) THEN false
        WHEN g.allow @> '[{{"$type": "{_GATE}followerRule"}}]' AND (
            SELECT true FROM follows f WHERE f.follower_did = r.author_did
            AND f.following_did = g.owner_did LIMIT 1) THEN false
        WHEN g.allow @> '[{{"$type": "{_GATE}listRule"}}]' AND (
            SELECT true FROM jsonb_array_elements(g.allow) AS e (rule)
            WHERE e.rule ->> '$type' = '{_GATE}listRule' AND (
                SELECT true FROM list_items m WHERE m.list_uri = e.rule ->> 'list'
                AND m.subject_did = r.author_did LIMIT 1) LIMIT 1) THEN false
        ELSE true END
    FROM thread_gates g WHERE g.post_uri = r.root_uri
    AND (SELECT true FROM posts q WHERE q.uri = r.root_uri LIMIT 1) LIMIT 1), false))"""  # noqa: S608 - it is made of constants
"""Whether `r` should violate its thread gate."""

EMBEDS: Final = """coalesce((
    SELECT true FROM quotes k WHERE k.post_uri = r.uri
    AND NOT starts_with(k.quoted_uri, 'at://' || r.author_did || '/')
    AND (SELECT g.embedding_rules @> '[{"$type": "app.bsky.feed.postgate#disableRule"}]'
        FROM post_gates g WHERE g.post_uri = k.quoted_uri LIMIT 1) LIMIT 1), false)"""
"""Whether `r` should violate the embedding rules."""

DIFFERS: Final = (
    f"(r.engine_invalid_reply <> {INVALID} OR r.violates_thread_gate <> {GATED}"
    f" OR r.violates_embedding_rules <> {EMBEDS})"
)
"""Whether the stored flags of the post `r` are not what they should be."""

JUDGE_SQL: Final = f"""
UPDATE posts p SET engine_invalid_reply = j.invalid, violates_thread_gate = j.gated,
    violates_embedding_rules = j.embeds
FROM (
    SELECT r.tid, r.engine_invalid_reply AS was_invalid, r.violates_thread_gate AS was_gated,
        r.violates_embedding_rules AS was_embeds, {INVALID} AS invalid, {GATED} AS gated,
        {EMBEDS} AS embeds
    FROM unnest(%b::text[]) AS i (uri)
    CROSS JOIN LATERAL (SELECT t.*, t.ctid AS tid FROM posts t WHERE t.uri = i.uri OFFSET 0) r
    OFFSET 0
) j
WHERE p.ctid = j.tid
    AND (p.engine_invalid_reply, p.violates_thread_gate, p.violates_embedding_rules)
        IS DISTINCT FROM (j.invalid, j.gated, j.embeds)
RETURNING p.uri, p.author_did, p.parent_uri,
    (SELECT k.quoted_uri FROM quotes k WHERE k.post_uri = p.uri ORDER BY k.quoted_uri LIMIT 1),
    j.was_invalid, j.was_gated, j.was_embeds, j.invalid, j.gated, j.embeds
"""  # noqa: S608 - it is made of constants
"""Judge the posts of one array of uris; one row for each whose flags changed: its uri, author,
parent and quoted post, the three flags before (invalid reply, thread gate, embedding), and after.

Every judgement is of the rows as they were before the statement: a reply whose parent is judged by
the same one differs afterwards, and is judged again.
"""


def _each(table: str, alias: str, condition: str) -> str:
    of = f"SELECT {alias}.* FROM {table} {alias} WHERE {condition} OFFSET 0"  # noqa: S608
    return f"CROSS JOIN LATERAL ({of}) {alias}"


WHOLE_GATES_SQL: Final = f"""
SELECT g.post_uri FROM thread_gates g WHERE g.owner_did = ANY(%b::text[])
    AND (g.allow @> '[{{"$type": "{_GATE}followingRule"}}]'
        OR g.allow @> '[{{"$type": "{_GATE}listRule"}}]')
"""  # noqa: S608 - it is made of constants
"""Gates of accounts that ask whom these follow, or who is on their lists."""
WHOLE_REPLIES_SQL: Final = f"""
SELECT r.uri FROM unnest(%b::text[]) AS i (did)
{_each("posts", "r", "r.author_did = i.did AND r.root_uri IS NOT NULL")}
{_each("thread_gates", "g", "g.post_uri = r.root_uri")}
WHERE g.allow @> '[{{"$type": "{_GATE}followerRule"}}]'
"""  # noqa: S608 - it is made of constants
"""Replies of accounts below gates that ask whether these follow the owner."""


def _look(source: str) -> str:
    return f"""
SELECT CASE WHEN d.differs THEN r.uri END, CASE WHEN d.differs THEN r.author_did END
FROM unnest(%b::text[]) AS i (uri)
{source}
CROSS JOIN LATERAL (SELECT {DIFFERS} AS differs OFFSET 0) d
"""  # noqa: S608 - it is made of constants


LOOK_POSTS_SQL: Final = _look(_each("posts", "r", "r.uri = i.uri"))
"""Uri and author of each of these posts whose flags differ, and a row of nulls for each other.

The nulls let a reader that takes a few rows at a time know that the server works on.
"""
LOOK_REPLIES_SQL: Final = _look(_each("posts", "r", "r.parent_uri = i.uri"))
"""The same of the posts that reply to these, directly."""
LOOK_THREADS_SQL: Final = _look(_each("posts", "r", "r.root_uri = i.uri"))
"""The same of the posts whose root is one of these."""
LOOK_QUOTES_SQL: Final = _look(
    f"{_each('quotes', 'k', 'k.quoted_uri = i.uri')} {_each('posts', 'r', 'r.uri = k.post_uri')}"
)
"""The same of the posts that quote one of these."""
