"""A labeler: `com.atproto.label.subscribeLabels` over a websocket, with a cursor."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from actors.atproto import cbor, frames
from tests.servers.labels import error_frame, labels_frame
from tests.servers.loopback import Loopback, let_none_in

PATH = "/xrpc/com.atproto.label.subscribeLabels"


class Labeler(Loopback):
    """Serves frames after the cursor of a subscriber, and later ones as they come.

    `cursors` has the cursor of every subscription (None: from now on). `close_after` ends a
    connection after so many frames, `refuse_with` is the HTTP status that every subscription gets,
    `silent` leaves subscriptions without any frame.
    """

    def __init__(self, recorded: Iterable[bytes] = (), tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.cursors: list[int | None] = []
        self.close_after: int | None = None
        self.refuse_with: int | None = None
        self.silent = False
        self._frames = [(_seq(frame), frame) for frame in recorded]
        self._tls = tls
        self._server: Server | None = None
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        """The endpoint, as a DID document has it."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def last(self) -> int:
        """The number of the last frame; 0 without any."""
        return self._frames[-1][0] if self._frames else 0

    def publish(self, *labels: dict[str, Any]) -> int:
        """Send labels to all subscribers in one frame, and give its number."""
        seq = self.last + 1
        self.send(labels_frame(seq, *labels), seq)
        return seq

    def send(self, frame: bytes, seq: int | None = None) -> None:
        """Send any bytes; those without a number come to later subscribers too, after the last."""
        self.run(self._append(self.last if seq is None else seq, frame))

    async def open(self) -> None:
        self._server = await serve(
            self._subscribe,
            "127.0.0.1",
            self.port,
            ssl=self._tls,
            compression=None,
            process_request=self._admit,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        await let_none_in(self._server.sockets)
        await self._disconnect()
        self._server.close()
        await self._server.wait_closed()

    def refuse(self) -> None:
        """Refuse connections from here on, and reset those that are open."""
        self.run(self.close())

    def listen(self) -> None:
        """Take connections again, at the same port."""
        self.run(self.open())

    def disconnect(self) -> None:
        """Reset every open connection."""
        self.run(self._disconnect())

    async def _disconnect(self) -> None:
        assert self._server is not None
        for connection in list(self._server.connections):
            connection.transport.abort()

    async def _append(self, seq: int, frame: bytes) -> None:
        async with self._news:
            self._frames.append((seq, frame))
            self._news.notify_all()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse_with is not None:
            return connection.respond(self.refuse_with, "no")
        if urlsplit(request.path).path != PATH:
            return connection.respond(404, "not here")
        return None

    async def _subscribe(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        given = parse_qs(urlsplit(connection.request.path).query).get("cursor")
        cursor = None if given is None else int(given[0])
        self.cursors.append(cursor)
        try:
            if cursor is not None and cursor > self.last:
                await connection.send(error_frame("FutureCursor", "Cursor in the future."))
                return
            await self._serve(connection, cursor)
        except ConnectionClosed:
            pass  # the subscriber went away

    async def _serve(self, connection: ServerConnection, cursor: int | None) -> None:
        at = sum(seq <= cursor for seq, _ in self._frames) if cursor is not None else None
        at = len(self._frames) if at is None else at
        sent = 0
        while True:
            while at < len(self._frames) and not self.silent:
                if self.close_after is not None and sent >= self.close_after:
                    return
                await connection.send(self._frames[at][1])
                at, sent = at + 1, sent + 1
            closed = asyncio.ensure_future(connection.wait_closed())
            news = asyncio.ensure_future(self._more(at))
            await asyncio.wait((closed, news), return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if closed.done():
                return
            closed.cancel()

    async def _more(self, at: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: len(self._frames) > at and not self.silent)


def outdated_cursor() -> bytes:
    """The frame that tells that older labels are not kept."""
    return frames.encode(
        "#info", {"name": "OutdatedCursor", "message": "Requested cursor exceeded"}
    )


def _seq(frame: bytes) -> int:
    _, body = cbor.decode_pair(frame)
    seq: int = body["seq"]
    return seq
