"""Hosts that answer badly, before the whole program: each costs its connection, no more."""

import socket
import threading
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Final

from bench.relay_faults import websocket_header
from tests.chaos.test_hostile_stream import INFO, MILLION, QUICK, Stream, arguments, watched
from tests.program import program

SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n"
)
OPEN: Final = SWITCHING + b"\r\n"
PING: Final = b"\x89\x7d" + bytes(125)

# What a host sends as its answer, before it closes.
ANSWERS: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nRetry-After: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: ws://a.invalid/\r\nLocation: ws://b.invalid/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:99999/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: ws://[\r\n\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    SWITCHING + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    SWITCHING + b"Upgrade: websocket\r\n\r\n",
    bytes(range(256)) * 64,
    b"",
    OPEN,
    OPEN + b"\x88\x02\x00\x01",
    OPEN + b"\xc2\x01a",
    OPEN + b"\x82\x81abcda",
    OPEN + b"\x02\x00" + b"\x00\x00" * 100_000,
)


class Host(threading.Thread):
    """A host that misbehaves on each connection in another way, and serves on those after that.

    `misbehaved` counts the connections on which it has done so.
    """

    def __init__(self, frames: Sequence[bytes]) -> None:
        super().__init__(daemon=True)
        self._frames = frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        # So that answers which nobody takes are soon more than the line holds.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self.misbehaved = 0

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join(60)
        self._listener.close()

    def run(self) -> None:
        ways = [partial(_answer, answer=answer) for answer in ANSWERS] + [_hold, _drip, _ping]
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with line, suppress(ConnectionError):
                accept = _accept_key(line)
                if ways:
                    self.misbehaved += 1
                    ways.pop(0)(line, accept)
                else:
                    line.sendall(OPEN.replace(b"%s", accept))
                    for frame in self._frames:
                        line.sendall(websocket_header(len(frame)) + frame)
                    _stay(line)


def _accept_key(line: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += line.recv(65536)
    key = next(
        value.strip()
        for name, _, value in (row.partition(b":") for row in request.split(b"\r\n"))
        if name.lower() == b"sec-websocket-key"
    )
    # RFC 6455, section 4.2.2.
    digest = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")  # noqa: S324 - as the RFC has it
    return b64encode(digest.digest())


def _answer(line: socket.socket, accept: bytes, *, answer: bytes) -> None:
    line.sendall(answer.replace(b"%s", accept))


def _hold(line: socket.socket, accept: bytes) -> None:
    """The start of a message that is far too large, and no answer to what is said to that."""
    line.sendall(OPEN.replace(b"%s", accept) + websocket_header(2**28))
    while line.recv(65536):
        pass


def _drip(line: socket.socket, accept: bytes) -> None:
    """A frame of which a byte comes now and then, until the other side has had enough."""
    line.sendall(OPEN.replace(b"%s", accept) + websocket_header(4096))
    line.settimeout(0.05)
    while True:
        line.sendall(b"a")
        with suppress(TimeoutError):
            if not line.recv(1):
                return


def _ping(line: socket.socket, accept: bytes) -> None:
    """Pings without end, the answers to which are left in the line."""
    line.sendall(OPEN.replace(b"%s", accept))
    while True:
        line.sendall(PING * 500)


def _stay(line: socket.socket) -> None:
    """Say something now and then that is no event, until the other side has left."""
    line.settimeout(0.2)
    while True:
        with suppress(TimeoutError):
            if not line.recv(65536):
                return
        line.sendall(websocket_header(len(INFO)) + INFO)


def test_no_answer_of_a_host_does_more_than_end_its_connection(
    database: str, tmp_path: Path
) -> None:
    stream = Stream()
    for _ in range(20):
        stream.good()
    host = Host(stream.frames)
    host.start()
    # A host that says nothing is given up long before that counts as the end of its events.
    patience = {"SKYSHARD_INGEST__STALL_SECONDS": "2", "SKYSHARD_SOURCE__IDLE_SECONDS": "6"}
    with (
        closing(host),
        program(tmp_path, *arguments(host.url, database), environment=QUICK | patience) as running,
    ):
        report, memory = watched(running)
    assert host.misbehaved == len(ANSWERS) + 3
    assert report["drops"] == {}
    assert not any(report["restarts"].values())
    assert report["commits"] == stream.canaries == 20
    assert memory < 200 * MILLION
    assert running.said("it sent what cannot be received: frame with 268435456 bytes")
    assert running.said("it sends pings and takes no answers")
    assert running.said("nothing came for 2 s")
