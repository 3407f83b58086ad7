"""The SQL of notifications: what the records of each collection tell whom, as the tables are now.

One statement for each collection, over an array of record uris, makes `notifications` agree with
what these records tell: what they tell no more is deleted, what is new is inserted, what is there
stays as it is (its id, whether it was read), but for columns that differ. It can be repeated at any
time. A mute keeps a notification from being made, and takes none away.

Look-ups stand in lateral subqueries (`_each`, `_maybe`) or scalar ones, so that PostgreSQL always
goes from what is asked for to the table, by its index. A plain join it may do the other way round
while it takes the table for empty, and keep that plan when there are a million rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from actors.store.author_range import author_range

# An index entry has at most 2,704 bytes; a uri of a record, with a DID behind it, could be longer.
MAX_URI_BYTES: Final = 2_600

POST: Final = "app.bsky.feed.post"
REPOST: Final = "app.bsky.feed.repost"
STARTER_PACK: Final = "app.bsky.graph.starterpack"
VERIFICATION: Final = "app.bsky.graph.verification"
# What may be liked or reposted, and where it is; any other is a record without a table of its own.
_SUBJECTS: Final = {
    "app.bsky.feed.generator": "feed_generators",
    "app.bsky.labeler.service": "labeler_services",
    "app.bsky.graph.list": "lists",
    STARTER_PACK: "starter_packs",
    REPOST: "reposts",
}


def _each(table: str, alias: str, condition: str) -> str:
    """Join the rows of a table that belong to what is to the left of it."""
    return f"CROSS JOIN {_lateral(table, alias, condition)}"


def _maybe(table: str, alias: str, condition: str) -> str:
    """Like `_each`, with nulls where there are none."""
    return f"LEFT JOIN {_lateral(table, alias, condition)} ON true"


def _lateral(table: str, alias: str, condition: str) -> str:
    return (
        f"LATERAL (SELECT {alias}.* FROM {table} {alias}"  # noqa: S608 - it is made of constants
        f" WHERE {condition} OFFSET 0) {alias}"
    )


@dataclass(frozen=True, slots=True)
class Notice:
    """What the records of one collection tell.

    `sources` are common table expressions over the parameters (`uris`, for posts `fresh` too, for
    verifications `past`);
    `targets` a query of every notification that should be there, its columns in the order of
    `_TARGET`. `thread` is the uri of the thread whose muters are not told, or null. Of what is
    `past` nobody is told who was not before.
    """

    sources: str
    targets: str


_URIS: Final = "unnest(%(uris)b::text[]) AS i (uri)"
_TARGET: Final = "uri, recipient, author, reason, subject, cid, created_at, record, thread, past"

# A jsonpath would take an object for an array of one.
_MENTIONS: Final = r"""CASE WHEN p.facets IS NULL THEN '{}'::text[] ELSE ARRAY(
        SELECT DISTINCT f.feature ->> 'did'
        FROM jsonb_array_elements(
            CASE WHEN jsonb_typeof(p.facets) = 'array' THEN p.facets END) AS t (facet)
        CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN
            jsonb_typeof(t.facet -> 'features') = 'array' THEN t.facet -> 'features' END
        ) AS f (feature)
        WHERE f.feature ->> '$type' = 'app.bsky.richtext.facet#mention'
            AND jsonb_typeof(f.feature -> 'did') = 'string'
            AND char_length(f.feature ->> 'did') <= 2048
            AND (f.feature ->> 'did') COLLATE "C"
                ~ '^did:[a-z]+:[a-zA-Z0-9._:%%-]*[a-zA-Z0-9._-]$') END"""

# `told` are those who were told of the post as subscribers, or are to be.
_POST_SOURCES: Final = f"""
r AS MATERIALIZED (
    SELECT p.uri, p.cid, p.author_did AS author, p.created_at, p.parent_uri,
        coalesce(p.root_uri, p.uri) AS thread, p.violates_thread_gate AS gated,
        p.violates_embedding_rules AS embeds, k.quoted_uri AS quoted,
        split_part(k.quoted_uri, '/', 3) AS quoted_author, {_MENTIONS} AS mentioned,
        p.commit_seq IS NULL AS past,
        ARRAY(SELECT n.recipient_did FROM notifications n
              WHERE n.engine_record_uri = p.uri AND n.reason = 'subscribed-post')
        || CASE WHEN i.fresh THEN ARRAY(SELECT s.subscriber_did FROM activity_subscriptions s
                                        WHERE s.subject_did = p.author_did) END AS told
    FROM unnest(%(uris)b::text[], %(fresh)b::boolean[]) AS i (uri, fresh)
    {_each("posts", "p", "p.uri = i.uri")}
    {_maybe("quotes", "k", "k.uri = p.uri || '#quote'")}
)"""  # noqa: S608 - it is made of constants


def _of_post(reason: str, suffix: str, recipient: str) -> str:
    return (
        f"SELECT r.uri || '#notification/{suffix}, {recipient}, r.author, '{reason}'::text,"
        " r.uri, r.cid, r.created_at, r.uri, r.thread, r.past"
    )


def _above(parent: str, post: str) -> str:
    condition = f"{parent}.uri = {post}.parent_uri AND NOT {post}.violates_thread_gate"
    return _maybe("posts", parent, condition)


_POST_TARGETS: Final = f"""
{_of_post("mention", "mention/' || d.did", "d.did")}
FROM r CROSS JOIN LATERAL unnest(r.mentioned) AS d (did)
WHERE d.did <> r.author
UNION ALL
{_of_post("quote", "quote'", "r.quoted_author")}
FROM r
WHERE r.quoted IS NOT NULL AND NOT r.embeds AND r.quoted_author <> r.author
    AND r.quoted_author <> ALL (r.mentioned)
    AND (SELECT true FROM posts q WHERE q.uri = r.quoted LIMIT 1)
