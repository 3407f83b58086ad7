"""What must hold of notifications: each follows from its record and from what that speaks of.

A notification of the engine names its record (`engine_record_uri`); those without one were made by
somebody else, and are not looked at. What a record notifies of is one query over the record's row
`r` for each type: the end of the notification's uri, its recipient, reason and subject.

That a notification is *missing* cannot be seen in the tables: its recipient may have muted the
thread when it was to be made and unmuted it since, its subject may have gone and come back (which
notifies nobody again), its record may be of the past, its wait may have run out, a reader of the
database may have cleared it away. So verify says of each notification that is there whether it
should be, and of none that it should be there; and repair notifies nobody, but for operations whose
wait it ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, LiteralString

from actors.store.verify_checks import Check
from actors.store.verify_waits import indexed


@dataclass(frozen=True, slots=True)
class Notice:
    """What the records of one collection notify of.

    Attributes:
        collection: theirs.
        record: the join of the record's row `r` to its uri `{uri}`.
        author, cid, created: what of the record goes into each of its notifications.
        query: suffix, recipient, reason and subject of each that should be there.
        also: the same of those that may be there, as seen from the notification `d`.
        forms: what the uris of its notifications look like; others are somebody else's, and are
            only looked at for whether their record is there.
        kept: which rows of `notifications` (`d`) stay whatever the record is.
        thread: the thread whose mute keeps the record from notifying, null for none.
        past: whether the record is of the past (see `news`), so that nobody is told of it.
    """

    collection: LiteralString
    record: LiteralString
    author: LiteralString
    cid: LiteralString
    created: LiteralString
    query: LiteralString
    forms: LiteralString
    also: LiteralString = ""
    kept: LiteralString = "false"
    thread: LiteralString = "NULL::text"
    past: LiteralString = "false"


def _mentions(did: LiteralString) -> LiteralString:
    """Whether the post `r` mentions somebody."""
    return (
        "coalesce(r.facets @> jsonb_build_array(jsonb_build_object('features', jsonb_build_array("
        f"jsonb_build_object('$type', 'app.bsky.richtext.facet#mention', 'did', {did})))), false)"
    )


_QUOTED: Final[LiteralString] = (
    "(SELECT k.quoted_uri FROM quotes k WHERE k.uri = r.uri || '#quote' LIMIT 1)"
)
_POST: Final[LiteralString] = f"""
    SELECT '#notification/mention/' || m.did, m.did, 'mention', r.uri
    FROM (SELECT DISTINCT f.feature ->> 'did' AS did
          FROM jsonb_array_elements(
              CASE WHEN jsonb_typeof(r.facets) = 'array' THEN r.facets END) AS t (facet)
          CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN
              jsonb_typeof(t.facet -> 'features') = 'array' THEN t.facet -> 'features' END
          ) AS f (feature)
          WHERE f.feature ->> '$type' = 'app.bsky.richtext.facet#mention') m
    WHERE m.did <> r.author_did
    UNION ALL
    SELECT '#notification/quote', q.author_did, 'quote', r.uri
    FROM quotes k JOIN posts q ON q.uri = k.quoted_uri
    WHERE k.uri = r.uri || '#quote' AND NOT r.violates_embedding_rules
      AND q.author_did <> r.author_did AND NOT {_mentions("q.author_did")}
    UNION ALL
    SELECT a.suffix, a.did, 'reply', r.uri
    FROM (
        SELECT DISTINCT ON (w.did) w.did, w.place,
            '#notification/reply' || CASE w.place WHEN 1 THEN '' ELSE '/' || w.did END AS suffix
        FROM posts p1
        LEFT JOIN posts p2 ON p2.uri = p1.parent_uri AND NOT p1.violates_thread_gate
        LEFT JOIN posts p3 ON p3.uri = p2.parent_uri AND NOT p2.violates_thread_gate
        LEFT JOIN posts p4 ON p4.uri = p3.parent_uri AND NOT p3.violates_thread_gate
        CROSS JOIN LATERAL (VALUES (1, p1.author_did), (2, p2.author_did), (3, p3.author_did),
                                   (4, p4.author_did)) w (place, did)
        WHERE p1.uri = r.parent_uri AND NOT r.violates_thread_gate AND w.did IS NOT NULL
        ORDER BY w.did, w.place
    ) a
    WHERE a.did <> r.author_did AND NOT {_mentions("a.did")}
      AND a.did IS DISTINCT FROM split_part({_QUOTED}, '/', 3)
      AND (a.place = 1 OR NOT coalesce((
          SELECT true FROM notifications n
          WHERE n.uri = r.uri || '#notification/subscribed/' || a.did LIMIT 1), false))
