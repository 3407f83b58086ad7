"""The one door through which time comes in, so that a simulation can bring its own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the engine and its actors ask for the time."""

    def now(self) -> float:
        """Return the wall clock's time in Unix seconds; it may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back.

        The moment is the same for all processes of a machine, so that the deadline of an ask
        means the same to both sides.
        """
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
