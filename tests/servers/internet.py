"""Production's rules on loopback: public names and addresses, whose connections are led here."""

import asyncio
from typing import Any

from actors.outbound import Kind, Outbound, OutboundError
from tests.servers.certificates import authority
from tests.servers.client import Counts, network
from tests.servers.dns import DnsServer
from tests.servers.http import HttpServer, Reply, Request

PUBLIC = "93.184.216.34"
OTHER = "93.184.216.35"
PUBLIC_6 = "2606:4700::1"


class Hello(HttpServer):
    """Greets with the name it was asked by."""

    def answer(self, request: Request) -> Reply:
        return Reply(200, b"hello from " + request.host.encode(), "text/plain")


class Internet:
    """A client that finds a server at the public addresses above, at the port of TLS."""

    def __init__(self, dns: DnsServer, server: HttpServer, **changes: Any) -> None:
        self.settings = network(nameservers=dns.nameserver, **{"tries": 1, **changes})
        here = ("127.0.0.1", server.port)
        self.routes = {(address, 443): here for address in (PUBLIC, OTHER, PUBLIC_6)}
        self.counts = Counts()

    def client(self, **more: Any) -> Outbound:
        """The client, for who wants more of it."""
        trust = authority().trust()
        return Outbound(self.settings, tls=trust, routes=self.routes, count=self.counts, **more)

    def get(self, url: str, **more: Any) -> bytes | OutboundError:
        """The body of what a URL gives, or its error."""
        return self.get_all(url, **more)[0]

    def get_all(self, *urls: str, **more: Any) -> list[bytes | OutboundError]:
        """The same for several, one after the other, in one client."""

        async def go() -> list[bytes | OutboundError]:
            given: list[bytes | OutboundError] = []
            async with self.client() as outbound:
                for url in urls:
                    asked = {"limit_bytes": 1000, "seconds": 5.0, "kind": "x", **more}
                    try:
                        given.append((await outbound.get(url, **asked)).body)
                    except OutboundError as error:
                        given.append(error)
            return given

        return asyncio.run(go())


def hello() -> Hello:
    """A server with a certificate for two names."""
    return Hello(authority().server("pds.example.com", "other.example.com"))


def refused(given: bytes | OutboundError, kind: Kind) -> OutboundError:
    """The error that was given, which must be of this kind."""
    assert isinstance(given, OutboundError), given
    assert given.kind is kind, given
    return given
