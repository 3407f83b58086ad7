"""What was given to one shard and is not acknowledged, counted in frames and bytes.

The engine bounds an edge in messages; how much a message holds is ingest's choice, so it is ingest
that keeps the bound in frames. The bytes of the frames are kept by the edge, to be replayed to a
restarted shard; here are only their positions.
"""

from dataclasses import dataclass, field
from typing import Final

from engine.address import Address

MESSAGE_OVERHEAD: Final = 1024
"""Bytes of a message beside its frames: its tag, the host, the list."""

FRAME_OVERHEAD: Final = 5
"""Bytes that the message adds to each frame: the head of a msgpack string of bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The positions of the frames in one message, and the bytes of those frames."""

    positions: list[int]
    size: int


@dataclass(slots=True)
class ShardWindow:
    """The window of one shard, and the batch that is being filled for it.

    Args:
        address: the shard.
        limit_frames, limit_bytes: bounds of all that is not acknowledged, the open batch included.
            One frame is let in whatever its size when there is nothing else.
        batch_frames, batch_bytes: at which a batch is complete. It passes its bytes only by a
            frame that is larger than that alone.

    Attributes:
        due: the open batch has waited long enough, and goes as soon as the edge has room.
        generation: of the shard that is up; 0 for none.
    """

    address: Address
    limit_frames: int
    limit_bytes: int
    batch_frames: int
    batch_bytes: int
    frames: list[bytes] = field(default_factory=list, init=False)
    positions: list[int] = field(default_factory=list, init=False)
    size: int = field(default=0, init=False)
    unacked_frames: int = field(default=0, init=False)
    unacked_bytes: int = field(default=0, init=False)
    due: bool = field(default=False, init=False)
    generation: int = field(default=0, init=False)

    def fits(self, size: int) -> bool:
        """Whether a frame of this many bytes keeps the window within its bounds."""
        if self.unacked_frames == 0:
            return True
        return (
            self.unacked_frames < self.limit_frames
            and self.unacked_bytes + size <= self.limit_bytes
        )

    def joins(self, size: int) -> bool:
        """Whether a frame of this many bytes still goes into the open batch."""
        count = len(self.frames)
        if count == 0:
            return True
        return count < self.batch_frames and self.size + size <= self.batch_bytes

    def add(self, position: int, frame: bytes) -> bool:
        """Put a frame into the open batch; True when that completes it."""
        size = len(frame)
        self.frames.append(frame)
        self.positions.append(position)
        self.size += size
        self.unacked_frames += 1
        self.unacked_bytes += size
        return len(self.frames) >= self.batch_frames or self.size >= self.batch_bytes

    @property
    def message_size(self) -> int:
        """An upper bound of the bytes of a message that carries the open batch."""
        return self.size + FRAME_OVERHEAD * len(self.frames) + MESSAGE_OVERHEAD

    def cut(self) -> tuple[list[bytes], Batch]:
        """Close the open batch; returns its frames and what `release` takes once it is acked."""
        frames, batch = self.frames, Batch(self.positions, self.size)
        self.frames, self.positions, self.size, self.due = [], [], 0, False
        return frames, batch

    def release(self, batch: Batch) -> None:
        """The shard has acknowledged a batch."""
        self.unacked_frames -= len(batch.positions)
        self.unacked_bytes -= batch.size
