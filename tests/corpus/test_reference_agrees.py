"""The reference indexer against the tables of the recorded network's own index.

Where they differ, each difference is listed with its reason, and nothing else may differ.
"""

import json
from datetime import datetime
from functools import cache
from typing import Any

import pytest

from tests.corpus import files
from tests.corpus.reference_run import author, life, reference, special, tables

Compared = dict[str, Any]


def _mine(table: str, *columns: str) -> Compared:
    return {
        key[0]: tuple(_text(row[column]) for column in columns)
        for key, row in tables().get(table, {}).items()
    }


def _theirs(table: str, *columns: str, key: str = "uri", suffix: str = "") -> Compared:
    return {
        row[key] + suffix: tuple(row[column] or None for column in columns)
        for row in files.oracle(table)
    }


def _text(value: Any) -> Any:
    """A value as the network's index writes it, where empty and absent are one."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    return str(value) if isinstance(value, int) else value or None


# Our table and columns, its table and columns, and the column that names its rows.
PAIRS: dict[str, tuple[str, str, str, str]] = {
    "likes": (
        "user_did post_uri subject_cid created_at",
        "like",
        "creator subject subjectCid createdAt",
        "uri",
    ),
    "reposts": (
        "user_did post_uri subject_cid created_at",
        "repost",
        "creator subject subjectCid createdAt",
        "uri",
    ),
    "follows": (
        "follower_did following_did created_at",
        "follow",
        "creator subjectDid createdAt",
        "uri",
    ),
    "blocks": (
        "blocker_did blocked_did created_at",
        "actor_block",
        "creator subjectDid createdAt",
        "uri",
    ),
    "list_blocks": (
        "blocker_did list_uri created_at",
        "list_block",
        "creator subjectUri createdAt",
        "uri",
    ),
    "lists": (
        "cid creator_did name purpose description avatar_url created_at",
        "list",
        "cid creator name purpose description avatarCid createdAt",
        "uri",
    ),
    "list_items": (
        "cid list_uri subject_did created_at",
        "list_item",
        "cid listUri subjectDid createdAt",
        "uri",
    ),
    "feed_generators": (
        "cid creator_did did display_name description avatar_url created_at",
        "feed_generator",
        "cid creator feedDid displayName description avatarCid createdAt",
        "uri",
    ),
    "labeler_services": ("cid creator_did created_at", "labeler", "cid creator createdAt", "uri"),
    "starter_packs": (
        "cid creator_did name created_at",
        "starter_pack",
        "cid creator name createdAt",
        "uri",
    ),
    "verifications": (
        "cid issuer_did subject_did handle created_at",
        "verification",
        "cid creator subject handle createdAt",
        "uri",
    ),
    "thread_gates": ("owner_did created_at", "thread_gate", "creator createdAt", "postUri"),
    "post_gates": ("created_at", "post_gate", "createdAt", "postUri"),
    "posts": (
        "cid author_did root_uri root_cid parent_uri parent_cid created_at",
        "post",
        "cid creator replyRoot replyRootCid replyParent replyParentCid createdAt",
        "uri",
    ),
    "quotes": (
        "cid quoted_uri quoted_cid created_at",
        "quote",
        "cid subject subjectCid createdAt",
        "uri",
    ),
    "feed_items": (
        "cid type post_uri originator_did sort_at",
        "feed_item",
        "cid type postUri originatorDid sortAt",
        "uri",
    ),
    "engine_user_aggregations": (
        "followers_count follows_count posts_count",
        "profile_agg",
        "followersCount followsCount postsCount",
        "did",
    ),
    "engine_duplicates": ("uri", "duplicate_record", "uri", "uri"),
    "users": ("did", "actor", "did", "did"),
}

# Quoted before a post gate forbade it.
QUOTED = {
    "at://did:plc:k5gerc73dwi27gjpbu4tmwsp/app.bsky.feed.post/3mbd35alwwf2b",
    "at://did:plc:k5gerc73dwi27gjpbu4tmwsp/app.bsky.feed.post/3mbd35am3qa2b",
}
BROKEN_LEXICON = ("bad:post no createdAt", "bad:post createdAt garbage", "bad:post too long")


@cache
def reasons() -> dict[str, dict[str, set[str]]]:
    """For each of our tables: why something differs, and what."""
    lexicon = "breaks its lexicon in a way that validation will refuse"
    nul = "the other index refuses a NUL; here it is taken out"
    time = "the other index keeps a time that is in the future, or in the year 0"
    kept = "of a deleted account; the other index keeps it"
    gone = "quotes or reposts a post that was deleted: what others wrote stays here"
    return {
        "likes": {
            "the other index keeps a subject whose authority is a handle": special(
                "bad:like handle uri"
            ),
            "lost by the other index, though the repository holds it": {
                "at://did:plc:todb2zsofeqhwoeo6nlz7bjm/app.bsky.feed.like/3mbd357xiuv2b"
            },
        },
        "lists": {lexicon: special("bad:list empty name")},
        "feed_generators": {lexicon: special("bad:generator bad did")},
        "posts": {
            lexicon: special(*BROKEN_LEXICON),
            nul: special("bad:post NUL char"),
            time: special("post:future", "bad:post createdAt year 0000"),
        },
        "quotes": {
            gone: {"at://did:plc:k5gerc73dwi27gjpbu4tmwsp/app.bsky.feed.post/3mbd35aosll2b#quote"}
        },
        "feed_items": {
            lexicon: special(*BROKEN_LEXICON),
            nul: special("bad:post NUL char"),
            time: special("bad:post createdAt year 0000"),
            gone: {"at://did:plc:hfob7lciedtlfkkley2flnpi/app.bsky.feed.repost/3mbd35aoutd2b"},
            kept: {
                row["uri"] for row in files.oracle("feed_item") if author(row["uri"]) in _deleted()
            },
            "of a duplicate, which has none here": (
                special("dup:repost", "dupTakeover:repost")
                & {uri for (uri,) in tables()["engine_duplicates"]}
            ),
        },
        "engine_user_aggregations": {
            "deleted; the other index keeps what it counted of them": _deleted(),
            "author of posts that break their lexicon": {"did:plc:uplvu74gijb66e45kry3rjp5"},
        },
        "engine_duplicates": {
            "indexed since the record before it went; the other index keeps it as duplicate": {
                sorted(special(f"dupTakeover:{kind}"))[1]
                for kind in ("like", "repost", "follow", "block")
            }
        },
        "users": {
            "deleted; a users row stays, with its status": _deleted(),
            "followed, and unknown to the directory": {
                "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa",
                "did:web:example.com",
            },
        },
    }


def _deleted() -> set[str]:
    return life("deletedByAdmin", "deletedBySelf")


@pytest.mark.parametrize("table", PAIRS)
def test_tables_agree_with_the_networks_own_index(table: str) -> None:
    columns, other, other_columns, key = PAIRS[table]
    ours = _mine(table, *columns.split())
    theirs = _theirs(
        other, *other_columns.split(), key=key, suffix="#quote" if table == "quotes" else ""
    )
    different = {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)}
    expected = set[str]().union(*reasons().get(table, {}).values())
    assert different == expected, [(uri, ours.get(uri), theirs.get(uri)) for uri in different]
    assert len(ours.keys() & theirs.keys()) >= len(theirs) - len(expected) > 0


def test_text_and_flags_of_posts_agree_with_the_networks_own_index() -> None:
    compared = 0
    for row in files.oracle("post"):
        post = tables()["posts"][row["uri"],]
        assert post["text"] == row["text"]
        assert (post["langs"] or []) == _json(row["langs"])
        assert post["tags"] == _json(row["tags"])
        assert post["has_thread_gate"] == (row["hasThreadGate"] == "t")
        assert post["has_post_gate"] == (row["hasPostGate"] == "t")
        compared += 1
    assert compared > 1_000


def test_counts_of_posts_agree_with_the_networks_own_index() -> None:
    # It does not judge again what was there before a gate came, changed or went.
    gated = special("delete:threadgate", "threadgate:hiddenReplies")
    expected = {uri.replace(".threadgate/", ".post/") for uri in gated} | QUOTED
    # It subtracted nothing of deleted accounts, and lost a like (above).
    expected |= special("deepThread")
    expected |= {"at://did:plc:drlgzakhpthmyl7t7brzakyg/app.bsky.feed.post/3mbd355fmej2b"}
    # A subject whose authority is a handle is refused here.
    expected |= {"at://u002.test/app.bsky.feed.post/3mbd355z4g42b"}
    columns = ["like_count", "reply_count", "repost_count", "quote_count"]
    ours = {uri: [row[column] for column in columns] for uri, row in _post_counts().items()}
    for uri, row in _mine("engine_subject_aggregations", "like_count").items():
        ours[uri] = [int(row[0]), 0, 0, 0]
    others = ["likeCount", "replyCount", "repostCount", "quoteCount"]
    theirs = {
        row["uri"]: [int(row[column]) for column in others] for row in files.oracle("post_agg")
    }
    nothing = [0, 0, 0, 0]
    different = {
        uri for uri in {*ours, *theirs} if ours.get(uri, nothing) != theirs.get(uri, nothing)
    }
    assert different == expected


def test_judgements_agree_with_the_networks_own_index() -> None:
    ours = ("engine_invalid_reply", "violates_thread_gate", "violates_embedding_rules")
    theirs = ("invalidReplyRoot", "violatesThreadGate", "violatesEmbeddingRules")
    different: set[str] = set()
    held = [0, 0, 0]
    for row in files.oracle("post"):
        post = tables()["posts"].get((row["uri"],))
        if post is not None:
            flags = [post[name] for name in ours]
            held = [count + flag for count, flag in zip(held, flags, strict=True)]
            different |= {row["uri"]} if flags != [row[name] == "t" for name in theirs] else set()
    # It judges a reply once, and takes one whose parent it does not know for invalid.
    expected = _gated_once() | special("reply:missingParent", "postgate:q0", "postgate:q2")
    expected |= {GATED_LATER}
    assert different == expected
    assert all(held)


def test_notifications_agree_with_the_networks_own_index() -> None:
    records = reference().records
    ours = {
        (row["recipient_did"], row["engine_record_uri"], row["reason"])
        for row in tables()["notifications"].values()
    }
    theirs = {(row["did"], row["recordUri"], row["reason"]) for row in files.oracle("notification")}
    assert len(ours & theirs) > 3_500

    changed = special("update:like", "update:repost", "update:follow")
    more = {record for _, record, _ in ours - theirs} - changed
    less = {
        (did, record, reason)
        for did, record, reason in theirs - ours
        # It keeps what is told of records that are gone, or were changed since.
        if record in records and record not in changed
    }
    told_once_more = {
        record
        for did, record, reason in less
        # To a reposter who is the author as well, to oneself, and at a change of a verification.
        if (reason.endswith("-via-repost") and (did, record, reason[:4]) in ours)
        or author(record) == did
        or reason == "unverified"
    }
    of_what_is_gone = {
        record
        for _, record, reason in less
        if reason in ("like", "repost", "quote") and not _subjects(record) <= records.keys()
    }
    below_what_is_gone = {
        record
        for _, record, reason in less
        if reason == "reply" and len(_ancestors(record)) < ANCESTORS
    }
    judged_since = special("postgate:q0", "postgate:q2") | {GATED_LATER}
    explained = told_once_more | of_what_is_gone | below_what_is_gone | judged_since
    assert {record for _, record, _ in less} == explained
    # Its gates are judged once, duplicates that take a place tell nobody, who likes an own post by
    # way of a repost tells nobody, and a like was lost. It removed what deleted accounts were told.
    of_own = {
        record
        for _, record, reason in ours - theirs
        if reason == "like-via-repost"
        and author(records[record].fields["post_uri"]) == author(record)
    }
    to_deleted = {record for did, record, _ in ours - theirs if did in _deleted()}
    assert len(of_own) == 3
    assert more == of_own | to_deleted | (
        _gated_once()
        | {sorted(special(f"dupTakeover:{kind}"))[1] for kind in ("like", "repost", "follow")}
        | {"at://did:plc:todb2zsofeqhwoeo6nlz7bjm/app.bsky.feed.like/3mbd357xiuv2b"}
    )


ANCESTORS = 4
GATED_LATER = "at://did:plc:hfob7lciedtlfkkley2flnpi/app.bsky.feed.post/3mbd35aluqr2b"


def _gated_once() -> set[str]:
    """Replies to a thread whose gate let nobody in, and went."""
    (gate,) = special("delete:threadgate")
    return {uri for uri in special("threadgate:nobody:reply") if author(uri) != author(gate)}


def _subjects(uri: str) -> set[str]:
    fields = reference().records[uri].fields
    return {fields.get("post_uri") or fields["quoted_uri"]}


def _ancestors(uri: str) -> list[str]:
    """The posts above a post that are indexed, the nearest first."""
    posts, above = reference().records, [uri]
    while (parent := posts[above[-1]].fields["parent_uri"]) in posts:
        above.append(parent)
    return above[1:]


def test_profiles_agree_with_the_networks_own_index() -> None:
    columns = ["display_name", "description", "avatar_url", "banner_url"]
    others = ["displayName", "description", "avatarCid", "bannerCid"]
    theirs = {row["creator"]: row for row in files.oracle("profile")}
    with_profile = {
        did for (did,), row in tables()["users"].items() if row["profile_record"] is not None
    }
    assert with_profile == theirs.keys()
    for did, row in theirs.items():
        user = tables()["users"][did,]
        assert [user[name] or "" for name in columns] == [row[name] for name in others]


def _post_counts() -> dict[str, dict[str, Any]]:
    return {key[0]: row for key, row in tables()["post_aggregations"].items()}


def _json(text: str) -> Any:
    return json.loads(text) if text else []
