"""The reader of a labeler under production's rules: TLS, public names, and checked addresses."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from actors.atproto import multikey
from actors.labeler_identity import LabelerIdentity
from actors.labeler_reader import (
    UNWRITTEN_LABELS,
    Began,
    Connected,
    Failed,
    LabelerReader,
    ReaderItem,
    ReaderSettings,
    Received,
)
from actors.outbound import Kind, Outbound, OutboundError
from actors.store.labelers import LabelerState
from engine.restarts import Backoff
from tests.servers.certificates import authority
from tests.servers.client import VirtualClock, network
from tests.servers.dns import DnsServer
from tests.servers.internet import PUBLIC
from tests.servers.labeler import Labeler
from tests.servers.labels import LabelKey, labels_frame

DID = "did:plc:6rccq36mzkt43saroyej2tyx"
NAME = "mod.example.com"
KEY = LabelKey()
NOW = 1_800_000_000.0


def frames(count: int, labels: int = 1) -> list[bytes]:
    return [
        labels_frame(
            seq, *(KEY.make(DID, "did:web:a.com", f"{seq}-{number}") for number in range(labels))
        )
        for seq in range(1, count + 1)
    ]


async def known(_did: str) -> LabelerIdentity:
    return LabelerIdentity(f"wss://{NAME}", multikey.parse(KEY.multikey))


class Reading:
    """Runs a reader until it has delivered enough, or what it delivers tells that it is stuck."""

    def __init__(self, outbound: Outbound, most: int) -> None:
        self.items: list[ReaderItem] = []
        self.enough = asyncio.Event()
        self.most = most
        self.reader = LabelerReader(
            DID,
            1,
            LabelerState(),
            ReaderSettings(Backoff(0.01, 0.05), 60.0, 1024 * 1024),
            outbound=outbound,
            lookup=known,
            now=lambda: NOW,
            chance=random.Random(1),
        )

    async def deliver(self, item: ReaderItem) -> None:
        self.items.append(item)
        if len(self.items) >= self.most:
            self.enough.set()

    @property
    def received(self) -> list[Received]:
        return [item for item in self.items if isinstance(item, Received)]


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def labeler() -> Iterator[Labeler]:
    with Labeler(frames(3), authority().server(NAME)) as server:
        yield server


def client(dns: DnsServer, labeler: Labeler) -> Outbound:
    routes = {(PUBLIC, 443): ("127.0.0.1", labeler.port)}
    settings = network(nameservers=dns.nameserver)
    return Outbound(settings, tls=authority().trust(), routes=routes)


def test_a_directory_that_is_down_for_an_hour_is_not_hammered_and_nothing_is_lost(
    dns: DnsServer, labeler: Labeler
) -> None:
    dns.a(NAME, PUBLIC)
    clock = VirtualClock()
    began = clock.now()
    asked: list[float] = []

    async def down(did: str) -> LabelerIdentity:
        asked.append(clock.now() - began)
        if clock.now() - began < 3600.0:
            raise OutboundError(Kind.CONNECT, "plc.directory", "no answer")
        return await known(did)

    async def go() -> Reading:
        async with client(dns, labeler) as outbound:
            reading = Reading(outbound, 1_000)
            reading.reader = LabelerReader(
                DID,
                1,
                LabelerState(f"wss://{NAME}", 1),
                ReaderSettings(Backoff(1.0, 600.0), 60.0, 1024 * 1024),
                outbound=outbound,
                lookup=down,
                now=clock.now,
                chance=random.Random(1),
                sleep=clock.sleep,
            )
            task = asyncio.create_task(reading.reader.run(reading.deliver))
            async with asyncio.timeout(20):
                while len(reading.received) < 2:
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return reading

    reading = asyncio.run(go())
    assert 5 < len(asked) < 25
    assert [item.seq for item in reading.received] == [2, 3]
    assert labeler.cursors == [1]


def read(dns: DnsServer, labeler: Labeler, most: int) -> Reading:
    async def go() -> Reading:
        async with client(dns, labeler) as outbound:
            reading = Reading(outbound, most)
            task = asyncio.create_task(reading.reader.run(reading.deliver))
            async with asyncio.timeout(20):
                await reading.enough.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return reading

    return asyncio.run(go())


def test_a_labeler_is_read_over_tls_by_its_public_name(dns: DnsServer, labeler: Labeler) -> None:
    dns.a(NAME, PUBLIC)
    items = read(dns, labeler, 5).items
    assert items[:2] == [Began(DID, 1, f"wss://{NAME}"), Connected(DID, 1)]
    assert [item.seq for item in items[2:] if isinstance(item, Received)] == [1, 2, 3]


def test_a_name_that_leads_inside_is_not_connected_to(dns: DnsServer, labeler: Labeler) -> None:
    dns.a(NAME, "127.0.0.1")
    _, failed = read(dns, labeler, 2).items
    assert isinstance(failed, Failed)
    assert "not public" in failed.problem
    assert labeler.cursors == []


def test_a_certificate_for_another_name_is_refused(dns: DnsServer) -> None:
    dns.a(NAME, PUBLIC)
    with Labeler(frames(3), authority().server("other.example.com")) as other:
        _, failed = read(dns, other, 2).items
    assert isinstance(failed, Failed)
    assert "TLS" in failed.problem
    assert other.cursors == []


def test_what_is_delivered_and_not_written_has_a_bound(dns: DnsServer) -> None:
    dns.a(NAME, PUBLIC)
    many = frames(60, labels=100)

    async def go(labeler: Labeler) -> None:
        async with client(dns, labeler) as outbound:
            reading = Reading(outbound, 23)
            task = asyncio.create_task(reading.reader.run(reading.deliver))
            async with asyncio.timeout(30):
                await reading.enough.wait()
                # It has nowhere to put the next frame, however long it is given.
                for _ in range(100):
                    await asyncio.sleep(0)
                held = sum(len(item.labels) for item in reading.received)
                assert UNWRITTEN_LABELS < held <= UNWRITTEN_LABELS + 100
                reading.enough.clear()
                reading.most = 24
                reading.reader.written(reading.received[0])
                await reading.enough.wait()
                for item in reading.received[1:]:
                    reading.reader.written(item)
                reading.enough.clear()
                reading.most = 40
                await reading.enough.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with Labeler(many, authority().server(NAME)) as labeler:
        asyncio.run(go(labeler))
