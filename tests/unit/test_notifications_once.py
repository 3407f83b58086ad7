"""Verifications that were taken back, purges, and that whatever is done twice, in another order or
in slices comes to the same.
"""

import itertools
from collections.abc import Iterator

import pytest

from actors.messages import NotifierWork, Unverified
from actors.store import notifications, outbox
from actors.store.fence import Fenced
from actors.store.notifications import NotificationWriter, write
from tests.author import Author
from tests.notifying import NOTIFIER, Place, place
from tests.writing import claimed

TIME = 1_735_689_600_000_000


@pytest.fixture
def here(module_database: str) -> Iterator[Place]:
    with place(module_database) as made:
        yield made


def test_a_verification_that_was_deleted_tells_the_subject_and_that_stays(here: Place) -> None:
    ann, ben = here.account(), here.account()
    uri = ben.uri("app.bsky.graph.verification/3laaaaaaaaaa2")
    own = Unverified(f"{uri}x", ben.did, ben.did, TIME)
    here.look(gone=(uri,), unverified=(Unverified(uri, ben.did, ann.did, TIME), own))
    (row,) = here.rows().values()
    assert row["uri"] == f"{uri}#notification/unverified"
    assert (row["recipient_did"], row["author_did"]) == (ann.did, ben.did)
    assert (row["reason"], row["reason_subject"], row["cid"]) == ("unverified", None, None)
    assert (row["engine_record_uri"], row["created_at"].timestamp()) == (uri, TIME / 1_000_000)
    here.look(uri, gone=(uri,), unverified=(Unverified(uri, ben.did, ann.did, TIME),))
    assert list(here.rows().values()) == [row]


def test_of_two_verifications_deleted_under_one_key_the_later_is_told_in_any_order(
    here: Place,
) -> None:
    ann, ben, cat = (here.account() for _ in range(3))
    uri = ben.uri("app.bsky.graph.verification/3laaaaaaaaaa2")
    both = (Unverified(uri, ben.did, ann.did, TIME), Unverified(uri, ben.did, cat.did, TIME + 1))
    for order in itertools.permutations(both):
        here.connection.execute("DELETE FROM notifications")
        here.look(unverified=order)
        assert here.told() == {(cat.did, "unverified")}
        here.connection.execute("DELETE FROM notifications")
        for lost in order:
            here.look(unverified=(lost,))
        assert here.told() == {(cat.did, "unverified")}


@pytest.mark.parametrize("slices", [2, 4000])
def test_a_purge_takes_what_the_account_told_and_nothing_else(
    here: Place, monkeypatch: pytest.MonkeyPatch, slices: int
) -> None:
    ann, ben = here.account(), here.account()
    # Their names begin as the purged one's does.
    near = [Author(90, f"{ben.did}0"), Author(91, f"{ben.did}.x")]
    post = here.post(ann)
    for who in (ben, *near):
        here.look(
            here.like(who, post),
            here.post(who, to=post),
            here.put(who, "app.bsky.graph.follow", subject=ann.did),
            unverified=(Unverified(who.uri("app.bsky.graph.verification/x"), who.did, ann.did, 1),),
        )
    monkeypatch.setattr(notifications, "SLICE", slices)
    purged = NotificationWriter(here.connection, here.fence)
    written = purged.write([NotifierWork(purged=(ben.did,))])
    assert sum(written.removed.values()) == 4
    assert {row["author_did"] for row in here.rows().values()} == {who.did for who in near}


def test_what_an_account_tells_after_its_purge_stays_and_what_it_told_before_goes(
    here: Place,
) -> None:
    ann, ben = here.account(), here.account()

    def lost(name: str) -> NotifierWork:
        uri = ben.uri(f"app.bsky.graph.verification/{name}")
        return NotifierWork(unverified=(Unverified(uri, ben.did, ann.did, TIME),))

    here.notifier.write([lost("before"), NotifierWork(purged=(ben.did,)), lost("after")])
    assert [uri.split("/")[4] for uri in here.rows()] == ["after#notification"]


