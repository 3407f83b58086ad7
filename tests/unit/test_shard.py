"""A shard as a process, fed with real frames, on a real database."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors import capture
from actors.messages import MESSAGES, EnsureUsers, Frames
from actors.shard import GATE_REST_SECONDS, Shard, ShardSettings
from actors.store import outbox
from actors.store.session import SessionSettings
from actors.user_gate import UserGate, UserGateSettings
from engine.actor import Actor, Delivery
from engine.address import Address
from engine.control import Drain, Fail, Fault
from engine.message import Message
from engine.topology import Edge, EdgeKind
from tests import tables
from tests.reference import Reference
from tests.unit.engine_harness import Harness
from tests.writing import make_index

EPOCH = 7
FRAMES = 600


@dataclass(frozen=True)
class Feed:
    """What the feeder tells the shard: the first frames of the bundled capture, in messages."""

    path: Path
    size: int = 50


class Feeder(Actor):
    """Stands for ingest; says when everything is acked."""

    settings: Feed

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if not up or generation > 1:
            return
        self.context.on_ack(peer, lambda _tokens: self.look())
        frames = list(capture.read(self.settings.path))
        for start in range(0, len(frames), self.settings.size):
            part = frames[start : start + self.settings.size]
            self.context.tell(peer, Frames("test", part), token=start)

    def look(self) -> None:
        if not self.context.outstanding():
            self.context.finish({"acked": True})


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    frames = list(capture.read(capture.DEMO))[:FRAMES]
    path = tmp_path_factory.mktemp("feed") / "feed.frames"
    capture.write(path, frames)
    return Feed(path)


@pytest.fixture(scope="module")
def expected(feed: Feed) -> tables.Tables:
    reference = Reference()
    for frame in capture.read(feed.path):
        reference.frame(frame)
    return tables.without(reference.tables(), "notifications")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_index(database), autocommit=True) as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        yield opened


@contextmanager
def stage(database: str, *, outage_seconds: float = 60.0) -> Iterator[Harness]:
    session = SessionSettings(database, outage_seconds=outage_seconds)
    edges = (
        Edge("feeder", "shard-0", EdgeKind.TELL, messages=1000, bytes=64 * 1024 * 1024),
        Edge("shard-0", "user_gate", EdgeKind.ASK, messages=4),
        Edge("shard-0", "user_gate", EdgeKind.OFFER, messages=64),
    )
    with Harness(edges, MESSAGES) as harness:
        settings = ShardSettings(
            session, 100, 1 << 20, 5, 1000, 250, False, 1, receivers=("user_gate",)
        )
        harness.start("shard-0", Shard, settings)
        yield harness


def start_gate(harness: Harness, database: str) -> None:
    gate = UserGateSettings(SessionSettings(database), 10, 500, 10_000)
    harness.start("user_gate", UserGate, gate)


def until_acked(harness: Harness) -> None:
    harness.until(lambda: bool(harness.reports("feeder")))


def test_a_gate_that_is_away_holds_up_nothing_and_loses_nobody(
    database: str, connection: psycopg.Connection[Any], feed: Feed, expected: tables.Tables
) -> None:
    with stage(database) as harness:
        harness.spawn("feeder", Feeder, feed)
        until_acked(harness)
        assert outbox.depth(connection) > 0
        start_gate(harness, database)
        harness.until(lambda: outbox.depth(connection) == 0)
    ours = tables.without(tables.read_tables(database), "notifications")
    assert tables.differences(expected, ours) == []


class DeafGate(Actor):
    """A gate that stalls: it takes what it is asked and answers nothing."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        if isinstance(message, EnsureUsers):
            self.context.finish({"asked": len(message.dids)})
        return None


def test_a_gate_that_stalls_is_waited_for_once_in_a_while_not_for_each_batch(
    database: str, connection: psycopg.Connection[Any], feed: Feed
) -> None:
    with stage(database) as harness:
        harness.start("user_gate", DeafGate)
        began = time.monotonic()
        harness.spawn("feeder", Feeder, feed)
        until_acked(harness)
        seconds = time.monotonic() - began
        asked = len(harness.reports("user_gate"))
    assert 1 <= asked <= 1 + seconds / GATE_REST_SECONDS
    work = connection.execute(
        "SELECT count(*) FROM engine_outbox WHERE receiver = 'user_gate'"
    ).fetchone()
    assert work is not None
    assert work[0] > asked


