"""Keeps one upstream connected: starts a connection, and another after each that ended.

One connection at a time, in the I/O thread. What it delivers reaches the actor through the I/O
thread's queue, in order, so when an ending is handled everything before it has been, and the next
connection goes on from exactly there. A connection that is given up still delivers its ending;
what comes before that is thrown away.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from actors.reader import Place, Reading, StreamItem
from actors.upstream import End, Ending, Upstream
from engine.restarts import Backoff

_log = logging.getLogger(__name__)

TRIES: Final = 3
"""What breaks a connection this many times in a row is stepped over."""


Work = Callable[[Callable[[StreamItem], Awaitable[None]]], Coroutine[Any, Any, None]]


class Session(Protocol):
    """A connection under way in the I/O thread."""

    def cancel(self) -> None:
        """End it; its ending is still delivered."""


class Connector:
    """The one connection to an upstream.

    Args:
        name: what the upstream is called in the log.
        upstream: what is connected to.
        submit: runs a coroutine in the I/O thread, and gives it what delivers into the queue.
        after: calls something back in the actor's loop after some seconds.
        now: tells the time in seconds; only differences count.
        place: says where the next connection goes on.
        backoff: the pauses between connections.
        lasting: seconds after which a connection was a good one, also if nothing came on it: what
            ends it then is no failure in a row with those before.
        chance: for their jitter.
    """

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        *,
        submit: Callable[[Work], Session],
        after: Callable[[float, Callable[[], None]], object],
        now: Callable[[], float],
        place: Callable[[], Place],
        backoff: Backoff,
        lasting: float,
        chance: random.Random,
    ) -> None:
        self._name = name
        self._upstream = upstream
        self._submit = submit
        self._after = after
        self._now = now
        self._place = place
        self._backoff = backoff
        self._lasting = lasting
        self._chance = chance
        self._session: Session | None = None
        self._opened_at: float | None = None
        self._stopped = False
        self._failures = 0
        self._stuck = 0
        self.discarding = False
        self.open = False
        self.connections = 0

    def connect(self) -> None:
        """Start a connection, unless there is one, or this was stopped."""
        if self._stopped or self._session is not None:
            return
        place = self._place()
        if place.cursor is not None and self._stuck >= TRIES:
            # What cannot be received has no number that we know, so each try asks for one more.
            place = Place(place.cursor + self.stepped, place.moment)
        self.discarding = False
        self._opened_at = None
        self._session = self._submit(Reading(self._upstream, place).run)

    def progressed(self) -> None:
        """Something new came: the next failure is the first one again."""
        self._failures = self._stuck = 0

    def drop(self, why: str) -> None:
        """Give up the connection; another follows from where `place` then says."""
        if self._session is None or self.discarding:
            return
        _log.warning("giving up the connection to %s: %s", self._name, why)
        self.open = False
        self.discarding = True
        self._session.cancel()

    def stop(self) -> None:
        """No connection from here on; what is still delivered is to be thrown away."""
        self._stopped = True
        self.open = False
        self.discarding = True
        if self._session is not None:
            self._session.cancel()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    @property
    def stepped(self) -> int:
        """How many events at most this connection leaves out, as they cannot be received."""
        return max(0, self._stuck - TRIES + 1)

    def opened(self) -> None:
        """Handle `Opened`."""
        self.open = True
        self._opened_at = self._now()
        self.connections += 1
        log = _log.info if self._failures or self.connections == 1 else _log.debug
        log("connected to %s", self._name)

    def ended(self, ending: Ending) -> bool:
        """Handle `Ending`; unless it is the last one, another connection follows.

        Returns True when that one will step over what broke this one and those before it.
        """
        was_open, self.open = self.open, False
        self._session = None
        if self._stopped or ending.end is End.EXHAUSTED:
            return False
        opened_at = self._opened_at
        if opened_at is not None and self._now() - opened_at >= self._lasting:
            self._failures = 0
        self._failures += 1
        # A line that breaks the protocol says nothing about what would have come on it.
        if ending.end is End.UNRECEIVABLE:
            self._stuck += 1
            if self._stuck == TRIES:
                _log.error(
                    "%s sends what cannot be received, %d times in a row: stepping over it",
                    self._name,
                    TRIES,
                )
        delay = max(self._backoff.delay(self._failures, self._chance), ending.retry_after)
        if ending.end is not End.DROPPED:
            _log.warning(
                "%s %s: %s; trying again in %.1f s",
                "lost the connection to" if was_open else "cannot reach",
                self._name,
                ending.reason,
                delay,
            )
        self._after(delay, self.connect)
        return ending.end is End.UNRECEIVABLE and self._stuck == TRIES
