"""What names that share an address mean for each other, and hosts that ask for one pause after
another."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from actors.outbound import Kind, Outbound
from actors.outbound.neighbours import Neighbours, domain
from actors.outbound.pause import BELIEVED, Pause
from engine.restarts import Backoff
from tests.servers import faults
from tests.servers.client import VirtualClock, developing
from tests.servers.dns import DnsServer
from tests.unit.test_outbound_hosts import HOUR, Asking, Fine

PLACE = ("93.184.216.34", 443)
OTHER = ("93.184.216.35", 443)


@pytest.fixture
def server() -> Iterator[Fine]:
    with Fine() as server:
        yield server


class Known:
    """What is known of addresses, on virtual time."""

    def __init__(self, **changes: Any) -> None:
        self.clock = VirtualClock()
        self.settings = developing(breaker_failures=3, **changes)
        self.it = Neighbours(self.settings, self.clock.monotonic, random.Random(1))

    def ask(
        self, name: str, place: tuple[str, int], *, connects: bool = True, answers: bool = True
    ) -> None:
        """One request, as it went."""
        assert not self.it.closed_for(name, place)
        self.it.connected(self.it.begin(name, place), connects)
        self.it.judge(name, connects and answers)

    def may(self, name: str, place: tuple[str, int]) -> bool:
        return not self.it.closed_for(name, place)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("u1.big.social", "big.social"),
        ("a.b.big.social", "b.big.social"),
        ("big.social", "big.social"),
        ("localhost", "localhost"),
        ("93.184.216.34", "93.184.216.34"),
        ("2606:4700::1", "2606:4700::1"),
    ],
)
def test_names_belong_together_that_differ_in_their_first_label(name: str, expected: str) -> None:
    assert domain(name) == expected


def test_a_place_that_takes_no_connections_is_left_alone_whatever_the_name() -> None:
    known = Known()
    for number in range(3):
        known.ask(f"u.domain{number}.net", PLACE, connects=False)
    assert not known.may("another.org", PLACE)
    assert known.may("another.org", OTHER)
    assert known.may("another.org", (PLACE[0], 80))
    known.clock.pass_by(31.0)
    # One tries, for all names.
    attempt = known.it.begin("another.org", PLACE)
    assert not known.may("u.domain0.net", PLACE)
    known.it.connected(attempt, True)
    assert known.may("u.domain0.net", PLACE)


def test_several_names_of_one_domain_that_fail_at_one_place_stand_for_the_others() -> None:
    known = Known()
    for _ in range(20):
        known.ask("u1.big.social", PLACE, answers=False)
    assert known.may("u2.big.social", PLACE), "one name alone says nothing"
    known.ask("u2.big.social", PLACE, answers=False)
    known.ask("u3.big.social", PLACE, answers=False)
    assert not known.may("u4.big.social", PLACE)
    assert known.may("u4.big.social", OTHER)
    assert known.may("u4.small.social", PLACE), (
        "on a shared machine others have nothing to do with it"
    )
    assert not known.may("big.social", PLACE), "nor is the domain itself"


def test_one_name_that_answers_clears_the_others() -> None:
    known = Known()
    for _ in range(10):
        known.ask("u1.big.social", PLACE, answers=False)
        known.ask("u2.big.social", PLACE, answers=False)
        known.ask("u3.big.social", PLACE)
    assert known.may("u4.big.social", PLACE)


def test_a_try_that_tells_nothing_is_followed_by_another_one() -> None:
    known = Known(hosts=2)
    for number in range(3):
        known.ask(f"u{number}.big.social", PLACE, answers=False)
    known.clock.pass_by(31.0)
    known.it.connected(known.it.begin("u1.big.social", PLACE), None)
    assert not known.may("u2.big.social", PLACE)
    known.it.judge("u1.big.social", None)
    assert known.may("u2.big.social", PLACE)
    # Nor does it matter that who tries is forgotten before it tells.
    known.it.connected(known.it.begin("u2.big.social", PLACE), True)
    for number in range(2):
        known.it.connected(known.it.begin(f"u{number}.small.social", OTHER), True)
    assert known.may("u3.big.social", PLACE)


def test_many_names_at_a_dead_address_are_asked_as_one_host() -> None:
    async def go(dns: DnsServer, server: Fine) -> None:
        clock = VirtualClock()
        settings = developing(nameservers=dns.nameserver, tries=1)
        server.refuse()
        kinds: dict[Kind | None, int] = {}
        async with Outbound(settings, clock=clock, sleep=clock.sleep) as outbound:
            for number in range(200):
                asking = Asking(f"http://u{number}.domain{number}.net:{server.port}/")
                error = await asking.once(outbound)
                kind = None if error is None else error.kind
                kinds[kind] = kinds.get(kind, 0) + 1
                clock.pass_by(HOUR / 200)
            assert kinds == {
                Kind.CONNECT: kinds[Kind.CONNECT],
                Kind.NEIGHBOURS: 200 - kinds[Kind.CONNECT],
            }
            # Five to find out, and then one for each pause: 30 s, 60 s, ... 15 min.
            assert 8 <= kinds[Kind.CONNECT] <= 15

    with DnsServer() as dns, Fine() as server:
        dns.everything = ("127.0.0.1",)
        asyncio.run(go(dns, server))


@pytest.mark.parametrize("fault", [faults.status(429, {"Retry-After": "60"}), faults.drop()])
def test_many_names_of_a_site_that_refuses_all_of_them_are_asked_as_one_host(
    fault: faults.Fault,
) -> None:
    async def go(dns: DnsServer, server: Fine) -> None:
        clock = VirtualClock()
        settings = developing(nameservers=dns.nameserver)
        server.fail(fault)
        async with Outbound(settings, clock=clock, sleep=clock.sleep) as outbound:
            for number in range(200):
                asking = Asking(f"http://u{number}.big.social:{server.port}/")
                assert await asking.once(outbound, tries=1) is not None
                clock.pass_by(HOUR / 200)
            assert len(server.requests) <= 15
            server.heal()
            clock.pass_by(900.0)
            asking = Asking(f"http://u9999.big.social:{server.port}/")
            assert await asking.once(outbound) is None
            assert await Asking(f"http://u7.big.social:{server.port}/").once(outbound) is None

    with DnsServer() as dns, Fine() as server:
        dns.everything = ("127.0.0.1",)
        asyncio.run(go(dns, server))


def test_after_a_pause_one_request_finds_out_for_the_others(server: Fine) -> None:
    asking = Asking(server.url)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(429, {"Retry-After": "60"}))
        for _ in range(4):
            errors = await asyncio.gather(*(asking.once(outbound) for _ in range(10)))
            kinds = [str(error.kind) for error in errors if error is not None]
            assert sorted(kinds)[:1] == ["http_status"]
            assert len(kinds) == 10
            asking.clock.pass_by(61.0)
        # Of those that were asked before anything was known, as many as may be at a time.
        assert len(server.requests) <= asking.settings.connections_per_host + 3
        server.heal()
        assert await asking.once(outbound) is None
        assert await asyncio.gather(*(asking.once(outbound) for _ in range(10))) == [None] * 10

    asking.run(work)


@pytest.mark.parametrize(
    "told", [{}, {"Retry-After": "1"}, {"Retry-After": "-5"}, {"Retry-After": "0"}]
)
def test_who_asks_for_one_pause_after_another_is_asked_less_and_less(
    server: Fine, told: dict[str, str]
) -> None:
    asking = Asking(server.url)

    async def work(outbound: Outbound) -> None:
        server.fail(faults.status(429, told))
        for _ in range(int(HOUR)):
            assert await asking.once(outbound) is not None
            asking.clock.pass_by(1.0)
        assert 8 <= len(server.requests) <= 15
        server.heal()
        asking.clock.pass_by(900.0)
        assert await asking.once(outbound) is None
        # What was is forgotten.
        server.fail(faults.status(429, {"Retry-After": "1"}, times=1))
        assert await asking.once(outbound) is not None
        asking.clock.pass_by(1.1)
        assert await asking.once(outbound) is None

    asking.run(work)


def test_pauses_are_believed_and_then_grow_to_the_longest() -> None:
    backoff, chance = Backoff(30.0, 900.0, jitter=0.0), random.Random(1)
    pause, now, lengths = Pause(), 0.0, []
    for _ in range(BELIEVED + 7):
        pause.admit()
        pause.asked(now, 2.0, backoff, chance)
        # Those that were under way tell the same, and that is no further pause.
        pause.asked(now, 2.0, backoff, chance)
        lengths.append(pause.left(now))
        now += pause.left(now)
    assert lengths == [2.0] * BELIEVED + [30, 60, 120, 240, 480, 900, 900]
    pause.admit()
    assert pause.left(now) == 1.0
    pause.answered()
    assert pause.clean
