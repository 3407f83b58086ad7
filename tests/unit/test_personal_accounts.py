"""Events about accounts in a personal index: they come of everybody, and count for those whom
something here speaks of.
"""

from collections.abc import Iterator

import psycopg
import pytest

from actors.store import outbox
from actors.store.batch import IdentityState
from actors.store.purge import purge_to_end
from actors.store.session import Connection
from actors.store.users import create_users
from actors.store.writer import Writer
from tests.author import Author, account_event
from tests.writing import GATE, begin_run, claimed, decoded, make_index, session, writer

POST = "app.bsky.feed.post"
STRANGER = "did:plc:stranger"


@pytest.fixture
def stage(database: str) -> Iterator[tuple[Writer, Connection]]:
    epoch = begin_run(make_index(database))
    with (
        session(database, GATE) as connection,
        writer(database, epoch, personal=True) as writing,
    ):
        claimed(connection, GATE, epoch)
        yield writing, connection


def rows(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_the_state_of_a_stranger_leaves_nothing_but_a_count(
    stage: tuple[Writer, Connection],
) -> None:
    writing, connection = stage
    changes = decoded([account_event(STRANGER, 1, "deleted")]).changes
    outcome = writing.apply([*changes, IdentityState(STRANGER, "", 2, 0)])
    assert outcome.strangers == 2
    assert (outcome.purges, outcome.statuses) == (set(), {})
    for table in ("users", "engine_accounts", "engine_purges", "engine_drops", "engine_identities"):
        assert rows(connection, table) == 0, table


def test_the_deletion_of_who_wrote_something_here_removes_it(
    stage: tuple[Writer, Connection],
) -> None:
    writing, connection = stage
    author = Author(1)
    writing.apply(decoded([author.creates(f"{POST}/3kaaaaaaaaaa2", text="hello")]).changes)
    create_users(connection, claimed(connection, GATE, 1), [author.did])
    outcome = writing.apply(decoded([account_event(author.did, 9, "deleted")]).changes)
    assert (outcome.strangers, outcome.purges) == (0, {author.did})
    purge_to_end(lambda: writing.purge_slice(author.did), lambda _seconds: None)
    assert rows(connection, "posts") == 0


def test_whom_the_index_is_of_is_no_stranger_before_anything_came(
    stage: tuple[Writer, Connection],
) -> None:
    writing, connection = stage
    connection.execute("INSERT INTO engine_personal (did) VALUES (%s)", [STRANGER])
    outcome = writing.apply(decoded([account_event(STRANGER, 1, "deactivated")]).changes)
    assert outcome.strangers == 0
    assert rows(connection, "engine_accounts") == 1


def test_nobody_is_a_stranger_while_users_are_still_to_be_made(
    stage: tuple[Writer, Connection],
) -> None:
    writing, connection = stage
    connection.execute(outbox.INSERT_SQL, outbox.insert_parameters([(GATE, b"whoever")]))
    outcome = writing.apply(decoded([account_event(STRANGER, 1, "deleted")]).changes)
    assert (outcome.strangers, outcome.purges) == (0, {STRANGER})


def test_an_index_of_everybody_knows_no_strangers(database: str) -> None:
    epoch = begin_run(make_index(database))
    with writer(database, epoch) as writing:
        outcome = writing.apply(decoded([account_event(STRANGER, 1, "deleted")]).changes)
    assert (outcome.strangers, outcome.purges) == (0, {STRANGER})
