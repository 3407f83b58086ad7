"""A stage for ingest: real processes, relay and database, and shards that only take notes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from actors import capture
from actors.atproto import frames
from actors.ingest import Ingest, IngestSetup
from actors.messages import MESSAGES, Frames
from config.loader import load
from engine.actor import Actor, Delivery
from engine.control import Drain, Fail
from engine.message import Message
from engine.metrics import MetricsSnapshot
from engine.topology import Edge, EdgeKind
from tests.unit.engine_harness import Harness
from tests.writing import make_index

EPOCH = 7
"""Of every run of the harness."""

QUICK: dict[str, object] = {
    "ingest.reconnect_min_seconds": 0.02,
    "ingest.reconnect_max_seconds": 0.1,
    "ingest.checkpoint_seconds": 0.02,
    "ingest.batch_linger_ms": 2.0,
    "source.idle_seconds": 0.3,
}


def events(first: int, count: int, *, time: float, dids: int = 7, size: int = 0) -> list[bytes]:
    """Identity events with these numbers, a millisecond apart; `size` bytes of filling each."""
    return [
        frames.encode(
            "#identity",
            {
                "seq": seq,
                "did": f"did:plc:{seq % dids}",
                "time": stamp(time + (seq - first) / 1000),
                "filling": bytes(size),
            },
        )
        for seq in range(first, first + count)
    ]


def stamp(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def seq_of(frame: bytes) -> int:
    seq = frames.peek(frame).seq
    assert seq is not None
    return seq


class Shard(Actor):
    """Writes down what it gets in `{folder}/{name}.frames`; acks while there is no `hold`."""

    acks_itself = True

    def on_start(self) -> None:
        self.unacked: list[Delivery] = []
        folder: Path = self.settings
        self.hold = folder / "hold"
        self.file = (folder / f"{self.context.name}.frames").open("ab")
        self.look()

    def receive(self, message: Message, delivery: Delivery) -> None:
        assert isinstance(message, Frames)
        for frame in message.frames:
            self.file.write(len(frame).to_bytes(4, "big") + frame)
        self.file.flush()
        self.unacked.append(delivery)
        self.ack()

    def look(self) -> None:
        self.ack()
        self.context.after(0.01, self.look)

    def ack(self) -> None:
        if self.unacked and not self.hold.exists():
            self.unacked.pop().ack()
            self.unacked.clear()


class LoudIngest(Ingest):
    """Logs what an operator reads, to standard error."""

    def on_start(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        super().on_start()


class Stage:
    """Ingest with its shards, its checkpoint in `database`, and what they have done so far."""

    def __init__(self, harness: Harness, folder: Path, database: str, shards: int) -> None:
        self.harness = harness
        self.folder = folder
        self.database = database
        self.shards = shards
        self.connection = psycopg.connect(make_index(database), autocommit=True)
        self.connection.execute(
            "INSERT INTO engine_epoch VALUES (1, %s, 'test') ON CONFLICT DO NOTHING", [EPOCH]
        )
        self.connection.execute("DELETE FROM engine_fences")
        for index in range(shards):
            harness.start(f"shard-{index}", Shard, folder)

    def start(
        self,
        source: str,
        *,
        until_caught_up: bool = False,
        start: str = "auto",
        explicit: bool = False,
        disk: Path | None = None,
        **settings: object,
    ) -> None:
        """Start ingest; settings as `ingest__window_frames=10`."""
        values = {
            **QUICK,
            "run.source": source,
            "run.until_caught_up": until_caught_up,
            "source.start": start,
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        loaded = load(flags={key: ("test", value) for key, value in values.items()})
        setup = IngestSetup(loaded, self.shards, self.database, explicit, disk)
        self.harness.start("ingest", LoudIngest, setup)

    def drain(self) -> int:
        """Ask ingest to stop in order; returns its exit code."""
        self.harness.hub.send("ingest", self.harness.generations["ingest"], Drain(10.0))
        return self.harness.bury("ingest", crashed=False)

    def hold(self) -> None:
        """Have the shards keep their acks back."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def taken(self, shard: int | None = None) -> list[int]:
        """The numbers of the events that shards have got, shard after shard, in order."""
        chosen = range(self.shards) if shard is None else (shard,)
        found: list[int] = []
        for index in chosen:
            path = self.folder / f"shard-{index}.frames"
            found += [seq_of(frame) for frame in complete(path)]
        return found

    def until_taken(self, count: int) -> None:
        self.harness.until(lambda: len(self.taken()) >= count)

    def saved(self, service: str | None = None) -> int | None:
        """The checkpoint in the database, of the only host or of this one."""
        rows: list[tuple[Any, ...]] = self.connection.execute(
            "SELECT cursor FROM firehose_cursor WHERE service = coalesce(%s, service)", [service]
        ).fetchall()
        assert len(rows) < 2
        return int(rows[0][0]) if rows else None

    def until_saved(self, cursor: int) -> None:
        self.harness.until(lambda: self.saved() == cursor)

    def finished(self) -> dict[str, Any]:
        """Wait for the report of the whole job."""
        self.harness.until(lambda: bool(self.harness.reports("ingest")))
        return self.harness.reports("ingest")[0]

    def failed(self) -> Fail:
        """Wait until ingest says that the run cannot go on."""
        self.harness.until(lambda: bool(self.harness.of("ingest", Fail)))
        said = self.harness.of("ingest", Fail)[0]
        assert isinstance(said, Fail)
        return said

    def metrics(self) -> MetricsSnapshot:
        """The last snapshot that ingest sent."""
        return self.harness.metrics("ingest")


def complete(path: Path) -> Iterator[bytes]:
    """The whole frames of a file that may still grow."""
    try:
        yield from capture.read(path)
    except capture.CaptureError:
        return


@contextmanager
def stage(database: str, folder: Path, shards: int = 2, **edge: int) -> Iterator[Stage]:
    """Shards that are up, and everything ingest needs to start."""
    limits = {"messages": 2000, "bytes": 64 * 1024 * 1024} | edge
    edges = [Edge("ingest", f"shard-{n}", EdgeKind.TELL, **limits) for n in range(shards)]
    with Harness(edges, MESSAGES) as harness:
        built = Stage(harness, folder, database, shards)
        try:
            yield built
        finally:
            built.connection.close()


def write(path: Path, stream: Sequence[bytes]) -> Path:
    capture.write(path, stream)
    return path
