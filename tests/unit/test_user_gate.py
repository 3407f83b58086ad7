"""The user gate as a process, asked by others, on a real database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from actors.messages import MESSAGES, CreateUsers, EnsureUsers, OutboxWork
from actors.store import outbox
from actors.store.arrays import register
from actors.store.session import SessionSettings
from actors.user_gate import UserGate, UserGateSettings
from engine.actor import Actor
from engine.address import Address
from engine.control import Fail, Fault
from engine.message import Codec
from engine.topology import Edge, EdgeKind
from tests.unit.engine_harness import Harness
from tests.writing import make_index

EPOCH = 7
BODY = Codec((CreateUsers,))


def did(number: int) -> str:
    return "did:plc:" + f"{number:024d}".translate(str.maketrans("0189", "abcd"))


@dataclass(frozen=True)
class Script:
    """What an asker does: asks one after the other, then offers outbox work (row, number)."""

    asks: tuple[tuple[str, ...], ...] = ()
    work: tuple[tuple[int, int, tuple[str, ...]], ...] = ()


class Asker(Actor):
    """Stands for a shard; finishes with how many rows its asks had made."""

    settings: Script

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        if not up:
            return
        for asked in self.settings.asks:
            self.context.ask(peer, EnsureUsers(list(asked)), 20.0)
        for row, number, dids in self.settings.work:
            body = BODY.encode(CreateUsers(list(dids)))
            assert self.context.offer(peer, OutboxWork(row, number, body))
        self.context.finish({})


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(make_index(database), autocommit=True) as opened:
        opened.execute("INSERT INTO engine_epoch VALUES (1, %s, 'test')", [EPOCH])
        register(opened)
        yield opened


@contextmanager
def stage(
    database: str, askers: int, *, outage_seconds: float = 60.0, **settings: int
) -> Iterator[Harness]:
    limits = {"max_concurrent_user_creations": 10, "batch_users": 500, "known_cache": 10_000}
    gate = UserGateSettings(
        SessionSettings(database, outage_seconds=outage_seconds), **{**limits, **settings}
    )
    edges = [
        Edge(f"asker-{index}", "user_gate", kind, messages=64)
        for index in range(askers)
        for kind in (EdgeKind.ASK, EdgeKind.OFFER)
    ]
    with Harness(edges, MESSAGES) as harness:
        harness.start("user_gate", UserGate, gate)
        yield harness


def users(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM users").fetchone()
    assert row is not None
    return int(row[0])


def test_any_number_of_requests_for_one_did_make_one_creation(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    same = Script(asks=((did(1),),) * 250)
    with stage(database, 4) as harness:
        for index in range(4):
            harness.spawn(f"asker-{index}", Asker, same)
        harness.until(lambda: all(harness.reports(f"asker-{index}") for index in range(4)))
        harness.until(lambda: harness.metrics("user_gate").value("users_created_total") > 0)
        # Those that are asked for while it is being made wait for that one statement.
        assert harness.metrics_now("user_gate").value("user_statements_total") == 1
    assert users(connection) == 1


def test_never_more_creations_at_once_than_the_limit(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "CREATE TABLE most (seen integer);"
        " CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO most SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
        " AND datname = current_database() AND query LIKE 'INSERT INTO users%';"
        " PERFORM pg_sleep(0.02); RETURN NULL; END $$;"
        " CREATE TRIGGER look BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION look()"
    )
    with stage(database, 3, max_concurrent_user_creations=2, batch_users=1) as harness:
        for index in range(3):
            wanted = tuple(did(index * 100 + number) for number in range(20))
            harness.spawn(f"asker-{index}", Asker, Script(asks=(wanted,)))
        harness.until(lambda: all(harness.reports(f"asker-{index}") for index in range(3)))
    row = connection.execute("SELECT max(seen) FROM most").fetchone()
    assert row == (2,)
    assert users(connection) == 60


def test_work_that_was_left_in_the_outbox_is_done_at_the_start(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    leave_work(connection, [did(1), did(2)], [did(2), did(3)])
    with stage(database, 0) as harness:
        harness.until(lambda: outbox.depth(connection) == 0)
    assert users(connection) == 3


def test_a_gap_in_the_numbers_makes_the_gate_look_into_the_outbox(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database, 1) as harness:
        rows = leave_work(connection, [did(1)], [did(2)], [did(3)])
        # The second of three was not sent along.
        work = ((rows[0], 1, (did(1),)), (rows[2], 3, (did(3),)))
        harness.spawn("asker-0", Asker, Script(work=work))
        harness.until(lambda: outbox.depth(connection) == 0)
        harness.until(lambda: harness.metrics("user_gate").value("outbox_gaps_total") == 1)
    assert users(connection) == 3


def test_a_user_that_is_there_stays_as_it_is(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("INSERT INTO users (did, handle) VALUES (%s, 'somebody.test')", [did(1)])
    with stage(database, 1) as harness:
        harness.spawn("asker-0", Asker, Script(asks=((did(1), did(2)),)))
        harness.until(lambda: bool(harness.reports("asker-0")))
    rows = connection.execute("SELECT did, handle FROM users").fetchall()
    assert dict(rows) == {did(1): "somebody.test", did(2): "handle.invalid"}


def test_a_gate_outlasts_a_database_that_ends_its_sessions(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    with stage(database, 2) as harness:
        harness.spawn("asker-0", Asker, Script(asks=((did(1),),)))
        harness.until(lambda: bool(harness.reports("asker-0")))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'skyshard user_gate'"
        )
        harness.spawn("asker-1", Asker, Script(asks=((did(2),),)))
        harness.until(lambda: bool(harness.reports("asker-1")))
    assert users(connection) == 2


def refuse_users(connection: psycopg.Connection[Any]) -> None:
    """From now on no user is made, as on a full disk, and the attempts are counted."""
    connection.execute(
        "CREATE SEQUENCE refused;"
        " CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM nextval('refused'); RAISE EXCEPTION 'no space left' USING ERRCODE = '53100';"
        " END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON users FOR EACH STATEMENT"
        " EXECUTE FUNCTION refuse()"
    )


def refusals(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT last_value FROM refused WHERE is_called").fetchone()
    return 0 if row is None else int(row[0])


def test_an_outage_is_a_line_at_its_beginning_and_a_line_at_its_end(
    database: str, connection: psycopg.Connection[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    refuse_users(connection)
    leave_work(connection, [did(1)], [did(2)])
    with stage(database, 1, batch_users=1) as harness:
        harness.spawn("asker-0", Asker, Script(asks=((did(3),),)))
        harness.until(lambda: refusals(connection) >= 8)
        connection.execute("DROP TRIGGER refuse ON users")
        harness.until(lambda: bool(harness.reports("asker-0")) and outbox.depth(connection) == 0)
    assert users(connection) == 3
    said = capfd.readouterr()
    for line in ("PostgreSQL is away", "PostgreSQL is back"):
        assert (said.out + said.err).count(line) == 1


def test_a_gate_that_can_make_no_users_for_too_long_ends_the_run_without_a_traceback(
    database: str, connection: psycopg.Connection[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    refuse_users(connection)
    leave_work(connection, [did(1)])
    with stage(database, 0, outage_seconds=0.5) as harness:
        harness.until(lambda: bool(harness.of("user_gate", Fail)))
        (said,) = harness.of("user_gate", Fail)
        assert harness.bury("user_gate", crashed=False) == 0
        assert harness.of("user_gate", Fault) == []
    assert isinstance(said, Fail)
    assert said.exit_code == 69
    assert "no space left" in said.message
    written = capfd.readouterr()
    assert "Traceback" not in written.out + written.err


def test_a_gate_of_a_run_that_was_replaced_ends_it_without_a_traceback(
    database: str, connection: psycopg.Connection[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with stage(database, 1) as harness:
        connection.execute("UPDATE engine_epoch SET epoch = epoch + 1")
        harness.spawn("asker-0", Asker, Script(asks=((did(1),),)))
        harness.until(lambda: bool(harness.of("user_gate", Fail)))
        (said,) = harness.of("user_gate", Fail)
        assert harness.bury("user_gate", crashed=False) == 0
    assert isinstance(said, Fail)
    assert (said.exit_code, "has been replaced by run 8" in said.message) == (75, True)
    written = capfd.readouterr()
    assert "user_gate (generation 1) ends" not in written.out + written.err


def leave_work(connection: psycopg.Connection[Any], *dids: list[str]) -> list[int]:
    """Put work for the gate into the outbox; returns its rows."""
    work = [("user_gate", BODY.encode(CreateUsers(of))) for of in dids]
    rows = connection.execute(outbox.INSERT_SQL, outbox.insert_parameters(work)).fetchall()
    return [row for (row,) in rows]


def test_a_did_that_the_database_refuses_holds_up_nobody(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    # As on a database that another program made.
    connection.execute("ALTER TABLE users ALTER COLUMN did TYPE varchar(255)")
    endless = "did:web:" + ".".join(["a" * 50] * 6) + ".test"
    leave_work(connection, [did(1), endless], [did(2)])
    with stage(database, 0) as harness:
        harness.until(lambda: outbox.depth(connection) == 0)
        harness.until(lambda: harness.metrics("user_gate").value("users_refused_total") == 1)
    assert users(connection) == 2


def test_more_work_than_a_sweep_reads_at_once_is_done_all_the_same(
    database: str, connection: psycopg.Connection[Any]
) -> None:
    leave_work(connection, *([did(number)] for number in range(1000)))
    with stage(database, 0, batch_users=7) as harness:
        harness.until(lambda: outbox.depth(connection) == 0)
    assert users(connection) == 1000
