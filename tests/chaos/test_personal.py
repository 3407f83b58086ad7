"""A personal index, from end to end: it comes to be that of its accounts and whom they follow."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from actors import capture
from actors.atproto import frames
from actors.atproto.events import Commit
from bench.network import Network
from bench.relay_options import RelayOptions
from bench.relay_process import relay_process
from tests import tables
from tests.chaos.fetching_run import ON, comparable, differences, served, stop
from tests.program import program, wait_until
from tests.reference import Reference
from tests.servers.pds import Pds

EVENTS = 2_000
FOLLOW = "app.bsky.graph.follow"
# The index is compared with that of some accounts, so nothing of others may be fetched.
ALONE = {
    **ON,
    "SKYSHARD_FETCHER__WHOLE_ACCOUNTS": "false",
    "SKYSHARD_FETCHER__RECORDS": "false",
    "SKYSHARD_FETCHER__PROFILES": "false",
    "SKYSHARD_INGEST__CHECKPOINT_SECONDS": "0.05",
    "SKYSHARD_SUPERVISOR__INTENSITY": "100",
}

CRASHES = (
    "personal.taken_in@ingest:1,personal.entered@ingest:2,ingest.after_save@ingest:3,"
    "fetcher.sliced@pds_fetcher:2,shard.after_commit@shard-0:2"
)


class World:
    """A network, one account of it, and whom that follows."""

    def __init__(self) -> None:
        network = Network(seed=3, users=25)
        self.frames = [frame for frame in network.events(EVENTS) if b"#account" not in frame]
        self.pds = Pds()
        self.pds.feed(*self.frames)
        self.network = network
        self.follows = self._follows()
        self.account = min(self.follows, key=lambda did: (abs(len(self.follows[did]) - 6), did))
        self.members = {self.account, *self.follows[self.account]}

    def _follows(self) -> dict[str, set[str]]:
        """Whom each account follows at the end, of those who never took a follow back."""
        reference = Reference()
        unsteady = set()
        for frame in self.frames:
            reference.frame(frame)
            event = frames.decode(frame)
            if isinstance(event, Commit) and any(
                op.path.startswith(FOLLOW) and op.action != "create" for op in event.ops
            ):
                unsteady.add(event.did)
        found: dict[str, set[str]] = {}
        for row in reference.tables()["follows"].values():
            found.setdefault(row["follower_did"], set()).add(row["following_did"])
        return {did: followed for did, followed in found.items() if did not in unsteady}

    def expected(self) -> tables.Tables:
        reference = Reference()
        for frame in self.frames:
            if frames.peek(frame).did in self.members:
                reference.frame(frame)
        return comparable(reference.tables())


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def environment(world: World) -> Iterator[dict[str, str]]:
    settings = {**ALONE, "SKYSHARD_PERSONAL__ACCOUNTS": world.account}
    with served(world.network, world.pds, settings) as environment:
        yield environment


@pytest.mark.parametrize(
    "crash",
    [
        CRASHES,
        pytest.param("", marks=pytest.mark.soak),
        pytest.param("personal.left@ingest:3", marks=pytest.mark.soak),
    ],
)
def test_the_index_is_that_of_the_account_and_whom_it_follows(
    database: str, world: World, environment: dict[str, str], tmp_path: Path, crash: str
) -> None:
    assert 3 < len(world.members) < 20
    path = tmp_path / "half.frames.gz"
    capture.write(path, world.frames[len(world.frames) // 2 :])
    expected = world.expected()
    crashes = tmp_path / "crashes"
    crashes.mkdir()
    more = {"SKYSHARD_CRASH_POINTS": crash, "SKYSHARD_CRASH_DIR": str(crashes)}
    with (
        relay_process(path, RelayOptions(held=0, rate=500.0)) as relay,
        program(
            *(tmp_path, "--source", relay.url, "--from-start"),
            *("--database-url", database, "--shards", "2"),
            environment={**environment, **more},
        ) as running,
    ):
        wait_until(lambda: not differences(database, expected), "the whole", running, 90.0)
        stop(running)
    asked = {request.query["did"] for request in world.pds.requests if "did" in request.query}
    assert asked <= world.members
    assert len(list(crashes.iterdir())) == len(list(filter(None, crash.split(","))))


def test_all_is_ended_as_soon_as_a_follow_is_there_and_the_followed_are_indexed(
    database: str, world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "whole.frames.gz"
    capture.write(path, world.frames)
    expected = world.expected()
    arguments = ("--database-url", database, "--shards", "2", "--from-start")
    with relay_process(path) as relay:
        with program(
            *(tmp_path, "--source", relay.url, *arguments),
            environment=environment,
        ) as first:
            wait_until(lambda: _follows(database), "a follow", first)
            first.child.send_signal(signal.SIGKILL)
        with program(
            *(tmp_path, "--source", relay.url, *arguments[:-1]),
            environment=environment,
            name="again",
        ) as running:
            wait_until(lambda: not differences(database, expected), "the whole", running, 90.0)
            stop(running)


def _follows(database: str) -> bool:
    try:
        return bool(tables.read_tables(database)["follows"])
    except psycopg.errors.UndefinedTable:
        return False
