"""Damage to the small network's index: what each check of `verify` must find.

What the reference indexer does not make of that network (notifications, waits, accounts) is in
`FURNISHED`.
"""

from actors.store.verify import CHECKS
from tests.small_network import (
    ABSENT,
    ANN,
    BEN,
    CAT,
    FEED,
    LABELER,
    LIST,
    MEDIA_QUOTE,
    POST,
    QUOTE,
    REPLY,
)


def _delete(table: str, where: str) -> tuple[str, ...]:
    return (f"DELETE FROM {table} WHERE {where}",)


def _insert_duplicate(uri: str, thing: str, table: str) -> tuple[str, ...]:
    values = f"('{uri}', '{thing}', '{table}', '{{}}')"
    return (f"INSERT INTO engine_duplicates (uri, thing, table_name, body) VALUES {values}",)


LIKE = f"at://{BEN}/app.bsky.feed.like/1"
LIKE_VIA = f"at://{CAT}/app.bsky.feed.like/3"
REPOST = f"at://{BEN}/app.bsky.feed.repost/1"
FOLLOW = f"at://{ANN}/app.bsky.graph.follow/1"
VERIFICATION = f"at://{CAT}/app.bsky.graph.verification/1"
PACK = f"at://{ANN}/app.bsky.graph.starterpack/1"
PROFILE = f"at://{BEN}/app.bsky.actor.profile/self"
WAITING = f"at://{CAT}/app.bsky.feed.like/2"


def _notify(
    record: str,
    ending: str,
    recipient: str,
    reason: str,
    subject: str | None,
    source: str,
    key: str = "uri",
) -> str:
    """A notification as its record `r` makes it: the row of `source` with that key."""
    author, cid = {
        "posts": ("r.author_did", "r.cid"),
        "verifications": ("r.issuer_did", "r.cid"),
        "follows": ("r.follower_did", "NULL"),
        "users": ("r.did", "NULL"),
    }.get(source, ("r.user_did", "NULL"))
    about = "NULL" if subject is None else f"'{subject}'"
    row = BEN if source == "users" else record
    return (
        "INSERT INTO notifications (uri, recipient_did, author_did, reason, reason_subject, cid,"
        " created_at, engine_record_uri)"
        f" SELECT '{record}#notification{ending}', '{recipient}', {author}, '{reason}', {about},"
        f" {cid}, r.created_at, '{record}' FROM {source} r WHERE r.{key} = '{row}'"
        " ON CONFLICT (uri) DO NOTHING"
    )


# More of the small network, as the engine makes it.
FURNISHED: tuple[str, ...] = (
    # Ben mentions Cat in his reply to Ann, whose post Cat quotes; Dan's followers want to know.
    (
        'UPDATE posts SET facets = \'[{"features": [{"$type": "app.bsky.richtext.facet#mention",'
        f' "did": "{CAT}"}}]}}]\' WHERE uri = \'{REPLY}\''
    ),
    (
        "INSERT INTO likes (uri, user_did, post_uri, created_at, via)"
        f" VALUES ('{LIKE_VIA}', '{CAT}', '{POST}', '2026-01-02',"
        f" jsonb_build_object('uri', '{REPOST}'))"
    ),
    f"UPDATE post_aggregations SET like_count = like_count + 1 WHERE post_uri = '{POST}'",
    (
        f"UPDATE post_viewer_states SET like_uri = '{LIKE_VIA}' WHERE post_uri = '{POST}'"
        f" AND viewer_did = '{CAT}'"
    ),
    f"UPDATE users SET engine_joined_via = '{PACK}' WHERE did = '{BEN}'",
    _notify(REPLY, f"/mention/{CAT}", CAT, "mention", REPLY, "posts"),
    _notify(REPLY, "/reply", ANN, "reply", REPLY, "posts"),
    _notify(REPLY, "/subscribed/did:plc:dan", "did:plc:dan", "subscribed-post", REPLY, "posts"),
    _notify(QUOTE, "/quote", ANN, "quote", QUOTE, "posts"),
    _notify(LIKE, "", ANN, "like", POST, "likes"),
    _notify(LIKE_VIA, "", ANN, "like", POST, "likes"),
    _notify(LIKE_VIA, "/via", BEN, "like-via-repost", REPOST, "likes"),
    _notify(REPOST, "", ANN, "repost", POST, "reposts"),
    _notify(FOLLOW, "", BEN, "follow", None, "follows"),
    _notify(VERIFICATION, "", ANN, "verified", None, "verifications"),
    _notify(PROFILE, "/starterpack", ANN, "starterpack-joined", PACK, "users", "did"),
    (
        "INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at,"
        f" engine_record_uri) VALUES ('{VERIFICATION}0#notification/unverified', '{ANN}', '{CAT}',"
        f" 'unverified', '2026-01-02', '{VERIFICATION}0')"
    ),
    # Another program's, and none of our business.
    (
        "INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at)"
        f" VALUES ('theirs', '{ANN}', '{CAT}', 'like', '2026-01-02')"
    ),
    (
        "INSERT INTO engine_pending (uri, awaited, author, kind, created_at)"
        f" VALUES ('{WAITING}', '{ABSENT}', '{CAT}', 'like', '2026-01-02')"
        " ON CONFLICT (uri, awaited) DO NOTHING"
    ),
    (f"INSERT INTO engine_accounts (did) VALUES ('{ANN}'), ('{CAT}') ON CONFLICT (did) DO NOTHING"),
    (
        "INSERT INTO engine_accounts (did, active, status)"
        " VALUES ('did:plc:off', false, 'suspended'),"
        " ('did:plc:gone', false, 'deleted'), ('did:plc:out', false, NULL)"
    ),
    (
        "INSERT INTO users (did, handle, created_at, engine_account_status) VALUES"
        " ('did:plc:off', 'handle.invalid', 'epoch', 'suspended'),"
        " ('did:plc:gone', 'handle.invalid', 'epoch', 'deleted'),"
        " ('did:plc:out', 'handle.invalid', 'epoch', 'inactive')"
    ),
    (
        "INSERT INTO engine_takedowns (subject) VALUES ('did:plc:refused'),"
        " ('at://did:plc:ann/app.bsky.feed.post/refused')"
    ),
)


