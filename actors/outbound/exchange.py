"""One request and the head of its answer, by the HTTP library; its errors become ours.

`httpcore` is the transport of `httpx`. It takes what connections are opened with, which is where
addresses are checked, and has no redirects, cookies, proxies or decoding of its own.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpcore

from actors.outbound.dialer import Dialer
from actors.outbound.errors import Kind, OutboundError
from actors.outbound.metered import Metered
from actors.outbound.target import Target
from config import VERSION
from config.settings import NetworkSettings

USER_AGENT: Final = f"skyshard/{VERSION}"
_IDLE_SECONDS: Final = 15.0
_IDLE: Final = 20


BROKEN: Final = (
    httpcore.RemoteProtocolError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    OSError,
)
"""What the library raises when a connection breaks, or an answer is none."""


class Exchange:
    """The connections, and what goes over them."""

    def __init__(self, settings: NetworkSettings, tls: ssl.SSLContext, dialer: Dialer) -> None:
        self._answer_seconds = settings.answer_seconds
        self._timeouts = {
            "connect": settings.connect_seconds,
            "write": settings.answer_seconds,
            "read": None,
            "pool": settings.answer_seconds,
        }
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=settings.connections,
            max_keepalive_connections=_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=dialer,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    @asynccontextmanager
    async def head(
        self,
        target: Target,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        limit: int,
        seconds: float,
    ) -> AsyncIterator[httpcore.Response]:
        """Send a request, and give the answer when its head is there.

        Raises OutboundError: what the dialer raises, TLS, TIMEOUT, CLOSED, BAD_ANSWER.
        """
        request = self._request(target, method, headers, body)
        try:
            async with asyncio.timeout(max(min(self._answer_seconds, seconds), 0.0)):
                response = await self._pool.handle_async_request(request)
        except TimeoutError:
            detail = f"no answer within {min(self._answer_seconds, seconds):.1f} s"
            raise OutboundError(Kind.TIMEOUT, target.host, detail) from None
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            # The connection itself is the dialer's business, so this is what came after it.
            raise OutboundError(Kind.TLS, target.host, f"no TLS: {_short(error)}") from None
        except BROKEN as error:
            raise broken(target.host, error) from None
        stream = response.extensions["network_stream"]
        if isinstance(stream, Metered):
            stream.expect(limit)
        try:
            yield response
        finally:
            await response.aclose()

    def _request(
        self, target: Target, method: str, headers: Mapping[str, str], body: bytes | None
    ) -> httpcore.Request:
        fields = {
            "Host": target.authority,
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        given = {name.title(): text for name, text in headers.items()}
        if body is not None:
            given["Content-Length"] = str(len(body))
        return httpcore.Request(
            method,
            httpcore.URL(
                scheme=target.scheme,
                host=target.host,
                port=target.port,
                target=target.path,
            ),
            headers=list((fields | given).items()),
            content=body,
            extensions={"timeout": self._timeouts},
        )


def broken(host: str, error: Exception) -> OutboundError:
    """What a connection that broke, or an answer that is none, is for the caller."""
    text = _short(error)
    # The library has one error for an answer that breaks off and one that is malformed.
    torn = "disconnected" in text or "closed" in text
    if isinstance(error, httpcore.RemoteProtocolError) and not torn:
        return OutboundError(Kind.BAD_ANSWER, host, f"its answer is not HTTP: {text}")
    return OutboundError(Kind.CLOSED, host, f"the connection broke: {text}")


def _short(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return ascii(line if len(line) <= 160 else line[:157] + "...")[1:-1]
