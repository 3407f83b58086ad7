"""What the outbound client gives when nobody misbehaves."""

import asyncio

import pytest

from actors.outbound import Kind, Outbound, OutboundError
from tests.servers.client import Counts, developing
from tests.servers.dns import DnsServer
from tests.servers.http import HttpServer, Reply, Request


class Echo(HttpServer):
    def answer(self, request: Request) -> Reply:
        if request.path == "/missing":
            return Reply(404, b"{}")
        if request.path == "/parts":
            return Reply(200, [b"one", b"two", b"three"])
        return Reply(200, request.method.encode() + request.path.encode() + request.body)


def test_get_gives_status_headers_and_body_and_counts_them() -> None:
    async def go(url: str) -> None:
        counts = Counts()
        async with Outbound(developing(), count=counts) as outbound:
            response = await outbound.get(f"{url}/a", limit_bytes=100, seconds=5, kind="plc")
            missing = await outbound.get(f"{url}/missing", limit_bytes=100, seconds=5, kind="plc")
        assert (response.status, response.body) == (200, b"GET/a")
        assert response.headers["content-type"] == "application/json"
        assert missing.status == 404
        assert counts == {("plc", "ok"): 1, ("plc", "http_4xx"): 1}

    with Echo() as server:
        asyncio.run(go(server.url))
        assert server.connections == 1
        assert server.requests[0].headers["accept-encoding"] == "identity"
        assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


def test_stream_gives_the_body_in_pieces_and_post_sends_one() -> None:
    async def go(url: str) -> None:
        async with Outbound(developing()) as outbound:
            async with outbound.stream(f"{url}/parts", limit_bytes=100, seconds=5) as answer:
                assert answer.status == 200
                assert b"".join([piece async for piece in answer]) == b"onetwothree"
            sent = await outbound.post(f"{url}/b", b"body", limit_bytes=100, seconds=5)
            assert sent.body == b"POST/bbody"

    with Echo() as server:
        asyncio.run(go(server.url))


def test_a_name_is_looked_up_at_the_servers_of_the_settings() -> None:
    async def go(port: int, dns: DnsServer) -> None:
        async with Outbound(developing(nameservers=dns.nameserver)) as outbound:
            url = f"http://pds.example.com:{port}/a"
            assert (await outbound.get(url, limit_bytes=100, seconds=5)).status == 200
            texts = await outbound.txt("_atproto.alice.example.com")
            assert sorted(texts) == ["did=did:plc:abc", "x" * 700]
            assert await outbound.txt("_atproto.nobody.example.com") == []
            with pytest.raises(OutboundError) as caught:
                await outbound.get("https://nobody.example.com/", limit_bytes=100, seconds=5)
            assert caught.value.kind is Kind.NO_SUCH_NAME

    with Echo() as server, DnsServer() as dns:
        dns.a("pds.example.com", "127.0.0.1")
        dns.txt("_atproto.alice.example.com", "did=did:plc:abc", "x" * 700)
        asyncio.run(go(server.port, dns))
        assert server.requests[0].headers["host"] == f"pds.example.com:{server.port}"


def test_a_dialled_socket_is_connected() -> None:
    async def go(url: str) -> None:
        async with Outbound(developing()) as outbound:
            with await outbound.dial(url.replace("http", "ws")) as dialled:
                assert dialled.getpeername()[0] == "127.0.0.1"

    with Echo() as server:
        asyncio.run(go(server.url))
