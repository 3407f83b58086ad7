"""Leaves alone what asked for it. Pure: time comes in as an argument."""

import random
from typing import Final

from engine.restarts import Backoff

BELIEVED: Final = 5
"""So many pauses in a row are as long as they were asked for, and those that follow at least as
long as those of a host that fails: whoever names a second each time, or nothing, is not asked for
ever at that rate.
"""


class Pause:
    """The pauses of one host. When one is over, one request tries."""

    __slots__ = ("_in_a_row", "_trying", "_until")

    def __init__(self) -> None:
        self._in_a_row = 0
        self._trying = False
        self._until = 0.0

    @property
    def clean(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._in_a_row

    def left(self, now: float) -> float:
        """Seconds for which nothing is asked; 0.0 when something may be.

        While one request tries, the others are told a second.
        """
        return max(self._until - now, 1.0 if self._trying else 0.0)

    def admit(self) -> bool:
        """Let a request through; True when it is the one that tries."""
        self._trying = self._in_a_row > 0
        return self._trying

    def asked(self, now: float, seconds: float, backoff: Backoff, chance: random.Random) -> None:
        """The host asked for a pause; what was under way meanwhile may be told so as well."""
        self._trying = False
        if self._until <= now:
            self._in_a_row += 1
        if self._in_a_row > BELIEVED:
            seconds = max(seconds, backoff.delay(self._in_a_row - BELIEVED, chance))
        self._until = max(self._until, now + seconds)

    def answered(self) -> None:
        """A request was answered."""
        self._in_a_row = 0
        self._trying = False

    def abandon(self) -> None:
        """The request that tried told nothing: another one may."""
        self._trying = False
