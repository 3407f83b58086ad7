"""Operators' commands beside a running engine, and a user gate that is away: the whole program."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from actors.store.verify import verify
from bench.network_account import Write
from bench.relay_options import RelayOptions
from bench.relay_process import RelayProcess, relay_process
from tests.author import START, Author, ref
from tests.commands import command
from tests.program import Program, program, wait_until


class Live:
    """A running program, the relay it reads, and its database."""

    def __init__(
        self, running: Program, relay: RelayProcess, connection: psycopg.Connection[Any]
    ) -> None:
        self.running = running
        self.connection = connection
        self._relay = relay
        self._seq = 0
        self._markers = Author(999)

    def publish(self, *writes: tuple[Author, Write]) -> None:
        """Send one commit for each write."""
        frames = []
        for author, write in writes:
            self._seq += 1
            frames.append(author.commit([write], self._seq, START + self._seq * 1_000_000))
        self._relay.publish(frames)

    def count(self, sql: str, *values: object) -> int:
        row = self.connection.execute(f"SELECT count(*) FROM {sql}".encode(), values).fetchone()
        assert row is not None
        return int(row[0])

    def until(self, sql: str, number: int, *values: object) -> None:
        """Wait until a query counts so many rows."""
        wait_until(lambda: self.count(sql, *values) == number, f"{number} of {sql}", self.running)

    def until_durable(self) -> None:
        """Wait until everything that was sent is durable, whatever became of it."""
        wait_until(
            lambda: self.count("firehose_cursor WHERE cursor::bigint >= %s", self._seq) == 1,
            f"the checkpoint {self._seq}",
            self.running,
        )


@contextmanager
def live(database: str, folder: Path, **environment: str) -> Iterator[Live]:
    arguments = ("--from-start", "--shards", "2", "--database-url", database)
    with (
        relay_process(None, RelayOptions()) as relay,
        program(folder, *arguments, "--source", relay.url, environment=environment) as running,
    ):
        wait_until(lambda: running.said('"run begins"'), "the run to begin", running)
        with psycopg.connect(database, autocommit=True) as connection:
            made = Live(running, relay, connection)
            first = Author(0)
            made.publish((first, first.put("app.bsky.feed.post/first", text="first")))
            made.until("posts", 1)
            made.until("users", 1)
            yield made
            running.child.send_signal(signal.SIGTERM)
            assert running.wait() == 0, running.tail()


def newcomers(number: int) -> list[tuple[Author, Write]]:
    authors = [Author(index) for index in range(100, 100 + number)]
    return [(author, author.put("app.bsky.feed.post/hello", text="hello")) for author in authors]


def users_of(state: Live, writes: list[tuple[Author, Write]]) -> int:
    dids = [author.did for author, _ in writes]
    return state.count("users WHERE did = ANY(%s)", dids)


def test_a_gate_that_stalls_holds_up_no_batch_and_loses_nobody(
    database: str, tmp_path: Path
) -> None:
    with live(database, tmp_path) as state:
        gate = state.running.pid_of("user_gate")
        os.kill(gate, signal.SIGSTOP)
        writes = newcomers(300)
        for start in range(0, len(writes), 50):
            state.publish(*writes[start : start + 50])
        state.until("posts", 301)
        state.until_durable()
        assert users_of(state, writes) == 0
        assert state.count("engine_outbox WHERE receiver = 'user_gate'") > 0
        os.kill(gate, signal.SIGCONT)
        state.until("engine_outbox WHERE receiver = 'user_gate'", 0)
        assert users_of(state, writes) == 300
        # It was waited for with patience, not replaced.
        assert state.running.pid_of("user_gate") == gate


def test_a_gate_that_is_dead_for_a_while_holds_up_no_batch_and_loses_nobody(
    database: str, tmp_path: Path
) -> None:
    away = {
        "SKYSHARD_SUPERVISOR__BACKOFF_MIN_SECONDS": "6",
        "SKYSHARD_SUPERVISOR__BACKOFF_MAX_SECONDS": "6",
    }
    with live(database, tmp_path, **away) as state:
        gate = state.running.kill("user_gate")
        writes = newcomers(300)
        state.publish(*writes)
        state.until("posts", 301)
        state.until_durable()
        assert users_of(state, writes) == 0
        state.until("engine_outbox WHERE receiver = 'user_gate'", 0)
        assert users_of(state, writes) == 300
        assert state.running.pid_of("user_gate") != gate


def test_a_takedown_beside_an_engine_is_done_by_it_and_holds_from_then_on(
    database: str, tmp_path: Path
) -> None:
    with live(database, tmp_path) as state:
        bad, good = Author(1), Author(2)
        writes = [
            (bad, bad.put(f"app.bsky.feed.post/{number}", text="bad")) for number in range(1200)
        ]
        liked = good.put("app.bsky.feed.like/1", subject=ref(bad.uri("app.bsky.feed.post/1")))
        state.publish(*writes, (good, liked))
        state.until("posts WHERE author_did = %s", 1200, bad.did)
        ended = command("takedown", "add", bad.did, "--database-url", database)
        assert (ended.code, ended.out) == (
            0,
            f"{bad.did}: taken down\nnothing is stored of it any more\n",
        )
        assert state.count("posts WHERE author_did = %s", bad.did) == 0
        assert state.count("likes") == 1
        state.publish((bad, bad.put("com.example.thing/again", text="again")))
        state.until_durable()
        assert state.count("generic_records") == 0
        told = command("explain", bad.uri("com.example.thing/again"), "--database-url", database)
        assert "  not indexed: its author is taken down\n" in told.out
        command("takedown", "remove", bad.did, "--database-url", database)
        state.publish((bad, bad.put("com.example.thing/more", text="more")))
        state.until("generic_records", 1)
        assert state.count("engine_repos WHERE did = %s AND out_of_step", bad.did) == 1
    assert [each for each in verify(database) if bad.did in each.key] == []


def test_a_user_who_is_forgotten_beside_an_engine_leaves_nothing_and_a_drop_is_explained(
    database: str, tmp_path: Path
) -> None:
    with live(database, tmp_path) as state:
        one, other = Author(1), Author(2)
        state.publish(
            (one, one.put("app.bsky.feed.post/a", text="x")),
            (one, one.put("app.bsky.actor.profile/self", displayName="One")),
            (other, other.put("app.bsky.feed.post/a", text=7)),
            (other, other.put("app.bsky.feed.post/b", text="x")),
        )
        state.until("posts", 3)
        state.until("users WHERE profile_record IS NOT NULL", 1)
        ended = command("forget", one.did, "--database-url", database)
        assert ended.code == 0
        assert ended.out.endswith("nothing is stored of it any more\n")
        state.publish((one, one.put("app.bsky.feed.post/b", text="x")))
        state.until_durable()
        assert state.count("posts WHERE author_did = %s", one.did) == 0
        assert state.count("users WHERE profile_record IS NOT NULL") == 0
        told = command("explain", other.uri("app.bsky.feed.post/a"), "--database-url", database)
        assert told.code == 0
        assert "  not indexed: dropped, " in told.out
