"""The one client with which anything is asked of the network.

Every request of it is bounded in where it may lead (`target`, `addresses`, `dialer`), in what may
come back (`answer`), and in how often and how long it bothers a host (`hosts`).
"""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, Self

import httpcore

from actors.outbound import target as targets
from actors.outbound.answer import Answer
from actors.outbound.counting import ABANDONED
from actors.outbound.dialer import Dialer
from actors.outbound.errors import Kind, OutboundError
from actors.outbound.exchange import Exchange
from actors.outbound.hosts import Hosts, Slot
from actors.outbound.names import Names
from actors.outbound.neighbours import Neighbours, Place
from actors.outbound.retry_after import asked_pause
from actors.outbound.target import Target
from config.settings import NetworkSettings
from engine.clock import Clock, SystemClock
from engine.restarts import Backoff

MAX_REDIRECTS: Final = 3

Count = Callable[[str, str], None]
"""Counts one request, by its kind and its outcome."""

_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_TOO_MANY_REQUESTS: Final = 429
_RETRY_PAUSES: Final = Backoff(0.5, 4.0)
# What is worth another try at once. What took its whole time, or was refused, is not.
_AGAIN: Final = frozenset((Kind.CONNECT, Kind.CLOSED, Kind.HTTP_STATUS, Kind.DNS))
# What a host has on its account: so many of these in a row open its breaker.
_FAILURES: Final = frozenset(
    (
        Kind.NO_SUCH_NAME,
        Kind.DNS,
        Kind.CONNECT,
        Kind.TLS,
        Kind.TIMEOUT,
        Kind.TOO_SLOW,
        Kind.BAD_ANSWER,
        Kind.CLOSED,
        Kind.HTTP_STATUS,
    )
)
# Of these its neighbours know nothing.
_OF_THE_NAME: Final = frozenset((Kind.NO_SUCH_NAME, Kind.DNS))


