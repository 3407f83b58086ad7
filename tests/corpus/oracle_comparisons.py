"""What is compared: for each table of the other index a query over ours with its names of columns.

And what is not: tables and columns, each with its reason.
"""

from dataclasses import dataclass, field

# Columns that no comparison has.
NOWHERE = {
    "indexedAt": "the time by the other index's clock",
    "sortAt": "made from createdAt and the other index's clock; feed_item has one that is compared",
    "sortedAt": "as sortAt",
}
NO_CID = {"cid": "our table has no such column"}

FLAGS = (
    "invalidReplyRoot",
    "violatesThreadGate",
    "violatesEmbeddingRules",
    "hasThreadGate",
    "hasPostGate",
)

# Where the other index has the records of a collection, but for those it has no table for.
TYPE_TABLES = {
    "app.bsky.feed.post": "post",
    "app.bsky.feed.like": "like",
    "app.bsky.feed.repost": "repost",
    "app.bsky.feed.generator": "feed_generator",
    "app.bsky.feed.threadgate": "thread_gate",
    "app.bsky.feed.postgate": "post_gate",
    "app.bsky.graph.follow": "follow",
    "app.bsky.graph.block": "actor_block",
    "app.bsky.graph.list": "list",
    "app.bsky.graph.listitem": "list_item",
    "app.bsky.graph.listblock": "list_block",
    "app.bsky.graph.starterpack": "starter_pack",
    "app.bsky.graph.verification": "verification",
    "app.bsky.labeler.service": "labeler",
    "app.bsky.actor.profile": "profile",
}

# Tables of the other index that are not compared.
NOT_COMPARED = {
    "bookmark": "reached it by another way; copied from there into ours",
    "mute": "reached it by another way; copied from there into ours",
    "list_mute": "reached it by another way; copied from there into ours",
    "thread_mute": "reached it by another way; copied from there into ours",
    "activity_subscription": "reached it by another way; copied from there into ours",
    "op_thread_reply": "a list for its own queries, which no table of ours has",
    "ozone_label": "the labeler's own table: labels come by another stream",
    "plc_operations": "the directory's own table",
}


@dataclass(frozen=True)
class Comparison:
    """A query of ours for one table of the other index; `key` names its rows.

    `left_out` are columns of the other index that are not compared, each with its reason; `flags`
    its columns that say f for false, `documents` those that hold JSON. In a table that `counts`, a
    row of zeros and no row are one.
    """

    query: str
    key: tuple[str, ...] = ("uri",)
    left_out: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    counts: bool = False


_REACTION = """SELECT uri, user_did AS creator, post_uri AS subject,
    subject_cid AS "subjectCid", created_at AS "createdAt", via ->> 'uri' AS via,
    via ->> 'cid' AS "viaCid" FROM """
# A dash stands where our table has no column for it.
_ELSEWHERE = (
    ("likes", "uri", "'-'"),
    ("reposts", "uri", "'-'"),
    ("follows", "uri", "'-'"),
    ("blocks", "uri", "'-'"),
    ("list_blocks", "uri", "'-'"),
    ("posts", "uri", "cid"),
    ("lists", "uri", "cid"),
    ("list_items", "uri", "cid"),
    ("feed_generators", "uri", "cid"),
    ("starter_packs", "uri", "cid"),
    ("labeler_services", "uri", "cid"),
    ("verifications", "uri", "cid"),
    ("engine_duplicates", "uri", "cid"),
    ("thread_gates", "replace(post_uri, '.post/', '.threadgate/')", "'-'"),
    ("post_gates", "replace(post_uri, '.post/', '.postgate/')", "'-'"),
)
_RECORDS = """SELECT uri, cid, author_did AS did, record AS json FROM generic_records
    UNION ALL SELECT 'at://' || did || '/app.bsky.actor.profile/self', '-', did, profile_record
    FROM users WHERE profile_record IS NOT NULL""" + "".join(
    f" UNION ALL SELECT u, cid, split_part(u, '/', 3), '\"-\"'"
    f" FROM (SELECT {uri} AS u, {cid} AS cid FROM {table}) t"
    for table, uri, cid in _ELSEWHERE
)
_WITH_CID = "('mention', 'quote', 'reply', 'subscribed-post', 'verified')"