def _no_user(did: str) -> tuple[str, ...]:
    return (f"DELETE FROM users WHERE did = '{did}'",)


_COUNT_KEYS = {
    "post_aggregations": ("post_uri", POST),
    "engine_subject_aggregations": ("uri", FEED),
    "engine_user_aggregations": ("did", ANN),
    "feed_generators": ("uri", FEED),
    "labeler_services": ("uri", LABELER),
}
_INDEXED = {
    # Table: uri of its row, and its things as engine_duplicates writes them.
    "likes": (f"at://{BEN}/app.bsky.feed.like/1", f"{BEN} {POST}"),
    "reposts": (f"at://{BEN}/app.bsky.feed.repost/1", f"{BEN} {POST}"),
    "bookmarks": (f"at://{CAT}/app.bsky.bookmark/1", f"{CAT} {POST}"),
    "follows": (f"at://{ANN}/app.bsky.graph.follow/1", f"{ANN} {BEN}"),
    "blocks": (f"at://{ANN}/app.bsky.graph.block/1", f"{ANN} {CAT}"),
    "list_blocks": (f"at://{BEN}/app.bsky.graph.listblock/1", f"{BEN} {LIST}"),
    "list_items": (f"at://{ANN}/app.bsky.graph.listitem/1", f"{LIST} {BEN}"),
    "verifications": (f"at://{CAT}/app.bsky.graph.verification/1", f"{CAT} {ANN}"),
}

