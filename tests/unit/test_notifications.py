"""Who is told of what: each reason for a notification, and what keeps it from being made."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.author import ref
from tests.notifying import Place, mention, place, quote


@pytest.fixture
def here(module_database: str) -> Iterator[Place]:
    with place(module_database) as made:
        yield made


# --- mentions and quotes -------------------------------------------------------------------------


def test_a_mention_in_a_facet_tells_the_mentioned(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann, facets=mention(ben.did))
    written = here.look(post)
    (row,) = here.rows().values()
    assert row["uri"] == f"{post}#notification/mention/{ben.did}"
    assert (row["recipient_did"], row["author_did"]) == (ben.did, ann.did)
    assert (row["reason"], row["reason_subject"]) == ("mention", post)
    assert row["engine_record_uri"] == post
    assert row["created_at"] == datetime(2025, 1, 1)  # noqa: DTZ001 - the tables hold naive times in UTC
    assert row["is_read"] is False
    cid = here.connection.execute("SELECT cid FROM posts WHERE uri = %s", [post]).fetchone()
    assert cid == (row["cid"],)
    assert (written.made, written.removed) == ({"mention": 1}, {})


def test_all_who_are_mentioned_are_told_once_and_the_author_never(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    here.look(here.post(ann, facets=mention(ben.did, ann.did, cat.did, ben.did)))
    assert here.told() == {(ben.did, "mention"), (cat.did, "mention")}


MENTION = '{"$type": "app.bsky.richtext.facet#mention", "did": "%s"}'


def test_facets_of_any_other_shape_tell_nobody_and_hold_up_nothing(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    for facets in (
        '"text"',
        "3",
        '{"features": 1}',
        f'{{"features": [{MENTION % ben.did}]}}',
        f'[{{"features": {MENTION % ben.did}}}]',
        f'[[{{"features": [{MENTION % ben.did}]}}]]',
        f'[{{"features": [[{MENTION % ben.did}]]}}]',
        '[1, null, {"features": "did:plc:x"}, {"features": [1, [2]]}]',
        f'[{{"features": [{{"$type": "app.bsky.richtext.facet#tag", "did": "{ben.did}"}}]}}]',
        '[{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": ["did:plc:x"]}]}]',
        '[{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:x y"}]}]',
        '[{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:x\\n"}]}]',
        '[{"features": [{"$type": "app.bsky.richtext.facet#mention", "did": "ben.test"}]}]',
    ):
        here.connection.execute("UPDATE posts SET facets = %s WHERE uri = %s", [facets, post])
        here.look(post)
        assert here.told() == set(), facets


def test_a_quote_tells_the_author_of_the_quoted_post(here: Place) -> None:
    ann, ben = here.account(), here.account()
    quoted = here.post(ann)
    post = here.post(ben, embed=quote(quoted))
    here.look(post)
    (row,) = here.rows().values()
    assert row["uri"] == f"{post}#notification/quote"
    assert (row["recipient_did"], row["reason"], row["reason_subject"]) == (ann.did, "quote", post)


def test_a_quote_waits_for_the_quoted_post(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ben, embed=quote(ann.uri("app.bsky.feed.post/3laaaaaaaaaa2")))
    here.look(post)
    assert here.told() == set()
    here.post(ann, "3laaaaaaaaaa2")
    here.look(post)
    assert here.told() == {(ann.did, "quote")}


def test_a_quote_that_violates_the_embedding_rules_tells_nobody(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ben, embed=quote(here.post(ann)))
    here.flag(post, "violates_embedding_rules")
    here.look(post)
    assert here.told() == set()


def test_a_quote_of_ones_own_post_tells_nobody(here: Place) -> None:
    ann = here.account()
    here.look(here.post(ann, embed=quote(here.post(ann))))
    assert here.told() == set()


def test_who_is_mentioned_quoted_and_replied_to_is_told_of_the_mention_alone(here: Place) -> None:
    ann, ben = here.account(), here.account()
    first = here.post(ann)
    here.look(here.post(ben, to=first, embed=quote(first), facets=mention(ann.did)))
    assert here.told() == {(ann.did, "mention")}


def test_who_is_quoted_and_replied_to_is_told_of_the_quote_alone(here: Place) -> None:
    ann, ben = here.account(), here.account()
    first = here.post(ann)
    here.look(here.post(ben, to=first, embed=quote(first)))
    assert here.told() == {(ann.did, "quote")}


# --- replies -------------------------------------------------------------------------------------


def test_a_reply_tells_the_author_of_its_parent(here: Place) -> None:
    ann, ben = here.account(), here.account()
    first, reply = here.thread(ann, ben)
    here.look(reply)
    (row,) = here.rows().values()
    assert row["uri"] == f"{reply}#notification/reply"
    assert (row["recipient_did"], row["reason"], row["reason_subject"]) == (ann.did, "reply", reply)
    assert first != reply


def test_a_reply_tells_the_authors_of_four_ancestors_and_no_more(here: Place) -> None:
    authors = [here.account() for _ in range(6)]
    *_, reply = here.thread(*authors)
    here.look(reply)
    assert {uri: row["recipient_did"] for uri, row in here.rows().items()} == {
        f"{reply}#notification/reply": authors[4].did,
        **{f"{reply}#notification/reply/{a.did}": a.did for a in authors[1:4]},
    }


def test_an_ancestor_twice_in_the_chain_is_told_once_as_the_nearer_one(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    *_, reply = here.thread(ann, ben, ann, cat)
    here.look(reply)
    assert {uri: row["recipient_did"] for uri, row in here.rows().items()} == {
        f"{reply}#notification/reply": ann.did,
        f"{reply}#notification/reply/{ben.did}": ben.did,
    }


def test_the_author_of_a_reply_is_walked_past(here: Place) -> None:
    ann, ben = here.account(), here.account()
    *_, reply = here.thread(ann, ben, ben)
    here.look(reply)
    assert here.told() == {(ann.did, "reply")}
    assert f"{reply}#notification/reply/{ann.did}" in here.rows()


def test_the_walk_ends_at_a_post_that_is_missing(here: Place) -> None:
    ann, ben, cat, dan = (here.account() for _ in range(4))
    posts = here.thread(ann, ben, cat, dan)
    here.delete(ben, posts[1])
    here.look(posts[3])
    assert here.told() == {(cat.did, "reply")}


def test_the_walk_ends_behind_a_post_that_violates_its_gate(here: Place) -> None:
    ann, ben, cat, dan = (here.account() for _ in range(4))
    posts = here.thread(ann, ben, cat, dan)
    here.flag(posts[1], "violates_thread_gate")
    here.look(posts[3])
    assert here.told() == {(cat.did, "reply"), (ben.did, "reply")}


def test_a_reply_that_violates_the_gate_tells_no_ancestor_but_those_it_mentions(
    here: Place,
) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    reply = here.post(ben, to=here.post(ann), facets=mention(cat.did))
    here.flag(reply, "violates_thread_gate")
    here.look(reply)
    assert here.told() == {(cat.did, "mention")}


# --- subscribers ---------------------------------------------------------------------------------


def test_subscribers_are_told_of_a_new_post(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    here.subscribe(ben, ann)
    here.subscribe(cat, ben)
    post = here.post(ann)
    here.look(fresh=(post,))
    (row,) = here.rows().values()
    assert row["uri"] == f"{post}#notification/subscribed/{ben.did}"
    assert (row["reason"], row["reason_subject"]) == ("subscribed-post", post)


def test_subscribers_are_not_told_of_a_post_that_is_only_looked_at_again(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    here.subscribe(ben, ann)
    post = here.post(ann)
    here.look(fresh=(post,))
    here.subscribe(cat, ann)
    here.look(post)
    assert here.told() == {(ben.did, "subscribed-post")}


def test_subscribers_whom_the_post_names_are_told_of_that_alone(here: Place) -> None:
    ann, ben, cat, dan = (here.account() for _ in range(4))
    for subscriber in (ann, ben, cat, dan):
        here.subscribe(subscriber, ann)
    quoted, parent = here.post(ben), here.post(cat)
    post = here.post(ann, to=parent, embed=quote(quoted), facets=mention(dan.did))
    here.look(fresh=(post,))
    assert here.told() == {(ben.did, "quote"), (cat.did, "reply"), (dan.did, "mention")}


def test_a_subscriber_further_up_the_thread_is_told_as_a_subscriber(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    here.subscribe(ann, cat)
    *_, reply = here.thread(ann, ben, cat)
    # Even where the post was looked at before it was known to be new.
    here.look(reply)
    assert here.told() == {(ann.did, "reply"), (ben.did, "reply")}
    here.look(fresh=(reply,))
    assert here.told() == {(ann.did, "subscribed-post"), (ben.did, "reply")}
    here.look(reply)
    assert here.told() == {(ann.did, "subscribed-post"), (ben.did, "reply")}


# --- likes and reposts ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["like", "repost"])
def test_a_like_or_repost_tells_the_author_of_the_post(here: Place, kind: str) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    record = getattr(here, kind)(ben, post)
    here.look(record)
    (row,) = here.rows().values()
    assert row["uri"] == f"{record}#notification"
    assert (row["recipient_did"], row["author_did"]) == (ann.did, ben.did)
    assert (row["reason"], row["reason_subject"], row["cid"]) == (kind, post, None)


SUBJECTS: dict[str, dict[str, Any]] = {
    "app.bsky.feed.generator": {"did": "did:web:feed.test", "displayName": "feed"},
    "app.bsky.labeler.service": {"policies": {"labelValues": []}},
    "app.bsky.graph.list": {"name": "list", "purpose": "app.bsky.graph.defs#curatelist"},
    "app.bsky.graph.starterpack": {
        "name": "pack",
        "list": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.graph.list/3laaaaaaaaaa2",
    },
    "app.bsky.feed.repost": {
        "subject": ref("at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3laaaaaaaaaa2")
    },
    "com.example.thing": {"what": "ever"},
}


@pytest.mark.parametrize("collection", SUBJECTS)
def test_a_like_of_anything_else_tells_its_author_when_that_is_indexed(
    here: Place, collection: str
) -> None:
    ann, ben = here.account(), here.account()
    rkey = "self" if collection == "app.bsky.labeler.service" else "3laaaaaaaaaa2"
    like = here.like(ben, ann.uri(f"{collection}/{rkey}"))
    here.look(like)
    assert here.told() == set()
    here.put(ann, collection, rkey, **SUBJECTS[collection])
    here.look(like)
    assert here.told() == {(ann.did, "like")}


@pytest.mark.parametrize("kind", ["like", "repost"])
def test_a_like_or_repost_of_ones_own_post_tells_nobody(here: Place, kind: str) -> None:
    ann = here.account()
    here.look(getattr(here, kind)(ann, here.post(ann)))
    assert here.told() == set()


def test_a_like_before_its_post_is_told_of_when_that_comes(here: Place) -> None:
    ann, ben = here.account(), here.account()
    like = here.like(ben, ann.uri("app.bsky.feed.post/3laaaaaaaaaa2"))
    here.look(like)
    assert here.told() == set()
    here.post(ann, "3laaaaaaaaaa2")
    here.look(like)
    assert here.told() == {(ann.did, "like")}


def test_a_like_and_a_repost_of_one_post_by_one_user_are_told_of_both(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    here.look(here.like(ben, post), here.repost(ben, post))
    assert here.told() == {(ann.did, "like"), (ann.did, "repost")}


@pytest.mark.parametrize("kind", ["like", "repost"])
def test_a_like_or_repost_by_a_repost_tells_the_reposter_too(here: Place, kind: str) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    post = here.post(ann)
    repost = here.repost(ben, post)
    record = getattr(here, kind)(cat, post, via=ref(repost))
    here.look(record)
    assert here.told() == {(ann.did, kind), (ben.did, f"{kind}-via-repost")}
    row = here.rows()[f"{record}#notification/via"]
    assert (row["reason_subject"], row["engine_record_uri"]) == (repost, record)


def test_a_repost_in_via_that_is_not_indexed_tells_nobody(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    post = here.post(ann)
    for via in (ben.uri("app.bsky.feed.repost/3laaaaaaaaaa2"), here.post(ben)):
        here.look(here.like(cat, post, via=ref(via)))
    assert {reason for _, reason in here.told()} == {"like"}


def test_who_reposted_their_own_post_is_told_once(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    here.look(here.like(ben, post, via=ref(here.repost(ann, post))))
    assert here.told() == {(ann.did, "like")}


def test_who_likes_by_their_own_repost_is_not_told_of_that(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    here.look(here.like(ben, post, via=ref(here.repost(ben, post))))
    assert here.told() == {(ann.did, "like")}


@pytest.mark.parametrize("kind", ["like", "repost"])
def test_who_likes_their_own_post_by_anothers_repost_tells_the_reposter(
    here: Place, kind: str
) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    here.look(getattr(here, kind)(ann, post, via=ref(here.repost(ben, post))))
    assert here.told() == {(ben.did, f"{kind}-via-repost")}


# --- the rest ------------------------------------------------------------------------------------


def test_a_follow_tells_the_followed_and_waits_for_nothing(here: Place) -> None:
    ann, ben = here.account(), here.account()
    follow = here.put(ben, "app.bsky.graph.follow", subject=ann.did)
    own = here.put(ben, "app.bsky.graph.follow", subject=ben.did)
    here.look(follow, own)
    (row,) = here.rows().values()
    assert (row["uri"], row["recipient_did"]) == (f"{follow}#notification", ann.did)
    assert (row["reason"], row["reason_subject"], row["cid"]) == ("follow", None, None)


def test_a_verification_tells_the_verified(here: Place) -> None:
    ann, ben = here.account(), here.account()
    names = {"handle": "ann.test", "displayName": "Ann"}
    made = here.put(ben, "app.bsky.graph.verification", subject=ann.did, **names)
    own = here.put(ben, "app.bsky.graph.verification", subject=ben.did, **names)
    here.look(made, own)
    (row,) = here.rows().values()
    assert (row["uri"], row["recipient_did"]) == (f"{made}#notification", ann.did)
    assert (row["reason"], row["reason_subject"]) == ("verified", None)
    assert row["cid"] is not None


def test_a_profile_tells_the_author_of_the_pack_that_its_account_joined_by(here: Place) -> None:
    ann, ben = here.account(), here.account()
    pack = here.put(ann, "app.bsky.graph.starterpack", **SUBJECTS["app.bsky.graph.starterpack"])
    profile = here.put(ben, "app.bsky.actor.profile", "self", joinedViaStarterPack=ref(pack))
    here.look(profile)
    (row,) = here.rows().values()
    assert row["uri"] == f"{profile}#notification/starterpack"
    assert (row["recipient_did"], row["author_did"]) == (ann.did, ben.did)
    assert (row["reason"], row["reason_subject"]) == ("starterpack-joined", pack)


def test_records_that_tell_nobody_and_what_is_no_record_are_stepped_over(here: Place) -> None:
    ann, ben = here.account(), here.account()
    block = here.put(ann, "app.bsky.graph.block", subject=ben.did)
    here.look(block, ann.did, "nonsense", "at://x/app.bsky.feed.like", gone=("", ben.did))
    assert here.told() == set()


def test_a_key_too_long_for_an_index_is_left_out_and_counted(here: Place) -> None:
    ann, ben = here.account(), here.account()
    endless = "did:web:" + "a" * 2000 + ".test"
    post = here.post(ann, facets=mention(endless, ben.did))
    here.connection.execute(
        "UPDATE posts SET uri = uri || repeat('x', 1000) WHERE uri = %s", [post]
    )
    written = here.look(post + "x" * 1000)
    assert here.told() == {(ben.did, "mention")}
    assert written.too_long == {"mention": 1}
