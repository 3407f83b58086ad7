"""What becomes of a try that came to nothing, and how quickly backfills go."""

import asyncio
import json
import random

import pytest

from actors.atproto.errors import Reason, WireError
from actors.fetching import ending
from actors.fetching.asking import Got, ReadWhole
from actors.fetching.pacing import Pacing
from actors.fetching.policy import NOT_THERE_TRIES, Failure, Next, Policy, Refused, failure_of
from actors.fetching.proof import Proven
from actors.fetching.repo_file import Contents
from actors.outbound import Kind, OutboundError
from actors.store.incomplete import BACKFILL, DONE, FAILED, OUT_OF_STEP, WAITING, Due, Standing
from engine.restarts import Backoff
from tests.servers.client import VirtualClock

DID = f"did:plc:{'a' * 24}"
POST = f"at://{DID}/app.bsky.feed.post/1"


def policy(attempts: int = 5) -> Policy:
    return Policy(attempts, Backoff(60.0, 600.0, jitter=0.0), random.Random(1))


def due(kind: str, key: str, *, cause: str = OUT_OF_STEP, **more: object) -> Due:
    plain = Due(kind, key, DID, cause, 1, "https://pds", None, True, None, False, False)
    return plain._replace(**more)  # type: ignore[arg-type]


def error(body: object, status: int = 400) -> Refused:
    return Refused(status, json.dumps(body).encode())


@pytest.mark.parametrize("kind", [Kind.PAUSED, Kind.BREAKER_OPEN, Kind.BUSY])
def test_what_was_not_asked_is_no_attempt(kind: Kind) -> None:
    failure = failure_of(OutboundError(kind, "h", "x", retry_after=30.0))
    after = policy().after(failure, 4)
    assert after.attempts == 4
    assert after.seconds is not None
    assert 30.0 <= after.seconds <= 36.0


def test_a_host_that_asks_for_time_gets_it_and_a_broken_one_costs_an_attempt() -> None:
    wait = OutboundError(Kind.HTTP_STATUS, "h", "x", status=429, retry_after=5.0)
    assert failure_of(wait) == Failure("asked_to_wait", False, 5.0)
    broken = OutboundError(Kind.HTTP_STATUS, "h", "x", status=503, retry_after=900.0)
    assert policy().after(failure_of(broken), 0) == Next(1, 900.0)


def test_pauses_grow_and_end() -> None:
    seconds = [policy().after(Failure("timeout"), attempts).seconds for attempts in range(5)]
    assert seconds == [60.0, 120.0, 240.0, 480.0, None]


def test_what_a_server_says_is_not_there_is_asked_for_less_often() -> None:
    failure = failure_of(error({"error": "RecordNotFound"}))
    assert failure.reason == "RecordNotFound"
    assert failure.may_have_moved
    assert policy().after(failure, NOT_THERE_TRIES - 1).seconds is None


def test_only_known_names_of_errors_are_repeated() -> None:
    bodies: tuple[object, ...] = ({"error": "Made" * 9}, {"error": 1}, [], "x", {"error": {}})
    for body in bodies:
        assert failure_of(error(body)).reason == "http_400"
    assert failure_of(Refused(404, b"\xff{")).reason == "http_404"


def test_what_is_broken_is_told_by_its_reason_and_our_own_disk_is_nobodys_fault() -> None:
    assert failure_of(WireError(Reason.BAD_MST, "x")) == Failure("bad_mst")
    assert failure_of(WireError(Reason.BAD_SIGNATURE, "x")).may_have_moved
    assert not failure_of(OSError("full")).counts


def test_a_row_ends_as_the_index_says() -> None:
    got = Got(1, Proven("3b", b"c", b"r"))
    record = due("record", POST)

    def state(standing: Standing) -> tuple[str | None, str | None]:
        ended = ending.written(record, got, standing, policy())
        return ended.state, ended.reason

    assert state(Standing(None, False, True)) == (None, None)
    assert state(Standing("3c", False, False)) == (WAITING, "older_than_index")
    assert state(Standing("3a", False, False)) == (DONE, "refused")
    assert state(Standing(None, False, False)) == (DONE, "refused")


def test_a_repository_is_done_when_the_index_is_in_step_with_it() -> None:
    read = ReadWhole(1, "3b", b"", Contents(1, 0), 9)
    for cause, state in ((BACKFILL, DONE), (OUT_OF_STEP, None)):
        row = due("repo", DID, cause=cause)
        assert ending.written(row, read, Standing("3b", False, False), policy()).state == state
        assert ending.written(row, read, Standing("3c", False, False), policy()).state == state
        for behind in (Standing(None, False, False), Standing("3b", True, False)):
            ended = ending.written(row, read, behind, policy())
            assert (ended.state, ended.attempts) == (WAITING, 2)


def test_what_cannot_or_need_not_be_asked_for_is_not() -> None:
    assert ending.dismissed(due("record", POST)) is None
    for key in ("at://x", f"at://{DID}/bad path/1", "at://ann.test/app.bsky.feed.post/1"):
        ended = ending.dismissed(due("record", key))
        assert ended is not None
        assert (ended.state, ended.reason) == (DONE, "bad_uri")
    needless = ending.dismissed(due("repo", DID, needless=True))
    assert needless is not None
    assert needless.state is None


def test_a_server_that_is_not_known_yet_is_waited_for_and_none_at_all_is_a_failure() -> None:
    waits = ending.without_server(due("repo", DID, looked=False, again=100.0), policy())
    assert (waits.state, waits.attempts, waits.seconds) == (WAITING, 1, 105.0)
    none = ending.without_server(due("repo", DID, attempts=4), policy())
    assert (none.state, none.reason) == (FAILED, "no_server")


def test_backfills_keep_to_their_rate() -> None:
    clock = VirtualClock()
    pacing = Pacing(100.0, clock.monotonic, clock.sleep)

    async def go() -> None:
        for _ in range(11):
            await pacing(50)

    began = clock.monotonic()
    asyncio.run(go())
    assert clock.monotonic() - began == pytest.approx(5.0)
