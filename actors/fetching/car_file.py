"""The CAR of a whole repository while it arrives: split, hashed, and kept in a file.

It is in memory only piece by piece; of each block a few bytes are remembered. See `atproto.car` for
the format.
"""

import hashlib
import os
from typing import IO, Final

from actors.atproto import car, cid
from actors.atproto.errors import Reason, WireError
from actors.fetching.block_index import BlockIndex

MAX_BLOCK: Final = 2_000_000
"""Bytes of the largest block that is taken; a record has 1,000,000 at most."""

_MAX_HEADER: Final = 4096
_PIECE: Final = 65_536
_NEEDS_MORE: Final = -1
_KINDS: Final = (cid.DAG_CBOR, cid.RAW)


class CarFile:
    """The blocks of a CAR by CID. Whoever gives the file closes it.

    Args:
        file: an empty file to write to and read from.
        max_blocks: how many blocks there may be.

    Raises WireError as `atproto.car.read` does, and TOO_MANY_ITEMS past `max_blocks`.
    """

    def __init__(self, file: IO[bytes], max_blocks: int) -> None:
        self._file = file
        self._max_blocks = max_blocks
        self._index = BlockIndex()
        self._buffer = bytearray()
        # Bytes that must be there before looking at them is worth while.
        self._need = _PIECE
        self._written = 0
        self._root: bytes | None = None

    @property
    def root(self) -> bytes:
        """The first root of the header."""
        if self._root is None:
            raise WireError(Reason.BAD_CAR, "it ends within its header")
        return self._root

    @property
    def blocks(self) -> int:
        """How many blocks there are, duplicates included."""
        return len(self._index)

    def feed(self, piece: bytes) -> None:
        """Take what came."""
        self._buffer += piece
        if len(self._buffer) >= self._need:
            self._split()

    def end(self) -> None:
        """All has come; from now on it is read."""
        self._split()
        if self._root is None or self._buffer:
            raise WireError(Reason.BAD_CAR, f"it breaks off at byte {self._written}")
        self._file.flush()

    def get(self, name: bytes) -> bytes | None:
        """The block of a CID; None where there is none."""
        place = self._place(name)
        return None if place is None else self._read(place[0] + cid.SIZE, place[1])

    def size(self, name: bytes) -> int | None:
        """The bytes of the block of a CID; None where there is none."""
        place = self._place(name)
        return None if place is None else place[1]

    def _place(self, name: bytes) -> tuple[int, int] | None:
        for offset, size in self._index.places(name[4:]):
            if self._read(offset, cid.SIZE) == name:
                return offset, size
        return None

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def _split(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        start = 0
        if self._root is None:
            start, length = self._length(data, 0, _MAX_HEADER)
            if start == _NEEDS_MORE or len(data) - start < length:
                self._wait(data, _PIECE)
                return
            self._root = _root(data[: start + length])
            start += length
        end = self._blocks(data, start)
        self._file.write(data[:end])
        self._written += end
        self._wait(data[end:], self._need)

    def _wait(self, rest: bytes, need: int) -> None:
        self._buffer += rest
        self._need = max(need, _PIECE)

    def _blocks(self, data: bytes, at: int) -> int:
        """Check and note the whole blocks from `at` on; returns the offset after the last."""
        size, written, index = len(data), self._written, self._index
        sha256 = hashlib.sha256
        self._need = 0
        while at < size:
            start, length = self._length(data, at, MAX_BLOCK + cid.SIZE)
            if start == _NEEDS_MORE:
                break
            end = start + length
            if length < cid.SIZE:
                raise WireError(Reason.BAD_CAR, f"a block of {length} bytes")
            if end > size:
                self._need = end - at
                break
            name = data[start : start + cid.SIZE]
            if not name.startswith(_KINDS):
                raise WireError(Reason.BAD_CID, f"a block named {name.hex()}")
            if sha256(data[start + cid.SIZE : end]).digest() != name[4:]:
                raise WireError(
                    Reason.HASH_MISMATCH, f"the block of {cid.to_text(name)} is another"
                )
            if len(index) >= self._max_blocks:
                raise WireError(Reason.TOO_MANY_ITEMS, f"more than {self._max_blocks} blocks")
            index.add(name[4:], written + start, length - cid.SIZE)
            at = end
        return at

    def _length(self, data: bytes, at: int, most: int) -> tuple[int, int]:
        """The offset after the length at `at`, and the length; `_NEEDS_MORE` where it is not there
        whole.
        """
        value = shift = 0
        while at < len(data):
            byte = data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                if value > most:
                    raise WireError(Reason.BAD_CAR, f"a part of {value} bytes")
                return at, value
            shift += 7
            if shift > 28:
                raise WireError(Reason.BAD_CAR, f"a broken length at byte {self._written + at}")
        return _NEEDS_MORE, 0


def _root(header: bytes) -> bytes:
    return car.read(header).root
