"""Puts what kills its receiver among the dead letters, from the sender's side."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.address import Address
from engine.clock import Clock
from engine.deadletter import DeadLetter, DeadLetterSink
from engine.envelope import Kind
from engine.errors import TransportFault

logger = logging.getLogger(__name__)


class Burial:
    """The dead letters of one sender; the sink is made when the first one is there.

    Args:
        sender: the actor whose messages these were.
        clock: the time.
        factory: makes the sink; None where the topology gives none.
    """

    def __init__(
        self, sender: Address, clock: Clock, factory: Callable[[], DeadLetterSink] | None
    ) -> None:
        self._sender = sender
        self._clock = clock
        self._factory = factory
        self._sink: DeadLetterSink | None = None

    def bury(self, receiver: Address, generation: int, lane: Kind, body: bytes) -> None:
        """Store a message durably, so that it may count as acked.

        Raises:
            TransportFault: there is nowhere to put it.
        """
        if self._sink is None:
            if self._factory is None:
                raise TransportFault(
                    f"a message of {self._sender} kills whoever reads it, and the topology gives"
                    " no sink for dead letters: name one"
                )
            self._sink = self._factory()
        self._sink.put(
            DeadLetter(
                time=self._clock.now(),
                sender=self._sender,
                receiver=receiver,
                receiver_generation=generation,
                kind=lane.name.lower(),
                reason=f"delivered by itself, it killed {receiver} again and again",
                body=body,
            )
        )
        logger.error(
            "a message for %s of %d bytes killed it again and again: it is a dead letter now, and"
            " the stream goes on without it",
            receiver,
            len(body),
        )

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
