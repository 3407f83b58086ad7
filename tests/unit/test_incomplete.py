"""The queue of what is missing: what gets into it, what is due, and what becomes of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from actors.store import incomplete, wanted
from actors.store.fence import Fence, Fenced
from actors.store.incomplete import (
    BACKFILL_LAST,
    DONE,
    FAILED,
    PROFILES_NEXT,
    RECORDS_NEXT,
    REPOS_FIRST,
    WAITING,
    Due,
    Ended,
)
from actors.store.session import Connection
from tests.writing import begin_run, claimed, make_index, session

ACTOR = "pds_fetcher"
ANN, BOB, CAT = (f"did:plc:{letter * 24}" for letter in "abc")
POST = f"at://{ANN}/app.bsky.feed.post/1"


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    make_index(database)
    with session(database, ACTOR) as opened:
        yield opened


@pytest.fixture
def fence(database: str, connection: Connection) -> Fence:
    return claimed(connection, ACTOR, begin_run(database))


def run(connection: Connection, sql: str, *parameters: Any) -> list[Any]:
    cursor = connection.execute(sql.encode(), parameters)
    return cursor.fetchall() if cursor.description else []


def users(connection: Connection, *dids: str, profile: bool = False) -> None:
    for did in dids:
        run(
            connection,
            "INSERT INTO users (did, handle, profile_record) VALUES (%s, 'handle.invalid', %s)",
            *(did, '{"a": 1}' if profile else None),
        )


def identity(connection: Connection, did: str, pds: str | None, *, looked: bool = True) -> None:
    run(
        connection,
        "INSERT INTO engine_identities (did, plc, pds, checked_at)"
        " VALUES (%s, true, %s, CASE WHEN %s THEN now() END)",
        *(did, pds, looked),
    )


def repo(connection: Connection, did: str, *, out_of_step: bool) -> None:
    run(
        connection,
        "INSERT INTO engine_repos (did, rev, out_of_step) VALUES (%s, '3a', %s)",
        *(did, out_of_step),
    )


def waits(connection: Connection, awaited: str, seconds: float = 60.0) -> None:
    run(
        connection,
        "INSERT INTO engine_pending (uri, awaited, author, kind, created_at)"
        " VALUES (%s, %s, %s, 'like', now() - %s * interval '1 second')",
        *(f"at://{BOB}/app.bsky.feed.like/{awaited[-4:]}", awaited, BOB, seconds),
    )


def queue(connection: Connection) -> list[tuple[Any, ...]]:
    return run(connection, "SELECT kind, key, cause, state FROM engine_incomplete ORDER BY 1, 2")


def due(connection: Connection, rank: int, but: Sequence[str] = ()) -> list[Due]:
    return incomplete.due(connection, rank, 100, but)


def test_a_repository_out_of_step_is_wanted_once(connection: Connection, fence: Fence) -> None:
    repo(connection, ANN, out_of_step=True)
    repo(connection, BOB, out_of_step=False)
    assert wanted.repos(connection, fence, "", 10) == (ANN, 1)
    assert wanted.repos(connection, fence, "", 10) == (ANN, 0)
    assert wanted.repos(connection, fence, ANN, 10) == (None, 0)
    assert queue(connection) == [("repo", ANN, "out_of_step", WAITING)]
    identity(connection, ANN, "https://pds")
    (found,) = due(connection, REPOS_FIRST)
    assert (found.did, found.pds, found.needless, found.withheld) == (
        *(ANN, "https://pds", False),
        False,
    )
    run(connection, "UPDATE engine_repos SET out_of_step = false")
    (found,) = due(connection, REPOS_FIRST)
    assert found.needless


def test_being_asked_for_again_is_no_attempt_and_wakes_nothing_that_was_given_up(
    connection: Connection, fence: Fence
) -> None:
    repo(connection, ANN, out_of_step=True)
    wanted.repos(connection, fence, "", 10)
    incomplete.write(connection, fence, [Ended("repo", ANN, WAITING, 3, "timeout", 600.0)])
    wanted.repos(connection, fence, "", 10)
    assert run(connection, "SELECT attempts, next_try > now() FROM engine_incomplete") == [
        (3, True)
    ]
    assert due(connection, REPOS_FIRST) == []
    incomplete.write(connection, fence, [Ended("repo", ANN, FAILED, 9, "timeout")])
    wanted.repos(connection, fence, "", 10)
    assert queue(connection) == [("repo", ANN, "out_of_step", FAILED)]


def test_a_backfill_that_falls_out_of_step_is_moved_up(
    connection: Connection, fence: Fence
) -> None:
    run(
        connection,
        "INSERT INTO engine_incomplete (kind, key, did, cause, rank, next_try)"
        " VALUES ('repo', %s, %s, 'backfill', %s, now() + interval '1 hour')",
        *(ANN, ANN, BACKFILL_LAST),
    )
    repo(connection, ANN, out_of_step=True)
    wanted.repos(connection, fence, "", 10)
    (found,) = due(connection, REPOS_FIRST)
    assert found.cause == "backfill"
    incomplete.write(connection, fence, [Ended("repo", ANN, DONE)])
    wanted.repos(connection, fence, "", 10)
    assert queue(connection) == [("repo", ANN, "backfill", WAITING)]


def test_live_events_wait_only_for_repositories_that_somebody_fetches(
    connection: Connection, fence: Fence
) -> None:
    for did, reason, draining in (
        (ANN, "resync", False),
        (BOB, "no_key", False),
        (CAT, "resync", False),
    ):
        run(
            connection,
            "INSERT INTO engine_parked (did, reason, draining) VALUES (%s, %s, %s)",
            *(did, reason, draining),
        )

    def waiting() -> set[str]:
        return {
            did for (did,) in run(connection, "SELECT did FROM engine_parked WHERE NOT draining")
        }

    repo(connection, ANN, out_of_step=True)
    repo(connection, CAT, out_of_step=True)
    wanted.repos(connection, fence, "", 10)
    wanted.let_go(connection, fence, everybody=False)
    assert waiting() == {ANN, BOB, CAT}
    incomplete.write(connection, fence, [Ended("repo", ANN, FAILED, 5, "x")])
    wanted.let_go(connection, fence, everybody=False)
    assert waiting() == {BOB, CAT}
    # It stays out of step, and given up.
    wanted.repos(connection, fence, "", 10)
    assert ("repo", ANN, "out_of_step", FAILED) in queue(connection)
    wanted.let_go(connection, fence, everybody=True)
    assert waiting() == {BOB}


def test_what_is_waited_for_is_fetched_once_it_had_time_to_come_by_itself(
    connection: Connection, fence: Fence
) -> None:
    waits(connection, POST, 60.0)
    waits(connection, f"at://{ANN}/app.bsky.graph.list/2", 5.0)
    waits(connection, "at://handle.example/app.bsky.feed.post/3", 60.0)
    assert wanted.new_records(connection, fence, "", 300.0, 30.0, 9).changed == 1
    assert queue(connection) == [("record", POST, "pending", WAITING)]
    assert wanted.new_records(connection, fence, "", 300.0, 30.0, 9).changed == 0
    run(connection, "DELETE FROM engine_incomplete")
    last, made = wanted.records(connection, fence, "", 0.0, 2)
    more = wanted.records(connection, fence, last or "", 0.0, 2)
    assert (made + more.changed, more.last is not None) == (2, True)
    assert wanted.records(connection, fence, more.last or "", 0.0, 2).last is None


def test_what_is_new_is_looked_through_in_slices_that_end_with_a_batch(
    connection: Connection, fence: Fence
) -> None:
    uris = [f"at://{ANN}/app.bsky.feed.post/{number}" for number in range(9)]
    for number, uri in enumerate(uris):
        waits(connection, uri, 100.0 - number // 3)
    run(
        connection,
        "UPDATE engine_pending SET created_at = date_trunc('second', created_at)",
    )
    after, sizes = "", []
    while (found := wanted.new_records(connection, fence, after, 300.0, 30.0, 2)).last is not None:
        sizes.append(found.changed)
        after = found.last
    assert sum(sizes) == 9
    assert len(sizes) > 1
    assert max(sizes) <= 2 + 3 - 1
    assert [key for _, key, _, _ in queue(connection)] == uris


def test_what_came_meanwhile_or_nobody_waits_for_is_needless(
    connection: Connection, fence: Fence
) -> None:
    waits(connection, POST)
    wanted.new_records(connection, fence, "", 300.0, 30.0, 9)
    assert [found.needless for found in due(connection, RECORDS_NEXT)] == [False]
    run(
        connection,
        "INSERT INTO posts (uri, cid, author_did, text, created_at, indexed_at)"
        " VALUES (%s, 'c', %s, '', now(), now())",
        *(POST, ANN),
    )
    assert [found.needless for found in due(connection, RECORDS_NEXT)] == [True]
    run(connection, "DELETE FROM posts")
    run(connection, "DELETE FROM engine_pending")
    assert [found.needless for found in due(connection, RECORDS_NEXT)] == [True]


def test_users_without_a_profile_are_asked_for_once(connection: Connection, fence: Fence) -> None:
    users(connection, ANN)
    users(connection, BOB, profile=True)
    users(connection, CAT)
    assert wanted.users(connection, fence, "", 2, whole=False) == (BOB, 1)
    assert wanted.users(connection, fence, BOB, 2, whole=False) == (CAT, 1)
    assert wanted.users(connection, fence, CAT, 2, whole=False) == (None, 0)
    assert {found.key for found in due(connection, PROFILES_NEXT)} == {ANN, CAT}
    incomplete.write(connection, fence, [Ended("profile", ANN, DONE, 0, "absent")])
    assert wanted.users(connection, fence, "", 10, whole=False).changed == 0
    assert wanted.users(connection, fence, "", 10, whole=True).changed == 3
    assert {found.key for found in due(connection, BACKFILL_LAST)} == {ANN, BOB, CAT}


@pytest.mark.parametrize("why", ["inactive", "opted out", "taken down"])
def test_nothing_is_fetched_of_who_may_not_be_stored(
    connection: Connection, fence: Fence, why: str
) -> None:
    users(connection, ANN, BOB)
    repo(connection, ANN, out_of_step=True)
    repo(connection, BOB, out_of_step=True)
    waits(connection, POST)
    wanted.repos(connection, fence, "", 1)
    sql = {
        "inactive": "INSERT INTO engine_accounts (did, active) VALUES (%s, false)",
        "opted out": "INSERT INTO user_settings (user_did, data_collection_forbidden)"
        " VALUES (%s, true)",
        "taken down": "INSERT INTO engine_takedowns (subject) VALUES (%s)",
    }[why]
    for did in (ANN, BOB):
        run(connection, sql, did)
    wanted.new_records(connection, fence, "", 300.0, 30.0, 9)
    wanted.repos(connection, fence, "", 10)
    wanted.users(connection, fence, "", 10, whole=False)
    assert [found.withheld for found in due(connection, REPOS_FIRST)] == [True]
    assert [found.withheld for found in due(connection, RECORDS_NEXT)] == [True]
    assert due(connection, PROFILES_NEXT) == []


def test_a_server_that_is_not_known_is_told_apart_from_one_that_is_none(
    connection: Connection, fence: Fence
) -> None:
    users(connection, ANN, BOB, CAT)
    wanted.users(connection, fence, "", 10, whole=False)
    identity(connection, ANN, None, looked=False)
    identity(connection, BOB, None)
    found = {each.key: each for each in due(connection, PROFILES_NEXT)}
    assert [(found[did].pds, found[did].looked) for did in (ANN, BOB, CAT)] == [
        (None, False),
        (None, True),
        (None, False),
    ]
    incomplete.write(connection, fence, [], ask=[CAT, ANN, BOB])
    ranks = dict(run(connection, "SELECT did, rank FROM engine_identities"))
    assert ranks == {ANN: 1, BOB: 2, CAT: 1}


def test_keys_in_hand_are_not_given_out_again(connection: Connection, fence: Fence) -> None:
    users(connection, ANN, BOB)
    wanted.users(connection, fence, "", 10, whole=False)
    assert [found.key for found in due(connection, PROFILES_NEXT, [ANN])] == [BOB]


def test_only_the_living_generation_writes(database: str, connection: Connection) -> None:
    epoch = begin_run(database)
    old = claimed(connection, ACTOR, epoch)
    claimed(connection, ACTOR, epoch, 2)
    with pytest.raises(Fenced):
        incomplete.write(connection, old, [Ended("repo", ANN, DONE)])
    with pytest.raises(Fenced):
        wanted.let_go(connection, old, everybody=True)


def test_what_was_settled_is_kept_while_somebody_waits_and_forgotten_later(
    connection: Connection, fence: Fence
) -> None:
    other = f"at://{ANN}/app.bsky.feed.post/2"
    for uri in (POST, other):
        waits(connection, uri)
    wanted.new_records(connection, fence, "", 300.0, 30.0, 9)
    hours = -2 * 3600.0
    incomplete.write(
        connection,
        fence,
        [
            Ended("record", POST, DONE, 0, "absent", hours),
            Ended("record", other, FAILED, 9, "x", hours),
        ],
    )
    assert wanted.sweep(connection, fence, "", 10, 86_400.0) == (other, 0)
    run(connection, "DELETE FROM engine_pending")
    assert wanted.sweep(connection, fence, "", 10, 86_400.0) == (other, 1)
    assert queue(connection) == [("record", other, "pending", FAILED)]
    assert wanted.sweep(connection, fence, "", 10, 3600.0).changed == 1


def test_what_the_index_has_of_a_fetched_thing_is_told(connection: Connection) -> None:
    users(connection, ANN, profile=True)
    repo(connection, ANN, out_of_step=True)
    asked = [("profile", ANN, ANN), ("record", POST, ANN), ("profile", BOB, BOB)]
    assert incomplete.standing(connection, asked) == {
        ("profile", ANN): ("3a", True, True),
        ("record", POST): ("3a", True, False),
        ("profile", BOB): (None, False, False),
    }
    assert incomplete.rev_of(connection, ANN) == "3a"
    assert incomplete.rev_of(connection, BOB) is None


def test_the_backlog_is_counted_by_kind_and_state(connection: Connection, fence: Fence) -> None:
    users(connection, ANN, BOB)
    wanted.users(connection, fence, "", 10, whole=False)
    incomplete.write(connection, fence, [Ended("profile", ANN, FAILED, 9, "x")])
    assert incomplete.backlog(connection, 100) == {
        ("profile", WAITING): 1,
        ("profile", FAILED): 1,
    }
