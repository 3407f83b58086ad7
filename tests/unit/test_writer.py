"""The writer against the reference indexer, on the bundled capture, in one process."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from actors.capture import DEMO, read
from actors.decoder import Batch
from actors.store.batch import Outcome
from actors.store.fence import Fence, raise_epoch
from actors.store.writer import Writer
from tests import tables
from tests.author import Author, ref
from tests.reference import Reference
from tests.settling import settle
from tests.writing import make_index


@pytest.fixture
def writer(index: str) -> Iterator[Writer]:
    with psycopg.connect(index, autocommit=True) as connection:
        yield make_writer(connection)


def make_writer(connection: psycopg.Connection[Any], actor: str = "shard-0") -> Writer:
    fence = Fence(actor, raise_epoch(connection, "test"), 1)
    fence.claim(connection)
    return Writer(connection, fence)


@pytest.fixture
def index(database: str) -> str:
    return make_index(database)


def apply(writer: Writer, frames: Sequence[bytes], size: int) -> Outcome:
    total = Outcome()
    for start in range(0, len(frames), size):
        batch = Batch()
        for frame in frames[start : start + size]:
            batch.add(frame)
        total.add(writer.apply(batch.changes))
    return total


def without_users(all_tables: dict[str, Any]) -> dict[str, Any]:
    return {name: rows for name, rows in all_tables.items() if name != "users"}


@pytest.mark.parametrize("size", [1, 97, 5000])
def test_any_batch_size_gives_the_tables_of_the_reference(
    index: str, writer: Writer, size: int
) -> None:
    frames = list(read(DEMO))
    reference = Reference()
    for frame in frames:
        reference.frame(frame)
    apply(writer, frames, size)
    settle(index)
    expected = without_users(reference.tables())
    assert tables.differences(expected, without_users(tables.read_tables(index))) == []


def test_what_a_viewer_set_by_hand_outlives_what_the_records_say(
    index: str, writer: Writer
) -> None:
    ann = Author(1)
    post = ann.uri("app.bsky.feed.post/a")
    with psycopg.connect(index, autocommit=True) as appview:
        for flag in ("thread_muted", "reply_disabled", "embedding_disabled", "pinned", None):
            apply(writer, [ann.creates("app.bsky.feed.like/a", subject=ref(post))], 1)
            if flag is not None:
                appview.execute(f"UPDATE post_viewer_states SET {flag} = true".encode())
            apply(writer, [ann.deletes("app.bsky.feed.like/a")], 1)
            rows = appview.execute("SELECT like_uri FROM post_viewer_states").fetchall()
            assert rows == ([] if flag is None else [(None,)]), flag
            appview.execute("DELETE FROM post_viewer_states")


def test_a_search_vector_is_filled_where_it_is_asked_for(index: str) -> None:
    ann = Author(1)
    frame = ann.frame(
        ann.put("app.bsky.feed.post/a", text="Snow falls"),
        ann.put("app.bsky.actor.profile/self", displayName="Ann", description="skis"),
    )
    with psycopg.connect(index, autocommit=True) as connection:
        fence = Fence("shard-0", raise_epoch(connection, "test"), 1)
        fence.claim(connection)
        apply(Writer(connection, fence, search=True), [frame], 1)
        found = connection.execute(
            "SELECT (SELECT count(*) FROM posts WHERE search_vector @@ to_tsquery('simple', 'snow')"
            "), (SELECT count(*) FROM users WHERE search_vector @@ to_tsquery('simple', 'skis'))"
        ).fetchone()
    assert found == (1, 1)
