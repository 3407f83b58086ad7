"""The reference indexer on judgements, notifications and accounts, in cases made by hand."""

from typing import Any

import pytest

from tests.author import Author, account_event, ref, reply
from tests.reference import Reference

POST, LIKE, REPOST = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"
FOLLOW, PROFILE = "app.bsky.graph.follow", "app.bsky.actor.profile"
GATE, QUOTE_GATE = "app.bsky.feed.threadgate", "app.bsky.feed.postgate"
VERIFICATION, PACK = "app.bsky.graph.verification", "app.bsky.graph.starterpack"


@pytest.fixture
def ann() -> Author:
    return Author(1)


@pytest.fixture
def ben() -> Author:
    return Author(2)


@pytest.fixture
def cat() -> Author:
    return Author(3)


def run(*frames: bytes) -> Reference:
    reference = Reference()
    for frame in frames:
        reference.frame(frame)
    return reference


def told(reference: Reference) -> set[tuple[str, str, str]]:
    """Reason, recipient, and what the uri ends with."""
    return {
        (row["reason"], row["recipient_did"], uri.partition("#notification")[2])
        for (uri,), row in reference.tables().get("notifications", {}).items()
    }


def flags(reference: Reference, uri: str) -> list[str]:
    row = reference.tables()["posts"][uri,]
    names = ("engine_invalid_reply", "violates_thread_gate", "violates_embedding_rules")
    return [name for name in names if row[name]]


def mention(*dids: Any) -> list[dict[str, Any]]:
    features = [{"$type": "app.bsky.richtext.facet#mention", "did": did} for did in dids]
    return [{"index": {"byteStart": 0, "byteEnd": 1}, "features": features}]


def quote(uri: str) -> dict[str, Any]:
    return {"$type": "app.bsky.embed.record", "record": ref(uri)}


def rule(name: str, **fields: Any) -> dict[str, Any]:
    return {"$type": f"{GATE}#{name}", **fields}


# --- judgements


def test_a_reply_is_invalid_with_another_root_and_so_is_what_is_below(ann: Author) -> None:
    root, other = ann.uri(f"{POST}/root"), ann.uri(f"{POST}/other")
    frames = [
        ann.creates(f"{POST}/below", text="", reply=reply(ann.uri(f"{POST}/wrong"), other)),
        ann.creates(f"{POST}/wrong", text="", reply=reply(root, other)),
        ann.creates(f"{POST}/right", text="", reply=reply(root)),
        ann.creates(f"{POST}/root", text=""),
    ]
    reference = run(*frames)
    assert flags(reference, ann.uri(f"{POST}/wrong")) == [], "while its root is missing it counts"
    reference.frame(ann.creates(f"{POST}/other", text=""))
    assert flags(reference, ann.uri(f"{POST}/wrong")) == ["engine_invalid_reply"]
    assert flags(reference, ann.uri(f"{POST}/below")) == ["engine_invalid_reply"]
    assert flags(reference, ann.uri(f"{POST}/right")) == []
    reference.frame(ann.deletes(f"{POST}/other"))
    assert flags(reference, ann.uri(f"{POST}/below")) == []


@pytest.mark.parametrize(
    ("allow", "gated"),
    [
        (None, False),
        ([], True),
        ([rule("mentionRule")], True),
        ([rule("followingRule")], False),
        ([rule("followerRule")], True),
        ([rule("listRule", list="LIST")], False),
        ([rule("listRule", list="OTHER"), {"$type": "no.such.rule"}], True),
    ],
)
def test_a_thread_gate_lets_in_whom_its_rules_name(
    ann: Author, ben: Author, allow: list[dict[str, Any]] | None, gated: bool
) -> None:
    members = ann.uri("app.bsky.graph.list/members")
    for one in allow or []:
        if "list" in one:
            one["list"] = members if one["list"] == "LIST" else ann.uri("app.bsky.graph.list/no")
    root = ann.uri(f"{POST}/root")
    gate = {"post": root} if allow is None else {"post": root, "allow": allow}
    reference = run(
        ann.creates(f"{FOLLOW}/a", subject=ben.did),
        ann.creates("app.bsky.graph.listitem/a", list=members, subject=ben.did),
        ann.creates(f"{GATE}/root", **gate),
        ben.creates(f"{POST}/reply", text="", reply=reply(root)),
        ann.creates(f"{POST}/own", text="", reply=reply(root)),
    )
    assert flags(reference, ben.uri(f"{POST}/reply")) == [], "while its root is missing it may"
    reference.frame(ann.creates(f"{POST}/root", text=""))
    expected = ["violates_thread_gate"] if gated else []
    assert flags(reference, ben.uri(f"{POST}/reply")) == expected
    assert flags(reference, ann.uri(f"{POST}/own")) == []
    count = reference.tables()["post_aggregations"][root,]["reply_count"]
    assert count == (1 if gated else 2)


