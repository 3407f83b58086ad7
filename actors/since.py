"""Where in a relay's numbering a moment lies: the start of `--since`, found by bisection.

A relay can only be asked for what follows a cursor, and tells the time of an event with the event.
So each question is a connection that is closed at its first event: some thirty for a relay
that holds days, instead of reading all that lies before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from actors.atproto import datetimes
from actors.atproto.errors import WireError
from actors.atproto.peek import peek
from actors.upstream import End, Ending, Item, Opened, Upstream

NEAR_ENOUGH: Final = 1000
"""Events that may be read in vain from the cursor found."""

FIRST_SPAN: Final = NEAR_ENOUGH
SPAN_GROWTH: Final = 4


class Event(NamedTuple):
    """The position and Unix time of one event."""

    seq: int
    time: float


class Unreachable(Exception):
    """A question could not be asked; `ending` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


Probe = Callable[[int], Awaitable[Event | None]]
"""Asks for the first event after a cursor; None where there is none (yet)."""


async def cursor_at(moment: float, probe: Probe) -> int:
    """Return a cursor that lies before every event from `moment` on, and not far before.

    0, the oldest, where all that the source holds is younger. Times in a stream are only nearly in
    order, as each account's server has its own clock; it is a start, not a boundary.
    """
    oldest = await probe(0)
    if oldest is None or oldest.time >= moment:
        return 0
    low, span = oldest.seq, FIRST_SPAN
    while True:
        high = low + span
        event = await probe(high)
        if _at_or_after(event, high, moment):
            break
        low, span = high, span * SPAN_GROWTH
    while high - low > NEAR_ENOUGH:
        middle = (low + high) // 2
        if _at_or_after(await probe(middle), middle, moment):
            high = middle
        else:
            low = middle
    return low


def _at_or_after(event: Event | None, cursor: int, moment: float) -> bool:
    """Whether what follows the cursor is not older than the moment, or nothing follows it.

    A relay that is asked for what it has not numbered yet may go on from now: with a lower number.
    """
    return event is None or event.seq < cursor or event.time >= moment


class _Found(Exception):
    def __init__(self, event: Event | None) -> None:
        super().__init__()
        self.event = event


async def first_event(
    upstream: Upstream, cursor: int, *, patience: float, silence: float
) -> Event | None:
    """Ask an upstream for its first event after a cursor; None when it stays silent.

    Args:
        patience: seconds for all until the connection is open.
        silence: seconds on the open connection. What is held is sent at once, so a short time does.

    Raises Unreachable when there is no connection, or it ends before anything else is known.
    """

    opened = False

    async def deliver(item: Item) -> None:
        nonlocal opened
        if isinstance(item, Opened):
            opened = True
            limit.reschedule(asyncio.get_running_loop().time() + silence)
        elif isinstance(item, bytes):
            event = _event(item)
            if event is not None:
                raise _Found(event)

    try:
        async with asyncio.timeout(patience) as limit:
            ending = await upstream.read(cursor, deliver)
    except _Found as found:
        return found.event
    except TimeoutError:
        if opened:
            return None
        raise Unreachable(Ending(End.UNREACHABLE, f"no answer within {patience:g} s")) from None
    # A relay that refuses the cursor as one of the future says so in a frame, and closes.
    if opened and ending.end in (End.CLOSED, End.EXHAUSTED):
        return None
    raise Unreachable(ending)


def _event(frame: bytes) -> Event | None:
    try:
        seen = peek(frame)
    except WireError:
        return None
    moment = datetimes.parse(seen.time)
    if seen.seq is None or moment is None:
        return None
    return Event(seen.seq, datetimes.to_microseconds(moment) / 1_000_000)
