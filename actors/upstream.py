"""A websocket client of a firehose: the life of one connection, from the attempt to its ending.

No retries and no state of the stream here: who runs a connection is told how it ended, and decides.
The library's defaults are wrong for a firehose and none of them is used: messages of 1 MiB at most,
compression, keepalive. Its keepalive waits for a pong, which arrives behind the data: a sink that
slows the socket would end the connection. So pings go out on a silent line only, which keeps it
open on the way, and what tells that the upstream is gone is the silence itself.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import MultipleValuesError
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    WebSocketException,
)
from websockets.frames import CloseCode
from websockets.protocol import State

MAX_QUEUE: Final = 16
"""Messages that the library holds before it stops reading; ours are moved on at once."""

CLOSE_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 1.0

UNTAKEN_BYTES: Final = 1024 * 1024
"""Our answers to the upstream's pings that it may leave untaken. We write nothing else, and the
library answers whether or not there is room, so more than this would fill the memory."""

_LONGEST_RETRY_AFTER: Final = 600.0
_COMPLAINTS_OF_A_MESSAGE: Final = frozenset((CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG))
_ERRNO: Final = re.compile(r"\[Errno (\d{1,4})\]")


class End(StrEnum):
    """How a connection ended."""

    UNREACHABLE = "unreachable"  # there was none: no address, no route, no answer, a refusal
    CLOSED = "closed"  # the upstream closed it, or the line broke
    STALLED = "stalled"  # it was open, and nothing came
    BROKEN = "broken"  # the upstream broke the websocket protocol; a capture is no capture
    UNRECEIVABLE = "unreceivable"  # a message that is too large, or text that is none
    DROPPED = "dropped"  # we gave it up
    EXHAUSTED = "exhausted"  # a capture was read to its end


@dataclass(frozen=True, slots=True)
class Ending:
    """The last thing that a connection delivers. `reason` is short and fit for a log line.

    `passed` is the number of the last event of a capture that ends before the event asked for; -1
    where it has none.
    """

    end: End
    reason: str = ""
    retry_after: float = 0.0
    passed: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The first thing that a connection delivers: the upstream answered."""


Item = bytes | str | Opened | Ending
"""What a connection delivers, in order: `Opened`, frames (text ones as `str`), `Ending`."""

Deliver = Callable[[Item], Awaitable[None]]
"""Takes one item; waits while there is no room for it, and with it the socket."""


