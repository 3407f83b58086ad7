"""What other indexers of this network were seen to do wrong, one test each, named after it.

The numbers are those of docs/failures.md, which also names the tests that hold the rest.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.author import Author, ref, reply
from tests.histories import Sent
from tests.settling import Engine
from tests.writing import make_index, session

ROOT = Path(__file__).parents[2]
POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
REPOST = "app.bsky.feed.repost"
FOLLOW = "app.bsky.graph.follow"
GATE = "app.bsky.feed.threadgate"


class Index:
    """An engine with two shards, and a look at its rows."""

    def __init__(self, engine: Engine, connection: psycopg.Connection[Any]) -> None:
        self._engine = engine
        self._connection = connection

    def take(self, *written: tuple[Author, bytes]) -> None:
        """Have frames carried out, whatever follows from them included."""
        self._engine.deliver(Sent(author.did, frame) for author, frame in written)
        self._engine.settle()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode()).fetchall()

    def do(self, statement: str, *parameters: Any) -> None:
        self._connection.execute(statement.encode(), parameters)

    def counts(self, uri: str) -> tuple[Any, ...]:
        """Likes, reposts, replies, quotes of a post."""
        row: tuple[Any, ...]
        (row,) = self._connection.execute(
            "SELECT like_count, repost_count, reply_count, quote_count FROM post_aggregations"
            " WHERE post_uri = %s",
            [uri],
        ).fetchall()
        return row

    def told(self) -> list[tuple[Any, ...]]:
        """Reasons and recipients of all notifications."""
        return sorted(self.rows("SELECT reason, recipient_did FROM notifications"))


@pytest.fixture
def index(database: str) -> Iterator[Index]:
    conninfo = make_index(database)
    with Engine(conninfo, shards=2, seed=1) as engine, session(conninfo, "test") as connection:
        yield Index(engine, connection)


def people(number: int) -> list[Author]:
    return [Author(index) for index in range(number)]


def test_1_a_like_and_a_reply_before_their_post_count_and_are_told_of(index: Index) -> None:
    author, fan = people(2)
    post = author.uri(f"{POST}/p")
    index.take((fan, fan.creates(f"{LIKE}/l", subject=ref(post))))
    index.take((fan, fan.creates(f"{POST}/r", text="r", reply=reply(post))))
    assert index.told() == []
    index.take((author, author.creates(f"{POST}/p", text="p")))
    assert index.counts(post) == (1, 0, 1, 0)
    assert index.told() == [("like", author.did), ("reply", author.did)]
    assert len(index.rows("SELECT * FROM posts")) == 2


def test_2_a_like_and_a_repost_of_one_post_share_a_view_and_lose_nothing(index: Index) -> None:
    author, fan = people(2)
    post = author.uri(f"{POST}/p")
    view = "SELECT like_uri IS NOT NULL, repost_uri IS NOT NULL FROM post_viewer_states"
    index.take((author, author.creates(f"{POST}/p", text="p")))
    index.take((fan, fan.creates(f"{LIKE}/l", subject=ref(post))))
    index.take((fan, fan.creates(f"{REPOST}/s", subject=ref(post))))
    assert index.counts(post) == (1, 1, 0, 0)
    assert index.rows(view) == [(True, True)]
    index.take((fan, fan.deletes(f"{LIKE}/l")))
    assert index.rows(view) == [(False, True)]
    index.take((fan, fan.deletes(f"{REPOST}/s")))
    assert index.rows(view) == []


def test_3_twenty_replies_count_twenty_and_replays_and_deletions_count_right(
    index: Index,
) -> None:
    author, *fans = people(21)
    post = author.uri(f"{POST}/p")
    index.take((author, author.creates(f"{POST}/p", text="p")))
    replies = [(fan, fan.creates(f"{POST}/r", text="r", reply=reply(post))) for fan in fans]
    likes = [(fan, fan.creates(f"{LIKE}/l", subject=ref(post))) for fan in fans]
    for _ in range(3):
        index.take(*replies, *likes)
    assert index.counts(post) == (20, 0, 20, 0)
    index.take(*((fan, fan.deletes(f"{POST}/r")) for fan in fans[:5]))
    assert index.counts(post) == (20, 0, 15, 0)


def test_4_what_is_created_and_deleted_back_to_back_leaves_no_ghost(index: Index) -> None:
    (author,) = people(1)
    frames = []
    for number in range(300):
        frames.append((author, author.creates(f"{POST}/n{number}", text="n")))
        frames.append((author, author.deletes(f"{POST}/n{number}")))
    index.take(*frames)
    for table in ("posts", "feed_items", "post_aggregations"):
        assert index.rows(f"SELECT * FROM {table}") == []


def test_5_updates_count_and_deletions_take_along_what_was_made_of_a_record(index: Index) -> None:
    author, fan = people(2)
    post, other = author.uri(f"{POST}/p"), author.uri(f"{POST}/o")
    quote = {"$type": "app.bsky.embed.record", "record": ref(post)}
    requote = {"$type": "app.bsky.embed.record", "record": ref(other)}
    lists = "app.bsky.graph.list/a"
    index.take(
        (author, author.creates(f"{POST}/p", text="p")),
        (author, author.creates(f"{POST}/o", text="o")),
        (author, author.creates(lists, name="a", purpose="app.bsky.graph.defs#curatelist")),
    )
    index.take((fan, fan.creates(f"{POST}/q", text="q", embed=quote)))
    assert (index.counts(post)[3], index.counts(other)[3]) == (1, 0)
    index.take((fan, fan.creates(f"{POST}/q", text="changed", embed=requote)))
    assert (index.counts(post)[3], index.counts(other)[3]) == (0, 1)
    assert index.told() == [("quote", author.did)]
    index.take((author, author.creates(lists, name="b", purpose="app.bsky.graph.defs#curatelist")))
    assert index.rows("SELECT name FROM lists") == [("b",)]
    index.take((fan, fan.deletes(f"{POST}/q")))
    assert index.counts(other)[3] == 0
    assert index.told() == []
    assert index.rows("SELECT * FROM quotes") == []


def test_6_records_keep_their_own_time_names_and_form(index: Index) -> None:
    (author,) = people(1)
    embed = {"$type": "app.bsky.embed.external", "external": {"uri": "https://a.test/"}}
    index.take(
        (author, author.creates(f"{POST}/p", text="p", embed=embed)),
        (author, author.creates("app.bsky.actor.profile/self", displayName="A person")),
    )
    assert index.rows("SELECT created_at::text, embed FROM posts") == [
        ("2025-01-01 00:00:00", embed)
    ]
    assert index.rows("SELECT display_name FROM users WHERE display_name IS NOT NULL") == [
        ("A person",)
    ]


def test_10_mutual_follows_of_new_users_lose_none(index: Index) -> None:
    everybody = people(12)
    frames = [
        (one, one.creates(f"{FOLLOW}/n{number}", subject=other.did))
        for one in everybody
        for number, other in enumerate(everybody)
        if other is not one
    ]
    index.take(*frames)
    assert len(index.rows("SELECT * FROM follows")) == 12 * 11
    assert index.rows(
        "SELECT DISTINCT followers_count, follows_count FROM engine_user_aggregations"
    ) == [(11, 11)]


def test_11_what_waits_is_told_when_its_subject_comes_and_what_was_cancelled_is_not(
    index: Index,
) -> None:
    author, fan, other = people(3)
    post = author.uri(f"{POST}/p")
    index.take(
        (fan, fan.creates(f"{LIKE}/l", subject=ref(post))),
        (fan, fan.creates(f"{REPOST}/s", subject=ref(post))),
        (other, other.creates(f"{LIKE}/l", subject=ref(post))),
    )
    index.take((other, other.deletes(f"{LIKE}/l")))
    assert index.rows("SELECT kind FROM engine_pending ORDER BY 1") == [("like",), ("repost",)]
    index.take((author, author.creates(f"{POST}/p", text="p")))
    assert index.told() == [("like", author.did), ("repost", author.did)]
    assert index.rows("SELECT * FROM engine_pending") == []


def test_15_verifications_of_several_issuers_gates_for_nobody_and_lists_of_others(
    index: Index,
) -> None:
    author, fan, subject = people(3)
    for issuer in (author, fan):
        key = "app.bsky.graph.verification/v"
        frame = issuer.creates(key, subject=subject.did, handle="s.test", displayName="S")
        index.take((issuer, frame))
    assert len(index.rows("SELECT * FROM verifications")) == 2
    post = author.uri(f"{POST}/p")
    mine = author.uri("app.bsky.graph.list/a")
    index.take(
        (author, author.creates(f"{POST}/p", text="p")),
        (author, author.creates(f"{GATE}/p", post=post, allow=[])),
        (fan, fan.creates(f"{POST}/r", text="r", reply=reply(post))),
        (fan, fan.creates("app.bsky.graph.listitem/i", list=mine, subject=fan.did)),
    )
    assert index.counts(post) == (0, 0, 0, 0), "nobody may reply"
    assert index.rows("SELECT * FROM list_items") == []
    assert ("reply", author.did) not in index.told()


def test_16_an_opt_out_holds_for_profiles_and_unknown_records_at_once(index: Index) -> None:
    (author,) = people(1)
    index.do(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        author.did,
    )
    index.take(
        (author, author.creates("app.bsky.actor.profile/self", displayName="A person")),
        (author, author.creates("com.example.thing/x", value=1)),
    )
    assert index.rows("SELECT * FROM generic_records") == []
    assert index.rows("SELECT did FROM users WHERE profile_record IS NOT NULL") == []


def test_every_failure_has_a_test_that_is_there() -> None:
    text = (ROOT / "docs/failures.md").read_text()
    numbers = {int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
    assert numbers == set(range(1, 19))
    for item in re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE)[1:]:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", item)
        assert named, f"no test is named by: {item[:60]}"
        for path, function in named:
            assert re.search(rf"def {function}\b", (ROOT / path).read_text()), f"{path}: {function}"
