"""Names are looked up where the settings say, and addresses are remembered for a while."""

import asyncio

import pytest

from actors.outbound import OutboundError
from actors.outbound.names import Names
from config.nameservers import parse_nameservers
from tests.servers.client import VirtualClock, developing, network
from tests.servers.dns import DnsServer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" , ", ()),
        ("9.9.9.9", (("9.9.9.9", 53),)),
        ("9.9.9.9, 127.0.0.1:5353", (("9.9.9.9", 53), ("127.0.0.1", 5353))),
        ("2620:fe::fe", (("2620:fe::fe", 53),)),
        ("[2620:fe::fe]:54,[::1]", (("2620:fe::fe", 54), ("::1", 53))),
    ],
)
def test_servers_are_read_from_the_settings(text: str, expected: object) -> None:
    assert parse_nameservers(text) == expected


@pytest.mark.parametrize(
    "text",
    ["dns.example.com", "9.9.9.9:", "9.9.9.9:0", "9.9.9.9:65536", "9.9.9.9:x", "[::1]x", "1.2"],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no (address|port)"):
        parse_nameservers(text)


def test_addresses_are_remembered_for_a_short_while_and_in_bounds() -> None:
    async def go(dns: DnsServer) -> None:
        clock = VirtualClock()
        names = Names(network(nameservers=dns.nameserver, hosts=50), clock.monotonic)
        for _ in range(10):
            assert await names.addresses("a.example.com", "A") == ["192.0.2.1"]
            assert await names.addresses("a.example.com", "AAAA") == []
            assert await names.addresses("none.example.com", "A") == []
        assert set(dns.asked.values()) == {1}
        clock.pass_by(6.0)
        await names.addresses("a.example.com", "A")
        assert dns.asked["a.example.com", "A"] == 2
        for number in range(200):
            await names.addresses(f"h{number}.example.com", "A")
        assert len(names) == 50
        # What is not known is not remembered: the next one asks again.
        dns.broken.add("b.example.com")
        for _ in range(2):
            with pytest.raises(OutboundError):
                await names.addresses("b.example.com", "A")
        dns.broken.clear()
        dns.a("b.example.com", "192.0.2.2")
        assert await names.addresses("b.example.com", "A") == ["192.0.2.2"]

    with DnsServer() as dns:
        dns.a("a.example.com", "192.0.2.1")
        asyncio.run(go(dns))


def test_localhost_is_this_machine_without_asking_anybody() -> None:
    async def go(dns: DnsServer) -> None:
        names = Names(developing(nameservers=dns.nameserver), VirtualClock().monotonic)
        assert await names.addresses("localhost", "A") == ["127.0.0.1"]
        assert await names.addresses("pds.localhost", "AAAA") == ["::1"]

    with DnsServer() as dns:
        asyncio.run(go(dns))
        assert not dns.asked


def test_many_long_texts_come_over_tcp() -> None:
    async def go(dns: DnsServer) -> None:
        names = Names(network(nameservers=dns.nameserver), VirtualClock().monotonic)
        assert sorted(await names.txt("_atproto.example.com")) == sorted(texts)

    texts = [f"{number} " + "x" * 900 for number in range(40)]
    with DnsServer() as dns:
        dns.txt("_atproto.example.com", *texts)
        asyncio.run(go(dns))
        assert dns.asked["_atproto.example.com", "TXT"] == 2


def test_texts_that_are_no_utf8_are_left_out() -> None:
    async def go(dns: DnsServer) -> None:
        names = Names(network(nameservers=dns.nameserver), VirtualClock().monotonic)
        assert await names.txt("_atproto.example.com") == ["did=did:plc:abc"]

    with DnsServer() as dns:
        dns.answers("_atproto.example.com", "TXT", ['"\\255\\254"', '"did=did:plc:abc"'])
        asyncio.run(go(dns))
