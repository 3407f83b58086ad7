"""How often hosts are asked: rates, turns, and what is remembered of hosts."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from actors.outbound import Kind, Outbound, OutboundError
from actors.outbound.hosts import Hosts
from actors.outbound.pace import Pace
from tests.servers import faults
from tests.servers.client import VirtualClock, developing
from tests.servers.dns import DnsServer
from tests.unit.test_outbound_hosts import Asking, Fine


@pytest.fixture
def server() -> Iterator[Fine]:
    with Fine() as server:
        yield server


def test_requests_to_one_host_take_turns_and_other_hosts_do_not_wait(server: Fine) -> None:
    async def go(other: Fine) -> None:
        settings = developing(connections_per_host=3, requests_per_second=10_000.0)
        server.fail(faults.slow(0.05))
        async with Outbound(settings) as outbound:

            async def one(url: str, number: int) -> None:
                await outbound.get(f"{url}/{number}", limit_bytes=99, seconds=5)

            many = [asyncio.create_task(one(server.url, number)) for number in range(20)]
            while not server.requests:
                await asyncio.sleep(0.001)
            # Another name is another host, here at the same address.
            await one(other.url.replace("127.0.0.1", "localhost"), 0)
            assert len(server.requests) < 20
            await asyncio.gather(*many)
        assert server.most_active == 3
        # In the order they were asked for, three at a time.
        numbers = [int(request.path[1:]) for request in server.requests]
        assert all(abs(number - at) < 3 for at, number in enumerate(numbers))

    with Fine() as other:
        asyncio.run(go(other))


def test_all_requests_together_have_a_bound_too() -> None:
    async def go(dns: DnsServer, server: Fine) -> None:
        settings = developing(
            nameservers=dns.nameserver, connections=4, requests_per_second=10_000.0
        )
        server.fail(faults.slow(0.02))
        async with Outbound(settings) as outbound:
            await asyncio.gather(
                *(
                    outbound.get(
                        f"http://h{number}.example.com:{server.port}/", limit_bytes=9, seconds=9
                    )
                    for number in range(30)
                )
            )
        assert server.most_active == 4
        assert len(server.requests) == 30

    with DnsServer() as dns, Fine() as server:
        dns.everything = ("127.0.0.1",)
        asyncio.run(go(dns, server))


def test_who_waits_too_long_for_a_turn_is_told_so(server: Fine) -> None:
    async def go() -> None:
        settings = developing(connections_per_host=1, queue_seconds=0.1, tries=1)
        async with Outbound(settings) as outbound:
            server.fail(faults.slow(1.0))
            first = asyncio.create_task(outbound.get(server.url, limit_bytes=99, seconds=5))
            while not server.requests:
                await asyncio.sleep(0.001)
            with pytest.raises(OutboundError) as caught:
                await outbound.get(server.url, limit_bytes=99, seconds=5)
            assert caught.value.kind is Kind.BUSY
            assert (await first).body == b"fine"
        assert len(server.requests) == 1

    asyncio.run(go())


def test_the_rate_to_a_host_holds_over_time(server: Fine) -> None:
    asking = Asking(server.url, requests_per_second=10.0, queue_seconds=1000.0)

    async def work(outbound: Outbound) -> None:
        began = asking.clock.now()
        for number in range(101):
            assert await asking.once(outbound) is None
            if number == 9:
                assert asking.clock.now() == began
        assert asking.clock.now() - began == pytest.approx(9.1, abs=0.2)

    asking.run(work)


def test_a_host_may_have_a_rate_of_its_own(server: Fine) -> None:
    async def go() -> None:
        clock = VirtualClock()
        settings = developing(requests_per_second=1.0, queue_seconds=1000.0)
        rates = {"127.0.0.1": 20.0}
        async with Outbound(settings, rates=rates, clock=clock, sleep=clock.sleep) as outbound:
            began = clock.now()
            for _ in range(41):
                assert (await outbound.get(server.url, limit_bytes=9, seconds=5)).status == 200
            assert clock.now() - began == pytest.approx(1.05, abs=0.1)

    asyncio.run(go())


def test_many_names_at_one_address_share_a_rate_of_connections() -> None:
    async def go(dns: DnsServer, server: Fine) -> None:
        clock = VirtualClock()
        settings = developing(nameservers=dns.nameserver, requests_per_second=10.0, tries=1)
        async with Outbound(settings, clock=clock, sleep=clock.sleep) as outbound:
            began = clock.now()
            for number in range(60):
                url = f"http://h{number}.example.com:{server.port}/"
                assert (await outbound.get(url, limit_bytes=9, seconds=5)).status == 200
            assert clock.now() - began == pytest.approx(5.0, abs=0.3)

    with DnsServer() as dns, Fine() as server:
        dns.everything = ("127.0.0.1",)
        asyncio.run(go(dns, server))


def test_the_state_of_hosts_is_bounded_and_forgets_those_that_are_well_first() -> None:
    async def go() -> None:
        clock = VirtualClock()
        settings = developing(hosts=100)
        hosts = Hosts(settings, clock, clock.sleep, random.Random(1), {})
        for _ in range(settings.breaker_failures):
            async with hosts.turn("dead") as slot:
                slot.bad = True
        for number in range(100_000):
            async with hosts.turn(f"host{number}") as slot:
                slot.good = True
            clock.pass_by(2.0 if number < 4 else 0.2)
            if number == 90:
                # The breaker outlives the others that were asked since.
                with pytest.raises(OutboundError):
                    async with hosts.turn("dead"):
                        raise AssertionError
        assert len(hosts) == 100

    asyncio.run(go())


def test_hosts_that_are_all_busy_are_not_forgotten() -> None:
    async def go() -> None:
        clock = VirtualClock()
        hosts = Hosts(developing(hosts=2), clock, clock.sleep, random.Random(1), {})
        async with hosts.turn("a"), hosts.turn("b"), hosts.turn("c"):
            assert len(hosts) == 3
        async with hosts.turn("d"):
            pass
        assert len(hosts) <= 3

    asyncio.run(go())


def test_a_waiter_that_is_cancelled_just_as_its_turn_comes_hands_it_on() -> None:
    async def go() -> None:
        clock = VirtualClock()
        settings = developing(connections_per_host=1, requests_per_second=1000.0)
        hosts = Hosts(settings, clock, clock.sleep, random.Random(1), {})
        order: list[str] = []

        async def one(name: str) -> None:
            async with hosts.turn("host"):
                order.append(name)

        async with hosts.turn("host"):
            first, second = asyncio.create_task(one("first")), asyncio.create_task(one("second"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        # The slot was handed to the first, which is cancelled before it runs.
        first.cancel()
        await asyncio.wait_for(second, 60)
        assert first.cancelled()
        assert order == ["second"]
        async with asyncio.timeout(5), hosts.turn("host"):
            order.append("free")

    asyncio.run(go())


def test_a_pace_keeps_its_rate_whatever_the_order() -> None:
    for rate in (0.1, 0.9, 1.0, 3.0, 50.0):
        pace, chance = Pace(), random.Random(int(rate * 10))
        now, turns = 1000.0, []
        for _ in range(500):
            turns.append(now + pace.reserve(now, rate))
            now += chance.random() * 2 / rate
        burst = max(rate, 1.0)
        for first in range(0, 500, 7):
            for last in range(first + 1, min(first + 60, 500)):
                allowed = burst + (turns[last] - turns[first]) * rate + 1e-6
                assert last - first + 1 <= allowed + 1
