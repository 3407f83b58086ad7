"""Databases for all tests: one embedded server for the session, a fresh database for each test."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator

import psycopg
import pytest
import structlog

from actors.store.binaries import Binaries
from actors.store.embedded import EmbeddedPostgres
from tests import postgres_server
from tests.postgres_server import make_server, other_binaries, short_folder, start
from tests.prism import another_language, live_with_workers, make_prism, write_old

EXISTING = "existing"
ON_EXISTING = frozenset(
    f"tests.unit.test_{name}"
    for name in (
        "accounts",
        "checkpoint",
        "drops_kept",
        "explain",
        "fence",
        "forget",
        "identities",
        "judgement",
        "notifications",
        "notifications_changes",
        "notifications_once",
        "pending",
        "registry",
        "registry_sweep",
        "repair_beside_writers",
        "shard",
        "takedown",
        "user_gate",
        "writer",
        "writer_crashes",
        "writer_errors",
        "writer_races",
    )
)
# With the indexes of an AppView there is more than one way to an empty table.
_OWN_ONLY = frozenset(("test_no_statement_ever_scans_a_table_or_hashes_one",))
_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def no_other_postgres() -> None:
    """Take every PostgreSQL off PATH: no test may pass because the machine happens to have one."""
    os.environ["PATH"] = postgres_server.path_without_postgres()
    for name in [name for name in os.environ if name.startswith("PG") or name == "DATABASE_URL"]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a test of the program's own logging does to that of all others."""
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in list(root.manager.loggerDict)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def embedded_server(no_other_postgres: None) -> Iterator[EmbeddedPostgres]:
    """The one embedded server of the session, with a template for fresh databases."""
    with short_folder() as folder:
        server = make_server(folder)
        try:
            start(server)
            yield server
        finally:
            server.stop(10.0)


@pytest.fixture
def database(embedded_server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a fresh database, which is dropped after the test.

    It is empty, but for the modules of ON_EXISTING: their tests run a second time where an AppView
    has made its own tables before.
    """
    for conninfo in _fresh_database(embedded_server):
        yield make_prism(conninfo) if getattr(request, "param", "") == EXISTING else conninfo


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the tests of the index run on both kinds of database."""
    if (
        "database" in metafunc.fixturenames
        and metafunc.module.__name__ in ON_EXISTING
        and metafunc.function.__name__ not in _OWN_ONLY
    ):
        metafunc.parametrize("database", ["own", EXISTING], indirect=True)


@pytest.fixture(scope="module")
def module_database(embedded_server: EmbeddedPostgres) -> Iterator[str]:
    """Like `database`, one for all tests of a file: whoever uses it empties it (tests.writing)."""
    yield from _fresh_database(embedded_server)


@pytest.fixture(scope="session")
def other_binaries_here(no_other_postgres: None) -> Binaries:
    """PostgreSQL 15 from Debian. Where it is absent this is a skip with its reason, or a failure
    when the environment variable SKYSHARD_REQUIRE_ALL is set."""
    found = other_binaries()
    if found is not None:
        return found
    why = (
        f"no PostgreSQL 15 in {postgres_server.OTHER_POSTGRES} (Debian: apt-get install postgresql)"
    )
    if os.environ.get(postgres_server.REQUIRE_ALL):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def other_server(other_binaries_here: Binaries) -> Iterator[EmbeddedPostgres]:
    """A server of another supported major version, run by our own life cycle."""
    with short_folder() as folder:
        server = make_server(folder, find=lambda: other_binaries_here)
        try:
            start(server)
            yield server
        finally:
            server.stop(10.0)


@pytest.fixture
def other_postgres(other_server: EmbeddedPostgres) -> Iterator[str]:
    """Like `database`, on the other major version."""
    yield from _fresh_database(other_server)


@pytest.fixture(params=["embedded", "another language"])
def prism(request: pytest.FixtureRequest) -> Iterator[str]:
    """The database of an AppView, without rows: on the embedded server, and with another collation
    on the other one."""
    if request.param == "embedded":
        yield make_prism(request.getfixturevalue("database"))
        return
    server = request.getfixturevalue("other_server")
    with another_language(server, f"test_{next(_numbers)}") as conninfo:
        yield make_prism(conninfo)


@pytest.fixture
def used_prism(prism: str) -> str:
    """The database of an AppView after some time with its own workers."""
    from tests.histories import History
    from tests.writing import reference_of

    frames = [sent.frame for sent in History(3, commits=120).stream]
    write_old(prism, reference_of(frames).tables())
    live_with_workers(prism)
    return prism


def _fresh_database(server: EmbeddedPostgres) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield server.conninfo(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
