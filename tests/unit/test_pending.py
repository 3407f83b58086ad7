"""The registry as a process, between shards of the test, on a real database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from actors.messages import MESSAGES, OutboxWork, RegistryWork, Settle, SweepOutbox
from actors.pending import Pending, PendingSettings
from actors.store import outbox
from actors.store.arrays import text_array
from actors.store.judgement import JUDGE_SQL
from actors.store.session import Connection, SessionSettings, open_session
from actors.upkeep import Bounds
from engine.actor import Actor, Delivery
from engine.address import Address
from engine.message import Codec, Message
from engine.sharding import shard_of
from engine.topology import Edge, EdgeKind
from tests.unit.engine_harness import Harness
from tests.unit.test_registry import ANN, BOB, ZOE, gate, post, post_uri, waits
from tests.writing import make_index, session

EPOCH = 7
SHARDS = 2
BODY = Codec((RegistryWork,))
BOUNDS = Bounds(86_400.0, 100_000, 1 << 30)


@dataclass(frozen=True)
class Script:
    """What a shard of the test does: work that it sends along when the registry is up, as (row,
    number, body), and how it settles.
    """

    conninfo: str
    work: tuple[tuple[int, int, bytes], ...] = ()
    acks: bool = True
    sweeps: bool = False


class FakeShard(Actor):
    """Settles as a shard does, and reports each message."""

    settings: Script
    acks_itself = True

    def on_start(self) -> None:
        self.connection = open_session(SessionSettings(self.settings.conninfo), self.context.name)

    def on_stop(self) -> None:
        self.connection.close()

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if up:
            for row, number, body in self.settings.work:
                assert self.context.offer(peer, OutboxWork(row, number, body))
            if self.settings.sweeps:
                assert self.context.offer(peer, SweepOutbox())

    def receive(self, message: Message, delivery: Delivery) -> None:
        assert isinstance(message, Settle), message
        self.context.finish({"claims": message.claims, "judge": message.judge})
        if not self.settings.acks:
            return
        with self.connection.transaction():
            uris, awaited = zip(*message.claims, strict=True) if message.claims else ((), ())
            self.connection.execute(
                "DELETE FROM engine_pending e USING unnest(%b::text[], %b::text[]) AS i (uri, key)"
                " WHERE e.uri = i.uri AND e.awaited = i.key",
                [text_array(uris), text_array(awaited)],
            )
            self.connection.execute(JUDGE_SQL.encode(), [text_array(message.judge)])
        self.context.crash_point("shard.settled")
        delivery.ack()


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    make_index(database)
    with session(database, "test") as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        yield opened


def leave(connection: Connection, work: RegistryWork) -> int:
    """Leave work in the outbox, as a shard's transaction does; returns its row."""
    row = connection.execute(
        outbox.INSERT_SQL.encode(), outbox.insert_parameters([("pending", BODY.encode(work))])
    ).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def stage(
    database: str, *, bounds: Bounds = BOUNDS, crash_points: str = "", shards: Script | None = None
) -> Iterator[Harness]:
    """The registry, with shards around it before it starts, or none."""
    edges = [
        Edge(*ends, messages=64)
        for index in range(SHARDS)
        for ends in (
            (f"shard-{index}", "pending", EdgeKind.OFFER),
            ("pending", f"shard-{index}", EdgeKind.TELL),
        )
    ]
    with Harness(edges, MESSAGES, crash_points) as harness:
        if shards is not None:
            start_shards(harness, shards)
        settings = PendingSettings(SessionSettings(database), SHARDS, bounds)
        harness.spawn("pending", Pending, settings)
        if not crash_points:
            harness.until(lambda: "pending" in harness.up)
        yield harness


def start_shards(harness: Harness, script: Script) -> None:
    for index in range(SHARDS):
        harness.start(f"shard-{index}", FakeShard, script)


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def settled(harness: Harness, connection: Connection) -> None:
    """Wait until no work is left."""
    harness.until(lambda: count(connection, "engine_outbox") == 0)


