"""One connection to the relay, from its handshake to its end."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from bench.relay_faults import FUTURE_CURSOR, garbage, websocket_header

if TYPE_CHECKING:
    from bench.relay import Relay

PATH: Final = "/xrpc/com.atproto.sync.subscribeRepos"
_CHUNK_FRAMES: Final = 256
_CHUNK_BYTES: Final = 256 * 1024


class Subscriber:
    """One connection, from its handshake to its end."""

    def __init__(
        self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._relay = relay
        self._reader = reader
        self._writer = writer
        self._protocol = ServerProtocol()

    async def run(self) -> None:
        request = await self._handshake()
        if request is None:
            return
        sending = asyncio.ensure_future(self._send_frames(request))
        receiving = asyncio.ensure_future(self._receive())
        try:
            done, _ = await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)

    async def _handshake(self) -> Request | None:
        """The request, accepted; None when it was refused or never came."""
        options, counters = self._relay.options, self._relay.counters
        events: list[Any] = []
        while not events:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
        request = events[0]
        if not isinstance(request, Request):
            return None
        if options.slow_start:
            await asyncio.sleep(options.slow_start)
        if counters.refused < options.refuse_first:
            counters.refused += 1
            response = self._protocol.reject(503, "not now\n")
        elif urlsplit(request.path).path != PATH:
            response = self._protocol.reject(404, f"only {PATH} is here\n")
        else:
            response = self._protocol.accept(request)
        self._protocol.send_response(response)
        await self._flush()
        if self._protocol.state is not State.OPEN:
            return None
        counters.connections += 1
        return request

    async def _receive(self) -> None:
        """Answers pings and closes until the client is gone."""
        over = False
        while not over and (data := await self._reader.read(65536)):
            self._protocol.receive_data(data)
            self._protocol.events_received()
            over = await self._flush()

    async def _flush(self) -> bool:
        """Writes what the protocol has to say; True when that was the last of it."""
        over = False
        for data in self._protocol.data_to_send():
            over = over or not data
            self._writer.write(data)
        await self._writer.drain()
        return over

    async def _send_frames(self, request: Request) -> None:
        relay = self._relay
        values = parse_qs(urlsplit(request.path).query).get("cursor")
        cursor = int(values[0]) if values and values[0].isdigit() else None
        relay.counters.cursors.append(cursor)
        index, first = relay.start_of(cursor)
        if first:
            self._writer.write(websocket_header(len(first)) + first)
        if first == FUTURE_CURSOR:
            await self._close(1008)
            return
        clock = asyncio.get_running_loop().time
        began, start, pace = clock(), index, relay.options.replay_rate
        while True:
            head = relay.head()
            if pace:
                head = min(head, start + int((clock() - began) * pace) + 1)
            if index < head:
                if not await self._pass_faults(index):
                    return
                index = await self._send_chunk(index, relay.next_fault(index + 1, head))
            elif pace or relay.options.rate:
                await relay.wait_for_news(min(0.02, 1 / (pace or relay.options.rate)))
            else:
                await relay.wait_for_news(1.0)

    async def _send_chunk(self, index: int, end: int) -> int:
        """Writes frames up to ``end`` or a chunk's worth; returns the index of the next."""
        frames, size = self._relay.frames, 0
        pieces: list[bytes | memoryview] = []
        end = min(end, index + _CHUNK_FRAMES)
        while index < end and size < _CHUNK_BYTES:
            frame = frames[index]
            size += len(frame)
            pieces.append(websocket_header(len(frame)))
            pieces.append(frame)
            index += 1
        self._writer.write(b"".join(pieces))
        self._relay.counters.frames += len(pieces) // 2
        self._relay.counters.bytes += size
        await self._writer.drain()
        return index

    async def _pass_faults(self, index: int) -> bool:
        """Lets the faults before this frame happen; False when the connection ended by one."""
        while (waiting := self._relay.due(index)) is not None:
            number, fault = waiting
            self._relay.fire(number, fault.kind)
            match fault.kind:
                case "close":
                    await self._close(1001)
                    return False
                case "reset":
                    reset(self._writer)
                    return False
                case "mid_frame":
                    frame = self._relay.frames[index]
                    header = websocket_header(len(frame))
                    self._writer.write(header + frame[: len(frame) // 2])
                    # What was written must leave this process before the end is announced.
                    self._writer.transport.set_write_buffer_limits(0)
                    await self._writer.drain()
                    return False
                case "refuse":
                    await self._relay.refuse(fault.seconds)
                    reset(self._writer)
                    return False
                case "stall":
                    await asyncio.sleep(fault.seconds or 1e9)
                case _:
                    self._writer.write(garbage(fault))
                    await self._writer.drain()
        return True

    async def _close(self, code: int) -> None:
        """Says goodbye and gives the client five seconds to answer; `run` ends with its answer."""
        self._protocol.send_close(code, "")
        await self._flush()
        await asyncio.sleep(5)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection by a TCP reset: what the client has not read is lost to it."""
    if not writer.is_closing():
        linger = struct.pack("ii", 1, 0)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
