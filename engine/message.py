"""What actors say to each other: typed messages, and the codec that carries them as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

import msgspec

from engine.errors import UnknownMessage


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of every message.

    Subclass it with typed fields; the tag in the encoding is the name of the class. A batch is
    one message that holds many small things, because the message is the unit of delivery, of
    credit and of ack. Raw bytes in it are copied, never encoded a second time.
    """

    def split(self) -> Sequence[Message]:
        """Return the parts for one-by-one redelivery after this message killed its receiver.

        Together and in this order they must mean the same as the whole. The default is the
        message itself, which then stands or falls as one.
        """
        return (self,)


class Codec:
    """Turns messages of a fixed set of types into msgpack and back.

    Raises:
        ValueError: two types have the same name, or there is none.
    """

    def __init__(self, types: Sequence[type[Message]]) -> None:
        unique = tuple(dict.fromkeys(types))
        names = [cls.__name__ for cls in unique]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two message types share the name {', '.join(twice)}: rename one")
        if not unique:
            raise ValueError("a codec needs at least one message type")
        self._known = frozenset(unique)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(
            reduce(or_, unique)
        )

    def encode(self, message: Message) -> bytes:
        """Return the bytes of a message.

        Raises:
            UnknownMessage: its type is not one of this codec's.
        """
        if type(message) not in self._known:
            raise UnknownMessage(
                f"{type(message).__name__} is not among the message types of the topology: add it"
            )
        return self._encoder.encode(message)

    def decode(self, body: bytes) -> Message:
        """Return the message in some bytes.

        Raises:
            UnknownMessage: the bytes are not a message of this codec's types.
        """
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnknownMessage(f"cannot read a message of {len(body)} bytes: {error}") from error
