"""Opens connections: looks the name up, checks the addresses, connects to one that was checked.

The check and the connection use the same answer of the DNS, so that a second answer, which may be
another, is never asked for.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

import httpcore

from actors.outbound import target as targets
from actors.outbound.addresses import is_public
from actors.outbound.errors import Kind, OutboundError
from actors.outbound.metered import Metered
from actors.outbound.names import Names
from actors.outbound.pace import Pace
from config.settings import NetworkSettings
from engine.clock import Clock

_MOST_TRIED: Final = 4

Place = tuple[str, int]
"""An address or a host, and a port."""


class Dialer(httpcore.AsyncNetworkBackend):
    """What the HTTP library opens its connections with.

    Args:
        names: looks names up.
        trusted: hosts and ports that may have any address.
        routes: leads a connection elsewhere after its address was checked.
        clock: for the pace of connections to one address.
        sleep: waits for their turn.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        names: Names,
        *,
        trusted: Collection[Place],
        routes: Mapping[Place, Place],
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._names = names
        self._trusted = trusted
        self._routes = routes
        self._clock = clock
        self._pause = sleep
        self._paces: OrderedDict[str, Pace] = OrderedDict()
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the library's word; ours is a setting
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host. Raises OutboundError: see `places`, and CONNECT."""
        places = await self.places(host, port)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.connect_seconds
        failed: Exception | None = None
        for index, (address, at) in enumerate(places):
            # Each has an equal part of the time that is left.
            share = (end - loop.time()) / (len(places) - index)
            try:
                stream = await self._sockets.connect_tcp(
                    address, at, max(share, 0.001), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return Metered(stream, host)
        late = isinstance(failed, httpcore.ConnectTimeout)
        detail = "no answer to the attempt to connect" if late else f"cannot connect: {failed}"
        raise OutboundError(Kind.CONNECT, host, detail) from failed

    async def open(self, host: str, port: int) -> socket.socket:
        """A connected socket, not blocking. Raises OutboundError as `connect_tcp` does."""
        loop, failed = asyncio.get_running_loop(), OSError()
        places = await self.places(host, port)
        share = self._settings.connect_seconds / len(places)
        for address, at in places:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setblocking(False)
            try:
                async with asyncio.timeout(share):
                    await loop.sock_connect(made, (address, at))
            except OSError as error:
                made.close()
                failed = error
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise OutboundError(Kind.CONNECT, host, f"cannot connect: {failed}") from failed

    async def sleep(self, seconds: float) -> None:
        await self._pause(seconds)

    async def places(self, host: str, port: int) -> list[Place]:
        """The addresses that a host may be asked at, when its turn has come.

        Raises OutboundError: NO_SUCH_NAME, DNS, REFUSED_ADDRESS, BUSY.
        """
        anywhere = self._settings.allow_private_hosts or (host, port) in self._trusted
        found = await self._found(host, anywhere)
        await self._turn(host, found[0])
        return [self._routes.get((address, port), (address, port)) for address in found]

    async def _found(self, host: str, anywhere: bool) -> list[str]:
        if targets.is_address(host):
            candidates = [host]
            if anywhere or is_public(host):
                return candidates
            raise _refused(host, candidates)
        candidates = []
        for family in ("A", "AAAA"):
            addresses = await self._names.addresses(host, family)
            allowed = [address for address in addresses if anywhere or is_public(address)]
            if allowed:
                return allowed[:_MOST_TRIED]
            candidates += addresses
        if candidates:
            raise _refused(host, candidates)
        raise OutboundError(Kind.NO_SUCH_NAME, host, "the DNS knows no address of it")

    async def _turn(self, host: str, address: str) -> None:
        rate, now = self._settings.requests_per_second, self._clock.monotonic()
        pace = self._paces.setdefault(address, Pace())
        self._paces.move_to_end(address)
        if len(self._paces) > self._settings.hosts:
            self._paces.popitem(last=False)
        wait = pace.wait(now, rate)
        if wait > self._settings.connect_seconds:
            detail = f"too many connections to {address}, which others lead to as well"
            raise OutboundError(Kind.BUSY, host, detail, retry_after=wait)
        wait = pace.reserve(now, rate)
        if wait > 0:
            await self._pause(wait)


def _refused(host: str, addresses: list[str]) -> OutboundError:
    shown = ", ".join(addresses[:_MOST_TRIED])
    return OutboundError(Kind.REFUSED_ADDRESS, host, f"it leads to {shown}, which is not public")
