"""A role with few rights: enough of them is enough, and too few are told in one line."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from actors.store.fence import Fence
from actors.store.mendable import mendable
from actors.store.migrate import migrate
from actors.store.ownership import Ownership
from actors.store.refusal import DatabaseRefused, Reason
from actors.store.session import SessionSettings
from tests.program import program

GRANTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
)


class Role:
    """A role without any rights but to connect, and the database it is for."""

    def __init__(self, owner: str, name: str) -> None:
        self.owner = owner
        self.name = name
        self.conninfo = make_conninfo(owner, user=name)

    def grant(self, *statements: str) -> None:
        """Run statements as the owner; `{role}` stands for this one."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.format(role=self.name).encode())


@pytest.fixture
def role(database: str) -> Iterator[Role]:
    made = Role(database, f"few_rights_{os.getpid()}")
    made.grant("CREATE ROLE {role} LOGIN")
    yield made
    made.grant("DROP OWNED BY {role}", "DROP ROLE {role}")


def take(role: Role) -> int:
    """Take the database as a run does; returns the epoch."""
    owner = Ownership(SessionSettings(role.conninfo), "a test")
    try:
        with mendable("the database"):
            return owner.take()[0]
    finally:
        owner.close()


def refused(role: Role) -> str:
    with pytest.raises(DatabaseRefused) as caught:
        take(role)
    assert caught.value.reason is Reason.NO_RIGHTS
    assert caught.value.exit_code == 77
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_role_that_may_not_create_works_where_all_tables_are_there(role: Role) -> None:
    migrate(role.owner, count_indexes=True)
    role.grant(*GRANTS)
    assert not migrate(role.conninfo, count_indexes=True)
    epoch = take(role)
    with psycopg.connect(role.conninfo, autocommit=True) as connection:
        Fence("shard-0", epoch, 1).claim(connection)


def test_a_role_that_may_not_create_is_told_what_it_needs(role: Role) -> None:
    assert "permission denied for schema public; grant it SELECT" in refused(role)


def test_a_role_that_may_not_even_see_the_schema_is_told_so(role: Role) -> None:
    migrate(role.owner)
    role.grant("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    assert "USAGE on the schema" in refused(role)


def test_a_role_that_may_not_write_everywhere_is_told_where(role: Role) -> None:
    migrate(role.owner)
    assert "permission denied" in refused(role)
    role.grant(*GRANTS, "REVOKE UPDATE ON likes FROM {role}")
    assert f"the role {role.name} may not use likes of this database" in refused(role)
    role.grant(*GRANTS, "REVOKE USAGE ON SEQUENCE engine_outbox_id_seq FROM {role}")
    assert "engine_outbox_id_seq" in refused(role)


def test_a_unique_index_that_the_rows_break_is_in_the_way(role: Role) -> None:
    migrate(role.owner)
    role.grant("DROP INDEX likes_user_did_post_uri_skyshard")
    for uri in ("at://a", "at://b"):
        role.grant(
            "INSERT INTO likes (uri, user_did, post_uri, created_at)"
            f" VALUES ('{uri}', '', '', now())"
        )
    with pytest.raises(DatabaseRefused, match="could not create unique index") as caught:
        take(Role(role.owner, "skyshard"))
    assert caught.value.reason is Reason.IN_THE_WAY


def test_a_run_without_rights_ends_with_one_line_and_77(role: Role, tmp_path: Path) -> None:
    arguments = ("--source", "demo", "--until-caught-up", "--shards", "1")
    with program(tmp_path, *arguments, "--database-url", role.conninfo) as running:
        assert running.wait() == 77
    assert not running.said("Traceback")


def test_a_run_needs_no_right_to_create(role: Role, tmp_path: Path) -> None:
    migrate(role.owner)
    role.grant(*GRANTS)
    arguments = ("--source", "demo", "--until-caught-up", "--shards", "1", "--json")
    with program(tmp_path, *arguments, "--database-url", role.conninfo) as running:
        assert running.report()["commits"] > 0
