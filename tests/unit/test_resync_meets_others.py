"""A repository that is fetched whole, while other things happen to its account."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.store import resync
from actors.store.batch import AccountState
from actors.store.forget import forget
from actors.store.writer import Writer
from tests.author import Author, account_event
from tests.unit.test_resync import LATER, LIKE, POST, Stage, decode, no_wait, rev_at
from tests.writing import begin_run, make_index, session, writer

OUT_OF_STEP = "SELECT out_of_step FROM engine_repos"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    with (
        writer(conninfo, begin_run(conninfo), parked_bytes=1_000_000) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(writing, connection)


def account(author: Author, seq: int, status: str | None = None) -> AccountState:
    return AccountState(author.did, status is None, status, "", seq, seq)


def ended(stage: Stage, author: Author) -> None:
    resync.end(stage.writing, author.did, rev_at(LATER), b"data", no_wait)
    stage.drain(author)


def test_an_account_that_was_away_while_slices_came_is_fetched_anew(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.writing.apply([account(author, 100, "deactivated")])
    stage.slice(author, rev_at(LATER), "", None, f"{POST}/a", f"{POST}/b")
    stage.writing.apply([account(author, 101)])
    ended(stage, author)
    assert stage.column(OUT_OF_STEP) == [True]


def test_an_account_that_was_deleted_and_returned_after_its_slices_is_fetched_anew(
    stage: Stage,
) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.slice(author, rev_at(LATER), "", None, f"{POST}/a", f"{POST}/b")
    stage.writing.apply([account(author, 100, "deleted"), account(author, 101)])
    ended(stage, author)
    while stage.writing.purge_slice(author.did) is not None:
        pass
    assert stage.rows("SELECT * FROM posts") == []
    assert stage.column(OUT_OF_STEP) == [True]


def test_an_author_who_opted_out_and_in_again_between_slices_is_fetched_anew(
    stage: Stage,
) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    for forbidden in (True, False):
        stage.connection.execute(
            "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, %s)"
            " ON CONFLICT (user_did) DO UPDATE SET data_collection_forbidden = %s",
            [author.did, forbidden, forbidden],
        )
        if forbidden:
            stage.slice(author, rev_at(LATER), "", None, f"{POST}/a", f"{POST}/b")
    ended(stage, author)
    assert stage.rows("SELECT * FROM posts") == []
    assert stage.rows("SELECT 1 FROM engine_repos WHERE out_of_step OR withheld") == [(1,)]


def test_what_waited_is_applied_though_an_event_of_the_account_overtook_it(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    (rev,) = stage.column("SELECT rev FROM engine_repos")
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    stage.writing.apply([account(author, 10**9)])
    stage.slice(author, rev, "", None, f"{POST}/a")
    resync.end(stage.writing, author.did, rev, b"data", no_wait)
    stage.drain(author)
    assert sorted(stage.column("SELECT uri FROM posts")) == [
        author.uri(f"{POST}/a"),
        author.uri(f"{POST}/b"),
    ]


def test_labels_that_came_from_a_labeler_are_no_records_of_its_repository(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.connection.execute(
        "INSERT INTO labels (uri, src, subject, val, created_at, sig, ver)"
        " VALUES (%s, %s, 'did:web:s.test', 'spam', now(), 'x', 1)",
        [f"at://{author.did}/com.atproto.label.label/0123456789abcdef", author.did],
    )
    stage.whole(author, rev_at(LATER), f"{POST}/a")
    assert len(stage.rows("SELECT * FROM labels")) == 1


def test_bookmarks_that_the_appview_keeps_are_no_records_of_the_repository(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.connection.execute(
        "INSERT INTO bookmarks (uri, user_did, post_uri, created_at) VALUES (%s, %s, %s, now())",
        [author.uri("app.bsky.bookmark/x"), author.did, author.uri(f"{POST}/a")],
    )
    stage.whole(author, rev_at(LATER), f"{POST}/a")
    assert len(stage.rows("SELECT * FROM bookmarks")) == 1
    assert stage.column("SELECT bookmark_count FROM post_aggregations") == [0]


def test_what_waits_of_a_user_goes_when_the_user_is_to_be_forgotten(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    forget(stage.connection, author.did, lambda body, _did: body)
    while stage.writing.purge_slice(author.did) is not None:
        pass
    assert stage.rows("SELECT * FROM engine_resync_buffer") == []
    ended(stage, author)
    assert stage.rows("SELECT * FROM posts") == []
    assert stage.rows("SELECT * FROM engine_parked") == []


def refuse(connection: psycopg.Connection[Any], uri: str) -> None:
    """Have PostgreSQL refuse a post."""
    connection.execute(f"ALTER TABLE posts ADD CONSTRAINT refused CHECK (uri <> '{uri}')")


def test_of_what_waits_only_the_record_that_is_refused_is_lost(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    refuse(stage.connection, author.uri(f"{POST}/bad"))
    (rev,) = stage.column("SELECT rev FROM engine_repos")
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(
        author.creates(f"{POST}/b", text="b"),
        author.creates(f"{POST}/c", text="c"),
        author.frame(
            author.put(f"{POST}/bad", text="d"),
            author.put(f"{POST}/d", text="d"),
        ),
        author.creates(f"{POST}/e", text="e"),
    )
    stage.slice(author, rev, "", None, f"{POST}/a")
    resync.end(stage.writing, author.did, rev, b"data", no_wait)
    stage.drain(author)
    kept = sorted(uri.rpartition("/")[2] for uri in stage.column("SELECT uri FROM posts"))
    assert kept == ["a", "b", "c", "d", "e"]


def test_what_waits_is_not_drained_once_a_new_fetch_has_begun(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    resync.end(stage.writing, author.did, None, None, no_wait)
    resync.begin(stage.writing, author.did, no_wait)
    assert resync.drain(stage.writing, author.did, decode, no_wait) is None
    assert stage.column("SELECT uri FROM posts") == [author.uri(f"{POST}/a")]
    ended(stage, author)


def test_what_a_repository_holds_no_more_goes_in_parts(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = Author(1)
    stage.live(
        author.frame(*(author.put(f"{POST}/{number:03}", text="a") for number in range(50))),
        author.frame(*(author.put(f"com.example.x/{number:03}", a=1) for number in range(20))),
    )
    monkeypatch.setattr(resync, "REMOVED_AT_ONCE", 8)
    largest = 0
    transact = Writer._write_rows

    def write_rows(self: Writer, plan: Any, found: Any) -> None:
        nonlocal largest
        deleted = sum(len(table.delete) for table in plan.tables.values())
        largest = max(largest, deleted)
        transact(self, plan, found)

    monkeypatch.setattr(Writer, "_write_rows", write_rows)
    stage.whole(author, rev_at(LATER), f"{POST}/049", f"{LIKE}/a")
    assert stage.column("SELECT uri FROM posts") == [author.uri(f"{POST}/049")]
    assert stage.rows("SELECT * FROM generic_records") == []
    assert largest <= 8


def test_a_status_with_a_nul_does_not_stop_the_shard(stage: Stage) -> None:
    author = Author(1)
    stage.live(account_event(author.did, 5, "odd\0status"))
    assert len(stage.rows("SELECT * FROM engine_accounts WHERE NOT active")) == 1
