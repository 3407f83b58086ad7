"""The chosen database for the length of a block, for what needs no actors: migrate, verify."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from actors.store.data_folder import default_data_dir, refuse
from actors.store.database import Database, check_database, choose_database
from actors.store.embedded import DATABASE, EmbeddedPostgres
from actors.store.mendable import mendable
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.server_settings import ServerOptions

__all__ = ["standing_database"]

_POLL_SECONDS: Final = 0.05
# The lines of postmaster.pid, counted from 0, after which a server can be connected to.
_PID_FILE_PORT: Final = 3
_PID_FILE_SOCKET: Final = 4
_log = logging.getLogger(__name__)


@contextmanager
def standing_database(
    database_url: str,
    data_dir: Path | None,
    run_dir: Path,
    options: ServerOptions,
    *,
    connect_seconds: float,
    only_look: bool = False,
) -> Iterator[str]:
    """How to connect to a database that was started, if it is ours, and that was not refused.

    With `only_look`, no embedded database is made where there is none, and one that a run has
    started is used along with it. Raises DatabaseRefused, also when the block found that tables
    are missing, that its role may not use them, or that the database went away.
    """
    database = choose_database(database_url, data_dir, run_dir, options)
    service = database.service
    if service is None:
        yield from _checked(database, connect_seconds)
        return
    if only_look:
        _demand_data(service, data_dir)
    try:
        try:
            _start(service)
        except DatabaseRefused as refused:
            running = _running(service) if only_look else None
            if refused.reason is not Reason.LOCKED or running is None:
                raise
            database = Database(running, None, database.label)
        yield from _checked(database, connect_seconds)
    finally:
        service.stop(options.stop_seconds)


def _checked(database: Database, connect_seconds: float) -> Iterator[str]:
    check_database(database, connect_seconds=connect_seconds)
    with mendable(database.label):
        yield database.conninfo


def _start(service: EmbeddedPostgres) -> None:
    service.start()
    told = ""
    while (state := service.poll_ready()) is not True:
        if state and state != told:
            told = str(state)
            _log.info("postgres: %s", told)
        time.sleep(_POLL_SECONDS)


def _demand_data(service: EmbeddedPostgres, data_dir: Path | None) -> None:
    """Raise DatabaseRefused where starting the service would make a new database."""
    folder = service.folder
    try:
        if (folder.data / "PG_VERSION").exists():
            return
    except OSError as error:
        raise refuse(error, folder.data) from error
    usual = "" if data_dir is None else f" (the default for this user is {default_data_dir()})"
    raise DatabaseRefused(
        Reason.NO_DATABASE,
        f"there is no database in {data_dir or folder.data_dir}: check --data-dir{usual}",
    )


def _running(service: EmbeddedPostgres) -> str | None:
    """How to connect to the server that another run has started, None where there is none yet.

    PostgreSQL itself writes down where it listens.
    """
    try:
        lines = (service.folder.data / "postmaster.pid").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if len(lines) <= _PID_FILE_SOCKET:
        return None
    return psycopg.conninfo.make_conninfo(
        service.conninfo(DATABASE), host=lines[_PID_FILE_SOCKET], port=lines[_PID_FILE_PORT]
    )
