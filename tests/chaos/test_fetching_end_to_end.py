"""The program with its fetcher: begun in the middle, it comes to have the whole."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from actors import capture
from actors.atproto import frames
from actors.atproto.events import Account
from bench.network import Network
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests import tables
from tests.program import Program, program, wait_until
from tests.reference import Reference
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.network import synthetic_documents
from tests.servers.pds import Pds

EVENTS = 2_000
ON = {
    "SKYSHARD_RESOLVER__ENABLED": "true",
    "SKYSHARD_RESOLVER__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_FETCHER__ENABLED": "true",
    "SKYSHARD_FETCHER__PATIENCE_SECONDS": "1",
    "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "true",
    "SKYSHARD_FETCHER__RETRY_MIN_SECONDS": "1",
    "SKYSHARD_FETCHER__RETRY_MAX_SECONDS": "2",
    "SKYSHARD_NETWORK__REQUESTS_PER_SECOND": "500",
    "SKYSHARD_NETWORK__ALLOW_PRIVATE_HOSTS": "true",
    "SKYSHARD_LEXICON__MODE": "on",
}


class World:
    """A network: what was said in it, and its servers."""

    def __init__(self) -> None:
        network = Network(seed=3, users=25)
        # Whose repository cannot be had is another matter.
        self.frames = [frame for frame in network.events(EVENTS) if not _goes_away(frame)]
        self.pds = Pds()
        self.pds.feed(*self.frames)
        self.network = network

    def expected(self) -> tables.Tables:
        reference = Reference()
        for frame in self.frames:
            reference.frame(frame)
        return comparable(reference.tables())


def _goes_away(frame: bytes) -> bool:
    event = frames.decode(frame)
    return isinstance(event, Account) and not event.active


def comparable(of: tables.Tables) -> tables.Tables:
    """Without what depends on how a record came: its commit, which is also the time of those that
    have none of their own; events of before; notifications of the past.
    """
    left = tables.without(of, "notifications", "engine_accounts")
    return {
        name: {
            key: {
                column: value
                for column, value in row.items()
                if not column.startswith("commit_")
                and column != "engine_joined_via"
                and (name, column) != ("generic_records", "created_at")
            }
            for key, row in rows.items()
        }
        for name, rows in left.items()
    }


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def environment(world: World) -> Iterator[dict[str, str]]:
    with world.pds, DnsServer() as dns:
        documents = synthetic_documents(world.network, world.pds.url)
        with PlcDirectory(documents.items()) as plc:
            yield {
                **ON,
                "SKYSHARD_NETWORK__PLC_URL": plc.url,
                "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
            }


def stop(running: Program) -> None:
    running.child.send_signal(signal.SIGTERM)
    assert running.wait() == 0, running.tail()


def differences(database: str, expected: tables.Tables) -> list[str]:
    try:
        return tables.differences(expected, comparable(tables.read_tables(database)))
    except psycopg.errors.UndefinedTable:
        return ["no tables yet"]


@pytest.mark.parametrize("kills", [0, 3])
def test_an_index_that_begins_in_the_middle_comes_to_have_the_whole(
    database: str, world: World, environment: dict[str, str], tmp_path: Path, kills: int
) -> None:
    path = tmp_path / "half.frames.gz"
    capture.write(path, world.frames[len(world.frames) // 2 :])
    expected = world.expected()
    with (
        relay_process(path, RelayOptions()) as relay,
        program(
            *(tmp_path, "--source", relay.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment=environment,
        ) as running,
    ):
        for count in range(kills):
            fetched = len(world.pds.requests) + 5 * (count + 1)
            wait_until(
                lambda fetched=fetched: len(world.pds.requests) >= fetched,  # type: ignore[misc]  # a default binds it
                "some requests",
                running,
            )
            running.kill(("pds_fetcher", "shard-0", "pds_fetcher")[count])
        wait_until(lambda: not differences(database, expected), "the whole", running, 90.0)
        stop(running)
