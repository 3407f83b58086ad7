"""Leaves alone what fails again and again. Pure: time comes in as an argument.

Closed while all is well. After so many failures in a row it is open: nothing is asked. When its
time is over one request may try (half-open): a success closes it, a failure opens it for twice as
long.
"""

import random

from engine.restarts import Backoff


class Breaker:
    """The breaker of one host."""

    __slots__ = ("_failures", "_opened", "_probing", "_until")

    def __init__(self) -> None:
        self._failures = 0
        self._opened = 0
        self._until = 0.0
        self._probing = False

    @property
    def clean(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._failures and not self._opened

    def closed_for(self, now: float) -> float:
        """Seconds for which nothing is asked; 0.0 when something may be.

        While one request tries, the others are told a second.
        """
        if not self._opened:
            return 0.0
        return max(self._until - now, 1.0 if self._probing else 0.0)

    def admit(self) -> bool:
        """Let a request through; True when it is the one that tries."""
        if not self._opened:
            return False
        self._probing = True
        return True

    def good(self) -> None:
        """A request was answered."""
        self._failures = self._opened = 0
        self._probing = False

    def bad(
        self, now: float, probe: bool, most: int, backoff: Backoff, chance: random.Random
    ) -> None:
        """A request failed. One that began before the breaker opened says nothing new."""
        if self._opened and not probe:
            return
        self._failures += 1
        if not probe and self._failures < most:
            return
        self._opened += 1
        self._until = now + backoff.delay(self._opened, chance)
        self._probing = False

    def abandon(self) -> None:
        """The request that tried told nothing: another one may."""
        self._probing = False
