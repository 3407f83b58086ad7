"""Which database is chosen, how it is connected to, and which ones are refused."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from actors.store.database import (
    Database,
    ServerFacts,
    check_database,
    choose_database,
    connect,
    judge,
)
from actors.store.embedded import EmbeddedPostgres
from actors.store.refusal import DatabaseRefused, Reason
from tests.pgbouncer import find_pgbouncer, pgbouncer
from tests.postgres_server import (
    REQUIRE_ALL,
    SmallServer,
    make_server,
    package_binaries,
    short_folder,
    start,
)


def theirs(conninfo: str) -> Database:
    return Database(conninfo, None, "the database under test")


def refusal(database: Database, seconds: float = 10.0) -> DatabaseRefused:
    with pytest.raises(DatabaseRefused) as caught:
        check_database(database, connect_seconds=seconds)
    assert "\n" not in caught.value.message
    return caught.value


# --- the choice


def test_an_address_comes_before_the_environment_and_that_before_the_embedded_one(
    tmp_path: Path,
) -> None:
    environment = {"DATABASE_URL": "postgresql://there/second"}
    options = SmallServer()
    first = choose_database("postgresql://here/first", None, tmp_path, options, environment)
    second = choose_database("", tmp_path, tmp_path, options, environment)
    third = choose_database("", tmp_path, tmp_path, options, {})
    assert (first.conninfo, first.service) == ("postgresql://here/first", None)
    assert first.label == "the PostgreSQL at host here, dbname first"
    assert (second.conninfo, second.service) == ("postgresql://there/second", None)
    assert third.service is not None
    assert third.conninfo == third.service.conninfo()
    assert third.service.folder.data_dir == tmp_path


def test_no_message_shows_a_password(tmp_path: Path) -> None:
    address = "postgresql+driver://user:hidden@host/database"
    with pytest.raises(DatabaseRefused) as caught:
        choose_database(address, None, tmp_path, SmallServer())
    assert caught.value.reason is Reason.BAD_ADDRESS
    assert "hidden" not in caught.value.message
    address = "postgresql://user:hidden@localhost:1/database"
    chosen = choose_database(address, None, tmp_path, SmallServer())
    refused = refusal(chosen)
    assert refused.reason is Reason.UNREACHABLE
    assert "hidden" not in refused.message
    assert "port 1" in refused.message


# --- the connection


def test_settings_hold_for_the_session_also_after_a_rollback(database: str) -> None:
    settings = {"statement_timeout": "7s", "lock_timeout": "3s"}
    with closing(connect(database, application_name="shard-3", settings=settings)) as connection:
        assert not connection.autocommit
        connection.rollback()
        row = connection.execute(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
            " current_setting('application_name'), current_setting('timezone'),"
            " current_setting('client_encoding')"
        ).fetchone()
    assert row == ("7s", "3s", "shard-3", "UTC", "UTF8")


def test_keepalives_are_asked_of_both_sides_and_the_address_wins(database: str) -> None:
    with closing(connect(database, application_name="x", autocommit=True)) as connection:
        assert connection.autocommit
        parameters = connection.info.get_parameters()
        assert (parameters["keepalives_idle"], parameters["tcp_user_timeout"]) == ("30", "60000")
    with closing(connect(f"{database} keepalives_idle=77", application_name="x")) as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "77"


def test_a_setting_that_does_not_exist_leaves_no_connection_open(database: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        connect(database, application_name="leak", settings={"statement_timeout": "soon"})
    with psycopg.connect(database) as connection:
        count = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leak'"
        ).fetchone()
    assert count == (0,)


# --- what is refused


def test_a_good_database_is_accepted(database: str) -> None:
    facts = check_database(theirs(database))
    assert facts.version >= 180000
    assert (facts.encoding, facts.standby, facts.read_only) == ("UTF8", False, False)


def test_another_supported_major_version_is_accepted(other_postgres: str) -> None:
    assert check_database(theirs(other_postgres)).version // 10000 == 15


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (ServerFacts(130022, "UTF8", standby=False, read_only=False), Reason.TOO_OLD),
        (ServerFacts(90624, "UTF8", standby=False, read_only=False), Reason.TOO_OLD),
        (ServerFacts(140000, "LATIN1", standby=False, read_only=False), Reason.ENCODING),
        (ServerFacts(140000, "", standby=False, read_only=False), Reason.ENCODING),
        (ServerFacts(180006, "UTF8", standby=True, read_only=True), Reason.READ_ONLY),
        (ServerFacts(180006, "UTF8", standby=False, read_only=True), Reason.READ_ONLY),
        (ServerFacts(140000, "UTF8", standby=False, read_only=False), None),
    ],
)
def test_the_facts_decide(facts: ServerFacts, reason: Reason | None) -> None:
    if reason is None:
        judge(facts)
        return
    with pytest.raises(DatabaseRefused) as caught:
        judge(facts)
    assert caught.value.reason is reason
    assert caught.value.exit_code == 78


@contextmanager
def greeting(*parameters: tuple[bytes, bytes]) -> Iterator[str]:
    """A server that lets everybody in, tells those parameters, and answers nothing else."""
    listener = socket.create_server(("127.0.0.1", 0))

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the test is over
            with client, suppress(ConnectionError):  # it leaves as it likes
                client.recv(65536)
                answer = message(b"R", struct.pack("!i", 0))
                for name, value in parameters:
                    answer += message(b"S", name + b"\0" + value + b"\0")
                client.sendall(answer + message(b"Z", b"I"))
                client.recv(65536)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield f"host=127.0.0.1 port={port} user=x dbname=x sslmode=disable gssencmode=disable"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(120)


def test_an_old_server_is_refused_before_it_is_asked_anything() -> None:
    with greeting((b"server_version", b"13.22"), (b"server_encoding", b"UTF8")) as conninfo:
        refused = refusal(theirs(conninfo))
    assert refused.reason is Reason.TOO_OLD
    assert "PostgreSQL 13" in refused.message
    assert "14" in refused.message


def test_a_database_that_cannot_hold_all_text_is_refused(
    embedded_server: EmbeddedPostgres,
) -> None:
    with psycopg.connect(embedded_server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1'")
        try:
            assert refusal(theirs(embedded_server.conninfo("narrow"))).reason is Reason.ENCODING
        finally:
            connection.execute("DROP DATABASE narrow")


def test_a_database_set_to_read_only_is_refused(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    refused = refusal(theirs(database))
    assert refused.reason is Reason.READ_ONLY
    assert "default_transaction_read_only" in refused.message


def test_a_standby_is_refused() -> None:
    with short_folder() as folder:
        server = make_server(folder)
        try:
            start(server)
            server.stop(20)
            (server.folder.data / "standby.signal").touch()
            start(server)
            refused = refusal(theirs(server.conninfo()))
        finally:
            server.kill()
    assert refused.reason is Reason.READ_ONLY
    assert "standby" in refused.message


def test_a_database_that_is_not_there_is_told(embedded_server: EmbeddedPostgres) -> None:
    refused = refusal(theirs(embedded_server.conninfo("nowhere")))
    assert refused.reason is Reason.UNREACHABLE
    assert '"nowhere" does not exist' in refused.message


# --- pools


@pytest.fixture
def pgbouncer_program() -> str:
    program = find_pgbouncer()
    if program is None:
        why = "no pgbouncer (Debian: apt-get install pgbouncer)"
        if os.environ.get(REQUIRE_ALL):
            pytest.fail(why)
        pytest.skip(why)
    return program


@pytest.mark.parametrize(
    ("mode", "size", "round_robin"),
    [
        ("transaction", 5, False),
        ("transaction", 5, True),
        ("transaction", 1, False),
        ("statement", 5, False),
        ("statement", 1, True),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_a_pool_by_transaction_is_refused(
    embedded_server: EmbeddedPostgres,
    database: str,
    pgbouncer_program: str,
    mode: str,
    size: int,
    round_robin: bool,
    warm: bool,
) -> None:
    with (
        short_folder() as folder,
        pgbouncer(
            pgbouncer_program,
            embedded_server,
            database,
            folder,
            mode=mode,
            size=size,
            round_robin=round_robin,
        ) as conninfo,
    ):
        if warm and mode == "transaction":
            fill_pool(conninfo, size)
        refused = refusal(theirs(conninfo))
    assert refused.reason is Reason.POOLED
    assert "session" in refused.message


def fill_pool(conninfo: str, size: int) -> None:
    """Have the pool open all its connections, which are then free."""
    clients = [psycopg.connect(conninfo) for _ in range(size)]
    for client in clients:
        client.execute("SELECT 1")
    for client in clients:
        client.close()


def test_a_pool_by_session_is_accepted(
    embedded_server: EmbeddedPostgres, database: str, pgbouncer_program: str
) -> None:
    with (
        short_folder() as folder,
        pgbouncer(pgbouncer_program, embedded_server, database, folder, mode="session") as conninfo,
    ):
        assert check_database(theirs(conninfo)).version >= 180000
        with closing(
            connect(conninfo, application_name="x", settings={"lock_timeout": "3s"})
        ) as connection:
            connection.rollback()
            assert connection.execute("SHOW lock_timeout").fetchone() == ("3s",)


def test_the_programs_of_the_package_are_the_ones_in_use(
    embedded_server: EmbeddedPostgres,
) -> None:
    with psycopg.connect(embedded_server.conninfo()) as connection:
        version = connection.execute("SHOW server_version").fetchone()
    assert version == (package_binaries().version,)
