"""Whom a personal index is of, by its tables: who comes, who goes, whose repository is ordered."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from actors.store import wanted
from actors.store.database import connect
from actors.store.fence import Fence, Fenced
from actors.store.personal import AT_ONCE, Personal
from actors.store.session import Connection
from tests.writing import begin_run, claimed, make_index, session

ME, ANN, BOB, CAT = (f"did:plc:{name}" for name in ("me", "ann", "bob", "cat"))
ACTOR = "ingest"


class Stage:
    def __init__(self, database: str, connection: Connection, fence: Fence) -> None:
        self._database = database
        self._connection = connection
        self.fence = fence

    def table(self, *accounts: str, most: int = 100) -> Personal:
        opening: Any = partial(connect, self._database, application_name="test")
        return Personal(accounts or (ME,), most, opening, self.fence)

    def run(self, sql: str, *values: Any) -> list[Any]:
        cursor = self._connection.execute(sql.encode(), values)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def follow(self, follower: str, followed: str) -> None:
        self.run(
            "INSERT INTO follows (uri, follower_did, following_did, created_at)"
            " VALUES (%s, %s, %s, now())",
            *(f"at://{follower}/app.bsky.graph.follow/{followed}", follower, followed),
        )

    def queue(self, state: str = "waiting") -> list[str]:
        sql = "SELECT key FROM engine_incomplete WHERE kind = 'repo' AND state = %s ORDER BY key"
        return self.run(sql, state)

    def put_off(self, did: str, state: str, reason: str = "", seconds: int = 0) -> None:
        self.run(
            "UPDATE engine_incomplete SET state = %s, reason = %s,"
            " next_try = now() + %s * interval '1 second' WHERE key = %s",
            *(state, reason, seconds, did),
        )


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    epoch = begin_run(make_index(database))
    with session(database, ACTOR) as connection:
        yield Stage(database, connection, claimed(connection, ACTOR, epoch))


def take_in(table: Personal) -> list[str]:
    new = table.new(len(table.load())).new
    table.enter(new)
    return new


def test_it_is_of_the_accounts_and_of_those_they_follow(stage: Stage) -> None:
    stage.follow(ME, ANN)
    stage.follow(ANN, CAT)
    table = stage.table()
    assert take_in(table) == [ME, ANN]
    assert take_in(table) == []
    assert table.load() == {ME, ANN}
    stage.follow(ME, BOB)
    assert take_in(table) == [BOB]
    table.close()


def test_each_is_ordered_once_and_its_server_is_looked_for(stage: Stage) -> None:
    stage.follow(ME, ANN)
    table = stage.table()
    take_in(table)
    assert stage.queue() == [ANN, ME]
    assert set(stage.run("SELECT cause FROM engine_incomplete")) == {"personal"}
    assert sorted(stage.run("SELECT did FROM engine_identities WHERE rank = 1")) == [ANN, ME]
    stage.run("UPDATE engine_incomplete SET state = 'done', reason = 'applied'")
    table.enter([])
    table.order_again()
    table.enter([])
    assert stage.queue() == []
    table.close()


def test_what_was_being_fetched_before_is_ordered_after_that(stage: Stage) -> None:
    stage.run(
        "INSERT INTO engine_incomplete (kind, key, did, cause, rank)"
        " VALUES ('repo', %s, %s, 'backfill', 3)",
        *(ME, ME),
    )
    table = stage.table()
    take_in(table)
    assert stage.run("SELECT fresh FROM engine_personal") == [True]
    stage.put_off(ME, "done", "applied")
    table.enter([])
    assert stage.queue() == [ME]
    assert stage.run("SELECT fresh FROM engine_personal") == [False]
    table.close()


def test_who_is_followed_no_more_goes_and_comes_back_with_the_whole(stage: Stage) -> None:
    stage.follow(ME, ANN)
    table = stage.table()
    take_in(table)
    stage.run("UPDATE engine_incomplete SET state = 'done', reason = 'applied'")
    stage.run("DELETE FROM follows")
    assert table.leave() == [ANN]
    assert table.load() == {ME}
    stage.follow(ME, ANN)
    assert take_in(table) == [ANN]
    assert stage.queue() == [ANN]
    table.close()


def test_who_is_being_fetched_stays_until_that_is_over(stage: Stage) -> None:
    stage.follow(ME, ANN)
    table = stage.table()
    take_in(table)
    stage.run("DELETE FROM follows")
    assert table.leave() == []
    stage.put_off(ANN, "failed")
    assert table.leave() == [ANN]
    table.close()


def test_what_is_to_be_tried_again_later_is_called_off(stage: Stage) -> None:
    stage.follow(ME, ANN)
    table = stage.table()
    take_in(table)
    stage.put_off(ANN, "waiting", "timeout", 600)
    stage.run("DELETE FROM follows")
    assert table.leave() == [ANN]
    assert stage.queue() == [ME]
    table.close()


def test_other_accounts_in_the_settings_are_another_index(stage: Stage) -> None:
    first = stage.table(ME)
    take_in(first)
    stage.run("UPDATE engine_incomplete SET state = 'done'")
    second = stage.table(BOB)
    assert take_in(second) == [BOB]
    assert second.leave() == [ME]
    first.close()
    second.close()


@pytest.mark.parametrize("came_back", [True, False])
def test_who_was_away_is_ordered_again_when_back(stage: Stage, came_back: bool) -> None:
    table = stage.table()
    take_in(table)
    stage.put_off(ME, "failed", "RepoDeactivated")
    stage.run(
        "INSERT INTO engine_accounts (did, active, time)"
        " VALUES (%s, true, now() + %s * interval '1 minute')",
        *(ME, 1 if came_back else -1),
    )
    table.order_again()
    table.enter([])
    assert stage.queue() == ([ME] if came_back else [])
    table.close()


def test_who_may_be_stored_again_is_ordered_again(stage: Stage) -> None:
    table = stage.table()
    take_in(table)
    stage.put_off(ME, "done", "withheld")
    stage.run("INSERT INTO engine_takedowns (subject) VALUES (%s)", ME)
    table.order_again()
    table.enter([])
    assert stage.queue() == []
    stage.run("DELETE FROM engine_takedowns")
    table.order_again()
    table.enter([])
    assert stage.queue() == [ME]
    table.close()


def test_there_is_a_bound_and_those_who_are_named_come_first(stage: Stage) -> None:
    for followed in (ANN, BOB, CAT):
        stage.follow(ME, followed)
    table = stage.table(ME, "did:plc:zoe", most=3)
    change = table.new(0)
    assert change.new[:2] == [ME, "did:plc:zoe"]
    table.enter(change.new)
    full = table.new(len(table.load()))
    assert (full.new, full.more, full.full) == ([], False, True)
    assert len(table.load()) == 3
    table.close()


def test_many_come_some_at_a_time(stage: Stage) -> None:
    stage.run(
        "INSERT INTO follows (uri, follower_did, following_did, created_at)"
        " SELECT 'at://' || n, %s, 'did:plc:' || n, now() FROM generate_series(1, %s) AS n",
        *(ME, AT_ONCE + 10),
    )
    table = stage.table(most=10_000)
    first = table.new(0)
    assert (first.more, first.full) == (True, False)
    table.enter(first.new)
    second = table.new(len(first.new))
    assert (second.more, second.full) == (False, False)
    assert len({*first.new, *second.new}) == AT_ONCE + 11
    table.close()


def test_a_ghost_writes_nothing(stage: Stage) -> None:
    table = stage.table()
    new = table.new(0).new
    stage.run("UPDATE engine_fences SET generation = 2")
    with pytest.raises(Fenced):
        table.enter(new)
    with pytest.raises(Fenced):
        table.leave()
    assert table.load() == set()
    table.close()


def test_profiles_are_fetched_of_those_of_whom_there_is_something(stage: Stage) -> None:
    for did in (ANN, BOB):
        stage.run("INSERT INTO users (did, handle) VALUES (%s, 'handle.invalid')", did)
    stage.run(
        "INSERT INTO posts (uri, cid, author_did, text, created_at)"
        " VALUES ('x', 'x', %s, '', now())",
        ANN,
    )
    connection: psycopg.Connection[Any] = stage._connection
    found = wanted.users(connection, stage.fence, "", 10, whole=False, spoken_of=False)
    assert found.changed == 1
    assert stage.run("SELECT key FROM engine_incomplete") == [ANN]
