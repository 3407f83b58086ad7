"""Compressed answers: understood where they come, and ended in bounded memory."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from actors.outbound import Kind, OutboundError
from tests.servers import faults
from tests.servers.faults import Fault
from tests.unit.test_outbound_answers import BODY, Bodies, failed, get

# A time in it would make the names of tests differ from one process that collects them to another.
PACKED = gzip.compress(BODY, mtime=0)


@pytest.fixture
def server() -> Iterator[Bodies]:
    with Bodies() as server:
        yield server


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "GZIP"])
def test_a_compressed_answer_is_understood_though_none_was_asked_for(
    server: Bodies, encoding: str
) -> None:
    packed = zlib.compress(BODY) if encoding == "deflate" else gzip.compress(BODY)
    server.fail(faults.status(200, {"Content-Encoding": encoding}, packed))
    assert get(server) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_bomb_meets_the_limit_and_not_the_memory(
    server: Bodies, encoding: str
) -> None:
    fault = faults.bomb(encoding, 200_000_000)
    parts = list(fault.parts())
    fault.parts = lambda: parts
    server.fail(fault)
    tracemalloc.start()
    tracemalloc.reset_peak()
    try:
        with pytest.raises(OutboundError) as caught:
            # What is read is within the limit; what it holds is not.
            get(server, limit=400_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.kind is Kind.TOO_LARGE
    assert fault.fired == 1
    assert peak < 5_000_000


def _endless_nothing() -> Iterator[bytes]:
    """Compressed blocks without content, for ever: nothing comes out, and much goes in."""
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n"
    packer = zlib.compressobj()
    first = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"%x\r\n%s\r\n" % (len(first), first)
    block = b"\x00\x00\x00\xff\xff" * 1000
    while True:
        yield b"%x\r\n%s\r\n" % (len(block), block)


def test_a_compressed_answer_of_nothing_ends_too(server: Bodies) -> None:
    fault = Fault("empty blocks", parts=_endless_nothing)
    assert failed(server, fault).kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("encoding", "body", "kind"),
    [
        ("br", b"\x8b\x02\x80hello\x03", Kind.BAD_ANSWER),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x00", Kind.BAD_ANSWER),
        ("gzip, gzip", gzip.compress(PACKED, mtime=0), Kind.BAD_ANSWER),
        ("compress", b"\x1f\x9d\x90", Kind.BAD_ANSWER),
        ("\xff\xfe", b"", Kind.BAD_ANSWER),
        ("gzip", b"no gzip at all", Kind.BAD_ANSWER),
        ("gzip", PACKED + b"more", Kind.BAD_ANSWER),
        ("gzip", PACKED + PACKED, Kind.BAD_ANSWER),
        ("gzip", PACKED[:-4], Kind.CLOSED),
    ],
)
def test_other_encodings_and_broken_ones_are_refused(
    server: Bodies, encoding: str, body: bytes, kind: Kind
) -> None:
    assert failed(server, faults.status(200, {"Content-Encoding": encoding}, body)).kind is kind