UNION ALL
{_of_post("subscribed-post", "subscribed/' || d.did", "d.did")}
FROM r CROSS JOIN LATERAL (SELECT DISTINCT s.did FROM unnest(r.told) AS s (did)) d
WHERE d.did <> r.author AND d.did <> ALL (r.mentioned)
    AND d.did IS DISTINCT FROM r.quoted_author
    AND d.did IS DISTINCT FROM split_part(r.parent_uri, '/', 3)
UNION ALL
{_of_post("reply", "reply' || CASE a.place WHEN 1 THEN '' ELSE '/' || a.did END", "a.did")}
FROM r CROSS JOIN LATERAL (
    SELECT DISTINCT ON (w.did) w.did, w.place
    FROM posts p1
    {_above("p2", "p1")}
    {_above("p3", "p2")}
    {_above("p4", "p3")}
    CROSS JOIN LATERAL (VALUES (1, p1.author_did), (2, p2.author_did), (3, p3.author_did),
                               (4, p4.author_did)) w (place, did)
    WHERE p1.uri = r.parent_uri AND w.did IS NOT NULL
    ORDER BY w.did, w.place
) a
WHERE r.parent_uri IS NOT NULL AND NOT r.gated AND a.did <> r.author
    AND a.did <> ALL (r.mentioned) AND a.did IS DISTINCT FROM r.quoted_author
    AND (a.place = 1 OR a.did <> ALL (r.told))
"""  # noqa: S608 - it is made of constants


def _is_indexed() -> str:
    cases = " ".join(
        f"WHEN '{collection}' THEN (SELECT true FROM {table} s WHERE s.uri = r.subject LIMIT 1)"  # noqa: S608 - it is made of constants
        for collection, table in _SUBJECTS.items()
    )
    return (
        f"CASE split_part(r.subject, '/', 4) WHEN '{POST}' THEN r.is_post {cases}"  # noqa: S608
        " ELSE (SELECT true FROM generic_records s WHERE s.uri = r.subject LIMIT 1) END"
    )


def _reaction(kind: str, table: str) -> Notice:
    """Likes and reposts: of their subject, and of the repost by which that was seen."""
    sources = f"""
r AS MATERIALIZED (
    SELECT l.uri, l.user_did AS author, l.post_uri AS subject,
        split_part(l.post_uri, '/', 3) AS owner, l.via ->> 'uri' AS via, l.created_at,
        l.commit_seq IS NULL AS past, p.uri IS NOT NULL AS is_post,
        CASE WHEN split_part(l.post_uri, '/', 4) = '{POST}'
            THEN coalesce(p.root_uri, l.post_uri) END AS thread
    FROM unnest(%(uris)b::text[]) AS i (uri)
    {_each(table, "l", "l.uri = i.uri")}
    {_maybe("posts", "p", "p.uri = l.post_uri")}
)"""  # noqa: S608 - it is made of constants
    targets = f"""
SELECT r.uri || '#notification', r.owner, r.author, '{kind}'::text, r.subject, NULL::text,
    r.created_at, r.uri, r.thread, r.past
FROM r
WHERE r.owner <> r.author AND {_is_indexed()}
UNION ALL
SELECT r.uri || '#notification/via', v.user_did, r.author, '{kind}-via-repost'::text, v.uri,
    NULL::text, r.created_at, r.uri, r.thread, r.past