class Response(NamedTuple):
    """A whole answer; `headers` as in `Answer`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Ask:
    """A request on its way through redirects. `left` are the seconds it still has."""

    method: str
    headers: Mapping[str, str]
    body: bytes | None
    limit: int
    left: float


class Outbound:
    """The client; an async context manager, for one event loop.

    A status below 500 other than 429 is an answer; 429 and 500 and above are errors.

    Args:
        settings: the limits.
        trusted: URLs of the operator's own choice; their hosts and ports may have any address, and
            no TLS. The directory of the settings is always one of them.
        rates: requests a second of single hosts, in place of `network.requests_per_second`.
        count: counts every request, each try by itself.
        clock: for the rates, pauses and breakers; the limits of a single answer are in real time.
        sleep: waits by that clock.
        chance: for jitter.
        tls: what certificates are checked with; by default the system's authorities and Mozilla's.
        routes: address and port to address and port: leads a connection elsewhere after its address
            was checked. For tests.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        trusted: Iterable[str] = (),
        rates: Mapping[str, float] | None = None,
        count: Count | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
        routes: Mapping[Place, Place] | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._settings = settings
        self._trusted = {targets.parse(url).origin for url in (settings.plc_url, *trusted)}
        self._count = _count_nothing if count is None else count
        self._clock = clock
        self._sleep = sleep
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self.tls = tls or _default_tls()
        self._names = Names(settings, clock.monotonic)
        self._hosts = Hosts(settings, clock, sleep, self._chance, rates or {})
        self._neighbours = Neighbours(settings, clock.monotonic, self._chance)
        self._dialer = Dialer(
            settings,
            self._names,
            self._neighbours,
            trusted={(origin.host, origin.port) for origin in self._trusted},
            routes=routes or {},
            sleep=sleep,
        )
        self._exchange = Exchange(settings, self.tls, self._dialer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._exchange.close()

    @property
    def remembered(self) -> int:
        """How many hosts something is remembered of."""
        return len(self._hosts)

    async def get(
        self,
        url: str,
        *,
        limit_bytes: int,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        kind: str = "other",
        tries: int | None = None,
    ) -> Response:
        """Ask for something, and read the answer.

        Args:
            url: of the web, with TLS; see `target` for what else holds outside development.
            limit_bytes: the largest body wanted, decompressed.
            seconds: for each try, redirects included; waiting for its turn is not.
            headers: beside those that every request has. At another origin only `Accept` is kept.
            kind: what it is counted as.
            tries: in place of `network.tries`.

        Raises OutboundError; its kind says why, and `retry_after` when asking again may be of use.
        """
        most = self._settings.tries if tries is None else tries
        number = 1
        while True:
            try:
                async with self.stream(
                    url, limit_bytes=limit_bytes, seconds=seconds, headers=headers, kind=kind
                ) as answer:
                    return Response(answer.status, answer.headers, await answer.read())
            except OutboundError as error:
                pause = max(_RETRY_PAUSES.delay(number, self._chance), error.retry_after)
                if number >= most or error.kind not in _AGAIN or pause > _RETRY_PAUSES.maximum:
                    raise
            # The slot was given back, so others go on meanwhile.
            await self._sleep(pause)
            number += 1

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        limit_bytes: int,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        kind: str = "other",
    ) -> AsyncIterator[Answer]:
        """Ask for something, and give the answer while it comes; see `get`.

        One try only. The host's slot is held until the context ends.
        """
        with self._counted(kind) as outcome:
            ask = _Ask("GET", headers or {}, None, limit_bytes, seconds)
            async with self._followed(url, ask) as answer:
                outcome.answered(answer.status)
                yield answer

    async def post(
        self,
        url: str,
        body: bytes,
        *,
        limit_bytes: int,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        kind: str = "other",
    ) -> Response:
        """Send something, once, and read the answer; redirects are not followed. See `get`."""
        with self._counted(kind) as outcome:
            target = self._checked(targets.parse(url))
            ask = _Ask("POST", headers or {}, body, limit_bytes, seconds)
            async with self._asked(target, ask) as answer:
                outcome.answered(answer.status)
                return Response(answer.status, answer.headers, await answer.read())

    async def txt(self, name: str, *, kind: str = "txt") -> list[str]:
        """The texts at a name of the DNS; none where it has none.

        Raises OutboundError: DNS where the DNS does not answer, REFUSED_URL for what is no name.
        """
        with self._counted(kind):
            return await self._names.txt(name)

    async def dial(self, url: str, *, kind: str = "other") -> socket.socket:
        """A connected socket to the host of a URL, for what speaks websocket by itself.

        Without TLS yet: who speaks does that with `tls`. Raises OutboundError as `get` does.
        """
        with self._counted(kind):
            target = self._checked(targets.parse(url))
            async with self._hosts.turn(target.host) as slot:
                try:
                    connected = await self._dialer.open(target.host, target.port)
                except OutboundError as error:
                    slot.bad = error.kind in _FAILURES
                    raise
                slot.good = True
                self._neighbours.judge(target.host, True)
                return connected

    @contextmanager
    def _counted(self, kind: str) -> Iterator["_Outcome"]:
        outcome = _Outcome()
        try:
            yield outcome
        except OutboundError as error:
            outcome.text = str(error.kind)
            raise
        except BaseException:
            outcome.text = ABANDONED
            raise
        finally:
            self._count(kind, outcome.text)

    def _checked(self, target: Target) -> Target:
        if not self._settings.allow_private_hosts and target.origin not in self._trusted:
            targets.check(target)
        return target

    @asynccontextmanager
    async def _followed(self, url: str, ask: _Ask) -> AsyncIterator[Answer]:
        target = self._checked(targets.parse(url))
        first = target.origin
        for _ in range(MAX_REDIRECTS + 1):
            async with self._asked(target, ask) as answer:
                location = answer.headers.get("location", "")
                if answer.status not in _REDIRECTS or not location:
                    yield answer
                    return
            target = self._checked(targets.follow(target, location))
            if target.origin != first:
                ask.headers = {
                    name: text for name, text in ask.headers.items() if name.lower() == "accept"
                }
        detail = f"more than {MAX_REDIRECTS} redirects"
        raise OutboundError(Kind.TOO_MANY_REDIRECTS, target.host, detail)

    @asynccontextmanager
    async def _asked(self, target: Target, ask: _Ask) -> AsyncIterator[Answer]:
        """One request, in its turn; the host's account is kept."""
        settings, loop = self._settings, asyncio.get_running_loop()
        async with self._hosts.turn(target.host) as slot:
            deadline, failed = loop.time() + ask.left, False
            try:
                async with self._exchange.head(
                    target,
                    ask.method,
                    ask.headers,
                    ask.body,
                    limit=ask.limit,
                    seconds=ask.left,
                ) as response:
                    answer = Answer(
                        target.host,
                        response,
                        limit=ask.limit,
                        deadline=deadline,
                        floor_bytes=settings.floor_bytes,
                        floor_seconds=settings.floor_seconds,
                    )
                    self._judge(target, answer, slot)
                    yield answer
            except OutboundError as error:
                # What is raised within the context may be about another host.
                if error.host == target.host:
                    slot.good = False
                    slot.bad = error.kind in _FAILURES and error.status != _TOO_MANY_REQUESTS
                    failed = error.kind in _FAILURES - _OF_THE_NAME
                raise
            finally:
                self._neighbours.judge(target.host, slot.good or (False if failed else None))
                ask.left = deadline - loop.time()

    def _judge(self, target: Target, answer: Answer, slot: Slot) -> None:
        """Tell what the head says of the host. Raises OutboundError(HTTP_STATUS)."""
        slot.pause = asked_pause(
            answer.status,
            answer.headers,
            self._clock.now(),
            self._settings.retry_after_max_seconds,
        )
        # Who refuses and names no time is asked less and less, too.
        slot.asked_for_pause = slot.pause > 0 or answer.status == _TOO_MANY_REQUESTS
        slot.good = True
        if answer.status == _TOO_MANY_REQUESTS or answer.status >= 500:
            raise OutboundError(
                Kind.HTTP_STATUS,
                target.host,
                f"it answered with HTTP {answer.status}",
                status=answer.status,
                retry_after=slot.pause,
            )


class _Outcome:
    """How a request went, to be counted."""

    def __init__(self) -> None:
        self.text = "ok"

    def answered(self, status: int) -> None:
        self.text = "ok" if status < 300 else f"http_{status // 100}xx"


@cache
def _default_tls() -> ssl.SSLContext:
    """The system's authorities and Mozilla's; reading them takes a while."""
    return httpcore.default_ssl_context()


def _count_nothing(_kind: str, _outcome: str) -> None:
    """Count nothing."""
