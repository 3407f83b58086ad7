"""A small HTTP server for a few pages that are made anew for each request.

Limits come first, as whoever reaches the port may speak to it: the size of a request, the time for
all of it, and the number of connections. It serves GET and HEAD, one request a connection.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

REQUEST_BYTES: Final = 8192
REQUEST_SECONDS: Final = 5.0
CONNECTIONS: Final = 64


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections there. Raises OSError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS)


class PageServer:
    """Serves in a thread of its own, with an event loop of its own.

    ``answer`` is called there with the path of each request, without its query, and must not wait
    for anything. It may be anything thread-safe; an exception of it ends the server.
    """

    def __init__(self, host: str, port: int, answer: Callable[[str], Page]) -> None:
        self._host = host
        self._port = port
        self._answer = answer
        self._open = 0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._serving = threading.Event()

    def start(self) -> str:
        """Binds and serves; returns the URL. Raises OSError when the address cannot be had."""
        self._socket = listen(self._host, self._port)
        self._thread.start()
        self._serving.wait(REQUEST_SECONDS)
        port = self._socket.getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    def check(self) -> None:
        """Raises RuntimeError when the thread has ended although nobody stopped it."""
        if not self._thread.is_alive():
            raise RuntimeError("the thread of the HTTP server has ended") from self._failure

    def stop(self) -> None:
        """Ends the thread; open connections are cut."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(REQUEST_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - check() raises it where the actor sees it
            self._failure = error

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=REQUEST_BYTES)
        self._serving.set()
        await self._stopped.wait()
        server.close()
        if self._failure is not None:
            raise self._failure

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # a client that is slow or gone is answered by the end of its connection
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            head = b""
        page, with_body = self._page(head)
        lines = (
            f"HTTP/1.1 {page.status.value} {page.status.phrase}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            "",
            "",
        )
        writer.write("\r\n".join(lines).encode("ascii") + (page.body if with_body else b""))
        await writer.drain()
        writer.write_eof()
        await reader.read(1)  # so that the end of the connection does not overtake the answer

    def _page(self, head: bytes) -> tuple[Page, bool]:
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST), True
        method, target = words[0], words[1]
        if method not in {b"GET", b"HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED), True
        path = target.partition(b"?")[0].decode("ascii", "replace")
        try:
            return self._answer(path), method == b"GET"
        except Exception as error:  # noqa: BLE001 - it ends the server, and check() raises it
            self._failure = error
            self._stopped.set()
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR), True


def _plain(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())
