"""What must hold of judgements and of waiting operations.

As in `verify_checks`, each rule is a query for what breaks it. Look-ups within an expression are
scalar subqueries with a limit, which are never turned into hashes of whole tables.

The rules of a thread gate about follows and lists hold at the moment of the judgement, so replies
in threads with such a gate are left out of that check. An entry that waits is no proof that its
subject is missing: one that is there for a few minutes, and no longer, is the registry's business.
"""

from collections.abc import Iterator
from typing import Final, LiteralString

from actors.store.judgement import EMBEDS, GATED, INVALID
from actors.store.verify_checks import Check

_GATE: Final[LiteralString] = "app.bsky.feed.threadgate#"
_STEADY: Final[LiteralString] = f"""coalesce((
    SELECT NOT (g.allow @> '[{{"$type": "{_GATE}followingRule"}}]'
        OR g.allow @> '[{{"$type": "{_GATE}followerRule"}}]'
        OR g.allow @> '[{{"$type": "{_GATE}listRule"}}]')
    FROM thread_gates g WHERE g.post_uri = d.root_uri LIMIT 1), true)"""
_FLAG: Final[LiteralString] = """
    SELECT d.uri, '', d.{flag}::text, (NOT d.{flag})::text
    FROM posts d CROSS JOIN LATERAL (SELECT d.*) r
    WHERE {slice} AND (d.{flag} OR {concerned}) AND d.{flag} <> {judged} AND {steady}
"""


def _flags() -> Iterator[Check]:
    for flag, concerned, judged, steady, why in (
        ("engine_invalid_reply", "d.parent_uri IS NOT NULL", INVALID, "true", "parent and root"),
        ("violates_thread_gate", "d.parent_uri IS NOT NULL", GATED, _STEADY, "its root's gate"),
        ("violates_embedding_rules", "d.embed IS NOT NULL", EMBEDS, "true", "the quoted's gate"),
    ):
        yield Check(
            f"posts.{flag}",
            "posts",
            "uri",
            _FLAG,
            f"{flag} is {{found}}, but by {why} it is {{expected}}",
            {"flag": flag},
            {"concerned": concerned, "judged": judged, "steady": steady},
            mend="flags",
            settles=True,
        )


_TABLES: Final = (
    ("app.bsky.feed.post", "posts"),
    ("app.bsky.feed.generator", "feed_generators"),
    ("app.bsky.labeler.service", "labeler_services"),
    ("app.bsky.graph.list", "lists"),
    ("app.bsky.graph.starterpack", "starter_packs"),
    ("app.bsky.feed.repost", "reposts"),
)


def indexed(uri: LiteralString) -> LiteralString:
    """Return the expression that tells whether the record of a uri is indexed as a subject."""
    cases: LiteralString = "".join(
        f" WHEN '{collection}' THEN (SELECT true FROM {table} s WHERE s.uri = {uri} LIMIT 1)"
        for collection, table in _TABLES
    )
    return (
        f"coalesce(CASE split_part({uri}, '/', 4){cases}"
        f" ELSE (SELECT true FROM generic_records s WHERE s.uri = {uri} LIMIT 1) END, false)"
    )


# Whether the record of an entry is indexed, and speaks of what the entry awaits.
WAITS: Final[LiteralString] = """coalesce(CASE d.kind
    WHEN 'like' THEN (SELECT r.post_uri = d.awaited FROM likes r WHERE r.uri = d.uri LIMIT 1)
    WHEN 'like-via'
        THEN (SELECT r.via ->> 'uri' = d.awaited FROM likes r WHERE r.uri = d.uri LIMIT 1)
    WHEN 'repost' THEN (SELECT r.post_uri = d.awaited FROM reposts r WHERE r.uri = d.uri LIMIT 1)
    WHEN 'repost-via'
        THEN (SELECT r.via ->> 'uri' = d.awaited FROM reposts r WHERE r.uri = d.uri LIMIT 1)
    WHEN 'reply' THEN (SELECT r.parent_uri = d.awaited OR r.root_uri = d.awaited
                       FROM posts r WHERE r.uri = d.uri LIMIT 1)
    WHEN 'quote' THEN (SELECT r.quoted_uri = d.awaited FROM quotes r
                       WHERE r.uri = d.uri || '#quote' LIMIT 1)
    WHEN 'joined' THEN (SELECT r.engine_joined_via = d.awaited FROM users r
                        WHERE r.did = split_part(d.uri, '/', 3)
                        AND d.uri = 'at://' || r.did || '/app.bsky.actor.profile/self' LIMIT 1)
    END, false)"""


def _pending() -> Iterator[Check]:
    yield Check(
        "engine_pending of its record",
        "engine_pending",
        "uri",
        """
        SELECT d.uri, d.awaited, d.kind, 'nothing' FROM engine_pending d
        WHERE {slice} AND NOT {waits}
        """,
        "it waits for {detail} as a {found}, but no such record is indexed",
        parts={"waits": WAITS},
        mend="pending",
        detail="awaited",
    )
    yield Check(
        "engine_pending.author",
        "engine_pending",
        "uri",
        """
        SELECT d.uri, d.awaited, d.author, split_part(d.uri, '/', 3) FROM engine_pending d
        WHERE {slice} AND d.author <> split_part(d.uri, '/', 3)
        """,
        "its entry that waits for {detail} has the author {found}, not {expected}",
        mend="pending",
        detail="awaited",
    )
    yield Check(
        "engine_pending for what is there",
        "engine_pending",
        "uri",
        """
        SELECT d.uri, d.awaited, 'waits since ' || d.created_at, 'no entry' FROM engine_pending d
        WHERE {slice} AND d.created_at < now() - interval '5 minutes' AND {there}
        """,
        "it {found} for {detail}, which is indexed",
        parts={"there": indexed("d.awaited")},
        mend="pending",
        detail="awaited",
        settles=True,
    )


CHECKS_OF_FLAGS: Final[tuple[Check, ...]] = tuple(_flags())
CHECKS_OF_PENDING: Final[tuple[Check, ...]] = tuple(_pending())