def test_a_mention_in_the_root_lets_in(ann: Author, ben: Author) -> None:
    root = ann.uri(f"{POST}/root")
    reference = run(
        ann.creates(f"{POST}/root", text="", facets=mention(ben.did)),
        ann.creates(f"{GATE}/root", post=root, allow=[rule("mentionRule")]),
        ben.creates(f"{POST}/reply", text="", reply=reply(root)),
    )
    assert flags(reference, ben.uri(f"{POST}/reply")) == []
    reference.frame(ann.creates(f"{POST}/root", text=""))
    assert flags(reference, ben.uri(f"{POST}/reply")) == ["violates_thread_gate"]


def test_a_post_gate_forbids_others_to_quote(ann: Author, ben: Author) -> None:
    post = ann.uri(f"{POST}/a")
    rules = [{"$type": f"{QUOTE_GATE}#disableRule"}]
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        ann.creates(f"{POST}/own", text="", embed=quote(post)),
        ben.creates(f"{POST}/b", text="", embed=quote(post)),
    )
    assert told(reference) == {("quote", ann.did, "/quote")}
    reference.frame(ann.creates(f"{QUOTE_GATE}/a", post=post, embeddingRules=rules))
    assert flags(reference, ben.uri(f"{POST}/b")) == ["violates_embedding_rules"]
    assert flags(reference, ann.uri(f"{POST}/own")) == []
    assert reference.tables()["post_aggregations"][post,]["quote_count"] == 1
    assert (ben.uri(f"{POST}/b#quote"),) in reference.tables()["quotes"]
    assert told(reference) == set()


# --- notifications


def test_the_reason_is_the_first_of_mention_quote_and_reply(
    ann: Author, ben: Author, cat: Author
) -> None:
    parent, quoted = ann.uri(f"{POST}/a"), cat.uri(f"{POST}/c")
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        cat.creates(f"{POST}/c", text=""),
        ben.creates(f"{POST}/1", text="", reply=reply(parent), embed=quote(quoted)),
    )
    assert told(reference) == {("reply", ann.did, "/reply"), ("quote", cat.did, "/quote")}
    facets = mention(ann.did, ann.did, ben.did, "no did", None)
    reference.frame(ben.creates(f"{POST}/1", text="", facets=facets, reply=reply(parent)))
    assert told(reference) == {("mention", ann.did, f"/mention/{ann.did}")}
    reference.frame(ben.deletes(f"{POST}/1"))
    assert told(reference) == set()


def test_replies_tell_four_ancestors_but_none_beyond_a_violation_or_a_gap() -> None:
    people = [Author(number) for number in range(6)]
    uris = [person.uri(f"{POST}/a") for person in people]
    reference = run(people[0].creates(f"{POST}/a", text=""))
    for number in range(1, 6):
        above = reply(uris[number - 1], uris[0])
        reference.frame(people[number].creates(f"{POST}/a", text="", reply=above))
    last = {entry for entry in told(reference) if entry[1] == people[1].did}
    assert last == {("reply", people[1].did, "/reply")} | {
        ("reply", people[1].did, f"/reply/{people[1].did}")
    }
    rows = reference.tables()["notifications"]
    assert {
        row["recipient_did"] for row in rows.values() if row["author_did"] == people[5].did
    } == {person.did for person in people[1:5]}
    gate = {"post": uris[0], "allow": [rule("listRule", list="nothing")]}
    reference.frame(people[0].creates(f"{GATE}/a", **gate))
    assert told(reference) == set(), "all of them violate the gate"
    reference.frame(people[0].deletes(f"{GATE}/a"))
    reference.frame(people[3].deletes(f"{POST}/a"))
    rows = reference.tables()["notifications"]
    assert {
        row["recipient_did"] for row in rows.values() if row["author_did"] == people[5].did
    } == {people[4].did}


