"""`run.py forget`: nothing of a user is stored any more, from the moment it is asked for."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.commands.letters import holds, without
from actors.messages import MESSAGES, CreateUsers, Frames
from actors.store.schema import TABLES
from engine.message import Codec
from tests.author import Author, ref, reply
from tests.commands import Ended, command
from tests.writing import begin_run, decoded, make_index, session, writer

CODEC = Codec(MESSAGES)
# The row of the user, the guard of the repository, the wish itself, and what others' records count.
STAYS = {
    *("users", "engine_repos", "user_settings", "engine_accounts"),
    *("engine_user_aggregations", "post_aggregations", "post_viewer_states"),
}


class Index:
    """A database with records of one who is to be forgotten, and of another user."""

    def __init__(self, conninfo: str, connection: psycopg.Connection[Any]) -> None:
        self.conninfo = conninfo
        self.connection = connection
        self.one, self.other = Author(1), Author(2)
        self.post = self.one.uri("app.bsky.feed.post/one")
        self.theirs = self.other.uri("app.bsky.feed.post/two")
        self.apply(
            self.other.creates("app.bsky.feed.post/two", text="mine"),
            self.other.creates("app.bsky.feed.like/l", subject=ref(self.post)),
            self.other.creates("app.bsky.graph.follow/f", subject=self.one.did),
            self.one.creates("app.bsky.feed.post/one", text="x", reply=reply(self.theirs)),
            self.one.creates("app.bsky.feed.like/a", subject=ref(self.theirs)),
            self.one.creates("app.bsky.feed.like/b", subject=ref(self.theirs)),
            self.one.creates("app.bsky.feed.repost/r", subject=ref(self.theirs)),
            self.one.creates("app.bsky.graph.follow/f", subject=self.other.did),
            self.one.creates("app.bsky.graph.block/f", subject=self.other.did),
            self.one.creates("app.bsky.actor.profile/self", displayName="One"),
            self.one.creates("com.example.thing/x", anything=1),
        )

    def apply(self, *frames: bytes) -> None:
        with writer(self.conninfo, begin_run(self.conninfo)) as writing:
            writing.apply(decoded(frames).changes)

    def forget(self, *arguments: str) -> Ended:
        return command("forget", *arguments, "--database-url", self.conninfo)

    def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        result = self.connection.execute(sql.encode(), values)
        return result.fetchall() if result.description else []

    def traces(self, did: str) -> dict[str, list[str]]:
        """Every row of every table that has the DID in it and was not written by another."""
        found = {}
        for table in TABLES:
            rows = self.execute(
                f"SELECT to_jsonb(t)::text FROM {table} t WHERE to_jsonb(t)::text LIKE %s",
                f"%{did}%",
            )
            by_other = f"at://{self.other.did}/"
            found[table] = [row for (row,) in rows if by_other not in row.partition('"uri": ')[2]]
        return {table: rows for table, rows in found.items() if rows and table not in STAYS}


@pytest.fixture
def index(database: str) -> Iterator[Index]:
    with session(make_index(database), "test") as connection:
        yield Index(database, connection)


def test_nothing_that_the_user_wrote_is_left_and_the_wish_is_noted(index: Index) -> None:
    assert index.traces(index.one.did)
    ended = index.forget(index.one.did)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{index.one.did}: nothing of it is stored from now on\n")
    left = index.traces(index.one.did)
    # What other actors are still to do about it, when an engine runs.
    left.pop("engine_outbox", None)
    assert left == {}
    assert index.execute("SELECT user_did, data_collection_forbidden FROM user_settings") == [
        (index.one.did, True)
    ]
    row = index.execute(
        "SELECT display_name, profile_record, handle FROM users WHERE did = %s", index.one.did
    )
    assert row == [(None, None, "handle.invalid")]


def test_what_others_wrote_about_the_user_stays(index: Index) -> None:
    index.forget(index.one.did)
    assert index.execute("SELECT post_uri FROM likes") == [(index.post,)]
    assert index.execute("SELECT following_did FROM follows") == [(index.one.did,)]
    counted = index.execute(
        "SELECT like_count, repost_count, reply_count FROM post_aggregations WHERE post_uri = %s",
        index.theirs,
    )
    assert counted == [(0, 0, 0)]


@pytest.mark.parametrize("known", [True, False])
def test_the_wish_needs_no_users_row_and_holds_from_then_on(index: Index, known: bool) -> None:
    stranger = Author(3)
    if known:
        index.execute("INSERT INTO users (did, handle) VALUES (%s, 'three.test')", stranger.did)
    assert index.forget("three.test" if known else stranger.did).code == 0
    index.apply(
        stranger.creates("app.bsky.actor.profile/self", displayName="Three"),
        stranger.creates("com.example.thing/x", anything=1),
        stranger.creates("app.bsky.feed.post/x", text="x"),
    )
    assert index.traces(stranger.did) == {}
    assert index.execute("SELECT withheld FROM engine_repos WHERE did = %s", stranger.did) == [
        (True,)
    ]


def test_what_the_appview_kept_for_the_user_goes_too(index: Index) -> None:
    one, other = index.one.did, index.other.did
    params = {"one": one, "other": other}
    index.connection.execute(
        "WITH a AS (INSERT INTO mutes VALUES ('m1', %(one)s, %(other)s, now()),"
        " ('m2', %(other)s, %(one)s, now())),"
        " b AS (INSERT INTO list_mutes VALUES ('l', %(one)s, 'at://x', now())),"
        " c AS (INSERT INTO thread_mutes VALUES ('t', %(one)s, 'at://x', now())),"
        " v AS (INSERT INTO post_viewer_states (post_uri, viewer_did, thread_muted)"
        " VALUES ('at://x', %(one)s, true), ('at://x', %(other)s, true)),"
        " d AS (INSERT INTO activity_subscriptions"
        " VALUES ('a', 'c', %(one)s, %(other)s, true, now())),"
        " e AS (INSERT INTO user_settings (user_did, blocked_keywords, muted_users, custom_lists,"
        " feed_preferences, last_backfill_at)"
        """ VALUES (%(one)s, '["secret"]', '["x"]', '["y"]', '{"a": 1}', now())),"""
        " f AS (INSERT INTO engine_drops (subject, reason, detail)"
        " VALUES (%(one)s, 'bad_commit', ''), ('at://' || %(one)s || '/a/b', 'bad', ''),"
        " (%(other)s, 'bad_commit', ''))"
        " INSERT INTO notifications (uri, recipient_did, author_did, reason, created_at)"
        " VALUES ('n', %(one)s, %(other)s, 'follow', now())",
        params,
    )
    index.forget(one)
    for table in ("list_mutes", "thread_mutes", "activity_subscriptions", "notifications"):
        assert index.execute(f"SELECT count(*) FROM {table}") == [(0,)]
    assert index.execute("SELECT uri FROM mutes") == [("m2",)]
    assert index.execute("SELECT viewer_did FROM post_viewer_states WHERE thread_muted") == [
        (other,)
    ]
    assert index.execute("SELECT subject FROM engine_drops") == [(other,)]
    assert index.execute(
        "SELECT blocked_keywords, muted_users, custom_lists, feed_preferences, last_backfill_at"
        " FROM user_settings WHERE user_did = %s",
        one,
    ) == [([], [], [], {}, None)]


def test_dead_letters_lose_the_frames_of_the_user_only(index: Index) -> None:
    mine = index.one.creates("app.bsky.feed.post/l1", text="x")
    # It names the user, and is another's.
    other = index.other.creates("app.bsky.feed.like/l2", subject=ref(index.post))
    bodies = [
        CODEC.encode(Frames("wss://host", [mine])),
        CODEC.encode(Frames("wss://host", [other, mine])),
        CODEC.encode(Frames("wss://host", [other])),
        CODEC.encode(CreateUsers([index.one.did])),
        b"odd " + index.one.did.encode(),
    ]
    for body in bodies:
        index.execute(
            "INSERT INTO engine_dead_letters (sender, receiver, reason, body)"
            " VALUES ('ingest', 'shard-0', 'died', %s)",
            body,
        )
    ended = index.forget(index.one.did)
    assert "2 dead letters of it removed" in ended.out
    left = [bytes(body) for (body,) in index.execute("SELECT body FROM engine_dead_letters")]
    assert sorted(left) == sorted([bodies[2], bodies[2], bodies[3], bodies[4]])


def test_a_letter_without_a_frame_is_left_as_it_is() -> None:
    broken = CODEC.encode(Frames("h", [b"\xff about did:plc:x"]))
    assert without(broken, "did:plc:y") == broken
    assert without(broken, "did:plc:x") is None
    assert holds(broken).startswith("a frame that cannot be read")
    assert holds(b"odd") == "3 bytes that are no frames"


def test_forgetting_twice_is_the_same_as_once(index: Index) -> None:
    index.forget(index.one.did)
    again = index.forget(index.one.did)
    assert (again.code, "from now on (it was before)" in again.out) == (0, True)


def test_a_purge_that_is_under_way_takes_the_stronger_reason(index: Index) -> None:
    index.execute(
        "INSERT INTO engine_purges (subject, reason) VALUES (%s, 'deleted')", index.one.did
    )
    index.forget(index.one.did, "--no-wait")
    command("takedown", "add", index.one.did, "--no-wait", "--database-url", index.conninfo)
    assert index.execute("SELECT reason FROM engine_purges") == [("forget",)]


def test_one_who_opts_in_again_is_marked_for_a_resync(index: Index) -> None:
    index.forget(index.one.did)
    index.apply(index.one.creates("app.bsky.feed.post/n1", text="not yet"))
    index.execute("UPDATE user_settings SET data_collection_forbidden = false")
    index.apply(index.one.creates("app.bsky.feed.post/n2", text="now"))
    assert index.execute("SELECT uri FROM posts WHERE author_did = %s", index.one.did) == [
        (index.one.uri("app.bsky.feed.post/n2"),)
    ]
    assert index.execute(
        "SELECT out_of_step, withheld FROM engine_repos WHERE did = %s", index.one.did
    ) == [(True, False)]


def test_a_record_cannot_be_forgotten(index: Index) -> None:
    ended = index.forget(index.post)
    assert (ended.code, ended.err) == (
        78,
        f"skyshard: '{index.post}' is a record: give the DID or the handle of an account\n",
    )
