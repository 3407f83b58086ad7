"""Looks names up in the DNS."""

import asyncio
import re
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
import dns.rrset
from dns.rdtypes.txtbase import TXTBase

from actors.outbound.errors import Kind, OutboundError
from actors.outbound.target import MAX_HOST
from config.nameservers import parse_nameservers
from config.settings import NetworkSettings

# How long addresses are remembered, whatever their owner says: a burst of requests is one lookup.
_LEAST_SECONDS: Final = 5.0
_MOST_SECONDS: Final = 60.0
# The system's servers may change: on another network, or at another time of its DHCP.
_SYSTEM_SECONDS: Final = 60.0
_LOOKUPS: Final = 50
# Labels that start with a low line are no host names, and where handles have their records.
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII | re.IGNORECASE)


class Names:
    """A client of the DNS, with a small bounded memory for addresses.

    Args:
        settings: for the servers, the time of a lookup, and the bound of the memory.
        now: tells the time in seconds; only differences count.
    """

    def __init__(self, settings: NetworkSettings, now: Callable[[], float]) -> None:
        self._servers = parse_nameservers(settings.nameservers)
        self._seconds = settings.dns_seconds
        self._development = settings.allow_private_hosts
        self._most = settings.hosts
        self._now = now
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._made_at = 0.0
        self._known: OrderedDict[tuple[str, str], tuple[float, list[str]]] = OrderedDict()
        self._lookups = asyncio.Semaphore(_LOOKUPS)

    def __len__(self) -> int:
        return len(self._known)

    async def addresses(self, host: str, family: str) -> list[str]:
        """The addresses of a host of one family, `A` or `AAAA`; none where it has none.

        Raises OutboundError(DNS) where the DNS does not answer.
        """
        if host == "localhost" or host.endswith(".localhost"):
            return ["127.0.0.1"] if family == "A" else ["::1"]
        key = host, family
        known = self._known.get(key)
        if known is not None and known[0] > self._now():
            self._known.move_to_end(key)
            return known[1]
        records = await self._ask(host, family)
        found = [] if records is None else [str(record) for record in records]
        if not found and self._development and not self._servers:
            found = await _of_the_system(host, family)
        life = min(0 if records is None else records.ttl, _MOST_SECONDS)
        self._known[key] = (self._now() + max(life, _LEAST_SECONDS), found)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found

    async def txt(self, name: str) -> list[str]:
        """The texts at a name; none where there are none, and without those that are not UTF-8.

        Nothing is remembered. Raises OutboundError(DNS) where the DNS does not answer.
        """
        texts = []
        for record in await self._ask(name, "TXT") or ():
            assert isinstance(record, TXTBase)
            try:
                texts.append(b"".join(record.strings).decode())
            except UnicodeDecodeError:
                continue
        return texts

    async def _ask(self, name: str, kind: str) -> dns.rrset.RRset | None:
        """The records of a kind; None where the DNS says that there are none."""
        if len(name) > MAX_HOST or not _NAME.fullmatch(name):
            raise OutboundError(Kind.REFUSED_URL, "", f"{name[:80]!a} is no name")
        absolute = dns.name.from_text(name)
        try:
            async with self._lookups:
                answer = await self._servers_now().resolve(
                    absolute, kind, raise_on_no_answer=False, search=False
                )
        except dns.resolver.NXDOMAIN:
            return None
        except (dns.exception.DNSException, OSError) as error:
            detail = f"the DNS does not answer for {name}: {_short(error)}"
            raise OutboundError(Kind.DNS, name, detail) from None
        return answer.rrset

    def _servers_now(self) -> dns.asyncresolver.Resolver:
        now = self._now()
        stale = not self._servers and now - self._made_at > _SYSTEM_SECONDS
        if self._resolver is None or stale:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(address, port) for address, port in self._servers
                ]
            resolver.lifetime = self._seconds
            # Leaves time to ask again: a datagram may be lost.
            resolver.timeout = self._seconds / 2.5
            self._resolver, self._made_at = resolver, now
        return self._resolver


async def _of_the_system(host: str, family: str) -> list[str]:
    """What the system knows of a name, as by its file of hosts."""
    wanted = socket.AF_INET if family == "A" else socket.AF_INET6
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, family=wanted, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(entry[4][0]) for entry in found]


def _short(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."
