"""How a server misbehaves."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

_PIECE = b"x" * 65536


@dataclass
class Fault:
    """One way to misbehave, for paths that begin with `path`, `times` times (None: for ever).

    `fired` tells how often it did; a fault that a test injects must be proven to have fired.
    """

    name: str
    path: str = "/"
    times: int | None = None
    seconds: float = 0.0
    parts: Callable[[], Iterable[bytes]] = field(default=lambda: ())
    needs_answer: bool = False
    fired: int = 0

    def takes(self, path: str) -> bool:
        """Whether it is the turn of this fault."""
        return path.startswith(self.path) and (self.times is None or self.fired < self.times)


def status(
    code: int,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
    *,
    path: str = "/",
    times: int | None = None,
) -> Fault:
    """Another status, with headers and a body of one's own."""
    fields = {"Content-Type": "application/json", **(headers or {})}
    return Fault("status", path, times, parts=lambda: _whole(code, fields, body))


def redirect(location: str, code: int = 302, *, path: str = "/", times: int | None = None) -> Fault:
    """Lead elsewhere."""
    return status(code, {"Location": location}, path=path, times=times)


def content(body: bytes, *, path: str = "/", times: int | None = None) -> Fault:
    """Something else than what was asked for."""
    return status(200, body=body, path=path, times=times)


def slow(seconds: float, *, path: str = "/", times: int | None = None) -> Fault:
    """The right answer, after a while."""
    return Fault("slow", path, times, seconds, needs_answer=True)


def trickle(seconds: float, *, path: str = "/", times: int | None = None) -> Fault:
    """The right answer, whose body comes byte by byte with a pause before each."""
    return Fault("trickle", path, times, seconds, needs_answer=True)


def stall(
    *parts: bytes, seconds: float = 3600.0, path: str = "/", times: int | None = None
) -> Fault:
    """These bytes, and then nothing more for a while."""
    return Fault("stall", path, times, seconds, parts=lambda: parts)


def slow_head(seconds: float, *, path: str = "/", times: int | None = None) -> Fault:
    """A head that comes byte by byte with a pause before each, and never ends."""
    return Fault("slow_head", path, times, seconds)


def hang(*, path: str = "/", times: int | None = None) -> Fault:
    """No answer at all, and the connection stays open."""
    return Fault("hang", path, times)


def drop(*, path: str = "/", times: int | None = None) -> Fault:
    """The connection is reset in place of an answer."""
    return Fault("drop", path, times)


def cut(*, path: str = "/", times: int | None = None) -> Fault:
    """The right answer, whose second half is missing."""
    return Fault("cut", path, times, needs_answer=True)


def raw(*parts: bytes, path: str = "/", times: int | None = None) -> Fault:
    """These bytes, whatever they mean; then the connection ends."""
    return Fault("raw", path, times, parts=lambda: parts)


def endless(*, path: str = "/", times: int | None = None) -> Fault:
    """A body without end, as quickly as it is taken."""
    return Fault("endless", path, times, parts=_endless)


def endless_head(*, path: str = "/", times: int | None = None) -> Fault:
    """Headers without end, as quickly as they are taken."""
    return Fault("endless_head", path, times, parts=_endless_head)


def endless_interim(*, path: str = "/", times: int | None = None) -> Fault:
    """Interim answers (100) without end."""
    return Fault("endless_interim", path, times, parts=_endless_interim)


def bomb(encoding: str, size: int, *, path: str = "/", times: int | None = None) -> Fault:
    """So many bytes of nothing, compressed."""
    return Fault("bomb", path, times, parts=lambda: _bomb(encoding, size))


async def act(fault: Fault, right: Iterable[bytes], writer: asyncio.StreamWriter) -> bool:
    """Misbehave, where the right answer would be these parts. Whether the connection goes on."""
    if fault.name == "hang":
        await asyncio.Event().wait()
    if fault.name == "drop":
        return False
    if fault.name == "slow":
        await asyncio.sleep(fault.seconds)
    if fault.needs_answer:
        head, *body = right
        return await _bent(fault, head, b"".join(body), writer)
    if fault.name == "slow_head":
        await _slowly(b"HTTP/1.1 200 OK\r\nX-Long: " + _PIECE, fault.seconds, writer)
    for part in fault.parts():
        if writer.is_closing():
            # Under TLS what is written to a client that has left is no error, only lost.
            return False
        writer.write(part)
        await writer.drain()
    if fault.name == "stall":
        await asyncio.sleep(fault.seconds)
    return fault.name == "status"


async def _bent(fault: Fault, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(head)
    if fault.name == "trickle":
        await _slowly(body, fault.seconds, writer)
    elif fault.name == "cut":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        return False
    else:
        writer.write(body)
    await writer.drain()
    return True


async def _slowly(data: bytes, seconds: float, writer: asyncio.StreamWriter) -> None:
    for value in data:
        await asyncio.sleep(seconds)
        writer.write(bytes((value,)))
        await writer.drain()


def _whole(code: int, headers: Mapping[str, str], body: bytes) -> Iterable[bytes]:
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    yield f"HTTP/1.1 {code} Status\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1")
    yield body


def _endless() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE)


def _endless_head() -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Header: " + b"y" * 1000 + b"\r\n"


def _endless_interim() -> Iterable[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def _bomb(encoding: str, size: int) -> Iterable[bytes]:
    packed = gzip.compress(bytes(size)) if "gzip" in encoding else zlib.compress(bytes(size))
    yield from _whole(200, {"Content-Encoding": encoding}, packed)