FROM r {_each("reposts", "v", "v.uri = r.via")}
WHERE r.via IS NOT NULL AND v.user_did <> r.author AND v.user_did <> r.owner
"""  # noqa: S608 - it is made of constants
    return Notice(sources, targets)


def _about_a_user(
    reason: str, source: str, author: str, recipient: str, cid: str, past: str, asked: str = _URIS
) -> Notice:
    """What one account does to another: follows it, vouches for it."""
    targets = f"""
SELECT r.uri || '#notification', {recipient}, {author}, '{reason}'::text, NULL::text, {cid},
    r.created_at, r.uri, NULL::text, {past}
FROM {asked}
{_each(source, "r", "r.uri = i.uri")}
WHERE {recipient} <> {author}
"""  # noqa: S608 - it is made of constants
    return Notice("", targets)


_PROFILE: Final = f"""
SELECT i.uri || '#notification/starterpack', s.creator_did, r.did, 'starterpack-joined'::text,
    s.uri, NULL::text, r.created_at, i.uri, NULL::text, false
FROM unnest(%(uris)b::text[]) AS i (uri)
{_each("users", "r", "r.did = split_part(i.uri, '/', 3)")}
{_each("starter_packs", "s", "s.uri = r.engine_joined_via")}
WHERE s.creator_did <> r.did
"""  # noqa: S608 - it is made of constants

NOTICES: Final[Mapping[str, Notice]] = {
    POST: Notice(_POST_SOURCES, _POST_TARGETS),
    "app.bsky.feed.like": _reaction("like", "likes"),
    REPOST: _reaction("repost", "reposts"),
    "app.bsky.graph.follow": _about_a_user(
        *("follow", "follows", "r.follower_did", "r.following_did", "NULL::text"),
        "r.commit_seq IS NULL",
    ),
    VERIFICATION: _about_a_user(
        *("verified", "verifications", "split_part(r.uri, '/', 3)", "r.subject_did", "r.cid"),
        *("i.past", "unnest(%(uris)b::text[], %(past)b::boolean[]) AS i (uri, past)"),
    ),
    "app.bsky.actor.profile": Notice("", _PROFILE),
}
"""What is told, by the collection of the record."""

_COLUMNS: Final = {
    "recipient_did": "recipient",
    "author_did": "author",
    "reason": "reason",
    "reason_subject": "subject",
    "cid": "cid",
    "created_at": "created_at",
    "engine_record_uri": "record",
}
_UPDATE: Final = (
    ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS)
    # Another recipient has not read it.
    + ", is_read = n.is_read AND n.recipient_did = excluded.recipient_did, indexed_at = now()"
)


def agree_sql(notice: Notice, limits: Mapping[str, int]) -> str:
    """Make notifications agree with the records of one collection.

    Returns rows of what was done (`made`, `removed`, or `too_long` for what the table cannot hold),
    for which reason, and how often. `limits` are the lengths of columns that have one.
    """
    sources = f"{notice.sources}," if notice.sources else ""
    theirs = ", ".join(f"n.{column}" for column in _COLUMNS)
    ours = ", ".join(f"t.{name}" for name in _COLUMNS.values())
    fits = " AND ".join(
        [
            f"octet_length(t.uri) <= {MAX_URI_BYTES}",
            *(
                f"coalesce(char_length(t.{name}) <= {limits[column]}, true)"
                for column, name in {"uri": "uri", **_COLUMNS}.items()
                if column in limits
            ),
        ]
    )
    return f"""
