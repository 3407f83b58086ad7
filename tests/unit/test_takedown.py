"""`run.py takedown`, on a database that no engine has, and beside one that has it."""

import json
from collections.abc import Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest

from actors.store import takedowns
from actors.store.decisions import engine_runs
from actors.store.fence import LOCK_SQL
from actors.store.ownership import Ownership
from actors.store.session import SessionSettings
from actors.store.verify import verify
from tests.author import Author, ref, reply
from tests.commands import Ended, command
from tests.program import wait_until
from tests.writing import begin_run, decoded, make_index, session, writer


class Index:
    """A database with some records of two authors."""

    def __init__(self, conninfo: str, connection: psycopg.Connection[Any]) -> None:
        self.conninfo = conninfo
        self.connection = connection
        self.bad, self.good = Author(1), Author(2)
        self.post = self.bad.uri("app.bsky.feed.post/one")
        self.answer = self.good.uri("app.bsky.feed.post/two")
        self.apply(
            self.bad.creates("app.bsky.feed.post/one", text="bad"),
            self.bad.creates("app.bsky.graph.follow/f", subject=self.good.did),
            self.bad.creates("app.bsky.actor.profile/self", displayName="Bad"),
            self.bad.creates("com.example.thing/x", anything=1),
            self.good.creates("app.bsky.feed.post/two", text="re", reply=reply(self.post)),
            self.good.creates("app.bsky.feed.like/l", subject=ref(self.post)),
        )

    def apply(self, *frames: bytes) -> None:
        with writer(self.conninfo, begin_run(self.conninfo)) as writing:
            writing.apply(decoded(frames).changes)

    def takedown(self, *arguments: str) -> Ended:
        return command("takedown", *arguments, "--database-url", self.conninfo)

    def count(self, table: str, condition: str = "true", *values: object) -> int:
        row = self.connection.execute(
            f"SELECT count(*) FROM {table} WHERE {condition}".encode(), values
        ).fetchone()
        assert row is not None
        return int(row[0])

    def records_of(self, author: Author) -> int:
        tables = {
            "posts": "author_did",
            "follows": "follower_did",
            "generic_records": "author_did",
            "likes": "user_did",
        }
        found = sum(
            self.count(table, f"{column} = %s", author.did) for table, column in tables.items()
        )
        return found + self.count("users", "did = %s AND profile_record IS NOT NULL", author.did)

    def repo(self, author: Author) -> tuple[bool, bool]:
        """Whether the author's repository is out of step, and whether some of it is withheld."""
        row = self.connection.execute(
            "SELECT out_of_step, withheld FROM engine_repos WHERE did = %s", [author.did]
        ).fetchone()
        assert row is not None
        return bool(row[0]), bool(row[1])


@pytest.fixture
def index(database: str) -> Iterator[Index]:
    with session(make_index(database), "test") as connection:
        yield Index(database, connection)


@pytest.fixture
def held(index: Index) -> Iterator[Ownership]:
    """Another run has the database."""
    ownership = Ownership(SessionSettings(index.conninfo), "a test")
    ownership.take()
    yield ownership
    ownership.close()


def test_a_taken_down_account_goes_at_once_where_no_engine_runs(index: Index) -> None:
    assert index.records_of(index.bad) == 4
    ended = index.takedown("add", index.bad.did)
    assert ended == Ended(
        0,
        f"{index.bad.did}: taken down\nnothing is stored of it any more;"
        " the notifications it made go when an engine runs\n",
        "",
    )
    assert index.records_of(index.bad) == 0
    # What others wrote about it stays, and is counted as before.
    assert index.records_of(index.good) == 2
    assert index.count("engine_purges") == 0
    assert index.repo(index.bad) == (False, True)
    assert index.count("users", "did = %s", index.bad.did) == 1


