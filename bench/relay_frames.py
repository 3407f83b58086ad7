"""The frames that a relay holds: a capture mapped into memory, and those published since."""

import array
import bisect
import gzip
import mmap
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

import libipld


def write_capture(path: Path, frames: Iterable[bytes]) -> int:
    """Writes frames as a capture, gzipped where the name ends in ``.gz``; returns their number.

    A capture is a repetition of a 32-bit big-endian length and that many bytes.
    """
    count = 0
    with ExitStack() as stack:
        file: IO[bytes] | gzip.GzipFile = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", 1, file, mtime=0))
        for frame in frames:
            file.write(len(frame).to_bytes(4, "big") + frame)
            count += 1
    return count


def seq_of(frame: bytes | memoryview) -> int | None:
    """The ``seq`` of a frame; None for one that has none or cannot be read."""
    try:
        header_and_body = libipld.decode_dag_cbor_multi(bytes(frame))
    except (ValueError, RecursionError):
        return None
    body = header_and_body[1] if len(header_and_body) == 2 else None
    seq = body.get("seq") if isinstance(body, dict) else None
    return seq if isinstance(seq, int) else None


class FrameStore:
    """Frames by index, in the order of the stream, with the ``seq`` of each.

    A frame without a ``seq`` of its own has that of the frame before it.
    """

    def __init__(self) -> None:
        self._view = memoryview(b"")
        self._offsets = array.array("Q", [0])
        self._published: list[bytes] = []
        self._seqs = array.array("Q")

    @classmethod
    def of_capture(cls, path: Path) -> Self:
        """Maps a capture; a gzipped one is unpacked into a temporary file first.

        Raises OSError when it cannot be read and ValueError when it ends within a frame.
        """
        store = cls()
        if path.suffix == ".gz":
            with tempfile.TemporaryFile() as plain, gzip.open(path) as packed:
                shutil.copyfileobj(packed, plain, 1 << 20)
                plain.flush()
                size = plain.tell()
                mapped = mmap.mmap(plain.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        else:
            with path.open("rb") as file:
                size = path.stat().st_size
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
        store._view = memoryview(mapped)
        at = 0
        while at < size:
            start = at + 4
            at = start + int.from_bytes(store._view[at:start], "big")
            if start > size or at > size:
                raise ValueError(f"{path} ends within the frame at byte {start - 4}")
            store._offsets.append(at)
            store._note_seq(store._view[start:at])
        return store

    @classmethod
    def of_frames(cls, frames: Iterable[bytes]) -> Self:
        store = cls()
        store.publish(frames)
        return store

    def publish(self, frames: Iterable[bytes]) -> None:
        """Appends frames at the end of the stream."""
        for frame in frames:
            self._published.append(frame)
            self._note_seq(frame)

    def __len__(self) -> int:
        return len(self._seqs)

    def __getitem__(self, index: int) -> bytes | memoryview:
        mapped = len(self._offsets) - 1
        if index >= mapped:
            return self._published[index - mapped]
        return self._view[self._offsets[index] + 4 : self._offsets[index + 1]]

    def seq(self, index: int) -> int:
        return self._seqs[index]

    def first_at(self, seq: int, end: int) -> int:
        """The index of the first frame, among those before ``end``, whose seq is at least this."""
        return bisect.bisect_left(self._seqs, seq, 0, end)

    def _note_seq(self, frame: bytes | memoryview) -> None:
        seq = seq_of(frame)
        before = self._seqs[-1] if self._seqs else 0
        self._seqs.append(before if seq is None or seq < 0 else seq)
