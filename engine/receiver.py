"""What the engine calls in an actor, as its inbox and its exchange know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engine.address import Address
from engine.message import Message

if TYPE_CHECKING:
    from engine.delivery import Delivery


class Hooks(Protocol):
    """What an actor is told beside its messages."""

    def on_peer(self, peer: Address, generation: int, up: bool) -> None: ...

    def on_drain(self) -> None: ...

    def on_status(self, status: bytes) -> None: ...


class Receiver(Hooks, Protocol):
    """An actor with all that its inbox calls."""

    @property
    def acks_itself(self) -> bool: ...

    def receive(self, message: Message, delivery: Delivery) -> Message | None: ...

    def stop(self) -> None: ...
