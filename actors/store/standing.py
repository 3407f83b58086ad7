"""The chosen database for the length of a block, for what needs no actors: migrate, verify."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from actors.store.database import check_database, choose_database
from actors.store.server_settings import ServerOptions
from engine.child import ServiceFailed

__all__ = ["standing_database"]

EXIT_UNAVAILABLE: Final = 69
EXIT_NO_PERMISSION: Final = 77
EXIT_CONFIG: Final = 78
_POLL_SECONDS: Final = 0.05
_log = logging.getLogger(__name__)


@contextmanager
def standing_database(
    database_url: str,
    data_dir: Path | None,
    run_dir: Path,
    options: ServerOptions,
    *,
    connect_seconds: float,
) -> Iterator[str]:
    """How to connect to a database that was started, if it is ours, and that was not refused.

    Raises DatabaseRefused, also when a run that goes on has the embedded one; and ServiceFailed
    where the block found that its tables are missing, or that it went away.
    """
    database = choose_database(database_url, data_dir, run_dir, options)
    if database.service is None:
        check_database(database, connect_seconds=connect_seconds)
        with _told_apart(database.label):
            yield database.conninfo
        return
    database.service.start()
    try:
        told = ""
        while (state := database.service.poll_ready()) is not True:
            if state and state != told:
                told = str(state)
                _log.info("postgres: %s", told)
            time.sleep(_POLL_SECONDS)
        check_database(database, connect_seconds=connect_seconds)
        with _told_apart(database.label):
            yield database.conninfo
    finally:
        database.service.stop(options.stop_seconds)


@contextmanager
def _told_apart(label: str) -> Iterator[None]:
    """What an operator can mend becomes a ServiceFailed; other errors are bugs and go through."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        reason = str(error).partition("\n")[0]
        raise ServiceFailed(
            f"{label} has not the tables of this version ({reason}); run `run.py migrate` first",
            EXIT_CONFIG,
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        reason = str(error).partition("\n")[0]
        raise ServiceFailed(f"{label} refuses: {reason}", EXIT_NO_PERMISSION) from error
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ServiceFailed(f"{label} went away: {reason}", EXIT_UNAVAILABLE) from error
