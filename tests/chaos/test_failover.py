"""Another relay takes over: it numbers the same events in its own way, and some come again."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import libipld
import psycopg
import pytest

from actors import capture
from actors.atproto import frames
from actors.atproto.events import Commit
from bench.network import Network
from bench.network_account import text_of
from bench.relay_process import RelayProcess, relay_process
from tests import tables
from tests.chaos.fetching_run import ON, comparable
from tests.program import program, wait_until
from tests.reference import Reference
from tests.servers.directory import PlcDirectory
from tests.servers.dns import DnsServer
from tests.servers.network import synthetic_documents
from tests.servers.pds import Pds

EVENTS = 1_500
SEED = 3
USERS = 25
BEGAN = 1_735_689_600_000_000
STEP = 5_000_000
"""Microseconds from one event to the next: some sixty are read again."""

DIES_AFTER = 900
QUICK = {
    "SKYSHARD_SOURCE__FAILOVER_SECONDS": "0.5",
    "SKYSHARD_INGEST__RECONNECT_MAX_SECONDS": "0.5",
    "SKYSHARD_INGEST__CHECKPOINT_SECONDS": "0.05",
}


def numbered(stream: Sequence[bytes], number: Callable[[int], int]) -> list[bytes]:
    """The same events as another relay has them."""
    made = []
    for index, frame in enumerate(stream):
        header, body = libipld.decode_dag_cbor_multi(frame)
        again = {**body, "seq": number(index), "time": text_of(BEGAN + 60_000_000 + index * STEP)}
        made.append(frames.encode(header["t"], again))
    return made


@pytest.fixture(scope="module")
def stream() -> list[bytes]:
    return list(Network(SEED, USERS).events(EVENTS))


@pytest.fixture(scope="module")
def first(stream: list[bytes]) -> list[bytes]:
    """The history by the numbers of the relay that dies."""
    return numbered(stream, lambda index: 5_000 + index)


@pytest.fixture(scope="module")
def second(stream: list[bytes]) -> list[bytes]:
    """The same by those of the other, which skips some."""
    return numbered(stream, lambda index: 70 + 3 * index)


def blind(of: tables.Tables) -> tables.Tables:
    """Without the numbers, which are of one relay or the other."""
    return {
        name: {
            key: {column: value for column, value in row.items() if not column.endswith("seq")}
            for key, row in rows.items()
        }
        for name, rows in of.items()
    }


def written(path: Path, stream: Sequence[bytes]) -> Path:
    capture.write(path, stream)
    return path


def tally(database: str, name: str) -> int:
    """How often something was counted, in all runs."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(amount), 0)::bigint FROM engine_tallies WHERE name = %s", [name]
        ).fetchone()
    assert row is not None
    return int(row[0])


def saved(database: str, relay: RelayProcess) -> int:
    host = relay.url.removeprefix("ws://")
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT cursor FROM firehose_cursor WHERE service = %s", [host]
        ).fetchone()
    return -1 if row is None else int(row[0])


def no_tables_yet(look: Callable[[], bool]) -> Callable[[], bool]:
    def tried() -> bool:
        try:
            return look()
        except psycopg.errors.UndefinedTable:
            return False

    return tried


def indexed(*streams: Sequence[bytes]) -> tables.Tables:
    reference = Reference()
    for part in streams:
        for frame in part:
            reference.frame(frame)
    return reference.tables()


LAST = 5_000 + DIES_AFTER - 1
END = 70 + 3 * (EVENTS - 1)


@pytest.mark.parametrize("by", ["itself", "operator"])
def test_what_another_relay_sends_again_changes_nothing_and_is_no_resync(
    database: str, first: list[bytes], second: list[bytes], tmp_path: Path, by: str
) -> None:
    dying = written(tmp_path / "first.frames", first[:DIES_AFTER])
    living = written(tmp_path / "second.frames", second)
    common = ("--database-url", database, "--shards", "2")
    with relay_process(dying) as one, relay_process(living) as other:
        standby = {"SKYSHARD_SOURCE__STANDBY": other.url} if by == "itself" else {}
        with program(
            *(tmp_path, "--source", one.url, "--from-start", *common),
            environment={**QUICK, **standby},
        ) as running:
            wait_until(no_tables_yet(lambda: saved(database, one) == LAST), "one", running)
            if by == "itself":
                one.refuse()
                one.disconnect()
                wait_until(lambda: saved(database, other) == END, "the other", running)
            running.child.send_signal(signal.SIGTERM)
            assert running.wait() == 0, running.tail()
        if by == "operator":
            with program(
                *(tmp_path, "--source", other.url, "--until-caught-up", "--json", *common),
                name="again",
            ) as running:
                running.report()
        assert all(cursor is not None for cursor in other.counters().cursors)
    # Some came again, and not all.
    assert 0 < tally(database, "replayed") < DIES_AFTER // 2
    expected, found = indexed(second), tables.read_tables(database)
    assert tables.differences(blind(expected), blind(found)) == []
    assert found["engine_accounts"], "no event about an account came"


def test_exactly_the_repositories_in_a_hole_are_fetched_again(
    database: str, stream: list[bytes], tmp_path: Path
) -> None:
    quiet = [frame for frame in stream if b"#account" not in frame]
    goes_on = DIES_AFTER + 30
    one_tells = numbered(quiet, lambda index: 5_000 + index)[:DIES_AFTER]
    history = numbered(quiet, lambda index: 70 + 3 * index)
    hole, after = history[DIES_AFTER:goes_on], history[goes_on:]
    pds = Pds()
    pds.feed(*history)
    before = history[:DIES_AFTER]
    broken = committers(before) & committers(hole) & committers(after)
    assert 3 < len(broken) < len(committers(before))
    made_good = [frame for frame in hole if frames.peek(frame).did in broken]
    expected = comparable(blind(indexed(before, made_good, after)))
    with (
        pds,
        DnsServer() as dns,
        PlcDirectory(synthetic_documents(network(), pds.url).items()) as plc,
        relay_process(written(tmp_path / "first.frames", one_tells)) as one,
        relay_process(written(tmp_path / "second.frames", after)) as other,
        program(
            *(tmp_path, "--source", one.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment={
                **ON,
                **QUICK,
                "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "false",
                "SKYSHARD_FETCHER__RECORDS": "false",
                "SKYSHARD_FETCHER__PROFILES": "false",
                "SKYSHARD_LEXICON__MODE": "off",
                "SKYSHARD_SOURCE__STANDBY": other.url,
                "SKYSHARD_NETWORK__PLC_URL": plc.url,
                "SKYSHARD_NETWORK__NAMESERVERS": dns.nameserver,
            },
        ) as running,
    ):
        wait_until(no_tables_yet(lambda: saved(database, one) == LAST), "one", running)
        one.refuse()
        one.disconnect()

        def whole() -> bool:
            found = comparable(blind(tables.read_tables(database)))
            return not tables.differences(expected, found)

        wait_until(whole, "what the hole held", running, 90.0)
        running.child.send_signal(signal.SIGTERM)
        assert running.wait() == 0, running.tail()
        assert running.said("holds nothing as old as what was read last")
    asked = {
        request.query["did"] for request in pds.requests if request.path.endswith("sync.getRepo")
    }
    assert asked == broken


def committers(stream: Sequence[bytes]) -> set[str]:
    events = map(frames.decode, stream)
    return {event.did for event in events if isinstance(event, Commit)}


def network() -> Network:
    """The network with all of its accounts."""
    made = Network(SEED, USERS)
    for _frame in made.events(EVENTS):
        pass
    return made
