"""A network in memory: names, addresses, and connections that speak real HTTP."""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdataclass
import dns.resolver
import dns.rrset
import httpcore
import pytest

from tests.servers.http import HttpServer, Request
from tests.virtual.hosts import LATENCY, Host, Now

_DNS_SECONDS = 5.0


class Internet:
    """Hosts by address, and the records of the name system.

    `silent` tells whether the name system answers at a moment.
    """

    def __init__(self, now: Now, wall: Now) -> None:
        self._now = now
        self._wall = wall
        self.hosts: dict[str, Host] = {}
        self.records: dict[tuple[str, str], list[str]] = {}
        self.silent: Callable[[float], bool] = lambda _now: False
        self.looked_up: Counter[str] = Counter()
        self.clients: Counter[str] = Counter()

    def host(self, server: HttpServer, *names: str) -> Host:
        """A new host, at an address of its own."""
        number = len(self.hosts)
        address = f"60.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        made = self.hosts[address] = Host(address, server, self._now, self._wall)
        self.name(address, names)
        return made

    def name(self, address: str, names: Iterable[str]) -> None:
        """Have names lead to an address."""
        for name in names:
            self.records[name, "A"] = [address]

    def txt(self, name: str, text: str) -> None:
        """The text of a name."""
        self.records[name, "TXT"] = [f'"{text}"']

    async def resolve(self, name: dns.name.Name, kind: str, **_more: Any) -> "_Found":
        """What a client of the name system gets."""
        self.looked_up[kind] += 1
        await asyncio.sleep(LATENCY)
        if self.silent(self._now()):
            await asyncio.sleep(_DNS_SECONDS)
            raise dns.exception.Timeout
        text = name.to_text(omit_final_dot=True)
        found = self.records.get((text, kind))
        if found is not None:
            return _Found(dns.rrset.from_text_list(name, 300, dns.rdataclass.IN, kind, found))
        if any((text, other) in self.records for other in ("A", "TXT")):
            return _Found(None)
        raise dns.resolver.NXDOMAIN

    def backend(self) -> "Backend":
        """What one client opens its connections with; it is called after its actor and a number."""
        name = threading.current_thread().name.partition(".")[0]
        self.clients[name] += 1
        return Backend(self.hosts, f"{name}/{self.clients[name]}")

    def take_over(self, patch: pytest.MonkeyPatch) -> None:
        """Have all clients that are made from here on see this network alone."""
        patch.setattr(httpcore, "AnyIOBackend", self.backend)
        # By this it knows which connections have been idle for too long.
        patch.setattr("httpcore._async.http11.time", SimpleNamespace(monotonic=self._now))
        patch.setattr(dns.asyncresolver, "Resolver", lambda **_more: _Stub(self))


class _Found:
    def __init__(self, rrset: dns.rrset.RRset | None) -> None:
        self.rrset = rrset


class _Stub:
    """The part of dnspython's client that is used."""

    lifetime = timeout = 0.0

    def __init__(self, internet: Internet) -> None:
        self.resolve = internet.resolve


class Backend(httpcore.AsyncNetworkBackend):
    """Connections of one client."""

    def __init__(self, hosts: dict[str, Host], client: str) -> None:
        self._hosts = hosts
        self._client = client

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        there = self._hosts[host]
        there.connected.append((there.now(), self._client))
        try:
            async with asyncio.timeout(timeout):
                await there.behaviour(there.now()).connect()
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        return Line(there, self._client)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Line(httpcore.AsyncNetworkStream):
    """One connection, from the client's side."""

    def __init__(self, host: Host, client: str) -> None:
        self._host = host
        self._client = client
        self._sent = b""
        self._coming: AsyncIterator[bytes] | None = None
        self._left = b""

    @property
    def _reset(self) -> bool:
        return self._host.behaviour(self._host.now()).resets

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._reset:
            raise httpcore.WriteError("connection reset")
        self._sent += buffer
        head, end, _ = self._sent.partition(b"\r\n\r\n")
        if end:
            self._sent = b""
            self._coming = self._host.answer(self._client, _request(head.decode()))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._left:
            assert self._coming is not None, "nothing was asked"
            self._left = await anext(self._coming, b"")
        piece, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return piece

    async def aclose(self) -> None:
        self._coming = None

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        await asyncio.sleep(LATENCY)
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._reset if info == "is_readable" else None


def _request(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): text.strip() for name, _, text in fields}
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, b"")