def story(here: Place) -> list[NotifierWork]:
    """Work of several kinds, some of it about what has gone since."""
    ann, ben, cat = (here.account() for _ in range(3))
    here.subscribe(cat, ann)
    posts = here.thread(ann, ben, cat, ann)
    likes = [here.like(who, posts[1]) for who in (ann, cat)]
    gone = here.like(ben, posts[0])
    works = [
        NotifierWork(records=tuple(posts), fresh=(posts[0],)),
        NotifierWork(records=(gone, *likes)),
        NotifierWork(extended=(posts[1],)),
        NotifierWork(gone=(gone,)),
        NotifierWork(
            unverified=(Unverified(ben.uri("app.bsky.graph.verification/x"), ben.did, ann.did, 1),)
        ),
    ]
    here.delete(ben, gone)
    return works


def contents(here: Place) -> set[tuple[str, str, str]]:
    return {(uri, row["recipient_did"], row["reason"]) for uri, row in here.rows().items()}


def test_any_order_and_any_number_of_times_comes_to_the_same(here: Place) -> None:
    works = story(here)
    here.notifier.write(works)
    expected = contents(here)
    assert {reason for _, _, reason in expected} == {
        "like",
        "reply",
        "subscribed-post",
        "unverified",
    }
    for order in itertools.permutations(works):
        here.connection.execute("DELETE FROM notifications")
        for work in (*order, order[0]):
            here.notifier.write([work])
        assert contents(here) == expected


@pytest.mark.parametrize("slices", [2, 4000])
def test_work_whose_row_is_gone_was_done_before_and_is_not_done_again(
    here: Place, monkeypatch: pytest.MonkeyPatch, slices: int
) -> None:
    ann, ben = here.account(), here.account()
    first, second, *_ = here.thread(*(here.account() for _ in range(6)))
    monkeypatch.setattr(notifications, "SLICE", slices)
    like = here.like(ben, here.post(ann))
    works = [NotifierWork(purged=(ben.did,)), NotifierWork(records=(like,), gone=(first, second))]
    rows = here.leave(*works)
    here.notifier.write(works[1:], rows[1:])
    here.connection.execute("DELETE FROM engine_outbox WHERE id = %s", [rows[0]])
    here.connection.execute("INSERT INTO engine_outbox VALUES (%s, 'notifier', '')", [rows[1]])
    here.notifier.write(works, rows)
    assert outbox.depth(here.connection) == 0
    assert (ann.did, "like") in {(r["recipient_did"], r["reason"]) for r in here.rows().values()}


class Crash(Exception):
    """What a test throws at a crash point."""


@pytest.mark.parametrize("slices", [2, 4000])
@pytest.mark.parametrize("point", ["before_commit", "slice", "after_commit"])
def test_a_crash_at_any_point_loses_and_doubles_nothing(
    here: Place, monkeypatch: pytest.MonkeyPatch, point: str, slices: int
) -> None:
    ann, ben, *fans = (here.account() for _ in range(9))
    follow = here.put(ben, "app.bsky.graph.follow", subject=ann.did)
    for nth in itertools.count(1):
        post = here.post(ann)
        monkeypatch.setattr(notifications, "SLICE", 4000)
        here.look(*(here.like(fan, post) for fan in fans))
        here.delete(ann, post)
        works = [NotifierWork(gone=(post,)), NotifierWork(records=(follow,))]
        rows = here.leave(*works)
        passes = itertools.count(1)

        def reach(name: str, nth: int = nth, passes: Iterator[int] = passes) -> None:
            if name == point and next(passes) == nth:
                raise Crash

        monkeypatch.setattr(notifications, "SLICE", slices)
        crashing = NotificationWriter(here.connection, here.fence, crash_point=reach)
        try:
            crashing.write(works, rows)
        except Crash:
            left = outbox.depth(here.connection)
            assert left == (0 if point == "after_commit" else len(rows))
            crashing.write(works, rows)
        else:
            break
        finally:
            assert outbox.depth(here.connection) == 0
            assert here.told() == {(ann.did, "follow")}
    # Each point was met: a slice as often as there were some.
    assert nth - 1 == (1 if point != "slice" else 5 if slices == 2 else 0)


def test_a_notifier_that_was_replaced_writes_nothing(here: Place) -> None:
    ann, ben = here.account(), here.account()
    like = here.like(ben, here.post(ann))
    rows = here.leave(NotifierWork(records=(like,)))
    here.fence.claim(here.connection)
    claimed(here.connection, NOTIFIER, here.epoch, generation=2)
    with pytest.raises(Fenced):
        write(here.connection, here.fence, [NotifierWork(records=(like,))], rows)
    assert here.told() == set()
    assert outbox.depth(here.connection) == 1
