"""The life of one connection to a relay, over real sockets on loopback."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from actors.upstream import End, Ending, Item, Opened, Relay, describe

LIMIT = 64 * 1024
Handler = Callable[[ServerConnection], Awaitable[None]]


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def relay(handler: Handler, **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:
        yield f"ws://127.0.0.1:{port_of(server)}/xrpc/com.atproto.sync.subscribeRepos"


def port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def client(address: str, **over: Any) -> Relay:
    settings = {"max_frame_bytes": LIMIT, "stall_seconds": 20.0, "open_seconds": 5.0}
    return Relay(address, **(settings | over))


async def read_all(source: Relay, cursor: int | None = None) -> tuple[list[Item], Ending]:
    items: list[Item] = []

    async def deliver(item: Item) -> None:
        items.append(item)

    return items, await source.read(cursor, deliver)


def test_frames_are_delivered_in_order_and_a_clean_close_is_an_ending() -> None:
    async def handler(connection: ServerConnection) -> None:
        for number in range(50):
            await connection.send(bytes([number]) * 2000)
        await connection.close(1000, "enough")

    async def scenario() -> None:
        async with relay(handler) as address:
            items, ending = await read_all(client(address))
        assert items == [Opened(), *[bytes([number]) * 2000 for number in range(50)]]
        assert ending == Ending(End.CLOSED, "it closed the connection (1000): enough")

    run(scenario())


def test_a_cursor_is_asked_for_and_live_is_asked_for_by_none() -> None:
    asked: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(connection.request.path)

    async def scenario() -> None:
        async with relay(handler) as address:
            await read_all(client(address), 1234)
            await read_all(client(address), None)

    run(scenario())
    path = "/xrpc/com.atproto.sync.subscribeRepos"
    assert asked == [f"{path}?cursor=1234", path]


def test_compression_is_not_offered() -> None:
    offered: list[str | None] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        offered.append(connection.request.headers.get("Sec-WebSocket-Extensions"))

    async def scenario() -> None:
        async with relay(handler) as address:
            await read_all(client(address))

    run(scenario())
    assert offered == [None]


def test_a_text_frame_is_delivered_as_text() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("hello")

    async def scenario() -> None:
        async with relay(handler) as address:
            items, _ = await read_all(client(address))
        assert items == [Opened(), "hello"]

    run(scenario())


def test_a_frame_over_the_limit_ends_the_connection_as_one_that_cannot_be_received() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(bytes(LIMIT))
        await connection.send(bytes(LIMIT + 1))
        await connection.wait_closed()

    async def scenario() -> None:
        async with relay(handler) as address:
            items, ending = await read_all(client(address))
        assert items == [Opened(), bytes(LIMIT)]
        assert ending.end is End.UNRECEIVABLE

    run(scenario())


def test_a_line_that_breaks_is_an_ending() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"last words")
        connection.transport.abort()

    async def scenario() -> None:
        async with relay(handler) as address:
            items, ending = await read_all(client(address))
        assert items[0] == Opened()
        assert ending == Ending(End.CLOSED, "the line broke")

    run(scenario())


def test_nobody_home_is_said_in_words() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def scenario() -> None:
        for host in ("127.0.0.1", "localhost"):
            items, ending = await read_all(client(f"ws://{host}:{port}/"))
            assert items == []
            assert ending == Ending(End.UNREACHABLE, "connection refused")

    run(scenario())


def test_a_server_that_asks_for_patience_is_heard() -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "later\n")
        response.headers["Retry-After"] = "17"
        return response

    async def handler(_connection: ServerConnection) -> None:
        raise AssertionError("refused before")

    async def scenario() -> None:
        async with relay(handler, process_request=refuse) as address:
            _, ending = await read_all(client(address))
        assert ending == Ending(End.UNREACHABLE, "it answered with HTTP 429", 17.0)

    run(scenario())


def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            port = mute.getsockname()[1]
            _, ending = await read_all(client(f"ws://127.0.0.1:{port}/", open_seconds=0.2))
        assert ending == Ending(End.UNREACHABLE, "no answer within 0.2 s")

    run(scenario())


def test_tls_to_a_plain_server_is_said_in_words() -> None:
    async def handler(_connection: ServerConnection) -> None:
        raise AssertionError("no handshake can succeed")

    async def scenario() -> None:
        async with relay(handler) as address:
            _, ending = await read_all(client(address.replace("ws://", "wss://")))
        assert ending == Ending(End.UNREACHABLE, "it broke off the handshake")

    run(scenario())


def test_silence_on_an_open_connection_is_a_stall() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"one")
        await connection.wait_closed()

    async def scenario() -> None:
        async with relay(handler) as address:
            items, ending = await read_all(client(address, stall_seconds=0.4))
        assert items == [Opened(), b"one"]
        assert ending == Ending(End.STALLED, "nothing came for 0.4 s (ingest.stall_seconds)")

    run(scenario())


def test_a_silent_line_is_pinged() -> None:
    pinged = asyncio.Event()

    class Watched(ServerConnection):
        def process_event(self, event: Any) -> None:
            if getattr(event, "opcode", None) == 9:
                pinged.set()
            super().process_event(event)

    async def handler(connection: ServerConnection) -> None:
        await pinged.wait()
        await connection.close()

    async def scenario() -> None:
        async with relay(handler, create_connection=Watched) as address:
            _, ending = await read_all(client(address, ping_seconds=0.2))
        assert ending.end is End.CLOSED

    run(scenario())


def test_a_sink_that_is_full_slows_the_sender_and_is_no_stall() -> None:
    frame = bytes(32 * 1024)
    total = 3000  # far more than all the buffers on the way together
    sent = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(total):
            await connection.send(frame)
            sent += 1

    async def scenario() -> None:
        released = asyncio.Event()
        taken = 0

        async def deliver(item: Item) -> None:
            nonlocal taken
            if isinstance(item, bytes):
                await released.wait()
                taken += 1

        async with relay(handler) as address:
            source = client(address, stall_seconds=0.1, ping_seconds=0.05)
            reading = asyncio.create_task(source.read(0, deliver))
            stuck_at, unmoved = -1, 0
            while unmoved < 10:  # ten times the stall time without one more frame sent
                await asyncio.sleep(0.1)
                unmoved = unmoved + 1 if sent == stuck_at else 0
                stuck_at = sent
            assert 0 < stuck_at < total
            assert not reading.done()
            released.set()
            ending = await reading
        assert taken == total
        assert ending.end is End.CLOSED

    run(scenario())


@pytest.mark.parametrize("blocked", [False, True])
def test_a_connection_given_up_is_closed_for_the_relay_too(blocked: bool) -> None:
    closed = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            while True:
                await connection.send(bytes(10_000))
        await connection.wait_closed()
        closed.set()

    async def scenario() -> None:
        first = asyncio.Event()

        async def deliver(item: Item) -> None:
            if isinstance(item, bytes):
                first.set()
                if blocked:
                    await asyncio.Event().wait()

        async with relay(handler) as address:
            reading = asyncio.create_task(client(address).read(0, deliver))
            await first.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await closed.wait()

    run(scenario())


def test_what_deliver_raises_ends_the_connection_and_is_raised() -> None:
    class Enough(Exception):
        pass

    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"x")
        await connection.wait_closed()

    async def deliver(item: Item) -> None:
        if isinstance(item, bytes):
            raise Enough

    async def scenario() -> None:
        async with relay(handler) as address:
            with pytest.raises(Enough):
                await client(address).read(0, deliver)

    run(scenario())


def test_a_name_that_is_none_is_said_in_words() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert describe(error, 1.0) == "its name cannot be resolved"


def test_what_a_server_says_cannot_fill_the_log() -> None:
    assert len(describe(ValueError("x\n" * 5000), 1.0)) <= 120


def test_a_certificate_that_is_not_trusted_is_said_in_words() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
    assert describe(error, 1.0).startswith("TLS: ")
