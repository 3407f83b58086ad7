"""What is left in the outbox is done once, in order, whatever happens to the messages about it."""

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from actors import outbox_actor
from actors.messages import MESSAGES, CreateUsers
from actors.outbox_actor import OutboxActor, Work
from actors.store import outbox
from actors.store.arrays import register
from actors.store.session import Connection, SessionSettings
from engine.context import Context
from engine.control import Drain, Fail, Fault
from engine.message import Codec
from engine.topology import Edge, EdgeKind
from tests.unit.engine_harness import Harness
from tests.unit.outbox_sender import Script, Sender
from tests.writing import make_index

EPOCH = 7
BODY = Codec((CreateUsers,))


@dataclass(frozen=True)
class WorkerSettings:
    """`later`: rows are finished by a message, not by `do`."""

    session: SessionSettings
    later: bool = False


class Worker(OutboxActor[CreateUsers]):
    """Writes what it did into a table `done`; what it has done before it knows by its row."""

    def __init__(self, context: Context, settings: WorkerSettings) -> None:
        super().__init__(context, settings, settings.session, CreateUsers)
        self.left: list[int] = []

    def do(self, connection: Connection, works: Sequence[Work[CreateUsers]]) -> Collection[int]:
        rows = [work.row for work in works]
        with connection.transaction():
            self.fence.check(connection)
            left = outbox.left_for(connection, "worker", 10_000)
            there = {each.row for each in left}
            for work in works:
                if work.row in there:
                    connection.execute(
                        "INSERT INTO done (row, word) VALUES (%s, %s)",
                        [work.row, work.body.dids[0]],
                    )
            if self.settings.later:
                self.left += rows
                self.context.after(0.01, self.finish_left)
                return []
            outbox.finish(connection, rows)
            self.context.crash_point("before_commit")
        self.context.crash_point("after_commit")
        return rows

    def finish_left(self) -> None:
        left, self.left = self.left, []
        self.finish(left)


def say(*said: tuple[int, int, str] | None) -> Script:
    """What a sender says: (row, number, word), or None for a sweep."""
    return Script(
        tuple(None if each is None else (*each[:2], CreateUsers([each[2]])) for each in said)
    )


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_index(database), autocommit=True) as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        opened.execute("CREATE TABLE done (id serial, row bigint, word text)")
        register(opened)
        yield opened


@contextmanager
def stage(
    database: str, *, outage_seconds: float = 60.0, later: bool = False, crash: str = ""
) -> Iterator[Harness]:
    edges = [Edge("sender", "worker", EdgeKind.OFFER, messages=2000)]
    session = SessionSettings(database, outage_seconds=outage_seconds)
    with Harness(edges, MESSAGES, crash) as harness:
        harness.spawn("worker", Worker, WorkerSettings(session, later))
        yield harness


def leave(connection: psycopg.Connection[Any], *words: str) -> list[int]:
    """Put work into the outbox; returns its rows."""
    work = [("worker", BODY.encode(CreateUsers([word]))) for word in words]
    rows = connection.execute(outbox.INSERT_SQL, outbox.insert_parameters(work)).fetchall()
    return [row for (row,) in rows]


def done(connection: psycopg.Connection[Any]) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM done ORDER BY id").fetchall()]


def until_empty(harness: Harness, connection: psycopg.Connection[Any]) -> None:
    harness.until(lambda: outbox.depth(connection) == 0)