def claimed(harness: Harness) -> list[tuple[str, ...]]:
    """Every claim that was asked for, with the shard that was asked."""
    return [
        (f"shard-{index}", *claim)
        for index in range(SHARDS)
        for report in harness.reports(f"shard-{index}")
        for claim in report["claims"]
    ]


def judged(harness: Harness) -> list[tuple[str, str]]:
    return [
        (f"shard-{index}", uri)
        for index in range(SHARDS)
        for report in harness.reports(f"shard-{index}")
        for uri in report["judge"]
    ]


def home(did: str) -> str:
    return f"shard-{shard_of(did, SHARDS)}"


def in_shard(index: int) -> str:
    """An author of this shard."""
    dids = (f"did:plc:{number}" for number in range(100))
    return next(did for did in dids if shard_of(did, SHARDS) == index)


def rows_left(connection: Connection) -> list[int]:
    return [row for (row,) in connection.execute("SELECT id FROM engine_outbox").fetchall()]


def again(harness: Harness, name: str, script: Script) -> None:
    """Kill a shard, and start its next generation with another script."""
    harness.kill(name)
    harness.start(name, FakeShard, script)


def test_what_waited_for_a_subject_goes_to_the_shards_of_its_authors(
    database: str, connection: Connection
) -> None:
    dids = [f"did:plc:{number}" for number in range(20)]
    here = post(connection, ANN, "here")
    entries = [waits(connection, did, "1", here) for did in dids]
    waits(connection, BOB, "2", post_uri(ANN, "missing"))
    work = RegistryWork(arrived=(here,))
    row = leave(connection, work)
    with stage(database) as harness:
        script = Script(database, ((row, 1, BODY.encode(work)),))
        harness.start("shard-0", FakeShard, script)
        harness.start("shard-1", FakeShard, Script(database))
        settled(harness, connection)
        asked = claimed(harness)
    assert set(asked) == {(home(entry.author), entry.uri, here) for entry in entries}
    assert len({shard for shard, *_ in asked}) == SHARDS
    assert count(connection, "engine_pending") == 1


def test_work_that_nothing_comes_of_is_done_at_once(database: str, connection: Connection) -> None:
    waits(connection, BOB, "1", post_uri(ANN, "missing"))
    leave(connection, RegistryWork(waiting=(post_uri(ANN, "missing"),)))
    leave(connection, RegistryWork(arrived=(post_uri(ANN, "new"),), judge=(post_uri(ANN, "new"),)))
    with stage(database) as harness:
        settled(harness, connection)
    assert count(connection, "engine_pending") == 1


def test_while_no_shard_is_up_work_stays_in_the_outbox(
    database: str, connection: Connection
) -> None:
    here = post(connection, ANN, "here")
    waits(connection, BOB, "1", here)
    leave(connection, RegistryWork(waiting=(here,)))
    # What comes after it and needs nobody is not held up.
    leave(connection, RegistryWork(arrived=(post_uri(ANN, "other"),)))
    with stage(database) as harness:
        harness.until(lambda: harness.metrics("pending").value("pending_unsettled") > 0)
        assert count(connection, "engine_outbox") >= 1
        assert count(connection, "engine_pending") == 1
        start_shards(harness, Script(database))
        settled(harness, connection)
        harness.until(lambda: harness.metrics("pending").value("pending_unsettled") == 0)
    assert count(connection, "engine_pending") == 0


def test_a_row_is_deleted_only_when_all_that_came_of_it_is_acked(
    database: str, connection: Connection
) -> None:
    here = post(connection, ANN, "here")
    for index in range(SHARDS):
        waits(connection, in_shard(index), "1", here)
    row = leave(connection, RegistryWork(arrived=(here,)))
    with stage(database) as harness:
        harness.start("shard-0", FakeShard, Script(database))
        harness.start("shard-1", FakeShard, Script(database, acks=False))
        harness.until(lambda: bool(harness.reports("shard-0") and harness.reports("shard-1")))
        harness.until(lambda: count(connection, "engine_pending") == 1)
        # The next row is begun and done while the first one is not.
        other = post(connection, ANN, "other")
        entry = waits(connection, in_shard(0), "2", other)
        second = leave(connection, RegistryWork(waiting=(other,)))
        again(harness, "shard-0", Script(database, sweeps=True))
        harness.until(lambda: ("shard-0", entry.uri, other) in claimed(harness))
        harness.until(lambda: second not in rows_left(connection))
        assert rows_left(connection) == [row]
        # A restarted shard gets again what it did not ack.
        again(harness, "shard-1", Script(database))
        settled(harness, connection)
    assert count(connection, "engine_pending") == 0


