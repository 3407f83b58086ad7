"""Every error of the engine. Each says what happened, to what, and what to do next."""

from __future__ import annotations

from typing import Any


class EngineError(Exception):
    """Base of the errors below."""


class MailboxFull(EngineError):
    """The receiver's window stayed full for longer than the edge's patience.

    Attributes:
        returned: the message that was not sent; it is the caller's again.
    """

    def __init__(self, to: str, returned: Any, patience: float) -> None:
        super().__init__(
            f"no credit for {to} within {patience:g} s: it is stuck, away, or too slow;"
            " the message was not sent"
        )
        self.returned = returned


class MessageTooBig(EngineError):
    """A message that could never get credit, being larger than the whole window of its edge."""


class UnknownEdge(EngineError):
    """An actor spoke to another without an edge between them in the topology."""


class UnknownMessage(EngineError):
    """A message of a type that the topology does not list, or bytes that are none at all."""


class AskTimeout(EngineError):
    """No answer came within the time the asker gave. The receiver skips what has expired."""


class ActorAway(EngineError):
    """The actor that was asked is not up at the moment."""


class AskFailed(EngineError):
    """The actor that was asked died, or was stopped, while it worked on the answer."""


class Stopping(EngineError):
    """A stop was asked for while a handler waited, or the handler itself has given up the run.

    Let it pass through: the engine takes it as the end of the handler, and what the handler
    worked on is neither acked nor counted as a fault.
    """


class IoThreadDied(EngineError):
    """The I/O thread of an actor ended by an error, or ended though nobody asked it to."""


class IoThreadStalled(EngineError):
    """The event loop in the I/O thread of an actor has not turned for too long."""


class TransportFault(EngineError):
    """A socket refused what the protocol says it must take."""
