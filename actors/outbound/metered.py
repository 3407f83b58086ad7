"""A connection that gives up on an answer whose wrapping outweighs it.

The HTTP library bounds what it holds, not what it throws away: interim answers, the extensions of
chunks. As quickly as the line allows, that would keep a processor busy for the whole of a timeout.
"""

import ssl
from typing import Any, Final

import httpcore

from actors.outbound.errors import Kind, OutboundError

HEAD_BYTES: Final = 256 * 1024
"""What may come before the head of an answer is complete, interim answers included."""


class Metered(httpcore.AsyncNetworkStream):
    """A stream that counts what came since the last request. Reading raises OutboundError."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._received = 0
        self._limit = HEAD_BYTES

    def expect(self, body: int) -> None:
        """The head is there; a body of so many bytes may follow, and as much again around it."""
        self._limit = self._received + 2 * body + HEAD_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._received += len(data)
        if self._received > self._limit:
            raise OutboundError(
                Kind.BAD_ANSWER, self._host, "there is more around its answer than in it"
            )
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._received = 0
        self._limit = HEAD_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return Metered(stream, self._host)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
