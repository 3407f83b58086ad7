"""The sender's side of an edge: what is sent and not yet acked, its bounds, replay and isolation.

Pure state, no I/O: the same object serves over sockets and in a simulation. The owner pushes what
it wants to send, sends what `take` returns, and tells of acks, connections and losses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import MessageTooBig
from engine.invariants import ack_follows, window_bounded

DEATHS_BEFORE_ISOLATION = 2
"""So many generations in a row must die on a window that has not moved before it is isolated."""

DEATHS_BEFORE_BURIAL = 3
"""And so many on a message that was delivered by itself and cannot be split. More than one, as a
death may fall together with a delivery by chance, and burying a harmless message loses it."""

UNPROVEN_BEFORE_BURIAL = 6
"""The same where the receiver never said that it had begun with the message: it may have died of
something else, or too quickly to say so."""


@dataclass(slots=True, eq=False)
class Entry:
    """One message in the window.

    `messages` and `bytes` are the credit it holds; of the parts of a split message only the last
    holds credit and token, those of the whole. `number` is 0 until it is sent on this connection.
    """

    body: bytes
    token: Any
    messages: int
    bytes: int
    number: int = 0
    alone: bool = False
    begun: bool = False
    deaths: int = 0
    unproven: int = 0


@dataclass(slots=True)
class Loss:
    """What the end of a connection meant for a window.

    Attributes:
        dropped: the entries given up, on a window that does not keep what was sent.
        condemned: the message that killed its receiver when it was delivered by itself; the owner
            must store it as a dead letter and then `bury` it.
        deaths: how many generations died in a row without the window's head having moved.
    """

    dropped: list[Entry] = field(default_factory=list)
    condemned: Entry | None = None
    deaths: int = 0


class Window:
    """A window of at most `messages` messages and `size` bytes that are not acked.

    Args:
        messages: bound in messages, at least 1.
        size: bound in bytes of message bodies, at least 1.
        keeps: whether what is unacked when the connection ends is kept for the next generation of
            the receiver (a tell), or dropped (an offer).
        split: turns the body of a message into the bodies of its parts.
    """

    def __init__(
        self,
        messages: int,
        size: int,
        *,
        keeps: bool,
        split: Callable[[bytes], Sequence[bytes]],
    ) -> None:
        if messages < 1 or size < 1:
            raise ValueError(f"a window of {messages} messages and {size} bytes holds nothing")
        self.limit_messages = messages
        self.limit_bytes = size
        self.used_messages = 0
        self.used_bytes = 0
        self.connected = False
        self._keeps = keeps
        self._split = split
        self._entries: deque[Entry] = deque()
        self._sent = 0
        self._next = 1
        self._acked = 0
        self._deaths = 0
        self._died_on: Entry | None = None
        self._to_isolate = 0

    def __len__(self) -> int:
        """The number of entries, parts of split messages counted each."""
        return len(self._entries)

    @property
    def isolating(self) -> bool:
        """Whether the window is being redelivered one message at a time."""
        return self._to_isolate > 0

    def room(self) -> tuple[int, int]:
        """Return the messages and bytes of credit that are left."""
        return self.limit_messages - self.used_messages, self.limit_bytes - self.used_bytes

    def fits(self, size: int) -> bool:
        """Return whether there is credit for a message of this many bytes.

        Raises:
            MessageTooBig: there never will be.
        """
        if size > self.limit_bytes:
            raise MessageTooBig(
                f"a message of {size} bytes cannot pass a window of {self.limit_bytes}:"
                " send it in parts, or raise the bytes of the edge"
            )
        return (
            self.used_messages < self.limit_messages and self.used_bytes + size <= self.limit_bytes
        )

    def push(self, body: bytes, token: Any = None) -> None:
        """Take a message into the window; `take` says when it is to be sent.

        Raises:
            ValueError: it does not fit; ask `fits` first.
        """
        size = len(body)
        if not self.fits(size):
            raise ValueError(f"no credit for a message of {size} bytes: {self.room()} left")
        self.used_messages += 1
        self.used_bytes += size
        self._entries.append(Entry(body, token, 1, size))
        window_bounded(self.used_messages, self.used_bytes, self.limit_messages, self.limit_bytes)

    def take(self) -> list[Entry]:
        """Return, numbered, what is to be sent now; it counts as sent from here on."""
        if not self.connected or self._sent == len(self._entries):
            return []
        if self._to_isolate:
            if self._sent:
                return []
            head = self._entries[0]
            head.alone = True
            return [self._number(head)]
        if self._sent == len(self._entries) - 1:
            return [self._number(self._entries[-1])]
        return [self._number(self._entries[i]) for i in range(self._sent, len(self._entries))]

    def connect(self) -> None:
        """A new generation of the receiver is up: number and send everything anew."""
        self.connected = True
        self._next = 1
        self._acked = 0

    def disconnect(self, *, crashed: bool) -> Loss:
        """The receiver's generation is gone; `crashed` unless it stopped in good order."""
        self.connected = False
        sent, self._sent = self._sent, 0
        loss = Loss()
        if not self._keeps:
            loss.dropped = list(self._entries)
            self._entries.clear()
            self.used_messages = self.used_bytes = 0
            return loss
        if not crashed or not sent:
            return loss
        head = self._entries[0]
        if self._to_isolate:
            self._condemn(head, loss)
            return loss
        self._deaths = self._deaths + 1 if self._died_on is head else 1
        self._died_on = head
        loss.deaths = self._deaths
        if self._deaths >= DEATHS_BEFORE_ISOLATION:
            self._to_isolate = len(self._entries)
        return loss

    def ack(self, number: int) -> list[Any]:
        """Everything up to this number is done. Returns the tokens that it frees, in order.

        Raises:
            InvariantViolated: nothing of that number was sent on this connection, or a later one
                was acked before.
        """
        ack_follows(self._acked, number, self._next - 1)
        self._acked = number
        tokens = []
        while self._sent and self._entries[0].number <= number:
            self._sent -= 1
            tokens.extend(self._pop())
        return tokens

    def begun(self, number: int) -> None:
        """The receiver is about to handle the message that was delivered by itself."""
        if self._to_isolate and self._sent and self._entries[0].number == number:
            self._entries[0].begun = True

    def bury(self) -> list[Any]:
        """Remove the condemned head, which is a dead letter now; returns its token, if any."""
        return self._pop()

    def _number(self, entry: Entry) -> Entry:
        entry.number = self._next
        entry.begun = False
        self._next += 1
        self._sent += 1
        return entry

    def _pop(self) -> list[Any]:
        entry = self._entries.popleft()
        self.used_messages -= entry.messages
        self.used_bytes -= entry.bytes
        if self._to_isolate:
            self._to_isolate -= 1
        if self._died_on is entry:
            self._died_on = None
        return [] if entry.token is None else [entry.token]

    def _condemn(self, head: Entry, loss: Loss) -> None:
        if head.begun:
            head.deaths += 1
        else:
            head.unproven += 1
            if head.unproven < UNPROVEN_BEFORE_BURIAL:
                return
        bodies = self._split(head.body)
        if len(bodies) < 2:
            if head.deaths >= DEATHS_BEFORE_BURIAL or head.unproven >= UNPROVEN_BEFORE_BURIAL:
                loss.condemned = head
            return
        parts = [Entry(body, None, 0, 0) for body in bodies]
        parts[-1].token = head.token
        parts[-1].messages = head.messages
        parts[-1].bytes = head.bytes
        self._entries.popleft()
        self._entries.extendleft(reversed(parts))
        self._to_isolate += len(parts) - 1
