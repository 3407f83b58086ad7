"""`run.py backfill`: what it orders, how far it is, and what was given up."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from actors.store.fence import OWNER_LOCK
from tests.commands import Ended, command
from tests.fetching import Stage, asked
from tests.servers import faults
from tests.writing import make_index, session

ANN, BOB, CAT = (f"did:plc:{letter * 24}" for letter in "abc")


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    with session(database, "test") as connection:
        made = Stage(database, connection)
        with made.pds:
            yield made


def backfill(stage: Stage, *arguments: str) -> Ended:
    return command("backfill", *arguments, "--database-url", stage.conninfo)


def states(stage: Stage) -> dict[str, str]:
    return {key: state for key, (state, *_) in stage.queue().items()}


def test_accounts_are_ordered_once_however_they_are_named(stage: Stage, tmp_path: Any) -> None:
    stage.user(ANN)
    stage.run("UPDATE users SET handle = 'ann.test'")
    given = tmp_path / "accounts"
    given.write_text(f"# whom we like\n{BOB}  # a friend\n\nann.test\n")
    ended = backfill(stage, CAT, "--file", str(given), "--no-wait")
    assert (ended.code, ended.out) == (0, "3 of 3 will be fetched by the engine\n")
    assert states(stage) == dict.fromkeys((ANN, BOB, CAT), "waiting")
    # Whom nobody spoke of is looked up as well.
    assert {did for (did,) in stage.run("SELECT did FROM engine_identities")} == {ANN, BOB, CAT}
    assert backfill(stage, BOB, "--no-wait").out == "0 of 1 will be fetched by the engine\n"


def test_what_was_fetched_is_fetched_again_only_when_that_is_asked_for(stage: Stage) -> None:
    backfill(stage, ANN, BOB, "--no-wait")
    stage.run("UPDATE engine_incomplete SET state = 'done', reason = 'applied'")
    assert backfill(stage, ANN).out == "1 fetched, 0 given up\n"
    assert states(stage) == {ANN: "done", BOB: "done"}
    backfill(stage, ANN, "--again", "--no-wait")
    assert states(stage) == {ANN: "waiting", BOB: "done"}


def test_everybody_known_or_those_whom_one_follows_are_ordered(stage: Stage) -> None:
    stage.user(ANN)
    stage.user(BOB)
    assert backfill(stage, "--known", "--no-wait").code == 0
    assert states(stage) == {ANN: "waiting", BOB: "waiting"}
    stage.run(
        "INSERT INTO follows (uri, follower_did, following_did, created_at, indexed_at)"
        " VALUES ('at://x/y/z', %s, %s, now(), now())",
        *(ANN, CAT),
    )
    assert backfill(stage, "--followed-by", ANN, "--no-wait").code == 0
    assert states(stage) == dict.fromkeys((ANN, BOB, CAT), "waiting")


def test_what_was_given_up_is_listed_and_tried_again(stage: Stage) -> None:
    assert backfill(stage, "--failed").out == "nothing was given up\n"
    backfill(stage, ANN, BOB, "--no-wait")
    stage.run("UPDATE engine_incomplete SET state = 'failed', attempts = 10, reason = 'timeout'")
    (first, second) = json.loads(backfill(stage, "--failed", "--json").out)
    assert (first["key"], first["reason"], second["attempts"]) == (ANN, "timeout", 10)
    assert f"{BOB}  timeout after 10 attempts" in backfill(stage, "--failed").out
    assert backfill(stage, "--retry", BOB).out == "tried again: 1\n"
    assert stage.queue() == {ANN: ("failed", 10, "timeout"), BOB: ("waiting", 0, "timeout")}
    assert backfill(stage, "--retry").out == "tried again: 1\n"


def test_what_makes_no_sense_is_refused(stage: Stage) -> None:
    for arguments in ((), ("--failed", ANN), ("--failed", "--retry"), ("nobody.test",)):
        assert backfill(stage, *arguments).code == 78
    assert stage.queue() == {}


def lists(stage: Stage) -> list[Any]:
    return stage.run("SELECT name, state, again FROM engine_listings ORDER BY name")


def test_all_is_what_the_relay_of_the_run_lists_and_any_server_may_be_named(stage: Stage) -> None:
    ended = backfill(stage, "--all", "--no-wait")
    assert ended.code == 0
    assert ended.out == "the engine asks for the accounts, page by page, and fetches them\n"
    assert backfill(stage, "--listed-by", "https://pds.example/", "--again", "--no-wait").code == 0
    assert lists(stage) == [
        ("https://pds.example", "waiting", True),
        ("relay", "waiting", False),
    ]
    assert states(stage) == {}
    for wrong in ("pds.example", "ftp://pds.example", "https://pds.example/xrpc"):
        assert backfill(stage, "--listed-by", wrong).code == 78


def test_a_list_that_is_being_read_goes_on_and_one_that_was_read_begins_anew(stage: Stage) -> None:
    backfill(stage, "--all", "--no-wait")
    row = "SELECT cursor, listed, attempts, state FROM engine_listings"
    stage.run("UPDATE engine_listings SET cursor = 'c', listed = 7, attempts = 3, state = 'failed'")
    backfill(stage, "--all", "--no-wait")
    assert stage.run(row) == [("c", 7, 0, "waiting")]
    stage.run("UPDATE engine_listings SET state = 'done'")
    backfill(stage, "--all", "--no-wait")
    assert stage.run(row) == [(None, 0, 0, "waiting")]


def test_who_waits_is_told_what_is_missing(stage: Stage) -> None:
    # The stage is no engine: nobody holds the lock of a run.
    assert "no engine runs on this database: start it" in backfill(stage, ANN, "--no-wait").err
    with holding_the_run(stage.conninfo):
        told = backfill(stage, ANN, "--no-wait").err
        assert "the engine that runs here does not fetch" in told
        stage.run("INSERT INTO engine_fences VALUES ('pds_fetcher', 7, 1)")
        assert backfill(stage, ANN, "--no-wait").err == ""


@contextmanager
def holding_the_run(conninfo: str) -> Iterator[None]:
    """What the supervisor of a run holds."""
    with session(conninfo, "supervisor") as connection:
        connection.execute(f"SELECT pg_advisory_lock({OWNER_LOCK})".encode())
        yield


def test_all_accounts_of_a_list_are_fetched_page_by_page_and_it_is_told_how_far(
    stage: Stage,
) -> None:
    repositories = stage.accounts()
    away, *others = repositories
    away.status = "deactivated"
    stage.run("DELETE FROM engine_identities WHERE did = %s", away.did)
    ended: list[Ended] = []

    def order() -> None:
        ended.append(backfill(stage, "--all"))

    with stage.fetcher(records=False, relay=stage.pds.url) as harness:
        thread = Thread(target=order)
        thread.start()
        harness.until(lambda: not thread.is_alive(), 60.0)
        thread.join()
    (end,) = ended
    assert (end.code, end.out) == (0, f"{len(others)} fetched, 0 given up\n"), end
    assert states(stage) == {each.did: "done" for each in others}
    assert lists(stage) == [("relay", "done", False)]


def test_it_waits_until_all_is_fetched_or_given_up(stage: Stage) -> None:
    repositories = stage.accounts()
    lost, *others = repositories
    stage.pds.repositories.pop(lost.did)
    ended: list[Ended] = []

    def order() -> None:
        ended.append(backfill(stage, *(each.did for each in repositories)))

    with stage.fetcher(records=False, attempts=2) as harness:
        thread = Thread(target=order)
        thread.start()
        harness.until(lambda: not thread.is_alive(), 60.0)
        thread.join()
    (end,) = ended
    assert end.out == f"{len(others)} fetched, 1 given up\n"
    assert end.code == 1
    assert all(stage.posts(each.did) for each in others)
    assert stage.queue()[lost.did] == ("failed", 2, "RepoNotFound")


def test_killed_in_the_middle_it_goes_on_where_it_was(stage: Stage) -> None:
    repositories = stage.accounts()
    stage.pds.fail(faults.slow(0.05))
    backfill(stage, *(each.did for each in repositories), "--no-wait")
    lost = 0
    for _ in range(2):
        before = len(asked([stage.pds], "getRepo"))
        with stage.fetcher(records=False, backfill_concurrency=1) as harness:
            harness.until(lambda before=before: len(asked([stage.pds], "getRepo")) >= before + 2)  # type: ignore[misc]  # a default binds it
            harness.kill("pds_fetcher")
        lost = len(asked([stage.pds], "getRepo")) - list(states(stage).values()).count("done")
    with stage.fetcher(records=False) as harness:
        harness.until(lambda: set(states(stage).values()) == {"done"})
        harness.until(lambda: all(stage.is_whole(each) for each in repositories))
    # What was under way when it was killed is fetched twice, nothing else is.
    assert lost > 0
    assert len(asked([stage.pds], "getRepo")) == len(repositories) + lost
