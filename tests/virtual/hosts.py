"""Hosts of a network in memory, and what may be wrong with them."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from types import MappingProxyType
from typing import NamedTuple

import httpcore

from tests.servers.http import HttpServer, Reply, Request, encode

Now = Callable[[], float]
LATENCY = 0.05
_NEVER = 1e9


class Asked(NamedTuple):
    """One request as its host saw it.

    `at` in seconds of the monotonic clock; `wait` are those for which the answer asked for a pause.
    """

    at: float
    client: str
    name: str
    path: str
    status: int
    wait: float


class Head(NamedTuple):
    """How an answer begins; status 0: there is none. `wait`: seconds that its headers ask for."""

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    wait: float = 0.0


class Behaviour:
    """That of a host that is well; what differs is in the classes below."""

    resets = False
    """Whether connections that are open end."""

    async def connect(self) -> None:
        """Let a connection be made. Raises what the client's system would."""
        await asyncio.sleep(LATENCY)

    def head(self, host: "Host", request: Request) -> Head:
        """How the answer to a request begins; 200: it is the right one."""
        return Head()

    async def send(self, parts: list[bytes]) -> AsyncIterator[bytes]:
        """The bytes of an answer as they come."""
        await asyncio.sleep(LATENCY)
        for part in parts:
            yield part


class Refuses(Behaviour):
    """Nothing listens."""

    resets = True

    async def connect(self) -> None:
        await asyncio.sleep(LATENCY)
        raise httpcore.ConnectError("connection refused")


class BlackHole(Behaviour):
    """Takes connections and never answers."""

    def head(self, host: "Host", request: Request) -> Head:
        return Head(0)

    async def send(self, parts: list[bytes]) -> AsyncIterator[bytes]:
        await asyncio.sleep(_NEVER)
        yield b""


class Unreachable(BlackHole):
    """Whatever is sent to it is lost."""

    async def connect(self) -> None:
        await asyncio.sleep(_NEVER)


@dataclass
class Says(Behaviour):
    """Has one answer to everything, or (`every`) to each so manieth request.

    `wait` is what a Retry-After among the headers means.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    every: int = 1

    def head(self, host: "Host", request: Request) -> Head:
        if len(host.asked) % self.every:
            return Head()
        return Head(self.status, self.headers, self.wait)


@dataclass
class Trickles(Behaviour):
    """Sends so many bytes a second."""

    rate: float

    async def send(self, parts: list[bytes]) -> AsyncIterator[bytes]:
        await asyncio.sleep(LATENCY)
        head, *body = parts
        yield head
        whole = b"".join(body)
        # Each second's bytes at its end.
        step = max(1, round(self.rate))
        for at in range(0, len(whole), step):
            await asyncio.sleep(step / self.rate)
            yield whole[at : at + step]


@dataclass
class Limits(Behaviour):
    """Answers so many requests in each period, and 429 to the rest, with the time that is left."""

    most: int
    period: float
    dates: bool = False

    def head(self, host: "Host", request: Request) -> Head:
        now = host.now()
        begin = now - now % self.period
        fine = sum(1 for each in host.asked if each.at >= begin and each.status == 200)
        if fine < self.most:
            return Head()
        left = math.ceil(begin + self.period - now)
        text = formatdate(host.wall() + left, usegmt=True) if self.dates else str(left)
        # A date has whole seconds.
        return Head(429, {"Retry-After": text}, left - 1.0 if self.dates else left)


WELL = Behaviour()


@dataclass(eq=False)
class Host:
    """One address, with all names that lead to it.

    `behaviour` tells how it is at a moment. `asked` and `connected` hold what came, in order.
    """

    address: str
    server: HttpServer
    now: Now
    wall: Now
    behaviour: Callable[[float], Behaviour] = field(default=lambda _now: WELL)
    asked: list[Asked] = field(default_factory=list)
    connected: list[tuple[float, str]] = field(default_factory=list)

    def is_always(self, behaviour: Behaviour) -> "Host":
        """Set how it is."""
        self.behaviour = lambda _now: behaviour
        return self

    def answer(self, client: str, request: Request) -> AsyncIterator[bytes]:
        """Take a request, and give what is sent back."""
        now = self.now()
        behaviour = self.behaviour(now)
        head = behaviour.head(self, request)
        self.asked.append(Asked(now, client, request.host, request.path, head.status, head.wait))
        reply = self.server.answer(request) if head.status == 200 else Reply(head.status, b"{}")
        fields = {"Content-Type": reply.type, **reply.headers, **head.headers}
        return behaviour.send(list(encode(reply.status, reply.body, fields)))
