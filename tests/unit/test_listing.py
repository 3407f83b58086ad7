"""Lists of accounts that are read by the fetcher: page by page, through crashes and failures."""

from collections.abc import Iterator
from typing import Any

import pytest

from actors.fetching import account_list
from actors.store import listings
from actors.store.listings import AHEAD, RELAY, Due
from tests.fetching import Stage, asked
from tests.servers import faults
from tests.writing import make_index, session

DIDS = [f"did:plc:{letter * 24}" for letter in "abcdef"]
LIST = "/xrpc/com.atproto.sync.listRepos"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    with session(database, "test") as connection:
        made = Stage(database, connection)
        with made.pds:
            yield made


def order(stage: Stage, name: str = RELAY) -> None:
    listings.order(stage.connection, name, again=False)


def test_a_page_is_taken_with_its_cursor_and_the_last_one_ends_it(stage: Stage) -> None:
    order(stage)
    fence = stage.fence()
    assert listings.due(stage.connection) == Due(RELAY, None, None, 0)
    listings.turn(stage.connection, fence, RELAY, "https://relay", DIDS[:2], "c")
    assert listings.due(stage.connection) == Due(RELAY, "https://relay", "c", 0)
    listings.turn(stage.connection, fence, RELAY, "https://relay", DIDS[1:3], None)
    assert listings.due(stage.connection) is None
    assert set(stage.queue()) == set(DIDS[:3])
    assert listings.listing(stage.connection, RELAY) == (4, "done", None)


def test_no_page_is_asked_for_while_many_backfills_wait(stage: Stage) -> None:
    order(stage)
    stage.run(
        "INSERT INTO engine_incomplete (kind, key, did, cause, rank)"
        " SELECT 'repo', 'did:web:' || n, 'did:web:' || n, 'backfill', 3"
        " FROM generate_series(1, %s) n",
        AHEAD,
    )
    assert listings.due(stage.connection) is None
    stage.run("UPDATE engine_incomplete SET state = 'done' WHERE key = 'did:web:1'")
    assert listings.due(stage.connection) is not None


def test_killed_after_a_page_came_it_goes_on_there_and_misses_nobody(stage: Stage) -> None:
    repositories = stage.accounts()
    order(stage)
    options: dict[str, Any] = {"records": False, "profiles": False}
    point = "fetcher.listed@pds_fetcher:1"
    with stage.fetcher(point, relay=stage.pds.url, wait=False, **options) as harness:
        harness.until(lambda: not harness.processes["pds_fetcher"].is_alive())
        assert harness.bury("pds_fetcher") == -9
        assert stage.queue() == {}
        harness.restart("pds_fetcher")
        harness.until(lambda: all(stage.is_whole(each) for each in repositories))
    assert [query["limit"] for query in asked([stage.pds], "listRepos")] == ["1000"] * 2


def test_a_server_that_fails_is_asked_again_and_given_up_at_last(stage: Stage) -> None:
    order(stage, stage.pds.url)
    stage.pds.fail(faults.status(500, path=LIST))
    with stage.fetcher(attempts=3) as harness:
        harness.until(lambda: listings.listing(stage.connection, stage.pds.url).is_over)
    assert listings.listing(stage.connection, stage.pds.url) == (0, "failed", "http_status")
    assert stage.pds.asked()[LIST] == 3


def test_a_cursor_of_another_relay_is_not_used(stage: Stage) -> None:
    repositories = stage.accounts()
    order(stage)
    listings.turn(stage.connection, stage.fence(), RELAY, "http://127.0.0.1:1", [], "zzz")
    with stage.fetcher(relay=stage.pds.url, records=False, profiles=False) as harness:
        harness.until(lambda: listings.listing(stage.connection, RELAY).is_over)
    assert "cursor" not in asked([stage.pds], "listRepos")[0]
    assert {each.did for each in repositories} <= set(stage.queue())


def test_pages_follow_each_other_by_their_cursors(stage: Stage) -> None:
    # The servers of the tests give 500 at most.
    template = stage.accounts()[0]
    for number in range(600):
        did = f"did:web:h{number}.test"
        stage.pds.repositories[did] = template
    order(stage)
    with stage.fetcher(relay=stage.pds.url, repos=True, records=False) as harness:
        harness.until(lambda: listings.listing(stage.connection, RELAY).is_over)
    first, second = asked([stage.pds], "listRepos")
    assert "cursor" not in first
    assert second["cursor"] != ""
    assert len(stage.queue()) >= 600
    assert int(first["limit"]) == account_list.MOST
