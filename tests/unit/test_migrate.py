"""Bringing a database to the tables of this program, on both supported kinds of server."""

import threading

import msgspec
import psycopg
import psycopg.conninfo
import pytest

from actors.capture import DEMO, read
from actors.store.migrate import bring_up_to_date, migrate
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.schema import SCHEMA_VERSION, TABLES
from actors.store.session import Connection
from actors.store.verify import verify
from tests import tables
from tests.histories import History, Sent
from tests.overlap import wait_until
from tests.settling import settle
from tests.writing import begin_run, claimed, decoded, make_users, reference_of, session, writer

GATE = "user_gate"


@pytest.fixture(params=["embedded", "another version"])
def server(request: pytest.FixtureRequest) -> str:
    """An empty database of each server."""
    name = "database" if request.param == "embedded" else "other_postgres"
    conninfo: str = request.getfixturevalue(name)
    return conninfo


def catalog(conninfo: str) -> list[tuple[object, ...]]:
    """Every column and index there is."""
    with psycopg.connect(conninfo) as connection:
        return [
            *connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable, column_default,"
                " collation_name FROM information_schema.columns WHERE table_schema = 'public'"
                " ORDER BY 1, 2"
            ),
            *connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
            ),
        ]


def run(conninfo: str, sql: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql.encode())


def test_a_second_migration_changes_nothing(server: str) -> None:
    assert migrate(server)
    before = catalog(server)
    assert before
    assert not migrate(server)
    assert catalog(server) == before


def test_the_tables_have_the_columns_and_types_of_the_schema(server: str) -> None:
    migrate(server)
    with psycopg.connect(server) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name, is_nullable = 'NO', collation_name"
            " FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()
    assert {
        (table, column): (required, collation) for table, column, required, collation in rows
    } == {
        (table.name, column.name): (column.required, "C" if column.key_text else None)
        for table in TABLES.values()
        for column in table.columns
    }


def test_indexes_on_counts_can_be_asked_for_later(server: str) -> None:
    migrate(server)
    few = len(catalog(server))
    assert migrate(server, count_indexes=True)
    assert len(catalog(server)) == few + sum(len(table.count_indexes) for table in TABLES.values())
    assert not migrate(server, count_indexes=True)


def test_the_tables_of_a_newer_program_are_refused_and_left_alone(server: str) -> None:
    migrate(server)
    run(server, f"UPDATE engine_schema SET version = {SCHEMA_VERSION + 1}")
    run(server, "ALTER TABLE labels DROP COLUMN sig")
    before = catalog(server)
    with pytest.raises(DatabaseRefused, match="newer program") as refused:
        migrate(server)
    assert refused.value.reason is Reason.NEWER_SCHEMA
    assert "\n" not in str(refused.value)
    assert catalog(server) == before


def test_what_is_missing_is_added_and_every_row_stays(server: str) -> None:
    migrate(server)
    whole = catalog(server)
    apply(server, [sent.frame for sent in History(1, commits=60).stream])
    before = tables.read_tables(server)
    run(server, "ALTER TABLE labels DROP COLUMN sig")
    run(server, "ALTER TABLE users DROP COLUMN search_vector")
    run(server, "DROP TABLE mutes")
    run(server, "DROP INDEX likes_post_uri_skyshard")
    assert catalog(server) != whole
    assert migrate(server)
    assert catalog(server) == whole
    assert tables.read_tables(server) == before


def test_programs_that_migrate_at_once_wait_for_each_other(server: str) -> None:
    done: list[bool | BaseException] = []

    def one() -> None:
        try:
            done.append(migrate(server))
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            done.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done, key=str) == [False, False, False, True]


def test_limits_of_the_database_do_not_cut_a_migration_short(server: str) -> None:
    migrate(server)
    run(server, "ALTER TABLE labels DROP COLUMN sig")
    name = psycopg.conninfo.conninfo_to_dict(server)["dbname"]
    with session(server, "stranger") as stranger, session(server, "observer") as observer:
        stranger.execute(f"ALTER DATABASE {name} SET statement_timeout = '20ms'".encode())
        stranger.execute(f"ALTER DATABASE {name} SET lock_timeout = '10ms'".encode())
        with stranger.transaction():
            stranger.execute("LOCK TABLE labels IN ACCESS SHARE MODE")
            done: list[bool] = []
            thread = threading.Thread(target=lambda: done.append(migrate(server)))
            thread.start()
            wait_until(
                lambda: waits_longer(observer), "waiting for longer than the limits, or at all"
            )
        thread.join(60)
    assert done == [True]


def waits_longer(connection: Connection) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '100ms'"
    ).fetchone()
    return row == (1,)


def test_a_session_keeps_its_limits_after_a_migration(server: str) -> None:
    with session(server, "supervisor") as connection:
        limits = "SELECT name, setting FROM pg_settings WHERE name LIKE '%_timeout'"
        before = connection.execute(limits).fetchall()
        assert bring_up_to_date(connection)
        assert connection.execute(limits).fetchall() == before


def test_the_lock_of_migrations_is_given_back(server: str) -> None:
    with session(server, "supervisor") as connection:
        bring_up_to_date(connection)
        assert not migrate(server)


def apply(conninfo: str, frames: list[bytes]) -> None:
    """Apply frames in batches, users and all."""
    epoch = begin_run(conninfo)
    with session(conninfo, GATE) as connection:
        gate = claimed(connection, GATE, epoch)
    with writer(conninfo, epoch) as writing:
        for at in range(0, len(frames), 200):
            batch = decoded(frames[at : at + 200])
            dids = msgspec.json.encode(sorted(batch.authors | batch.subjects))
            writing.apply(batch.changes, [(GATE, dids)])
    make_users(conninfo, gate)


def test_another_version_of_the_server_holds_the_same_tables(other_postgres: str) -> None:
    migrate(other_postgres)
    frames = list(read(DEMO))
    apply(other_postgres, frames)
    settle(other_postgres)
    expected = reference_of(frames).tables()
    assert tables.differences(expected, tables.read_tables(other_postgres)) == []
    assert verify(other_postgres) == []


def test_a_history_on_another_version_of_the_server(other_postgres: str) -> None:
    migrate(other_postgres)
    stream: list[Sent] = History(5, commits=300).stream
    frames = [sent.frame for sent in stream]
    apply(other_postgres, frames)
    settle(other_postgres)
    expected = reference_of(frames).tables()
    assert tables.differences(expected, tables.read_tables(other_postgres)) == []
