"""What may come back: every way to answer badly ends soon, in bounded memory, with its reason."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actors.outbound import Kind, Outbound, OutboundError
from tests.servers import faults
from tests.servers.certificates import authority
from tests.servers.client import Counts, developing
from tests.servers.dns import DnsServer
from tests.servers.faults import Fault
from tests.servers.http import HttpServer, Reply, Request
from tests.servers.internet import PUBLIC, Hello, Internet, refused
from tests.servers.loopback import free_port

LIMIT = 2000
BODY = b"b" * 1000
# Limits short enough for a test, and long enough for a machine that has other things to do.
SHORT = {
    "answer_seconds": 1.0,
    "floor_seconds": 0.5,
    "floor_bytes": 1000,
    "tries": 1,
    "connect_seconds": 1.0,
    "dns_seconds": 1.0,
}


def _endless_wrapping() -> Iterator[bytes]:
    """A body of single bytes, each in a chunk whose extension is much larger."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"1;x=" + b"y" * 4000 + b"\r\nz\r\n"


class Bodies(HttpServer):
    moved = ""

    def answer(self, request: Request) -> Reply:
        if self.moved:
            return Reply(302, headers={"Location": self.moved})
        return Reply(200, BODY, "text/plain")


@pytest.fixture
def server() -> Iterator[Bodies]:
    with Bodies() as server:
        yield server


def get(
    server: HttpServer,
    *,
    limit: int = LIMIT,
    seconds: float = 5.0,
    counts: Counts | None = None,
    **changes: Any,
) -> bytes:
    """One body, with the limits of `SHORT`."""

    async def go() -> bytes:
        settings = developing(**{**SHORT, **changes})
        async with Outbound(settings, count=counts) as outbound:
            response = await outbound.get(
                f"{server.url}/x", limit_bytes=limit, seconds=seconds, kind="x"
            )
            return response.body

    return asyncio.run(go())


def failed(server: HttpServer, fault: Fault, **changes: Any) -> OutboundError:
    """The error that a fault ends in; it must have fired."""
    server.fail(fault)
    counts = Counts()
    with pytest.raises(OutboundError) as caught:
        get(server, counts=counts, **changes)
    assert fault.fired == 1
    assert counts == {("x", str(caught.value.kind)): 1}
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.endless(), Kind.TOO_LARGE),
        (faults.content(b"x" * (LIMIT + 1)), Kind.TOO_LARGE),
        (faults.status(200, {"Content-Length": "99999999999"}, b""), Kind.BAD_ANSWER),
        (faults.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"), Kind.TOO_LARGE),
        (faults.raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LIMIT + 1)), Kind.TOO_LARGE),
        (faults.trickle(0.1), Kind.TOO_SLOW),
        (faults.slow_head(0.05), Kind.TIMEOUT),
        (faults.hang(), Kind.TIMEOUT),
        (faults.endless_interim(), Kind.BAD_ANSWER),
        (Fault("wrapping", parts=_endless_wrapping), Kind.BAD_ANSWER),
        (faults.endless_head(), Kind.BAD_ANSWER),
        (faults.raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"), Kind.BAD_ANSWER),
        (faults.raw(b"SSH-2.0-OpenSSH_9.9\r\n"), Kind.CLOSED),
        (faults.raw(b"\x00" * 1000), Kind.BAD_ANSWER),
        (faults.raw(b"HTTP/1.1 200 OK\r\nBroken header\r\n\r\n"), Kind.BAD_ANSWER),
        (
            faults.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            Kind.BAD_ANSWER,
        ),
        (
            faults.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            Kind.BAD_ANSWER,
        ),
        (faults.drop(), Kind.CLOSED),
        (faults.cut(), Kind.CLOSED),
        (faults.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Kind.CLOSED),
        (faults.raw(b""), Kind.CLOSED),
        (faults.status(500), Kind.HTTP_STATUS),
        (faults.status(503), Kind.HTTP_STATUS),
        (faults.status(429), Kind.HTTP_STATUS),
        (faults.status(599), Kind.HTTP_STATUS),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else str(value),
)
def test_a_bad_answer_ends_with_its_reason(server: Bodies, fault: Fault, kind: Kind) -> None:
    assert failed(server, fault).kind is kind
    server.heal()
    assert get(server) == BODY


