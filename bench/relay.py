"""A relay on loopback: serves a capture over a real websocket and can be told to misbehave.

``python -m bench.relay FILE`` prints its URL and serves until it is interrupted; without a file it
serves an empty stream. Tests use :class:`Relay` in their own event loop or
:mod:`bench.relay_process` in a process of its own.
Handshake, pings and closes are those of ``websockets``; events are written past it, many in one
write, so that the relay is never what a benchmark measures.
"""

import argparse
import asyncio
import contextlib
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Self

import msgspec

from bench.relay_faults import FUTURE_CURSOR, OUTDATED_CURSOR, Fault
from bench.relay_frames import FrameStore
from bench.relay_options import Command, RelayCounters, RelayOptions
from bench.relay_subscriber import Subscriber, reset


class Relay:
    """An async context manager; ``url`` is known inside it."""

    def __init__(self, frames: FrameStore, options: RelayOptions | None = None, port: int = 0):
        self.frames = frames
        self.options = options or RelayOptions()
        self.counters = RelayCounters()
        self._port = port
        self._held = len(frames) if self.options.held is None else self.options.held
        self._began: float | None = None
        self._left = Counter(
            {index: fault.times for index, fault in enumerate(self.options.faults)}
        )
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._again: asyncio.Future[None] | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._again is not None:
            self._again.cancel()
        await self.refuse()
        self.disconnect()

    async def listen(self) -> None:
        """Accepts connections (again, on the same port)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self, seconds: float = 0.0) -> None:
        """Refuses new connections, as a host without a relay does; open ones stay.

        With ``seconds`` it listens again after that time.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        if seconds:
            self._again = asyncio.ensure_future(self._listen_after(seconds))

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.listen()

    def disconnect(self) -> None:
        """Resets every open connection."""
        for writer in list(self._writers):
            reset(writer)

    async def publish(self, frames: list[bytes]) -> None:
        """Appends frames to the stream; they exist at once."""
        self.frames.publish(frames)
        self._held += len(frames)
        async with self._news:
            self._news.notify_all()

    def head(self) -> int:
        """How many frames exist now."""
        if self._began is None:
            return min(self._held, len(self.frames))
        if not self.options.rate:
            return len(self.frames)
        passed = asyncio.get_running_loop().time() - self._began
        return min(self._held + int(passed * self.options.rate), len(self.frames))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.counters.open += 1
        if self.options.send_buffer:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, self.options.send_buffer
            )
        subscriber = Subscriber(self, reader, writer)
        try:
            await subscriber.run()
        except ConnectionError:
            pass  # the client went away, which is its right
        finally:
            self._writers.discard(writer)
            self.counters.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def start_of(self, cursor: int | None) -> tuple[int, bytes]:
        """The index a subscription starts at, and what it is told first (b"": nothing)."""
        head = self.head()
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        if cursor is None:
            return head, b""
        index = self.frames.first_at(cursor if self.options.inclusive else cursor + 1, head)
        newest = self.frames.seq(head - 1) if head else -1
        if self.options.future_error and cursor > newest:
            return head, FUTURE_CURSOR
        if index < self.options.oldest:
            return self.options.oldest, OUTDATED_CURSOR if self.options.outdated_info else b""
        return index, b""

    def due(self, index: int) -> tuple[int, Fault] | None:
        """The first fault that still has to fire before the frame with this index."""
        for number, fault in enumerate(self.options.faults):
            if fault.at == index and self._left[number] > 0:
                return number, fault
        return None

    def next_fault(self, index: int, end: int) -> int:
        """The index of the first frame in this range that a fault waits at, else ``end``."""
        waiting = (
            fault.at
            for number, fault in enumerate(self.options.faults)
            if self._left[number] > 0 and index <= fault.at < end
        )
        return min(waiting, default=end)

    def fire(self, number: int, kind: str) -> None:
        self._left[number] -= 1
        self.counters.fired[kind] = self.counters.fired.get(kind, 0) + 1

    async def wait_for_news(self, seconds: float) -> None:
        """Returns when frames were published or this time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait()


async def _obey(relay: Relay) -> None:
    """Does what standard input says, line by line, until it ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 28)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = msgspec.json.decode(line, type=Command)
        match command.do:
            case "publish":
                await relay.publish(list(command.frames))
            case "refuse":
                await relay.refuse(command.seconds)
            case "listen":
                await relay.listen()
            case "disconnect":
                relay.disconnect()
            case "counters":
                pass  # every command is answered with them
        print(msgspec.json.encode(relay.counters).decode(), flush=True)


async def _run(path: Path | None, options: RelayOptions, port: int, *, obey: bool) -> None:
    frames = FrameStore.of_capture(path) if path else FrameStore()
    async with Relay(frames, options, port) as relay:
        if path is None and not obey:
            print("relay: no file, so the stream is empty", file=sys.stderr, flush=True)
        print(relay.url, flush=True)
        if obey:
            await _obey(relay)
        else:
            await asyncio.get_running_loop().create_future()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument(
        "file", type=Path, nargs="?", help="capture to serve (none: an empty stream)"
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--rate", type=float, help="events a second (default: all are there)")
    parser.add_argument(
        "--options",
        default="{}",
        help="RelayOptions as JSON:"
        """ '{"replay_rate": 500, "faults": [{"kind": "reset", "at": 99}]}'""",
    )
    parser.add_argument("--obey", action="store_true", help="take commands on standard input")
    arguments = parser.parse_args()
    try:
        options = msgspec.json.decode(arguments.options, type=RelayOptions)
        if arguments.rate:
            options = msgspec.structs.replace(options, held=0, rate=arguments.rate)
        asyncio.run(_run(arguments.file, options, arguments.port, obey=arguments.obey))
    except (OSError, ValueError) as error:
        print(f"relay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
