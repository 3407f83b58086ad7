"""The receiver's side of an edge: numbering, fencing and cumulative acks; and the asker's asks.

Pure state, no I/O, like the window on the other side.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.address import Address
from engine.errors import TransportFault
from engine.invariants import Invariant, InvariantViolated


class Incoming:
    """What a receiver knows of one lane from one sender."""

    def __init__(self, sender: Address) -> None:
        self.sender = sender
        self.generation = 0
        self.delivered = 0
        self.acked = 0
        self._told = 0

    def renew(self, generation: int) -> None:
        """A newer generation of the sender is known: from here on its elders are ghosts."""
        if generation > self.generation:
            self.generation = generation
            self.delivered = self.acked = self._told = 0

    def accept(self, generation: int, number: int) -> bool:
        """Take note of a message; False if it comes from a ghost and must not be delivered.

        Raises:
            InvariantViolated: messages before it are missing, or it came twice.
        """
        if generation < self.generation:
            return False
        self.renew(generation)
        if number != self.delivered + 1:
            raise InvariantViolated(
                Invariant.NUMBERS_FOLLOW,
                f"{number} of {self.sender} (generation {generation}) came after {self.delivered}",
            )
        self.delivered = number
        return True

    def ack(self, generation: int, number: int) -> bool:
        """Everything up to this number is done; False if that generation is gone or it was known.

        Raises:
            ValueError: that number was not delivered yet.
        """
        if generation != self.generation:
            return False
        if number > self.delivered:
            raise ValueError(f"cannot ack message {number} of {self.sender}: not delivered yet")
        if number <= self.acked:
            return False
        self.acked = number
        return True

    @property
    def held(self) -> int:
        """How many messages are delivered and not acked."""
        return self.delivered - self.acked

    def due(self) -> int:
        """Return the number that the sender is to be told now, or 0 where it knows already."""
        if self.acked == self._told:
            return 0
        self._told = self.acked
        return self.acked


@dataclass(slots=True)
class _Ask:
    size: int
    reply: bytes | None = None
    over: bool = False
    wanted: bool = True


class Asks:
    """The asks that an actor has out to one peer, bounded like a window.

    An ask whose time is over still holds its credit until the receiver has skipped it, because it
    still lies in the receiver's queue.
    """

    def __init__(self, messages: int, size: int) -> None:
        self.limit_messages = messages
        self.limit_bytes = size
        self._used_bytes = 0
        self._next = 1
        self._out: dict[int, _Ask] = {}

    def fits(self, size: int) -> bool:
        """Return whether one more ask of this many bytes may go out."""
        return len(self._out) < self.limit_messages and self._used_bytes + size <= self.limit_bytes

    def begin(self, size: int) -> int:
        """Take credit for an ask and return its number."""
        number = self._next
        self._next += 1
        self._out[number] = _Ask(size)
        self._used_bytes += size
        return number

    def settle(self, number: int, reply: bytes | None) -> None:
        """The receiver answered an ask, or (None) skipped it because its time was over.

        Raises:
            TransportFault: there is no such ask.
        """
        ask = self._out.get(number)
        if ask is None:
            raise TransportFault(f"an answer came to ask {number}, which is not out")
        if not ask.wanted:
            self._forget(number)
        else:
            ask.reply = reply
            ask.over = True

    def lose(self) -> None:
        """The peer is gone: no ask that is out will be answered, and numbers begin anew."""
        for number, ask in list(self._out.items()):
            if ask.wanted:
                ask.over = True
            else:
                self._forget(number)
        self._next = 1

    def result(self, number: int) -> bytes | None:
        """Return the answer to an ask; None where there is none (yet, or once it is `over`)."""
        return self._out[number].reply

    def over(self, number: int) -> bool:
        """Return whether an ask was answered or skipped, or its peer is gone."""
        return self._out[number].over

    def leave(self, number: int) -> None:
        """The asker does not wait for this answer any more, having it or not."""
        ask = self._out[number]
        if ask.over:
            self._forget(number)
        else:
            ask.wanted = False

    def _forget(self, number: int) -> None:
        self._used_bytes -= self._out.pop(number).size
