"""Commits whose signature cannot be verified: they wait for the identity, and then are applied or
dropped."""

import copy
from collections.abc import Iterator

import pytest

from actors.store import resync
from actors.store.batch import IdentityState
from actors.store.parking import NO_KEY, RESYNC, WRONG_KEY
from bench.network_account import key_of
from tests.unproven import Signer, Stage, no_wait
from tests.writing import begin_run, make_index, session, writer

POST = "app.bsky.feed.post"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    epoch = begin_run(conninfo)
    with (
        writer(conninfo, epoch, kept_drops=100) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(writing, connection, epoch)


def forger_of(author: Signer) -> Signer:
    """Somebody who writes in an author's name, from the same state on, with another key."""
    forger = Signer(author.index)
    forger.__dict__.update(author.__dict__, _tree=copy.deepcopy(author._tree))
    forger.key = key_of(9, 9)
    return forger


def told(author: Signer, seq: int = 1) -> IdentityState:
    """An event that says that something about the identity has changed."""
    return IdentityState(author.did, "host", seq, seq)


def test_a_commit_by_a_known_key_is_applied_at_once(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    assert stage.live(author.creates(f"{POST}/a", text="a")).commits == 1
    assert stage.parked() == []


def test_commits_without_a_known_key_wait_in_order_and_hold_up_nobody(stage: Stage) -> None:
    author, other = Signer(1), Signer(2)
    stage.meet(author)
    stage.resolved(other, other.multikey)
    outcome = stage.live(
        author.creates(f"{POST}/a", text="a"),
        other.creates(f"{POST}/o", text="o"),
        author.deletes(f"{POST}/a"),
    )
    stage.live(author.creates(f"{POST}/b", text="b"))
    assert (outcome.commits, outcome.parked) == (1, 2)
    assert stage.posts() == ["o"]
    assert stage.parked() == [(NO_KEY, False)]
    stage.resolved(author, author.multikey)
    assert stage.ready() == [author.did]
    stage.drain()
    assert stage.posts() == ["b", "o"]
    assert stage.parked() == []
    assert stage.live(author.creates(f"{POST}/c", text="c")).commits == 1


def test_after_a_change_of_keys_the_new_one_is_right_and_what_came_before_it_too(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    before = author.creates(f"{POST}/a", text="a")
    author.key = key_of(5, 5)
    # In one batch: what is signed by the old key is not judged by the new one.
    outcome = stage.live(before, author.creates(f"{POST}/b", text="b"))
    assert (outcome.commits, outcome.parked) == (1, 1)
    assert stage.parked() == [(WRONG_KEY, False)]
    assert stage.asked_again(author)
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.refused() == []


def test_nothing_is_verified_by_a_key_that_may_have_changed(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    stage.live(author.creates(f"{POST}/a", text="a"))
    # The old key leaked, so the author took another one, and says so.
    thief = forger_of(author)
    thief.key = author.key
    author.key = key_of(5, 5)
    outcome = stage.live(thief.creates(f"{POST}/z", text="stolen"), before=[told(author)])
    assert (outcome.commits, outcome.parked) == (0, 1)
    stage.live(author.creates(f"{POST}/b", text="b"))
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.refused() == [("bad_signature", author.did)]
    thief.creates(f"{POST}/y", text="stolen")
    stage.live(thief.creates(f"{POST}/x", text="stolen"))
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]


def test_what_is_signed_by_somebody_else_is_dropped_once_the_identity_was_looked_at(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    forger = forger_of(author)
    stage.live(forger.creates(f"{POST}/a", text="forged"))
    assert stage.asked_again(author)
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == []
    assert stage.refused() == [("bad_signature", author.did)]
    assert stage.tallied() == 1
    assert stage.run("SELECT subject, reason FROM engine_drops") == [(author.did, "bad_signature")]
    assert not stage.asked_again(author), "once is enough"
    assert stage.live(author.creates(f"{POST}/b", text="b")).commits == 1


def test_an_account_without_a_key_has_its_commits_dropped_when_that_is_certain(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.answer(stage.ask(author), None, settled=False, known=False)
    assert stage.ready() == [], "the directory said nothing"
    stage.answer(stage.ask(author), None)
    stage.drain()
    assert stage.posts() == []
    assert stage.refused() == [("bad_signature", author.did)]


def test_a_document_counts_though_the_handle_in_it_cannot_be_checked(stage: Stage) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.answer(stage.ask(author), author.multikey, settled=False)
    stage.drain()
    assert stage.posts() == ["a"]


def test_an_answer_from_before_the_question_says_nothing(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, old := author.multikey)
    asked = stage.ask(author)
    author.key = key_of(5, 5)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.answer(asked, old)
    assert stage.ready() == []
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a"]
    assert stage.refused() == []


def test_a_key_that_is_looked_up_ends_no_fetch_of_the_repository(stage: Stage) -> None:
    author = Signer(1)
    stage.meet(author)
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.resolved(author, author.multikey)
    assert stage.ready() == []
    assert stage.parked() == [(RESYNC, False)]


def test_a_change_of_keys_while_the_repository_is_fetched_loses_nothing(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    author.key = key_of(5, 5)
    stage.live(author.creates(f"{POST}/c", text="c"))
    resync.end(stage.writing, author.did, None, None, no_wait)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.parked() == [(WRONG_KEY, False)]
    assert stage.asked_again(author)
    stage.live(author.creates(f"{POST}/d", text="d"))
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b", "c", "d"]
    assert stage.refused() == []
    assert stage.parked() == []


def test_a_fetch_that_begins_while_a_key_is_waited_for_keeps_the_order(stage: Stage) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    stage.resolved(author, author.multikey)
    assert stage.ready() == []
    stage.live(author.deletes(f"{POST}/a"))
    resync.end(stage.writing, author.did, None, None, no_wait)
    stage.drain()
    assert stage.posts() == ["b"]
    assert stage.refused() == []


def test_what_is_forged_between_two_looks_costs_one_more_look_and_nothing_else(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.resolved(author, author.multikey)
    # It is ready and not drained yet.
    stage.live(forger_of(author).creates(f"{POST}/f", text="forged"))
    stage.live(author.creates(f"{POST}/b", text="b"))
    stage.drain()
    assert stage.posts() == ["a"]
    assert stage.asked_again(author)
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.refused() == [("bad_signature", author.did)]


def test_what_came_before_an_identity_changed_again_is_judged_by_what_was_looked_up(
    stage: Stage,
) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    forged = forger_of(author).creates(f"{POST}/f", text="forged")
    stage.live(forged)
    stage.resolved(author, author.multikey)
    # Ready, and something changes before it is drained.
    author.key = key_of(5, 5)
    stage.live(author.creates(f"{POST}/b", text="b"), before=[told(author)])
    stage.drain()
    assert stage.posts() == ["a"]
    assert stage.refused() == [], "nothing is refused by a key that may have changed"
    stage.resolved(author, author.multikey)
    stage.drain()
    assert stage.posts() == ["a", "b"]
    assert stage.refused() == [("bad_signature", author.did)]


def test_what_comes_again_after_a_change_of_keys_is_known_already(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    frames = [author.creates(f"{POST}/{name}", text=name) for name in "ab"]
    stage.live(*frames)
    author.key = key_of(5, 5)
    stage.resolved(author, author.multikey)
    stage.verification = type(stage.verification)()
    outcome = stage.live(*frames)
    assert (outcome.replayed, outcome.parked) == (2, 0)


def test_an_identity_of_before_the_account_was_met_is_looked_at_again(stage: Stage) -> None:
    author = Signer(1)
    stage.resolved(author, author.multikey)
    stage.run("DELETE FROM users WHERE did = %s", author.did)
    author.key = key_of(5, 5)
    stage.live(author.creates(f"{POST}/a", text="a"))
    assert stage.asked_again(author)


def test_who_waits_at_a_start_is_asked_for_again(stage: Stage) -> None:
    author = Signer(1)
    stage.meet(author)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.run("UPDATE engine_identities SET stale = false, next_check = now() + interval '1 day'")
    resync.begin_run(stage.writing, [RESYNC], [NO_KEY, WRONG_KEY], no_wait)
    assert stage.asked_again(author)
    resync.begin_run(stage.writing, [NO_KEY, WRONG_KEY], [], no_wait)
    assert stage.ready() == [author.did]
