"""What an error of PostgreSQL means to who writes: only a record's own fault is the record's."""

from collections.abc import Iterator, Sequence

import psycopg
import pytest

from actors.store.batch import Change
from actors.store.bisect import apply_bisecting
from actors.store.session import DatabaseAway, DatabaseUnusable
from actors.store.writer import Writer
from tests.author import TIME, Author
from tests.writing import begin_run, claimed, decoded, make_index, session


@pytest.fixture
def writing(database: str) -> Iterator[Writer]:
    make_index(database)
    epoch = begin_run(database)
    with session(database, "shard-0") as connection:
        connection.execute("SET statement_timeout = '2s'")
        connection.execute("SET lock_timeout = '5ms'")
        yield Writer(connection, claimed(connection, "shard-0", epoch))


def posts(count: int) -> Sequence[Change]:
    author = Author(1)
    frames = [
        author.creates(f"app.bsky.feed.post/{number:03}", text="x", createdAt=TIME)
        for number in range(count)
    ]
    return decoded(frames).changes


def execute(database: str, statement: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement.encode())


def on_posts(database: str, each: str, body: str) -> None:
    execute(
        database,
        "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NEW; END $$;"
        f" CREATE TRIGGER meddle BEFORE INSERT ON posts FOR EACH {each}"
        " EXECUTE FUNCTION meddle()",
    )


def apply(writing: Writer, changes: Sequence[Change]) -> int:
    return apply_bisecting(writing, changes, (), {}, lambda _seconds: None).commits


def test_a_trigger_that_raises_is_no_record_s_fault(database: str, writing: Writer) -> None:
    on_posts(database, "ROW", "RAISE EXCEPTION 'not on my watch';")
    with pytest.raises(DatabaseUnusable, match="not on my watch"):
        apply(writing, posts(3))


def test_a_missing_column_is_no_record_s_fault(database: str, writing: Writer) -> None:
    execute(database, "ALTER TABLE posts DROP COLUMN facets")
    with pytest.raises(DatabaseUnusable, match="facets"):
        apply(writing, posts(3))


def test_a_primary_that_became_a_standby_is_away(database: str, writing: Writer) -> None:
    on_posts(database, "ROW", "RAISE EXCEPTION 'read only' USING ERRCODE = '25006';")
    with pytest.raises(DatabaseAway, match="read only"):
        apply(writing, posts(1))


def test_a_lock_that_somebody_keeps_is_no_record_s_fault(database: str, writing: Writer) -> None:
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE posts IN SHARE MODE")
        with pytest.raises(DatabaseAway, match="lock"):
            apply(writing, posts(1))
    assert apply(writing, posts(1)) == 1


def test_a_batch_that_is_too_slow_as_a_whole_is_halved(database: str, writing: Writer) -> None:
    on_posts(database, "ROW", "PERFORM pg_sleep(0.4);")
    assert apply(writing, posts(8)) == 8


def test_a_commit_that_is_too_slow_alone_is_tried_again_later(
    database: str, writing: Writer
) -> None:
    on_posts(database, "ROW", "PERFORM pg_sleep(60);")
    with pytest.raises(DatabaseAway, match="too long"):
        apply(writing, posts(1))