"""


def _reaction(kind: LiteralString) -> LiteralString:
    return f"""
    SELECT '#notification', split_part(r.post_uri, '/', 3), '{kind}', r.post_uri
    WHERE split_part(r.post_uri, '/', 3) <> r.user_did AND {indexed("r.post_uri")}
    UNION ALL
    SELECT '#notification/via', v.user_did, '{kind}-via-repost', v.uri
    FROM reposts v
    WHERE v.uri = r.via ->> 'uri' AND v.user_did <> r.user_did
      AND v.user_did <> split_part(r.post_uri, '/', 3)
"""


_THREAD: Final[LiteralString] = """CASE split_part(r.post_uri, '/', 4)
    WHEN 'app.bsky.feed.post' THEN coalesce(
        (SELECT p.root_uri FROM posts p WHERE p.uri = r.post_uri LIMIT 1), r.post_uri) END"""

NOTICES: Final[dict[str, Notice]] = {
    "posts": Notice(
        "app.bsky.feed.post",
        "posts r ON r.uri = {uri}",
        "r.author_did",
        "r.cid",
        "r.created_at",
        _POST,
        "#notification/(mention/.*|quote|reply|reply/.*|subscribed/.*)",
        also=f"""
    UNION ALL
    SELECT '#notification/subscribed/' || d.recipient_did, d.recipient_did, 'subscribed-post', r.uri
    WHERE d.reason = 'subscribed-post' AND d.recipient_did <> r.author_did
      AND NOT {_mentions("d.recipient_did")}
      AND d.recipient_did IS DISTINCT FROM split_part({_QUOTED}, '/', 3)
      AND d.recipient_did IS DISTINCT FROM split_part(r.parent_uri, '/', 3)
""",
        thread="coalesce(r.root_uri, r.uri)",
        past="r.commit_seq IS NULL",
    ),
    "likes": Notice(
        "app.bsky.feed.like",
        "likes r ON r.uri = {uri}",
        "r.user_did",
        "NULL::text",
        "r.created_at",
        _reaction("like"),
        "#notification(/via)?",
        thread=_THREAD,
        past="r.commit_seq IS NULL",
    ),
    "reposts": Notice(
        "app.bsky.feed.repost",
        "reposts r ON r.uri = {uri}",
        "r.user_did",
        "NULL::text",
        "r.created_at",
        _reaction("repost"),
        "#notification(/via)?",
        thread=_THREAD,
        past="r.commit_seq IS NULL",
    ),
    "follows": Notice(
        "app.bsky.graph.follow",
        "follows r ON r.uri = {uri}",
        "r.follower_did",
        "NULL::text",
        "r.created_at",
        """
    SELECT '#notification', r.following_did, 'follow', NULL::text
    WHERE r.following_did <> r.follower_did
""",
        "#notification",
    ),
    "verifications": Notice(
        "app.bsky.graph.verification",
        "verifications r ON r.uri = {uri}",
        "split_part(r.uri, '/', 3)",
        "r.cid",
        "r.created_at",
        """
    SELECT '#notification', r.subject_did, 'verified', NULL::text
    WHERE r.subject_did <> split_part(r.uri, '/', 3)
