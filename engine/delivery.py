"""What comes with a message when it is delivered, and how it is acked or answered."""

from __future__ import annotations

from engine.address import Address
from engine.envelope import Envelope, Kind
from engine.exchange import Exchange
from engine.message import Message


class Delivery:
    """One delivery of one message.

    Attributes:
        sender: who sent it.
        sender_generation: which life of the sender did; an older one than the present is a ghost,
            to which nothing can be acked.
        number: counts the messages of its lane, from 1, for each pair of generations.
        kind: tell, offer or ask.
        size: bytes of its encoded body.
        alone: it is delivered by itself because what it is part of killed a receiver: handle it at
            once instead of gathering more.
        deadline: for an ask, the monotonic second after which nobody waits for the answer.
    """

    __slots__ = ("_done", "_envelope", "_exchange", "size")

    def __init__(self, exchange: Exchange, envelope: Envelope, size: int) -> None:
        self._exchange = exchange
        self._envelope = envelope
        self._done = False
        self.size = size

    @property
    def sender(self) -> Address:
        return self._envelope.sender

    @property
    def sender_generation(self) -> int:
        return self._envelope.generation

    @property
    def number(self) -> int:
        return self._envelope.number

    @property
    def kind(self) -> Kind:
        return self._envelope.kind

    @property
    def alone(self) -> bool:
        return self._envelope.alone

    @property
    def deadline(self) -> float:
        return self._envelope.deadline

    def ack(self) -> None:
        """This message and all before it on its lane are done for good.

        Acks of a message that is acked already, or whose sender is gone, change nothing.

        Raises:
            ValueError: it is an ask, which is answered instead.
        """
        if self.kind is Kind.ASK:
            raise ValueError(f"an ask of {self.sender} is answered by a reply, not by an ack")
        self._exchange.ack(self.sender, self.kind, self.sender_generation, self.number)

    def reply(self, message: Message) -> None:
        """Answer an ask later than by the value that `receive` returns.

        An answer after the deadline is still sent, because it gives the asker its credit back.

        Raises:
            ValueError: this is no ask, or it is answered already.
        """
        self._close()
        self._exchange.reply(self._envelope, self._exchange.codec.encode(message))

    def skip(self) -> None:
        """Leave an ask unanswered, its deadline having passed; see `reply` for what it raises."""
        self._close()
        self._exchange.reply(self._envelope, None)

    def _close(self) -> None:
        if self.kind is not Kind.ASK:
            raise ValueError(f"a {self.kind.name.lower()} of {self.sender} cannot be answered")
        if self._done:
            raise ValueError(f"the ask {self.number} of {self.sender} is answered already")
        self._done = True
