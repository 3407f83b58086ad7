"""Databases for all tests: one embedded server for the session, a fresh database for each test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from actors.store.binaries import Binaries
from actors.store.embedded import EmbeddedPostgres
from tests import postgres_server
from tests.postgres_server import make_server, memory_folder, other_binaries, short_folder, start
from tests.prism import another_language, live_with_workers, make_prism, write_old
from tests.templates import Contents, Templates

# A machine that is busy with others is no fault of an example.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

EXISTING = "existing"
# Their tests run on an index in a database of its own, and in one that an AppView had before.
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
# These run on an index too, and on one kind only. One that is not named makes its tables itself.
ON_INDEX = ON_EXISTING | {
    "tests.corpus.test_convergence",
    "tests.corpus.test_interleavings",
    "tests.property.test_convergence",
    "tests.property.test_histories_agree",
    "tests.property.test_writer_histories",
    *(
        f"tests.unit.test_{name}"
        for name in (
            "backfill_command",
            "bisect",
            "failures_of_others",
            "fetched_when_back",
            "fetching_policy",
            "incomplete",
            "ingest",
            "ingest_begins",
            "ingest_end",
            "ingest_gaps",
            "ingest_lag",
            "ingest_start",
            "judged_when_whole",
            "label_client",
            "label_forwarder",
            "label_identities",
            "lexicon_modes",
            "listing",
            "news",
            "outbox_actor",
            "parking",
            "pds_fetcher",
            "pending_sweep",
            "personal_accounts",
            "personal_table",
            "resolver",
            "resync",
            "resync_meets_others",
            "resync_small",
            "rings_of_replies",
            "store_nouns",
            "unproven",
            "user_gate_limit",
            "verify_bench",
        )
    ),
}
# With the indexes of an AppView there is more than one way to an empty table.
_OWN_ONLY = frozenset(("test_no_statement_ever_scans_a_table_or_hashes_one",))


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
    """The one embedded server of the session."""
    with short_folder(memory_folder()) as folder:
        server = make_server(folder)
        try:
            start(server)
            yield server
        finally:
            server.stop(10.0)


@pytest.fixture(scope="session")
def templates(embedded_server: EmbeddedPostgres) -> Templates:
    return Templates(embedded_server)


@pytest.fixture
def database(templates: Templates, request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a fresh database, which is dropped after the test.

    It is empty, but for the modules of ON_INDEX: theirs has the tables already. The tests of
    ON_EXISTING run a second time, where an AppView has made its own tables before.
    """
    contents = Contents.NOTHING
    if getattr(request, "param", "") == EXISTING:
        contents = Contents.PRISM
    if request.module.__name__ in ON_INDEX:
        contents = contents.with_index()
    with templates.fresh(contents) as conninfo:
        yield conninfo


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the tests of the index run on both kinds of database."""
    if (
        "database" in metafunc.fixturenames
        and metafunc.module.__name__ in ON_EXISTING
        and metafunc.function.__name__ not in _OWN_ONLY
    ):
        metafunc.parametrize("database", ["own", EXISTING], indirect=True)


@pytest.fixture(scope="module")
def module_database(templates: Templates) -> Iterator[str]:
    """Like `database`, one for all tests of a file: whoever uses it empties it (tests.writing)."""
    with templates.fresh() as conninfo:
        yield conninfo


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
    with Templates(other_server).fresh() as conninfo:
        yield conninfo


@pytest.fixture(params=["embedded", "another language"])
def prism(request: pytest.FixtureRequest) -> Iterator[str]:
    """The database of an AppView, without rows: on the embedded server, and with another collation
    on the other one."""
    if request.param == "embedded":
        yield make_prism(request.getfixturevalue("database"))
        return
    server = request.getfixturevalue("other_server")
    with another_language(server, "another_language") as conninfo:
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