COMPARISONS: dict[str, Comparison] = {
    "post": Comparison(
        """SELECT uri, cid, author_did AS creator, text, root_uri AS "replyRoot",
            root_cid AS "replyRootCid", parent_uri AS "replyParent",
            parent_cid AS "replyParentCid", created_at AS "createdAt", langs, tags,
            engine_invalid_reply AS "invalidReplyRoot",
            violates_thread_gate AS "violatesThreadGate",
            violates_embedding_rules AS "violatesEmbeddingRules",
            has_thread_gate AS "hasThreadGate", has_post_gate AS "hasPostGate" FROM posts""",
        flags=FLAGS,
        documents=("langs", "tags"),
    ),
    "like": Comparison(_REACTION + "likes", left_out=NO_CID),
    "repost": Comparison(_REACTION + "reposts", left_out=NO_CID),
    "follow": Comparison(
        """SELECT uri, follower_did AS creator, following_did AS "subjectDid",
            created_at AS "createdAt" FROM follows""",
        left_out=NO_CID,
    ),
    "actor_block": Comparison(
        """SELECT uri, blocker_did AS creator, blocked_did AS "subjectDid",
            created_at AS "createdAt" FROM blocks""",
        left_out=NO_CID,
    ),
    "list": Comparison(
        """SELECT uri, cid, creator_did AS creator, name, purpose, description,
            avatar_url AS "avatarCid", created_at AS "createdAt" FROM lists""",
        left_out={"descriptionFacets": "our table has no such column"},
    ),
    "list_item": Comparison(
        """SELECT uri, cid, split_part(uri, '/', 3) AS creator, subject_did AS "subjectDid",
            list_uri AS "listUri", created_at AS "createdAt" FROM list_items"""
    ),
    "list_block": Comparison(
        """SELECT uri, blocker_did AS creator, list_uri AS "subjectUri",
            created_at AS "createdAt" FROM list_blocks""",
        left_out=NO_CID,
    ),
    "feed_generator": Comparison(
        """SELECT uri, cid, creator_did AS creator, did AS "feedDid",
            display_name AS "displayName", description, avatar_url AS "avatarCid",
            created_at AS "createdAt" FROM feed_generators""",
        left_out={"descriptionFacets": "our table has no such column"},
    ),
    "starter_pack": Comparison(
        """SELECT uri, cid, creator_did AS creator, name, created_at AS "createdAt"
            FROM starter_packs"""
    ),
    "labeler": Comparison(
        """SELECT uri, cid, creator_did AS creator, created_at AS "createdAt"
            FROM labeler_services"""
    ),
    "verification": Comparison(
        """SELECT uri, cid, split_part(uri, '/', 5) AS rkey, issuer_did AS creator,
            subject_did AS subject, handle, created_at AS "createdAt" FROM verifications""",
        left_out={"displayName": "our table has no such column"},
    ),
    "post_gate": Comparison(
        """SELECT replace(post_uri, '.post/', '.postgate/') AS uri,
            split_part(post_uri, '/', 3) AS creator, post_uri AS "postUri",
            created_at AS "createdAt" FROM post_gates""",
        left_out=NO_CID,
    ),
    "thread_gate": Comparison(
        """SELECT replace(post_uri, '.post/', '.threadgate/') AS uri, owner_did AS creator,
            post_uri AS "postUri", created_at AS "createdAt" FROM thread_gates""",
        left_out=NO_CID,
    ),
    "quote": Comparison(
        """SELECT post_uri AS uri, cid, quoted_uri AS subject, quoted_cid AS "subjectCid",
            created_at AS "createdAt" FROM quotes"""
    ),
    "post_embed_record": Comparison(
        """SELECT uri AS "postUri",
            coalesce(embed #>> '{record,record,uri}', embed #>> '{record,uri}') AS "embedUri",
            coalesce(embed #>> '{record,record,cid}', embed #>> '{record,cid}') AS "embedCid"
            FROM posts WHERE embed ->> '$type' LIKE 'app.bsky.embed.record%'""",
        key=("postUri",),
    ),
    "feed_item": Comparison(
        """SELECT uri, cid, type, post_uri AS "postUri", originator_did AS "originatorDid",
            sort_at AS "sortAt" FROM feed_items"""
    ),
    "profile": Comparison(
        """SELECT 'at://' || did || '/app.bsky.actor.profile/self' AS uri, did AS creator,
            display_name AS "displayName", description, avatar_url AS "avatarCid",
            banner_url AS "bannerCid",
            profile_record #>> '{joinedViaStarterPack,uri}' AS "joinedViaStarterPackUri",
            nullif(created_at, 'epoch') AS "createdAt", pinned_post ->> 'uri' AS "pinnedPost",
            pinned_post ->> 'cid' AS "pinnedPostCid"
            FROM users WHERE profile_record IS NOT NULL""",
        left_out=NO_CID,
    ),
    "post_agg": Comparison(
        """SELECT post_uri AS uri, like_count AS "likeCount", reply_count AS "replyCount",
            repost_count AS "repostCount", quote_count AS "quoteCount",
            bookmark_count AS "bookmarkCount" FROM post_aggregations
            UNION ALL SELECT uri, like_count, 0, 0, 0, 0 FROM engine_subject_aggregations""",
        counts=True,
    ),
    "profile_agg": Comparison(
        """SELECT did, followers_count AS "followersCount", follows_count AS "followsCount",
            posts_count AS "postsCount" FROM engine_user_aggregations""",
        key=("did",),
        counts=True,
    ),
    "duplicate_record": Comparison(
        """SELECT d.uri, d.cid, h.uri AS "duplicateOf" FROM engine_duplicates d LEFT JOIN (
            SELECT uri, 'likes' AS t, user_did || ' ' || post_uri AS thing FROM likes
            UNION ALL SELECT uri, 'reposts', user_did || ' ' || post_uri FROM reposts
            UNION ALL SELECT uri, 'follows', follower_did || ' ' || following_did FROM follows
            UNION ALL SELECT uri, 'blocks', blocker_did || ' ' || blocked_did FROM blocks
            ) h ON h.t = d.table_name AND h.thing = d.thing"""
    ),
    "record": Comparison(
        _RECORDS,
        left_out={
            "takedownRef": "takedowns reached it by another way",
            "tags": "set by its moderators",
        },
        documents=("json",),
    ),
    "actor": Comparison(
        """SELECT did, engine_account_status AS "upstreamStatus" FROM users""",
        key=("did",),
        left_out={
            "handle": "handles are resolved, and not taken from the events",
            "takedownRef": "takedowns reached it by another way",
            "trustedVerifier": "set by its operator",
            "ageAssuranceStatus": "set by its operator",
            "ageAssuranceLastInitiatedAt": "set by its operator",
            "ageAssuranceAccess": "set by its operator",
            "ageAssuranceCountryCode": "set by its operator",
            "ageAssuranceRegionCode": "set by its operator",
        },
    ),
    "actor_sync": Comparison(
        """SELECT did, rev AS "repoRev" FROM engine_repos""",
        key=("did",),
        left_out={"commitCid": "we keep the root of the tree instead"},
    ),
    "notification": Comparison(
        f"""SELECT recipient_did AS did, engine_record_uri AS "recordUri",
            CASE WHEN reason IN {_WITH_CID} THEN cid ELSE coalesce(cid, '-') END AS "recordCid",
            author_did AS author, reason, reason_subject AS "reasonSubject",
            created_at AS "sortAt" FROM notifications""",
        key=("did", "recordUri", "reason"),
        left_out={"id": "a serial number"},
    ),
}