# Check: the damage that it must find, and the key that it must name.
DAMAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "post_aggregations for posts.uri": (
        _delete("post_aggregations", f"post_uri = '{QUOTE}'"),
        QUOTE,
    ),
    "post_aggregations for posts.parent_uri": (
        _delete("post_aggregations", f"post_uri = '{POST}'"),
        POST,
    ),
    "post_aggregations for likes.post_uri": (
        _delete("post_aggregations", f"post_uri = '{ABSENT}'"),
        ABSENT,
    ),
    "post_aggregations for reposts.post_uri": (
        _delete("post_aggregations", f"post_uri = '{POST}'"),
        POST,
    ),
    "post_aggregations for bookmarks.post_uri": (
        _delete("post_aggregations", f"post_uri = '{POST}'"),
        POST,
    ),
    "post_aggregations for quotes.quoted_uri": (
        _delete("post_aggregations", f"post_uri = '{POST}'"),
        POST,
    ),
    "engine_subject_aggregations for likes.post_uri": (
        _delete("engine_subject_aggregations", f"uri = '{FEED}'"),
        FEED,
    ),
    "engine_subject_aggregations for feed_generators.uri": (
        _delete("engine_subject_aggregations", f"uri = '{FEED}'"),
        FEED,
    ),
    "engine_subject_aggregations for labeler_services.uri": (
        _delete("engine_subject_aggregations", f"uri = '{LABELER}'"),
        LABELER,
    ),
    "engine_user_aggregations for follows.following_did": (
        _delete("engine_user_aggregations", f"did = '{BEN}'"),
        BEN,
    ),
    "engine_user_aggregations for follows.follower_did": (
        _delete("engine_user_aggregations", f"did = '{ANN}'"),
        ANN,
    ),
    "engine_user_aggregations for posts.author_did": (
        _delete("engine_user_aggregations", f"did = '{CAT}'"),
        CAT,
    ),
    "post_aggregations without a reason": (
        (f"INSERT INTO post_aggregations (post_uri) VALUES ('{ABSENT}2')",),
        f"{ABSENT}2",
    ),
    "engine_subject_aggregations without a reason": (
        (f"INSERT INTO engine_subject_aggregations (uri) VALUES ('{FEED}2')",),
        f"{FEED}2",
    ),
    "engine_user_aggregations without a reason": (
        ("INSERT INTO engine_user_aggregations (did) VALUES ('did:plc:nobody')",),
        "did:plc:nobody",
    ),
    "post_aggregations of what is no post": (
        (f"INSERT INTO post_aggregations (post_uri, like_count) VALUES ('{FEED}', 1)",),
        FEED,
    ),
    "engine_subject_aggregations of a post": (
        (f"INSERT INTO engine_subject_aggregations (uri, like_count) VALUES ('{POST}', 1)",),
        POST,
    ),
    "post_viewer_states.like_uri": (
        (f"UPDATE post_viewer_states SET like_uri = NULL WHERE viewer_did = '{BEN}'",),
        POST,
    ),
    "post_viewer_states.repost_uri": (
        (f"UPDATE post_viewer_states SET repost_uri = 'x' WHERE viewer_did = '{BEN}'",),
        POST,
    ),
    "post_viewer_states.bookmarked": (
        (f"UPDATE post_viewer_states SET bookmarked = true WHERE viewer_did = '{BEN}'",),
        POST,
    ),
    "post_viewer_states with nothing in it": (
        (f"INSERT INTO post_viewer_states (post_uri, viewer_did) VALUES ('{POST}', '{ANN}')",),
        POST,
    ),
    "post_viewer_states for likes": (
        _delete("post_viewer_states", f"viewer_did = '{ANN}'"),
        REPLY,
    ),
    "post_viewer_states for reposts": (
        _delete("post_viewer_states", f"viewer_did = '{BEN}'"),
        POST,
    ),
    "post_viewer_states for bookmarks": (
        _delete("post_viewer_states", f"bookmarked AND viewer_did = '{CAT}'"),
        POST,
    ),
    "feed_items of posts": (
        (f"UPDATE feed_items SET sort_at = sort_at - interval '1 s' WHERE uri = '{POST}'",),
        POST,
    ),
    "feed_items of reposts": (
        _delete("feed_items", "type = 'repost'"),
        f"at://{BEN}/app.bsky.feed.repost/1",
    ),
    "feed_items without a record": (
        _delete("reposts", f"user_did = '{BEN}'"),
        f"at://{BEN}/app.bsky.feed.repost/1",
    ),
    "quotes of posts": (_delete("quotes", f"post_uri = '{MEDIA_QUOTE}'"), MEDIA_QUOTE),
    "quotes without a post": (_delete("posts", f"uri = '{QUOTE}'"), f"{QUOTE}#quote"),
    "thread_contexts of replies": (_delete("thread_contexts", f"post_uri = '{REPLY}'"), REPLY),
    "thread_contexts without a reply": (_delete("posts", f"uri = '{REPLY}'"), REPLY),
    "thread_contexts.root_author_like_uri": (
        ("UPDATE thread_contexts SET root_author_like_uri = NULL",),
        REPLY,
    ),
    "posts.has_thread_gate": (_delete("thread_gates", f"post_uri = '{POST}'"), POST),
    "posts.has_post_gate": (
        (f"UPDATE posts SET has_post_gate = true WHERE uri = '{QUOTE}'",),
        QUOTE,
    ),
    "engine_duplicates of an unknown table": (
        _insert_duplicate("at://x/y/z", "a b", "posts"),
        "at://x/y/z",
    ),
    "users for engine_repos.did": (_no_user(CAT), CAT),
    "users for posts.author_did": (_no_user(CAT), CAT),
    "users for likes.user_did": (_no_user(CAT), CAT),
    "users for reposts.user_did": (_no_user(BEN), BEN),
    "users for follows.follower_did": (_no_user(ANN), ANN),
    "users for follows.following_did": (_no_user(BEN), BEN),
    "users for blocks.blocker_did": (_no_user(ANN), ANN),
    "users for blocks.blocked_did": (_no_user(CAT), CAT),
    "users for list_blocks.blocker_did": (_no_user(BEN), BEN),
    "users for list_items.subject_did": (_no_user(BEN), BEN),
    "users for lists.creator_did": (_no_user(ANN), ANN),
    "users for starter_packs.creator_did": (_no_user(ANN), ANN),
    "users for feed_generators.creator_did": (_no_user(ANN), ANN),
    "users for labeler_services.creator_did": (_no_user(ANN), ANN),
    "users for verifications.subject_did": (_no_user(ANN), ANN),
    "users for generic_records.author_did": (_no_user(ANN), ANN),
    "users for thread_gates.owner_did": (_no_user(ANN), ANN),
}
DAMAGE |= {
    # By a rule of the root's gate, by the embedding rules of the quoted, by nothing at all.
    "posts.engine_invalid_reply": (
        (f"UPDATE posts SET engine_invalid_reply = true WHERE uri = '{REPLY}'",),
        REPLY,
    ),
    "posts.violates_thread_gate": (
        (f"UPDATE thread_gates SET allow = '[]' WHERE post_uri = '{POST}'",),
        REPLY,
    ),
    "posts.violates_embedding_rules": (
        (
            (
                'UPDATE post_gates SET embedding_rules = \'[{"$type":'
                f" \"app.bsky.feed.postgate#disableRule\"}}]' WHERE post_uri = '{POST}'"
            ),
        ),
        QUOTE,
    ),
    "users.engine_account_status": (
        (f"UPDATE users SET engine_account_status = 'suspended' WHERE did = '{ANN}'",),
        ANN,
    ),
    "users for engine_accounts.did": (_no_user("did:plc:off"), "did:plc:off"),
    "records of deleted accounts": (
        ((f"UPDATE engine_accounts SET active = false, status = 'deleted' WHERE did = '{ANN}'"),),
        ANN,
    ),
    "records of refused accounts": (
        (f"INSERT INTO engine_takedowns (subject) VALUES ('{CAT}')",),
        CAT,
    ),
    "refused records": (
        (f"INSERT INTO engine_takedowns (subject) VALUES ('{FEED}')",),
        FEED,
    ),
    "engine_pending of its record": (
        (f"UPDATE engine_pending SET awaited = '{REPLY}'",),
        WAITING,
    ),
    "engine_pending.author": (
        (f"UPDATE engine_pending SET author = '{ANN}'",),
        WAITING,
    ),
    "engine_pending for what is there": (
        (
            f"UPDATE likes SET post_uri = '{QUOTE}' WHERE uri = '{WAITING}'",
            f"UPDATE engine_pending SET awaited = '{QUOTE}'",
        ),
        WAITING,
    ),
    "notifications of posts": (
        (f"UPDATE notifications SET recipient_did = '{BEN}' WHERE reason = 'mention'",),
        REPLY,
    ),
    "notifications of likes": (_delete("reposts", f"uri = '{REPOST}'"), LIKE_VIA),
    "notifications of reposts": (
        ("UPDATE notifications SET reason = 'like' WHERE reason = 'repost'",),
        REPOST,
    ),
    "notifications of follows": (_delete("follows", f"uri = '{FOLLOW}'"), FOLLOW),
    "notifications of verifications": (
        (f"UPDATE notifications SET reason_subject = '{POST}' WHERE reason = 'verified'",),
        VERIFICATION,
    ),
    "notifications of users": (
        ("UPDATE users SET engine_joined_via = NULL",),
        PROFILE,
    ),
    "notifications of what notifies nobody": (
        (f"UPDATE notifications SET engine_record_uri = '{LIST}' WHERE reason = 'follow'",),
        LIST,
    ),
}
for _check in CHECKS:
    if _check.name.endswith("_count"):
        _table, _, _column = _check.name.partition(".")
        _key_column, _key = _COUNT_KEYS[_table]
        DAMAGE[_check.name] = (
            (f"UPDATE {_table} SET {_column} = {_column} + 1 WHERE {_key_column} = '{_key}'",),
            _key,
        )
for _table, (_uri, _thing) in _INDEXED.items():
    # An indexed row with a higher record key than its duplicate.
    _lower = _uri[:-1] + "0"
    DAMAGE[f"engine_duplicates of {_table}"] = (_insert_duplicate(_lower, _thing, _table), _lower)
    DAMAGE[f"engine_duplicates indexed in {_table}"] = (
        _insert_duplicate(_uri, _thing, _table),
        _uri,
    )
