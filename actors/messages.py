"""What the actors say to each other: every message type of the system, one struct each.

Messages are encoded with msgpack and carry raw frames as bytes, never re-encoded. A message that
holds several independent pieces says in `split` how it falls apart, so that a window that kills its
receiver can be delivered again piece by piece (see "Poison" in engine/README.md).
"""

from collections.abc import Sequence

from engine.message import Message


class Frames(Message, frozen=True):
    """A run of firehose frames of one shard's DIDs, in the order of the stream.

    From ingest to a shard. `host` names the upstream whose sequence numbers the frames carry.
    """

    host: str
    frames: list[bytes]

    def split(self) -> Sequence[Message]:
        """Return one message for each frame."""
        if len(self.frames) == 1:
            return (self,)
        return [Frames(self.host, [frame]) for frame in self.frames]


class EnsureUsers(Message, frozen=True):
    """A shard asks the user gate for `users` rows before it commits."""

    dids: list[str]


class UsersEnsured(Message, frozen=True):
    """The user gate's answer: every DID asked for has its row, durably; `created` are new."""

    created: int


class OutboxWork(Message, frozen=True):
    """A row of `engine_outbox`, sent along so that its receiver need not read it.

    `number` counts the work of one sender generation for one receiver from 1 without gaps: a
    receiver that sees a gap first does what is left in the table.
    """

    row: int
    number: int
    body: bytes


class SweepOutbox(Message, frozen=True):
    """Work was left in `engine_outbox` that could not be sent along: do what is there."""


class CreateUsers(Message, frozen=True):
    """Body of the user gate's outbox work: DIDs that need a `users` row."""

    dids: list[str]


MESSAGES: tuple[type[Message], ...] = (
    Frames,
    EnsureUsers,
    UsersEnsured,
    OutboxWork,
    SweepOutbox,
    CreateUsers,
)
