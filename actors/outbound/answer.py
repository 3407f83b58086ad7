"""An answer while it comes: bounded in bytes, in time, and in slowness."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Final

import httpcore

from actors.outbound.errors import Kind, OutboundError
from actors.outbound.exchange import BROKEN, broken

_PIECE: Final = 65536
# gzip and zlib, told apart by their headers.
_WINDOW: Final = 47
# What an empty body may weigh compressed.
_WRAPPING: Final = 1024


class Answer:
    """The head of an answer, and its body piece by piece. Read it once, by iterating or `read`.

    `headers` has lower-case names; of several headers with one name the values stand with commas
    between them.

    Reading raises OutboundError: TOO_LARGE, TOO_SLOW, TIMEOUT, CLOSED, BAD_ANSWER.
    """

    def __init__(
        self,
        host: str,
        response: httpcore.Response,
        *,
        limit: int,
        deadline: float,
        floor_bytes: int,
        floor_seconds: float,
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _joined(response.headers)
        self._host = host
        self._response = response
        self._limit = limit
        self._deadline = deadline
        self._floor_bytes = floor_bytes
        self._floor_seconds = floor_seconds
        self._received = 0
        self.finished = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self._pieces()])

    async def _pieces(self) -> AsyncIterator[bytes]:
        self._check_length()
        decoder = self._decoder()
        size = 0
        async for received in self._raw():
            for piece in [received] if decoder is None else self._decoded(decoder, received):
                size += len(piece)
                if size > self._limit:
                    raise self._too_large()
                yield piece
        if decoder is not None and not decoder.eof and self._received:
            raise self._error(Kind.CLOSED, "its compressed answer breaks off")
        self.finished = True

    async def _raw(self) -> AsyncIterator[bytes]:
        """The body as it came. Only the time for which we wait is judged, not that of the caller.

        Waiting spends from a number of seconds that every byte adds to, up to where it began.
        """
        loop = asyncio.get_running_loop()
        stream = aiter(self._response.aiter_stream())
        patience = self._floor_seconds
        while True:
            began = loop.time()
            late = self._deadline - began < patience
            try:
                async with asyncio.timeout(max(min(patience, self._deadline - began), 0.0)):
                    piece = await anext(stream, None)
            except TimeoutError:
                if late:
                    raise self._error(Kind.TIMEOUT, "the answer did not end in time") from None
                detail = f"it sends less than {self._floor_bytes} bytes a second"
                raise self._error(Kind.TOO_SLOW, detail) from None
            except BROKEN as error:
                raise broken(self._host, error) from None
            if piece is None:
                return
            self._received += len(piece)
            if self._received > self._limit + _WRAPPING:
                raise self._too_large()
            spent = loop.time() - began
            patience += len(piece) / self._floor_bytes - spent
            patience = min(patience, self._floor_seconds)
            yield piece

    def _check_length(self) -> None:
        told = self.headers.get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:20]) > self._limit + _WRAPPING:
            raise self._too_large()

    def _decoder(self) -> "zlib._Decompress | None":
        """What undoes the encoding; we ask for none, but files may be stored with one."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding in ("", "identity"):
            return None
        if encoding in ("gzip", "x-gzip", "deflate"):
            return zlib.decompressobj(_WINDOW)
        detail = f"its answer has an encoding that was not asked for: {encoding[:40]!a}"
        raise self._error(Kind.BAD_ANSWER, detail)

    def _decoded(self, decoder: "zlib._Decompress", received: bytes) -> Iterator[bytes]:
        """Undo the encoding in pieces, so that a bomb meets the limit and not the memory."""
        while received:
            try:
                piece = decoder.decompress(received, _PIECE)
            except zlib.error:
                raise self._error(Kind.BAD_ANSWER, "its compressed answer is broken") from None
            if decoder.unused_data:
                detail = "something follows its compressed answer"
                raise self._error(Kind.BAD_ANSWER, detail)
            received = decoder.unconsumed_tail
            if piece:
                yield piece

    def _too_large(self) -> OutboundError:
        detail = f"its answer has more than the {self._limit} bytes that are wanted"
        return self._error(Kind.TOO_LARGE, detail)

    def _error(self, kind: Kind, detail: str) -> OutboundError:
        return OutboundError(kind, self._host, detail)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_text in headers:
        name, text = raw_name.decode("latin-1").lower(), raw_text.decode("latin-1")
        joined[name] = f"{joined[name]}, {text}" if name in joined else text
    return joined
