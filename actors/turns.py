"""Whose turn it is, and how many at once. Pure: time comes in as an argument.

Accounts of did:plc need one directory, the others each a host of its own, and all need the name
system for their handles; so a directory that is down holds up its accounts alone. While it rests
nothing is asked of it, and when the rest is over one account tries.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# Of the places, what lower ranks get at least where they have work: no rank starves another.
_SHARE: Final = 4
# Single accounts, or handles, may well be what does not work; so many in a row are not.
IN_A_ROW: Final = 20
# Of names several try, of whatever rank: those of one rank may all be somebody's broken ones.
_TRIES: Final = 4
FIRST_REST: Final = 5.0
LONGEST_REST: Final = 300.0


class Rest:
    """Leaves alone what all work needs and what does not work.

    Args:
        most: failures in a row before it is left alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures = 0
        self._rests = 0
        self._until = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether it did not work the last time, so that one may try at most."""
        return self._rests > 0

    def left(self, now: float) -> float:
        """Seconds for which it is left alone."""
        return max(0.0, self._until - now) if self._rests else 0.0

    def failed(self, now: float, seconds: float = 0.0, *, surely: bool = False) -> None:
        """It did not work; it asked for so many seconds, or 0.0 where nothing is known.

        `surely`: it is known to be away, however few failures there were.
        """
        self._failures += 1
        if self._failures < self._most and not surely and not self._rests:
            return
        if self._until <= now:
            self._rests += 1
        own = min(FIRST_REST * 2.0 ** min(self._rests - 1, 20), LONGEST_REST)
        self._until = max(self._until, now + max(own, seconds))

    def worked(self) -> None:
        """It worked."""
        self._failures = self._rests = 0
        self._until = 0.0


class Turns:
    """The places of resolutions.

    Args:
        concurrency: resolutions at a time, of did:plc and again of the others.

    Attributes:
        directory: rests when the directory of did:plc does not answer.
        names: rests when the name system answers nobody.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self.directory = Rest(IN_A_ROW)
        self.names = Rest(IN_A_ROW)
        self._running = {True: 0, False: 0}

    @property
    def running(self) -> int:
        """How many are under way."""
        return self._running[True] + self._running[False]

    def room(self, plc: bool, now: float) -> int:
        """How many may begin now."""
        if self.names.left(now) or (plc and self.directory.left(now)):
            return 0
        most = self._concurrency
        if self.names.goes_on:
            most = min(most, _TRIES)
        if plc and self.directory.goes_on:
            most = 1
        return max(0, most - self._running[plc])

    def begins(self, plc: bool) -> None:
        """One takes a place."""
        self._running[plc] += 1

    def ends(self, plc: bool) -> None:
        """One leaves its place."""
        self._running[plc] -= 1


def share(ranks: Sequence[Sequence[T]], places: int) -> list[T]:
    """Who gets the places: the lower the rank the sooner, and a part for those behind.

    `ranks` holds who waits, by rank.
    """
    chosen: list[T] = []
    for index, waiting in enumerate(ranks):
        free = places - len(chosen)
        behind = sum(len(others) for others in ranks[index + 1 :])
        chosen += waiting[: free - min(free // _SHARE, behind)]
    for waiting in ranks:
        left = [each for each in waiting if each not in chosen]
        chosen += left[: places - len(chosen)]
    return chosen
