"""Fetched records and whole repositories: compared with what is indexed, while live events wait."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from actors.atproto import tid
from actors.decoder import Batch
from actors.parked import ParkedEvents
from actors.store import resync
from actors.store.batch import AccountState, Fetched, Outcome
from actors.store.held import Range
from actors.store.writer import Writer
from tests.author import START, Author, ref
from tests.writing import begin_run, decoded, make_index, session, writer

POST = "app.bsky.feed.post"
LIKE = "app.bsky.feed.like"
PROFILE = "app.bsky.actor.profile/self"
LATER = START + 10**12


def no_wait(_seconds: float) -> None:
    return None


decode = ParkedEvents(Batch, verifies=False, crash_point=lambda: None).decode


class Stage:
    def __init__(self, writing: Writer, connection: psycopg.Connection[Any]) -> None:
        self.writing = writing
        self.connection = connection

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, parameters or None).fetchall()

    def column(self, query: str) -> list[Any]:
        return [row[0] for row in self.rows(query)]

    def live(self, *frames: bytes) -> Outcome:
        return self.writing.apply(decoded(frames).changes)

    def slice(
        self, author: Author, rev: str, after: str, until: str | None, *paths: str
    ) -> Outcome:
        """A slice of the author's repository as it is."""
        return resync.apply_fetched(
            self.writing, of(author, rev, *paths), Range(after, until), no_wait
        )

    def whole(self, author: Author, rev: str, *paths: str) -> None:
        """Fetch a repository with these records at once."""
        resync.begin(self.writing, author.did, no_wait)
        self.slice(author, rev, "", None, *paths)
        resync.end(self.writing, author.did, rev, b"data", no_wait)
        self.drain(author)

    def drain(self, author: Author) -> int:
        applied = 0
        while (outcome := resync.drain(self.writing, author.did, decode, no_wait)) is not None:
            applied += outcome.commits
        return applied


def of(author: Author, rev: str, *paths: str) -> Fetched:
    """Records as the author's repository holds them."""
    records = []
    for path in paths:
        collection = path.partition("/")[0]
        fields: dict[str, Any] = {}
        if collection == POST:
            fields = {"text": path}
        elif collection == LIKE:
            fields = {"subject": ref(f"at://did:web:s.test/{POST}/{path[-1]}")}
        if path == PROFILE:
            fields = {"displayName": "fetched"}
        block = author.put(path, **fields).block
        records.append((path, b"\x01\x71\x12\x20" + path.encode().ljust(32, b"x")[:32], block))
    return Batch().fetched(author.did, rev, records)


def rev_at(micros: int) -> str:
    return tid.from_microseconds(micros, 0)


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    conninfo = make_index(database)
    with (
        writer(conninfo, begin_run(conninfo), parked_bytes=20_000) as writing,
        session(conninfo, "observer") as connection,
    ):
        yield Stage(writing, connection)


def test_a_repository_is_compared_with_what_is_indexed_and_the_difference_applied(
    stage: Stage,
) -> None:
    author, other = Author(1), Author(2)
    stage.live(
        author.creates(f"{POST}/a", text="a"),
        author.creates(f"{POST}/b", text="b"),
        author.creates(f"{LIKE}/a", subject=ref(f"at://did:web:s.test/{POST}/a")),
        author.creates("com.example.thing/x", value=1),
        author.creates("app.bsky.feed.threadgate/a", post=author.uri(f"{POST}/a"), allow=[]),
        author.creates(PROFILE, displayName="old"),
        other.creates(f"{POST}/a", text="of another"),
    )
    stage.whole(author, rev_at(LATER), f"{LIKE}/b", f"{POST}/b", f"{POST}/c")
    assert stage.column("SELECT uri FROM posts ORDER BY uri") == sorted(
        [author.uri(f"{POST}/b"), author.uri(f"{POST}/c"), other.uri(f"{POST}/a")]
    )
    assert stage.column("SELECT uri FROM likes") == [author.uri(f"{LIKE}/b")]
    assert stage.column("SELECT like_count FROM post_aggregations WHERE like_count > 0") == [1]
    assert stage.rows("SELECT * FROM generic_records") == []
    assert stage.rows("SELECT * FROM thread_gates") == []
    assert stage.column("SELECT display_name FROM users WHERE profile_record IS NOT NULL") == []
    guard = "SELECT rev, out_of_step FROM engine_repos WHERE did = %s"
    assert stage.rows(guard, author.did) == [(rev_at(LATER), False)]


