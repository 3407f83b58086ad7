"""What the embedded server refuses: each in one clear line, with its exit code, leaving nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from actors.store.embedded import EmbeddedPostgres
from actors.store.leftover import group_members, server_processes
from actors.store.refusal import EXIT_CODES, DatabaseRefused, Reason
from tests.postgres_server import SmallServer, make_server, short_folder, start

FULL = "0" * 65536


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def refused(server: EmbeddedPostgres, reason: Reason, *words: str) -> None:
    """Starting it is refused for that reason, in one line with those words."""
    try:
        with pytest.raises(DatabaseRefused) as caught:
            start(server)
    finally:
        server.kill()
    assert caught.value.reason is reason, caught.value.message
    assert caught.value.exit_code == EXIT_CODES[reason]
    assert "\n" not in caught.value.message
    for word in words:
        assert word in caught.value.message
    assert server_processes(server.folder.data) == []


def test_a_second_run_on_the_same_folder_is_refused_and_told_who_has_it(folder: Path) -> None:
    first = make_server(folder)
    try:
        start(first)
        refused_run = EmbeddedPostgres(folder / "data", folder / "other", SmallServer())
        with pytest.raises(DatabaseRefused) as caught:
            start(refused_run)
        assert caught.value.reason is Reason.LOCKED
        assert f"process {os.getpid()} (" in caught.value.message
        refused_run.kill()  # as a supervisor does; it is not its server
        assert refused_run.describe_exit() == "was never started"
        for conninfo in (first.conninfo(), first.readers_conninfo()):
            with psycopg.connect(conninfo) as connection:
                connection.execute("SELECT 1")
        assert first.stable_socket.there
    finally:
        first.stop(20)
    second = make_server(folder)
    start(second)
    second.stop(20)


def test_a_data_folder_of_another_major_version_is_refused(folder: Path) -> None:
    server = make_server(folder)
    start(server)
    server.stop(20)
    version = server.folder.data / "PG_VERSION"
    version.write_text("15\n")
    refused(server, Reason.OTHER_MAJOR, str(server.folder.data), "15", "18.", "pg_upgrade")
    version.write_text("18\n")
    start(server)
    server.stop(20)


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(folder: Path) -> None:
    server = make_server(folder)
    server.folder.prepare()
    server.folder.data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(server.folder.data, "nobody")
    (server.folder.data / "letters").write_text("dear")
    refused(server, Reason.NOT_OURS, "not a PostgreSQL data folder")
    assert (server.folder.data / "letters").read_text() == "dear"


def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    server = make_server(folder)
    if os.geteuid() != 0:
        # A normal user cannot make such a folder, but finds one that is always there.
        server.folder.data = Path("/usr")
        refused(server, Reason.NOT_OURS, "belongs to root")
        return
    server.folder.prepare()
    server.folder.data.mkdir()
    refused(server, Reason.NOT_OURS, "belongs to root")


def test_a_folder_that_cannot_be_entered_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir()
    server = make_server(closed)
    # Root enters everything, but the user that PostgreSQL runs as then does not.
    closed.chmod(0o700 if os.geteuid() == 0 else 0o000)
    try:
        refused(server, Reason.NO_ACCESS, str(closed))
    finally:
        closed.chmod(0o755)


def test_a_data_folder_that_cannot_be_read_is_refused(folder: Path) -> None:
    server = make_server(folder)
    start(server)
    server.stop(20)
    secret = server.folder.data / "global" / "pg_control"
    secret.chmod(0o000)
    refused(server, Reason.SERVER_FAILED, "pg_control", "Permission denied", str(server.folder.log))
    secret.chmod(0o600)
    start(server)
    server.stop(20)


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data", folder / ("x" * 100), SmallServer())
    refused(server, Reason.SOCKET_PATH, "107")
    assert not server.folder.root.exists(), "it could be known before anything is made"


def test_a_setting_that_the_server_does_not_take_is_told(folder: Path) -> None:
    server = make_server(folder, overrides={"max_connections": "lots", "fsync": "off"})
    refused(server, Reason.SERVER_FAILED, "max_connections", "lots")


def test_a_start_that_takes_too_long_is_given_up(folder: Path) -> None:
    server = make_server(folder, options=SmallServer(start_seconds=0.0))
    refused(server, Reason.TOO_SLOW, "initdb", "start_seconds")


@pytest.mark.parametrize("steps", [1, 2, 10, 40])
def test_nothing_of_a_killed_initdb_is_left(folder: Path, steps: int) -> None:
    server = make_server(folder)
    server.start()
    while steps:
        if "initdb" in str(server.poll_ready()):
            steps -= 1
        time.sleep(0.01)
    group = server.pid
    assert group is not None
    server.kill()
    assert group_members(group) == []
    shutil.rmtree(folder / "data")  # nobody makes or removes a file there any more


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 100 MB, which only root can mount."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=755", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        unmount = ["umount", str(disk)]
        subprocess.run(unmount, check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk up to `leave` bytes with one file, and return it."""
    filler = disk / "filler"
    status = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)
    return filler


def test_initdb_on_a_full_disk_is_told(small_disk: Path) -> None:
    server = make_server(small_disk)
    server.folder.prepare()
    filler = fill(small_disk, 8_000_000)
    refused(server, Reason.NO_SPACE, "full", str(server.folder.data))
    assert not server.folder.data.exists()
    filler.unlink()
    start(server)
    server.stop(20)


def test_a_start_on_a_full_disk_is_told_and_succeeds_once_there_is_space(small_disk: Path) -> None:
    server = make_server(small_disk)
    start(server)
    server.stop(20)
    filler = fill(small_disk, 0)
    refused(server, Reason.NO_SPACE, "full")
    filler.unlink()
    start(server)
    server.stop(20)


def test_a_disk_that_fills_up_costs_no_committed_row(small_disk: Path) -> None:
    server = make_server(small_disk, overrides={"max_wal_size": "32MB", "min_wal_size": "32MB"})
    start(server)
    try:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (n int, t text)")
            connection.execute("INSERT INTO kept SELECT n, '' FROM generate_series(1, 1000) n")
            filler = fill(small_disk, 300_000)
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(
                    "INSERT INTO kept SELECT n, repeat('x', 500) FROM generate_series(1, 100000) n"
                )
        full = "No space left on device"
        assert full in str(caught.value) or full in server.describe_exit()
        filler.unlink()
        server.kill()
        start(server)
        with psycopg.connect(server.conninfo()) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    finally:
        server.kill()
