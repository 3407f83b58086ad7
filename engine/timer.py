"""What an actor has asked to be called for later."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True, slots=True)
class Timer:
    """One call to come. `at` is the monotonic second at which it is due."""

    at: float
    order: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Have it not called; harmless when it has been called already."""
        self.callback = None

    def fire(self) -> None:
        """Call it, unless it was cancelled meanwhile."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Timers:
    """The timers of one actor, earliest first, and of the same moment in the order of asking."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._orders = count()

    def add(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(at, next(self._orders), callback)
        heapq.heappush(self._heap, timer)
        return timer

    def next_at(self) -> float | None:
        """Return when the next timer is due, or None where there is none."""
        while self._heap and self._heap[0].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None

    def due(self, now: float) -> list[Timer]:
        """Remove and return the timers whose time has come."""
        found = []
        while (at := self.next_at()) is not None and at <= now:
            found.append(heapq.heappop(self._heap))
        return found
