"""The fetcher with real shards: what is missing comes, what fails is bounded, what dies goes on."""

from collections.abc import Iterator

import pytest

from tests.fetching import (
    Stage,
    asked,
    metrics,
    outcome,
    post_of,
)
from tests.servers import faults
from tests.servers.pds import Pds
from tests.writing import make_index, session

GET_RECORD = "/xrpc/com.atproto.sync.getRecord"
GET_REPO = "/xrpc/com.atproto.sync.getRepo"


@pytest.fixture
def stage(database: str) -> Iterator[Stage]:
    make_index(database)
    with session(database, "test") as connection:
        made = Stage(database, connection)
        with made.pds:
            yield made


def test_a_repository_out_of_step_is_fetched_once_and_compared_with_what_is_indexed(
    stage: Stage,
) -> None:
    repository, *_ = stage.accounts()
    stage.out_of_step(repository.did)
    gone = f"at://{repository.did}/app.bsky.feed.post/gone"
    stage.run(
        "INSERT INTO posts (uri, cid, author_did, text, created_at, indexed_at)"
        " VALUES (%s, 'c', %s, '', now(), now())",
        *(gone, repository.did),
    )
    with stage.fetcher(records=False) as harness:
        harness.until(lambda: stage.is_whole(repository) and not stage.queue())
        harness.until(lambda: metrics(harness).value("fetched_bytes_total") > 0)
    assert asked([stage.pds], "getRepo") == [{"did": repository.did}]


def test_what_an_operation_waits_for_comes_with_its_proof(stage: Stage) -> None:
    first, second, *_ = stage.accounts()
    stage.waits(post_of(first), 1)
    stage.waits(post_of(second), 2)
    with stage.fetcher() as harness:
        harness.until(lambda: post_of(first) in stage.posts(first.did))
        harness.until(lambda: post_of(second) in stage.posts(second.did))
        harness.until(stage.is_settled)
    # What is a reply has a parent, and so on: each is asked for once.
    requests = [tuple(query.values()) for query in asked([stage.pds], "getRecord")]
    assert len(requests) == len(set(requests)) >= 2
    assert stage.run("SELECT * FROM engine_repos") == []


def test_what_is_proven_not_to_be_there_is_asked_for_once(stage: Stage) -> None:
    repository, *_ = stage.accounts()
    missing = f"at://{repository.did}/app.bsky.feed.post/none"
    stage.waits(missing)
    with stage.fetcher() as harness:
        harness.until(lambda: stage.queue().get(missing) == ("done", 0, "absent"))
        looks = harness.metrics_now("pds_fetcher").value(
            "fetched_total", kind="record", outcome="absent"
        )
        harness.until(lambda: outcome(harness, "record", "absent") == 1)
        assert looks <= 1
    assert len(asked([stage.pds], "getRecord")) == 1


def test_profiles_of_new_users_come_and_those_without_one_are_asked_once(stage: Stage) -> None:
    repositories = stage.accounts()
    for repository in repositories:
        stage.user(repository.did)
    path = "app.bsky.actor.profile/self"
    having = {each.did for each in repositories if path in each.records()}
    with stage.fetcher() as harness:
        harness.until(
            lambda: (
                {key for key, (state, *_) in stage.queue().items() if state == "done"}
                == {each.did for each in repositories} - having
            )
        )
        harness.until(lambda: len(stage.queue()) == len(repositories) - len(having))
    rows = stage.run("SELECT did FROM users WHERE profile_record IS NOT NULL")
    assert {did for (did,) in rows} == having
    assert len(asked([stage.pds], "getRecord")) == len(repositories)


def test_a_dead_host_is_tried_so_often_and_holds_up_nobody(stage: Stage) -> None:
    repositories = stage.accounts()
    dead, slow, *others = repositories
    with Pds([dead]) as failing, Pds([slow]) as hanging:
        failing.fail(faults.status(503))
        hanging.fail(faults.hang())
        stage.run("UPDATE engine_identities SET pds = %s WHERE did = %s", failing.url, dead.did)
        stage.run("UPDATE engine_identities SET pds = %s WHERE did = %s", hanging.url, slow.did)
        for repository in repositories:
            stage.out_of_step(repository.did)
        with stage.fetcher(records=False, attempts=3, network={"answer_seconds": 60.0}) as harness:
            harness.until(lambda: all(stage.is_whole(each) for each in others))
            harness.until(lambda: stage.queue()[dead.did] == ("failed", 3, "http_status"))
        assert sum(failing.asked().values()) == 3
        assert sum(hanging.asked().values()) == 1
    # Events of who was given up wait no longer.
    assert stage.run("SELECT did FROM engine_parked") == [(slow.did,)]
    assert not stage.is_whole(dead)


