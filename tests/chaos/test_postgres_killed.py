"""The embedded server when processes are killed: nothing is lost, and nothing is left running."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from actors.store import embedded, leftover
from actors.store.account import choose_account
from actors.store.binaries import accessible
from actors.store.embedded import EmbeddedPostgres
from actors.store.leftover import server_processes
from tests.postgres_server import COPIES, make_server, package_binaries, short_folder, start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made
        # The guard of a killed owner may still be stopping its server in there.
        data = make_server(made).folder.data
        eventually(lambda: not server_processes(data), "the end of the server")


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """Not started, with durable settings."""
    made = make_server(folder, overrides={})
    try:
        yield made
    finally:
        made.kill()


def eventually(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether it has ended; whoever adopted an orphan may take its time to bury it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def write(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(statement)


def rows(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.conninfo()) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def own(folder: Path) -> Iterator[Callable[..., Owner]]:
    """Makes owners on the folder, and kills those that the test has left."""
    owners: list[Owner] = []

    def make(*programs: Path) -> Owner:
        owners.append(Owner(folder, *programs))
        return owners[-1]

    yield make
    for owner in owners:
        owner.kill()


class Owner:
    """The process of `postgres_owner` on a folder."""

    def __init__(self, folder: Path, *programs: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.postgres_owner", str(folder), *map(str, programs)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the owner ended early"
        return line

    def pids(self) -> dict[str, int]:
        while not (line := self.read()).startswith("{"):
            continue
        found: dict[str, int] = json.loads(line)
        return found

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


def programs_whose_initdb_hangs(folder: Path) -> Path:
    """A folder of PostgreSQL's programs, of which initdb does all its work but does not end."""
    # For root the package may lie where the server's user cannot run it.
    real = accessible(package_binaries(), choose_account(None), COPIES)
    programs = folder / "programs"
    programs.mkdir()
    pid_file = folder / "initdb.pid"
    pid_file.touch()
    pid_file.chmod(0o666)  # initdb may run as another user
    scripts = {
        "postgres": f'exec {real.program("postgres")} "$@"',
        "initdb": f'[ "$1" = --version ] && exec {real.program("initdb")} --version\n'
        f'echo $$ > {pid_file}; {real.program("initdb")} "$@"; exec sleep 1000',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return programs


def test_a_killed_postmaster_is_seen_and_started_again(
    server: EmbeddedPostgres, folder: Path
) -> None:
    descriptor, _ = start(server)
    write(server, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    assert server.pid is not None
    assert select.select([descriptor], [], [], 0)[0] == []
    os.kill(server.pid, signal.SIGKILL)
    assert select.select([descriptor], [], [], 30)[0] == [descriptor]
    assert server.describe_exit() == "killed by SIGKILL"
    start(server)
    assert rows(server) == 1000


def test_a_recovery_says_that_it_is_one(server: EmbeddedPostgres) -> None:
    start(server)
    write(server, "CREATE TABLE kept (n int PRIMARY KEY, t text)")
    write(server, "INSERT INTO kept SELECT n, repeat('x', 100) FROM generate_series(1, 300000) n")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    _, waited = start(server)
    assert any(text.startswith("recovery after a crash: recovering ") for text in waited), waited
    assert rows(server) == 300000


def test_a_postmaster_killed_while_it_starts_may_be_started_again(
    server: EmbeddedPostgres,
) -> None:
    descriptor = server.start()
    while not str(server.poll_ready()).startswith("the start of PostgreSQL"):
        time.sleep(0.001)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: server.pid is None, "the end of the postmaster")
    assert isinstance(server.poll_ready(), str)
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    start(server)


def test_a_busy_orphan_of_a_killed_postmaster_does_not_hold_up_the_next(
    server: EmbeddedPostgres, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(server)
    old = server.pid
    assert old is not None
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:

        def work() -> None:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT count(*) FROM generate_series(1, 2000000000)")

        worker = threading.Thread(target=work)
        worker.start()
        backend = psutil.Process(connection.info.backend_pid)
        eventually(lambda: "SELECT" in " ".join(backend.cmdline()), "the backend at work")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: server.pid is None, "the end of the postmaster")
        assert not gone(backend.pid)
        start(server)
        worker.join(120)
    assert not worker.is_alive()
    assert gone(backend.pid)
    assert str(backend.pid) in caplog.text


def test_the_server_of_a_killed_owner_stops_cleanly(
    server: EmbeddedPostgres, folder: Path, own: Callable[..., Owner]
) -> None:
    owner = own()
    pids = owner.pids()
    data = server.folder.data
    assert not gone(pids["postmaster"])
    owner.kill()
    eventually(lambda: not server_processes(data), "the end of the server")
    eventually(lambda: gone(pids["guard"]), "the end of the guard")
    assert not (data / "postmaster.pid").exists(), "the shutdown was not clean"
    _, waited = start(server)
    assert not any("recovery" in text for text in waited)


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(
    folder: Path, own: Callable[..., Owner]
) -> None:
    owner = own()
    pids = owner.pids()
    try:
        groups = {os.getpgid(pid) for pid in pids.values()}
        assert os.getpgid(owner.process.pid) not in groups
        sessions = {os.getsid(pid) for pid in pids.values()}
        assert os.getsid(owner.process.pid) not in sessions
    finally:
        owner.kill()
        eventually(lambda: gone(pids["guard"]), "the end of the guard")


def test_a_server_that_lost_owner_and_guard_is_taken_over(
    server: EmbeddedPostgres,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    own: Callable[..., Owner],
) -> None:
    owner = own()
    pids = owner.pids()
    write(server, "CREATE TABLE kept AS SELECT generate_series(1, 10) AS n")
    os.kill(pids["guard"], signal.SIGKILL)
    owner.kill()
    assert not gone(pids["postmaster"]), "nothing is there to be taken over"
    _, waited = start(server)
    assert "the clean stop of a PostgreSQL left by an earlier run" in waited
    assert not any("recovery" in text for text in waited)
    assert server.pid != pids["postmaster"]
    assert rows(server) == 10
    assert str(pids["postmaster"]) in caplog.text


def test_an_owner_killed_during_initdb_leaves_nothing_that_counts(
    server: EmbeddedPostgres, folder: Path, own: Callable[..., Owner]
) -> None:
    owner = own(programs_whose_initdb_hangs(folder))
    while "initdb" not in owner.read():
        continue
    pid_file = folder / "initdb.pid"
    eventually(lambda: pid_file.exists() and pid_file.read_text() != "", "the start of initdb")
    eventually((server.folder.making / "PG_VERSION").exists, "the work of initdb")
    owner.kill()
    eventually(lambda: gone(int(pid_file.read_text())), "the end of initdb")
    assert server.folder.making.exists()
    assert not server.folder.data.exists()
    start(server)
    assert not server.folder.making.exists()


def test_a_half_made_data_folder_is_made_again(server: EmbeddedPostgres) -> None:
    server.folder.prepare()
    server.folder.making.mkdir()
    (server.folder.making / "PG_VERSION").write_text("18\n")
    _, waited = start(server)
    assert any("initdb" in text for text in waited)
    assert not server.folder.making.exists()


def test_a_pid_file_that_names_another_program_is_removed(
    server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    start(server)
    server.stop(20)
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    pid_file = server.folder.data / "postmaster.pid"
    try:
        for content in (f"{other.pid}\n{server.folder.data}\n1\n5432\n/tmp\n\n 1 1\n", "", "what?"):
            pid_file.write_text(content)
            start(server)
            server.stop(20)
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert caplog.text.count("stale") == 3


def test_a_pid_file_of_a_dead_process_is_no_obstacle(server: EmbeddedPostgres) -> None:
    start(server)
    server.kill()
    assert (server.folder.data / "postmaster.pid").exists()
    start(server)


def test_a_clean_stop_leaves_no_process_and_no_socket(server: EmbeddedPostgres) -> None:
    start(server)
    guard = server.guard_pid
    assert guard is not None
    connection = psycopg.connect(server.conninfo())
    connection.execute("SELECT 1")  # its transaction stays open: the stop does not wait for it
    server.stop(20)
    connection.close()
    assert server.describe_exit() == "stopped cleanly"
    assert server.pid is None
    assert server_processes(server.folder.data) == []
    assert gone(guard)
    for socket in (server.socket, server.stable_socket):
        assert not list(socket.path.glob(".s.*"))
    start(server)


def test_a_kill_leaves_no_process(server: EmbeddedPostgres) -> None:
    start(server)
    server.kill()
    assert server_processes(server.folder.data) == []
    assert server.describe_exit() == "killed by SIGKILL"


def test_a_server_that_does_not_stop_is_killed(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_IMMEDIATE_SECONDS", 0.2)
    start(server)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(0.2)
    assert server.describe_exit() == "killed by SIGKILL"
    assert server_processes(server.folder.data) == []
    assert "did not stop within 0.2 s of SIGQUIT" in caplog.text


def test_a_leftover_that_does_not_stop_is_killed(
    server: EmbeddedPostgres,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: Callable[..., Owner],
) -> None:
    owner = own()
    pids = owner.pids()
    os.kill(pids["guard"], signal.SIGKILL)
    owner.kill()
    os.kill(pids["postmaster"], signal.SIGSTOP)
    monkeypatch.setattr(leftover, "_FAST_SECONDS", 0.2)
    monkeypatch.setattr(leftover, "_IMMEDIATE_SECONDS", 0.2)
    _, waited = start(server)
    assert "the end of a PostgreSQL left behind" in waited
    assert gone(pids["postmaster"])


def test_a_start_that_is_stopped_half_way_leaves_nothing(server: EmbeddedPostgres) -> None:
    server.start()
    while "initdb" not in str(server.poll_ready()):
        continue
    pid = server.pid
    assert pid is not None
    server.stop(20)
    assert gone(pid)
    start(server)
