"""Accounts that are hidden, deleted, forbidden, and come back: in the writer's transactions."""

from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from actors.messages import NotifierWork, RegistryWork
from actors.store.batch import AccountState, Change, Outcome
from actors.store.bisect import apply_bisecting
from actors.store.purge import SLICE_RECORDS, purge_to_end
from actors.store.writer import Writer
from engine.message import Codec
from tests.author import Author, ref, reply
from tests.writing import begin_run, decoded, make_index, session, writer

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
FOLLOW = "app.bsky.graph.follow"
CODEC = Codec((RegistryWork, NotifierWork))


class Stage:
    """A writer on a database, and a look at its rows."""

    def __init__(self, conninfo: str, writing: Writer, connection: psycopg.Connection[Any]) -> None:
        self.conninfo = conninfo
        self.writing = writing
        self._connection = connection

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, parameters or None).fetchall()

    def one(self, query: str, *parameters: Any) -> Any:
        (row,) = self.rows(query, *parameters)
        return row[0]

    def do(self, statement: str, *parameters: Any) -> None:
        self._connection.execute(statement, parameters or None)

    def apply(self, *frames: bytes) -> Outcome:
        return self.changes(*decoded(frames).changes)

    def changes(self, *changes: Change) -> Outcome:
        return apply_bisecting(self.writing, changes, (), {}, lambda _seconds: None)

    def purge(self, subject: str) -> Outcome:
        return purge_to_end(lambda: self.writing.purge_slice(subject), lambda _seconds: None)

    def work(self, outcome: Outcome, kind: type[Any], field: str) -> list[str]:
        """What a field of one kind of work holds, over all messages."""
        found: list[str] = []
        for sent in outcome.sent:
            message = CODEC.decode(sent.body)
            if isinstance(message, kind):
                found += getattr(message, field)
        return found


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    with (
        writer(conninfo, begin_run(conninfo)) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(conninfo, writing, connection)


def account(author: Author, seq: int, status: str | None = None) -> AccountState:
    return AccountState(author.did, status is None, status, "host", seq, seq)


def written(stage: Stage, author: Author) -> int:
    """How many rows the author has, in every table of records."""
    low, high = f"at://{author.did}/", f"at://{author.did}0"
    count = stage.one(
        "SELECT (SELECT count(*) FROM posts WHERE author_did = %s)"
        " + (SELECT count(*) FROM likes WHERE user_did = %s)"
        " + (SELECT count(*) FROM follows WHERE follower_did = %s)"
        " + (SELECT count(*) FROM feed_items WHERE originator_did = %s)"
        " + (SELECT count(*) FROM post_viewer_states WHERE viewer_did = %s)"
        " + (SELECT count(*) FROM engine_duplicates WHERE uri >= %s AND uri < %s)"
        " + (SELECT count(*) FROM engine_pending WHERE uri >= %s AND uri < %s)",
        *[author.did] * 5,
        *[low, high] * 2,
    )
    assert isinstance(count, int)
    return count


def test_the_status_of_an_account_without_a_row_is_kept_and_shown(stage: Stage) -> None:
    author = Author(1)
    stage.changes(account(author, 1, "suspended"))
    assert stage.rows("SELECT did, active, status FROM engine_accounts") == [
        (author.did, False, "suspended")
    ]
    assert stage.rows("SELECT did, handle, engine_account_status FROM users") == [
        (author.did, "handle.invalid", "suspended")
    ]
    stage.changes(account(author, 2))
    assert stage.one("SELECT engine_account_status FROM users") is None


def test_a_deleted_account_loses_what_it_wrote_and_its_share_in_the_counts_of_others(
    stage: Stage,
) -> None:
    author, other = Author(1), Author(2)
    theirs = other.uri(f"{POST}/b")
    stage.apply(other.creates(f"{POST}/b", text="b"))
    stage.apply(
        author.creates(f"{POST}/a", text="a", reply=reply(theirs)),
        author.creates(f"{LIKE}/a", subject=ref(theirs)),
        author.creates(f"{LIKE}/b", subject=ref(theirs)),
        author.creates(f"{LIKE}/c", subject=ref("at://did:web:absent.test/app.bsky.feed.post/x")),
        author.creates(f"{FOLLOW}/a", subject=other.did),
        other.creates(f"{LIKE}/z", subject=ref(author.uri(f"{POST}/a"))),
    )
    assert written(stage, author) == 9
    outcome = stage.changes(account(author, 1, "deleted"))
    assert outcome.purges == {author.did}
    assert stage.rows("SELECT subject, reason FROM engine_purges") == [(author.did, "deleted")]
    purged = stage.purge(author.did)
    assert written(stage, author) == 0
    assert stage.rows(
        "SELECT like_count, reply_count FROM post_aggregations WHERE post_uri = %s", theirs
    ) == [(0, 0)]
    assert stage.rows("SELECT post_uri FROM likes") == [(author.uri(f"{POST}/a"),)]
    assert stage.one("SELECT count(*) FROM engine_user_aggregations WHERE followers_count > 0") == 0
    assert stage.rows("SELECT did FROM engine_repos WHERE did = %s", author.did)
    assert stage.rows("SELECT * FROM engine_purges") == []
    assert stage.work(purged, NotifierWork, "purged") == [author.did]
    assert stage.work(purged, NotifierWork, "unverified") == []


def test_a_purge_goes_on_where_it_stopped_and_takes_many_slices(stage: Stage) -> None:
    author = Author(1)
    keys = [f"{FOLLOW}/{number:04}" for number in range(2 * SLICE_RECORDS + 10)]
    for start in range(0, len(keys), 200):
        stage.apply(
            author.frame(
                *(
                    author.put(key, subject=f"did:web:n{start}x{number}.test")
                    for number, key in enumerate(keys[start : start + 200])
                )
            )
        )
    stage.changes(account(author, 1, "deleted"))
    assert stage.writing.purge_slice(author.did) is not None
    assert stage.one("SELECT count(*) FROM follows") == len(keys) - SLICE_RECORDS
    assert stage.one("SELECT removed FROM engine_purges") == SLICE_RECORDS
    # As after a crash: what is left is read from the tables.
    stage.purge(author.did)
    assert written(stage, author) == 0
    assert stage.writing.purge_slice(author.did) is None


def test_a_commit_of_an_account_that_came_back_waits_for_its_purge(stage: Stage) -> None:
    author = Author(1)
    stage.apply(author.creates(f"{POST}/a", text="a"))
    back = decoded([author.creates(f"{POST}/b", text="b")]).changes
    outcome = stage.changes(account(author, 1, "deleted"), account(author, 2), *back)
    assert stage.rows("SELECT uri FROM posts") == [(author.uri(f"{POST}/b"),)]
    assert stage.one("SELECT out_of_step FROM engine_repos") is True
    assert (outcome.commits, outcome.purged) == (1, {author.did})


def test_an_opt_out_holds_from_the_moment_it_is_set_whoever_set_it(stage: Stage) -> None:
    author = Author(1)
    stage.apply(author.creates(f"{POST}/a", text="a"))
    # Nobody made a users row, and the setting does not need one.
    stage.do(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        author.did,
    )
    outcome = stage.apply(
        author.frame(
            author.put(f"{POST}/b", text="b"),
            author.put("app.bsky.actor.profile/self", displayName="A"),
            author.put("com.example.thing/x", value=1),
        ),
        author.deletes(f"{POST}/a"),
    )
    assert [drop.reason for drop in outcome.drops] == ["opted_out"] * 3
    assert stage.rows("SELECT uri FROM posts") == []
    assert stage.rows("SELECT uri FROM generic_records") == []
    assert stage.rows("SELECT display_name FROM users WHERE display_name IS NOT NULL") == []
    assert stage.rows("SELECT withheld, out_of_step FROM engine_repos") == [(True, False)]
    stage.do("UPDATE user_settings SET data_collection_forbidden = false")
    stage.apply(author.creates(f"{POST}/c", text="c"))
    assert stage.rows("SELECT uri FROM posts") == [(author.uri(f"{POST}/c"),)]
    assert stage.rows("SELECT withheld, out_of_step FROM engine_repos") == [(False, True)]


def test_a_record_that_is_taken_down_is_refused_and_what_is_there_of_it_goes(stage: Stage) -> None:
    author = Author(1)
    uri = author.uri(f"{POST}/a")
    stage.apply(author.frame(author.put(f"{POST}/a", text="a"), author.put(f"{POST}/b", text="b")))
    stage.do("INSERT INTO engine_takedowns (subject) VALUES (%s)", uri)
    stage.do("INSERT INTO engine_purges (subject, reason) VALUES (%s, 'takedown')", uri)
    stage.purge(uri)
    assert stage.rows("SELECT uri FROM posts") == [(author.uri(f"{POST}/b"),)]
    outcome = stage.apply(author.frame(author.put(f"{POST}/a", text="again")))
    assert [drop.reason for drop in outcome.drops] == ["taken_down"]
    assert stage.one("SELECT count(*) FROM posts") == 1


def test_who_is_to_be_forgotten_loses_what_the_appview_keeps_too(stage: Stage) -> None:
    author, other = Author(1), Author(2)
    stage.apply(author.creates(f"{POST}/a", text="a"), other.creates(f"{POST}/b", text="b"))
    for muter in (author, other):
        stage.do(
            "INSERT INTO mutes (uri, muter_did, muted_did, created_at) VALUES (%s, %s, 'x', now())",
            muter.uri("m/m"),
            muter.did,
        )
    stage.do("INSERT INTO engine_purges (subject, reason) VALUES (%s, 'forget')", author.did)
    stage.purge(author.did)
    assert stage.rows("SELECT author_did FROM posts") == [(other.did,)]
    assert stage.rows("SELECT muter_did FROM mutes") == [(other.did,)]
    assert stage.one("SELECT withheld FROM engine_repos WHERE did = %s", author.did) is True


def test_a_crash_between_two_steps_of_a_purge_loses_and_doubles_nothing(database: str) -> None:
    conninfo = make_index(database)
    author, other = Author(1), Author(2)
    theirs = other.uri(f"{POST}/b")
    crash = {"at": "never"}

    def crash_point(name: str) -> None:
        if name == crash["at"]:
            crash["at"] = "never"
            raise KeyboardInterrupt(name)

    with session(conninfo, "observer") as connection:
        epoch = begin_run(conninfo)
        with writer(conninfo, epoch, crash_point=crash_point) as writing:
            stage = Stage(conninfo, writing, connection)
            stage.apply(other.creates(f"{POST}/b", text="b"))
            stage.apply(author.creates(f"{LIKE}/a", subject=ref(theirs)))
            stage.changes(account(author, 1, "deleted"))
            for point, likes in (("before_purged", 1), ("after_purged", 0)):
                crash["at"] = point
                with pytest.raises(KeyboardInterrupt):
                    writing.purge_slice(author.did)
                assert crash["at"] == "never"
                assert stage.one("SELECT like_count FROM post_aggregations") == likes
            stage.purge(author.did)
        assert stage.one("SELECT like_count FROM post_aggregations") == 0
        assert stage.rows("SELECT * FROM engine_purges") == []


def test_the_outbox_holds_what_the_registry_and_the_notifier_must_hear(stage: Stage) -> None:
    author, other = Author(1), Author(2)
    root = other.uri(f"{POST}/r")
    outcome = stage.apply(author.creates(f"{POST}/a", text="a", reply=reply(root)))
    assert stage.work(outcome, RegistryWork, "waiting") == [root]
    assert stage.work(outcome, RegistryWork, "arrived") == [author.uri(f"{POST}/a")]
    assert stage.work(outcome, RegistryWork, "judge") == [author.uri(f"{POST}/a")]
    assert stage.rows("SELECT uri, awaited, author, kind FROM engine_pending") == [
        (author.uri(f"{POST}/a"), root, author.did, "reply")
    ]
    bodies = stage.rows("SELECT id, body FROM engine_outbox ORDER BY id")
    assert [(row, bytes(body)) for row, body in bodies] == [
        (sent.row, sent.body) for sent in outcome.sent
    ]
    # A replay derives nothing again.
    again = stage.apply(author.creates(f"{POST}/b", text="b"))
    assert stage.work(again, NotifierWork, "records") == []
    replayed = stage.changes(*decoded([]).changes)
    assert replayed.sent == []


def test_entries_go_with_their_record_and_are_made_anew_by_an_update(stage: Stage) -> None:
    author = Author(1)
    first, second = (f"at://did:web:absent.test/{POST}/{key}" for key in "xy")
    stage.apply(author.creates(f"{LIKE}/a", subject=ref(first)))
    stage.apply(author.creates(f"{LIKE}/a", subject=ref(second)))
    assert stage.rows("SELECT awaited, kind FROM engine_pending") == [(second, "like")]
    outcome = stage.apply(author.deletes(f"{LIKE}/a"))
    assert stage.rows("SELECT * FROM engine_pending") == []
    assert outcome.pending == {("cancelled", "like"): 1}


def test_a_claim_wins_once_and_never_after_a_cancel(stage: Stage) -> None:
    author = Author(1)
    awaited = f"at://did:web:absent.test/{POST}/x"
    uri = author.uri(f"{LIKE}/a")
    stage.apply(author.creates(f"{LIKE}/a", subject=ref(awaited)))
    outcome = stage.writing.settle([(uri, awaited)], [])
    assert stage.work(outcome, NotifierWork, "records") == [uri]
    assert outcome.pending == {("flushed", "like"): 1}
    assert stage.writing.settle([(uri, awaited)], []).sent == []


def test_a_gate_that_comes_later_takes_the_reply_out_of_the_count_and_back(stage: Stage) -> None:
    author, other = Author(1), Author(2)
    root = other.uri(f"{POST}/r")
    mine = author.uri(f"{POST}/a")
    count = "SELECT reply_count FROM post_aggregations WHERE post_uri = %s"
    stage.apply(
        other.creates(f"{POST}/r", text="r"),
        author.creates(f"{POST}/a", text="a", reply=reply(root)),
    )
    gate = "app.bsky.feed.threadgate/r"
    outcome = stage.apply(other.creates(gate, post=root, allow=[]))
    assert stage.work(outcome, RegistryWork, "gates") == [root]
    assert stage.one(count, root) == 1
    settled = stage.writing.settle([], [mine])
    assert stage.one(count, root) == 0
    assert stage.one("SELECT violates_thread_gate FROM posts WHERE uri = %s", mine) is True
    assert stage.work(settled, NotifierWork, "extended") == [mine]
    assert stage.work(settled, RegistryWork, "judge") == [mine]
    stage.apply(other.deletes(gate))
    stage.writing.settle([], [mine])
    assert stage.one(count, root) == 1
    # One that comes after the gate is judged in its own batch.
    stage.apply(other.creates(gate, post=root, allow=[]))
    stage.apply(author.creates(f"{POST}/b", text="b", reply=reply(root)))
    assert stage.one(
        "SELECT violates_thread_gate FROM posts WHERE uri = %s", author.uri(f"{POST}/b")
    )
    assert stage.one(count, root) == 1


def test_the_pack_counts_only_with_the_first_version_of_a_profile(stage: Stage) -> None:
    author = Author(1)
    profile = "app.bsky.actor.profile/self"
    packs = [f"at://did:web:absent.test/app.bsky.graph.starterpack/{key}" for key in "xy"]
    joined = "SELECT engine_joined_via FROM users"

    def put(pack: str | None) -> bytes:
        more = {} if pack is None else {"joinedViaStarterPack": ref(pack)}
        return author.creates(profile, displayName="A", **more)

    stage.apply(put(packs[0]))
    assert stage.one(joined) == packs[0]
    stage.apply(put(packs[0]))
    assert stage.one(joined) == packs[0]
    # In one batch as in several.
    stage.apply(put(packs[1]), put(packs[0]))
    assert stage.one(joined) is None
    stage.apply(author.deletes(profile), put(packs[1]))
    assert stage.one(joined) == packs[1]
    assert stage.rows("SELECT awaited, kind FROM engine_pending") == [(packs[1], "joined")]


def test_a_verification_that_may_not_be_stored_is_not_taken_back(stage: Stage) -> None:
    author = Author(1)
    key = "app.bsky.graph.verification/a"
    fields = {"subject": "did:web:s.test", "handle": "s.test", "displayName": "S"}
    stage.apply(author.creates(key, **fields))
    stage.do(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        author.did,
    )
    outcome = stage.apply(author.creates(key, **fields))
    assert stage.rows("SELECT * FROM verifications") == []
    assert stage.work(outcome, NotifierWork, "unverified") == []
    # Who forbids it may still take back what is there.
    stage.do("UPDATE user_settings SET data_collection_forbidden = false")
    stage.apply(author.creates(key, **fields))
    stage.do("UPDATE user_settings SET data_collection_forbidden = true")
    outcome = stage.apply(author.deletes(key))
    assert len(stage.work(outcome, NotifierWork, "unverified")) == 1


def test_a_verification_that_is_taken_back_is_told_also_within_one_batch(stage: Stage) -> None:
    author = Author(1)
    key = "app.bsky.graph.verification/a"
    frames = [
        author.creates(key, subject="did:web:s.test", handle="s.test", displayName="S"),
        author.deletes(key),
    ]
    outcome = stage.apply(*frames)
    messages = [
        message
        for sent in outcome.sent
        if isinstance(message := CODEC.decode(sent.body), NotifierWork)
    ]
    (unverified,) = (told for message in messages for told in message.unverified)
    assert msgspec.structs.astuple(unverified)[:3] == (
        author.uri(key),
        author.did,
        "did:web:s.test",
    )
