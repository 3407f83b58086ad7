"""The databases that all other tests stand on."""

import os
import shutil

import psycopg

from tests.postgres_server import REQUIRE_ALL


def test_a_test_gets_an_empty_database_of_its_own(database: str) -> None:
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
        encoding = connection.info.parameter_status("server_encoding")
        assert connection.info.server_version >= 180000
    assert tables == (0,)
    assert encoding == "UTF8"


def test_no_other_postgres_is_on_the_path(no_other_postgres: None) -> None:
    assert shutil.which("postgres") is None
    assert shutil.which("initdb") is None
    assert "PGHOST" not in os.environ
    assert REQUIRE_ALL.startswith("SKYSHARD_")


def test_the_other_major_version_is_run_by_the_same_life_cycle(other_postgres: str) -> None:
    with psycopg.connect(other_postgres) as connection:
        assert connection.info.server_version // 10000 == 15
