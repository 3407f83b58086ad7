"""What is fetched and was written before the index began notifies nobody; the rest does."""

from collections.abc import Iterator

import pytest

from tests.author import START, Author, account_event, ref, reply
from tests.fetched import POST, Stage
from tests.notifying import mention
from tests.settling import Engine
from tests.writing import make_index

LIKE = "app.bsky.feed.like"
PROFILE = "app.bsky.actor.profile/self"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    with Engine(database, shards=2) as engine:
        yield Stage(engine)


def test_what_was_written_before_the_index_began_notifies_nobody(stage: Stage) -> None:
    ann, ben = Author(1), Author(2)
    post = stage.write(ann, POST, live=False, text="old")
    stage.write(ben, LIKE, live=False, subject=ref(post))
    stage.write(ben, "app.bsky.feed.repost", live=False, subject=ref(post))
    stage.write(ben, "app.bsky.graph.follow", live=False, subject=ann.did)
    stage.write(ben, "app.bsky.graph.verification", live=False, subject=ann.did, handle="a.test")
    stage.write(ben, POST, live=False, text="old", reply=reply(post))
    stage.write(ben, POST, live=False, text="old", facets=mention(ann.did))
    stage.begin()
    stage.fetch(ben)
    stage.fetch(ann)
    assert stage.told() == set()
    assert stage.rows(
        "SELECT like_count, repost_count, reply_count FROM post_aggregations"
        f" WHERE post_uri = '{post}'"
    ) == [(1, 1, 1)]
    # Nor when they are fetched again, or looked at again.
    stage.fetch(ann, ben)
    assert stage.told() == set()


def test_what_a_fetch_brings_before_the_stream_does_notifies(stage: Stage) -> None:
    ann, ben = Author(1), Author(2)
    post = stage.write(ann, POST, live=False, text="old")
    stage.begin()
    stage.write(ben, LIKE, live=False, subject=ref(post))
    stage.write(ben, "app.bsky.graph.verification", live=False, subject=ann.did, handle="a.test")
    stage.write(ben, "app.bsky.graph.follow", live=False, subject=ann.did)
    stage.fetch(ann, ben)
    assert stage.told() == {(ann.did, "like"), (ann.did, "verified"), (ann.did, "follow")}


def test_live_records_notify_of_old_subjects_once_these_are_fetched(stage: Stage) -> None:
    ann, ben, cat = Author(1), Author(2), Author(3)
    post = stage.write(ann, POST, live=False, text="old")
    answer = stage.write(ben, POST, live=False, text="old", reply=reply(post))
    stage.begin()
    stage.write(cat, POST, live=True, text="new", reply=reply(answer, post))
    stage.write(cat, LIKE, live=True, subject=ref(post))
    stage.fetch(ann, ben)
    # Ben's old answer tells nobody; the new one tells him, and Ann above him.
    assert stage.told() == {(ben.did, "reply"), (ann.did, "reply"), (ann.did, "like")}
    assert stage.rows("SELECT count(*) FROM notifications") == [(3,)]


def test_who_was_told_live_stays_told_when_the_repository_is_fetched(stage: Stage) -> None:
    ann, ben = Author(1), Author(2)
    stage.begin()
    post = stage.write(ann, POST, live=True, text="new")
    stage.write(ben, LIKE, live=True, subject=ref(post))
    stage.write(ben, "app.bsky.graph.verification", live=True, subject=ann.did, handle="a.test")
    stage.engine.settle()
    before = stage.rows("SELECT id, uri, recipient_did FROM notifications ORDER BY id")
    assert len(before) == 2
    stage.fetch(ann, ben)
    assert stage.rows("SELECT id, uri, recipient_did FROM notifications ORDER BY id") == before


def test_what_comes_back_with_an_account_notifies_nobody_again(stage: Stage) -> None:
    ann, ben = Author(1), Author(2)
    stage.begin()
    post = stage.write(ann, POST, live=True, text="new")
    stage.write(ben, LIKE, live=True, subject=ref(post))
    stage.engine.settle()
    assert stage.told() == {(ann.did, "like")}
    later = (stage.moment - START) // 1_000_000
    stage.say(ben, account_event(ben.did, later + 60, "deleted"), live=True)
    stage.engine.settle()
    assert stage.told() == set()
    stage.say(ben, account_event(ben.did, later + 120, None), live=True)
    stage.moment += 180_000_000
    stage.fetch(ben)
    assert stage.rows("SELECT count(*) FROM likes") == [(1,)]
    assert stage.told() == set()


def test_a_later_version_of_a_profile_that_was_never_seen_joins_nobody(stage: Stage) -> None:
    ann, ben, cat, dan = (Author(index) for index in range(1, 5))
    pack = stage.write(
        ann, "app.bsky.graph.starterpack", live=False, name="pack", list=ann.uri("l/1")
    )
    joins = {"joinedViaStarterPack": ref(pack)}
    stage.say(ben, ben.creates(PROFILE, **joins), live=False)
    stage.say(dan, dan.creates(PROFILE, **joins), live=False)
    stage.begin()
    stage.say(ben, ben.creates(PROFILE, displayName="Ben", **joins), live=True)
    stage.say(cat, cat.creates(PROFILE, **joins), live=True)
    stage.fetch(ann, dan)
    assert stage.rows("SELECT author_did, reason FROM notifications") == [
        (cat.did, "starterpack-joined")
    ]


def test_before_any_event_all_that_is_fetched_is_of_the_past(stage: Stage) -> None:
    ann, ben = Author(1), Author(2)
    post = stage.write(ann, POST, live=False, text="old")
    stage.write(ben, LIKE, live=False, subject=ref(post))
    stage.fetch(ann, ben)
    assert stage.told() == set()
