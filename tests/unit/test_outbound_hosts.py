"""How often and how long a host is bothered: rates, turns, pauses, breakers, retries."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from actors.outbound import Kind, Outbound, OutboundError, counting
from actors.outbound.breaker import Breaker
from actors.outbound.retry_after import UNTOLD_SECONDS, asked_pause
from engine.metrics import Metrics
from engine.restarts import Backoff
from tests.servers import faults
from tests.servers.client import Counts, VirtualClock, developing
from tests.servers.directory import PlcDirectory
from tests.servers.http import HttpServer, Reply, Request

HOUR = 3600.0
NOW = 1_800_000_000.0


class Fine(HttpServer):
    def answer(self, request: Request) -> Reply:
        return Reply(200, b"fine", "text/plain")


@pytest.fixture
def server() -> Iterator[Fine]:
    with Fine() as server:
        yield server


class Asking:
    """A client on virtual time that asks one server again and again."""

    def __init__(self, url: str, **changes: Any) -> None:
        self.url = url
        self.clock = VirtualClock(NOW)
        self.counts = Counts()
        settings = {"tries": 1, "requests_per_second": 1000.0, **changes}
        self.settings = developing(**settings)

    def run(self, work: Callable[[Outbound], Coroutine[Any, Any, None]]) -> None:
        async def go() -> None:
            async with Outbound(
                self.settings,
                count=self.counts,
                clock=self.clock,
                sleep=self.clock.sleep,
                chance=random.Random(1),
            ) as outbound:
                await work(outbound)

        asyncio.run(go())

    async def once(self, outbound: Outbound, **more: Any) -> OutboundError | None:
        try:
            await outbound.get(self.url, limit_bytes=1000, seconds=5.0, kind="x", **more)
        except OutboundError as error:
            return error
        return None


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {"retry-after": "7"}, 7.0),
        (503, {"retry-after": " 7 "}, 7.0),
        (429, {"retry-after": "0"}, 0.0),
        (429, {"retry-after": "999999999999999999999"}, HOUR),
        (429, {"retry-after": "9" * 500}, HOUR),
        (429, {"retry-after": "-5"}, UNTOLD_SECONDS),
        (429, {"retry-after": "1e9"}, UNTOLD_SECONDS),
        (429, {"retry-after": "\u0667"}, UNTOLD_SECONDS),
        (429, {"retry-after": formatdate(NOW + 60, usegmt=True)}, 60.0),
        (503, {"retry-after": formatdate(NOW - 60, usegmt=True)}, 0.0),
        (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, HOUR),
        (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, HOUR),
        (429, {"retry-after": "Fri, 15 Jan 2027 08:01:00 -0000"}, 60.0),
        (429, {"retry-after": "Mon, 99 Foo 2027 99:99:99 GMT"}, UNTOLD_SECONDS),
        (429, {"retry-after": "x" * 10_000}, UNTOLD_SECONDS),
        (429, {"ratelimit-reset": "12"}, 12.0),
        (429, {"ratelimit-reset": str(int(NOW) + 90)}, 90.0),
        (429, {"ratelimit-reset": "99999999999999"}, HOUR),
        (429, {"retry-after": "3", "ratelimit-reset": "12"}, 3.0),
        (429, {"ratelimit-reset": "soon"}, UNTOLD_SECONDS),
        (429, {}, UNTOLD_SECONDS),
        (503, {}, 0.0),
        (503, {"ratelimit-reset": "12"}, 0.0),
        (200, {"retry-after": "7"}, 0.0),
        (500, {"retry-after": "7"}, 0.0),
    ],
)
def test_a_pause_is_read_in_every_form_and_bounded(
    status: int, headers: dict[str, str], expected: float
) -> None:
    assert asked_pause(status, headers, NOW, HOUR) == pytest.approx(expected)


@pytest.mark.parametrize("code", [429, 503])
def test_a_host_that_asks_for_a_pause_is_left_alone_until_it_is_over(
    server: Fine, code: int
) -> None:
    asking = Asking(server.url)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(code, {"Retry-After": "120"}, times=1))
        first = await asking.once(outbound)
        assert first is not None
        assert (first.kind, first.status, first.retry_after) == (Kind.HTTP_STATUS, code, 120.0)
        for _ in range(50):
            again = await asking.once(outbound)
            assert again is not None
            assert again.kind is Kind.PAUSED
            assert again.retry_after == pytest.approx(120.0)
        asking.clock.pass_by(119.0)
        again = await asking.once(outbound)
        assert again is not None
        assert again.retry_after == pytest.approx(1.0)
        assert len(server.requests) == 1
        asking.clock.pass_by(1.1)
        assert await asking.once(outbound) is None
        assert len(server.requests) == 2

    asking.run(work)
    assert asking.counts == {("x", "http_status"): 1, ("x", "paused"): 51, ("x", "ok"): 1}


def test_a_breaker_opens_tries_once_and_closes(server: Fine) -> None:
    asking = Asking(server.url, breaker_failures=3)

    async def kind(outbound: Outbound) -> Kind | None:
        error = await asking.once(outbound)
        return None if error is None else error.kind

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(500))
        assert [await kind(outbound) for _ in range(3)] == [Kind.HTTP_STATUS] * 3
        assert [await kind(outbound) for _ in range(20)] == [Kind.BREAKER_OPEN] * 20
        assert len(server.requests) == 3
        asking.clock.pass_by(30.1)
        # Half-open: one tries, and the others are not let through beside it.
        kinds = await asyncio.gather(*(kind(outbound) for _ in range(10)))
        assert sorted(map(str, kinds)) == ["breaker_open"] * 9 + ["http_status"]
        assert len(server.requests) == 4
        # It failed, so the next pause is twice as long.
        asking.clock.pass_by(31.0)
        assert await kind(outbound) is Kind.BREAKER_OPEN
        asking.clock.pass_by(30.0)
        server.heal()
        assert await kind(outbound) is None
        assert [await kind(outbound) for _ in range(5)] == [None] * 5
        # Closed for good: it takes three failures again.
        server.fail(faults.status(500))
        assert [await kind(outbound) for _ in range(4)] == [Kind.HTTP_STATUS] * 3 + [
            Kind.BREAKER_OPEN
        ]

    asking.run(work)


def test_who_waits_while_the_breaker_opens_asks_no_more(server: Fine) -> None:
    asking = Asking(server.url, breaker_failures=2, connections_per_host=1)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(500))
        errors = await asyncio.gather(*(asking.once(outbound) for _ in range(10)))
        kinds = [str(error.kind) for error in errors if error is not None]
        assert sorted(kinds) == ["breaker_open"] * 8 + ["http_status"] * 2
        assert len(server.requests) == 2

    asking.run(work)


def test_a_probe_that_is_given_up_lets_another_one_try(server: Fine) -> None:
    asking = Asking(server.url, breaker_failures=1)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(500, times=1))
        assert await asking.once(outbound) is not None
        asking.clock.pass_by(31.0)
        hanging = server.fail(faults.hang(times=1))
        probe = asyncio.create_task(asking.once(outbound))
        while not hanging.fired:
            await asyncio.sleep(0.001)
        error = await asking.once(outbound)
        assert error is not None
        assert error.kind is Kind.BREAKER_OPEN
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert await asking.once(outbound) is None

    asking.run(work)


def test_what_is_no_failure_of_the_host_opens_no_breaker(server: Fine) -> None:
    asking = Asking(server.url, breaker_failures=2)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(404, times=10))
        for _ in range(10):
            assert await asking.once(outbound) is None
        server.fail(faults.content(b"x" * 5000, times=10))
        for _ in range(10):
            error = await asking.once(outbound)
            assert error is not None
            assert error.kind is Kind.TOO_LARGE
        for _ in range(5):
            server.fail(faults.status(429, {"Retry-After": "1"}, times=1))
            assert await asking.once(outbound) is not None
            asking.clock.pass_by(1.1)
        assert await asking.once(outbound) is None

    asking.run(work)


@pytest.mark.parametrize("fault", [faults.drop(), faults.raw(b"\x00"), faults.cut()])
def test_a_directory_down_for_an_hour_is_asked_a_few_times(fault: faults.Fault) -> None:
    asking: Asking
    with PlcDirectory({"did:plc:a": {"id": "did:plc:a"}}.items()) as plc:
        asking = Asking(f"{plc.url}/did:plc:a", tries=2)

        async def work(outbound: Outbound) -> None:
            assert await asking.once(outbound) is None
            plc.fail(fault)
            began, asked = asking.clock.now(), len(plc.requests)
            tried = 0
            while asking.clock.now() - began < HOUR:
                assert await asking.once(outbound) is not None
                asking.clock.pass_by(1.0)
                tried += 1
            assert tried > 3000
            # Five to open the breaker, then one for each of its pauses: 30 s, 60 s, ... 15 min.
            assert len(plc.requests) - asked <= 15
            plc.heal()
            asking.clock.pass_by(900.0)
            assert await asking.once(outbound) is None

        asking.run(work)
    opened = asking.counts["x", "breaker_open"]
    assert opened > 3000
    assert asking.counts["x", "ok"] == 2
    assert fault.fired <= 15


def test_retries_give_their_slot_back_while_they_wait(server: Fine) -> None:
    async def go() -> None:
        waiting, go_on = asyncio.Event(), asyncio.Event()

        async def sleep(_seconds: float) -> None:
            waiting.set()
            await go_on.wait()

        settings = developing(tries=2, connections_per_host=1, connections=1)
        async with Outbound(settings, sleep=sleep) as outbound:
            server.fail(faults.drop(times=1))
            first = asyncio.create_task(
                outbound.get(f"{server.url}/first", limit_bytes=99, seconds=5)
            )
            await asyncio.wait_for(waiting.wait(), 60)
            second = await outbound.get(f"{server.url}/second", limit_bytes=99, seconds=5)
            assert second.body == b"fine"
            go_on.set()
            assert (await first).body == b"fine"
        assert [request.path for request in server.requests] == ["/first", "/second", "/first"]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (faults.drop(), 3),
        (faults.status(502), 3),
        (faults.status(503, {"Retry-After": "2"}), 3),
        (faults.status(503, {"Retry-After": "60"}), 1),
        (faults.status(429), 1),
        (faults.status(404), 1),
        (faults.endless(), 1),
        (faults.raw(b"\x00\r\n\r\n"), 1),
    ],
)
def test_only_what_passes_soon_is_tried_again(
    server: Fine, fault: faults.Fault, requests: int
) -> None:
    asking = Asking(server.url, tries=3)

    async def work(outbound: Outbound) -> None:
        server.fail(fault)
        await asking.once(outbound)
        assert len(server.requests) == requests
        assert sum(asking.counts.values()) == requests
        pauses = [seconds for seconds in asking.clock.slept if seconds > 0.01]
        assert len(pauses) == requests - 1
        assert pauses == sorted(pauses)

    asking.run(work)


def test_a_breaker_doubles_its_pause_to_the_longest() -> None:
    backoff, chance = Backoff(30.0, 900.0, jitter=0.0), random.Random(1)
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(5):
        breaker.bad(now, False, 5, backoff, chance)
    for _ in range(8):
        pause = breaker.closed_for(now)
        pauses.append(pause)
        now += pause
        assert breaker.closed_for(now) == 0.0
        assert breaker.admit()
        assert breaker.closed_for(now) == 1.0
        breaker.bad(now, True, 5, backoff, chance)
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]
    breaker.good()
    assert breaker.clean


def test_failures_of_requests_that_began_before_a_breaker_opened_say_nothing_new() -> None:
    backoff, chance = Backoff(30.0, 900.0, jitter=0.0), random.Random(1)
    breaker = Breaker()
    for _ in range(50):
        breaker.bad(0.0, False, 5, backoff, chance)
    assert breaker.closed_for(0.0) == 30.0


def test_requests_are_counted_in_the_metrics_of_an_actor() -> None:
    metrics = Metrics()
    count = counting(metrics, ("plc", "txt"))
    families = len(metrics.snapshot().families[0].samples)
    count("plc", "ok")
    count("plc", "ok")
    for kind in Kind:
        count("txt", str(kind))
    snapshot = metrics.snapshot()
    assert snapshot.value("outbound_requests_total", kind="plc", outcome="ok") == 2
    assert snapshot.value("outbound_requests_total", kind="txt", outcome="tls") == 1
    # None is made by counting: a snapshot may be under way in another thread.
    assert len(snapshot.families[0].samples) == families