def test_a_host_that_asks_to_be_left_alone_is_and_that_is_no_attempt(stage: Stage) -> None:
    repositories = stage.accounts()
    stage.pds.fail(faults.status(429, {"Retry-After": "2"}, times=1))
    for number, repository in enumerate(repositories):
        stage.waits(post_of(repository), number)
    with stage.fetcher(concurrency=1) as harness:
        harness.until(lambda: stage.pds.requests != [])
        harness.until(
            lambda: any(reason == "asked_to_wait" for _, _, reason in stage.queue().values())
        )
        assert len(stage.pds.requests) == 1
        assert {attempts for _, attempts, _ in stage.queue().values()} == {0}
        harness.until(
            lambda: stage.is_settled() and all(stage.posts(each.did) for each in repositories)
        )
    urls = [request.query for request in stage.pds.requests]
    assert len(urls) == 1 + len({tuple(query.values()) for query in urls})


@pytest.mark.parametrize("limit", [1, 3])
def test_one_host_has_no_more_requests_at_a_time_than_is_set(stage: Stage, limit: int) -> None:
    repositories = stage.accounts()
    stage.pds.fail(faults.slow(0.1))
    for number, repository in enumerate(repositories):
        stage.waits(post_of(repository), number)
    with stage.fetcher(per_host=limit) as harness:
        harness.until(
            lambda: stage.is_settled() and all(stage.posts(each.did) for each in repositories)
        )
    assert stage.pds.most_active == limit


def test_what_a_server_says_without_proof_is_not_believed(stage: Stage) -> None:
    repository, other, *_ = stage.accounts()
    uri = post_of(repository)
    stage.waits(uri)
    wrong: dict[str, bytes] = {
        "commit_mismatch": other.proof(post_of(other).split("/", 3)[3]),
        "bad_car": b"no car",
    }
    for reason, body in wrong.items():
        stage.pds.fail(faults.content(body, path=GET_RECORD, times=1))
        with stage.fetcher(retry_min_seconds=600.0, retry_max_seconds=600.0) as harness:
            harness.until(lambda reason=reason: stage.queue().get(uri, ("", 0, None))[2] == reason)  # type: ignore[misc]  # a default binds it
        assert stage.posts(repository.did) == set()
        stage.run("UPDATE engine_incomplete SET next_try = now()")
        stage.pds.heal()
    assert stage.queue()[uri] == ("waiting", 2, "bad_car")
    with stage.fetcher() as harness:
        harness.until(lambda: uri in stage.posts(repository.did))


def test_a_signature_of_another_key_is_refused_and_the_identity_looked_at_again(
    stage: Stage,
) -> None:
    repository, *_ = stage.accounts()
    stage.user(repository.did)
    stage.identify(repository.did, 29, stage.pds.url)
    stage.out_of_step(repository.did)
    with stage.fetcher(profiles=False, retry_min_seconds=600.0, retry_max_seconds=600.0) as harness:
        harness.until(lambda: stage.queue().get(repository.did) == ("waiting", 1, "bad_signature"))
    assert stage.posts(repository.did) == set()
    assert stage.run(
        "SELECT rank, next_check <= now() FROM engine_identities WHERE did = %s", repository.did
    ) == [(0, True)]
    assert stage.run("SELECT * FROM engine_parked WHERE NOT draining") == []


def test_who_has_no_known_server_waits_and_is_asked_about(stage: Stage) -> None:
    repository, *_ = stage.accounts()
    stage.run(
        "UPDATE engine_identities SET pds = NULL, checked_at = NULL, rank = 2 WHERE did = %s",
        repository.did,
    )
    stage.waits(post_of(repository))
    with stage.fetcher() as harness:
        harness.until(
            lambda: stage.queue().get(post_of(repository)) == ("waiting", 0, "server_unknown")
        )
        assert stage.run("SELECT rank FROM engine_identities WHERE did = %s", repository.did) == [
            (1,)
        ]
        stage.run("UPDATE engine_identities SET pds = %s, checked_at = now()", stage.pds.url)
        stage.run("UPDATE engine_incomplete SET next_try = now()")
        harness.until(lambda: post_of(repository) not in stage.queue())
    assert post_of(repository) in stage.posts(repository.did)
    rkeys = [request.query["rkey"] for request in stage.pds.requests]
    assert rkeys.count(post_of(repository).rpartition("/")[2]) == 1


def test_a_repository_that_is_too_large_is_given_up_and_nothing_of_it_applied(
    stage: Stage,
) -> None:
    repository, *_ = stage.accounts()
    stage.out_of_step(repository.did)
    with stage.fetcher(max_repo_bytes=1000, attempts=2) as harness:
        harness.until(lambda: stage.queue().get(repository.did) == ("failed", 2, "too_large"))
        harness.until(lambda: stage.run("SELECT * FROM engine_parked") == [])
    assert stage.posts(repository.did) == set()


