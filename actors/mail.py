"""Sending work along: rows that a batch wrote to the outbox, offered to their receivers.

An offer that is not taken costs nothing but time: the row is in the table. Its number goes up all
the same, so a receiver sees the gap; and the receiver is told to look into the table, until it has
heard.
"""

from collections.abc import Iterable
from functools import partial
from typing import Final

from actors.messages import OutboxWork, SweepOutbox
from actors.store.batch import Sent
from engine.address import Address
from engine.context import Context

# Between two attempts to tell a receiver that work is left for it.
SWEEP_SECONDS: Final = 1.0


class Mail:
    """The sender's side of the outbox, for one actor and its receivers."""

    def __init__(self, context: Context, receivers: Iterable[Address]) -> None:
        self._context = context
        self._numbers = dict.fromkeys(receivers, 0)
        # Who must be told to look: at first all, since an earlier generation may have left work.
        self._owed = set(self._numbers)
        self._waiting: set[Address] = set()

    def send(self, sent: Iterable[Sent]) -> None:
        """Offer rows to their receivers, in order."""
        for receiver, row, body in sent:
            self._numbers[receiver] += 1
            number = self._numbers[receiver]
            if not self._context.offer(receiver, OutboxWork(row, number, body)):
                self._owed.add(receiver)
        for receiver in tuple(self._owed):
            self._sweep(receiver)

    def owe_all(self) -> None:
        """Have every receiver look: rows may have been written that were never sent."""
        self._owed.update(self._numbers)

    def is_up(self, receiver: Address) -> None:
        """A receiver came up: it counts anew, and may not know of work that is left for it."""
        if receiver in self._numbers:
            self._numbers[receiver] = 0
            self._sweep(receiver)

    def _sweep(self, receiver: Address) -> None:
        """Have a receiver look into the outbox; try again in a moment where it cannot be told."""
        if self._context.offer(receiver, SweepOutbox()):
            self._owed.discard(receiver)
            return
        self._owed.add(receiver)
        if receiver not in self._waiting:
            self._waiting.add(receiver)
            self._context.after(SWEEP_SECONDS, partial(self._sweep_again, receiver))

    def _sweep_again(self, receiver: Address) -> None:
        self._waiting.discard(receiver)
        if receiver in self._owed:
            self._sweep(receiver)
