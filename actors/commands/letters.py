"""What is in a dead letter: a message as it was sent, with the frames of some accounts."""

from __future__ import annotations

from actors.atproto import frames
from actors.atproto.errors import WireError
from actors.messages import MESSAGES, Frames
from engine.errors import UnknownMessage
from engine.message import Codec

__all__ = ["holds", "without"]


def _frames_of(body: bytes) -> Frames | None:
    try:
        message = Codec(MESSAGES).decode(body)
    except UnknownMessage:
        return None
    return message if isinstance(message, Frames) else None


def _owner(frame: bytes) -> str | None:
    try:
        return frames.peek(frame).did
    except WireError:
        return None


def _is_of(frame: bytes, did: str) -> bool:
    owner = _owner(frame)
    # One that cannot be read at all and names the account is taken for theirs.
    return owner == did if owner is not None else did.encode() in frame


def without(body: bytes, did: str) -> bytes | None:
    """The letter without the frames of this account; None where nothing is left of it."""
    message = _frames_of(body)
    if message is None:
        # Work between actors: it names accounts and holds nothing that they wrote.
        return body
    left = [frame for frame in message.frames if not _is_of(frame, did)]
    if len(left) == len(message.frames):
        return body
    return Codec(MESSAGES).encode(Frames(message.host, left)) if left else None


def holds(body: bytes) -> str:
    """One line on what a letter holds."""
    message = _frames_of(body)
    if message is None:
        return f"{len(body)} bytes that are no frames"
    told = []
    for frame in message.frames[:3]:
        try:
            seen = frames.peek(frame)
            told.append(f"{seen.kind} {seen.seq} of {seen.did}")
        except WireError as error:
            told.append(f"a frame that cannot be read ({error.reason})")
    more = len(message.frames) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
