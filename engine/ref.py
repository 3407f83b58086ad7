"""A handle on one peer of an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.address import Address
from engine.message import Message

if TYPE_CHECKING:
    from engine.context import Context


class Ref:
    """One actor as seen by another; made by `Context.ref`, whose methods it shortens."""

    __slots__ = ("_context", "address")

    def __init__(self, context: Context, address: Address) -> None:
        self._context = context
        self.address = address

    def tell(self, message: Message, *, token: Any = None, patience: float | None = None) -> None:
        """See `Context.tell`."""
        self._context.tell(self.address, message, token=token, patience=patience)

    def offer(self, message: Message, *, token: Any = None) -> bool:
        """See `Context.offer`."""
        return self._context.offer(self.address, message, token=token)

    def ask(self, message: Message, timeout: float) -> Message:
        """See `Context.ask`."""
        return self._context.ask(self.address, message, timeout)

    def room(self) -> tuple[int, int]:
        """See `Context.room`."""
        return self._context.room(self.address)
