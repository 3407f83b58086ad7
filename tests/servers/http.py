"""An HTTP server whose every byte can be bent: what it answers, or how it fails to.

It speaks HTTP/1.1 by hand, because a library would not misbehave.
"""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.servers import faults
from tests.servers.faults import Fault
from tests.servers.loopback import TcpServer


class Request(NamedTuple):
    """What was asked. `path` has no query; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def host(self) -> str:
        """The host that was asked, without its port."""
        return self.headers.get("host", "").partition(":")[0]


@dataclass(frozen=True)
class Reply:
    """An answer; a body of several parts is sent chunked."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: Any, status: int = 200) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(value).encode())


def xrpc_error(status: int, error: str, message: str = "") -> Reply:
    """An error as XRPC has it."""
    return json_reply({"error": error, "message": message or error}, status)


class HttpServer(TcpServer):
    """One that remembers what it was asked.

    `requests` has everything, in order; `faults` those that are to come (see `fail`).
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.active = 0
        self.most_active = 0

    def answer(self, request: Request) -> Reply:
        """What is answered when nothing is bent."""
        raise NotImplementedError

    def fail(self, fault: Fault) -> Fault:
        """Bend the answers that a fault is for, from now on. The first fault that fits counts."""
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        self.faults.clear()

    def asked(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(request.path for request in list(self.requests))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read(reader)) is not None:
            self.requests.append(request)
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            try:
                if not await self._respond(request, writer):
                    return
            finally:
                self.active -= 1

    async def _respond(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        fault = next((fault for fault in self.faults if fault.takes(request.path)), None)
        if fault is not None:
            fault.fired += 1
            reply = self.answer(request) if fault.needs_answer else Reply()
            return await faults.act(fault, self._bytes(reply), writer)
        await write(writer, self._bytes(self.answer(request)))
        return True

    def _bytes(self, reply: Reply) -> Iterable[bytes]:
        return encode(reply.status, reply.body, {"Content-Type": reply.type, **reply.headers})


def encode(
    status: int, body: bytes | Iterable[bytes], headers: Mapping[str, str]
) -> Iterable[bytes]:
    """An answer as it travels."""
    fields = {"Transfer-Encoding": "chunked"}
    if isinstance(body, bytes):
        fields = {"Content-Length": str(len(body))}
    lines = [f"{name}: {text}\r\n" for name, text in (fields | dict(headers)).items()]
    yield f"HTTP/1.1 {status} Status\r\n{''.join(lines)}\r\n".encode("latin-1")
    if isinstance(body, bytes):
        yield body
        return
    for part in body:
        if part:
            yield b"%x\r\n%s\r\n" % (len(part), part)
    yield b"0\r\n\r\n"


async def write(writer: asyncio.StreamWriter, parts: Iterable[bytes]) -> None:
    """Send parts, as quickly as they are taken."""
    for part in parts:
        writer.write(part)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, text = line.partition(":")
        if name:
            headers[name.lower()] = text.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body)
