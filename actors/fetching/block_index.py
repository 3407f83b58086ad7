"""Where each block of a large file is, in 16 bytes a block. Pure.

A dictionary would take some hundred; a repository may have millions of blocks.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

MAX_SIZE: Final = (1 << 24) - 1
"""The largest block that can be noted, in bytes."""

_BUCKETS: Final = 256


class BlockIndex:
    """Places by digest; digests that begin alike are told apart by whoever looks there."""

    def __init__(self) -> None:
        self._starts = [array("Q") for _ in range(_BUCKETS)]
        self._places = [array("Q") for _ in range(_BUCKETS)]
        self._sorted = bytearray(b"\x01" * _BUCKETS)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, digest: bytes, offset: int, size: int) -> None:
        """Note a block. Raises OverflowError past 1 TiB."""
        bucket = digest[0]
        self._starts[bucket].append(int.from_bytes(digest[1:9], "big"))
        self._places[bucket].append(offset << 24 | size)
        self._sorted[bucket] = 0
        self._count += 1

    def places(self, digest: bytes) -> Iterator[tuple[int, int]]:
        """Offset and size of each block that may have this digest."""
        bucket = digest[0]
        if not self._sorted[bucket]:
            self._sort(bucket)
        start = int.from_bytes(digest[1:9], "big")
        starts, places = self._starts[bucket], self._places[bucket]
        at = bisect_left(starts, start)
        while at < len(starts) and starts[at] == start:
            yield places[at] >> 24, places[at] & MAX_SIZE
            at += 1

    def _sort(self, bucket: int) -> None:
        pairs = sorted(zip(self._starts[bucket], self._places[bucket], strict=True))
        self._starts[bucket] = array("Q", [start for start, _place in pairs])
        self._places[bucket] = array("Q", [place for _start, place in pairs])
        self._sorted[bucket] = 1
