"""What must always hold, named once, and checked alike in production and in tests.

A check costs a comparison, so that it can stay in the hot path. When one fails, memory or code is
wrong and nothing that this process would write can be trusted: InvariantViolated is not to be
caught, ends the process, and the work is repeated from what is durable.
"""

from __future__ import annotations

import enum


class Invariant(enum.Enum):
    """The value is the sentence that holds."""

    NUMBERS_FOLLOW = "the messages of a connection are received in the order of their numbers"
    ACKS_FOLLOW = "an ack moves forward, and never past what was sent"
    WINDOW_BOUNDED = "what is sent and not acked stays within the bounds of its edge"
    WATERMARK_FOLLOWS = "the low-watermark never moves back"
    CHECKPOINT_BEHIND = "the checkpoint is never ahead of the low-watermark"
    GENERATIONS_FOLLOW = "a peer's next generation is higher than its last"
    QUEUE_BOUNDED = "a queue stays within its bound in messages and in bytes"


class InvariantViolated(Exception):
    """One of the invariants does not hold; the message says which, and what was found instead."""

    def __init__(self, invariant: Invariant, found: str) -> None:
        super().__init__(f"{invariant.name}: {invariant.value}; but {found}")
        self.invariant = invariant
        self.found = found


def numbers_follow(last: int, number: int) -> None:
    """`number` comes right after `last`."""
    if number != last + 1:
        raise InvariantViolated(Invariant.NUMBERS_FOLLOW, f"{number} came after {last}")


def ack_follows(acked: int, ack: int, sent: int) -> None:
    """`ack` is between what was acked before and what was sent."""
    if not acked <= ack <= sent:
        found = f"{ack} was acked after {acked}, with {sent} sent"
        raise InvariantViolated(Invariant.ACKS_FOLLOW, found)


def window_bounded(messages: int, size: int, most_messages: int, most_bytes: int) -> None:
    """A window of `messages` and `size` bytes is within its bounds."""
    if messages > most_messages or size > most_bytes:
        found = f"it holds {messages} of {most_messages} messages, {size} of {most_bytes} bytes"
        raise InvariantViolated(Invariant.WINDOW_BOUNDED, found)


def queue_bounded(name: str, messages: int, size: int, most_messages: int, most_bytes: int) -> None:
    """The queue called `name` is within its bounds."""
    if messages > most_messages or size > most_bytes:
        found = f"{name} holds {messages} of {most_messages}, {size} of {most_bytes} bytes"
        raise InvariantViolated(Invariant.QUEUE_BOUNDED, found)


def watermark_follows(last: int, watermark: int) -> None:
    """The low-watermark did not move back."""
    if watermark < last:
        raise InvariantViolated(Invariant.WATERMARK_FOLLOWS, f"{watermark} came after {last}")


def checkpoint_behind(checkpoint: int, watermark: int) -> None:
    """What is saved as the checkpoint is durable."""
    if checkpoint > watermark:
        found = f"{checkpoint} was to be saved at {watermark}"
        raise InvariantViolated(Invariant.CHECKPOINT_BEHIND, found)


def generation_follows(name: str, last: int, generation: int) -> None:
    """`generation` of the peer `name` is newer than the last one seen."""
    if generation <= last:
        found = f"{name} came up as {generation} after {last}"
        raise InvariantViolated(Invariant.GENERATIONS_FOLLOW, found)
