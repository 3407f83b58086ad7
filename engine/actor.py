"""The base of every actor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

import pykka

from engine.address import Address
from engine.context import Context
from engine.crashpoint import Killed
from engine.delivery import Delivery
from engine.errors import Stopping
from engine.inbox import Inbox
from engine.message import Message

__all__ = ["Actor", "Delivery"]

logger = logging.getLogger(__name__)


class Actor(pykka.ThreadingActor):
    """An actor: one thread, one handler at a time, and no way in but messages.

    Pykka's own loop runs it, in the thread that calls `start`: in a child, the main one. Other
    than with Pykka alone, an unexpected exception in any handler or callback, of an ask as of a
    tell, ends the actor, and with it its process.

    Attributes:
        acks_itself: False: a tell or offer is acked when `receive` returns. True: the actor calls
            `Delivery.ack` itself, once what it holds is durable.
        context: its door to everything outside.
        settings: what the topology gives to this actor.
        failure: the exception that ended it, or None.
    """

    acks_itself: ClassVar[bool] = False

    def __init__(self, context: Context, settings: Any) -> None:
        self.context = context
        self.settings = settings
        self.failure: BaseException | None = None
        super().__init__()
        context.inbox.attach(self)

    def on_start(self) -> None:
        """Connect to what it needs. The actor counts as ready when this returns."""

    def receive(self, message: Message, delivery: Delivery) -> Message | None:
        """Handle one message.

        Returns:
            The answer, if it is an ask; with None there, answer later by `Delivery.reply`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} got a {type(message).__name__} from {delivery.sender},"
            " and handles no messages"
        )

    def on_drain(self) -> None:
        """A stop in good order was asked for: finish what you hold, then `context.stop()`.

        By default it stops as soon as all that it told others is acked.
        """
        if self.context.outstanding():
            self.context.after(0.01, self.on_drain)
        else:
            self.context.stop()

    def on_stop(self) -> None:
        """The loop ends in good order: close what `on_start` opened."""

    def on_peer(self, peer: Address, generation: int, up: bool) -> None:
        """A generation of a peer, in either direction, came (``up``) or went."""

    def on_status(self, status: bytes) -> None:
        """The supervisor sent a snapshot of the whole system, as JSON; each second, if wanted."""

    def run(self) -> None:
        """Run the loop in this thread until the actor ends; see `failure` for how it did."""
        pykka.ActorRegistry.register(self.actor_ref)
        try:
            self._start_actor_loop()
        finally:
            pykka.ActorRegistry.unregister(self.actor_ref)

    def on_receive(self, message: Callable[[], None]) -> None:
        """Run one item of the inbox; called by Pykka's loop."""
        try:
            message()
        except Stopping:
            self.context.stop()
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            # Pykka would go on to stop every actor of the process, as if all were one program.
            self._handle_failure(type(error), error, error.__traceback__)

    def _create_actor_inbox(self) -> Inbox:  # type: ignore[override]  # Pykka calls it on the instance, and this inbox is the instance's
        return self.context.inbox

    def _start_actor_loop(self) -> None:
        self._actor_loop()

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        if isinstance(exception_value, Stopping) or self.failure is not None:
            return
        self.failure = exception_value
        if isinstance(exception_value, Killed):
            return
        logger.error(
            "%s (generation %d) ends by an unexpected exception",
            self.context.name,
            self.context.generation,
            exc_info=(
                None
                if exception_type is None or exception_value is None
                else (exception_type, exception_value, traceback)
            ),
        )
