"""Opens connections: looks the name up, checks the addresses, connects to one that was checked.

The check and the connection use the same answer of the DNS, so that a second answer, which may be
another, is never asked for.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import httpcore

from actors.outbound import target as targets
from actors.outbound.addresses import is_public
from actors.outbound.errors import Kind, OutboundError
from actors.outbound.metered import Metered
from actors.outbound.names import Names
from actors.outbound.neighbours import Neighbours, Place
from config.settings import NetworkSettings

_MOST_TRIED: Final = 4


class Dialer(httpcore.AsyncNetworkBackend):
    """What the HTTP library opens its connections with.

    Args:
        names: looks names up.
        neighbours: what is known of addresses.
        trusted: hosts and ports that may have any address.
        routes: leads a connection elsewhere after its address was checked.
        sleep: waits for the turn of an address.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        names: Names,
        neighbours: Neighbours,
        *,
        trusted: Collection[Place],
        routes: Mapping[Place, Place],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._names = names
        self._trusted = trusted
        self._routes = routes
        self._neighbours = neighbours
        self._pause = sleep
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
        for index, place in enumerate(places):
            # Each has an equal part of the time that is left.
            share = (end - loop.time()) / (len(places) - index)
            address, at = self._routes.get(place, place)
            try:
                with self._attempt(host, place):
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
        for place in places:
            address, at = self._routes.get(place, place)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setblocking(False)
            try:
                with self._attempt(host, place):
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
        """Where a host may be asked, when its turn has come.

        Raises OutboundError: NO_SUCH_NAME, DNS, REFUSED_ADDRESS, NEIGHBOURS, BUSY.
        """
        anywhere = self._settings.allow_private_hosts or (host, port) in self._trusted
        found = [(address, port) for address in await self._found(host, anywhere)]
        places = self._open(host, found)
        await self._turn(host, places[0][0])
        # Others may have found out while this one waited.
        return self._open(host, places)

    def _open(self, host: str, places: list[Place]) -> list[Place]:
        """Those that are not left alone."""
        left = {place: self._neighbours.closed_for(host, place) for place in places}
        found = [place for place in places if left[place] <= 0]
        if not found:
            least = min(left.values())
            detail = f"others there failed several times, and are left alone for {least:.0f} s"
            raise OutboundError(Kind.NEIGHBOURS, host, detail, retry_after=least)
        return found

    @contextmanager
    def _attempt(self, host: str, place: Place) -> Iterator[None]:
        """Tell the neighbours what comes of a connection."""
        attempt, good = self._neighbours.begin(host, place), None
        try:
            yield
            good = True
        except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError):
            good = False
            raise
        finally:
            self._neighbours.connected(attempt, good)

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
        wait = self._neighbours.wait(address)
        if wait > self._settings.connect_seconds:
            detail = f"too many connections to {address}, which others lead to as well"
            raise OutboundError(Kind.BUSY, host, detail, retry_after=wait)
        wait = self._neighbours.reserve(address)
        if wait > 0:
            await self._pause(wait)


def _refused(host: str, addresses: list[str]) -> OutboundError:
    shown = ", ".join(addresses[:_MOST_TRIED])
    return OutboundError(Kind.REFUSED_ADDRESS, host, f"it leads to {shown}, which is not public")