def test_what_comes_later_of_a_taken_down_account_is_not_stored(index: Index) -> None:
    index.takedown("add", index.bad.did)
    index.apply(
        index.bad.creates("app.bsky.feed.post/three", text="again"),
        index.bad.creates("com.example.thing/y", anything=1),
        index.bad.creates("app.bsky.actor.profile/self", displayName="Again"),
    )
    assert index.records_of(index.bad) == 0
    assert index.count("engine_repos", "did = %s AND withheld", index.bad.did) == 1


def test_a_taken_down_record_goes_alone_and_does_not_come_back(index: Index) -> None:
    assert index.takedown("add", index.post).code == 0
    assert index.count("posts", "uri = %s", index.post) == 0
    assert index.records_of(index.bad) == 3
    index.apply(
        index.bad.creates("app.bsky.feed.post/one", text="bad again"),
        index.bad.creates("app.bsky.feed.post/other", text="fine"),
    )
    assert index.count("posts", "uri = %s", index.post) == 0
    assert index.records_of(index.bad) == 4


def test_adding_twice_changes_nothing_and_says_so(index: Index) -> None:
    index.takedown("add", index.bad.did)
    ended = index.takedown("add", index.bad.did, index.bad.did)
    assert ended.code == 0
    assert ended.out.startswith(f"{index.bad.did}: was taken down before\n")
    assert index.count("engine_takedowns") == 1


def test_a_takedown_that_is_removed_marks_the_repository_for_a_resync(index: Index) -> None:
    index.takedown("add", index.bad.did, index.answer)
    ended = index.takedown("remove", index.bad.did, index.answer, index.good.did)
    assert ended.out.splitlines() == [
        f"{index.bad.did}: no longer taken down; its repository is marked for a resync",
        f"{index.answer}: no longer taken down; its repository is marked for a resync",
        f"{index.good.did}: was not taken down",
    ]
    assert index.count("engine_takedowns") == 0
    # Of the account the engine itself knows what it withheld.
    assert index.repo(index.bad) == (False, True)
    assert index.repo(index.good) == (True, False)
    index.apply(index.bad.creates("app.bsky.feed.post/three", text="back"))
    assert index.records_of(index.bad) == 1
    assert index.repo(index.bad) == (True, False)


def test_a_removal_that_an_engine_has_not_begun_is_called_off(
    index: Index, held: Ownership
) -> None:
    assert index.takedown("add", index.bad.did, "--no-wait").code == 0
    assert index.count("engine_purges", "reason = 'takedown'") == 1
    assert index.takedown("remove", index.bad.did).code == 0
    assert index.count("engine_purges") == 0
    assert index.records_of(index.bad) == 4
    assert index.repo(index.bad) == (False, False)


def test_a_removal_that_was_begun_leaves_a_mark_for_the_resync(
    index: Index, held: Ownership
) -> None:
    index.takedown("add", index.bad.did, "--no-wait")
    index.connection.execute("UPDATE engine_purges SET removed = 500")
    index.takedown("remove", index.bad.did)
    assert index.repo(index.bad) == (True, False)


def test_an_account_that_its_owner_deleted_goes_on_being_removed(
    index: Index, held: Ownership
) -> None:
    index.connection.execute(
        "INSERT INTO engine_accounts (did, active, status) VALUES (%s, false, 'deleted')",
        [index.bad.did],
    )
    index.connection.execute(
        "INSERT INTO engine_purges (subject, reason) VALUES (%s, 'deleted')", [index.bad.did]
    )
    index.takedown("add", index.bad.did, "--no-wait")
    index.takedown("remove", index.bad.did)
    assert index.count("engine_purges", "reason = 'deleted'") == 1


def test_who_does_the_rest_is_said_without_waiting(index: Index) -> None:
    ended = index.takedown("add", index.bad.did, "--no-wait")
    assert ended.out.endswith("what is stored of it is removed by the engine, at the next start\n")
    assert index.records_of(index.bad) == 4


