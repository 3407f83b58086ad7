"""Frames that cannot be read: when a connection is given up for one, and when it is stepped over.

Such a frame may be an accident of the line or of the relay, so the connection is made anew and the
frame is given another chance. A place of the stream that broke connection after connection is how
the relay has stored it; what cannot be read from there on is stepped over without asking again, so
that any number of such frames costs those few connections and no more.
"""

from enum import Enum


class Chance(Enum):
    """What to do about a broken frame."""

    ANOTHER = "another"  # ask for it anew
    OVER = "over"  # step over it, and count it
    COUNTED = "counted"  # step over it; at this place of the stream it has been counted


class BrokenFrames:
    """Counts how many connections broke at one place of the stream.

    Args:
        tries: so many must have broken at a place before what is broken there is stepped over.
    """

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._place: int | None = None
        self._breaks = 0
        self._counted = 0
        self._seen = 0
        self._passing = False

    def connected(self) -> None:
        """A connection opened: what is broken may come again."""
        self._seen = 0
        self._passing = False

    def judge(self, after: int) -> Chance:
        """Note that a broken frame has come after the event of that number."""
        if after != self._place:
            self._place = after
            self._breaks = self._counted = self._seen = 0
        self._seen += 1
        if not self._passing:
            self._breaks += 1
            if self._breaks < self._tries:
                return Chance.ANOTHER
            self._passing = True
        if self._seen <= self._counted:
            return Chance.COUNTED
        self._counted = self._seen
        return Chance.OVER
