"""A capture file read like an upstream: with back-pressure, a cursor, and an end."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from actors import capture
from actors.atproto.errors import WireError
from actors.atproto.peek import peek
from actors.upstream import Deliver, End, Ending, Opened

_YIELD_EVERY = 64
"""Frames after which the loop gets a turn, so that a stop is heard while the sink takes all."""


@dataclass(frozen=True, slots=True)
class CaptureSource:
    """The frames of a file, once; what lies behind a cursor is not delivered."""

    path: Path

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        """See `Upstream`; a cursor of None reads all. Ends as EXHAUSTED where all was read."""
        try:
            frames, passed = capture.read(self.path), None
            if cursor is not None:
                frames, passed = _after(cursor, frames)
            count = 0
            for frame in frames:
                if count == 0:
                    await deliver(Opened())
                await deliver(frame)
                count += 1
                if count % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if count == 0:
                await deliver(Opened())
        except capture.CaptureError as error:
            return Ending(End.BROKEN, str(error))
        reason = "the capture has been read to its end"
        return Ending(End.EXHAUSTED, reason, passed=passed if count == 0 else None)


def _after(cursor: int, frames: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
    """The frames from the first event after the cursor on, and the highest number before that.

    Broken ones before it are left out.
    """
    passed = -1
    for frame in frames:
        try:
            seq = peek(frame).seq
        except WireError:
            continue
        if seq is not None and seq > cursor:
            return chain((frame,), frames), passed
        passed = max(passed, -1 if seq is None else seq)
    return frames, passed
