"""Replies are judged again when repositories come whole whose follows and lists a gate asks for."""

from collections.abc import Iterator

import pytest

from tests.author import Author, reply
from tests.fetched import POST, Stage
from tests.settling import Engine
from tests.writing import make_index

GATE = "app.bsky.feed.threadgate"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    # A slice for each record.
    with Engine(database, shards=2, largest=1) as engine:
        yield Stage(engine)


def gate(stage: Stage, owner: Author, post: str, *allow: dict[str, str]) -> None:
    """A thread gate from before the beginning."""
    path = f"{GATE}/{post.rpartition('/')[2]}"
    stage.say(owner, owner.creates(path, post=post, allow=list(allow)), live=False)


def rule(name: str, **fields: str) -> dict[str, str]:
    return {"$type": f"{GATE}#{name}", **fields}


def violators(stage: Stage) -> set[str]:
    rows = stage.rows("SELECT author_did FROM posts WHERE violates_thread_gate")
    return {did for (did,) in rows}


def counted(stage: Stage, post: str) -> int:
    ((count,),) = stage.rows(f"SELECT reply_count FROM post_aggregations WHERE post_uri = '{post}'")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("owner_first", [True, False])
def test_a_follow_from_before_lets_a_reply_stand_whichever_is_fetched_first(
    stage: Stage, owner_first: bool
) -> None:
    ann, ben, cat = Author(1), Author(2), Author(3)
    post = stage.write(ann, POST, live=False, text="old")
    gate(stage, ann, post, rule("followerRule"))
    stage.write(ben, "app.bsky.graph.follow", live=False, subject=ann.did)
    stage.write(cat, "app.bsky.graph.follow", live=False, subject=ben.did)
    stage.begin()
    for who in (ben, cat):
        stage.write(who, POST, live=True, text="new", reply=reply(post))
    for who in (ann, ben) if owner_first else (ben, ann):
        stage.fetch(who)
    assert violators(stage) == {cat.did}
    assert counted(stage, post) == 1
    assert stage.told() == {(ann.did, "reply")}


def test_whom_the_owner_follows_or_lists_may_reply_once_its_repository_came_whole(
    stage: Stage,
) -> None:
    ann, ben, cat, dan = (Author(index) for index in range(1, 5))
    posts = [stage.write(ann, POST, live=False, text="old") for _ in range(2)]
    members = stage.write(
        ann, "app.bsky.graph.list", live=False, name="l", purpose="app.bsky.graph.defs#curatelist"
    )
    stage.write(ann, "app.bsky.graph.listitem", live=False, list=members, subject=ben.did)
    stage.write(ann, "app.bsky.graph.follow", live=False, subject=cat.did)
    stage.begin()
    # The gates are seen, and what they ask for is not.
    for post, allow in zip(
        posts, (rule("listRule", list=members), rule("followingRule")), strict=True
    ):
        path = f"{GATE}/{post.rpartition('/')[2]}"
        stage.say(ann, ann.creates(path, post=post, allow=[allow]), live=True)
    for who in (ben, cat, dan):
        for post in posts:
            stage.write(who, POST, live=True, text="new", reply=reply(post))
    stage.fetch(ann)
    assert [counted(stage, post) for post in posts] == [1, 1]
    assert violators(stage) == {ben.did, cat.did, dan.did}
