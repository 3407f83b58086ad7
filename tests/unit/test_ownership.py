"""One engine per database: the second is refused, the next takes over, a lost lock comes back."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest
import structlog

from actors.store import ownership
from actors.store.fence import OWNER_LOCK
from actors.store.ownership import Ownership
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.session import Connection, DatabaseAway, SessionSettings, open_session
from tests.overlap import SECONDS, wait_until
from tests.writing import session


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Ownership]]:
    """What a test takes a database with; all are given up at its end."""
    monkeypatch.setattr(ownership, "KEEP_SECONDS", 0.02)
    monkeypatch.setattr(ownership, "GRACE_SECONDS", 0.1)
    made: list[Ownership] = []
    yield made
    for owner in made:
        owner.close()


def owner_of(owners: list[Ownership], database: str, holder: str) -> Ownership:
    owner = Ownership(SessionSettings(database), holder)
    owners.append(owner)
    return owner


def lock_holders(connection: Connection) -> list[int]:
    """The backends that hold the owner's lock."""
    rows = connection.execute(
        "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted"
        " AND l.objid::bigint = %s",
        [OWNER_LOCK],
    ).fetchall()
    return [pid for (pid,) in rows]


def test_the_first_run_makes_the_tables_and_begins_the_first_epoch(
    owners: list[Ownership], database: str
) -> None:
    assert owner_of(owners, database, "process 1").take() == (1, None)
    with session(database, "observer") as connection:
        row = connection.execute("SELECT epoch, holder, ended FROM engine_epoch").fetchone()
        assert row == (1, "process 1", False)
        assert len(lock_holders(connection)) == 1


def test_a_second_engine_is_refused_in_one_line_that_names_the_first(
    owners: list[Ownership], database: str
) -> None:
    owner_of(owners, database, "process 1 on a machine").take()
    with pytest.raises(DatabaseRefused) as refused:
        owner_of(owners, database, "process 2").take()
    assert refused.value.reason is Reason.LOCKED
    assert "process 1 on a machine" in str(refused.value)
    assert "\n" not in str(refused.value)
    with session(database, "observer") as connection:
        assert connection.execute("SELECT epoch FROM engine_epoch").fetchone() == (1,)


def test_a_second_engine_is_refused_while_the_first_is_just_starting(
    owners: list[Ownership], database: str
) -> None:
    with session(database, "first") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [OWNER_LOCK])
        with pytest.raises(DatabaseRefused, match="just starting"):
            owner_of(owners, database, "process 2").take()


_PROGRAM = """
import signal, sys
from actors.store.ownership import Ownership
from actors.store.session import SessionSettings
print(Ownership(SessionSettings(sys.argv[1]), "the first process").take(), flush=True)
signal.pause()
"""


def test_the_next_run_takes_over_from_one_that_was_killed_and_says_so(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, database], stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "(1, None)\n"
        with pytest.raises(DatabaseRefused, match="the first process"):
            owner_of(owners, database, "a second process").take()
    finally:
        os.kill(program.pid, signal.SIGKILL)
        program.communicate(timeout=SECONDS)
    # The server may not have noticed yet: that is waited for.
    monkeypatch.setattr(ownership, "GRACE_SECONDS", SECONDS)
    assert owner_of(owners, database, "a second process").take() == (2, "the first process")


def test_a_run_that_ended_in_good_order_is_not_spoken_of(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GRACE_SECONDS", SECONDS)
    first = owner_of(owners, database, "process 1")
    first.take()
    first.close()
    with session(database, "observer") as connection:
        connection.execute("UPDATE engine_epoch SET ended = true")
    assert owner_of(owners, database, "process 2").take() == (2, None)


def test_the_lock_is_taken_again_when_its_connection_was_lost(
    owners: list[Ownership], database: str
) -> None:
    owner_of(owners, database, "process 1").take()
    with session(database, "observer") as connection:
        for _ in range(2):
            (before,) = lock_holders(connection)
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
            wait_until(
                lambda before=before: lock_holders(connection) not in ([], [before]),  # type: ignore[misc] # the default binds the loop's value
                "held again",
            )
    with pytest.raises(DatabaseRefused):
        owner_of(owners, database, "process 2").take()


def test_a_server_that_cuts_the_connection_again_does_not_end_the_keeping(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner_of(owners, database, "process 1").take()
    cut = threading.Event()

    def open_and_cut(settings: SessionSettings, actor: str) -> Connection:
        connection = open_session(settings, actor)
        if not cut.is_set():
            cut.set()
            # As a server that is shutting down: it takes a connection, and ends it.
            connection.close()
        return connection

    monkeypatch.setattr(ownership, "open_session", open_and_cut)
    with session(database, "observer") as connection:
        (before,) = lock_holders(connection)
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
        wait_until(lambda: cut.is_set() and bool(lock_holders(connection)), "held again")


def test_a_lock_that_is_not_held_for_a_while_is_two_lines(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner_of(owners, database, "process 1").take()
    attempts = 0

    def open_or_not(settings: SessionSettings, actor: str) -> Connection:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise DatabaseAway("there is no server")
        return open_session(settings, actor)

    monkeypatch.setattr(ownership, "open_session", open_or_not)
    with structlog.testing.capture_logs() as lines, session(database, "observer") as connection:
        (before,) = lock_holders(connection)
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
        wait_until(lambda: len(lines) == 2, "held again")
    assert attempts == 4
    assert [line["event"] for line in lines] == [
        "the lock on the database is not held",
        "the lock on the database is held again",
    ]
    assert lines[0]["reason"] == "there is no server"


def test_an_owner_that_lets_go_has_nothing_to_say_of_the_end_of_the_server(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = owner_of(owners, database, "process 1")
    owner.take()
    stuck, go_on = threading.Event(), threading.Event()

    def wait_and_fail(_settings: SessionSettings, _actor: str) -> Connection:
        stuck.set()
        go_on.wait(SECONDS)
        raise DatabaseAway("the database system is shutting down")

    monkeypatch.setattr(ownership, "open_session", wait_and_fail)
    monkeypatch.setattr(ownership, "CLOSE_SECONDS", 0.01)
    with structlog.testing.capture_logs() as lines, session(database, "observer") as connection:
        (before,) = lock_holders(connection)
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
        assert stuck.wait(SECONDS)
        owner.close()
        go_on.set()
        wait_until(lambda: "ownership" not in {t.name for t in threading.enumerate()}, "its end")
    assert lines == []


def test_a_database_that_goes_away_while_it_is_taken_is_away(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_and_cut(settings: SessionSettings, actor: str) -> Connection:
        connection = open_session(settings, actor)
        connection.close()
        return connection

    monkeypatch.setattr(ownership, "open_session", open_and_cut)
    with pytest.raises(DatabaseAway):
        owner_of(owners, database, "process 1").take()


def test_a_database_of_a_newer_program_is_let_go(
    owners: list[Ownership], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "GRACE_SECONDS", SECONDS)
    first = owner_of(owners, database, "process 1")
    first.take()
    first.close()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE engine_schema SET version = version + 1")
        with pytest.raises(DatabaseRefused, match="newer program"):
            owner_of(owners, database, "process 2").take()
        wait_until(lambda: lock_holders(connection) == [], "let go")