def test_the_largest_body_that_is_wanted_comes_whole(server: Bodies) -> None:
    server.fail(faults.content(b"x" * LIMIT))
    assert get(server) == b"x" * LIMIT


def test_a_body_ends_in_time_however_steadily_it_comes(server: Bodies) -> None:
    error = failed(server, faults.trickle(0.01), seconds=0.5, floor_bytes=10)
    assert error.kind is Kind.TIMEOUT


def test_redirects_share_the_time_of_their_request(server: Bodies) -> None:
    server.fail(faults.slow(0.4))
    server.moved = "/x"
    with pytest.raises(OutboundError) as caught:
        get(server, seconds=1.0, floor_seconds=9.0)
    assert caught.value.kind is Kind.TIMEOUT
    assert len(server.requests) == 3


def test_a_slow_host_that_keeps_above_the_floor_is_waited_for(server: Bodies) -> None:
    server.fail(faults.trickle(0.001))
    assert get(server, floor_bytes=50) == BODY


def test_a_quick_start_buys_no_more_patience_than_there_was(server: Bodies) -> None:
    async def go() -> float:
        loop = asyncio.get_running_loop()
        settings = developing(**SHORT)
        async with Outbound(settings) as outbound:
            began = loop.time()
            with pytest.raises(OutboundError) as caught:
                await outbound.get(f"{server.url}/x", limit_bytes=10**6, seconds=20)
            assert caught.value.kind is Kind.TOO_SLOW
            return loop.time() - began

    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    server.fail(faults.stall(head + b"x" * 100_000))
    # At the floor those bytes would have taken a hundred seconds.
    assert asyncio.run(go()) < 10


def test_time_that_the_reader_takes_is_not_the_hosts(server: Bodies) -> None:
    async def go() -> bytes:
        settings = developing(**{**SHORT, "floor_seconds": 0.2})
        async with (
            Outbound(settings) as outbound,
            outbound.stream(f"{server.url}/x", limit_bytes=10**6, seconds=60) as answer,
        ):
            pieces = []
            async for piece in answer:
                pieces.append(piece)
                await asyncio.sleep(0.3)
            return b"".join(pieces)

    big = b"z" * 500_000
    server.fail(faults.content(big))
    assert asyncio.run(go()) == big


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 410, 418, 451])
def test_other_statuses_are_answers(server: Bodies, status: int) -> None:
    server.fail(faults.status(status, body=b""))
    assert get(server) == b""


