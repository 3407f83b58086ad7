"""The servers of a network that goes on growing, in a process of their own: the directory of its
accounts, the DNS, and servers of which each has all of their repositories.

    python -m tests.servers.growing HISTORY DOCUMENTS

serves what a capture announced, and what it is told on standard input since (bench.relay_options).
It ends with its standard input.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from actors import capture
from bench.relay_options import Command
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.pds import Pds

SERVERS: Final = 4
_ROOT: Final = Path(__file__).parent.parent.parent


class Places(msgspec.Struct, frozen=True):
    """Where the servers are; the accounts whose repositories are there at the start, and how many
    records these have.
    """

    plc: str
    pds: list[str]
    nameserver: str
    accounts: list[str]
    records: int


class Answered(msgspec.Struct, frozen=True):
    """How many requests the server of the repositories had so far."""

    requests: int


class Growing:
    """The servers, from outside. Not for several threads."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.places = msgspec.json.decode(self._line(), type=Places)

    def publish(self, frames: Sequence[bytes]) -> Answered:
        """Have them hold what these frames announce."""
        assert self._child.stdin is not None
        self._child.stdin.write(msgspec.json.encode(Command("publish", tuple(frames))) + b"\n")
        self._child.stdin.flush()
        return msgspec.json.decode(self._line(), type=Answered)

    def _line(self) -> bytes:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the servers have ended with exit code {self._child.wait()}")
        return line


@contextmanager
def growing(history: Path, documents: Path) -> Iterator[Growing]:
    """Run the servers; they are gone when the block is left."""
    command = [sys.executable, "-m", "tests.servers.growing", str(history), str(documents)]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield Growing(child)
        finally:
            child.kill()


def main() -> None:
    """Serve."""
    first, *others = servers = [Pds() for _ in range(SERVERS)]
    for frame in capture.read(Path(sys.argv[1])):
        first.feed(frame)
    for other in others:
        other.repositories = first.repositories
    accounts = {did: each for did, each in sorted(first.repositories.items()) if each.head}
    records = sum(len(each.records()) for each in accounts.values())
    documents = json.loads(Path(sys.argv[2]).read_text())
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        for index, document in enumerate(documents.values()):
            document["service"][0]["serviceEndpoint"] = servers[index % SERVERS].url
        dns = stack.enter_context(DnsServer())
        plc = stack.enter_context(PlcDirectory(documents.items()))
        urls = [server.url for server in servers]
        _say(Places(plc.url, urls, dns.nameserver, list(accounts), records))
        for line in sys.stdin.buffer:
            first.feed(*msgspec.json.decode(line, type=Command).frames)
            _say(Answered(sum(len(server.requests) for server in servers)))


def _say(what: msgspec.Struct) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)


if __name__ == "__main__":
    main()