def test_work_offered_to_a_gate_that_is_there_empties_the_outbox(
    database: str, connection: psycopg.Connection[Any], feed: Feed, expected: tables.Tables
) -> None:
    with stage(database) as harness:
        start_gate(harness, database)
        harness.spawn("feeder", Feeder, feed)
        until_acked(harness)
        harness.until(lambda: outbox.depth(connection) == 0)
    ours = tables.without(tables.read_tables(database), "notifications")
    assert tables.differences(expected, ours) == []


def fill_the_disk(connection: psycopg.Connection[Any]) -> None:
    """From now on batches are refused as on a full disk, and the refusals are counted."""
    connection.execute(
        "CREATE SEQUENCE refused;"
        " CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM nextval('refused'); RAISE EXCEPTION 'no space left' USING ERRCODE = '53100';"
        " END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON engine_repos FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse()"
    )


def refusals(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT last_value FROM refused WHERE is_called").fetchone()
    return 0 if row is None else int(row[0])


def test_a_database_that_writes_nothing_for_a_while_is_waited_for(
    database: str, connection: psycopg.Connection[Any], feed: Feed, expected: tables.Tables
) -> None:
    fill_the_disk(connection)
    with stage(database) as harness:
        start_gate(harness, database)
        harness.spawn("feeder", Feeder, feed)
        harness.until(lambda: refusals(connection) >= 3)
        connection.execute("DROP TRIGGER refuse ON engine_repos")
        until_acked(harness)
        # It backs off: there is no telling apart three attempts and a thousand by the result.
        assert refusals(connection) < 20
        harness.until(lambda: outbox.depth(connection) == 0)
    ours = tables.without(tables.read_tables(database), "notifications")
    assert tables.differences(expected, ours) == []


def test_a_database_that_writes_nothing_for_too_long_ends_the_run(
    database: str,
    connection: psycopg.Connection[Any],
    feed: Feed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fill_the_disk(connection)
    said = ended_in_order(database, feed, outage_seconds=0.5)
    assert said.exit_code == 69
    assert "no space left" in said.message
    written = capfd.readouterr()
    assert "Traceback" not in written.out + written.err
    assert (written.out + written.err).count("PostgreSQL is away") == 1


def test_a_shard_of_a_run_that_was_replaced_ends_it_without_a_traceback(
    database: str,
    connection: psycopg.Connection[Any],
    feed: Feed,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The shard has claimed its generation, and finds at its first batch that it is of no use.
    connection.execute(
        "CREATE FUNCTION replace() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE engine_epoch SET epoch = epoch + 1; RETURN NULL; END $$;"
        " CREATE TRIGGER replace AFTER INSERT ON engine_fences FOR EACH STATEMENT"
        " EXECUTE FUNCTION replace()"
    )
    said = ended_in_order(database, feed)
    assert (said.exit_code, "has been replaced by run 8" in said.message) == (75, True)
    written = capfd.readouterr()
    assert "Traceback" not in written.out + written.err


def ended_in_order(database: str, feed: Feed, **options: float) -> Fail:
    """Feed a shard that ends its run; returns what it said of that."""
    with stage(database, **options) as harness:
        harness.spawn("feeder", Feeder, feed)
        harness.until(lambda: bool(harness.of("shard-0", Fail)))
        (said,) = harness.of("shard-0", Fail)
        assert harness.bury("shard-0", crashed=False) == 0
        assert harness.of("shard-0", Fault) == []
    assert isinstance(said, Fail)
    return said


def test_a_drained_shard_has_applied_what_it_held(
    database: str, connection: psycopg.Connection[Any], feed: Feed
) -> None:
    with stage(database) as harness:
        harness.spawn("feeder", Feeder, feed)
        until_acked(harness)
        harness.hub.send("shard-0", harness.generations["shard-0"], Drain(10.0))
        assert harness.bury("shard-0", crashed=False) == 0
    row = connection.execute("SELECT count(*) FROM engine_repos").fetchone()
    assert row is not None
    assert row[0] > 0
