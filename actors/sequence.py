"""Where we are in the numbering of one host, and what its next event says about that.

Sequence numbers ascend within a host and mean nothing on another. Relays today announce neither
that a cursor is too old nor that it lies in the future, so both are concluded from number and time.
"""

from dataclasses import dataclass
from typing import Final

GAP_SECONDS: Final = 60.0
"""Events are lost when number and time jumped, the time by more than this: numbers alone skip what
a server has deleted, and times alone stand still when nobody writes."""

SIGNS_OF_RESTART: Final = 10
"""So many events in a row with an old number and a new time, and the host numbers anew."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What the source did not send: this many events at most, over this many seconds.

    `after` is -1 where what was read last has another source's number.
    `seconds` is None where no time is known. `lost` says that the source no longer holds them;
    else they may be numbers that it skipped.
    """

    after: int
    first: int
    seconds: float | None
    lost: bool

    @property
    def events(self) -> int:
        return self.first - self.after - 1


@dataclass(slots=True)
class Sequence:
    """The position in one host's numbering.

    `last` is the number of the last event taken (-1 for none), `time` its Unix time, where known.
    `asked` is the cursor that `last` stands for, as long as nothing proves that the host has ever
    counted so far: no event past it, and no known time.
    """

    last: int = -1
    time: float | None = None
    asked: int | None = None
    announced_outdated: bool = False
    _signs: int = 0

    @property
    def cursor(self) -> int:
        """What to ask the source for to go on. It may send the event of this number again."""
        return max(self.last, 0)

    def begin(self, last: int, time: float | None = None, asked: int | None = None) -> None:
        """Go on after another event."""
        self.last, self.time, self.asked = last, time, asked

    def connected(self) -> None:
        """A new connection: nothing has come on it."""
        self.announced_outdated = False
        self._signs = 0

    def gap_before(self, seq: int, time: float | None) -> Gap | None:
        """Judge the first new event of a connection that went on from `last`."""
        seconds = None if time is None or self.time is None else time - self.time
        late = seconds is not None and seconds > GAP_SECONDS
        if self.last < 0:
            return Gap(-1, seq, seconds, lost=True) if late else None
        if seq <= self.last + 1:
            return None
        return Gap(self.last, seq, seconds, lost=late or self.announced_outdated)

    def asked_too_much(self, seq: int) -> bool:
        """Judge an event by its number: whether the host is not yet at the cursor asked for.

        That is certain with the first event: a source sends none that is before its cursor.
        """
        return self.asked is not None and seq < self.last

    def short(self, end: int | None) -> str | None:
        """Say how a stream that ended with that event (-1: with none) ended before our place.

        None where it did not.
        """
        wanted = self.last if self.asked is None else self.asked
        if end is None or end >= wanted:
            return None
        held = f"ends at event {end}" if end >= 0 else "holds no event"
        return f"{held}, before the cursor {wanted}"

    def restarted_at(self, time: float | None) -> bool:
        """Judge an event with a number at or before `last`: True when the host numbers anew.

        What a source repeats after a reconnect is no newer than what was seen of it before.
        """
        if time is None or self.time is None or time <= self.time + GAP_SECONDS:
            self._signs = 0
            return False
        self._signs += 1
        return self._signs >= SIGNS_OF_RESTART
