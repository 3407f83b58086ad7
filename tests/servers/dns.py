"""A DNS server on loopback, over UDP and TCP."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.servers.loopback import Loopback

_LARGEST = 512
_TRIES = 20


class DnsServer(Loopback):
    """Answers what it was told, with a life of 0 seconds, and that there is no such name otherwise.

    `asked` counts by name and type. Names in `silent` get no answer, those in `broken` SERVFAIL.
    `everything` are the addresses of all names that nothing was told of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent: set[str] = set()
        self.broken: set[str] = set()
        self.everything: tuple[str, ...] = ()
        self._records: dict[tuple[str, str], list[list[str]]] = {}
        self._datagrams: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    @property
    def nameserver(self) -> str:
        """What the setting `network.nameservers` has to be."""
        return f"127.0.0.1:{self.port}"

    def a(self, name: str, *addresses: str) -> None:
        """The IPv4 addresses of a name."""
        self.answers(name, "A", addresses)

    def aaaa(self, name: str, *addresses: str) -> None:
        """The IPv6 addresses of a name."""
        self.answers(name, "AAAA", addresses)

    def txt(self, name: str, *texts: str) -> None:
        """The texts of a name."""
        quoted = [
            " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255))
            for text in texts
        ]
        self.answers(name, "TXT", quoted)

    def answers(self, name: str, kind: str, *rounds: Iterable[str]) -> None:
        """The records of a name, as a zone file has them; the last round stays."""
        self._records[name.lower(), kind] = [list(records) for records in rounds]

    def forget(self, name: str) -> None:
        """There is no such name any more."""
        for key in [key for key in self._records if key[0] == name.lower()]:
            del self._records[key]

    async def open(self) -> None:
        for _ in range(_TRIES):
            # The system chooses a port for one of the two, and the other may be taken.
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            port = self._server.sockets[0].getsockname()[1]
            try:
                self._datagrams, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", port)
                )
            except OSError:
                self._server.close()
            else:
                self.port = port
                return
        raise OSError(f"no port for a DNS server in {_TRIES} tries")

    async def close(self) -> None:
        assert self._datagrams is not None
        assert self._server is not None
        self._datagrams.close()
        self._server.close()

    def answer(self, packet: bytes) -> dns.message.Message | None:
        """The answer to a question; None where there is to be none."""
        question = dns.message.from_wire(packet)
        asked = question.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True).lower(), asked.rdtype
        self.asked[name, dns.rdatatype.to_text(kind)] += 1
        if name in self.silent:
            return None
        response = dns.message.make_response(question)
        response.flags |= dns.flags.RA
        if name in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        records = self._found(name, dns.rdatatype.to_text(kind))
        if records is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif records:
            response.answer.append(_records(asked.name, kind, records))
        elif (alias := self._records.get((name, "CNAME"))) is not None:
            target = dns.name.from_text(alias[0][0])
            response.answer.append(_records(asked.name, dns.rdatatype.CNAME, alias[0]))
            name = target.to_text(omit_final_dot=True)
            if found := self._found(name, dns.rdatatype.to_text(kind)):
                response.answer.append(_records(target, kind, found))
        return response

    def _found(self, name: str, kind: str) -> list[str] | None:
        rounds = self._records.get((name, kind))
        if rounds is not None:
            return rounds.pop(0) if len(rounds) > 1 else rounds[0]
        if any(known == name for known, _ in self._records):
            return []
        if self.everything:
            return list(self.everything) if kind == "A" else []
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            response = self.answer(await reader.readexactly(size))
            if response is not None:
                packet = response.to_wire()
                writer.write(len(packet).to_bytes(2, "big") + packet)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()


def _records(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, records: list[str]
) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, 0, dns.rdataclass.IN, kind, records)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.answer(data)
        if response is None or self._transport is None:
            return
        packet = response.to_wire()
        if len(packet) > _LARGEST:
            response.answer.clear()
            response.flags |= dns.flags.TC
            packet = response.to_wire()
        self._transport.sendto(packet, addr)
