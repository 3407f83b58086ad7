"""What becomes of notifications when their record, or what it speaks of, changes or goes."""

from collections.abc import Callable, Iterator

import pytest

from actors.store import notifications
from tests.author import Author, ref
from tests.notifying import Place, mention, place, quote


@pytest.fixture
def here(module_database: str) -> Iterator[Place]:
    with place(module_database) as made:
        yield made


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one transaction too small for what follows from most work."""
    monkeypatch.setattr(notifications, "SLICE", 2)


# --- what stays ----------------------------------------------------------------------------------


def test_what_is_looked_at_again_stays_as_it_is(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    first, second, reply = here.thread(ann, cat, ben)
    records = [
        second,
        reply,
        here.post(ben, facets=mention(ann.did)),
        here.post(ben, embed=quote(first)),
        here.like(ben, first),
        here.repost(ben, first),
        here.put(ben, "app.bsky.graph.follow", subject=ann.did),
    ]
    here.look(*records)
    here.connection.execute("UPDATE notifications SET is_read = true")
    before = here.rows()
    written = here.look(*records, extended=(first, second))
    assert len(before) == 8
    assert here.rows() == before
    assert (written.made, written.removed) == ({}, {})


def test_a_post_that_was_edited_keeps_what_holds_and_gets_its_new_cid(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    post = here.post(ann, facets=mention(ben.did))
    here.look(post)
    here.connection.execute("UPDATE notifications SET is_read = true")
    (before,) = here.rows().values()
    here.post(ann, post.rsplit("/", 1)[1], text="other words", facets=mention(ben.did, cat.did))
    here.look(post)
    after = here.rows()
    kept = after[f"{post}#notification/mention/{ben.did}"]
    assert (kept["id"], kept["is_read"]) == (before["id"], True)
    assert kept["cid"] != before["cid"]
    assert here.told() == {(ben.did, "mention"), (cat.did, "mention")}


def test_a_like_that_was_changed_to_another_post_is_unread_by_the_other_author(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    like = here.like(cat, here.post(ann))
    here.look(like)
    here.connection.execute("UPDATE notifications SET is_read = true")
    other = here.post(ben)
    here.like(cat, other, rkey=like.rsplit("/", 1)[1])
    here.look(like)
    (row,) = here.rows().values()
    assert (row["recipient_did"], row["reason_subject"], row["is_read"]) == (ben.did, other, False)


def test_who_is_mentioned_no_more_is_told_no_more(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann, facets=mention(ben.did))
    here.look(post)
    here.post(ann, post.rsplit("/", 1)[1])
    written = here.look(post)
    assert here.told() == set()
    assert (written.made, written.removed) == ({}, {"mention": 1})


# --- mutes ---------------------------------------------------------------------------------------


def makers() -> dict[str, Callable[[Place, Author, str, str], str]]:
    """Records of a third account that tell the author of the first post of a thread."""

    def via(here: Place, who: Author, root: str, reply: str) -> str:
        ann = here.account()
        here.mute(ann, root)
        return here.like(who, reply, via=ref(here.repost(ann, reply)))

    return {
        "reply": lambda here, who, root, reply: here.post(who, to=reply, root=root),
        "mention": lambda here, who, root, reply: here.post(
            who, to=reply, root=root, facets=mention(root.split("/")[2])
        ),
        "quote": lambda here, who, root, reply: here.post(
            who, to=reply, root=root, embed=quote(root)
        ),
        "like": lambda here, who, root, _reply: here.like(who, root),
        "repost": lambda here, who, _root, reply: here.repost(who, reply),
        "like-via-repost": via,
    }


@pytest.mark.parametrize("reason", makers())
def test_who_muted_the_thread_is_not_told(here: Place, reason: str) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    root, reply = here.thread(ann, ben)
    for muter in (ann, ben):
        here.mute(muter, root)
    here.look(makers()[reason](here, cat, root, reply))
    assert here.told() == set()


@pytest.mark.parametrize("reason", makers())
def test_what_was_told_before_a_mute_stays(here: Place, reason: str) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    root, reply = here.thread(ann, ben)
    record = makers()[reason](here, cat, root, reply)
    here.look(record)
    before = here.rows()
    assert before
    for muter in (ann, ben):
        here.mute(muter, root)
    here.look(record, extended=(root,))
    assert here.rows() == before


def test_who_muted_the_thread_does_not_get_what_was_told_to_another(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    like = here.like(cat, here.post(ann))
    here.look(like)
    other = here.post(ben)
    here.mute(ben, other)
    here.like(cat, other, rkey=like.rsplit("/", 1)[1])
    written = here.look(like)
    assert here.told() == set()
    assert written.removed == {"like": 1}


def test_subscribers_who_muted_the_thread_are_not_told_and_others_are(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    post = here.post(ann)
    for subscriber in (ben, cat):
        here.subscribe(subscriber, ann)
    here.mute(ben, post)
    here.look(fresh=(post,))
    assert here.told() == {(cat.did, "subscribed-post")}


# --- what goes -----------------------------------------------------------------------------------


def test_with_a_record_goes_what_it_told(here: Place) -> None:
    ann, ben = here.account(), here.account()
    here.subscribe(ann, ben)
    first = here.post(ann)
    records = [
        here.post(ben),
        here.post(ben, to=first),
        here.like(ben, first),
        here.repost(ben, first),
        here.put(ben, "app.bsky.graph.follow", subject=ann.did),
    ]
    here.look(*records, fresh=(records[0],))
    assert len(here.rows()) == 5
    for record in records:
        here.delete(ben, record)
    here.look(gone=tuple(records))
    assert here.told() == set()


@pytest.mark.usefixtures("small_slices")
def test_with_a_post_goes_all_that_was_told_because_of_it_in_slices_if_it_is_much(
    here: Place,
) -> None:
    with_a_post_goes_all_that_was_told(here)


def test_with_a_post_goes_all_that_was_told_because_of_it(here: Place) -> None:
    with_a_post_goes_all_that_was_told(here)


def with_a_post_goes_all_that_was_told(here: Place) -> None:
    names = [here.account() for _ in range(8)]
    ann, ben, cat, dan, eve, fay, gil, hal = names
    first, second, third, fourth, fifth, sixth = here.thread(ann, ben, cat, dan, eve, fay)
    fan = [here.like(gil, second), here.repost(hal, second), here.post(gil, embed=quote(second))]
    here.look(third, fourth, fifth, sixth, *fan)
    told_of_second = {uri for uri, row in here.rows().items() if row["recipient_did"] == ben.did}
    assert len(told_of_second) == 7
    here.delete(ben, second)
    here.look(gone=(second,))
    left = {(row["author_did"], row["recipient_did"]) for row in here.rows().values()}
    assert left == {
        (dan.did, cat.did),
        (eve.did, dan.did),
        (eve.did, cat.did),
        (fay.did, eve.did),
        (fay.did, dan.did),
        (fay.did, cat.did),
    }
    assert first


def test_with_a_repost_goes_what_was_told_because_of_it(here: Place) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    post = here.post(ann)
    repost = here.repost(ben, post)
    here.look(
        here.like(cat, post, via=ref(repost)),
        here.repost(cat, post, via=ref(repost)),
        here.like(cat, repost),
    )
    assert len(here.rows()) == 5
    here.delete(ben, repost)
    here.look(gone=(repost,))
    assert here.told() == {(ann.did, "like"), (ann.did, "repost")}


def test_with_a_pack_goes_what_was_told_of_joining_by_it(here: Place) -> None:
    ann, ben = here.account(), here.account()
    pack = here.put(
        ann,
        "app.bsky.graph.starterpack",
        name="pack",
        list=ann.uri("app.bsky.graph.list/3laaaaaaaaaa2"),
    )
    here.look(here.put(ben, "app.bsky.actor.profile", "self", joinedViaStarterPack=ref(pack)))
    assert here.told() == {(ann.did, "starterpack-joined")}
    here.delete(ann, pack)
    here.look(gone=(pack,))
    assert here.told() == set()


def test_what_is_said_to_be_gone_and_is_there_keeps_what_it_told(here: Place) -> None:
    ann, ben = here.account(), here.account()
    post = here.post(ann)
    like = here.like(ben, post)
    here.look(like)
    before = here.rows()
    here.look(gone=(post, like))
    assert here.rows() == before


def test_a_flag_that_changed_is_felt_three_replies_further_down(here: Place) -> None:
    authors = [here.account() for _ in range(6)]
    posts = here.thread(*authors)
    here.look(*posts)
    assert len(here.rows()) == 1 + 2 + 3 + 4 + 4
    here.flag(posts[1], "violates_thread_gate")
    here.look(extended=(posts[1],))
    # The first author heard of all the replies but the last, which is too far down.
    heard = {row["engine_record_uri"] for row in here.rows().values()}
    assert heard == set(posts[2:])
    assert authors[0].did not in {did for did, _ in recipients(here)}
    here.flag(posts[1], "violates_thread_gate", value=False)
    here.look(extended=(posts[1],))
    assert len(here.rows()) == 1 + 2 + 3 + 4 + 4


def recipients(here: Place) -> list[tuple[str, str]]:
    return [(row["recipient_did"], row["reason"]) for row in here.rows().values()]