def test_a_fetched_record_takes_the_time_of_its_rev(stage: Stage) -> None:
    author = Author(1)
    stage.whole(author, rev_at(LATER), f"{POST}/a")
    assert stage.rows(
        "SELECT (extract(epoch FROM commit_time) * 1000000)::bigint, commit_seq, commit_rev"
        " FROM posts"
    ) == [(LATER, None, rev_at(LATER))]


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_any_slices_give_the_same_as_the_whole(stage: Stage, cut: int) -> None:
    author = Author(1)
    kinds = (LIKE, POST, "com.example.thing")
    held = [f"{kind}/{key}" for kind in kinds for key in ("a", "b~", "b", "z")]
    for path in held:
        fields: dict[str, Any] = (
            {"subject": ref(f"at://did:web:s.test/{POST}/{path}")} if LIKE in path else {"text": ""}
        )
        stage.live(author.creates(path, **fields))
    wanted = sorted([PROFILE, *(f"{kind}/{key}" for kind in kinds for key in ("b", "c"))])
    rev = rev_at(LATER)
    resync.begin(stage.writing, author.did, no_wait)
    after = ""
    for start in range(0, len(wanted), cut):
        part = wanted[start : start + cut]
        last = start + cut >= len(wanted)
        stage.slice(author, rev, after, None if last else part[-1], *part)
        after = part[-1]
    found = [
        uri.removeprefix(f"at://{author.did}/")
        for table in ("posts", "likes", "generic_records")
        for uri in stage.column(f"SELECT uri FROM {table}")
    ]
    assert sorted([*found, PROFILE]) == wanted
    assert stage.column("SELECT display_name FROM users WHERE display_name IS NOT NULL") == [
        "fetched"
    ]


def test_duplicates_that_are_kept_aside_go_when_the_repository_has_them_no_more(
    stage: Stage,
) -> None:
    author = Author(1)
    subject = f"at://did:web:s.test/{POST}/b"
    stage.live(
        author.creates(f"{LIKE}/a", subject=ref(subject)),
        author.creates(f"{LIKE}/b", subject=ref(subject)),
        author.creates(f"{LIKE}/c", subject=ref(subject)),
    )
    stage.whole(author, rev_at(LATER), f"{LIKE}/b")
    assert stage.column("SELECT uri FROM likes") == [author.uri(f"{LIKE}/b")]
    assert stage.rows("SELECT * FROM engine_duplicates") == []


def test_live_events_wait_while_a_repository_is_fetched_and_are_applied_after(
    stage: Stage,
) -> None:
    author, other = Author(1), Author(2)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    outcome = stage.live(
        author.creates(f"{POST}/live", text="live"),
        author.deletes(f"{POST}/a"),
        other.creates(f"{POST}/o", text="o"),
    )
    assert (outcome.parked, outcome.commits) == (2, 1)
    # The file is of the moment between the two.
    between = stage.rows("SELECT rev FROM engine_repos WHERE did = %s", author.did)[0][0]
    stage.slice(author, between, "", None, f"{POST}/a")
    resync.end(stage.writing, author.did, between, b"data", no_wait)
    assert stage.column("SELECT did FROM engine_parked WHERE draining") == [author.did]
    # What comes while it drains waits behind.
    stage.live(author.creates(f"{POST}/last", text="last"))
    assert stage.drain(author) == 3
    assert sorted(stage.column("SELECT uri FROM posts")) == sorted(
        [author.uri(f"{POST}/live"), author.uri(f"{POST}/last"), other.uri(f"{POST}/o")]
    )
    assert stage.rows("SELECT * FROM engine_parked") == []
    assert stage.rows("SELECT * FROM engine_resync_buffer") == []
    assert stage.live(author.creates(f"{POST}/x", text="x")).commits == 1


def test_a_fetch_that_failed_leaves_the_repository_out_of_step_and_loses_no_event(
    stage: Stage,
) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.connection.execute("UPDATE engine_repos SET out_of_step = true")
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    resync.end(stage.writing, author.did, None, None, no_wait)
    assert stage.drain(author) == 1
    assert len(stage.rows("SELECT * FROM posts")) == 2
    assert stage.column("SELECT out_of_step FROM engine_repos") == [True]