class Upstream(Protocol):
    """Where frames come from: a relay, or a capture."""

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        """Deliver `Opened` and the frames after `cursor` (None: from now on) until an ending.

        What is at or before the cursor may come as well. Raises nothing but CancelledError.
        """


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay or PDS, read over a websocket.

    `address` is the whole URL of subscribeRepos. `stall_seconds` of silence end a connection, a
    ping is sent after `ping_seconds` of it. `proxy` is the URL of a proxy; without one the line is
    direct, whatever the environment says.
    """

    address: str
    max_frame_bytes: int
    stall_seconds: float
    open_seconds: float = 15.0
    ping_seconds: float = 20.0
    proxy: str | None = None
    user_agent: str = "skyshard"

    async def read(self, cursor: int | None, deliver: Deliver) -> Ending:
        """See `Upstream`. An unpaired failure of ours, such as a full memory, is raised."""
        try:
            connection = await self._open(cursor)
        except (OSError, ValueError, MultipleValuesError, WebSocketException) as error:
            return Ending(End.UNREACHABLE, describe(error, self.open_seconds), retry_after(error))
        line = _Line(connection, self.stall_seconds, self.ping_seconds)
        try:
            return await line.run(deliver)
        finally:
            await line.close()

    async def _open(self, cursor: int | None) -> ClientConnection:
        address = self.address if cursor is None else f"{self.address}?cursor={cursor}"
        return await connect(
            address,
            compression=None,
            max_size=self.max_frame_bytes,
            max_queue=MAX_QUEUE,
            open_timeout=self.open_seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=None,
            proxy=self.proxy,
            user_agent_header=self.user_agent,
        )


class _Line:
    """One open connection: moves its messages on, and watches for silence beside that."""

    def __init__(self, connection: ClientConnection, stall: float, ping: float) -> None:
        self._connection = connection
        self._stall = stall
        self._ping = ping
        self._received = 0
        self._delivering = False
        self._given_up = ""

    async def run(self, deliver: Deliver) -> Ending:
        watch = asyncio.create_task(self._watch())
        receive = self._connection.recv
        try:
            await deliver(Opened())
            while True:
                message = await receive()
                self._received += 1
                self._delivering = True
                await deliver(message)
                self._delivering = False
        except ConnectionClosed as error:
            return self._ending(error)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await watch

    def _ending(self, error: ConnectionClosed) -> Ending:
        ours = error.sent
        if ours is not None and not error.rcvd_then_sent:
            why = ours.reason or str(ours.code)
            if ours.code in _COMPLAINTS_OF_A_MESSAGE:
                return Ending(End.UNRECEIVABLE, f"it sent what cannot be received: {why}")
            if ours.code == CloseCode.PROTOCOL_ERROR:
                return Ending(End.BROKEN, f"it broke the protocol: {why}")
        if self._given_up:
            return Ending(End.STALLED, self._given_up)
        return Ending(End.CLOSED, describe(error, 0.0))

    async def _watch(self) -> None:
        """End the connection when it is silent for too long; a sink that is full is no silence.

        And when it takes no answers to its pings, which would pile up here.
        """
        loop = asyncio.get_running_loop()
        seen, since = self._received, loop.time()
        pinged = since
        while True:
            await asyncio.sleep(min(self._stall / 4, self._ping / 2, WATCH_SECONDS))
            now = loop.time()
            if self._connection.state is not State.OPEN:
                # Whatever it sent before the close is here; that it may keep the line is no matter.
                self._connection.transport.abort()
                return
            if self._connection.transport.get_write_buffer_size() > UNTAKEN_BYTES:
                self._give_up("it sends pings and takes no answers")
                return
            if self._delivering or self._received != seen:
                seen, since = self._received, now
            elif now - since >= self._stall:
                self._give_up(f"nothing came for {self._stall:g} s (ingest.stall_seconds)")
                return
            elif now - max(since, pinged) >= self._ping:
                pinged = now
                await self._connection.ping()

    def _give_up(self, why: str) -> None:
        self._given_up = why
        self._connection.transport.abort()

    async def close(self) -> None:
        """Close in order where the peer goes along; never waits longer than CLOSE_SECONDS."""
        transport = self._connection.transport
        if self._delivering or transport.get_write_buffer_size():
            # The closing handshake sits behind data that is not read: by us, or by the peer.
            transport.abort()
        try:
            await self._connection.close()
        finally:
            # In a task that is being cancelled, Python before 3.11.4 takes the library's time limit
            # for that cancellation, and the socket would be left open.
            self._connection.transport.abort()
            await self._connection.wait_closed()


def describe(error: Exception, open_seconds: float) -> str:
    """Say why a connection failed, shortly, without the names of exceptions."""
    if isinstance(error, ConnectionClosed):
        closing = error.rcvd
        if closing is None:
            return "the line broke"
        text = f"it closed the connection ({closing.code})"
        return f"{text}: {_short(closing.reason)}" if closing.reason else text
    if isinstance(error, InvalidStatus):
        return f"it answered with HTTP {error.response.status_code}"
    if isinstance(error, InvalidHandshake):
        return f"it does not speak websocket there: {_short(str(error))}"
    if isinstance(error, MultipleValuesError):
        return f"its answer has more than one header {_short(str(error.args[0]))}"
    if isinstance(error, TimeoutError):
        return f"no answer within {open_seconds:g} s"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {_short(str(error))}"
    if isinstance(error, OSError):
        # With several addresses asyncio raises one error without a number that quotes them all.
        quoted = _ERRNO.search(str(error))
        number = error.errno or (int(quoted[1]) if quoted else 0)
        if number > 0:
            return os.strerror(number).lower()
        if isinstance(error, ConnectionError):
            return "it broke off the handshake"
    return _short(str(error) or type(error).__name__)


def retry_after(error: Exception) -> float:
    """Seconds for which an HTTP answer asked to be left alone (RFC 9110, 10.2.3); 0.0 if none."""
    if not isinstance(error, InvalidStatus):
        return 0.0
    # The last one, should it be there several times.
    text = (error.response.headers.get_all("Retry-After") or [""])[-1]
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        return 0.0
    return min(float(text), _LONGEST_RETRY_AFTER)


def _short(text: str, limit: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