def test_work_that_was_left_is_done_at_the_start_in_the_order_of_its_rows(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    words = [f"word {number}" for number in range(2 * outbox_actor.BATCH_ROWS + 1)]
    leave(connection, *words)
    with stage(database) as harness:
        until_empty(harness, connection)
    assert done(connection) == words


def test_work_that_comes_as_messages_is_done_without_reading_the_table(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database) as harness:
        harness.until(lambda: harness.metrics("worker").value("outbox_reads_total") == 1)
        rows = leave(connection, "one", "two", "three")
        said = tuple(
            (row, at + 1, word)
            for at, (row, word) in enumerate(zip(rows, ("one", "two", "three"), strict=True))
        )
        harness.spawn("sender", Sender, say(*said))
        until_empty(harness, connection)
        harness.until(lambda: harness.metrics("worker").value("outbox_works_total") == 3)
        assert harness.metrics_now("worker").value("outbox_reads_total") == 1
        assert harness.metrics_now("worker").value("outbox_gaps_total") == 0
    assert done(connection) == ["one", "two", "three"]


def test_a_gap_in_the_numbers_has_what_was_not_sent_along_done_before_what_was(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database) as harness:
        harness.until(lambda: harness.metrics("worker").value("outbox_reads_total") == 1)
        rows = leave(connection, "one", "two", "three", "four")
        said = ((rows[0], 1, "one"), (rows[2], 3, "three"), (rows[3], 4, "four"))
        harness.spawn("sender", Sender, say(*said))
        until_empty(harness, connection)
        harness.until(lambda: harness.metrics("worker").value("outbox_gaps_total") == 1)
    assert done(connection) == ["one", "two", "three", "four"]


def test_a_message_about_work_that_is_being_done_does_not_do_it_again(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    rows = leave(connection, "one", "two")
    with stage(database, later=True) as harness:
        harness.until(lambda: len(done(connection)) == 2)
        said = ((rows[0], 1, "one"), (rows[1], 2, "two"), None)
        harness.spawn("sender", Sender, say(*said))
        until_empty(harness, connection)
    assert done(connection) == ["one", "two"]


def test_rows_that_are_finished_later_do_not_hide_those_behind_them(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    words = [f"word {number}" for number in range(3 * outbox_actor.BATCH_ROWS)]
    leave(connection, *words)
    with stage(database, later=True) as harness:
        until_empty(harness, connection)
        harness.until(lambda: harness.metrics("worker").value("outbox_held_bytes") == 0)
    assert done(connection) == words


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(
    database: str, connection: psycopg.Connection[Any], point: str
) -> None:
    rows = leave(connection, "one", "two")
    said = ((rows[0], 1, "one"), (rows[1], 2, "two"))
    with stage(database, crash=f"{point}@worker:1") as harness:
        assert harness.bury("worker") == -9
        harness.start("worker", *harness.made["worker"])
        harness.spawn("sender", Sender, say(*said))
        harness.until(lambda: bool(harness.reports("sender")))
        until_empty(harness, connection)
    assert done(connection) == ["one", "two"]


def test_an_actor_outlasts_a_database_that_ends_its_sessions(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database) as harness:
        harness.until(lambda: "worker" in harness.up)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'skyshard worker'"
        )
        leave(connection, "one")
        harness.spawn("sender", Sender, say(None))
        until_empty(harness, connection)
    assert done(connection) == ["one"]


def refuse(connection: psycopg.Connection[Any], code: str, condition: str = "true") -> None:
    """From now on PostgreSQL refuses to write what the condition names, with this error."""
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION 'not this one' USING ERRCODE = '{code}'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON done FOR EACH ROW"
        f" WHEN ({condition}) EXECUTE FUNCTION refuse()"
    )


def test_work_that_the_database_refuses_becomes_a_dead_letter_and_holds_up_nothing(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    refuse(connection, "22001", "NEW.word = 'bad'")
    leave(connection, "one", "bad", "two", "three")
    with stage(database) as harness:
        until_empty(harness, connection)
        harness.until(lambda: harness.metrics("worker").value("outbox_buried_total") == 1)
    assert done(connection) == ["one", "two", "three"]
    letters = connection.execute(
        "SELECT receiver, reason, body FROM engine_dead_letters"
    ).fetchall()
    assert [(receiver, body) for receiver, _, body in letters] == [
        ("worker", BODY.encode(CreateUsers(["bad"])))
    ]
    assert "not this one" in letters[0][1]


def test_work_that_nobody_can_read_becomes_a_dead_letter(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("INSERT INTO engine_outbox (receiver, body) VALUES ('worker', 'nonsense')")
    leave(connection, "one")
    with stage(database) as harness:
        until_empty(harness, connection)
    assert done(connection) == ["one"]


def test_an_outage_is_a_line_at_its_beginning_and_a_line_at_its_end(
    database: str, connection: psycopg.Connection[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    refuse(connection, "53100")
    leave(connection, "one")
    with stage(database) as harness:
        harness.until(lambda: harness.metrics("worker").value("database_outages_total") == 1)
        connection.execute("DROP TRIGGER refuse ON done")
        until_empty(harness, connection)
    said = capfd.readouterr()
    for line in ("PostgreSQL is away", "PostgreSQL is back"):
        assert (said.out + said.err).count(line) == 1


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [("53100", 69, "let the worker do nothing"), ("P0001", 78, "refuses")],
)
def test_a_database_that_writes_nothing_for_too_long_or_never_will_ends_the_run(
    database: str,
    connection: psycopg.Connection[Any],
    capfd: pytest.CaptureFixture[str],
    code: str,
    exit_code: int,
    said: str,
) -> None:
    refuse(connection, code)
    leave(connection, "one")
    with stage(database, outage_seconds=0.3) as harness:
        harness.until(lambda: bool(harness.of("worker", Fail)))
        (failure,) = harness.of("worker", Fail)
        assert harness.bury("worker", crashed=False) == 0
        assert harness.of("worker", Fault) == []
    assert isinstance(failure, Fail)
    assert failure.exit_code == exit_code
    assert said in failure.message
    written = capfd.readouterr()
    assert "Traceback" not in written.out + written.err


def test_an_actor_of_a_run_that_was_replaced_ends_it(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database) as harness:
        harness.until(lambda: "worker" in harness.up)
        connection.execute("UPDATE engine_epoch SET epoch = epoch + 1")
        leave(connection, "one")
        harness.spawn("sender", Sender, say(None))
        harness.until(lambda: bool(harness.of("worker", Fail)))
        (failure,) = harness.of("worker", Fail)
    assert isinstance(failure, Fail)
    assert failure.exit_code == 75
    assert done(connection) == []


def test_a_stop_in_good_order_does_what_is_held_and_leaves_the_rest_in_the_table(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    chance = random.Random(1)
    words = [str(chance.random()) for _ in range(50)]
    with stage(database) as harness:
        harness.until(lambda: harness.metrics("worker").value("outbox_reads_total") == 1)
        rows = leave(connection, *words)
        said = tuple(
            (row, at + 1, word) for at, (row, word) in enumerate(zip(rows, words, strict=True))
        )
        harness.spawn("sender", Sender, say(*said))
        harness.until(lambda: bool(harness.reports("sender")))
        harness.hub.send("worker", 1, Drain(20.0))
        assert harness.bury("worker", crashed=False) == 0
    did = done(connection)
    assert did == words[: len(did)]
    assert outbox.depth(connection) == len(words) - len(did)
