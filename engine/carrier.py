"""What an actor's context needs of a transport, be it sockets or a simulation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from engine.address import Address
from engine.control import FromChild, ToChild
from engine.envelope import Envelope


@dataclass(slots=True)
class Arrivals:
    """What one look at the sockets brought.

    Attributes:
        control: from the supervisor, in order.
        returns: acks and replies, each with its body (empty for an ack).
        data: messages for this actor, each with its body.
        readable: of the descriptors that were asked about, those with something to read.
    """

    control: list[ToChild] = field(default_factory=list)
    returns: list[tuple[Envelope, bytes]] = field(default_factory=list)
    data: list[tuple[Envelope, bytes]] = field(default_factory=list)
    readable: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.control or self.returns or self.data or self.readable)


class Carrier(Protocol):
    """Carries envelopes to the peers that were announced, and back. Used by one thread only."""

    def open(self, peer: Address, endpoint: str) -> None:
        """Start to speak to the generation of a peer whose inbox is at this endpoint."""

    def shut(self, peer: Address) -> list[tuple[Envelope, bytes]]:
        """Stop speaking to a peer; returns the acks and replies that had come already."""

    def send(self, peer: Address, envelope: Envelope, body: bytes) -> None:
        """Send a message to a peer that is open.

        Raises:
            TransportFault: the transport is full, which the windows should have made impossible.
        """

    def answer(self, envelope: Envelope, body: bytes = b"") -> bool:
        """Send an ack or a reply back to whom it is for; False if that generation is gone."""

    def report(self, message: FromChild) -> None:
        """Tell the supervisor something."""

    def poll(self, timeout: float, *, data: bool, descriptors: Collection[int]) -> Arrivals:
        """Wait until something arrives, at most ``timeout`` seconds, and return it.

        With ``data`` false the messages for this actor are left for later: it is inside a handler,
        and waits for credit, an answer, or the time.
        """

    def close(self) -> None:
        """Close everything at once; what was not sent is lost, and kept where it must be."""