""",
        "#notification(/unverified)?",
        # Made by a deletion, whose time and subject stand nowhere else.
        kept="(d.reason = 'unverified' AND d.uri = d.engine_record_uri ||"
        " '#notification/unverified' AND d.author_did = split_part(d.uri, '/', 3)"
        " AND d.reason_subject IS NULL)",
    ),
    "users": Notice(
        "app.bsky.actor.profile",
        "users r ON r.did = split_part({uri}, '/', 3)"
        " AND {uri} = 'at://' || r.did || '/app.bsky.actor.profile/self'",
        "r.did",
        "NULL::text",
        "r.created_at",
        """
    SELECT '#notification/starterpack', s.creator_did, 'starterpack-joined', s.uri
    FROM starter_packs s WHERE s.uri = r.engine_joined_via AND s.creator_did <> r.did
""",
        "#notification/starterpack",
        # Of profiles older than the engine it is not known which version came first.
        also="""
    UNION ALL
    SELECT '#notification/starterpack', s.creator_did, 'starterpack-joined', s.uri
    FROM starter_packs s WHERE r.engine_joined_via IS NULL AND s.creator_did <> r.did
      AND s.uri = r.profile_record #>> ARRAY['joinedViaStarterPack', 'uri']
""",
    ),
}
# Every notification of a collection, and what should be there in its place (nulls for nothing).
COMPARED: Final[LiteralString] = """
    notifications d
    LEFT JOIN {record}
    LEFT JOIN LATERAL (
        {query}{also}
    ) e (suffix, recipient, reason, subject) ON d.uri = d.engine_record_uri || e.suffix
"""
_NOTIFICATIONS: Final[LiteralString] = """
    SELECT d.engine_record_uri, d.uri,
           concat_ws(' ', d.reason, 'to', d.recipient_did, 'from', d.author_did, 'of',
                     coalesce(d.reason_subject, 'nothing'), 'at', d.created_at, d.cid),
           CASE WHEN e.suffix IS NULL THEN 'nothing' ELSE
                concat_ws(' ', e.reason, 'to', e.recipient, 'from', {author}, 'of',
                          coalesce(e.subject, 'nothing'), 'at', {created}, {cid}) END
    FROM {compared}
    WHERE {slice} AND split_part(d.engine_record_uri, '/', 4) = {collection} AND NOT {kept}
      AND ({author} IS NULL OR d.uri ~ ('^[^#]*' || {forms} || '$'))
      AND (d.recipient_did, d.reason, d.reason_subject, d.author_did, d.cid, d.created_at)
          IS DISTINCT FROM (e.recipient, e.reason, e.subject, {author}, {cid}, {created})
"""


def compared(notice: Notice) -> LiteralString:
    """Return the FROM of notifications `d`, their records `r`, and what should be there `e`."""
    return (
        COMPARED.replace("{record}", notice.record.replace("{uri}", "d.engine_record_uri"))
        .replace("{query}", notice.query)
        .replace("{also}", notice.also)
    )


def _notifications() -> Iterator[Check]:
    for table, notice in NOTICES.items():
        yield Check(
            f"notifications of {table}",
            "notifications",
            "engine_record_uri",
            _NOTIFICATIONS,
            "its notification {detail} is {found}, but what it should be is {expected}",
            parts={
                "author": notice.author,
                "cid": notice.cid,
                "created": notice.created,
                "compared": compared(notice),
                "collection": f"'{notice.collection}'",
                "forms": f"'{notice.forms}'",
                "kept": notice.kept,
            },
            mend="notifications",
            detail="uri",
            settles=True,
        )
    collections = ", ".join(f"'{notice.collection}'" for notice in NOTICES.values())
    yield Check(
        "notifications of what notifies nobody",
        "notifications",
        "engine_record_uri",
        """
        SELECT d.engine_record_uri, d.uri, d.reason, 'nothing' FROM notifications d
        WHERE {slice} AND split_part(d.engine_record_uri, '/', 4) NOT IN ({collections})
        """,
        "there is a notification {detail} ({found}), but such records notify nobody",
        parts={"collections": collections},
        mend="notifications",
        detail="uri",
    )


CHECKS_OF_NOTIFICATIONS: Final[tuple[Check, ...]] = tuple(_notifications())
