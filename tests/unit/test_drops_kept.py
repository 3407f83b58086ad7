"""The drops that are remembered: what is kept of them, how many, and of whom nothing is."""

from collections.abc import Iterator, Sequence
from threading import Barrier, Thread
from typing import Any

import psycopg
import pytest

from actors.store.arrays import register
from actors.store.batch import Dropped
from actors.store.bisect import apply_bisecting
from actors.store.drops_kept import (
    EXTRA_ROWS,
    MAX_DETAIL,
    MAX_SUBJECT_BYTES,
    MOST_OF_ONE_AUTHOR,
    as_subject,
    author_of,
    record_drops,
)
from tests.author import Author
from tests.writing import begin_run, decoded, make_index, session, writer

DID = "did:plc:" + "a" * 24
OTHER = "did:plc:" + "b" * 24


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with session(make_index(database), "test") as opened:
        register(opened)
        yield opened


def drop(number: int, did: str = DID, reason: str = "invalid_record") -> Dropped:
    return Dropped(reason, f"at://{did}/app.bsky.feed.post/{number}", f"detail {number}")


def record(connection: psycopg.Connection[Any], drops: Sequence[Dropped], keep: int = 1000) -> None:
    with connection.transaction(), connection.pipeline():
        record_drops(connection, drops, keep)


def kept(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    return connection.execute(
        "SELECT subject, reason, detail FROM engine_drops ORDER BY id"
    ).fetchall()


def test_a_drop_is_kept_with_its_reason(connection: psycopg.Connection[Any]) -> None:
    record(connection, [drop(1), Dropped("bad_commit", DID, "no root")])
    assert kept(connection) == [
        (f"at://{DID}/app.bsky.feed.post/1", "invalid_record", "detail 1"),
        (DID, "bad_commit", "no root"),
    ]
    assert [author_of(subject) for subject, *_ in kept(connection)] == [DID, DID]


def test_the_oldest_go_when_there_are_too_many(connection: psycopg.Connection[Any]) -> None:
    for number in range(50):
        record(connection, [drop(number)], keep=20)
    assert [detail for _, _, detail in kept(connection)] == [f"detail {n}" for n in range(30, 50)]


def test_a_smaller_bound_is_reached_step_by_step(connection: psycopg.Connection[Any]) -> None:
    total = 3 * EXTRA_ROWS
    for start in range(0, total, MOST_OF_ONE_AUTHOR):
        record(connection, [drop(start + number) for number in range(MOST_OF_ONE_AUTHOR)])
    record(connection, [drop(total)], keep=5)
    assert len(kept(connection)) == total - EXTRA_ROWS
    for more in range(3):
        record(connection, [drop(total + more)], keep=5)
    assert len(kept(connection)) == 5


def test_one_author_does_not_push_out_the_others(connection: psycopg.Connection[Any]) -> None:
    flood = [drop(number) for number in range(5 * MOST_OF_ONE_AUTHOR)]
    record(connection, [*flood, drop(1, OTHER)], keep=MOST_OF_ONE_AUTHOR + 1)
    assert len(kept(connection)) == MOST_OF_ONE_AUTHOR + 1
    assert kept(connection)[-1][0] == f"at://{OTHER}/app.bsky.feed.post/1"


@pytest.mark.parametrize("reason", ["opted_out", "taken_down", "account_inactive"])
def test_what_the_state_of_the_account_explains_is_not_kept(
    connection: psycopg.Connection[Any], reason: str
) -> None:
    record(connection, [drop(1, reason=reason)])
    assert kept(connection) == []


def test_of_one_who_opted_out_nothing_is_kept(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "INSERT INTO user_settings (user_did, data_collection_forbidden)"
        " VALUES (%s, true), (%s, false)",
        [DID, OTHER],
    )
    record(connection, [drop(1), Dropped("bad_commit", DID, ""), drop(2, OTHER)])
    assert [detail for _, _, detail in kept(connection)] == ["detail 2"]


def test_text_of_any_kind_and_length_is_taken(connection: psycopg.Connection[Any]) -> None:
    endless = f"at://did:web:{'a' * 2000}.test/app.bsky.feed.post/{'ä' * 3000}"
    record(
        connection,
        [
            Dropped("bad_frame", "", "nobody"),
            Dropped("bad_frame", endless, "x" * 9000),
            Dropped("bad_frame", "at://", "\0 \udcff"),
        ],
    )
    (first, _, long), (_, _, odd) = kept(connection)
    assert first == as_subject(endless)
    assert len(first.encode()) <= MAX_SUBJECT_BYTES
    assert len(long) == MAX_DETAIL
    assert odd == " ?"


def test_nothing_is_kept_where_the_bound_is_nothing(connection: psycopg.Connection[Any]) -> None:
    record(connection, [drop(1)], keep=0)
    assert kept(connection) == []


def test_two_writers_take_the_oldest_away_without_waiting_for_each_other(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    record(connection, [drop(number) for number in range(50)])
    both_have_pruned = Barrier(2)
    failed: list[BaseException] = []

    def write(author: str) -> None:
        try:
            with session(database, author) as own, own.transaction():
                record_drops(own, [drop(number, author) for number in range(10)], 20)
                # Each holds the locks of its own transaction until the other is here too.
                both_have_pruned.wait(120)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failed.append(error)

    threads = [Thread(target=write, args=(author,)) for author in (OTHER, "did:plc:c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    record(connection, [drop(1)], keep=20)
    assert len(kept(connection)) == 20


def test_a_batch_remembers_its_drops_once_with_those_of_its_frames(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    author = Author(1)
    frames = [
        author.creates("app.bsky.feed.post/good", text="fine"),
        author.creates("app.bsky.feed.post/bad", text=7),
        author.creates("app.bsky.actor.profile/other", displayName="not self"),
        author.creates("app.bsky.feed.post/last", text="fine").replace(b"did:plc:", b"did:pcl:", 1),
    ]
    batch = decoded(frames)
    with writer(database, begin_run(database), kept_drops=100) as writing:
        for _time in range(2):
            apply_bisecting(writing, batch.changes, (), {}, lambda _seconds: None)
        apply_bisecting(writing, (), (), {}, lambda _seconds: None, batch.drops)
    assert [(subject, reason) for subject, reason, _ in kept(connection)] == [
        (author.uri("app.bsky.feed.post/bad"), "invalid_record"),
        (author.uri("app.bsky.actor.profile/other"), "not_authorized"),
        (author.did.replace("did:plc:", "did:pcl:"), "commit_mismatch"),
    ]


def test_a_batch_that_is_refused_remembers_its_drops_in_the_half_that_is_written(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    # As on a database that another program made.
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.text = 'poison' THEN RAISE check_violation; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON posts FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    author = Author(1)
    frames = [author.creates(f"app.bsky.feed.post/{n}", text=text) for n, text in enumerate("abc")]
    frames.append(author.creates("app.bsky.feed.post/poison", text="poison"))
    others = [Dropped("bad_frame", OTHER, "of the batch")]
    with writer(database, begin_run(database), kept_drops=100) as writing:
        changes = decoded(frames).changes
        apply_bisecting(writing, changes, (), {}, lambda _seconds: None, others)
    assert [(subject, reason) for subject, reason, _ in kept(connection)] == [
        (OTHER, "bad_frame"),
        (author.uri("app.bsky.feed.post/poison"), "database_refused"),
    ]