def test_likes_and_reposts_tell_the_author_and_the_reposter(
    ann: Author, ben: Author, cat: Author
) -> None:
    post, repost = ann.uri(f"{POST}/a"), ben.uri(f"{REPOST}/b")
    reference = run(
        cat.creates(f"{LIKE}/c", subject=ref(post), via=ref(repost)),
        ann.creates(f"{LIKE}/own", subject=ref(post), via=ref(post)),
    )
    assert told(reference) == set(), "what they are about is missing"
    reference.frame(ben.creates(f"{REPOST}/b", subject=ref(post)))
    assert told(reference) == {("like-via-repost", ben.did, "/via")}
    reference.frame(ann.creates(f"{POST}/a", text=""))
    assert told(reference) == {
        ("like-via-repost", ben.did, "/via"),
        ("like", ann.did, ""),
        ("repost", ann.did, ""),
    }
    rows = reference.tables()["notifications"]
    row = rows[f"{cat.uri(f'{LIKE}/c')}#notification/via",]
    assert (row["reason_subject"], row["cid"]) == (repost, None)
    reference.frame(ann.deletes(f"{POST}/a"))
    assert told(reference) == {("like-via-repost", ben.did, "/via")}


def test_who_is_followed_or_verified_is_told_and_who_is_no_more_stays_told(
    ann: Author, ben: Author
) -> None:
    reference = run(
        ann.creates(f"{FOLLOW}/a", subject=ben.did),
        ann.creates(f"{FOLLOW}/own", subject=ann.did),
        ann.creates(f"{VERIFICATION}/a", subject=ben.did, handle="b.test"),
        ann.creates(f"{VERIFICATION}/b", subject=ben.did, handle="b.test"),
    )
    assert told(reference) == {("follow", ben.did, ""), ("verified", ben.did, "")}
    reference.frame(ann.deletes(f"{VERIFICATION}/b"))
    reference.frame(ann.deletes(f"{FOLLOW}/a", f"{VERIFICATION}/a"))
    assert told(reference) == {("unverified", ben.did, "/unverified")}
    assert len(reference.tables()["notifications"]) == 2, (
        "the one that was kept aside tells as well"
    )
    reference.frame(account_event(ann.did, 90, "deleted"))
    assert told(reference) == set()


def test_only_the_first_version_of_a_profile_joins(ann: Author, ben: Author) -> None:
    pack, other = ann.uri(f"{PACK}/a"), ann.uri(f"{PACK}/b")
    via = {"joinedViaStarterPack": ref(pack)}
    reference = run(ben.creates(f"{PROFILE}/self", **via))
    assert told(reference) == set()
    reference.frame(ann.creates(f"{PACK}/a", name="a", list="l"))
    assert told(reference) == {("starterpack-joined", ann.did, "/starterpack")}
    reference.frame(ben.creates(f"{PROFILE}/self", displayName="B", **via))
    assert reference.tables()["users"][ben.did,]["engine_joined_via"] == pack
    reference.frame(ben.creates(f"{PROFILE}/self", joinedViaStarterPack=ref(other)))
    assert reference.tables()["users"][ben.did,]["engine_joined_via"] is None
    reference.frame(ben.creates(f"{PROFILE}/self", **via))
    assert told(reference) == set(), "nobody joins twice"
    reference.frame(ben.deletes(f"{PROFILE}/self"))
    reference.frame(ben.creates(f"{PROFILE}/self", **via))
    assert told(reference) == {("starterpack-joined", ann.did, "/starterpack")}


def test_a_mute_keeps_back_what_comes_and_leaves_what_was_told(ann: Author, ben: Author) -> None:
    post = ann.uri(f"{POST}/a")
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        ben.creates(f"{POST}/1", text="", reply=reply(post)),
        ben.creates(f"{LIKE}/1", subject=ref(post)),
    )
    reference.mute(ann.did, post)
    reference.frame(ben.creates(f"{POST}/2", text="", reply=reply(post)))
    reference.frame(ben.creates(f"{REPOST}/2", subject=ref(post)))
    assert told(reference) == {("reply", ann.did, "/reply"), ("like", ann.did, "")}
    assert {uri for (uri,) in reference.tables()["notifications"]} == {
        ben.uri(f"{POST}/1#notification/reply"),
        ben.uri(f"{LIKE}/1#notification"),
    }


def test_subscribers_hear_of_new_posts_only(ann: Author, ben: Author, cat: Author) -> None:
    reference = run(ann.creates(f"{POST}/old", text=""))
    reference.subscribe(ben.did, ann.did)
    reference.subscribe(cat.did, ann.did)
    reference.frame(ann.creates(f"{POST}/old", text="changed"))
    assert told(reference) == set()
    reference.frame(ann.creates(f"{POST}/new", text="", facets=mention(cat.did)))
    assert told(reference) == {
        ("subscribed-post", ben.did, f"/subscribed/{ben.did}"),
        ("mention", cat.did, f"/mention/{cat.did}"),
    }
    reference.frame(ann.creates(f"{POST}/new", text=""))
    assert told(reference) == {("subscribed-post", ben.did, f"/subscribed/{ben.did}")}


