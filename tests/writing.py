"""Writers on real connections, as shards have them, without the actors around them."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import msgspec
import psycopg

from actors.decoder import Batch
from actors.store import outbox
from actors.store.batch import Dropped, Outcome
from actors.store.bisect import apply_bisecting
from actors.store.fence import Fence, raise_epoch
from actors.store.migrate import migrate
from actors.store.schema import SCHEMA_VERSION
from actors.store.session import Connection, SessionSettings, open_session
from actors.store.users import create_users
from actors.store.writer import Writer
from engine.sharding import shard_of
from tests.histories import Sent
from tests.reference import Reference

GATE = "user_gate"


def make_index(conninfo: str) -> str:
    """Make the tables of a database, unless it is a copy that has them (tests.templates)."""
    if not has_index(conninfo):
        migrate(conninfo)
    return conninfo


def has_index(conninfo: str) -> bool:
    """Whether the tables of this program are there, as its latest version makes them."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        found = connection.execute("SELECT to_regclass('engine_schema')").fetchone()
        return found != (None,) and connection.execute(
            "SELECT version FROM engine_schema"
        ).fetchone() == (SCHEMA_VERSION,)


def empty(conninfo: str) -> None:
    """Take every row away, so that a database serves several runs of one test."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        # TRUNCATE makes every file anew, which takes longer than a test has rows.
        connection.execute(
            "DO $$ DECLARE name text; BEGIN FOR name IN SELECT tablename FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'engine_schema'"
            " LOOP EXECUTE format('DELETE FROM %I', name); END LOOP; END $$"
        )


def begin_run(conninfo: str) -> int:
    """Raise the epoch, as a program that starts does."""
    with session(conninfo, "supervisor") as connection:
        return raise_epoch(connection, "a test")


@contextmanager
def session(conninfo: str, actor: str) -> Iterator[Connection]:
    """A connection as an actor opens it."""
    with open_session(SessionSettings(conninfo), actor) as connection:
        yield connection


def claimed(connection: Connection, actor: str, epoch: int, generation: int = 1) -> Fence:
    """The fence of an actor's living generation."""
    fence = Fence(actor, epoch, generation)
    fence.claim(connection)
    return fence


@contextmanager
def writer(conninfo: str, epoch: int, actor: str = "shard-0", **options: Any) -> Iterator[Writer]:
    """A writer on a connection of its own."""
    with session(conninfo, actor) as connection:
        yield Writer(connection, claimed(connection, actor, epoch), **options)


def decoded(frames: Sequence[bytes]) -> Batch:
    """These frames as one batch."""
    batch = Batch()
    for frame in frames:
        batch.add(frame)
    return batch


def reference_of(frames: Sequence[bytes]) -> Reference:
    """The reference indexer after these frames."""
    reference = Reference()
    for frame in frames:
        reference.frame(frame)
    return reference


def make_users(conninfo: str, fence: Fence) -> int:
    """Do the user gate's work that is in the outbox; returns how many pieces there were."""
    done = 0
    with session(conninfo, GATE) as connection:
        while left := outbox.left_for(connection, GATE, 50):
            dids = [did for row in left for did in msgspec.json.decode(row.body)]
            create_users(connection, fence, dids, [row.row for row in left])
            done += len(left)
    return done


@dataclass
class Crew:
    """Several writers at work at once, each with the authors of its shard.

    Batches are of any size, and now and then some are applied again, as after a restart. Half of
    the batches find their users made by the gate before, the others leave them to the outbox.
    """

    conninfo: str
    chance: random.Random
    largest: int = 40
    outcome: Outcome = field(default_factory=Outcome)
    drops: list[Dropped] = field(default_factory=list)
    again: int = 0
    errors: list[BaseException] = field(default_factory=list)

    def apply(self, stream: Sequence[Sent], writers: int) -> None:
        """Apply a stream; raises what made a writer fail."""
        epoch = begin_run(self.conninfo)
        with session(self.conninfo, GATE) as connection:
            gate = claimed(connection, GATE, epoch)
        threads = []
        for index in range(writers):
            frames = [sent.frame for sent in stream if shard_of(sent.did, writers) == index]
            chance = random.Random(self.chance.random())
            arguments = (f"shard-{index}", epoch, gate, frames, chance)
            threads.append(Thread(target=self._guarded, args=arguments))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        make_users(self.conninfo, gate)

    def _guarded(self, *arguments: Any) -> None:
        try:
            self._run(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self.errors.append(error)

    def _run(
        self, actor: str, epoch: int, gate: Fence, frames: list[bytes], chance: random.Random
    ) -> None:
        at = 0
        with (
            writer(self.conninfo, epoch, actor) as writing,
            session(self.conninfo, GATE) as gating,
        ):
            while at < len(frames):
                end = at + chance.randint(1, self.largest)
                batch = decoded(frames[at:end])
                dids = sorted(batch.authors | batch.subjects)
                work = []
                if chance.random() < 0.5:
                    create_users(gating, gate, dids)
                else:
                    work.append((GATE, msgspec.json.encode(dids)))
                self.outcome.add(
                    apply_bisecting(writing, batch.changes, work, {}, lambda _seconds: None)
                )
                self.drops += batch.drops
                at = end
                if chance.random() < 0.1:
                    at = max(0, end - chance.randint(1, 2 * self.largest))
                    self.again += 1