WITH {sources}
t ({_TARGET}) AS MATERIALIZED ({notice.targets}),
w AS MATERIALIZED (
    SELECT t.*, {fits} AS fits,
        n.id IS NOT NULL AND ({theirs}) IS NOT DISTINCT FROM ({ours}) AS same,
        CASE WHEN n.recipient_did = t.recipient THEN true WHEN t.past THEN false
            WHEN t.thread IS NULL THEN true
            ELSE (SELECT true FROM thread_mutes m WHERE m.muter_did = t.recipient
                  AND m.thread_root_uri = t.thread LIMIT 1) IS NULL END AS holds
    FROM t {_maybe("notifications", "n", "n.uri = t.uri")}
),
gone AS (
    DELETE FROM notifications n WHERE n.id = ANY (ARRAY(
        SELECT d.id FROM unnest(%(uris)b::text[]) AS i (uri)
        {_each("notifications", "d", "d.engine_record_uri = i.uri")}
        WHERE d.reason <> 'unverified' AND d.uri NOT IN (SELECT w.uri FROM w WHERE w.holds)))
    RETURNING n.reason
),
put AS (
    INSERT INTO notifications AS n (uri, {", ".join(_COLUMNS)})
    SELECT w.uri, {", ".join(f"w.{name}" for name in _COLUMNS.values())}
    FROM w WHERE w.holds AND w.fits AND NOT w.same
    ON CONFLICT (uri) DO UPDATE SET {_UPDATE}
    RETURNING n.reason, n.xmax = 0 AS made
)
SELECT 'removed', g.reason, count(*) FROM gone g GROUP BY g.reason
UNION ALL SELECT 'made', p.reason, count(*) FROM put p WHERE p.made GROUP BY p.reason
UNION ALL SELECT 'too_long', w.reason, count(*) FROM w WHERE w.holds AND NOT w.fits
GROUP BY w.reason
"""  # noqa: S608 - it is made of constants


UNVERIFIED_SQL: Final = """
WITH put AS (
    INSERT INTO notifications AS n
        (uri, recipient_did, author_did, reason, created_at, engine_record_uri)
    SELECT i.uri || '#notification/unverified', i.recipient, i.author, 'unverified', i.time, i.uri
    FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamp[])
        AS i (uri, recipient, author, time)
    ON CONFLICT (uri) DO UPDATE SET recipient_did = excluded.recipient_did,
        created_at = excluded.created_at, is_read = false, indexed_at = now()
    WHERE excluded.created_at > n.created_at
    RETURNING n.reason, n.xmax = 0 AS made
)
SELECT 'made', p.reason, count(*) FROM put p WHERE p.made GROUP BY p.reason
"""
"""Tell of verifications that were deleted; of two under one key, of the later."""

_REPLIES: Final = _each("posts", "p", "p.parent_uri = a.uri")
AFFECTED_SQL: Final = f"""
WITH above (uri, levels) AS (
    SELECT i.uri, 4 FROM unnest(%(posts)b::text[]) AS i (uri)
    UNION ALL SELECT i.uri, 3 FROM unnest(%(extended)b::text[]) AS i (uri)
),
first AS MATERIALIZED (SELECT p.uri, a.levels FROM above a {_REPLIES}),
second AS MATERIALIZED (SELECT p.uri, a.levels FROM first a {_REPLIES}),
third AS MATERIALIZED (SELECT p.uri, a.levels FROM second a {_REPLIES})
SELECT a.uri FROM first a UNION ALL SELECT a.uri FROM second a UNION ALL SELECT a.uri FROM third a
UNION ALL
SELECT p.uri FROM third a {_REPLIES} WHERE a.levels = 4
UNION ALL
SELECT l.uri FROM unnest(%(subjects)b::text[]) AS i (uri)
{_each("likes", "l", "l.post_uri = i.uri")}
UNION ALL
SELECT l.uri FROM unnest(%(subjects)b::text[]) AS i (uri)
{_each("reposts", "l", "l.post_uri = i.uri")}
UNION ALL
SELECT l.uri FROM unnest(%(reposts)b::text[]) AS i (uri)
{_each("likes", "l", "l.via ->> 'uri' = i.uri AND l.via IS NOT NULL")}
UNION ALL
SELECT l.uri FROM unnest(%(reposts)b::text[]) AS i (uri)
{_each("reposts", "l", "l.via ->> 'uri' = i.uri AND l.via IS NOT NULL")}
UNION ALL
SELECT k.post_uri FROM unnest(%(posts)b::text[]) AS i (uri)
{_each("quotes", "k", "k.quoted_uri = i.uri")}
UNION ALL
SELECT 'at://' || u.did || '/app.bsky.actor.profile/self'
FROM unnest(%(packs)b::text[]) AS i (uri)
{_each("users", "u", "u.engine_joined_via = i.uri")}
"""  # noqa: S608 - it is made of constants
"""The records that may tell other things since these went (`subjects`; `posts`, `reposts` and
`packs` are those among them), or since the posts `extended` have other ancestors or flags.
"""


def purge_sql(limit: int) -> str:
    """Remove what records of these accounts tell; at most `limit` notifications.

    Returns the reason of each.
    """
    return f"""
DELETE FROM notifications n WHERE n.id = ANY (ARRAY(
    SELECT d.id FROM unnest(%b::text[]) AS i (did)
    {_each("notifications", "d", author_range("d.engine_record_uri", "i.did"))}
    LIMIT {limit}))
RETURNING n.reason
"""  # noqa: S608 - it is made of constants


LIMITS_SQL: Final = (
    "SELECT a.attname, a.atttypmod - 4 FROM pg_attribute a"
    " WHERE a.attrelid = 'notifications'::regclass AND a.atttypid = 'varchar'::regtype"
    " AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypmod > 4"
)
"""The columns of notifications whose length another program has limited, and to what."""
