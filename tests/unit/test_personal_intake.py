"""What ingest leaves out for a personal index: nearly everything, and it costs next to nothing."""

from typing import Any

import psycopg
import pytest

from actors.atproto import frames
from actors.atproto.events import Kind
from actors.ingest_metrics import IngestMetrics
from actors.intake import Intake, Verdict
from actors.messages import Frames
from actors.position import Position
from actors.sequence import Sequence
from actors.shard_window import Batch, ShardWindow
from actors.store.checkpoint import Checkpoint
from actors.store.fence import Fence
from engine.address import Address
from engine.message import Message
from engine.metrics import Metrics

MINE = "did:plc:mine"
TIME = "2025-01-01T00:00:00.000Z"


def no_database() -> psycopg.Connection:
    raise psycopg.OperationalError("nothing is saved here")


def frame(kind: Kind, seq: int, did: str) -> bytes:
    owner = "repo" if kind is Kind.COMMIT else "did"
    return frames.encode(f"#{kind}", {"seq": seq, owner: did, "time": TIME})


class Told:
    """Takes messages for as many as there is room, once their shard is `there`."""

    def __init__(self) -> None:
        self.there = True
        self.frames: list[bytes] = []
        self.batches: list[Batch] = []

    def tell(self, to: Address, message: Message, *, token: Batch) -> None:
        assert isinstance(message, Frames)
        self.frames += message.frames
        self.batches.append(token)

    def room(self, _to: Address) -> tuple[int, int]:
        return (10, 1 << 30) if self.there else (0, 0)

    def after(self, _seconds: float, _callback: Any) -> None: ...


class Stage:
    def __init__(self, members: set[str] | None) -> None:
        self.told = Told()
        self.position = Position(Checkpoint("relay", no_database, Fence("ingest", 1, 1)))
        self.sequence = Sequence()
        self.metrics = IngestMetrics(Metrics())
        self.windows = [ShardWindow("shard-0", 2, 1 << 20, 1, 1 << 20)]
        self.intake = Intake(
            "relay",
            self.windows,
            linger=0.0,
            post=self.told,
            sequence=self.sequence,
            position=self.position,
            metrics=self.metrics,
            tries=3,
            members=members,
        )
        self.intake.connected()

    def take(self, kind: Kind, seq: int, did: str) -> Verdict:
        return self.intake.take(frame(kind, seq, did))


@pytest.mark.parametrize("kind", [Kind.COMMIT, Kind.SYNC])
def test_what_strangers_write_is_left_out_and_the_checkpoint_moves_on(kind: Kind) -> None:
    stage = Stage({MINE})
    for seq in range(1, 101):
        assert stage.take(kind, seq, f"did:plc:{seq}") is Verdict.TAKEN
    assert stage.told.frames == []
    assert stage.metrics.foreign.value == 100
    assert stage.metrics.frames[kind].value == 100
    assert (stage.position.durable, stage.sequence.last) == (100, 100)
    assert stage.metrics.drops() == {}


@pytest.mark.parametrize("kind", [Kind.ACCOUNT, Kind.IDENTITY])
def test_events_about_accounts_pass_as_they_may_be_about_who_is_here(kind: Kind) -> None:
    stage = Stage({MINE})
    stage.take(kind, 1, "did:plc:stranger")
    assert len(stage.told.frames) == 1


@pytest.mark.parametrize("members", [{MINE}, None])
def test_what_members_write_passes_and_without_members_everybody_is_one(
    members: set[str] | None,
) -> None:
    stage = Stage(members)
    for kind in (Kind.COMMIT, Kind.SYNC):
        stage.take(kind, 1 + len(stage.told.frames), MINE)
    assert len(stage.told.frames) == 2
    assert stage.metrics.foreign.value == 0


def test_who_is_taken_in_is_so_from_the_next_event_on() -> None:
    members = {MINE}
    stage = Stage(members)
    stage.take(Kind.COMMIT, 1, "did:plc:friend")
    members.add("did:plc:friend")
    stage.take(Kind.COMMIT, 2, "did:plc:friend")
    assert len(stage.told.frames) == 1
    assert stage.metrics.foreign.value == 1


def test_strangers_do_not_move_the_checkpoint_past_what_is_not_durable() -> None:
    stage = Stage({MINE})
    stage.take(Kind.COMMIT, 1, MINE)
    for seq in range(2, 100_000):
        stage.take(Kind.COMMIT, seq, "did:plc:stranger")
    assert stage.position.durable == 0
    # Nor do they pile up meanwhile.
    watermark = stage.position._watermark
    assert len(watermark._begun) + len(watermark._done) == 3
    stage.intake.acked(stage.windows[0], stage.told.batches)
    assert stage.position.durable == 99_999


def test_the_times_of_what_is_left_out_do_not_pile_up() -> None:
    stage = Stage({MINE})
    stage.take(Kind.COMMIT, 1, MINE)
    for seq in range(2, 20_000):
        stage.take(Kind.COMMIT, seq, "did:plc:stranger")
        stage.intake.mark(1_735_689_600.0)
    assert len(stage.position._marks) < 5_000


def test_a_stranger_waits_for_no_full_window() -> None:
    stage = Stage({MINE})
    assert [stage.take(Kind.COMMIT, seq, MINE) for seq in (1, 2, 3)] == [
        *(Verdict.TAKEN, Verdict.TAKEN, Verdict.FULL)
    ]
    assert stage.take(Kind.COMMIT, 3, "did:plc:stranger") is Verdict.TAKEN