def test_what_this_run_does_not_fetch_is_waited_for_no_longer(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    stage.connection.execute("UPDATE engine_repos SET out_of_step = true")
    resync.begin(stage.writing, author.did, no_wait)
    stage.live(author.creates(f"{POST}/b", text="b"))
    resync.begin_run(stage.writing, ["no_key"], [], no_wait)
    assert stage.column("SELECT did FROM engine_parked WHERE draining") == []
    resync.begin_run(stage.writing, ["resync"], [], no_wait)
    assert stage.drain(author) == 1
    assert stage.column("SELECT out_of_step FROM engine_repos") == [True]
    assert stage.rows("SELECT * FROM engine_parked") == []


def test_what_waits_is_bounded_and_what_was_given_up_is_fetched_anew(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    resync.begin(stage.writing, author.did, no_wait)
    for number in range(60):
        stage.live(author.creates(f"{POST}/n{number}", text="x" * 500))
    held = stage.rows("SELECT coalesce(sum(length(body)), 0) FROM engine_resync_buffer")[0][0]
    assert held <= 20_000
    assert stage.column("SELECT overflowed FROM engine_parked") == [True]
    rev = stage.column("SELECT rev FROM engine_repos")[0]
    resync.end(stage.writing, author.did, rev, b"data", no_wait)
    stage.drain(author)
    assert stage.column("SELECT out_of_step FROM engine_repos") == [True]
    assert stage.rows("SELECT * FROM engine_parked") == []


def test_an_old_fetch_never_overwrites_newer_live_state(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"), author.deletes(f"{POST}/a"))
    old = of(author, rev_at(START), f"{POST}/a")
    outcome = resync.apply_fetched(stage.writing, old, None, no_wait)
    assert (outcome.stale, stage.rows("SELECT * FROM posts")) == (1, [])
    resync.end(stage.writing, author.did, rev_at(START), b"old", no_wait)
    assert stage.column("SELECT rev FROM engine_repos") != [rev_at(START)]
    new = of(author, rev_at(LATER), f"{POST}/a")
    resync.apply_fetched(stage.writing, new, None, no_wait)
    assert len(stage.rows("SELECT * FROM posts")) == 1
    # One record moves no guard.
    assert stage.column("SELECT rev FROM engine_repos") != [rev_at(LATER)]


def test_a_record_of_an_author_never_seen_is_taken_and_makes_no_guard(stage: Stage) -> None:
    author = Author(1)
    resync.apply_fetched(stage.writing, of(author, rev_at(LATER), f"{POST}/a"), None, no_wait)
    assert len(stage.rows("SELECT * FROM posts")) == 1
    assert stage.rows("SELECT * FROM engine_repos") == []


def test_a_record_that_is_proven_absent_goes(stage: Stage) -> None:
    author = Author(1)
    stage.live(author.creates(f"{POST}/a", text="a"))
    absent = Batch().fetched(author.did, rev_at(LATER), [(f"{POST}/a", None, None)])
    resync.apply_fetched(stage.writing, absent, None, no_wait)
    assert stage.rows("SELECT * FROM posts") == []


def test_an_opt_out_holds_for_what_is_fetched_and_a_hidden_account_gets_nothing(
    stage: Stage,
) -> None:
    author, hidden = Author(1), Author(2)
    stage.connection.execute(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        [author.did],
    )
    stage.writing.apply([AccountState(hidden.did, False, "suspended", "h", 1, 1)])
    stage.whole(author, rev_at(LATER), f"{POST}/a", PROFILE)
    stage.whole(hidden, rev_at(LATER), f"{POST}/a")
    assert stage.rows("SELECT * FROM posts") == []
    assert stage.rows("SELECT withheld FROM engine_repos WHERE did = %s", author.did) == [(True,)]


def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(database: str) -> None:
    conninfo = make_index(database)
    author = Author(1)
    crashes = iter(("before_commit", "after_commit") * 4)
    armed = [""]

    def crash_point(name: str) -> None:
        if name == armed[0]:
            armed[0] = ""
            raise KeyboardInterrupt(name)

    with (
        session(conninfo, "observer") as connection,
        writer(conninfo, begin_run(conninfo), crash_point=crash_point) as writing,
    ):
        stage = Stage(writing, connection)
        stage.live(author.creates(f"{POST}/a", text="a"))
        rev = rev_at(LATER)
        waiting = author.creates(f"{POST}/c", text="c")
        steps: list[Callable[[], object]] = [
            lambda: resync.begin(writing, author.did, no_wait),
            lambda: stage.live(waiting),
            lambda: stage.slice(author, rev, "", None, f"{POST}/b"),
            lambda: resync.end(writing, author.did, rev, b"data", no_wait),
            lambda: resync.drain(writing, author.did, decode, no_wait),
        ]
        for step in steps:
            for _ in range(2):
                armed[0] = next(crashes, "")
                try:
                    step()
                except KeyboardInterrupt:
                    step()
                armed[0] = ""
        stage.drain(author)
        # The waiting event is older than the file, so it changes nothing.
        assert stage.column("SELECT uri FROM posts") == [author.uri(f"{POST}/b")]
        assert stage.rows("SELECT * FROM engine_parked") == []
        assert stage.rows("SELECT * FROM engine_resync_buffer") == []