def test_headers_that_come_twice_stand_together(server: Bodies) -> None:
    async def go() -> dict[str, str]:
        async with Outbound(developing()) as outbound:
            response = await outbound.get(f"{server.url}/x", limit_bytes=9, seconds=5)
            return dict(response.headers)

    server.fail(faults.raw(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-a: 2\r\nContent-Length: 0\r\n\r\n"))
    assert asyncio.run(go())["x-a"] == "1, 2"


def test_a_reader_that_leaves_early_frees_the_slot_and_is_counted(server: Bodies) -> None:
    async def go() -> None:
        counts = Counts()
        settings = developing(connections_per_host=1)
        async with Outbound(settings, count=counts) as outbound:
            for _ in range(3):
                async with outbound.stream(
                    f"{server.url}/x", limit_bytes=10**9, seconds=5, kind="x"
                ) as answer:
                    async for _piece in answer:
                        break
            with pytest.raises(ZeroDivisionError):
                async with outbound.stream(f"{server.url}/x", limit_bytes=9, seconds=5, kind="x"):
                    raise ZeroDivisionError
        assert counts == {("x", "ok"): 3, ("x", "abandoned"): 1}

    server.fail(faults.endless())
    asyncio.run(go())


def test_a_request_that_is_cancelled_frees_everything(server: Bodies) -> None:
    async def go() -> None:
        counts = Counts()
        settings = developing(connections_per_host=1, connections=1)
        async with Outbound(settings, count=counts) as outbound:
            for number in range(3):
                task = asyncio.create_task(
                    outbound.get(f"{server.url}/x", limit_bytes=LIMIT, seconds=50, kind="x")
                )
                while len(server.requests) == number:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            server.heal()
            response = await outbound.get(f"{server.url}/x", limit_bytes=LIMIT, seconds=5, kind="x")
            assert response.body == BODY
        assert counts == {("x", "abandoned"): 3, ("x", "ok"): 1}

    server.fail(faults.slow(30.0))
    asyncio.run(go())


def test_nobody_there_and_no_answer_to_the_attempt() -> None:
    async def go() -> None:
        settings = developing(**SHORT)
        async with Outbound(settings) as outbound:
            with pytest.raises(OutboundError) as caught:
                await outbound.get(f"http://127.0.0.1:{free_port()}/", limit_bytes=1, seconds=5)
            assert caught.value.kind is Kind.CONNECT
            with pytest.raises(OutboundError) as caught:
                await outbound.dial(f"ws://127.0.0.1:{free_port()}/")
            assert caught.value.kind is Kind.CONNECT

    asyncio.run(go())


@pytest.mark.parametrize(
    ("names", "expired"), [(("elsewhere.example.com",), False), (("pds.example.com",), True)]
)
def test_a_certificate_that_does_not_hold_is_refused(names: tuple[str, ...], expired: bool) -> None:
    tls = authority().server(*names, expired=expired)
    with DnsServer() as dns, Hello(tls) as server:
        dns.a("pds.example.com", PUBLIC)
        error = refused(Internet(dns, server).get("https://pds.example.com/"), Kind.TLS)
        assert "certificate" in error.detail.lower()
        assert not server.requests


def test_an_unknown_authority_and_a_server_without_tls_are_refused() -> None:
    async def go(outbound: Outbound) -> None:
        async with outbound:
            with pytest.raises(OutboundError) as caught:
                await outbound.get("https://pds.example.com/", limit_bytes=9, seconds=5)
            assert caught.value.kind is Kind.TLS

    with DnsServer() as dns, Hello(authority().server("pds.example.com")) as server:
        dns.a("pds.example.com", PUBLIC)
        internet = Internet(dns, server)
        # Without `tls` it trusts what the system trusts.
        asyncio.run(go(Outbound(internet.settings, routes=internet.routes)))
        assert not server.requests
    with DnsServer() as dns, Hello() as plain:
        dns.a("pds.example.com", PUBLIC)
        asyncio.run(go(Internet(dns, plain, connect_seconds=0.5).client()))
        assert not plain.requests


def test_a_dns_that_is_silent_or_broken_is_told_from_a_name_that_is_not_there() -> None:
    async def go(dns: DnsServer) -> None:
        settings = developing(nameservers=dns.nameserver, dns_seconds=0.5, tries=1)
        counts = Counts()
        async with Outbound(settings, count=counts) as outbound:
            for name in ("silent.example.com", "broken.example.com"):
                with pytest.raises(OutboundError) as caught:
                    await outbound.txt(name)
                assert caught.value.kind is Kind.DNS
                assert caught.value.kind.passing
                with pytest.raises(OutboundError) as caught:
                    await outbound.get(f"https://{name}/", limit_bytes=9, seconds=5, kind="x")
                assert caught.value.kind is Kind.DNS
            assert await outbound.txt("nobody.example.com") == []
            assert await outbound.txt("only-a.example.com") == []
        assert counts == {("txt", "dns"): 2, ("x", "dns"): 2, ("txt", "ok"): 2}

    with DnsServer() as dns:
        dns.silent.add("silent.example.com")
        dns.broken.add("broken.example.com")
        dns.a("only-a.example.com", PUBLIC)
        asyncio.run(go(dns))


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, ".".join(["a"] * 200), "a..b", "_atproto." + "x" * 5000, "\ud800", "é" * 90],
)
def test_a_name_that_is_none_is_asked_of_nobody(name: str) -> None:
    async def go(dns: DnsServer) -> None:
        async with Outbound(developing(nameservers=dns.nameserver)) as outbound:
            with pytest.raises(OutboundError) as caught:
                await outbound.txt(name)
            assert caught.value.kind is Kind.REFUSED_URL
            assert str(caught.value).isprintable()

    with DnsServer() as dns:
        asyncio.run(go(dns))
        assert not dns.asked