def test_a_subject_that_went_and_came_back_is_not_sure(ann: Author, ben: Author) -> None:
    post, like = ann.uri(f"{POST}/a"), f"{ben.uri(f'{LIKE}/1')}#notification"
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        ben.creates(f"{LIKE}/1", subject=ref(post)),
        ann.deletes(f"{POST}/a"),
    )
    reference.settle()
    assert reference.notices.unsure == set(), "it is not there"
    reference.frame(ann.creates(f"{POST}/a", text=""))
    reference.settle()
    assert reference.notices.unsure == {like}
    reference.frame(ben.deletes(f"{LIKE}/1"))
    reference.settle()
    reference.frame(ben.creates(f"{LIKE}/1", subject=ref(post)))
    reference.settle()
    assert reference.notices.unsure == set(), "it came after that"
    assert told(reference) == {("like", ann.did, "")}


# --- accounts and settings


def test_an_account_that_is_away_writes_nothing_and_comes_back_out_of_step(ann: Author) -> None:
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        account_event(ann.did, 90, "suspended"),
    )
    late = ann.creates(f"{POST}/b", text="")
    reference.frame(late)
    assert reference.drops == {"account_inactive": 1}
    assert reference.tables()["users"][ann.did,]["engine_account_status"] == "suspended"
    assert not reference.repos[ann.did].out_of_step
    reference.frame(account_event(ann.did, 91, None))
    assert reference.repos[ann.did].out_of_step
    reference.frame(account_event(ann.did, 90, "deleted"))
    reference.frame(late)
    assert reference.drops == {"account_inactive": 2}, "what was refused comes again after a crash"
    assert list(reference.records) == [ann.uri(f"{POST}/a")]


def test_a_deleted_account_leaves_what_others_wrote(ann: Author, ben: Author) -> None:
    post = ann.uri(f"{POST}/a")
    reference = run(
        ann.creates(f"{POST}/a", text=""),
        ann.creates(f"{LIKE}/a", subject=ref(post)),
        ann.creates(f"{LIKE}/b", subject=ref(post)),
        ben.creates(f"{LIKE}/a", subject=ref(post)),
        account_event(ann.did, 90, "deleted"),
    )
    tables = reference.tables()
    assert list(reference.records) == [ben.uri(f"{LIKE}/a")]
    assert not tables.get("engine_duplicates")
    assert tables["post_aggregations"][post,]["like_count"] == 1
    assert tables["engine_repos"].keys() == {(ann.did,), (ben.did,)}
    assert tables["engine_accounts"][ann.did,]["status"] == "deleted"
    assert told(reference) == set()


def test_what_an_author_forbids_is_removed_and_deletes_apply(ann: Author) -> None:
    reference = run(ann.creates(f"{POST}/a", text=""), ann.creates(f"{POST}/b", text=""))
    reference.opt_out(ann.did)
    assert len(reference.records) == 2
    reference.frame(ann.creates(f"{POST}/a", text="changed"))
    assert list(reference.records) == [ann.uri(f"{POST}/b")]
    reference.frame(ann.deletes(f"{POST}/b"))
    assert not reference.records
    assert reference.drops == {"opted_out": 1}
    repo = reference.repos[ann.did]
    assert (repo.withheld, repo.out_of_step) == (True, False)
    reference.opt_out(ann.did, forbidden=False)
    reference.sweep()
    repo = reference.repos[ann.did]
    assert (repo.withheld, repo.out_of_step) == (False, True)


@pytest.mark.parametrize("whole", [True, False])
def test_what_the_operator_refuses_goes_and_stays_away(ann: Author, whole: bool) -> None:
    reference = run(ann.creates(f"{POST}/a", text=""), ann.creates(f"{POST}/b", text=""))
    subject = ann.did if whole else ann.uri(f"{POST}/a")
    reference.take_down(subject)
    reference.frame(ann.creates(f"{POST}/a", text="again"))
    assert list(reference.records) == ([] if whole else [ann.uri(f"{POST}/b")])
    assert reference.drops == {"taken_down": 1}
    assert reference.repos[ann.did].withheld == whole
    reference.let_back(subject)
    reference.sweep()
    assert reference.repos[ann.did].out_of_step
    reference.frame(ann.creates(f"{POST}/a", text="again"))
    assert ann.uri(f"{POST}/a") in reference.records
