"""Where a request may lead: what the DNS and redirects say is checked, each time."""

import asyncio

import pytest

from actors.outbound import Kind, Outbound, OutboundError
from tests.servers import faults
from tests.servers.client import VirtualClock, network
from tests.servers.dns import DnsServer
from tests.servers.internet import OTHER, PUBLIC, PUBLIC_6, Hello, Internet, hello, refused
from tests.unit.test_outbound_addresses import INSIDE

ADDRESSES = [text for text in INSIDE if text and " " not in text and "%" not in text]


def test_a_public_host_is_asked_over_tls() -> None:
    with DnsServer() as dns, hello() as server:
        dns.a("pds.example.com", PUBLIC)
        internet = Internet(dns, server)
        assert internet.get("https://pds.example.com/") == b"hello from pds.example.com"
        assert internet.counts == {("x", "ok"): 1}


def test_a_host_with_ipv6_alone_is_asked() -> None:
    with DnsServer() as dns, hello() as server:
        dns.aaaa("pds.example.com", PUBLIC_6)
        given = Internet(dns, server).get("https://pds.example.com/")
        assert given == b"hello from pds.example.com"


@pytest.mark.parametrize(
    "address",
    [address for address in INSIDE if address and " " not in address and "%" not in address],
)
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    with DnsServer() as dns, hello() as server:
        name = dns.aaaa if ":" in address else dns.a
        name("pds.example.com", address)
        internet = Internet(dns, server)
        error = refused(internet.get("https://pds.example.com/"), Kind.REFUSED_ADDRESS)
        assert error.host == "pds.example.com"
        assert not error.kind.passing
        assert server.connections == 0
        assert internet.counts == {("x", "refused_address"): 1}


def test_of_mixed_answers_only_public_addresses_are_connected_to() -> None:
    with DnsServer() as dns, hello() as server:
        dns.a("pds.example.com", "127.0.0.1", "169.254.169.254", PUBLIC, "10.0.0.1")
        dns.a("other.example.com", "10.0.0.1")
        dns.aaaa("other.example.com", "::1", "fd00::1")
        first, second = Internet(dns, server).get_all(
            "https://pds.example.com/", "https://other.example.com/"
        )
        assert first == b"hello from pds.example.com"
        refused(second, Kind.REFUSED_ADDRESS)
        assert server.connections == 1


def test_an_alias_that_leads_inside_is_refused() -> None:
    with DnsServer() as dns, hello() as server:
        dns.answers("pds.example.com", "CNAME", ["localhost."])
        dns.a("localhost", "127.0.0.1")
        refused(Internet(dns, server).get("https://pds.example.com/"), Kind.REFUSED_ADDRESS)
        assert server.connections == 0


def test_a_second_answer_of_the_dns_is_not_what_is_connected_to() -> None:
    with DnsServer() as dns, hello() as server:
        dns.answers("pds.example.com", "A", [PUBLIC], ["127.0.0.1"])
        given = Internet(dns, server).get_all(*["https://pds.example.com/"] * 3)
        assert given == [b"hello from pds.example.com"] * 3
        # One question, one check, one address: there is no moment between them to use.
        assert dns.asked["pds.example.com", "A"] == 1


def test_an_answer_that_changes_later_is_checked_again() -> None:
    with DnsServer() as dns, hello() as server:
        dns.answers("pds.example.com", "A", [PUBLIC], ["127.0.0.1"])
        server.fail(faults.status(200, {"Connection": "close"}))

        async def go() -> Kind:
            clock = VirtualClock()
            internet = Internet(dns, server)
            async with internet.client(clock=clock, sleep=clock.sleep) as outbound:
                url = "https://pds.example.com/"
                assert (await outbound.get(url, limit_bytes=100, seconds=5)).status == 200
                clock.pass_by(3600)
                with pytest.raises(OutboundError) as caught:
                    await outbound.get(url, limit_bytes=100, seconds=5)
                return caught.value.kind

        assert asyncio.run(go()) is Kind.REFUSED_ADDRESS
        assert dns.asked["pds.example.com", "A"] == 2


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/latest/meta-data/",
        "https://metadata.example.com/",
        "http://pds.example.com/",
        "//127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://pds.example.com:22/",
        "https://pds.example.com@127.0.0.1/",
        "file:///etc/passwd",
        "https://localhost/",
        "https://2130706433/",
        "\\\\127.0.0.1\\x",
        "https://[",
        "x" * 9000,
        "https://ⓛocalhost/",
    ],
)
def test_a_redirect_is_checked_like_a_first_request(location: str) -> None:
    with DnsServer() as dns, hello() as server:
        dns.a("pds.example.com", PUBLIC)
        dns.a("metadata.example.com", "169.254.169.254")
        fault = server.fail(faults.redirect(location.encode().decode("latin-1")))
        internet = Internet(dns, server)
        given = internet.get("https://pds.example.com/")
        assert isinstance(given, OutboundError)
        assert given.kind in (Kind.REFUSED_URL, Kind.REFUSED_ADDRESS)
        assert fault.fired == 1
        assert server.connections == 1


