"""A server of a test: an event loop in a thread, on loopback, at a port of the system's choice."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

T = TypeVar("T")
_SECONDS = 60.0


class Loopback:
    """A context manager; inside it the server answers, and afterwards its thread has ended."""

    def __init__(self) -> None:
        self.port = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self.open())
        return self

    def __exit__(self, *_error: object) -> None:
        self.run(self._wind_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive(), "a server of the test does not end"
        self._loop.close()

    async def open(self) -> None:
        """Begin to listen, in the server's loop, and set the port."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop listening, in the server's loop."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def soon(self, work: Callable[[], object]) -> None:
        """Have the server's loop call something."""
        self._loop.call_soon_threadsafe(work)

    async def _wind_up(self) -> None:
        await self.close()
        # Who was let in just now has a task that must begin before it can be ended.
        await turns()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # What was aborted is closed in the next turns of the loop.
        await turns()


class TcpServer(Loopback):
    """One that takes connections, with TLS where it is given a context."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            await let_none_in(self._server.sockets)
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self) -> None:
        """Refuse connections from here on, and reset those that are open."""
        self.run(self.close())

    def listen(self) -> None:
        """Take connections again, at the same port."""
        self.run(self.open())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def let_none_in(listening: Iterable[socket.socket]) -> None:
    """Accept no more connections. One that is let in while a server closes would stay open."""
    for one in listening:
        asyncio.get_running_loop().remove_reader(one.fileno())
    await turns()


async def turns() -> None:
    """Let the loop turn a few times."""
    for _ in range(5):
        await asyncio.sleep(0)


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