def test_what_is_older_than_the_index_changes_nothing_and_is_asked_for_again_later(
    stage: Stage,
) -> None:
    first, second, *_ = stage.accounts()
    future = "zzzzzzzzzzzzz".replace("z", "j", 1)
    stage.out_of_step(first.did, future)
    stage.waits(post_of(second))
    stage.run(
        "INSERT INTO engine_repos (did, rev, out_of_step) VALUES (%s, %s, false)",
        *(second.did, future),
    )
    with stage.fetcher(retry_min_seconds=600.0, retry_max_seconds=600.0) as harness:
        harness.until(
            lambda: (
                stage.queue()
                == {
                    first.did: ("waiting", 1, "older_than_index"),
                    post_of(second): ("waiting", 1, "older_than_index"),
                }
            )
        )
    assert stage.posts(first.did) | stage.posts(second.did) == set()
    assert stage.run("SELECT rev FROM engine_repos") == [(future,)] * 2


def test_backfills_come_after_all_else_and_are_done_once(stage: Stage) -> None:
    repositories = stage.accounts()
    stage.backfill(*(each.did for each in repositories))
    with stage.fetcher(records=False) as harness:
        harness.until(lambda: all(stage.is_whole(each) for each in repositories))
        harness.until(lambda: {state for state, *_ in stage.queue().values()} == {"done"})
    assert len(asked([stage.pds], "getRepo")) == len(repositories)
    assert {reason for _, _, reason in stage.queue().values()} == {"applied"}


def test_every_account_that_is_seen_is_fetched_whole_where_that_is_set(stage: Stage) -> None:
    repositories = stage.accounts()
    for repository in repositories:
        stage.user(repository.did)
    with stage.fetcher(whole_accounts=True, profiles=False, records=False) as harness:
        harness.until(lambda: all(stage.is_whole(each) for each in repositories))


def test_nothing_is_fetched_of_what_is_switched_off(stage: Stage) -> None:
    first, second, third, *_ = stage.accounts()
    stage.out_of_step(first.did)
    stage.waits(post_of(second))
    stage.user(third.did)
    with stage.fetcher(repos=False, records=False) as harness:
        harness.until(lambda: outcome(harness, "profile", "absent") == 1 or not stage.queue())
    assert asked([stage.pds], "getRepo") == []
    assert [query["did"] for query in asked([stage.pds], "getRecord")] in ([third.did], [])


def test_nothing_is_fetched_of_who_has_opted_out(stage: Stage) -> None:
    first, second, *_ = stage.accounts()
    for each in (first, second):
        stage.out_of_step(each.did)
        stage.waits(post_of(each), int(each is first))
    stage.run(
        "INSERT INTO user_settings (user_did, data_collection_forbidden) VALUES (%s, true)",
        first.did,
    )
    with stage.fetcher() as harness:
        harness.until(lambda: stage.is_whole(second))
        harness.until(lambda: stage.queue().get(post_of(first)) == ("done", 0, "withheld"))
    assert first.did not in {request.query["did"] for request in stage.pds.requests}


POINTS = (
    ("pds_fetcher", "fetcher.parked"),
    ("pds_fetcher", "fetcher.sliced"),
    ("pds_fetcher", "fetcher.applied"),
    ("pds_fetcher", "fetcher.settled"),
)


@pytest.mark.parametrize(("actor", "point"), POINTS)
def test_killed_between_any_two_steps_nothing_is_lost_and_nobody_hammered(
    stage: Stage, actor: str, point: str
) -> None:
    repositories = stage.accounts()[:4]
    out, back, single, *_ = repositories
    stage.out_of_step(out.did)
    stage.backfill(back.did)
    stage.waits(post_of(single))
    here = {out.did, back.did, post_of(single)}

    def over() -> bool:
        left = {key: row for key, row in stage.queue().items() if key in here}
        return (
            stage.is_whole(out)
            and stage.is_whole(back)
            and post_of(single) in stage.posts(single.did)
            and left == {back.did: ("done", 0, "applied")}
        )

    with stage.fetcher(f"{point}@{actor}:1", wait=False) as harness:
        harness.until(lambda: not harness.processes[actor].is_alive())
        assert harness.bury(actor) == -9
        harness.restart(actor)
        harness.until(over)
    requests = asked([stage.pds], "getRepo")
    assert {query["did"] for query in requests} == {out.did, back.did}
    assert len(requests) <= 4, requests


def test_a_shard_that_dies_is_given_everything_again(stage: Stage) -> None:
    repositories = stage.accounts()
    for repository in repositories:
        stage.out_of_step(repository.did)
    points = "shard.before_commit@shard-0:2,shard.after_commit@shard-1:3"
    with stage.fetcher(points, records=False) as harness:
        for name in ("shard-0", "shard-1"):
            harness.until(lambda name=name: not harness.processes[name].is_alive())  # type: ignore[misc]
            assert harness.bury(name) == -9
            harness.restart(name)
        harness.until(lambda: all(stage.is_whole(each) for each in repositories))
        harness.until(lambda: not stage.queue())
    assert len(asked([stage.pds], "getRepo")) == len(repositories)