def test_an_engine_that_has_the_database_is_seen(index: Index, held: Ownership) -> None:
    assert engine_runs(index.connection)
    ended = index.takedown("add", index.bad.did, "--no-wait")
    assert ended.out.endswith("what is stored of it is removed by the engine, within seconds\n")
    held.close()
    # Its session ends a moment after the connection.
    wait_until(lambda: not engine_runs(index.connection), "the end of the engine's session")


def test_the_end_of_the_run_before_is_still_told_after_a_removal_without_an_engine(
    index: Index,
) -> None:
    # The run of the fixture did not end in good order.
    index.takedown("add", index.bad.did)
    assert index.count("engine_epoch", "NOT ended") == 1
    index.connection.execute("UPDATE engine_epoch SET ended = true")
    index.takedown("add", index.good.did)
    assert index.count("engine_epoch", "ended") == 1


def test_no_counter_is_off_after_a_takedown(index: Index) -> None:
    index.takedown("add", index.bad.did, index.answer)
    wrong = [each for each in verify(index.conninfo) if "notif" not in each.check]
    assert wrong == []


def test_the_list_is_a_table_for_people_and_json_for_machines(index: Index) -> None:
    assert index.takedown("list").out == "nothing is taken down\n"
    assert json.loads(index.takedown("list", "--json").out) == []
    index.connection.execute("UPDATE users SET handle = 'bad.test' WHERE did = %s", [index.bad.did])
    index.takedown("add", "bad.test", index.answer, "--no-wait")
    lines = index.takedown("list").out.splitlines()
    assert len(lines) == 2
    assert f"{index.bad.did}" in lines[0] + lines[1]
    assert "bad.test  (being removed, 0 so far)" in lines[0] + lines[1]
    told = {each["subject"]: each for each in json.loads(index.takedown("list", "--json").out)}
    assert set(told) == {index.bad.did, index.answer}
    assert told[index.bad.did]["handle"] == "bad.test"
    assert told[index.answer]["being_removed"] is True


def test_a_handle_stands_for_the_did_also_in_a_uri(index: Index) -> None:
    index.connection.execute("UPDATE users SET handle = 'bad.test' WHERE did = %s", [index.bad.did])
    ended = index.takedown("add", "@Bad.test", "at://bad.test/app.bsky.feed.post/one")
    assert [line.partition(": ")[0] for line in ended.out.splitlines()[:2]] == [
        index.bad.did,
        index.post,
    ]


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        ("somebody", "is no DID, no at:// uri and no handle"),
        ("did:plc:", "is no DID: write it like"),
        ("nobody.test", "no user of this index has the handle nobody.test: give the DID"),
        ("handle.invalid", "stands for every account without a handle"),
        ("at://did:plc:a/app.bsky.feed.post", "is no uri of a record"),
        ("at://did:plc:a/app.bsky.feed.post/a/b", "is no uri of a record"),
        ("did:web:" + "a" * 3000, "is longer than the 2000 bytes"),
    ],
)
def test_what_names_nothing_is_one_line_and_nothing_happens(
    index: Index, subject: str, says: str
) -> None:
    ended = index.takedown("add", index.bad.did, subject)
    assert (ended.code, ended.out) == (78, "")
    assert ended.err.startswith("skyshard: ")
    assert ended.err.count("\n") == 1
    assert says in ended.err
    assert index.count("engine_takedowns") == 0


def test_a_decision_waits_for_the_writers_under_way(index: Index) -> None:
    """So no batch that knew nothing of it can become durable after it."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with session(index.conninfo, "command") as deciding:
        thread = Thread(target=takedowns.add, args=(deciding, [index.bad.did]))
        with session(index.conninfo, "shard-0") as batch, batch.transaction():
            batch.execute(LOCK_SQL)
            thread.start()
            wait_until(
                lambda: index.connection.execute(waiting).fetchone() == (1,), "one that waits"
            )
            assert index.count("engine_takedowns") == 0
        thread.join()
    assert index.count("engine_takedowns") == 1
