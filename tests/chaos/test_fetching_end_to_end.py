"""The program with its fetcher: begun in the middle, it comes to have the whole, and keeps it."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from actors import capture
from actors.atproto.events import Account, Commit
from actors.records.fields import owner
from actors.store.verify import verify
from bench.network import Network
from bench.relay_options import RelayOptions
from bench.relay_process import RelayProcess, relay_process
from tests import tables
from tests.chaos.fetching_run import ON, served, stop
from tests.convergence import Expectation, History, decoded
from tests.program import Program, program, wait_until
from tests.servers.pds import Pds

EVENTS_A_PART = 800
# Tables of what operations wait for, whose rows say by a CID which version they are.
SUBJECTS = ("posts", "feed_generators", "labeler_services", "lists", "starter_packs")
# Who is given up is given up soon, and nothing is waited for long.
SETTINGS = {
    **ON,
    "SKYSHARD_FETCHER__RETRY_MIN_SECONDS": "0.2",
    "SKYSHARD_FETCHER__RETRY_MAX_SECONDS": "0.5",
}


class World:
    """A network in three parts: before the index, at its beginning, and later; its servers."""

    def __init__(self) -> None:
        network = Network(seed=6, users=25, statuses=0.008, changes=0.15)
        # All users come in the first part.
        self.before, self.first, self.later = (
            list(network.events(EVENTS_A_PART)) for _ in range(3)
        )
        self.network = network
        self.pds = Pds()
        self.pds.feed(*self.before, *self.first)
        self.history = History(self.before)

    def went_away(self) -> list[set[str | None]]:
        """How accounts went away, in each part."""
        return [
            {event.status for event in map(decoded, part) if isinstance(event, Account)} - {None}
            for part in (self.before, self.first, self.later)
        ]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def environment(world: World) -> Iterator[dict[str, str]]:
    with served(world.network, world.pds, SETTINGS) as environment:
        yield environment


def comes_to(database: str, expected: Expectation, running: Program) -> None:
    """Wait until the tables hold what they should."""

    def differences() -> list[str]:
        try:
            return expected.differences(tables.read_tables(database))
        except psycopg.errors.UndefinedTable:
            return ["no tables yet"]

    deadline = time.monotonic() + 150.0
    while found := differences():
        assert time.monotonic() < deadline, "\n".join([*found, running.tail(20)])
        time.sleep(0.3)


def changed_by_fetch(world: World) -> int:
    """How many records from before are deleted or changed later."""
    old = world.history.old()
    return sum(
        f"at://{event.did}/{op.path}" in old
        for event in map(decoded, world.later)
        if isinstance(event, Commit)
        for op in event.ops
    )


def told_of_in(part: Sequence[bytes]) -> set[str]:
    """Accounts that went away or came back."""
    return {event.did for event in map(decoded, part) if isinstance(event, Account)}


def nothing_waits(database: str) -> bool:
    """Whether everything was fetched or given up."""
    with psycopg.connect(database) as connection:
        return not connection.execute(
            "SELECT FROM engine_incomplete WHERE state = 'waiting' LIMIT 1"
        ).fetchall()


async def _feed(pds: Pds, frames: Sequence[bytes]) -> None:
    """In the loop that answers, so that nothing changes amid an answer."""
    pds.feed(*frames)


def go_on(world: World, relay: RelayProcess) -> None:
    """The last part happens: its servers know it first."""
    world.pds.run(_feed(world.pds, world.later))
    relay.publish(world.later)
    world.history.goes_on(world.later)


def test_an_index_that_begins_in_the_middle_comes_to_have_the_whole_and_keeps_it(
    database: str, world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    before, first, later = world.went_away()
    assert before
    assert first
    assert "deleted" in first | later
    assert changed_by_fetch(world) > 5
    path = tmp_path / "middle.frames.gz"
    capture.write(path, world.first)
    world.history.goes_on(world.first)
    assert world.history.away
    with (
        relay_process(path, RelayOptions()) as relay,
        program(
            *(tmp_path, "--source", relay.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment=environment,
        ) as running,
    ):
        for count, actor in enumerate(("pds_fetcher", "shard-0", "pds_fetcher")):
            wanted = 5 * (count + 1)
            wait_until(
                lambda wanted=wanted: len(world.pds.requests) >= wanted,  # type: ignore[misc]  # a default binds it
                "some requests",
                running,
            )
            running.kill(actor)
        comes_to(database, Expectation(world.history), running)
        wait_until(lambda: nothing_waits(database), "the end of all tries", running)
        away = set(world.history.away)
        go_on(world, relay)
        back = away - world.history.away
        assert back - told_of_in(world.first), "nobody came back of whom nothing had been said"
        expected = Expectation(world.history)
        comes_to(database, expected, running)
        stop(running)
    assert expected.differences(tables.read_tables(database)) == []
    assert verify(database) == []


def lacking(database: str, world: World, expected: Expectation) -> list[str]:
    """What is awaited and could be had; records that are not as they should be."""
    held = tables.read_tables(database)
    away = world.history.away
    with psycopg.connect(database) as connection:
        awaited = {uri for (uri,) in connection.execute("SELECT awaited FROM engine_pending")}
    found = [
        f"{uri} is awaited" for uri in sorted(awaited & expected.uris) if owner(uri) not in away
    ]
    for name in SUBJECTS:
        for key, row in held[name].items():
            should = expected.tables[name].get(key)
            found += [] if should and row["cid"] == should["cid"] else [f"{name} {key} is wrong"]
    for (did,), row in held["users"].items():
        should = expected.tables["users"].get((did,))
        if did not in away and should and row["profile_record"] != should["profile_record"]:
            found.append(f"the profile of {did} is wrong")
    return found


def test_by_default_what_operations_wait_for_comes_and_profiles_do_and_all_is_consistent(
    database: str, world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "middle.frames.gz"
    capture.write(path, world.first)
    world.history.goes_on(world.first)
    expected = Expectation(world.history)
    with (
        relay_process(path, RelayOptions()) as relay,
        program(
            *(tmp_path, "--source", relay.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment={**environment, "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "false"},
        ) as running,
    ):
        wait_until(
            lambda: bool(world.pds.asked()["/xrpc/com.atproto.sync.getRecord"]), "a fetch", running
        )
        wait_until(lambda: nothing_waits(database), "the end of all tries", running, 120.0)
        deadline = time.monotonic() + 150.0
        while found := lacking(database, world, expected):
            assert time.monotonic() < deadline, "\n".join([*found[:20], running.tail(20)])
            time.sleep(0.3)
        stop(running)
    assert lacking(database, world, expected) == []
    assert len(tables.read_tables(database)["posts"]) < len(expected.tables["posts"])
    assert verify(database) == []
