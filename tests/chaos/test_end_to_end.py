"""The program from end to end: a relay on loopback, real processes, a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from actors.capture import DEMO, read
from actors.store.verify import verify
from bench.relay_options import RelayOptions
from bench.relay_process import RelayProcess, relay_process
from tests import tables
from tests.program import program
from tests.reference import Reference


@pytest.fixture(scope="module")
def expected() -> tables.Tables:
    """The tables of the bundled capture, by the reference indexer."""
    reference = Reference()
    for frame in read(DEMO):
        reference.frame(frame)
    return reference.tables()


@pytest.fixture
def relay() -> Iterator[RelayProcess]:
    with relay_process(DEMO, RelayOptions()) as running:
        yield running


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_any_number_of_shards_gives_the_tables_of_the_reference(
    database: str, relay: RelayProcess, expected: tables.Tables, tmp_path: Path, shards: int
) -> None:
    arguments = ("--json", "--until-caught-up", "--source", relay.url, "--database-url", database)
    with program(tmp_path, *arguments, "--from-start", "--shards", str(shards)) as running:
        report = running.report()
    assert tables.differences(expected, tables.read_tables(database)) == []
    assert verify(database) == []
    assert report["events"] == 3945
    assert report["commits"] == 3728
    assert report["drops"]["not_authorized"] == 5
    assert not any(report["restarts"].values())


def test_replaying_from_the_start_changes_nothing_whatever_the_number_of_shards(
    database: str, relay: RelayProcess, expected: tables.Tables, tmp_path: Path
) -> None:
    arguments = ("--json", "--until-caught-up", "--source", relay.url, "--database-url", database)
    with program(tmp_path, *arguments, "--from-start", "--shards", "2") as running:
        running.report()
    with program(
        *(tmp_path, *arguments, "--from-start", "--shards", "3", "--log-level", "debug")
    ) as running:
        report = running.report()
        log = running.log()
    assert report["commits"] == 0
    assert report["replayed"] == 3728
    # At that level the log has each batch of a shard.
    assert sum(line["frames"] for line in log if line["event"] == "batch acked") == 3945
    assert sum(line["replayed"] for line in log if line["event"] == "written") == 3728
    assert tables.differences(expected, tables.read_tables(database)) == []


def test_a_later_start_goes_on_from_the_checkpoint_with_another_number_of_shards(
    database: str, expected: tables.Tables, tmp_path: Path
) -> None:
    frames = list(read(DEMO))
    with relay_process(DEMO, RelayOptions(held=2000)) as relay:
        arguments = (
            *("--json", "--until-caught-up", "--source", relay.url),
            *("--database-url", database),
        )
        # What happens after the first subscription is more than half of the capture.
        with program(tmp_path, *arguments, "--from-start", "--shards", "4") as running:
            running.report()
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT cursor FROM firehose_cursor").fetchone()
        assert row is not None
        with program(tmp_path, *arguments, "--shards", "1", name="later") as running:
            report = running.report()
    assert int(row[0]) <= report["checkpoint"]
    assert len(frames) == 3945
    assert tables.differences(expected, tables.read_tables(database)) == []
