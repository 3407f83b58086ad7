"""The program with its resolver: who the accounts of the recorded network are, and no network."""

import copy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors.atproto import multikey
from actors.capture import DEMO
from actors.store import identities
from actors.store.arrays import register
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests import tables
from tests.corpus.files import demo_frames, document
from tests.program import Program, program, wait_until
from tests.servers import faults
from tests.servers.directory import PlcDirectory, Sites
from tests.servers.dns import DnsServer
from tests.servers.loopback import free_port

QUICK = {
    "SKYSHARD_RESOLVER__ENABLED": "true",
    "SKYSHARD_RESOLVER__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
}


class Site(Sites):
    """The site of one did:web, at whose port nothing else is."""

    def __init__(self, port: int, entry: dict[str, Any]) -> None:
        super().__init__()
        self.port = port
        self.documents["localhost"] = entry


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """The name system as it was: handles that lead to somebody do so."""
    with DnsServer() as running:
        for handle, did in document("handles").items():
            if did is not None:
                running.txt(f"_atproto.{handle}", f"did={did}")
        yield running


@pytest.fixture
def plc() -> Iterator[PlcDirectory]:
    documents = copy.deepcopy(document("did-documents"))
    with PlcDirectory((did, entry) for did, entry in documents.items() if ":plc:" in did) as plc:
        yield plc


@pytest.fixture
def sites() -> Iterator[None]:
    """Those of did:web, at the ports that are part of their names."""
    recorded = document("did-documents")
    webs = sorted(did for did in recorded if ":web:" in did)
    assert len(webs) == 2
    first, second = (Site(int(did.rpartition("%3A")[2]), recorded[did]) for did in webs)
    with first, second:
        yield


def variables(plc: str, dns: DnsServer) -> dict[str, str]:
    return {
        **QUICK,
        "SKYSHARD_NETWORK__PLC_URL": plc,
        "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
    }


def cursor(connection: psycopg.Connection[Any]) -> int:
    there = connection.execute("SELECT to_regclass('firehose_cursor') IS NOT NULL").fetchone()
    if there is None or not there[0]:
        return 0
    row = connection.execute("SELECT coalesce(max(cursor::bigint), 0) FROM firehose_cursor")
    return int((row.fetchone() or (0,))[0])


def due(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE next_check <= now() OR checked_at IS NULL)"
        " + (SELECT count(*) FROM users u"
        " WHERE NOT EXISTS (SELECT FROM engine_identities e WHERE e.did = u.did))"
        " FROM engine_identities"
    ).fetchone()
    assert row is not None
    return int(row[0])


def stop(running: Program) -> None:
    running.child.send_signal(signal.SIGTERM)
    assert running.wait() == 0, running.tail()


def expected_handles() -> dict[str, str]:
    """By the network's own word; whoever has none there is shown as invalid."""
    good = {did: handle for handle, did in document("handles").items() if did is not None}
    return {did: good.get(did, identities.INVALID) for did in document("did-documents")}


def index_all(database: str, folder: Path, environment: dict[str, str]) -> None:
    """Read the recorded network until all is durable and nobody is due any more, and stop."""
    last = len(demo_frames())
    with (
        relay_process(DEMO, RelayOptions()) as relay,
        program(
            *(folder, "--source", relay.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment=environment,
        ) as running,
        psycopg.connect(database, autocommit=True) as connection,
    ):
        wait_until(lambda: cursor(connection) >= last, "the last event", running)
        wait_until(lambda: due(connection) == 0, "the last identity", running)
        stop(running)


def handles_of(connection: psycopg.Connection[Any]) -> dict[str, str]:
    rows = connection.execute("SELECT did, handle FROM users").fetchall()
    return {str(did): str(handle) for did, handle in rows}


def test_the_recorded_network_has_the_handles_that_it_had(
    database: str, plc: PlcDirectory, dns: DnsServer, sites: None, tmp_path: Path
) -> None:
    index_all(database, tmp_path, variables(plc.url, dns))
    recorded = document("did-documents")
    with psycopg.connect(database) as connection:
        register(connection)
        handles = handles_of(connection)
        keys = identities.signing_keys(connection, list(recorded))
        servers = identities.pds_of(connection, list(recorded))
        labelers = identities.label_keys(connection, list(recorded))
    assert {did: handles.get(did) for did in recorded if did in handles} == {
        did: handle for did, handle in expected_handles().items() if did in handles
    }
    assert len(handles.keys() & recorded.keys()) > 55
    # Accounts that only others spoke of have no document here.
    assert {handles[did] for did in handles.keys() - recorded.keys()} <= {identities.INVALID}
    assert keys.keys() == servers.keys() == handles.keys() & recorded.keys()
    assert all(multikey.parse(key) for key in keys.values())
    assert all(server.startswith("http://localhost:") for server in servers.values())
    assert len(labelers) >= 1
    # Once, and again for each event that says that something changed.
    assert max(plc.asked().values()) < 10


def test_a_directory_that_comes_back_finds_all_who_waited_for_it(
    database: str, plc: PlcDirectory, dns: DnsServer, sites: None, tmp_path: Path
) -> None:
    down = plc.fail(faults.status(503, times=5))
    environment = {
        **variables(plc.url, dns),
        "SKYSHARD_NETWORK__TRIES": "1",
        "SKYSHARD_NETWORK__BREAKER_MIN_SECONDS": "1",
        "SKYSHARD_NETWORK__BREAKER_MAX_SECONDS": "1",
        "SKYSHARD_RESOLVER__ERROR_SECONDS": "1",
        "SKYSHARD_RESOLVER__ERROR_MAX_SECONDS": "1",
        "SKYSHARD_RESOLVER__CONCURRENCY": "4",
    }
    index_all(database, tmp_path, environment)
    assert down.fired == 5
    with psycopg.connect(database) as connection:
        handles = handles_of(connection)
    good = {did: handle for did, handle in expected_handles().items() if did in handles}
    assert {did: handles[did] for did in good} == good


def test_without_a_network_the_program_stays_calm(database: str, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    environment = {
        **QUICK,
        "SKYSHARD_NETWORK__PLC_URL": nobody,
        "SKYSHARD_NETWORK__NAMESERVERS": f"127.0.0.1:{free_port()}",
        "SKYSHARD_NETWORK__DNS_SECONDS": "0.2",
    }
    arguments = ("--database-url", database, "--shards", "1", "--from-start", "--until-caught-up")
    with (
        relay_process(DEMO, RelayOptions()) as relay,
        program(
            *(tmp_path, "--source", relay.url, *arguments, "--json"), environment=environment
        ) as running,
    ):
        report = running.report()
        lines = [line for line in running.log() if line.get("logger") == "resolver"]
    assert report["events"] == 3945
    assert not any(report["restarts"].values())
    assert len(lines) <= 2
    assert tables.read_tables(database)["users"]
