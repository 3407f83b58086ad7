"""Small repositories that were fetched whole: several in one transaction, each with its guard."""

from collections.abc import Iterator

import pytest

from actors.store import resync
from actors.store.batch import AccountState, Outcome
from actors.store.resync import Whole
from tests.author import Author
from tests.unit.test_resync import LATER, LIKE, POST, PROFILE, Stage, no_wait, of, rev_at
from tests.unit.test_resync_meets_others import refuse
from tests.writing import begin_run, make_index, session, writer

REV = rev_at(LATER)
GUARDS = "SELECT did, rev, data, out_of_step FROM engine_repos ORDER BY did"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    with (
        writer(conninfo, begin_run(conninfo)) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(writing, connection)


def whole(author: Author, *paths: str, rev: str = REV) -> Whole:
    return Whole(of(author, rev, *paths), b"data")


def apply(stage: Stage, *repositories: Whole) -> Outcome:
    return resync.apply_whole(stage.writing, repositories, no_wait)


def posts(stage: Stage) -> list[str]:
    return sorted(stage.column("SELECT uri FROM posts"))


def test_what_each_lacks_goes_and_what_it_has_comes_with_its_guard(stage: Stage) -> None:
    ann, bob = sorted((Author(1), Author(2)), key=lambda author: author.did)
    stage.live(
        ann.creates(f"{POST}/a", text="a"),
        ann.creates(f"{LIKE}/a", subject={"uri": ann.uri(f"{POST}/a"), "cid": "bafyx"}),
        ann.creates(PROFILE, displayName="old"),
        bob.creates(f"{POST}/a", text="a"),
    )
    outcome = apply(stage, whole(ann, f"{POST}/b"), whole(bob, f"{POST}/a", f"{POST}/c"))
    assert outcome.stale == 0
    assert posts(stage) == sorted(
        [ann.uri(f"{POST}/b"), bob.uri(f"{POST}/a"), bob.uri(f"{POST}/c")]
    )
    assert stage.rows("SELECT * FROM likes") == []
    assert stage.column("SELECT did FROM users WHERE profile_record IS NOT NULL") == []
    assert stage.rows(GUARDS) == [(each.did, REV, b"data", False) for each in (ann, bob)]


def test_the_same_again_changes_nothing(stage: Stage) -> None:
    author = Author(1)
    for _ in range(2):
        apply(stage, whole(author, f"{POST}/a", f"{LIKE}/b"))
    assert posts(stage) == [author.uri(f"{POST}/a")]
    assert stage.column("SELECT like_count FROM post_aggregations WHERE like_count > 0") == [1]


def test_one_that_a_live_commit_has_overtaken_changes_nothing(stage: Stage) -> None:
    late, early = Author(1), Author(2)
    stage.live(late.creates(f"{POST}/new", text="new"))
    (guard,) = stage.rows(GUARDS)
    old = whole(late, f"{POST}/old", rev=rev_at(1_000_000_000_000_000))
    outcome = apply(stage, old, whole(early, f"{POST}/a"))
    assert outcome.stale > 0
    assert posts(stage) == sorted([late.uri(f"{POST}/new"), early.uri(f"{POST}/a")])
    assert guard in stage.rows(GUARDS)


def test_one_that_is_out_of_step_is_left_to_a_fetch_during_which_its_events_wait(
    stage: Stage,
) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    # It goes and comes back after its file was read.
    for seq, active in ((100, False), (101, True)):
        stage.writing.apply([AccountState(author.did, active, None, "h", seq, seq)])
    apply(stage, whole(author, f"{POST}/b"))
    assert posts(stage) == [author.uri(f"{POST}/a")]
    assert stage.column("SELECT out_of_step FROM engine_repos") == [True]


def test_one_that_is_refused_holds_up_no_other_and_its_guard_tells(stage: Stage) -> None:
    bad, good = Author(1), Author(2)
    refuse(stage.connection, bad.uri(f"{POST}/bad"))
    work = [("user_gate", b"body")]
    repositories = [whole(bad, f"{POST}/bad", f"{POST}/b"), whole(good, f"{POST}/a")]
    resync.apply_whole(stage.writing, repositories, no_wait, work)
    assert posts(stage) == [good.uri(f"{POST}/a")]
    assert stage.column("SELECT did FROM engine_repos") == [good.did]
    # Whom they speak of is made all the same, and once.
    assert stage.column("SELECT count(*) FROM engine_outbox WHERE receiver = 'user_gate'") == [1]


def test_one_of_which_very_much_is_gone_is_left_to_slices(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = Author(1)
    stage.live(*(author.creates(f"{POST}/{letter}", text="x") for letter in "abc"))
    monkeypatch.setattr(resync, "REMOVED_AT_ONCE", 3)
    apply(stage, whole(author, f"{POST}/d"))
    assert len(posts(stage)) == 3
    stage.slice(author, REV, "", None, f"{POST}/d")
    assert posts(stage) == [author.uri(f"{POST}/d")]


def test_an_opt_out_and_a_hidden_account_hold_here_too(stage: Stage) -> None:
    author, hidden = Author(1), Author(2)
    stage.connection.execute(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        [author.did],
    )
    stage.writing.apply([AccountState(hidden.did, False, "suspended", "h", 1, 1)])
    apply(stage, whole(author, f"{POST}/a"), whole(hidden, f"{POST}/a"))
    assert posts(stage) == []
    assert stage.rows("SELECT did, withheld FROM engine_repos") == [(author.did, True)]
