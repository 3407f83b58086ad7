"""A real PgBouncer for tests, in front of an embedded server, with a pool mode of choice."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from actors.store.account import Account, choose_account
from actors.store.embedded import EmbeddedPostgres

__all__ = ["find_pgbouncer", "pgbouncer"]

_CONFIG = """\
[databases]
* = host={socket} port=5432 user=skyshard
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_round_robin = {round_robin}
"""


def find_pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@contextmanager
def pgbouncer(
    program: str,
    server: EmbeddedPostgres,
    database: str,
    folder: Path,
    *,
    mode: str,
    size: int = 5,
    round_robin: bool = False,
) -> Iterator[str]:
    """Run it in `folder` until the end of the context; the connection string through it."""
    # It refuses to run as root too, and only the server's user may enter the socket's folder.
    account: Account = choose_account(server.folder.owner())
    account.give(folder)
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            socket=server.socket.path,
            folder=folder,
            mode=mode,
            size=size,
            round_robin=int(round_robin),
        )
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = account.run([program, str(config)], output=output)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    conninfo = f"host={folder} port=6432 user=skyshard dbname={name}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(folder / ".s.PGSQL.6432"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield conninfo
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(path: Path) -> bool:
    """Whether somebody listens there; the file is made before."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0
