"""What is written on the outside of a message, and is all that the transport needs to read."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from engine.address import Address


class Kind(IntEnum):
    """What an envelope is. The first three are also the lanes of a pair of actors."""

    TELL = 1
    OFFER = 2
    ASK = 3
    REPLY = 4
    """The answer to the ask of the same number."""
    ACK = 5
    """Everything on the lane up to this number is done (on the ask lane: this number alone)."""
    BEGUN = 6
    """The receiver is about to handle the message of this number, which came alone."""


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The header that goes before the body of a message.

    Attributes:
        kind: what it is.
        lane: the lane it belongs to: its own kind, or for replies and acks that of their message.
        sender: who sent it.
        generation: the sender's generation.
        to: whom it is for.
        to_generation: the generation of the receiver that it was numbered for.
        number: counts the messages of the lane, from 1, anew for each pair of generations. On the
            ask lane it is what the answer is matched by.
        deadline: for an ask, the monotonic second after which nobody waits for the answer; else 0.
        alone: this message is delivered by itself, because what it is part of killed its receiver.
    """

    kind: Kind
    lane: Kind
    sender: Address
    generation: int
    to: Address
    to_generation: int
    number: int
    deadline: float = 0.0
    alone: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)


def encode(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope)


def decode(header: bytes) -> Envelope:
    """Raises msgspec.DecodeError where the bytes are not an envelope."""
    return _decoder.decode(header)
