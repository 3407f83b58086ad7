"""Where the embedded server lives, as whom, and that nobody else's folders are touched."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from actors.store import account as accounts
from actors.store import socket_folder
from actors.store.account import choose_account
from actors.store.data_folder import DataFolder, default_data_dir
from actors.store.embedded import EmbeddedPostgres
from actors.store.guard import Guard
from actors.store.refusal import EXIT_CODES, DatabaseRefused, Reason
from actors.store.socket_folder import SocketFolder
from engine.child import ServiceSpec
from tests.postgres_server import SmallServer, make_server, short_folder, start

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def test_the_server_never_runs_as_root(embedded_server: EmbeddedPostgres) -> None:
    assert embedded_server.pid is not None
    uids = psutil.Process(embedded_server.pid).uids()
    owner = embedded_server.folder.owner()
    assert {uids.real, uids.effective, uids.saved} == {owner}
    assert owner != 0
    assert (owner == os.geteuid()) is not AS_ROOT
    groups = Path(f"/proc/{embedded_server.pid}/status").read_text().split("Groups:")[1]
    if AS_ROOT:
        assert groups.splitlines()[0].strip() == ""


def test_the_owner_of_a_folder_stays_the_user_of_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    nobody = pwd.getpwnam("nobody")
    assert choose_account(nobody.pw_uid).name == "nobody"
    assert choose_account(nobody.pw_uid).switch
    without_name = choose_account(54321)
    assert (without_name.uid, without_name.name) == (54321, "54321")


def test_root_without_any_unprivileged_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(accounts, "CANDIDATES", ("no-such-user",))
    with pytest.raises(DatabaseRefused) as caught:
        choose_account(None)
    assert caught.value.reason is Reason.NO_ACCOUNT
    assert "useradd" in caught.value.message


def test_folders_of_others_keep_their_permissions(folder: Path) -> None:
    parent = folder / "parent"
    parent.mkdir()
    parent.chmod(0o711)
    server = make_server(parent)
    start(server)
    server.stop(20)
    assert stat.S_IMODE(parent.stat().st_mode) == 0o711
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE(server.folder.data.stat().st_mode) == 0o700


def test_a_strict_umask_does_not_lock_the_server_out(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        server = EmbeddedPostgres(folder / "deep" / "data", folder / "run", SmallServer())
        start(server)
        server.stop(20)
    finally:
        os.umask(before)


def test_the_default_place_suits_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/skyshard")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/user/.data")
    assert default_data_dir() == Path("/home/user/.data/skyshard")


def test_the_socket_is_where_the_server_can_make_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert SocketFolder(folder / "run").path == folder / "run"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert SocketFolder(folder / "run").path == folder / "run.pg"
    private = folder / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert SocketFolder(private / "run-1").path == Path(tempfile.gettempdir(), "run-1.pg")


def test_socket_folders_of_killed_runs_are_removed_and_no_others(folder: Path) -> None:
    if not AS_ROOT:
        assert SocketFolder(folder / "run").path == folder / "run", "there are none to remove"
        return
    account = choose_account(None)
    for name in ("dead.pg", "alive.pg", "full.pg", "foreign.pg"):
        (folder / name).mkdir()
        if name != "foreign.pg":
            account.give(folder / name)
    (folder / "alive").mkdir()
    (folder / "dead.pg" / ".s.PGSQL.5432.lock").touch()
    (folder / "full.pg" / "letter").touch()
    SocketFolder(folder / "run").prepare(account)
    left = {path.name for path in folder.iterdir()}
    assert left == {"run.pg", "alive", "alive.pg", "full.pg", "foreign.pg"}


def test_the_socket_folder_of_a_run_that_lives_stays_wherever_its_run_folder_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not AS_ROOT:
        assert SocketFolder(folder / "run").path == folder / "run", "only root makes one apart"
        return
    account = choose_account(None)
    monkeypatch.setattr(socket_folder, "_PUBLIC", folder)
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in ("beside.pg", "elsewhere.pg"):
        (folder / name).mkdir()
        account.give(folder / name)
    # One has its run folder beside it, the other's is in a folder that is not known here.
    (folder / "beside").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_folder.socket_file(folder / "elsewhere.pg")))
        server.listen()
        SocketFolder(private / "run").prepare(account)
        left = {path.name for path in folder.glob("*.pg")}
        assert left == {"run.pg", "beside.pg", "elsewhere.pg"}
    SocketFolder(private / "run").prepare(account)
    assert {path.name for path in folder.glob("*.pg")} == {"run.pg", "beside.pg"}


def test_a_socket_folder_of_somebody_else_is_refused(folder: Path) -> None:
    if not AS_ROOT:
        assert SocketFolder(folder / "run").path == folder / "run", "only root makes one apart"
        return
    (folder / "run.pg").mkdir()
    os.chown(folder / "run.pg", 12345, 12345)
    with pytest.raises(DatabaseRefused, match="belongs to somebody else"):
        SocketFolder(folder / "run").prepare(choose_account(None))


def test_an_empty_data_folder_is_as_good_as_none(folder: Path) -> None:
    server = make_server(folder)
    server.folder.prepare()
    server.folder.data.mkdir()
    choose_account(None).give(server.folder.data)
    start(server)
    server.stop(20)


def test_a_data_dir_behind_a_link_is_found_again(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    assert DataFolder(folder / "link").root == folder.resolve() / "real" / "postgres"


def test_it_is_a_service_of_the_engine(embedded_server: EmbeddedPostgres) -> None:
    spec = ServiceSpec("postgres", embedded_server)
    assert spec.service.poll_ready() is True
    assert spec.service.pid == embedded_server.pid
    assert embedded_server.ready


def test_every_reason_has_an_exit_code_of_its_kind() -> None:
    assert set(EXIT_CODES) == set(Reason)
    assert all(64 <= code <= 78 for code in EXIT_CODES.values())


def test_a_guard_that_was_let_go_ends_nothing() -> None:
    guard = Guard()
    pidfd = os.pidfd_open(os.getpid())  # it would be us
    try:
        guard.watch(pidfd)
        guard.close()
    finally:
        os.close(pidfd)
    assert not psutil.pid_exists(guard.pid)


def test_a_dead_guard_is_noticed() -> None:
    guard = Guard()
    psutil.Process(guard.pid).kill()
    psutil.wait_procs([psutil.Process(guard.pid)], timeout=0)
    while guard.alive:
        continue
    with pytest.raises(OSError, match="pipe"):
        guard.watch(0)
    guard.close()


def test_the_template_of_databases_is_empty(embedded_server: EmbeddedPostgres) -> None:
    with psycopg.connect(embedded_server.conninfo()) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone()
    assert found == (0,)