def test_redirects_are_followed_three_times_and_lose_what_was_meant_for_the_first_host() -> None:
    with DnsServer() as dns, hello() as server:
        dns.a("pds.example.com", PUBLIC)
        dns.a("other.example.com", OTHER)
        server.fail(faults.redirect("/b", 301, path="/a"))
        server.fail(faults.redirect("https://other.example.com/c", 307, path="/b"))
        server.fail(faults.redirect("d", 308, path="/c"))

        async def go() -> bytes:
            async with Internet(dns, server).client() as outbound:
                headers = {"Authorization": "secret", "Accept": "text/plain"}
                url = "https://pds.example.com/a"
                response = await outbound.get(url, limit_bytes=99, seconds=5, headers=headers)
                return response.body

        assert asyncio.run(go()) == b"hello from other.example.com"
        assert [request.path for request in server.requests] == ["/a", "/b", "/c", "/d"]
        assert ["authorization" in request.headers for request in server.requests] == [
            True,
            True,
            False,
            False,
        ]
        assert {request.headers["accept"] for request in server.requests} == {"text/plain"}


def test_a_loop_of_redirects_ends_after_the_third() -> None:
    with DnsServer() as dns, hello() as server:
        dns.a("pds.example.com", PUBLIC)
        server.fail(faults.redirect("https://pds.example.com/a"))
        internet = Internet(dns, server)
        refused(internet.get("https://pds.example.com/a"), Kind.TOO_MANY_REDIRECTS)
        assert len(server.requests) == 4
        assert internet.counts == {("x", "too_many_redirects"): 1}


def test_a_host_of_the_settings_may_be_private_and_others_beside_it_may_not() -> None:
    with DnsServer() as dns, Hello() as server, Hello() as secret:

        async def go() -> None:
            settings = network(nameservers=dns.nameserver, plc_url=server.url, tries=1)
            async with Outbound(settings) as outbound:
                response = await outbound.get(f"{server.url}/a", limit_bytes=99, seconds=5)
                assert response.status == 200
                with pytest.raises(OutboundError) as caught:
                    await outbound.get(f"{secret.url}/a", limit_bytes=99, seconds=5)
                assert caught.value.kind is Kind.REFUSED_URL
                server.fail(faults.redirect(f"{secret.url}/a"))
                with pytest.raises(OutboundError) as caught:
                    await outbound.get(f"{server.url}/a", limit_bytes=99, seconds=5)
                assert caught.value.kind is Kind.REFUSED_URL

        asyncio.run(go())
        assert secret.connections == 0


def test_a_dialled_socket_is_checked_like_a_request() -> None:
    with DnsServer() as dns, Hello() as server:
        dns.a("labeler.example.com", PUBLIC)
        dns.a("inside.example.com", "127.0.0.1")

        async def go() -> None:
            routes = {(PUBLIC, 443): ("127.0.0.1", server.port)}
            settings = network(nameservers=dns.nameserver)
            async with Outbound(settings, routes=routes) as outbound:
                with await outbound.dial("wss://labeler.example.com/xrpc/x") as dialled:
                    assert dialled.getpeername() == ("127.0.0.1", server.port)
                for url, kind in (
                    ("wss://inside.example.com/", Kind.REFUSED_ADDRESS),
                    ("ws://labeler.example.com/", Kind.REFUSED_URL),
                    ("wss://labeler.example.com:81/", Kind.REFUSED_URL),
                ):
                    with pytest.raises(OutboundError) as caught:
                        await outbound.dial(url)
                    assert caught.value.kind is kind

        asyncio.run(go())
