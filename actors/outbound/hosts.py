"""What is known of each host, and the turns that requests take.

A request takes a slot of its host, its turn in the host's rate, and a slot among all. A host that
asked to be left alone, or that failed several times in a row, is not asked at all; when that is
over, one request finds out for the others. What is remembered is bounded: the hosts that were asked
least recently are forgotten.
"""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from actors.outbound.breaker import Breaker
from actors.outbound.errors import Kind, OutboundError
from actors.outbound.pace import Pace
from actors.outbound.pause import Pause
from config.settings import NetworkSettings
from engine.clock import Clock
from engine.restarts import Backoff

# Of so many least recently asked hosts, one that is well is forgotten first.
_LOOK: Final = 16
# Requests that wait for one host; more are refused at once.
_MOST_WAITING: Final = 1000


class _Host:
    __slots__ = ("active", "breaker", "pace", "pause", "waiting")

    def __init__(self) -> None:
        self.active = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.pace = Pace()
        self.pause = Pause()
        self.breaker = Breaker()

    @property
    def busy(self) -> bool:
        return self.active > 0 or bool(self.waiting)

    def well(self, now: float) -> bool:
        return self.breaker.clean and self.pause.clean and self.pace.idle(now)


class Slot:
    """The turn of one request. Who has it says how it went; saying nothing says nothing."""

    __slots__ = ("asked_for_pause", "bad", "good", "pause")

    def __init__(self) -> None:
        self.good = False
        self.bad = False
        self.asked_for_pause = False
        self.pause = 0.0


class Hosts:
    """The turns of all requests of a client."""

    def __init__(
        self,
        settings: NetworkSettings,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        chance: random.Random,
        rates: Mapping[str, float],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._rates = rates
        self._backoff = Backoff(settings.breaker_min_seconds, settings.breaker_max_seconds)
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._all = asyncio.Semaphore(settings.connections)

    def __len__(self) -> int:
        return len(self._hosts)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[Slot]:
        """Wait for the turn of a request to a host, and hold its slots.

        Raises OutboundError: PAUSED and BREAKER_OPEN with the seconds that are left, BUSY when the
        turn would not come within `network.queue_seconds`.
        """
        host = self._host(name)
        self._refuse(name, host)
        await self._enter(name, host)
        slot = Slot()
        try:
            await self._pace(name, host)
            async with self._among_all(name):
                # Others may have found out while this one waited.
                self._refuse(name, host)
                tries = host.breaker.admit(), host.pause.admit()
                try:
                    yield slot
                finally:
                    self._learn(host, slot, *tries)
        finally:
            self._leave(host)

    def _refuse(self, name: str, host: _Host) -> None:
        now = self._clock.monotonic()
        left = host.pause.left(now)
        if left > 0:
            raise OutboundError(
                Kind.PAUSED, name, f"it asked to be left alone for {left:.0f} s", retry_after=left
            )
        left = host.breaker.closed_for(now)
        if left > 0:
            raise OutboundError(
                Kind.BREAKER_OPEN,
                name,
                f"it failed several times and is left alone for {left:.0f} s",
                retry_after=left,
            )

    async def _enter(self, name: str, host: _Host) -> None:
        if host.active < self._settings.connections_per_host:
            host.active += 1
            return
        if len(host.waiting) >= _MOST_WAITING:
            raise self._busy(name)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        host.waiting.append(turn)
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                # Who leaves hands its slot over, so `active` stays.
                await turn
        except TimeoutError:
            self._withdraw(host, turn)
            raise self._busy(name) from None
        except BaseException:
            self._withdraw(host, turn)
            raise

    def _withdraw(self, host: _Host, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self._leave(host)
        elif turn in host.waiting:
            host.waiting.remove(turn)

    def _leave(self, host: _Host) -> None:
        while host.waiting:
            turn = host.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        host.active -= 1

    async def _pace(self, name: str, host: _Host) -> None:
        rate = self._rates.get(name, self._settings.requests_per_second)
        now = self._clock.monotonic()
        if host.pace.wait(now, rate) > self._settings.queue_seconds:
            raise self._busy(name)
        wait = host.pace.reserve(now, rate)
        if wait > 0:
            await self._sleep(wait)

    @asynccontextmanager
    async def _among_all(self, name: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.queue_seconds):
                await self._all.acquire()
        except TimeoutError:
            raise self._busy(name) from None
        try:
            yield
        finally:
            self._all.release()

    def _learn(self, host: _Host, slot: Slot, probe: bool, tries: bool) -> None:
        now = self._clock.monotonic()
        if slot.asked_for_pause:
            host.pause.asked(now, slot.pause, self._backoff, self._chance)
        elif slot.good:
            host.pause.answered()
        elif tries:
            host.pause.abandon()
        if slot.good:
            host.breaker.good()
        elif slot.bad:
            most = self._settings.breaker_failures
            host.breaker.bad(now, probe, most, self._backoff, self._chance)
        elif probe:
            host.breaker.abandon()

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._settings.hosts:
                self._forget()
            host = self._hosts[name] = _Host()
        self._hosts.move_to_end(name)
        return host

    def _forget(self) -> None:
        """Forget a host that is not asked just now, rather one that is well."""
        now, idle = self._clock.monotonic(), []
        for name, host in self._hosts.items():
            if host.busy:
                continue
            idle.append(name)
            if len(idle) >= _LOOK or host.well(now):
                break
        if idle:
            del self._hosts[idle[-1] if self._hosts[idle[-1]].well(now) else idle[0]]

    def _busy(self, name: str) -> OutboundError:
        return OutboundError(
            Kind.BUSY,
            name,
            f"too many requests wait for their turn ({self._settings.queue_seconds:g} s,"
            " network.queue_seconds)",
            retry_after=1.0,
        )
