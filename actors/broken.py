"""Frames that cannot be read, remembered until they have come often enough to be stepped over.

Such a frame may be an accident of the line or of the relay, so the connection is made anew and
the frame is given another chance; what comes again and again is how the relay has stored it.
"""

from collections import OrderedDict
from enum import Enum
from hashlib import blake2b
from typing import Final

REMEMBERED: Final = 256
"""Different broken frames kept in mind; each costs some 200 bytes."""


class Chance(Enum):
    """What to do about a broken frame."""

    ANOTHER = "another"  # ask for it anew
    OVER = "over"  # step over it, and count it
    COUNTED = "counted"  # step over it; at this place of the stream it has been counted


class BrokenFrames:
    """Counts how often the same bytes have come.

    Args:
        tries: so often they must have come to be stepped over.
    """

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._known: OrderedDict[bytes, tuple[int, int | None]] = OrderedDict()

    def judge(self, frame: bytes, after: int) -> Chance:
        """Note that these bytes have come once more, after the event of that number.

        Two broken frames that follow one another do not make each other start again.
        """
        digest = blake2b(frame, digest_size=16).digest()
        times, counted = self._known.pop(digest, (0, None))
        times += 1
        chance = Chance.ANOTHER
        if times >= self._tries:
            chance = Chance.COUNTED if counted == after else Chance.OVER
            counted = after
        self._known[digest] = (times, counted)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return chance
