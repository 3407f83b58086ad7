"""Capture files: the messages of a firehose, one after the other, as they came.

A capture is, repeated, a 32-bit big-endian length and that many bytes: one websocket message. It
may be compressed with gzip, which the reader sees from its first bytes. Reading holds one frame in
memory.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

DEMO: Final = Path(__file__).parent.parent / "bench" / "demo.frames.gz"
"""The bundled capture: every message of a small real network, from its first."""

MAX_FRAME: Final = 16 * 1024 * 1024
"""More than any frame of the protocol; a greater length means that the file is no capture."""

_GZIP: Final = b"\x1f\x8b"
_LENGTH: Final = 4


class CaptureError(Exception):
    """A capture that cannot be read to its end; the message names the file and the place."""


def read(path: Path) -> Iterator[bytes]:
    """The frames of a capture, in order.

    Raises CaptureError: no such file, broken compression, an impossible length, a file that ends
    within a frame (the frames before it were given).
    """
    number = 0
    try:
        with _open(path) as file:
            while head := file.read(_LENGTH):
                size = int.from_bytes(head, "big")
                if len(head) < _LENGTH:
                    raise _cut(path, number)
                if size > MAX_FRAME:
                    raise CaptureError(
                        f"{path} is no capture: frame {number} would be {size} bytes long"
                    )
                frame = file.read(size)
                if len(frame) < size:
                    raise _cut(path, number)
                number += 1
                yield frame
    except EOFError:
        raise _cut(path, number) from None
    except (OSError, zlib.error) as error:
        raise CaptureError(f"{path} cannot be read after frame {number}: {error}") from error


def write(path: Path, frames: Iterable[bytes]) -> int:
    """Write a capture, compressed where the name ends in `.gz`; gives the number of frames.

    The same frames make the same bytes: the file holds no name and no time. Raises OSError.
    """
    count = 0
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
                for frame in frames:
                    file.write(len(frame).to_bytes(_LENGTH, "big") + frame)
                    count += 1
        else:
            for frame in frames:
                raw.write(len(frame).to_bytes(_LENGTH, "big") + frame)
                count += 1
    return count


def _open(path: Path) -> BinaryIO:
    file = path.open("rb")
    if file.read(len(_GZIP)) == _GZIP:
        file.close()
        return cast("BinaryIO", gzip.open(path, "rb"))
    file.seek(0)
    return file


def _cut(path: Path, number: int) -> CaptureError:
    return CaptureError(f"{path} ends within frame {number}: copy it again or cut it off there")
