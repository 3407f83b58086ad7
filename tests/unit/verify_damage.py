"""Damage to the small network's index: what each check of `verify` must find."""

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