def test_the_registry_that_dies_looks_again_and_nothing_is_lost(
    database: str, connection: Connection
) -> None:
    here = post(connection, ANN, "here")
    for number in range(20):
        waits(connection, f"did:plc:{number}", "1", here)
    leave(connection, RegistryWork(arrived=(here,)))
    with stage(database) as harness:
        for index in range(SHARDS):
            harness.start(f"shard-{index}", FakeShard, Script(database, acks=False))
        harness.until(lambda: len(set(claimed(harness))) == 20)
        harness.kill("pending")
        harness.said.clear()
        for index in range(SHARDS):
            again(harness, f"shard-{index}", Script(database))
        harness.restart("pending")
        settled(harness, connection)
        # The second generation asked for all of them again.
        assert len(set(claimed(harness))) == 20
    assert count(connection, "engine_pending") == 0


def test_posts_that_differ_are_judged_until_none_does(
    database: str, connection: Connection
) -> None:
    top = post(connection, ANN, "top")
    gate(connection, top)
    first, second = post(connection, BOB, "b", top), post(connection, ZOE, "z", top)
    leave(connection, RegistryWork(gates=(top,)))
    with stage(database) as harness:
        start_shards(harness, Script(database))
        settled(harness, connection)
        assert sorted(judged(harness)) == sorted([(home(BOB), first), (home(ZOE), second)])
    rows = connection.execute("SELECT uri FROM posts WHERE violates_thread_gate").fetchall()
    assert {uri for (uri,) in rows} == {first, second}


def test_more_entries_than_a_look_takes_are_all_claimed_in_slices(
    database: str, connection: Connection
) -> None:
    here = post(connection, ANN, "here")
    connection.execute(
        "INSERT INTO engine_pending (uri, awaited, author, kind)"
        " SELECT 'at://did:plc:' || n || '/app.bsky.feed.like/1', %s, 'did:plc:' || n, 'like'"
        " FROM generate_series(1, 50000) n",
        [here],
    )
    leave(connection, RegistryWork(arrived=(here,)))
    with stage(database) as harness:
        start_shards(harness, Script(database))
        settled(harness, connection)
        slices = [
            len(report["claims"])
            for index in range(SHARDS)
            for report in harness.reports(f"shard-{index}")
        ]
    assert max(slices) <= 500
    # Those that upkeep finds meanwhile are asked for twice.
    assert sum(slices) >= 50_000
    assert count(connection, "engine_pending") == 0


@pytest.mark.parametrize("point", ["pending.sent", "pending.settled"])
def test_a_crash_between_any_two_steps_loses_nothing(
    database: str, connection: Connection, point: str
) -> None:
    here = post(connection, ANN, "here")
    for number in range(20):
        waits(connection, f"did:plc:{number}", "1", here)
    top = post(connection, ANN, "top")
    gate(connection, top)
    reply = post(connection, BOB, "reply", top)
    leave(connection, RegistryWork(arrived=(here,), gates=(top,)))
    armed = f"{point}@pending:1"
    with stage(database, crash_points=armed, shards=Script(database)) as harness:
        harness.until(lambda: not harness.processes["pending"].is_alive())
        code = harness.bury("pending")
        assert code != 0
        harness.crash_points = ""
        harness.restart("pending")
        settled(harness, connection)
    assert count(connection, "engine_pending") == 0
    rows = connection.execute("SELECT uri FROM posts WHERE violates_thread_gate").fetchall()
    assert rows == [(reply,)]
