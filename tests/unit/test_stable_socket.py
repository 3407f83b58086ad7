"""The socket for readers: its path outlives the run, and its folder says who may connect."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from actors.store.account import Account, choose_account
from actors.store.embedded import EmbeddedPostgres
from actors.store.stable_socket import StableSocket
from tests.postgres_server import make_server, short_folder, start

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def who(conninfo: str) -> str:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])


def run_of(folder: Path, number: int) -> EmbeddedPostgres:
    """The server of one data folder as one of several runs has it, each with a new run folder."""
    return make_server(folder, run_dir=folder / f"run-{number}")


def test_readers_connect_by_the_same_words_to_every_run_also_after_a_crash(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    words = set()
    for number in range(3):
        server = run_of(folder, number)
        start(server)
        words.add(server.readers_conninfo())
        assert who(server.readers_conninfo()) == "skyshard"
        assert f"connect with: psql '{server.readers_conninfo()}'" in caplog.text
        if number == 0:
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            server.kill()
        else:
            server.stop(20)
        assert not list(server.stable_socket.path.iterdir())
    # What the README tells readers.
    assert words == {f"host={folder}/data/postgres/run user=skyshard dbname=skyshard"}


def test_the_folder_lets_in_the_owner_of_the_data_and_root_only(
    embedded_server: EmbeddedPostgres,
) -> None:
    found = embedded_server.stable_socket.path.stat()
    assert found.st_uid == embedded_server.folder.owner()
    assert stat.S_IMODE(found.st_mode) == (0o750 if AS_ROOT else 0o700)
    if AS_ROOT:
        assert found.st_gid == 0
        stranger = Account(12345, 12345, "stranger", switch=True)
        assert stranger.can_enter(embedded_server.folder.root)
        assert not stranger.can_enter(embedded_server.stable_socket.path)


def test_whom_the_owner_lets_in_stays_let_in(folder: Path) -> None:
    server = make_server(folder)
    start(server)
    server.stop(20)
    path = server.stable_socket.path
    path.chmod(0o770)
    if AS_ROOT:
        os.chown(path, -1, 12345)
    before = path.stat()
    start(server)
    assert server.stable_socket.there
    server.stop(20)
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (
        before.st_uid,
        before.st_gid,
        before.st_mode,
    )
    if AS_ROOT:
        assert Account(23456, 12345, "reader", switch=True).can_enter(path)


def test_a_folder_that_is_open_to_everybody_is_warned_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    account = choose_account(None)
    stable = StableSocket(folder)
    stable.prepare(account)
    assert "lets" not in caplog.text
    stable.path.chmod(0o755)
    stable.prepare(account)
    assert stable.prepared
    assert "its mode lets everybody in" in caplog.text


def test_a_path_with_signs_that_mean_something_is_taken_as_it_is(folder: Path) -> None:
    server = make_server(folder / 'a "b"  c\'s')
    start(server)
    try:
        assert server.stable_socket.there
        assert who(server.readers_conninfo()) == "skyshard"
    finally:
        server.stop(20)


@pytest.mark.parametrize(("name", "why"), [("x" * 90, "allows 107"), ("a,b", "has a comma")])
def test_where_the_path_is_of_no_use_the_server_runs_and_readers_are_shown_the_other_socket(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, why: str
) -> None:
    server = make_server(folder / name, run_dir=folder / "run")
    start(server)
    try:
        assert not server.stable_socket.path.exists()
        assert who(server.readers_conninfo()) == "skyshard"
    finally:
        server.stop(20)
    assert caplog.text.count("no lasting socket for readers") == 1
    assert why in caplog.text


def test_a_place_without_sockets_is_no_obstacle(folder: Path) -> None:
    server = make_server(folder)
    start(server)
    server.stop(20)
    path = server.stable_socket.path
    path.rmdir()
    path.write_text("not a folder")
    start(server)
    try:
        assert str(server.socket.path) in server.readers_conninfo()
        assert who(server.readers_conninfo()) == "skyshard"
    finally:
        server.stop(20)
    assert path.read_text() == "not a folder"


def test_a_folder_of_somebody_else_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    account = choose_account(None)
    stable = StableSocket(folder)
    stable.prepare(account)
    stable.prepare(replace(account, uid=account.uid + 1, name="another"))
    assert not stable.prepared
    assert not stable.there
    assert "does not belong to another" in caplog.text


def test_what_a_dead_server_left_is_removed_first(folder: Path) -> None:
    stable = StableSocket(folder)
    account = choose_account(None)
    stable.prepare(account)
    (stable.path / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stable.path / ".s.PGSQL.5432"))
    stable.prepare(account)
    assert not list(stable.path.iterdir())
