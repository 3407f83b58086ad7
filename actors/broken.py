"""Frames that cannot be read, remembered until they have come often enough to be stepped over.

Such a frame may be an accident of the line or of the relay, so the connection is made anew and
the frame is given another chance; what comes again and again is how the relay has stored it.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

REMEMBERED: Final = 256
"""Different broken frames kept in mind; each costs about 100 bytes."""


class BrokenFrames:
    """Counts how often the same bytes have come.

    Args:
        tries: so often they must have come to be stepped over.
    """

    def __init__(self, tries: int) -> None:
        self._tries = tries
        self._times: OrderedDict[bytes, int] = OrderedDict()

    def step_over(self, frame: bytes) -> bool:
        """Count these bytes once more; True when they are to be stepped over from now on.

        Two broken frames that follow one another do not make each other start again.
        """
        digest = blake2b(frame, digest_size=16).digest()
        times = self._times.pop(digest, 0) + 1
        self._times[digest] = times
        if len(self._times) > REMEMBERED:
            self._times.popitem(last=False)
        return times >= self._tries
