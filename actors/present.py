"""What time it is, for a shard that is told times by others.

An event dated years ahead would lock its repository out, as nothing later could ever come. So times
are bounded by our own clock; and where that is behind, which is seen by most events being ahead of
it, by what most of the last events say. No single account can move that.
"""

from collections import deque
from collections.abc import Callable
from statistics import median_low
from typing import Final

from actors.atproto.frames import MAX_REV_AHEAD

# Events that are asked, and how many there must be before they are believed.
ASKED: Final = 101
ENOUGH: Final = 20


class Present:
    """The present, in microseconds since 1970.

    Args:
        clock: the wall clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: deque[int] = deque(maxlen=ASKED)

    def bound(self, time: int) -> int:
        """Return the time of an event; the present where it is more than five minutes ahead."""
        self._last.append(time)
        now = round(self._clock() * 1_000_000)
        if time <= now + MAX_REV_AHEAD:
            return time
        if len(self._last) >= ENOUGH:
            now = max(now, median_low(self._last))
        return time if time <= now + MAX_REV_AHEAD else now
