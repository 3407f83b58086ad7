"""`run.py explain`: what an operator asks about one record or account."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.messages import MESSAGES, Frames
from engine.message import Codec
from tests.author import Author, ref, reply
from tests.commands import Ended, command
from tests.writing import begin_run, decoded, make_index, session, writer


class Index:
    """A database, two authors, and the command on it."""

    def __init__(self, conninfo: str, connection: psycopg.Connection[Any]) -> None:
        self.conninfo = conninfo
        self.connection = connection
        self.ann, self.ben = Author(1), Author(2)
        self.post = self.ann.uri("app.bsky.feed.post/one")

    def apply(self, *frames: bytes) -> None:
        with writer(self.conninfo, begin_run(self.conninfo)) as writing:
            writing.apply(decoded(frames).changes)

    def posts(self) -> None:
        self.apply(self.ann.creates("app.bsky.feed.post/one", text="hello"))

    def explain(self, subject: str, *arguments: str) -> Ended:
        return command("explain", subject, *arguments, "--database-url", self.conninfo)

    def told(self, subject: str) -> dict[str, Any]:
        ended = self.explain(subject, "--json")
        assert ended.err == ""
        told: dict[str, Any] = json.loads(ended.out)
        assert ended.code == (0 if told["known"] else 1)
        return told

    def execute(self, sql: str, *values: object) -> None:
        self.connection.execute(sql.encode(), values)


@pytest.fixture
def index(database: str) -> Iterator[Index]:
    with session(make_index(database), "test") as connection:
        yield Index(database, connection)


def test_an_indexed_record_has_its_row_and_its_commit(index: Index) -> None:
    index.posts()
    told = index.told(index.post)
    assert told["verdict"] == "indexed in posts"
    row = told["row"]
    assert (row["table"], row["values"]["text"]) == ("posts", "hello")
    ended = index.explain(index.post)
    assert ended.code == 0
    values = row["values"]
    assert (
        f"  came with commit seq {values['commit_seq']} rev {values['commit_rev']}"
        f" of {values['commit_time']}\n" in ended.out
    )
    assert f"    last applied rev {values['commit_rev']}\n" in ended.out


@pytest.mark.parametrize(
    ("path", "table", "fields"),
    [
        ("app.bsky.actor.profile/self", "users", {"displayName": "Ann"}),
        ("app.bsky.feed.threadgate/one", "thread_gates", {}),
        ("app.bsky.feed.postgate/one", "post_gates", {}),
        ("com.example.thing/x", "generic_records", {"anything": 1}),
        ("app.bsky.graph.follow/f", "follows", {"subject": "did:plc:" + "z" * 24}),
    ],
)
def test_a_record_of_any_type_is_found_by_its_uri(
    index: Index, path: str, table: str, fields: dict[str, Any]
) -> None:
    if "gate" in path:
        fields = {"post": index.post}
    uri = index.ann.uri(path)
    assert index.told(uri)["row"] is None
    index.apply(index.ann.creates(path, **fields))
    assert index.told(uri)["row"]["table"] == table
    index.apply(index.ann.deletes(path))
    assert index.told(uri)["verdict"] == (
        "not indexed: it was deleted, never came, or its drop is no longer remembered"
    )


def test_of_a_record_that_nobody_knows_nothing_is_said_with_exit_1(index: Index) -> None:
    ended = index.explain(index.post)
    assert ended.code == 1
    assert ended.out.splitlines()[:2] == [
        index.post,
        "  not indexed: no commit of its author has come",
    ]
    assert index.explain(index.ann.did).code == 1


def test_a_duplicate_names_the_record_that_stands_for_it(index: Index) -> None:
    first, second = (index.ben.uri(f"app.bsky.feed.like/{key}") for key in ("a", "b"))
    index.apply(
        index.ben.creates("app.bsky.feed.like/b", subject=ref(index.post)),
        index.ben.creates("app.bsky.feed.like/a", subject=ref(index.post)),
    )
    told = index.told(second)
    assert told["verdict"] == f"a duplicate, kept aside: {first} stands for it"
    assert told["row"] is None
    assert index.told(first)["holds_aside"] == [second]


def test_what_a_record_waits_for_is_told_from_both_ends(index: Index) -> None:
    like = index.ben.uri("app.bsky.feed.like/a")
    index.apply(index.ben.creates("app.bsky.feed.like/a", subject=ref(index.post)))
    waits = index.told(like)["waits_for"]
    assert [(wait["awaited"], wait["kind"]) for wait in waits] == [(index.post, "like")]
    missing = index.told(index.post)
    assert missing["known"]
    assert (missing["awaited_by_count"], missing["awaited_by"][0]["uri"]) == (1, like)
    assert f"{like} waits for {index.post} (like, since" in index.explain(index.ben.did).out


def test_flags_and_what_they_rest_on_are_told_beside_what_they_should_be(index: Index) -> None:
    answer = index.ben.uri("app.bsky.feed.post/two")
    index.posts()
    index.apply(
        index.ann.creates("app.bsky.feed.threadgate/one", post=index.post, allow=[]),
        index.ben.creates("app.bsky.feed.post/two", text="re", reply=reply(index.post)),
    )
    thread = index.told(answer)["thread"]
    assert (thread["parent"], thread["parent_there"], thread["gate_allow"]) == (
        index.post,
        True,
        [],
    )
    flags = {flag["name"]: (flag["stored"], flag["computed"]) for flag in thread["flags"]}
    assert flags == {
        "engine_invalid_reply": (False, False),
        "violates_thread_gate": (True, True),
        "violates_embedding_rules": (False, False),
    }
    index.execute("UPDATE posts SET violates_thread_gate = false WHERE uri = %s", answer)
    assert "  violates_thread_gate: no, BUT yes when judged now\n" in index.explain(answer).out


def test_counters_are_told_beside_what_they_should_be(index: Index) -> None:
    index.posts()
    index.apply(index.ben.creates("app.bsky.feed.like/a", subject=ref(index.post)))
    counters = {one["name"]: one for one in index.told(index.post)["counters"]}
    assert (counters["like_count"]["stored"], counters["like_count"]["counted"]) == (1, 1)
    index.execute("UPDATE post_aggregations SET like_count = 5")
    assert "  like_count: 5, BUT 1 when counted now\n" in index.explain(index.post).out
    assert "  posts_count: 1\n" in index.explain(index.ann.did).out


def test_notifications_of_the_record_are_told(index: Index) -> None:
    index.posts()
    index.execute(
        "INSERT INTO notifications"
        " (uri, recipient_did, author_did, reason, created_at, engine_record_uri)"
        " VALUES ('n', 'did:plc:x', %s, 'mention', now(), %s)",
        index.ann.did,
        index.post,
    )
    assert "  notified did:plc:x (mention, unread)\n" in index.explain(index.post).out


@pytest.mark.parametrize(
    ("sql", "verdict"),
    [
        (
            "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
            "not indexed: its author has forbidden the collection of data",
        ),
        (
            "INSERT INTO engine_takedowns VALUES (%s)",
            "not indexed: its author is taken down",
        ),
        (
            "INSERT INTO engine_accounts (did, active, status) VALUES (%s, false, 'suspended')",
            "not indexed: its author is suspended",
        ),
        (
            "INSERT INTO engine_purges (subject, reason, removed) VALUES (%s, 'forget', 7)",
            "what is stored of it is being removed (forget)",
        ),
    ],
)
def test_the_state_of_the_author_explains_why_it_is_not_there(
    index: Index, sql: str, verdict: str
) -> None:
    index.execute(sql, index.ann.did)
    told = index.told(index.post)
    assert (told["verdict"], told["known"]) == (verdict, True)
    of_account = index.told(index.ann.did)
    assert of_account["known"]
    assert of_account["verdict"] == verdict.replace("not indexed: its author", "an account that")


def test_a_record_that_is_taken_down_itself_is_told(index: Index) -> None:
    index.execute("INSERT INTO engine_takedowns VALUES (%s)", index.post)
    assert index.told(index.post)["verdict"] == "not indexed: it is taken down"


def test_a_repository_that_is_out_of_step_may_have_lost_it(index: Index) -> None:
    index.posts()
    index.execute("UPDATE engine_repos SET out_of_step = true")
    other = index.ann.uri("app.bsky.feed.post/other")
    told = index.told(other)
    assert told["known"] is False
    assert "out of step, so it may have been missed" in told["verdict"]


def test_a_drop_is_told_with_its_reason(index: Index) -> None:
    index.execute(
        "INSERT INTO engine_drops (subject, reason, detail) VALUES (%s, 'lexicon', 'text: long')",
        index.post,
    )
    told = index.told(index.post)
    assert told["verdict"] == "not indexed: dropped, lexicon (text: long)"
    assert told["known"]
    assert index.post in index.explain(index.ann.did).out


def test_a_dropped_commit_of_the_author_is_no_proof(index: Index) -> None:
    index.execute(
        "INSERT INTO engine_drops (subject, reason, detail) VALUES (%s, 'bad_commit', 'no root')",
        index.ann.did,
    )
    index.posts()
    told = index.told(index.ann.uri("app.bsky.feed.post/other"))
    assert told["known"] is False
    assert told["verdict"] == (
        "not indexed: it may have been in a commit that was dropped, bad_commit (no root)"
    )


def test_the_dead_letter_that_holds_it_is_found(index: Index) -> None:
    frame = index.ann.creates("app.bsky.feed.post/one", text="deadly")
    other = index.ben.creates("app.bsky.feed.post/one", text="harmless")
    for frames in ([other], [frame]):
        index.execute(
            "INSERT INTO engine_dead_letters (sender, receiver, reason, body)"
            " VALUES ('ingest', 'shard-0', 'killed two generations', %s)",
            Codec(MESSAGES).encode(Frames("wss://host", frames)),
        )
    told = index.told(index.post)
    assert told["verdict"] == "not indexed: it is in the dead letters (killed two generations)"
    (letter,) = told["letters"]
    assert letter["id"] == 2
    assert letter["holds"].endswith(f"of {index.ann.did}")
    assert index.told(index.ann.uri("app.bsky.feed.post/other"))["letters"] == []


def test_an_account_is_told_with_what_is_stored_of_it(index: Index) -> None:
    index.posts()
    index.execute("INSERT INTO users (did, handle) VALUES (%s, 'ann.test')", index.ann.did)
    told = index.told("ann.test")
    assert (told["subject"], told["records"]) == (index.ann.did, {"posts": 1})
    assert told["author"]["repository"]["out_of_step"] is False
    assert "  posts: 1 row\n" in index.explain("@ann.test").out


def test_a_bad_uri_is_one_line_and_78(index: Index) -> None:
    ended = index.explain("at://nobody")
    assert (ended.code, ended.out, ended.err.count("\n")) == (78, "", 1)


def test_a_database_of_another_version_is_one_line_and_78(index: Index) -> None:
    index.execute("DROP TABLE engine_drops")
    ended = index.explain(index.post)
    assert (ended.code, "run `run.py migrate` first" in ended.err) == (78, True)


def test_nothing_is_written_and_no_row_is_locked(index: Index) -> None:
    index.posts()
    with session(index.conninfo, "another") as other, other.transaction():
        other.execute("LOCK TABLE posts, users, engine_repos IN EXCLUSIVE MODE")
        assert index.explain(index.post).code == 0
